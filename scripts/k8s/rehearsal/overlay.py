"""What an overlay renders to, and its pod template as `docker run` understands it."""

import os
import subprocess
import tempfile

import yaml
from docker_cli import docker


class Overlay:
    def __init__(self, name, components=()):
        """With components, it is what a site would write: an overlay of its own on this one."""
        here = os.path.realpath(os.path.join(os.path.dirname(__file__), ".."))
        with tempfile.TemporaryDirectory() as own:
            relative = os.path.relpath(here, os.path.realpath(own))
            text = {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [f"{relative}/overlays/{name}"],
                "components": [f"{relative}/components/{each}" for each in components],
            }
            with open(os.path.join(own, "kustomization.yaml"), "w") as file:
                yaml.safe_dump(text, file)
            rendered = subprocess.run(["kubectl", "kustomize", own], check=True, capture_output=True, text=True)
        self.objects = list(yaml.safe_load_all(rendered.stdout))
        self.job = self.of("Job")
        self.spec = self.job["spec"]
        self.pod = self.spec["template"]["spec"]
        (self.container,) = self.pod["containers"]

    def of(self, kind):
        (found,) = [each for each in self.objects if each["kind"] == kind]
        return found

    def environment(self, secrets):
        """envFrom, then env, as the kubelet resolves them; `secrets` holds the values of Secrets by name and key."""
        resolved = {}
        for source in self.container.get("envFrom", []):
            assert source["configMapRef"]["name"] == self.of("ConfigMap")["metadata"]["name"]
            resolved |= self.of("ConfigMap")["data"]
        for each in self.container.get("env", []):
            origin = each.get("valueFrom", {})
            if "secretKeyRef" in origin:
                value = secrets[origin["secretKeyRef"]["name"], origin["secretKeyRef"]["key"]]
            elif "fieldRef" in origin:
                value = {"spec.serviceAccountName": self.pod["serviceAccountName"]}[origin["fieldRef"]["fieldPath"]]
            else:
                value = each["value"]
            resolved[each["name"]] = value
        return resolved

    def start(self, name, image, network, index, secrets, mounted, injected):
        """One pod of it. `mounted` holds Secrets that are volumes, by name. `injected` is what the cluster adds: here an
        endpoint and credentials, in place of IRSA."""
        own, pod = self.container["securityContext"], self.pod["securityContext"]
        options = ["--user", f"{pod['runAsUser']}:{pod['runAsGroup']}", "--group-add", str(pod["fsGroup"])]
        options += ["--stop-timeout", str(self.pod["terminationGracePeriodSeconds"])]
        options += [f"--cap-drop={each}" for each in own["capabilities"]["drop"]]
        if own["readOnlyRootFilesystem"]:
            options.append("--read-only")
        if not own["allowPrivilegeEscalation"]:
            options.append("--security-opt=no-new-privileges")
        limits = self.container["resources"]["limits"]
        memory = limits["memory"].removesuffix("i").lower()
        options += ["--memory", memory, "--memory-swap", memory, "--cpus", limits["cpu"]]
        # What a kubelet sets for every pod.
        options += ["--pids-limit", "256", "--hostname", name]
        word = tempfile.NamedTemporaryFile(prefix="rekey-last-word-")
        os.chmod(word.name, 0o666)
        options += ["--volume", f"{word.name}:{self.container['terminationMessagePath']}"]
        volumes = {each["name"]: each for each in self.pod.get("volumes", [])}
        for mount in self.container.get("volumeMounts", []):
            secret = volumes.get(mount["name"], {}).get("secret")
            if secret:
                options += ["--volume", f"{mounted[secret['secretName']].folder}:{mount['mountPath']}:ro"]
            else:
                options += ["--tmpfs", mount["mountPath"]]
        environment = self.environment(secrets) | injected
        if self.spec.get("completionMode") == "Indexed":
            environment["JOB_COMPLETION_INDEX"] = str(index)
        # By name only: values would be seen in the list of processes.
        options += [f"--env={each}" for each in environment]
        docker(
            "run", "--detach", "--name", name, "--network", network, *options, image,
            *self.container.get("args", []), env=os.environ | environment,
        )  # fmt: skip
        return word

    def action(self, code):
        """What podFailurePolicy says about an exit code."""
        for rule in self.spec["podFailurePolicy"]["rules"]:
            if code in rule.get("onExitCodes", {}).get("values", []):
                return rule["action"]
        return "Count"
