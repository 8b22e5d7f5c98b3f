"""Plots of the adaptation table: Acc@1 against k, against inner steps, against the head's width, and by regulariser."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Points = Mapping[int, tuple[float, Sequence[float]]]  # x -> (mean, [low, high]) in percent


@dataclass(frozen=True)
class Panel:
    """One setting's axes: lines by label, or bars where `bars` is set, in which case every line has one point."""

    title: str
    lines: Mapping[str, Points]


@dataclass(frozen=True)
class Axis:
    """What x is; `log` where it doubles."""

    label: str
    log: bool = False


def plot_lines(panels: Sequence[Panel], axis: Axis, path: Path) -> None:
    """A panel a setting, a line a method, bars for intervals. Panels without lines are left out; with none there is no file."""
    drawn = [panel for panel in panels if any(panel.lines.values())]
    if not drawn:
        return
    figure, grid = subplots(len(drawn))
    for axes, panel in zip(grid, drawn, strict=True):
        for label, points in panel.lines.items():
            places = sorted(points)
            means = [points[x][0] for x in places]
            axes.errorbar(places, means, yerr=_bars(points, places), marker="o", capsize=3, label=label)
        if axis.log:
            axes.set_xscale("log", base=2)
        ticks = sorted({x for points in panel.lines.values() for x in points})
        axes.set_xticks(ticks, [str(x) for x in ticks])
        axes.set(title=panel.title, xlabel=axis.label, ylabel="Acc@1, %")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    save_figure(figure, path)


def plot_bars(panels: Sequence[Panel], path: Path) -> None:
    """A panel a setting, a bar a label (the first point of its line), with bars for intervals."""
    drawn = [panel for panel in panels if any(panel.lines.values())]
    if not drawn:
        return
    figure, grid = subplots(len(drawn))
    for axes, panel in zip(grid, drawn, strict=True):
        labels = [label for label, points in panel.lines.items() if points]
        firsts = [next(iter(panel.lines[label].values())) for label in labels]
        below = [mean - interval[0] for mean, interval in firsts]
        above = [interval[1] - mean for mean, interval in firsts]
        axes.barh(labels, [mean for mean, _ in firsts], xerr=[below, above], capsize=3, height=0.6)
        axes.invert_yaxis()
        axes.set(title=panel.title, xlabel="Acc@1, %")
        axes.grid(alpha=0.3, axis="x")
    save_figure(figure, path)


def _bars(points: Points, places: Sequence[int]) -> list[list[float]]:
    """Lengths below and above, never negative: a bootstrap interval may lie on one side of a mean that rounding has moved."""
    below = [max(points[x][0] - points[x][1][0], 0.0) for x in places]
    above = [max(points[x][1][1] - points[x][0], 0.0) for x in places]
    return [below, above]


def subplots(panels: int) -> tuple[Any, list[Any]]:
    """A figure without a window, and its axes side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(1, panels, figsize=(7 * panels, 4.5), layout="constrained", squeeze=False)
    return figure, list(grid[0])


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure whole or not at all, and close it."""
    from matplotlib import pyplot

    temporary = path.with_suffix(".partial.png")
    figure.savefig(temporary, dpi=110)
    pyplot.close(figure)
    os.replace(temporary, path)
