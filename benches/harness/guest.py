"""The case `guest`: what an application waits for while its rows are moved.

The application is pgbench at a fixed rate over a pool of connections: it selects a row by its id; one transaction in ten
also updates the row. Latencies count from the moment a transaction was due, so that one which waits for a free
connection is not forgotten. Idle, beside one plain UPDATE, beside `rekey run`, and beside a run at half of its speed.
"""

import glob
import os
import subprocess
import time
from dataclasses import asdict, dataclass

from .measure import TABLE, RunFailed
from .variants import FLOOR

RATE, POOL, IDLE_SECONDS = 300, 50, 20
READ = f"SELECT * FROM {TABLE} WHERE id = (SELECT id FROM guest_ids WHERE n = :n);"
SAVE = f"UPDATE {TABLE} SET last_sync_at = now(), updated_at = now() WHERE id = (SELECT id FROM guest_ids WHERE n = :n);"
SCRIPTS = {"read": (9, [READ]), "save": (1, ["BEGIN;", READ, SAVE, "END;"])}


@dataclass
class Beside:
    """Latencies of the application in milliseconds, beside one thing."""

    name: str
    label: str
    takes: float  # seconds
    p50: float
    p95: float
    p99: float
    longest: float
    transactions: int
    hot_share: float
    growth: float

    def as_json(self):
        return asdict(self)


def run(session, case):
    """By name: idle, a plain UPDATE, a run, a run at half its speed."""
    cluster = session.cluster
    floor = cluster.psql(session.database, "-c", FLOOR)
    rekey = [session.programs.rekey, "run", *session.programs.rekey_arguments]
    lines = [
        _beside(session, case, "idle", "idle", None),
        _beside(session, case, "floor1", "floor1: one UPDATE", floor),
        _beside(session, case, "run", "rekey run", rekey),
    ]
    half = str(int(session.loaded[case.template] / lines[-1].takes / 2))
    lines.append(_beside(session, case, "run_half", f"rekey run --max-rate {half}", [*rekey, "--max-rate", half]))
    return {line.name: line for line in lines}


def table(case, lines):
    rows = [("", "p50", "p95", "p99", "max", "takes", "transactions", "HOT", "growth")]
    for line in lines.values():
        rows.append((
            line.label, *(f"{value:,.1f}" for value in (line.p50, line.p95, line.p99, line.longest)), f"{line.takes:.1f} s",
            f"{line.transactions:,}", f"{line.hot_share:.0%}", f"{line.growth:.1%}",
        ))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    shown = [case.label + f": latency in ms of {RATE} transactions a second, {POOL} connections"]
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        shown.append("  " + "  ".join(cells).rstrip())
    return "\n".join(shown)


def _beside(session, case, name, label, command):
    cluster, database = session.cluster, session.database
    cluster.copy(case.template, database)
    before = _sizes(cluster, database)
    log = os.path.join(cluster.folder, "guest")
    for old in glob.glob(log + ".*"):
        os.remove(old)
    application = _application(cluster, database, session.loaded[case.template], log)
    try:
        active = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench' AND datname = '{database}'"
        while int(cluster.ask("postgres", active)[0][0]) < POOL:
            if application.poll() is not None:
                raise RunFailed(f"pgbench ended:\n{application.stderr.read()}")
            time.sleep(0.05)
        began = time.time()
        if command is None:
            time.sleep(IDLE_SECONDS)
        else:
            with open(os.path.join(cluster.folder, "client.log"), "wb") as output:
                done = subprocess.run(command, env=session.environment(), stdin=subprocess.DEVNULL, stdout=output,
                                      stderr=output, check=False)
            if done.returncode != 0:
                raise RunFailed(f"{label} ended with {done.returncode}")
        ended = time.time()
        after = _sizes(cluster, database)
        # What waited for the last lock is answered, and counted; then pgbench loses its connections and writes its log.
        time.sleep(1)
        cluster.ask("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'")
        application.wait(timeout=60)
    finally:
        if application.poll() is None:
            application.kill()
            application.wait()
    latencies = sorted(_latencies(log, began, ended))
    at = lambda share: latencies[min(len(latencies) - 1, int(share * len(latencies)))] / 1000
    updates = after[1] - before[1]
    return Beside(
        name, label, ended - began, at(0.5), at(0.95), at(0.99), at(1.0), len(latencies),
        (after[2] - before[2]) / updates if updates else 0.0, after[0] / before[0] - 1,
    )


def _application(cluster, database, rows, log):
    command = ["pgbench", "-n", "-h", "127.0.0.1", "-p", str(cluster.port), "-U", "postgres", "-M", "prepared", "-c", str(POOL), "-j", "1",
               "-R", str(RATE), "-T", "86400", "-D", f"rows={rows}", "-l", "--log-prefix", log]
    for name, (weight, statements) in SCRIPTS.items():
        script = os.path.join(cluster.folder, f"guest-{name}.sql")
        with open(script, "w") as file:
            file.write("\n".join(["\\set n random(1, :rows)", *statements]) + "\n")
        command += ["-f", f"{script}@{weight}"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return subprocess.Popen(
        [*command, database], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**environment, "PGAPPNAME": "pgbench"},
    )


def _latencies(log, began, ended):
    """Microseconds of the transactions that were due between the two: client, number, latency, script, s, us, lag."""
    for path in glob.glob(log + ".*"):
        with open(path) as file:
            for line in file:
                fields = line.split()
                if len(fields) < 7 or not fields[2].isdigit():
                    continue
                latency = int(fields[2])
                due = int(fields[4]) + int(fields[5]) / 1e6 - latency / 1e6
                if began <= due <= ended:
                    yield latency


def _sizes(cluster, database):
    row = cluster.ask(
        database, f"SELECT pg_total_relation_size(relid), n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = '{TABLE}'"
    )[0]
    return [int(value) for value in row]
