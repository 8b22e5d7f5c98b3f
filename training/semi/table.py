"""The ablation's results: table, JSON and plot, with means and intervals over seeds."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from fgsbir_edge.files import write_atomic
from training.semi.arms import ARMS

LEVEL = 0.95  # of all intervals
BASE = "supervised"  # what gains are over
DRAWN = "quality/"  # before the figures of generated sketches (semi/quality.py) in a run's values

Key = tuple[str, float, int]  # arm, label fraction, seed
Values = Mapping[Key, Mapping[str, float]]  # figures of the last validation of a run


def mean_interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean and 95 % interval of the mean by Student's t over runs; no interval of one run."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": round(mean, 3), "interval": None}
    half = float(t.ppf(0.5 + LEVEL / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return {"mean": round(mean, 3), "interval": [round(mean - half, 3), round(mean + half, 3)]}


def tabulate(values: Values, score: str) -> dict[str, Any]:
    """{"score", "fractions", "seeds", "arms": {arm: {"title", "fractions": {"20": cell}}}} of the runs there are.

    A cell has the values by seed, their mean and interval, the gain over the supervised network of the same seeds (a paired
    difference, which is narrower than two intervals suggest), the share of drawings of held-out photos that find their photo with
    the run's own network, and where there are any the figures that begin with DRAWN, under "generation".
    """
    arms = [arm for arm in ARMS if any(key[0] == arm for key in values)]
    fractions = sorted({key[1] for key in values})
    table: dict[str, Any] = {"score": score, "fractions": fractions, "seeds": sorted({key[2] for key in values}), "arms": {}}
    for arm in arms:
        cells = {}
        for fraction in fractions:
            seeds = sorted(seed for name, part, seed in values if (name, part) == (arm, fraction))
            if seeds:
                cells[percent(fraction)] = _cell(values, arm, fraction, seeds, score)
        table["arms"][arm] = {"title": ARMS[arm].title, "fractions": cells}
    return table


def _cell(values: Values, arm: str, fraction: float, seeds: Sequence[int], score: str) -> dict[str, Any]:
    own = {seed: values[arm, fraction, seed] for seed in seeds}
    cell: dict[str, Any] = {"values": {str(seed): round(own[seed][score], 3) for seed in seeds}}
    cell |= mean_interval([own[seed][score] for seed in seeds])
    both = [seed for seed in seeds if (BASE, fraction, seed) in values]
    if arm != BASE and both:
        cell["gain"] = mean_interval([own[seed][score] - values[BASE, fraction, seed][score] for seed in both])
    drawn = [own[seed]["held/ret@1"] for seed in seeds if "held/ret@1" in own[seed]]
    if drawn:
        cell["drawings"] = mean_interval(drawn)
    names = [name for name in own[seeds[0]] if name.startswith(DRAWN)]
    if names:
        having = [row for row in own.values() if all(name in row for name in names)]
        cell["generation"] = {name.removeprefix(DRAWN): mean_interval([row[name] for row in having]) for name in names}
    return cell


def percent(fraction: float) -> str:
    """0.2 -> "20"."""
    return f"{100 * fraction:g}"


def markdown(table: Mapping[str, Any]) -> str:
    """A row an arm, a column a label fraction: mean ± half the interval, and in brackets the gain over the supervised network."""
    names = [percent(fraction) for fraction in table["fractions"]]
    lines = [f"| {table['score']} | {' | '.join(f'{name} % labelled' for name in names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {arm['title']} | {' | '.join(_text(arm['fractions'].get(name)) for name in names)} |"
        for arm in table["arms"].values()
    ]
    seeds = ", ".join(map(str, table["seeds"]))
    lines += [
        "",
        f"Mean and {100 * LEVEL:g} % interval over seeds {seeds} of each run's last validation; in brackets the gain over",
    ]
    lines += ["the supervised network of the same seeds."]
    return "\n".join(lines + _generation(table)) + "\n"


def _generation(table: Mapping[str, Any]) -> list[str]:
    """What each arm's generator is worth, a row an arm and label fraction; nothing where it was not measured."""
    rows = [
        (f"{arm['title']}, {name} %", cell["generation"])
        for arm in table["arms"].values()
        for name, cell in arm["fractions"].items()
        if "generation" in cell
    ]
    if not rows:
        return []
    names = list(rows[0][1])
    lines = ["", f"| generated sketches | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for title, cells in rows:
        lines.append(f"| {title} | {' | '.join(_number(cells[name], '.1f') if name in cells else '–' for name in names)} |")
    return lines


def _text(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "–"
    gain = f" ({_number(cell['gain'], '+.1f')})" if "gain" in cell else ""
    return _number(cell, ".1f") + gain


def _number(cell: Mapping[str, Any], form: str) -> str:
    half = "" if cell["interval"] is None else f" ± {(cell['interval'][1] - cell['interval'][0]) / 2:.1f}"
    return f"{cell['mean']:{form}}{half}"


def plot(table: Mapping[str, Any], path: Path) -> None:
    """The score against the label fraction, a line an arm, bars for the intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for arm in table["arms"].values():
        cells = arm["fractions"]
        means = [cell["mean"] for cell in cells.values()]
        halves = [0.0 if cell["interval"] is None else (cell["interval"][1] - cell["interval"][0]) / 2 for cell in cells.values()]
        axes.errorbar([float(name) for name in cells], means, yerr=halves, marker="o", capsize=3, label=arm["title"])
    every = [cell["mean"] for arm in table["arms"].values() for cell in arm["fractions"].values()]
    limits = (max(0.0, min(every) - 10.0), min(100.0, max(every) + 10.0))  # percent; bars of two seeds may reach far beyond
    axes.set(xlabel="photos with sketches, %", ylabel=table["score"], ylim=limits)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    temporary = path.with_suffix(".partial.png")
    figure.savefig(temporary, dpi=110)
    pyplot.close(figure)
    os.replace(temporary, path)


def write(table: Mapping[str, Any], out: Path) -> None:
    """ablation.json, ablation.md and ablation.png in the folder `out`."""
    write_atomic(out / "ablation.json", (json.dumps(table, indent=2) + "\n").encode())
    write_atomic(out / "ablation.md", markdown(table).encode())
    plot(table, out / "ablation.png")
