"""Runs client processes and measures them: time, CPU, peak memory, and what the table and the WAL went through.

Knows nothing about variants or cases.
"""

import os
import subprocess
import time
from dataclasses import asdict, dataclass

TABLE = "provider_connections"


@dataclass
class Result:
    """One measured run."""

    rows: int
    seconds: float
    wal_bytes_per_row: float
    hot_share: float  # of the row versions written; 0 where none was
    growth: float  # of heap, TOAST and indexes together, as a share of the size before
    peak_rss_mb: float  # the largest of the client processes
    client_cpu_us_per_row: float
    server_cpu_us_per_row: float
    updates: int
    chunks: int  # that rekey carved, over all its passes
    takeovers: int  # leases that another worker took over, or that were given back: of an undisturbed run, none

    @property
    def rate(self):
        return self.rows / self.seconds

    @property
    def rate_per_core(self):
        """Rows a second, per core that the client kept busy; never better than the plain rate."""
        busy = self.client_cpu_us_per_row * self.rows / 1e6 / self.seconds
        return self.rate / max(1.0, busy)

    def as_json(self):
        return {"rows_per_second": self.rate, **asdict(self)}


class RunFailed(RuntimeError):
    """A variant's process ended with another code than 0, or did not do its work."""


def measure(cluster, database, commands, environment, rows, log):
    """Runs the commands at the same time to their end, and compares before and after."""
    cluster.ask(database, "CHECKPOINT")
    before = _observe(cluster, database)
    started = time.monotonic()
    with open(log, "wb") as output:
        children = [
            subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            for command in commands
        ]
        peak, cpu = _watch(children, log)
    seconds = time.monotonic() - started
    after = _observe(cluster, database)
    updates = after["updates"] - before["updates"]
    return Result(
        rows=rows,
        seconds=seconds,
        wal_bytes_per_row=(after["wal"] - before["wal"]) / rows,
        hot_share=(after["hot"] - before["hot"]) / updates if updates else 0.0,
        growth=after["size"] / before["size"] - 1,
        peak_rss_mb=peak / 1024,
        client_cpu_us_per_row=cpu * 1e6 / rows,
        server_cpu_us_per_row=(after["cpu"] - before["cpu"]) * 1e6 / rows,
        updates=updates,
        **_leases(cluster, database),
    )


def _watch(children, log):
    """Waits for all; the highest resident size in kB of any, and the CPU seconds of all together."""
    peak, cpu, alive = 0, 0.0, list(children)
    try:
        while alive:
            for child in list(alive):
                peak = max(peak, _peak_rss(child.pid))
                pid, status, usage = os.wait4(child.pid, os.WNOHANG)
                if pid == 0:
                    continue
                alive.remove(child)
                child.returncode = os.waitstatus_to_exitcode(status)
                cpu += usage.ru_utime + usage.ru_stime
                if child.returncode != 0:
                    raise RunFailed(f"{os.path.basename(child.args[0])} ended with {child.returncode}:\n{_tail(log)}")
            time.sleep(0.01)
    finally:
        for child in alive:
            child.kill()
            child.wait()
    return peak, cpu


def _peak_rss(pid):
    """VmHWM. Not ru_maxrss: that one also counts what Python held when it forked."""
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def _observe(cluster, database):
    cpu = cluster.cpu_seconds()
    row = cluster.ask(
        database,
        "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, n_tup_upd, n_tup_hot_upd, pg_total_relation_size(relid)"
        f" FROM pg_stat_user_tables WHERE relname = '{TABLE}' AND schemaname = 'public'",
    )[0]
    wal, updates, hot, size = (int(value) for value in row)
    return {"cpu": cpu, "wal": wal, "updates": updates, "hot": hot, "size": size}


def _leases(cluster, database):
    """What the ledger says of the chunks and their leases; nothing where rekey did not run."""
    if cluster.ask(database, "SELECT to_regclass('rekey.chunks') IS NULL")[0][0] == "t":
        return {"chunks": 0, "takeovers": 0}
    row = cluster.ask(database, "SELECT count(*), coalesce(sum(epoch - 1), 0) FROM rekey.chunks")[0]
    return {"chunks": int(row[0]), "takeovers": int(row[1])}


def _tail(log):
    with open(log, errors="replace") as file:
        return "".join(file.readlines()[-15:])
