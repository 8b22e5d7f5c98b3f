"""Plots of the adaptation table: Acc@1 against k, against inner steps, against the head's width, and by regulariser."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgsbir_edge.files import write_atomic

Points = Mapping[int, tuple[float, Sequence[float] | None]]  # x -> (mean, [low, high] or nothing) in percent

BARS = "Acc@1, %   (bars: 95 % of the gain)"
LOOKS = list(itertools.product(("-", "--"), ("o", "s", "^", "D", "v", "x", "*")))  # line, marker: colours alone run out
SPREAD = 0.02  # of an axis, between neighbouring lines: their bars would hide each other
COLOURS = 64  # of a file: small, and enough for smooth edges


@dataclass(frozen=True)
class Panel:
    """One setting's axes: lines by label; `base`: Acc@1 of no adaptation, as a line of its own where it is given."""

    title: str
    lines: Mapping[str, Points]
    base: float | None = None


@dataclass(frozen=True)
class Axis:
    """What x is; `even` where its values stand at equal distances, whatever they are."""

    label: str
    even: bool = False


def plot_lines(panels: Sequence[Panel], axis: Axis, path: Path) -> None:
    """A panel a setting, a line a method, bars for intervals. Panels without lines are left out; with none there is no file.

    A method looks the same in all panels, and one legend beside them names it.
    """
    drawn = [panel for panel in panels if any(panel.lines.values())]
    if not drawn:
        return
    figure, grid = subplots(len(drawn), 5.0, 1.8)
    labels = list(dict.fromkeys(label for panel in drawn for label in panel.lines))
    for axes, panel in zip(grid, drawn, strict=True):
        ticks = sorted({x for points in panel.lines.values() for x in points})
        places = {x: float(place if axis.even else x) for place, x in enumerate(ticks)}
        reach = SPREAD * (max(places.values()) - min(places.values()))
        for number, label in enumerate(labels):
            points = panel.lines.get(label, {})
            _line(axes, points, {x: place + reach * (number - len(labels) / 2) / 2 for x, place in places.items()}, number, label)
        axes.set_xticks(list(places.values()), [str(x) for x in ticks])
        axes.set(title=panel.title, xlabel=axis.label, ylabel=BARS)
        axes.grid(alpha=0.3)
        _base(axes.axhline, panel)
    handles: dict[str, Any] = {}
    for axes in grid:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize="small")
    save_figure(figure, path)


def plot_rows(panels: Sequence[Panel], path: Path) -> None:
    """A panel a setting, a row a label with the first point of its line, and bars for intervals."""
    drawn = [panel for panel in panels if any(panel.lines.values())]
    if not drawn:
        return
    figure, grid = subplots(len(drawn), 5.0, 1.8)
    for axes, panel in zip(grid, drawn, strict=True):
        firsts = {label: next(iter(points.items())) for label, points in panel.lines.items() if points}
        for place, (x, (mean, interval)) in enumerate(firsts.values()):
            bars = _bars({x: (mean, interval)}, [x])
            axes.errorbar([mean], [place], xerr=bars, marker="o", linestyle="none", color="C0", capsize=3)
        axes.set_yticks(range(len(firsts)), list(firsts))
        axes.set_ylim(len(firsts) - 0.5, -0.5)
        axes.set(title=panel.title, xlabel=BARS)
        axes.grid(alpha=0.3, axis="x")
        _base(axes.axvline, panel)
        if panel.base is not None:
            axes.legend(fontsize="small")
    save_figure(figure, path)


def _line(axes: Any, points: Points, places: Mapping[int, float], number: int, label: str) -> None:
    """One method's line, in the look that belongs to its number."""
    if not points:
        return
    order = sorted(points)
    style, marker = LOOKS[number % len(LOOKS)]
    axes.errorbar(
        [places[x] for x in order],
        [points[x][0] for x in order],
        yerr=_bars(points, order),
        color=f"C{number % 10}",
        linestyle=style,
        marker=marker,
        markersize=5,
        linewidth=1.3,
        elinewidth=0.7,
        capsize=2,
        label=label,
    )


def _base(line: Any, panel: Panel) -> None:
    if panel.base is not None:
        line(panel.base, color="0.4", linestyle=":", label="no adaptation")


def _bars(points: Points, order: Sequence[int]) -> list[list[float]]:
    """Lengths below and above, never negative: a bootstrap interval may lie on one side of a mean that rounding has moved."""
    ends = [(mean, interval or (mean, mean)) for mean, interval in (points[x] for x in order)]
    return [[max(mean - low, 0.0) for mean, (low, _) in ends], [max(high - mean, 0.0) for mean, (_, high) in ends]]


def subplots(panels: int, width: float = 7.0, beside: float = 0.0) -> tuple[Any, list[Any]]:
    """A figure without a window, and its axes side by side: `width` inches each, and room for a legend beside them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(1, panels, figsize=(width * panels + beside, 4.5), layout="constrained", squeeze=False)
    return figure, list(grid[0])


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as a PNG of few colours, whole or not at all, and close it."""
    from matplotlib import pyplot
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=100, format="png")
    pyplot.close(figure)
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(small, format="PNG", optimize=True)
    write_atomic(path, small.getvalue())
