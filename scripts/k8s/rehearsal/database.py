"""PostgreSQL in a container with the application's tables, and a check of every row by cryptography of its own."""

import hashlib
import os
import subprocess
import time

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from docker_cli import docker


class Database:
    def __init__(self, name, network):
        self.name = name
        docker(
            "run", "--detach", "--name", name, "--network", network, "--env", "POSTGRES_HOST_AUTH_METHOD=trust",
            "--env", "POSTGRES_DB=dashtam", "--shm-size", "256m", "postgres:15", "-c", "max_wal_size=4GB",
            "-c", "shared_buffers=256MB",
        )  # fmt: skip
        for _ in range(600):
            tried = self.psql("SELECT 1", check=False)
            # The first server only runs the init scripts, without TCP.
            if tried.returncode == 0:
                break
            time.sleep(0.1)
        with open("fixtures/schema.sql") as schema:
            self.psql(schema.read())

    def command(self, *arguments):
        return ["docker", "exec", "-i", self.name, "psql", "-h", "127.0.0.1", "-U", "postgres", "-d", "dashtam", "-qXAt", *arguments]

    def psql(self, sql, check=True):
        done = subprocess.run(self.command("-v", "ON_ERROR_STOP=1"), input=sql, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise SystemExit(f"psql: {done.stderr}")
        return done

    def value(self, sql):
        return self.psql(sql).stdout.strip()

    def load(self, rows, size, key):
        folder = os.environ.get("CARGO_TARGET_DIR", "target")
        made = subprocess.Popen(
            [f"{folder}/debug/generate", "--rows", str(rows), "--bytes", str(size), "--nulls", "2"],
            stdout=subprocess.PIPE,
            env=os.environ | {"ENCRYPTION_KEY": key},
        )
        subprocess.run(self.command("-v", "ON_ERROR_STOP=1"), stdin=made.stdout, stdout=subprocess.DEVNULL, check=True)
        assert made.wait() == 0

    def ask_for_passwords_of(self, role):
        """A superuser who has to know a password, which others need not."""
        docker("exec", self.name, "sh", "-c", f"sed -i '1i host all {role} all scram-sha-256' \"$PGDATA/pg_hba.conf\"")
        self.psql(f"CREATE ROLE {role} SUPERUSER LOGIN; SELECT pg_reload_conf()")

    def change_password(self, role, password):
        """The old one opens nothing any more, nor does a connection that it opened."""
        self.psql(f"ALTER ROLE {role} PASSWORD '{password}'; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")

    def moved(self):
        return int(self.value("SELECT coalesce(sum(re_encrypted), 0) FROM rekey.chunks") or 0)

    def opened_with(self, key):
        """How many credentials there are, and one digest of all of them with their ids; each must open with `key`."""
        opener, digest, count = AESGCM(key.encode()), hashlib.sha256(), 0
        sql = "COPY (SELECT id, encode(encrypted_credentials, 'hex') FROM provider_connections WHERE encrypted_credentials IS NOT NULL ORDER BY id) TO STDOUT"
        rows = subprocess.Popen(self.command("-c", sql), stdout=subprocess.PIPE, text=True)
        for line in rows.stdout:
            identity, sealed = line.split("\t")
            sealed = bytes.fromhex(sealed)
            digest.update(identity.encode() + opener.decrypt(sealed[:12], sealed[12:], None))
            count += 1
        assert rows.wait() == 0
        return count, digest.hexdigest()
