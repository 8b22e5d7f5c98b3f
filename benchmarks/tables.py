"""Figures as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first and the last are right-aligned numbers."""
    marks = ["---", *["---:"] * (len(header) - 2), "---"]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (header, marks, *rows))


def number(value: float | None) -> str:
    """Three significant digits without an exponent; a dash for what was not measured."""
    if value is None:
        return "–"
    digits = max(0, 2 - len(str(int(abs(value)))) + (abs(value) >= 1))
    return f"{value:,.{digits}f}" if abs(value) >= 1 else f"{value:.3g}"


def groups(figures: Figures) -> list[str]:
    """Names of the groups of rows, in the order they were timed in."""
    return list(dict.fromkeys(row["group"] for row in figures["rows"]))


def group_table(figures: Figures, group: str) -> str:
    """All rows of a group: time per item, what was written at which rate, what share of the limit that is, the answer's check."""
    rows = [row for row in figures["rows"] if row["group"] == group]
    writes, limited = any(row["bytes"] for row in rows), any("limit_share" in row for row in rows)
    extra = [*(["GB/s"] if writes else []), *(["share of limit"] if limited else [])]
    return table(
        ["µs per item", "median", "min", "p05", "p95", "p99", *extra, "answer"],
        ([row["name"], *_times(row), *_rates(row, writes, limited), row["agrees"] or "–"] for row in rows),
    )


def _times(row: Figures) -> list[str]:
    return [number(row[name]) for name in ("median", "min", "p05", "p95", "p99")]


def _rates(row: Figures, writes: bool, limited: bool) -> list[str]:
    rate = [number(row["bytes"] / row["median"] / 1e3 if row["bytes"] else None)] if writes else []
    share = row.get("limit_share")
    return rate + ([f"{share:.0%}" if share else "–"] if limited else [])


def target_table(figures: Figures) -> str:
    """Every target, the ratio it got with its interval, and whether that is enough."""
    answers = {True: "reached", False: "**not reached**", None: "not measured"}
    rows = []
    for entry in figures["targets"]:
        interval = entry["interval"]
        got = number(entry["got"]) + (f" [{number(interval[0])}, {number(interval[1])}]" if interval else "")
        sign = "≤" if entry["most"] else "≥"
        rows.append([entry["target"], f"{sign} {entry['wanted']:g}", got, answers[entry["reached"]]])
    return table(["target", "wanted", "got [95 % interval]", ""], rows)


def notes(figures: Figures) -> str:
    """Who did not take part, and why."""
    lines = [f"- left out: {entry['name']}: {entry['reason']}\n" for entry in figures["skipped"]]
    lines += [f"- refused by its check: {entry['name']} ({entry['group']}): {entry['reason']}\n" for entry in figures["rejected"]]
    return "".join(lines)


def text(figures: Figures) -> str:
    """All of it, as the commands print it."""
    parts = [f"\n{group}\n\n{group_table(figures, group)}" for group in groups(figures)]
    return "".join([*parts, "\n", target_table(figures), "\n", notes(figures)])
