"""Plays the Job controller: as many pods as the Job asks for, replaced as its podFailurePolicy says."""

import json
import time
import urllib.request

from docker_cli import docker, inspect


class Failed(Exception):
    pass


class Job:
    def __init__(self, overlay, run, **pod):
        self.overlay, self.prefix, self.options = overlay, f"{run}-{overlay.job['metadata']['name']}", pod
        self.live, self.done, self.words, self.memory = {}, {}, {}, 0
        self.started, self.ends, self.failures = 0, [], 0
        for index in range(overlay.spec["completions"]):
            self.start(index)

    def start(self, index):
        name = f"{self.prefix}-{index}-{self.started}"
        self.words[name] = self.overlay.start(name, index=index, **self.options)
        self.live[index] = name
        self.started += 1

    def watch(self, limit, midway=None):
        """Until every index has succeeded. `midway` is called between two looks."""
        deadline = time.monotonic() + limit
        while self.live:
            if time.monotonic() > deadline:
                raise Failed(f"{self.prefix} did not end within {limit} s: {list(self.live.values())}")
            for index, name in list(self.live.items()):
                self.memory = max(self.memory, peak(name))
                state = inspect("container", name)["State"]
                if not state["Running"]:
                    del self.live[index]
                    self.ended(index, name, state["ExitCode"])
            if midway:
                midway()
            time.sleep(0.1)

    def ended(self, index, name, code):
        self.ends.append(code)
        if code == 0:
            self.done[index] = name
            return
        action = self.overlay.action(code)
        self.failures += action == "Count"
        if action == "FailJob" or self.failures > self.overlay.spec["backoffLimit"]:
            raise Failed(f"{name} ended with {code}: {action}\n{docker('logs', '--tail', '20', name)}")
        self.start(index)

    def termination_message(self, index):
        """What the pod that succeeded wrote where Kubernetes picks it up."""
        with open(self.words[self.done[index]].name) as file:
            return json.load(file)

    def probe(self, index, which):
        """The answer to one of the template's probes."""
        name = self.live[index]
        asked = self.overlay.container[which]["httpGet"]
        (port,) = [p["containerPort"] for p in self.overlay.container["ports"] if p["name"] == asked["port"]]
        (network,) = inspect("container", name)["NetworkSettings"]["Networks"].values()
        with urllib.request.urlopen(f"http://{network['IPAddress']}:{port}{asked['path']}", timeout=5) as answer:
            return answer.status


def peak(name):
    """The most memory a container has used so far, in bytes, page cache included; 0 once it has ended."""
    identity = inspect("container", name)["Id"]
    for path in (
        f"/sys/fs/cgroup/memory/docker/{identity}/memory.max_usage_in_bytes",
        f"/sys/fs/cgroup/system.slice/docker-{identity}.scope/memory.peak",
    ):
        try:
            with open(path) as file:
                return int(file.read())
        except OSError:
            pass
    return 0
