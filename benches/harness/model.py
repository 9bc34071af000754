"""What tables that do not fit this machine would cost, from what one row costs here. Nothing else is measured."""

from dataclasses import dataclass
from math import ceil
from statistics import median

ROWS = (10_000_000, 100_000_000, 1_000_000_000)
# A rotation is a guest: it gets this share of the server's cores and of the WAL that its disk takes.
SHARE = 0.5


@dataclass(frozen=True)
class Server:
    cores: int
    wal_mb: int  # a second


SERVERS = (Server(4, 200), Server(16, 500), Server(64, 1000))


def table(results):
    """Markdown, from the median run of the case 1m. Proofs are 24 bytes a row (docs/performance.md)."""
    case = results["cases"]["1m"]
    runs = case["variants"]["run"]["runs"]
    of = lambda name: median(run[name] for run in runs)
    server_us, client_us, wal = (of(n) for n in ("server_cpu_us_per_row", "client_cpu_us_per_row", "wal_bytes_per_row"))
    chunk = case["rows"] / of("chunks")
    lines = [
        f"A row costs {server_us:.1f} us of server CPU, {client_us:.1f} us of client CPU and {wal:.0f} B of WAL; a chunk has "
        f"{chunk:,.0f} rows.",
        "",
        "| rows | server | limited by | rows/s | takes | client cores | WAL | growth | proofs | chunks, one at a time |",
        "|--:|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for rows in ROWS:
        for server in SERVERS:
            limits = {
                "CPU": server.cores * SHARE * 1e6 / server_us,
                "WAL": server.wal_mb * SHARE * 1e6 / wal,
            }
            limit = min(limits, key=limits.get)
            rate = limits[limit]
            lines.append(
                f"| {rows // 1_000_000:,}M | {server.cores} cores, {server.wal_mb} MB/s of WAL | {limit} | {rate:,.0f} | "
                f"{_duration(rows / rate)} | {ceil(rate * client_us / 1e6)} | {_bytes(rows * wal)} | "
                f"{_bytes(rows * case['bytes'] * 1.3 * of('growth'))} | {_bytes(rows * 24)} | {ceil(rows / chunk):,} |"
            )
    return "\n".join(lines)


def _duration(seconds):
    minutes = ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def _bytes(count):
    return f"{count / 1e12:.1f} TB" if count >= 1e12 else f"{count / 1e9:,.0f} GB" if count >= 1e10 else f"{count / 1e9:.1f} GB"
