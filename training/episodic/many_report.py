"""One model against many, as Markdown and as a plot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Figures = Mapping[str, Any]

_LINES = (
    ("individual", "K individual models", "o-"),
    ("single", "one model for all K", "s-"),
    ("start", "before training", ":"),
)


def markdown(figures: Figures) -> str:
    """A line for each K, and what differs from the poster."""
    kind = _kind(figures)
    lines = [
        f"Model {figures['model']}, layers that train: {figures['layers']}. Acc@1 in percent. [95 % intervals over {kind}]",
        "",
        f"| K | {kind} seen in all | before training | one model | K models | K models - one |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for count, point in figures["points"].items():
        cells = [_cell(point[what]) for what in ("start", "single", "individual")]
        lines.append(f"| {count} | {point['categories']} | {' | '.join(cells)} | {_cell(point['individual - single'])} |")
    lines += ["", "What differs from the poster's figure:", "", *(f"- {what}." for what in figures["differs"])]
    return "\n".join(lines) + "\n"


def _kind(figures: Figures) -> str:
    return "people" if figures["source"]["setting"] == "person" else "categories"


def _cell(cell: Figures) -> str:
    interval = cell["interval"]
    return f"{cell['mean']:.2f}" + ("" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]")


def plot(figures: Figures, path: Path) -> None:
    """Acc@1 against K, bars for intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    counts = [int(count) for count in figures["points"]]
    for what, label, style in _LINES:
        cells = [point[what] for point in figures["points"].values()]
        means = [cell["mean"] for cell in cells]
        ends = [cell["interval"] or [cell["mean"]] * 2 for cell in cells]
        bars = [[max(0.0, mean - low) for mean, (low, _) in zip(means, ends, strict=True)]]
        bars.append([max(0.0, high - mean) for mean, (_, high) in zip(means, ends, strict=True)])
        axes.errorbar(counts, means, yerr=bars, fmt=style, capsize=3, label=label)
    axes.set(xlabel=f"K, {_kind(figures)}", ylabel="Acc@1, %", xticks=counts)
    axes.grid(alpha=0.3)
    axes.legend()
    temporary = path.with_suffix(".partial.png")
    figure.savefig(temporary, dpi=110)
    pyplot.close(figure)
    os.replace(temporary, path)
