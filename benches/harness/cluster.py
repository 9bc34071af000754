"""A throw-away PostgreSQL cluster: started, asked, copied from and removed by the benchmark.

As root the server runs as user postgres, as it must. Nothing outside the scratch folder is touched.
"""

import glob
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import time

# Stock is initdb's own file, untouched: autovacuum on, 128 MB of buffers, a checkpoint for each GB of WAL.
# Tuned is what a database of a few GB usually gets; autovacuum is off there, because whether a worker
# happens to wake up inside a run of ten seconds is chance. The case "autovacuum" has it on, and eager.
TUNED = {
    "shared_buffers": "2GB",
    "max_wal_size": "16GB",
    "min_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "autovacuum": "off",
}
CONFIGURATIONS = {
    "stock": {},
    "tuned": TUNED,
    "autovacuum": {**TUNED, "autovacuum": "on", "autovacuum_naptime": "1s"},
    "profiled": {**TUNED, "shared_preload_libraries": "pg_stat_statements"},
}


class ClusterError(RuntimeError):
    """The server, or psql, refused."""


def server_programs():
    """The folder of initdb and pg_ctl: the newest server installed."""
    found = glob.glob("/usr/lib/postgresql/*/bin/initdb") + glob.glob("/usr/pgsql-*/bin/initdb")
    found.sort(key=lambda path: int(re.search(r"(\d+)/bin", path).group(1)))
    if found:
        return os.path.dirname(found[-1])
    on_path = shutil.which("initdb")
    if on_path:
        return os.path.dirname(os.path.realpath(on_path))
    raise ClusterError("no PostgreSQL server found: install the package postgresql")


class Cluster:
    def __init__(self, parent=None):
        self.programs = server_programs()
        self.folder = tempfile.mkdtemp(prefix="rekey-bench-", dir=parent)
        self.data = os.path.join(self.folder, "data")
        self.as_server = []
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self.as_server = ["runuser", "-u", "postgres", "--"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.configuration = None
        self._server("initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "-N", "--locale=C.UTF-8")

    def start(self, configuration):
        """Runs the server with this configuration, restarting it where it runs with another."""
        if self.configuration == configuration:
            return
        self.stop()
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder}
        settings.update(CONFIGURATIONS[configuration])
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        log = os.path.join(self.folder, "server.log")
        self._server("pg_ctl", "-D", self.data, "-w", "-t", "120", "-l", log, "-o", options, "start")
        self.configuration = configuration
        self._touch_buffers()

    def _touch_buffers(self):
        """Fills the shared buffers once with pages that are then dropped. The kernel clears each of them when it is first
        used, which on this machine was a fifth of a row's CPU: a server that has run for a minute has that behind it."""
        pages = self.ask("postgres", "SELECT setting FROM pg_settings WHERE name = 'shared_buffers'")[0][0]
        self.ask("postgres", "CREATE UNLOGGED TABLE touched (page text)")
        self.ask("postgres", "ALTER TABLE touched ALTER page SET STORAGE PLAIN")
        self.ask("postgres", f"INSERT INTO touched SELECT repeat('x', 8000) FROM generate_series(1, {pages})")
        self.ask("postgres", "DROP TABLE touched")

    def stop(self, mode="fast"):
        if self.configuration is not None:
            self._server("pg_ctl", "-D", self.data, "-w", "-t", "120", "-m", mode, "stop")
            self.configuration = None

    def remove(self):
        try:
            self.stop("immediate")  # nothing here is worth a checkpoint any more
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database):
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def psql(self, database, *arguments):
        """The command line that runs psql on a database, with nothing of the user's own settings."""
        return ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), *arguments]

    def ask(self, database, sql):
        """The rows of a query, as lists of text."""
        done = subprocess.run(
            self.psql(database, "-A", "-t", "-F", "\t", "-c", sql), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise ClusterError(done.stderr.strip())
        return [line.split("\t") for line in done.stdout.splitlines()]

    def copy(self, template, database):
        """A fresh copy of a loaded database, and a checkpoint, so that every run starts alike."""
        self.drop(database)
        # CREATE DATABASE … STRATEGY exists since 15; before, copying files was the only way.
        strategy = " STRATEGY FILE_COPY" if self.version() >= 150000 else ""
        self.ask("postgres", f"CREATE DATABASE {database} TEMPLATE {template}{strategy}")
        self.ask(database, "CHECKPOINT")

    def drop(self, database):
        for attempt in range(50):
            try:
                self.ask("postgres", f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
                return
            except ClusterError:
                if attempt == 49:
                    raise
                time.sleep(0.1)

    def version(self):
        return int(self.ask("postgres", "SHOW server_version_num")[0][0])

    def cpu_seconds(self):
        """CPU of the whole server so far: the postmaster, its living children, and those it has reaped."""
        with open(os.path.join(self.data, "postmaster.pid")) as file:
            postmaster = int(file.readline())
        ticks = sum(_times(postmaster))
        with open(f"/proc/{postmaster}/task/{postmaster}/children") as file:
            children = file.read().split()
        for child in children:
            try:
                ticks += sum(_times(int(child))[:2])
            except (FileNotFoundError, ProcessLookupError):
                continue
        return ticks / os.sysconf("SC_CLK_TCK")

    def _server(self, program, *arguments):
        done = subprocess.run(
            [*self.as_server, os.path.join(self.programs, program), *arguments],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd="/", check=False,
        )
        if done.returncode != 0:
            raise ClusterError(f"{program}: {done.stderr.strip()}")


def _times(pid):
    """utime, stime, cutime, cstime of a process in clock ticks: fields 14 to 17 of proc(5) stat."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return [int(field) for field in fields[11:15]]
