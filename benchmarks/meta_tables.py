"""Figures of meta-training as Markdown: a line a task, not a table a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.tables import facts, notes, number, table

INNER, FORWARD, STEP = "inner loop alone", "outer loss", "outer loss and gradients"
BASE = "no adaptation"
_MEANINGS = {
    INNER: "from support rows to adapted head in each one's own form (W' and b', or coefficients), with the graph kept",
    FORWARD: "inner loop, then the outer loss of 16 query pairs",
    STEP: "the same with gradients for head, features, rates and margins",
}


def group(cell: str, stage: str) -> str:
    """Group of one task, by its name, and question."""
    return f"{cell}: {stage}"


def stage_table(figures: Mapping[str, Any], stage: str) -> str:
    """A line a task: microseconds per episode of everyone, and the episodes a second of the fastest that adapts."""
    rows = {(row["group"], row["name"]): row for row in figures["rows"]}
    names = list(dict.fromkeys(name for where, name in rows if where.endswith(f": {stage}")))
    lines = []
    for cell in figures["cells"]:
        found = [rows.get((group(cell, stage), name)) for name in names]
        adapting = [row["per_second"] for row, name in zip(found, names, strict=True) if row is not None and name != BASE]
        fastest = f"{max(adapting):,.0f}" if adapting else "–"
        lines.append([cell, *(number(row["median"]) if row else "–" for row in found), fastest])
    return table(["µs per episode", *names, "most episodes a second"], lines)


def ratio_table(figures: Mapping[str, Any]) -> str:
    """Targets: a line for each question and peer, with how many tasks reach it and the range of ratios."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for entry in figures["targets"]:
        lines.setdefault(entry["target"].split(" (C=")[0], []).append(entry)
    rows = []
    for name, entries in lines.items():
        got = sorted(entry["got"] for entry in entries if entry["got"] is not None)
        spread = f"{number(got[0])} to {number(got[-1])}" if got else "–"
        middle = number(got[len(got) // 2]) if got else "–"
        reached = sum(entry["reached"] is True for entry in entries)
        rows.append([name, f"≥ {entries[0]['wanted']:g}", middle, spread, f"{reached} of {len(entries)} tasks"])
    return table(["target", "wanted", "median", "lowest to highest", "reached"], rows)


def meta_tables(figures: Mapping[str, Any]) -> str:
    """The three questions, each with its meaning."""
    parts = []
    for stage, meaning in _MEANINGS.items():
        parts.append(
            f"\n### {stage[0].upper()}{stage[1:]}\n\n{meaning[0].upper()}{meaning[1:]}.\n\n{stage_table(figures, stage)}"
        )
    return "".join(parts)


def meta_text(figures: Mapping[str, Any]) -> str:
    """All of it, as the command prints it."""
    return "".join([facts(figures), meta_tables(figures), "\n", ratio_table(figures), "\n", notes(figures)])
