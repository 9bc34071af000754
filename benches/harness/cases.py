"""The cases that are measured, and the numbers asked of each (shown beside what was measured)."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Case:
    name: str
    label: str
    rows: int
    bytes: int = 500
    ids: str = "v7"
    mix: str = "alike"  # how credentials differ; as `generate --mix`
    nulls: int = 0  # rows without a credential, in percent
    history: str = ""  # what the table has been through since it was loaded, in HISTORIES
    configuration: str = "tuned"
    held_snapshot: bool = False
    variants: tuple = ("floor1", "run")
    most_repetitions: int = 99

    @property
    def template(self):
        """Cases with the same data share one loaded database."""
        parts = (self.rows, self.bytes, self.ids, self.mix, self.nulls, self.history)
        return "loaded_" + "_".join(str(part) for part in parts).replace("-", "_")

    @property
    def past(self):
        """Statements, each in a transaction of its own, and each followed by a VACUUM."""
        return HISTORIES[self.history] if self.history else ()


SYNC = "UPDATE provider_connections SET last_sync_at = now(), updated_at = now() WHERE hashtext(id::text) & 3 = "
HISTORIES = {
    # Every second row of each page is gone again, and its room is known.
    "half_empty": ("DELETE FROM provider_connections WHERE hashtext(id::text) & 1 = 0",),
    # The application has saved every row twice, in no order: rows lie where there was room, and pages are not full.
    # pgbench draws numbers, not ids.
    "guest": (
        "CREATE TABLE guest_ids AS SELECT row_number() OVER ()::int AS n, id FROM provider_connections",
        "ALTER TABLE guest_ids ADD PRIMARY KEY (n)",
    ),
    "twice_updated": tuple(f"{SYNC}{quarter}" for quarter in (0, 1, 2, 3, 2, 0, 3, 1)),
}
REAL = {"bytes": 430, "mix": "spread", "nulls": 2}
EVERYTHING = ("batches", "floor1", "floor2", "run1", "run", "verify", "rollback")
CASES = {
    case.name: case
    for case in (
        Case("100k", "100k rows of 500 B", 100_000, variants=("guide", *EVERYTHING)),
        Case("1m", "1M rows of 500 B", 1_000_000, variants=("floor1", "run1", "run", "verify1", "verify", "rollback")),
        Case("1m-all", "1M rows of 500 B", 1_000_000, variants=EVERYTHING),
        Case("3kb", "200k rows of 3 KB (TOAST)", 200_000, bytes=3000, most_repetitions=2),
        Case("uuid4", "1M rows of 500 B, UUIDv4 ids", 1_000_000, ids="v4", most_repetitions=1),
        Case("half", "400k rows of 500 B, half UUIDv4", 400_000, ids="half", most_repetitions=2),
        Case("held", "200k rows of 500 B, a snapshot held open", 200_000, held_snapshot=True, most_repetitions=2),
        Case("stock", "1M rows of 500 B, stock configuration", 1_000_000, configuration="stock", most_repetitions=1),
        Case("autovacuum", "1M rows of 500 B, eager autovacuum", 1_000_000, configuration="autovacuum",
             most_repetitions=2),
        Case("scale", "1M rows of 500 B, several processes", 1_000_000, variants=("floor1", "run", "procs2", "procs4")),
        Case("mixed", "1M rows of about 100, 430 and 1290 B, 2 % NULL", 1_000_000, **REAL,
             variants=("floor1", "run1", "run", "verify1", "verify"), most_repetitions=2),
        Case("half-empty", "1M mixed rows, half of them deleted", 1_000_000, **REAL, history="half_empty", most_repetitions=1),
        Case("half-toast", "200k rows, half of 430 B, half of 3 KB", 200_000, bytes=430, mix="half-large", nulls=2,
             most_repetitions=1),
        Case("twice", "400k mixed rows, each saved twice by the application", 400_000, **REAL, history="twice_updated",
             most_repetitions=1),
        Case("guest", "1M mixed rows beside an application", 1_000_000, **REAL, history="guest", variants=("guest",),
             most_repetitions=1),
        Case("10m", "10M rows of 500 B", 10_000_000, variants=("floor1", "run", "verify"), most_repetitions=1),
    )
}
STANDARD = ("100k", "1m", "mixed", "stock", "uuid4", "3kb", "half-empty", "half-toast", "twice", "held",
            "guest")
QUICK = ("100k", "1m")


def select(names, quick, rows):
    """The cases to run, in the order that they are named."""
    chosen = [CASES[name] for name in names or (QUICK if quick else STANDARD)]
    if quick:
        chosen = [replace(case, variants=("floor1", "run")) for case in chosen]
    if rows:
        chosen = [replace(case, rows=rows, label=f"{case.label}, with {rows} rows") for case in chosen]
    return chosen


@dataclass(frozen=True)
class Asked:
    """One number asked of rekey: `measure` of `variant` in `case` is at least, or at most, `bound`."""

    case: str
    variant: str
    measure: str
    bound: float
    at_most: bool = False

    def holds(self, value):
        return value <= self.bound if self.at_most else value >= self.bound


ASKED = (
    Asked("1m", "run1", "ratio", 1.9),
    Asked("1m", "run", "ratio", 3.3),
    Asked("mixed", "run", "ratio", 3.2),
    Asked("3kb", "run", "ratio", 1.8),
    Asked("uuid4", "run", "ratio", 2.0),
    Asked("held", "run", "ratio", 1.1),
    Asked("1m", "run", "rate against 100k", 0.9),
    Asked("1m", "run", "growth", 0.12, at_most=True),
    Asked("1m", "run1", "growth", 0.12, at_most=True),
    Asked("mixed", "run", "growth", 0.13, at_most=True),
    Asked("3kb", "run", "HOT", 0.93),
    Asked("guest", "run", "p99, ms", 10, at_most=True),
    Asked("guest", "run_half", "p99 against idle", 3, at_most=True),
    Asked("*", "run", "peak RSS, MB", 160, at_most=True),
    Asked("*", "run1", "peak RSS, MB", 48, at_most=True),
    Asked("1m", "verify", "rows/s a core", 400_000),
    Asked("mixed", "verify", "rate against one worker", 1.8),
)
