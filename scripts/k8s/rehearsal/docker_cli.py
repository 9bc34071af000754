"""The docker command line."""

import json
import subprocess


def docker(*arguments, **more):
    """Runs `docker …`, which must succeed, and returns what it printed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise SystemExit(f"docker {' '.join(arguments)}: {done.stderr}")
    return done.stdout.strip()


def inspect(kind, name):
    return json.loads(docker(kind, "inspect", name))[0]
