"""Where the keys are: a Secrets Manager that pods can reach (moto on the host's side of their network), or mounted Secrets."""

import os
import secrets
import string
import subprocess
import sys

import boto3
from mounted import Mounted

CURRENT, NEW = "encryption_key", "encryption_key_new"


class InSecretsManager:
    components = ()
    mounted = {}

    def __init__(self, address, prefix, region):
        script = os.path.join(os.path.dirname(__file__), "..", "..", "..", "tests", "support_aws", "moto_mended.py")
        self.server = subprocess.Popen(
            [sys.executable, script, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = f"http://{address}:{self.server.stdout.readline().strip()}"
        self.prefix = prefix
        self.client = boto3.client(
            "secretsmanager",
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id="rehearsal",
            aws_secret_access_key="rehearsal",
        )
        self.old, self.new = make(), make()
        self.client.create_secret(Name=f"{prefix}/{CURRENT}", SecretString=self.old)
        self.client.create_secret(Name=f"{prefix}/{NEW}", SecretString=self.new)

    def injected(self):
        """What a cluster injects by IRSA: how to reach Secrets Manager, and as whom."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "rehearsal",
            "AWS_SECRET_ACCESS_KEY": "rehearsal",
        }

    def current(self):
        return self.client.get_secret_value(SecretId=f"{self.prefix}/{CURRENT}")["SecretString"]

    def promoting(self):
        """promote changes the secret itself."""

    def stop(self):
        self.server.stdin.close()
        self.server.wait(10)


class InFiles:
    """As the component keys-from-files mounts them. promote waits, and whoever keeps the Secret changes it."""

    components = ("keys-from-files",)

    def __init__(self, group):
        self.old, self.new = make(), make()
        key = lambda value: Mounted(group, ENCRYPTION_KEY=value)  # noqa: E731
        self.application = key(self.old)
        self.mounted = {
            "dashtam-encryption-key": self.application,
            "dashtam-encryption-key-old": key(self.old),
            "dashtam-encryption-key-new": key(self.new),
        }

    def injected(self):
        return {}

    def current(self):
        with open(os.path.join(self.application.folder, "ENCRYPTION_KEY")) as file:
            return file.read()

    def promoting(self):
        """The Secret is edited, and the kubelet notices: called again and again while the promote Job waits."""
        if self.current() != self.new:
            self.application.change(ENCRYPTION_KEY=self.new)

    def stop(self):
        for each in self.mounted.values():
            each.clean()


def make():
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(32))
