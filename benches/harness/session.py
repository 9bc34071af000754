"""One benchmark from start to end: loads each case's data once, runs its variants interleaved, collects results."""

import os
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass, field

from . import guest
from .cases import Case
from .cluster import Cluster
from .measure import TABLE, RunFailed, measure
from .variants import ALL, COLUMN, commands, guide_python

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATABASE = "bench"


@dataclass
class Programs:
    rekey: str
    generate: str
    rekey_arguments: list = field(default_factory=list)


class Session:
    database = DATABASE

    def __init__(self, programs, scratch, only):
        self.programs = programs
        self.only = only
        self.failures = []
        self.loaded = {}  # template to the credentials in it
        # Both keys are made for this run and die with it; they travel in the environment only.
        self.keys = {name: secrets.token_urlsafe(24)[:32] for name in ("ENCRYPTION_KEY", "NEW_ENCRYPTION_KEY")}
        self.cluster = Cluster(scratch)

    def run(self, case: Case, repetitions):
        """All repetitions of one case: variant name to its results, in the order of the case."""
        self.cluster.start(case.configuration)
        self.load(case)
        if case.variants == ("guest",):
            return self.run_guest(case)
        names = [name for name in case.variants if not self.only or name in self.only]
        first = [name for name in names if not ALL[name].after]
        if "guide" in first:
            guide_python()  # made before anything is timed
        results = {name: [] for name in names}
        repetitions = min(repetitions, case.most_repetitions)
        for repetition in range(repetitions):
            # Each repetition starts with another variant, so that none always runs after the same one.
            turn = repetition % len(first) if first else 0
            for name in first[turn:] + first[:turn]:
                if repetition < ALL[name].most_repetitions:
                    self._run_fresh(case, name, names, results, f"{repetition + 1}/{repetitions}")
        self.cluster.drop(DATABASE)
        return {name: runs for name, runs in results.items() if runs}

    def run_guest(self, case):
        """What an application waits for; no rates, and once."""
        try:
            return guest.run(self, case)
        except RunFailed as error:
            self.failures.append(f"{case.name}: {error}")
            _say(self.failures[-1])
            return {}
        finally:
            self.cluster.drop(DATABASE)

    def close(self):
        self.cluster.remove()

    def _run_fresh(self, case, name, names, results, turn):
        self.cluster.copy(case.template, DATABASE)
        holder = self.hold_snapshot() if case.held_snapshot else None
        try:
            followers = [other for other in names if ALL[other].after == name]
            for one in [name, *followers]:
                result = self.measure(case, one)
                results[one].append(result)
                _say(f"{case.name} {turn} {ALL[one].label}: {result.rate:,.0f} rows/s")
        except RunFailed as error:
            self.failures.append(f"{case.name}, {ALL[name].label}: {error}")
            _say(self.failures[-1])
        finally:
            if holder:
                holder.kill()
                holder.wait()

    def measure(self, case, name):
        variant = ALL[name]
        log = os.path.join(self.cluster.folder, "client.log")
        started = commands(variant, self.cluster, DATABASE, self.programs)
        rows = self.loaded[case.template]
        result = measure(self.cluster, DATABASE, started, self.environment(), rows, log)
        if variant.writes and result.updates < rows:
            raise RunFailed(f"only {result.updates} of {rows} rows were updated")
        return result

    def environment(self):
        """A client's: both keys and the database, and nothing of the user's own that would steer it."""
        own = {key: value for key, value in os.environ.items() if not key.startswith(("REKEY_", "PG", "AWS_"))}
        return {**own, **self.keys, "DATABASE_URL": self.cluster.url(DATABASE)}

    def load(self, case):
        """Fills the case's template once: COPY, then VACUUM (ANALYZE). No row has been updated yet, unless the case has a past."""
        if case.template in self.loaded:
            return
        started = time.monotonic()
        self.cluster.ask("postgres", f"CREATE DATABASE {case.template}")
        schema = os.path.join(ROOT, "fixtures", "schema.sql")
        subprocess.run(self.cluster.psql(case.template, "-f", schema), check=True, stdout=subprocess.DEVNULL)
        generate = subprocess.Popen(
            [self.programs.generate, "--rows", str(case.rows), "--bytes", str(case.bytes), "--ids", case.ids,
             "--mix", case.mix, "--nulls", str(case.nulls)],
            stdout=subprocess.PIPE, env={**os.environ, "ENCRYPTION_KEY": self.keys["ENCRYPTION_KEY"]},
        )
        # Foreign keys hold by construction; checking two of them a row would be half of the loading.
        trusted = {**os.environ, "PGOPTIONS": "-c session_replication_role=replica"}
        subprocess.run(
            self.cluster.psql(case.template), stdin=generate.stdout, stdout=subprocess.DEVNULL, env=trusted, check=True
        )
        generate.stdout.close()
        if generate.wait() != 0:
            raise RunFailed("the generator failed")
        self.cluster.ask(case.template, f"VACUUM (ANALYZE) {TABLE}")
        for statement in case.past:
            self.cluster.ask(case.template, statement)
            self.cluster.ask(case.template, f"VACUUM (ANALYZE) {TABLE}")
        self.loaded[case.template] = int(self.cluster.ask(case.template, f"SELECT count({COLUMN}) FROM {TABLE}")[0][0])
        _say(f"{case.name}: loaded {case.rows:,} rows in {time.monotonic() - started:.0f} s")

    def hold_snapshot(self):
        """Another session that keeps a snapshot open, as a report or a forgotten transaction does."""
        hold = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM providers; SELECT pg_sleep(86400)"
        holder = subprocess.Popen(
            self.cluster.psql(DATABASE, "-c", hold), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        asleep = "SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND wait_event = 'PgSleep'"
        while self.cluster.ask(DATABASE, asleep)[0][0] == "0":
            time.sleep(0.05)
        return holder


def _say(line):
    print(line, file=sys.stderr, flush=True)
