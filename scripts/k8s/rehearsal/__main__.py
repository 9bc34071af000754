"""The rehearsal: the production Job without a cluster, from run to promote, and a line for each thing seen.

Started by scripts/k8s/rehearse. overlay.py renders the manifests and starts a pod, controller.py plays the Job controller,
database.py is PostgreSQL and the judge of every row, keys.py is where the keys are, mounted.py a Secret as a volume,
password.py a password that changes, docker_cli.py calls docker.
"""

import argparse
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from database import Database
from docker_cli import docker, inspect
from controller import Failed, Job
from keys import InFiles, InSecretsManager
from overlay import Overlay
from password import Fixed, Rotating


def arguments():
    parser = argparse.ArgumentParser(description="The production Job under Docker, from run to promote")
    parser.add_argument("--rows", type=int, default=1_000_000, help="connections in the table")
    parser.add_argument("--bytes", type=int, default=500, help="bytes of each stored credential")
    parser.add_argument("--image", default="rekey:dev", help="the image under test")
    parser.add_argument("--pace", type=int, default=0, metavar="MS", help="each commit takes at least this long: a small table has a middle")
    parser.add_argument("--keys-from-files", action="store_true", help="keys are mounted Secrets, not in Secrets Manager")
    parser.add_argument("--rotate-password", type=float, metavar="SECONDS", help="change the database's password so often while pods run, and end every session")
    return parser.parse_args()


def tell(what, figure):
    print(f"{what:<42} {figure}", flush=True)


def timed(what, rows, work):
    began = time.monotonic()
    result = work()
    took = time.monotonic() - began
    tell(what, f"{took:.1f} s, {rows / took:,.0f} rows/s" if rows else f"{took:.1f} s")
    return result


class Rehearsal:
    def __init__(self, options):
        self.options, self.name = options, f"rekey-rehearsal-{os.getpid()}"
        plain = Overlay("production")
        config, group = plain.of("ConfigMap")["data"], plain.pod["securityContext"]["fsGroup"]
        docker("network", "create", self.name)
        gateway = inspect("network", self.name)["IPAM"]["Config"][0]["Gateway"]
        self.keys = InFiles(group) if options.keys_from_files else InSecretsManager(gateway, config["AWS_SECRET_NAME"], config["AWS_REGION"])
        self.database = Database(f"{self.name}-db", self.name)
        self.password = Rotating(self.database, group, options.rotate_password) if options.rotate_password else Fixed()
        self.production = self.overlay("production")

    def overlay(self, name):
        return Overlay(name, (*self.keys.components, *self.password.components))

    def job(self, overlay):
        url = f"postgresql+asyncpg://{self.password.role}@{self.name}-db:5432/dashtam"
        return Job(
            overlay,
            self.name,
            image=self.options.image,
            network=self.name,
            secrets={("rekey-database", "url"): url},
            mounted=self.keys.mounted | self.password.mounted,
            # Who and why are what a site writes into its values.
            injected=self.keys.injected() | {"REKEY_OPERATOR": "rehearsal", "REKEY_REASON": "rehearsal"},
        )

    def play(self):
        options, database = self.options, self.database
        timed(f"loaded, {options.rows:,} rows of {options.bytes} bytes", options.rows, lambda: database.load(options.rows, options.bytes, self.keys.old))
        before = database.opened_with(self.keys.old)
        if options.pace:
            database.psql(f"ALTER DATABASE dashtam SET commit_siblings = 0; ALTER DATABASE dashtam SET commit_delay = {options.pace * 1000}; ALTER DATABASE dashtam SET synchronous_commit = 'local'")
        with self.password:
            self.run(before[0])
        if self.password.changes:
            tell("the database's password was changed", f"{self.password.changes} times, and every session ended")
        if options.pace:
            database.psql("ALTER DATABASE dashtam RESET ALL")
        verify = self.job(self.overlay("verify"))
        timed("verified by the verify Job", options.rows, lambda: verify.watch(900))
        tell("its termination message", verify.termination_message(0))
        if database.opened_with(self.keys.new) != before:
            raise Failed("credentials differ from what they were")
        tell("opened by other cryptography, bytes equal", f"{before[0]:,} of {before[0]:,} credentials")
        promote = self.job(self.overlay("promote"))
        timed("promoted by the promote Job", 0, lambda: promote.watch(900, self.keys.promoting))
        tell("its termination message", promote.termination_message(0))
        if self.keys.current() != self.keys.new:
            raise Failed("the application still reads the old key")
        tell("the application's mounted file" if self.options.keys_from_files else "the application's secret", "yields the new key")

    def run(self, credentials):
        job = self.job(self.production)
        pods, hurt = len(job.live), []

        def midway():
            if len(hurt) == 2 or len(job.live) < pods:
                return
            share = self.database.moved() / credentials if self.begun() else 0
            if not hurt and share >= 0.2:
                tell("in the middle, /livez and /readyz", f"{job.probe(0, 'livenessProbe')}, {job.probe(0, 'readinessProbe')}")
                docker("kill", "--signal", "KILL", job.live[1])
                hurt.append(f"one killed at {share:.0%}")
            elif hurt and share >= 0.5:
                docker("kill", "--signal", "TERM", job.live[2])
                hurt.append(f"one told to stop at {share:.0%}")

        timed(f"re-encrypted by {pods} pods", credentials, lambda: job.watch(3600, midway))
        tell("meanwhile", ", ".join(hurt) or "no pod was killed: the run was too quick")
        tell("exit codes, in the order of the ends", " ".join(map(str, job.ends)))
        tell("most memory of a pod, page cache included", f"{job.memory / 2**20:.0f} MiB of {self.production.container['resources']['limits']['memory']}")
        if not hurt or 137 not in job.ends:
            raise Failed("no pod was killed in the middle: take more rows, or a --pace")
        done = self.database.moved()
        if done != credentials:
            raise Failed(f"{done} of {credentials} credentials are counted")

    def begun(self):
        return self.database.value("SELECT to_regclass('rekey.chunks') IS NOT NULL") == "t"

    def clean(self):
        self.keys.stop()
        self.password.stop()
        containers = docker("ps", "--all", "--quiet", "--filter", f"name={self.name}").split()
        if containers:
            docker("rm", "--force", "--volumes", *containers)
        docker("network", "rm", self.name)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rehearsal = Rehearsal(arguments())
    try:
        rehearsal.play()
    except (Failed, subprocess.CalledProcessError) as error:
        sys.exit(f"rehearse: {error}")
    finally:
        rehearsal.clean()
    print("finished, verified, promoted")


main()
