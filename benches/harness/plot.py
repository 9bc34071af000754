"""The plot of README.md: one SVG that is readable on light and on dark pages. Drawn from the JSON results alone."""

from html import escape

# Text takes the page's colour scheme; bars keep theirs, which have enough contrast on both.
STYLE = """
  text { font: 13px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #1f2328; }
  .title { font-weight: 600; font-size: 15px; }
  .quiet { fill: #59636e; font-size: 12px; }
  .axis { stroke: #afb8c1; stroke-width: 1; }
  .asked { stroke: #bc4c00; stroke-width: 2; }
  .plain { fill: #8c959f; }
  .rekey { fill: #1f883d; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; }
    .quiet { fill: #9198a1; }
    .axis { stroke: #59636e; }
    .asked { stroke: #f0883e; }
    .plain { fill: #6e7681; }
    .rekey { fill: #3fb950; }
  }
"""
WIDTH, LEFT, RIGHT, BAR, STEP = 900, 340, 130, 18, 28
RATES = ("guide", "batches", "floor1", "floor2", "run1", "run", "rollback")


def draw(results):
    """The whole picture, from what report.as_json made."""
    cases = results["cases"]
    parts, y = [], 28
    rates = _rates(cases)
    if rates:
        y = _panel(parts, y, "Rows rewritten a second (floor1 and batches are plain SQL, without cryptography)", rates, lambda value: f"{value:,.0f}")
    ratios = _ratios(results)
    if ratios:
        y = _panel(parts, y + 24, "rekey run, default settings, against one plain UPDATE of the same table",
                   ratios, lambda value: f"{value:.2f} ×")
    machine = results["machine"]
    parts.append(_text(16, y + 18, "quiet", f"Medians. {machine['cpus']} cores, PostgreSQL {machine['postgresql']}. "
                       "Bars: one run of scripts/bench, variants interleaved. Tick: what is asked."))
    height = y + 34
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="Throughput of rekey beside plain SQL">\n<style>{STYLE}</style>\n'
        + "\n".join(parts) + "\n</svg>\n"
    )


def _rates(cases):
    """Bars of one case, the largest measured; a variant measured at another size only says so."""
    plain = [case for case in cases.values() if case["configuration"] == "tuned" and case["bytes"] == 500
             and case["ids"] == "v7" and not case["held_snapshot"]]
    plain.sort(key=lambda case: case["rows"], reverse=True)
    bars = []
    for name in RATES:
        for case in plain:
            variant = case["variants"].get(name)
            if variant:
                kind = "rekey" if name in ("run", "run1", "rollback") else "plain"
                bars.append((f"{variant['label']}, {_rows(case['rows'])}", variant["rows_per_second"], kind, None))
                break
    return bars


def _ratios(results):
    asked = {row["case"]: row["bound"] for row in results["asked"]
             if row["measure"] == "ratio" and row["variant"] == "run"}
    bars = []
    for name, case in results["cases"].items():
        value = case["variants"].get("run", {}).get("times_floor1")
        if value:
            bars.append((case["label"], value, "rekey", asked.get(name)))
    return bars


def _panel(parts, y, title, bars, show):
    parts.append(_text(16, y, "title", title))
    y += 14
    top = max(max(value, tick or 0) for _, value, _, tick in bars)
    scale = (WIDTH - LEFT - RIGHT) / top
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{y}" x2="{LEFT}" y2="{y + len(bars) * STEP}"/>')
    for label, value, kind, tick in bars:
        middle = y + STEP / 2
        length = max(value * scale, 1)
        parts.append(_text(LEFT - 8, middle + 4, "", label, anchor="end"))
        parts.append(f'<rect class="{kind}" x="{LEFT}" y="{middle - BAR / 2}" width="{length:.1f}" height="{BAR}" rx="2"/>')
        if tick:
            x = LEFT + tick * scale
            parts.append(f'<line class="asked" x1="{x:.1f}" y1="{middle - BAR / 2 - 3}" x2="{x:.1f}" y2="{middle + BAR / 2 + 3}"/>')
        end = max(length, (tick or 0) * scale)
        parts.append(_text(LEFT + end + 8, middle + 4, "", show(value)))
        y += STEP
    return y


def _text(x, y, kind, content, anchor="start"):
    name = f' class="{kind}"' if kind else ""
    return f'<text{name} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def _rows(count):
    return f"{count // 1_000_000}M rows" if count >= 1_000_000 else f"{count // 1000}k rows"
