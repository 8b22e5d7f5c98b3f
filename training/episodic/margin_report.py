"""What the margin curves look like: Markdown, and a plot."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Figures = Mapping[str, Any]

_NAMES = {
    "before": "not adapted",
    "fixed": "one fixed margin for all tasks, searched",
    "fixed crossed": "the same, judged on other draws",
    "predicted": "margin predicted by the network",
    "searched": "a margin for each task, searched",
    "searched crossed": "the same, judged on other draws",
}


def markdown(figures: Figures) -> str:
    """A section a set of tasks: means, differences, and a line a task."""
    head = f"Model {figures['model']}, k = {figures['k']}, {figures['draws']} draws a task. [95 % intervals over tasks]\n"
    return head + "".join(_section(name, found) for name, found in figures["sets"].items())


def _section(name: str, found: Figures) -> str:
    lines = [f"\n## {name}: {found['tasks']} tasks\n", "| margin | Acc@1 |", "|---|---:|"]
    lines += [f"| {_NAMES[key]} | {_cell(found['acc@1'][key])} |" for key in _NAMES if key in found["acc@1"]]
    lines += ["", "| difference | points |", "|---|---:|"]
    lines += [f"| {key} | {_cell(cell, sign=True)} |" for key, cell in found["differences"].items()]
    lines += ["", f"Best margin for all tasks: {found['fixed_margin']:.2f}."]
    if found["rank_correlation"] is not None:
        lines.append(f"Rank correlation of predicted and searched margins: {found['rank_correlation']:.2f}.")
    lines += ["", "| task | not adapted | searched margin (as good) | Acc@1 | predicted margin (range) | Acc@1 |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    lines += [_line(task, entry) for task, entry in found["by_task"].items()]
    return "\n".join(lines) + "\n"


def _line(task: str, entry: Figures) -> str:
    searched, predicted = entry["searched"], entry.get("predicted")
    cells = [f"{entry['before']:.1f}", f"{searched['margin']:.2f} {_range(searched['as_good'])}", f"{searched['acc@1']:.1f}"]
    if predicted is None or predicted["margin"] is None:
        cells += ["–", "–" if predicted is None else f"{predicted['acc@1']:.1f}"]
    else:
        cells += [f"{predicted['margin']:.2f} {_range(predicted['range'])}", f"{predicted['acc@1']:.1f}"]
    return f"| {task} | {' | '.join(cells)} |"


def _range(ends: list[float]) -> str:
    return f"({ends[0]:.2f} to {ends[1]:.2f})"


def _cell(cell: Figures, *, sign: bool = False) -> str:
    mean = f"{cell['mean']:+.2f}" if sign else f"{cell['mean']:.2f}"
    return mean if cell["interval"] is None else f"{mean} [{cell['interval'][0]:.2f}, {cell['interval'][1]:.2f}]"


def plot(figures: Figures, path: Path) -> None:
    """Two panels a set: the Acc@1 that adapting gains against the margin, a line a task; and each task's searched and predicted
    margin, the former with all margins that are as good."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sets = figures["sets"]
    widest = max(found["tasks"] for found in sets.values())
    size = (7.0 + max(5.0, 0.35 * widest), 4.6 * len(sets))
    figure, grid = pyplot.subplots(len(sets), 2, figsize=size, squeeze=False, layout="constrained")
    for (left, right), (name, found) in zip(grid, sets.items(), strict=True):
        _curves(left, name, found)
        _margins(right, found)
    temporary = path.with_suffix(".partial.png")
    figure.savefig(temporary, dpi=110)
    pyplot.close(figure)
    os.replace(temporary, path)


def _curves(axes: Any, name: str, found: Figures) -> None:
    colours = _colours(len(found["by_task"]))
    total = [0.0] * len(found["grid"])
    for colour, (task, entry) in zip(colours, found["by_task"].items(), strict=True):
        gains = [value - entry["before"] for value in entry["curve"]]
        total = [before + gain / found["tasks"] for before, gain in zip(total, gains, strict=True)]
        axes.plot(found["grid"], gains, color=colour, alpha=0.6, label=task if found["tasks"] <= 20 else None)
        axes.plot(entry["searched"]["margin"], entry["searched"]["acc@1"] - entry["before"], "o", color=colour)
        if entry.get("predicted", {}).get("margin") is not None:
            axes.plot(entry["predicted"]["margin"], entry["predicted"]["acc@1"] - entry["before"], "x", color=colour)
    axes.plot(found["grid"], total, color="black", linewidth=2, label="mean")
    axes.axhline(0.0, color="grey", linewidth=0.8)
    axes.set(title=f"{name}; o searched, x predicted", xlabel="margin", ylabel="Acc@1 gained by adapting, points")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))


def _margins(axes: Any, found: Figures) -> None:
    tasks = sorted(found["by_task"].items(), key=lambda item: item[1]["searched"]["margin"])
    places = range(len(tasks))
    searched = [(each["margin"], each["as_good"]) for each in (entry["searched"] for _, entry in tasks)]
    _bars(axes, list(places), searched, "o", "searched (bar: as good)")
    predictions = [(place, entry.get("predicted") or {}) for place, (_, entry) in enumerate(tasks)]
    known = [(place + 0.2, (each["margin"], each["range"])) for place, each in predictions if each.get("margin") is not None]
    if known:
        _bars(axes, [place for place, _ in known], [each for _, each in known], "x", "predicted (bar: over draws)")
    axes.set_xticks(list(places), [name for name, _ in tasks], rotation=75, fontsize="small")
    axes.set(ylim=(-0.03, 1.03), ylabel="margin", title=f"best for all tasks: {found['fixed_margin']:.2f}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _bars(axes: Any, places: Sequence[float], values: Sequence[tuple[float, Sequence[float]]], mark: str, label: str) -> None:
    """Marks at (value, [low, high])."""
    reach = [[value - low for value, (low, _) in values], [high - value for value, (_, high) in values]]
    axes.errorbar(places, [value for value, _ in values], yerr=reach, fmt=mark, capsize=3, label=label)


def _colours(count: int) -> list[Any]:
    """Colours that are told apart up to twenty tasks; shades of one scale beyond."""
    from matplotlib import colormaps

    if count <= 20:
        return [colormaps["tab20"](place) for place in range(count)]
    return [colormaps["viridis"](place / (count - 1)) for place in range(count)]
