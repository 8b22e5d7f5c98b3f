"""The table of adaptation methods: means over tasks, bootstrap intervals, paired gains over no adaptation; JSON and markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.episodic.methods.protocol import Measured
from training.metrics import LEVEL, bootstrap_interval

BASE = "none"  # what gains are over
FIGURES = ("acc@1", "acc@5")


@dataclass(frozen=True)
class Row:
    """How a method stands in the table: under which heading, and what it is called."""

    group: str
    title: str


WITHOUT, WITH = "without adaptation", "adapted to k pairs"
ROWS = {
    BASE: Row(WITHOUT, "no adaptation"),
    "regularised": Row(WITHOUT, "baseline + regularisers"),
    "ccdg": Row(WITHOUT, "CC-DG"),
    "upper": Row(WITHOUT, "upper bound: trained on the target tasks"),
    "prototype": Row(WITH, "prototype"),
    "ridge": Row(WITH, "ridge"),
    "centred": Row(WITH, "centred"),
    "finetune_head": Row(WITH, "fine-tuning, head"),
    "finetune": Row(WITH, "fine-tuning, all weights"),
    "maml": Row(WITH, "MAML"),
    "sign_maml": Row(WITH, "sign-MAML"),
    "anil": Row(WITH, "ANIL"),
    "ours_pairs": Row(WITH, "ours without centring"),
    "ours": Row(WITH, "ours"),
}

Results = Mapping[str, Mapping[int, Measured]]  # of one setting: method -> k -> values


def cell(own: Measured, base: Measured | None) -> dict[str, Any]:
    """Figures of one method and k. Gains are differences to `base` in the same draws. Raises ValueError for other tasks.

    Intervals (95 %) resample tasks; where there is only one, its draws.
    """
    found: dict[str, Any] = {}
    for figure in FIGURES:
        values = np.array(own.values[figure])
        found[figure] = {"mean": round(float(values.mean()), 2), "interval": _interval(values)}
        if base is not None:
            if base.tasks != own.tasks:
                raise ValueError("the tasks measured differ from those of the base; measure both again")
            gains = values - np.array(base.values[figure])
            found[figure] |= {"gain": round(float(gains.mean()), 2), "gain_interval": _interval(gains)}
    found["by_task"] = {name: round(float(np.mean(row)), 2) for name, row in zip(own.tasks, own.values["acc@1"], strict=True)}
    return found


def _interval(values: np.ndarray) -> list[float]:
    """[low, high] of the mean of values [tasks, draws]."""
    units = values.mean(axis=1) if len(values) > 1 else values[0]
    low, high = bootstrap_interval(units)
    return [round(low, 2), round(high, 2)]


def tabulate(results: Results, base: Results | None = None) -> dict[str, Any]:
    """{method: {k: cell}}; gains over BASE of `base` (default: of `results`) where it was measured for the same k."""
    bases = (base or results).get(BASE, {})
    return {
        name: {str(k): cell(measured, None if name == BASE else bases.get(k)) for k, measured in by_k.items()}
        for name, by_k in results.items()
    }


def markdown(title: str, table: Mapping[str, Any], rows: Mapping[str, Row], note: str) -> str:
    """A section: a row a method under its group, and for each k the columns Acc@1, gain and Acc@5."""
    ks = sorted({int(k) for cells in table.values() for k in cells})
    header = [f"Acc@1, k={k} | gain | Acc@5" for k in ks]
    lines = [f"## {title}", "", f"| method | {' | '.join(header)} |", "|---" * (1 + 3 * len(ks)) + "|"]
    for group in dict.fromkeys(row.group for row in rows.values()):
        members = [name for name in rows if rows[name].group == group and name in table]
        if members:
            lines.append(f"| *{group}* |{' |' * (3 * len(ks))}")
        lines += [f"| {rows[name].title} | {' | '.join(_columns(table[name].get(str(k))) for k in ks)} |" for name in members]
    return "\n".join([*lines, "", note, ""])


def _columns(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "– | – | –"
    first, fifth = found["acc@1"], found["acc@5"]
    low, high = first["interval"]
    gain = ""
    if "gain" in first:
        gain = f"{first['gain']:+.1f} [{first['gain_interval'][0]:+.1f}, {first['gain_interval'][1]:+.1f}]"
    return f"{first['mean']:.1f} [{low:.1f}, {high:.1f}] | {gain} | {fifth['mean']:.1f}"


def note_of(tasks: Mapping[int, int], draws: int) -> str:
    """What stands below a table."""
    counts = ", ".join(f"{count} at k={k}" for k, count in sorted(tasks.items()))
    return (
        f"Mean over tasks ({counts}) of the mean over {draws} draws, in brackets {LEVEL:g} % bootstrap intervals over tasks; "
        "gain: over no adaptation in the same draws."
    )
