"""Validates JSON documents, a line each on stdin, against docs/schema/output-v1.json. Prints what is wrong with them."""

import json
import re
import sys

import jsonschema

schema = json.load(open(sys.argv[1]))
judge = jsonschema.Draft202012Validator
judge.check_schema(schema)
judge = judge(schema, format_checker=judge.FORMAT_CHECKER)
UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def values(value, path="$"):
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from values(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from values(inner, f"{path}[{n}]")
    else:
        yield path, value


for line in sys.stdin:
    document = json.loads(line)
    title = document.pop("title")
    document = document["document"]
    for error in judge.iter_errors(document):
        causes = [f"{e.json_path}: {e.message[:300]}" for e in error.context or [error]]
        print(f"{title}: {error.json_path}: " + " | ".join(causes))
    for path, value in values(document):
        # Whole numbers are integers, and whatever begins like a time is one in UTC.
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            print(f"{title}: {path}: {value} is no integer")
        if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:", value) and not UTC.fullmatch(value):
            print(f"{title}: {path}: {value} is no time in UTC")
