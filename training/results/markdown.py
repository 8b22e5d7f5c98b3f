"""Cells and tables of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NOTHING = "–"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under a header, a line each."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None) -> str:
    """One decimal; a dash where there is none."""
    return NOTHING if value is None else f"{value:.1f}"


def with_interval(value: float | None, interval: Sequence[float] | None, *, sign: bool = False) -> str:
    """A figure and, in brackets, its interval."""
    if value is None:
        return NOTHING
    shown = f"{value:+.1f}" if sign else f"{value:.1f}"
    if interval is not None:
        shown += f" [{interval[0]:.1f}, {interval[1]:.1f}]"
    return shown.replace("-0.0", "0.0")


def gained(cell: Mapping[str, Any], name: str = "acc@1") -> str:
    """A mean and its gain over the row without adaptation, with the gain's interval, as ``adaptation.json`` has them."""
    figures = cell[name]
    if figures.get("gain") is None:
        return number(figures["mean"])
    return f"{figures['mean']:.1f} ({with_interval(figures['gain'], figures['gain_interval'], sign=True)})"
