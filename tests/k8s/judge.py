"""Judges one rendered overlay on stdin: judge.py OVERLAY EXIT_TABLE_JSON REKEY. Exits non-zero, saying what is wrong."""

import json
import re
import subprocess
import sys

import kubernetes_validate
import yaml

overlay, table, rekey = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
text = sys.stdin.read()
objects = list(yaml.safe_load_all(text))

# A definition that a cluster has only with the Prometheus operator, and the validator not at all.
for each in [each for each in objects if each["kind"] == "PodMonitor"]:
    assert each["apiVersion"] == "monitoring.coreos.com/v1"
    assert each["spec"]["selector"]["matchLabels"] == {"app.kubernetes.io/name": "rekey"}
    assert [each["port"] for each in each["spec"]["podMetricsEndpoints"]] == ["metrics"]
    namespace = each["metadata"]["namespace"]
    objects.remove(each)
    assert {each["metadata"]["namespace"] for each in objects} == {namespace}
for each in objects:
    kubernetes_validate.validate(each, "1.37", strict=True)

CORE = {"Job", "ServiceAccount", "ConfigMap", "NetworkPolicy"}
kinds = [each["kind"] for each in objects]
assert set(kinds) == CORE, f"kinds {kinds}"
assert kinds.count("Job") == 1, "exactly one Job"
job = objects[kinds.index("Job")]
spec, template = job["spec"], job["spec"]["template"]
pod, (container,) = template["spec"], template["spec"]["containers"]

# The exit codes: each in exactly one rule, with the action of the binary's own table.
rules = spec["podFailurePolicy"]["rules"]
found = {}
for rule in rules:
    if "onExitCodes" in rule:
        assert rule["onExitCodes"]["containerName"] == container["name"]
        assert rule["onExitCodes"]["operator"] == "In"
        found.setdefault(rule["action"], []).extend(rule["onExitCodes"]["values"])
assert {k: sorted(v) for k, v in found.items()} == {k: sorted(v) for k, v in table.items()}, f"{found} is not {table}"
disruption = [r for r in rules if "onPodConditions" in r]
assert disruption == [
    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
], "an evicted pod does not count"
assert pod["restartPolicy"] == "Never", "podFailurePolicy needs it"
assert spec["completions"] == spec["parallelism"], "every pod ends 0 when the table is done"

# Time: rekey's own deadline comes before the Job's, and SIGTERM has its 10 s.
env = {e["name"]: e for e in container["env"]}
hours = re.fullmatch(r"(\d+)h", env["REKEY_DEADLINE"]["value"])
assert hours, "a time instead of a duration cannot be compared here"
assert int(hours[1]) * 3600 + 600 <= spec["activeDeadlineSeconds"], "the checkpoint is saved before the Job is killed"
assert pod["terminationGracePeriodSeconds"] >= 15
assert spec["ttlSecondsAfterFinished"] >= 3600, "somebody wants to read the logs"

# Restricted Pod Security.
assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] >= 1000
assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
own = container["securityContext"]
assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"] and own["capabilities"]["drop"] == ["ALL"]
assert pod["automountServiceAccountToken"] is False
assert {"requests", "limits"} <= container["resources"].keys()

# What is said about pods is said about these pods.
policy = objects[kinds.index("NetworkPolicy")]
wanted = policy["spec"]["podSelector"]["matchLabels"].items()
assert wanted <= template["metadata"]["labels"].items(), "the NetworkPolicy selects these pods"
assert sorted(policy["spec"]["policyTypes"]) == ["Egress", "Ingress"]
account = objects[kinds.index("ServiceAccount")]
assert pod["serviceAccountName"] == account["metadata"]["name"]
assert len({each["metadata"]["namespace"] for each in objects}) == 1

# No secret literal: DATABASE_URL by reference only, and no key anywhere.
assert set(env["DATABASE_URL"]["valueFrom"]) == {"secretKeyRef"}
config = objects[kinds.index("ConfigMap")]["data"]
for name, value in [(n, e.get("value")) for n, e in env.items()] + list(config.items()):
    place = (value or "").startswith("file:/")
    assert place or not re.search(r"PASSWORD|ENCRYPTION_KEY|SECRET_KEY|TOKEN", name), f"{name} is a secret's name"
    assert "://" not in (value or ""), f"{name} holds a URL, perhaps with a password"

# Arguments: the binary knows the command, and every REKEY_ variable.
args = container["args"]
help_text = subprocess.run([rekey, *args[:1], "--help"], capture_output=True, text=True)
if help_text.returncode == 0:
    for word in [a for a in args if a.startswith("--")]:
        assert word in help_text.stdout, f"{args[0]} has no {word}"
    for name in config:
        if name.startswith("REKEY_") and name != "REKEY_SECRET_LAYOUT":
            assert name in help_text.stdout, f"{name} means nothing to {args[0]}"
elif args[0] != "plan":
    raise AssertionError(f"rekey has no command {args[0]}")

expected = {"staging": ["run", "--dry-run"], "production": ["run"], "plan": ["plan"], "verify": ["verify"]}
assert args == expected.get(overlay, [overlay, "--yes"]), args
many = overlay in ("production", "rollback")
assert (spec["completionMode"] == "Indexed") == many and (spec["parallelism"] > 1) == many
