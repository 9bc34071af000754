"""Where each microsecond of a row goes: perf samples of the client and of the server, and the server's own statistics.

perf counts CPU by function; pg_stat_statements counts time and WAL by statement. Both are of one run, together.
"""

import os
import re
import signal
import subprocess

from .measure import TABLE

# The client's own time, by what a function's name says. The first that fits is taken.
CLIENT = (
    ("kernel: network, scheduling, page faults", r"^\[k\]"),
    ("AES, in counter mode", r"aes::|ctr::"),
    ("GHASH", r"polyval|ghash|aes_gcm"),
    ("SHA-256 of the tags", r"sha2|hmac|block_buffer"),
    ("wiping the stack and the plaintext", r"locked::|zeroize"),
    ("protocol: encoding and decoding rows", r"sqlx|bytes::|uuid|futures"),
    ("moving memory", r"mem(move|cpy|set|cmp)"),
    ("allocating", r"malloc|free|unlink_chunk|realloc|calloc|morecore"),
    ("waves: sorting and dealing", r"sort|waves|deal"),
)
# Functions of the server that are visible by name, with everything they call. They overlap: one calls the other.
SERVER = (
    ("heap_update", "new row versions, all of it"),
    ("heap_toast_insert_or_update", "of it, values out of line"),
    ("toast_compress_datum", "of that, the attempt to compress them"),
    ("ExecInsertIndexTuples", "index entries of rows that were not HOT"),
    ("index_getnext_slot", "rows found by their index"),
    ("heap_page_prune_opt", "of it, pages pruned"),
    ("detoast_attr", "values out of line put together"),
    ("XLogInsert", "WAL records"),
    ("XLogBackgroundFlush", "WAL written in the background"),
    ("smgrextend", "pages added to files"),
    ("array_recv", "parameters taken in"),
    ("BufferSync", "checkpoints"),
)
STATEMENTS = (
    ("the UPDATE of a batch", "UPDATE public.provider_connections"),
    ("checkpoint and proof tags", "UPDATE rekey.chunks c SET batch_seq"),
    ("reading rows", "SELECT id, ctid, xmin, octet_length"),
    ("the closing proof", "SELECT * FROM (SELECT t.id, t.ctid"),
    ("BEGIN, COMMIT", ("BEGIN", "COMMIT")),
)


def run(session, case, variant):
    """Profiles one run, and returns the report."""
    session.cluster.start("profiled")
    session.load(case)
    session.cluster.copy(case.template, "bench")
    session.cluster.ask("bench", "CREATE EXTENSION pg_stat_statements")
    data = os.path.join(session.cluster.folder, "perf.data")
    perf = subprocess.Popen(
        ["perf", "record", "-a", "-g", "-e", "cpu-clock", "-F", "997", "-o", data],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    holder = session.hold_snapshot() if case.held_snapshot else None
    try:
        result = session.measure(case, variant)
    finally:
        perf.send_signal(signal.SIGINT)
        perf.wait()
        if holder:
            holder.kill()
            holder.wait()
    statements = session.cluster.ask(
        "bench", "SELECT regexp_replace(query, '[[:space:]]+', ' ', 'g'), calls, total_exec_time, rows, wal_bytes, shared_blks_hit "
        "FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid WHERE datname = current_database()"
    )
    plan = _plan(session.cluster)
    lines = [
        f"{case.label}, {variant}: {result.rate:,.0f} rows/s, {result.hot_share:.0%} HOT; CPU a row: client "
        f"{result.client_cpu_us_per_row:.1f} us, server {result.server_cpu_us_per_row:.1f} us",
        "", *_client(data, result), "", *_server(data, result), "", *_statements(statements, case.rows), "", plan,
    ]
    return "\n".join(lines)


def _report(data, comm, *options):
    done = subprocess.run(
        ["perf", "report", "-i", data, "--comm", comm, "--stdio", "-g", "none", "--sort", "symbol", *options],
        capture_output=True, text=True, check=True,
    )
    for line in done.stdout.splitlines():
        found = re.match(r"\s*([\d.]+)%\s+(?:([\d.]+)%\s+)?(\[[k.]\]\s+.*?)\s*(?:-\s+-\s*)?$", line)
        if found:
            yield float(found[1]), found[3]


def _client(data, result):
    samples = list(_report(data, "tokio-rt-worker", "--no-children"))
    total = sum(share for share, _ in samples) or 1
    groups = {}
    for share, symbol in samples:
        group = next((name for name, pattern in CLIENT if re.search(pattern, symbol)), "everything else")
        groups[group] = groups.get(group, 0) + share
    rows = sorted(groups.items(), key=lambda item: -item[1])
    return ["client, by function, own time", *(
        f"  {share / total * result.client_cpu_us_per_row:6.2f} us  {name}" for name, share in rows
    )]


def _server(data, result):
    samples = list(_report(data, "postgres", "--children"))
    total = max((share for share, _ in samples), default=1)
    found = {symbol.split("]", 1)[1].strip(): share for share, symbol in reversed(samples)}
    return ["server, by function, with what it calls", *(
        f"  {found[name] / total * result.server_cpu_us_per_row:6.2f} us  {what} ({name})" for name, what in SERVER if name in found
    )]


def _statements(statements, rows):
    lines = ["server, by statement", f"  {'us a row':>8}  {'WAL B/row':>9}  {'buffers/row':>11}  {'calls':>8}"]
    for name, starts in STATEMENTS:
        own = [s for s in statements if s[0].startswith(starts) or name == "checkpoint and proof tags" and starts in s[0]]
        of = lambda column: sum(float(s[column]) for s in own)
        lines.append(f"  {of(2) * 1000 / rows:8.2f}  {of(4) / rows:9.0f}  {of(5) / rows:11.1f}  {of(1):8,.0f}  {name}")
    return lines


def _plan(cluster):
    """A batch as the engine sends it, over rows of the middle of the table, rolled back."""
    sql = f"""
        SET plan_cache_mode = force_generic_plan; SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off;
        SET jit = off; BEGIN;
        CREATE TEMP TABLE sample AS SELECT id, encrypted_credentials c, xmin x, substr(encrypted_credentials, 1, 12) iv
            FROM (SELECT *, xmin, row_number() OVER (PARTITION BY (ctid::text::point)[0] ORDER BY ctid) n FROM {TABLE}) t WHERE n = 5 LIMIT 500;
        EXPLAIN (ANALYZE, WAL, BUFFERS, COSTS OFF) UPDATE {TABLE} t SET encrypted_credentials = u.c
            FROM unnest((SELECT array_agg(id) FROM sample), (SELECT array_agg(c) FROM sample), (SELECT array_agg(x) FROM sample),
            (SELECT array_agg(iv) FROM sample)) u(id, c, x, iv)
            WHERE t.id = u.id AND t.xmin = u.x AND substr(t.encrypted_credentials, 1, 12) = u.iv;
        ROLLBACK"""
    lines = [line[0] for line in cluster.ask("bench", sql) if line[0]]
    return "\n".join(["one batch of 500 rows, EXPLAIN (ANALYZE, WAL, BUFFERS)", *(f"  {line}" for line in lines)])
