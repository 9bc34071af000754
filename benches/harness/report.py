"""Medians and spread of the repetitions, as an aligned table, as verdicts beside what is asked, and as JSON."""

from statistics import median

from . import guest
from .cases import ASKED
from .variants import ALL

COLUMNS = ("rows/s", "spread", "x floor1", "WAL B/row", "HOT", "growth", "RSS MB", "client us", "server us", "takeovers", "runs")


def ratio(results, variant):
    """Median of this variant's rate over the median of floor1's, in the same case."""
    if "floor1" not in results or variant not in results:
        return None
    return _median(results[variant], "rate") / _median(results["floor1"], "rate")


def table(case, results):
    if case.variants == ("guest",):
        return guest.table(case, results)
    lines = [f"{case.label}  ({case.configuration} postgresql.conf)"]
    rows = [("", *COLUMNS)]
    for name, runs in results.items():
        rates = [run.rate for run in runs]
        spread = (max(rates) - min(rates)) / median(rates)
        over = ratio(results, name) if ALL[name].writes else None
        client = name.startswith(("run", "procs", "verify", "rollback", "guide"))
        rows.append((
            ALL[name].label,
            f"{median(rates):,.0f}",
            f"{spread:.0%}" if len(runs) > 1 else "",
            f"{over:.2f}" if over else "",
            f"{_median(runs, 'wal_bytes_per_row'):.0f}",
            f"{_median(runs, 'hot_share'):.0%}" if ALL[name].writes else "",
            f"{_median(runs, 'growth'):.1%}",
            f"{_median(runs, 'peak_rss_mb'):.0f}" if client else "",
            f"{_median(runs, 'client_cpu_us_per_row'):.1f}",
            f"{_median(runs, 'server_cpu_us_per_row'):.1f}",
            str(sum(run.takeovers for run in runs)) if name.startswith(("run", "procs")) else "",
            str(len(runs)),
        ))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def verdicts(all_results):
    """Everything asked that this run can answer: (case, variant, measure, value, Asked)."""
    answered = []
    for asked in ASKED:
        names = list(all_results) if asked.case == "*" else [asked.case]
        for name in names:
            value = _value(all_results, name, asked)
            if value is not None:
                answered.append((name, asked.variant, asked.measure, value, asked))
    return answered


def verdict_table(answered):
    rows = [("case", "variant", "measure", "measured", "asked", "")]
    for case, variant, measure, value, asked in answered:
        show = _percent if measure in ("growth", "HOT") else _number
        sign = "<=" if asked.at_most else ">="
        verdict = "ok" if asked.holds(value) else "MISSED"
        label = ALL[variant].label if variant in ALL else variant
        rows.append((case, label, measure, show(value), f"{sign} {show(asked.bound)}", verdict))
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    return "\n".join(
        "  " + "  ".join(
            cell.rjust(width) if i in (3, 4) else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )


def as_json(machine, cases, all_results):
    return {
        "machine": machine,
        "cases": {
            case.name: {
                "label": case.label,
                "rows": case.rows,
                "bytes": case.bytes,
                "ids": case.ids,
                "configuration": case.configuration,
                "held_snapshot": case.held_snapshot,
                "mix": case.mix,
                "nulls": case.nulls,
                "history": case.history,
                "variants": {
                    name: {
                        "label": ALL[name].label,
                        "rows_per_second": round(_median(runs, "rate")),
                        "times_floor1": ratio(all_results[case.name], name) if ALL[name].writes else None,
                        "runs": [run.as_json() for run in runs],
                    }
                    for name, runs in all_results[case.name].items()
                },
            }
            for case in cases if all_results.get(case.name) and case.name != "guest"
        },
        "guest": {name: line.as_json() for name, line in all_results.get("guest", {}).items()},
        "asked": [
            {"case": case, "variant": variant, "measure": measure, "value": value, "bound": asked.bound,
             "at_most": asked.at_most, "holds": asked.holds(value)}
            for case, variant, measure, value, asked in verdicts(all_results)
        ],
    }


def _value(all_results, name, asked):
    results = all_results.get(name, {})
    runs = results.get(asked.variant)
    if not runs:
        return None
    match asked.measure:
        case "p99, ms":
            return runs.p99
        case "p99 against idle":
            return runs.p99 / results["idle"].p99
        case _ if name == "guest":
            return None
        case "HOT":
            return _median(runs, "hot_share")
        case "ratio":
            return ratio(results, asked.variant)
        case "growth":
            return _median(runs, "growth")
        case "peak RSS, MB":
            return max(run.peak_rss_mb for run in runs)
        case "rows/s a core":
            return _median(runs, "rate_per_core")
        case "rate against one worker":
            alone = results.get(asked.variant + "1")
            return _median(runs, "rate") / _median(alone, "rate") if alone else None
        case "rate against 100k":
            small = all_results.get("100k", {}).get(asked.variant)
            return _median(runs, "rate") / _median(small, "rate") if small else None
    raise ValueError(asked.measure)


def _median(runs, measure):
    return median(getattr(run, measure) for run in runs)


def _percent(value):
    return f"{value:.1%}"


def _number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
