"""What is run against a copy of the table: each variant is a name and the commands it starts at once."""

import os
import subprocess
import sys
from dataclasses import dataclass

COLUMN = "encrypted_credentials"
TABLE = "provider_connections"
# Rewrites every row and does no cryptography: what any other way of doing it is compared with.
FLOOR = f"UPDATE {TABLE} SET {COLUMN} = {COLUMN} || ''::bytea WHERE {COLUMN} IS NOT NULL"
# One statement, and so one transaction, for each 1000 keys in order; as above without cryptography.
BATCHES = (
    f"SELECT format($q${FLOOR} AND id >= %L AND id <= %L$q$,"
    " (array_agg(id ORDER BY id))[1], (array_agg(id ORDER BY id))[count(*)])"
    f" FROM (SELECT id, row_number() OVER (ORDER BY id) - 1 AS n FROM {TABLE}) k"
    " GROUP BY n / 1000 ORDER BY n / 1000 \\gexec"
)
MIDDLE = f"SELECT id FROM {TABLE} ORDER BY id OFFSET (SELECT count(*) / 2 FROM {TABLE}) LIMIT 1"


@dataclass(frozen=True)
class Variant:
    name: str
    label: str
    after: str = ""  # runs on the copy this variant has left behind, in the same repetition
    writes: bool = True
    most_repetitions: int = 99


ALL = {
    variant.name: variant
    for variant in (
        Variant("guide", "the guide's script", most_repetitions=1),
        Variant("batches", "UPDATE in batches of 1000", most_repetitions=2),
        Variant("floor1", "floor1: one UPDATE"),
        Variant("floor2", "floor1 on 2 connections", most_repetitions=2),
        Variant("run1", "rekey run --workers 1"),
        Variant("run", "rekey run"),
        Variant("procs2", "rekey run, 2 processes"),
        Variant("procs4", "rekey run, 4 processes"),
        Variant("verify", "rekey verify", after="run", writes=False),
        Variant("verify1", "rekey verify --workers 1", after="run", writes=False),
        Variant("rollback", "rekey rollback", after="run"),
    )
}


def commands(variant, cluster, database, programs):
    """The command lines of a variant; all of them start at the same moment."""
    sql = lambda *statements: cluster.psql(database, *[part for one in statements for part in ("-c", one)])
    rekey = lambda *arguments: [[programs.rekey, *arguments, *programs.rekey_arguments]]
    match variant.name:
        case "floor1":
            return [sql(FLOOR)]
        case "floor2":
            middle = cluster.ask(database, MIDDLE)[0][0]
            return [sql(f"{FLOOR} AND id < '{middle}'"), sql(f"{FLOOR} AND id >= '{middle}'")]
        case "batches":
            script = os.path.join(cluster.folder, "batches.sql")
            with open(script, "w") as file:
                file.write(BATCHES + "\n")
            os.chmod(script, 0o644)
            return [cluster.psql(database, "-f", script)]
        case "guide":
            return [[guide_python(), os.path.join(os.path.dirname(__file__), "guide_script.py")]]
        case "run1":
            return rekey("run", "--workers", "1")
        case "run":
            return rekey("run")
        case "procs2" | "procs4":
            return rekey("run") * int(variant.name[-1])
        case "verify":
            return [[programs.rekey, "verify"]]
        case "verify1":
            return [[programs.rekey, "verify", "--workers", "1"]]
        case "rollback":
            return [[programs.rekey, "rollback", "--yes"]]
    raise ValueError(variant.name)


def guide_python():
    """A Python that has what the guide's script imports, in an environment in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    home = os.path.join(cache, "rekey-bench", "python")
    python = os.path.join(home, "bin", "python")
    ready = os.path.exists(python) and subprocess.run(
        [python, "-c", "import psycopg, cryptography"], stderr=subprocess.DEVNULL, check=False
    ).returncode == 0
    if not ready:
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "psycopg[binary]", "cryptography"], check=True)
    return python
