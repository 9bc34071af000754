"""A Secrets Manager that pods can reach: moto on the host's side of their network, with both keys in it."""

import os
import secrets
import string
import subprocess
import sys

import boto3

CURRENT, NEW = "encryption_key", "encryption_key_new"


class Keys:
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

    def stop(self):
        self.server.stdin.close()
        self.server.wait(10)


def make():
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(32))
