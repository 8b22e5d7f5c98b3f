"""What adapting does to each person of drawings32: Acc@1 with and without, and the gain against the number of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.episodic.plots import save_figure, subplots

GROUPS = {"person_known": "36 people whose other drawings trained the network", "person": "4 people new to it"}
METHOD, BASE, K = "ours", "none", "5"


def people_plot(adaptation: Mapping[str, Any], path: Path) -> None:
    """Two panels: Acc@1 at k = 5 against that without adaptation, a point a person; the gain against k, a line a person."""
    figure, (points, lines) = subplots(2)
    for colour, (setting, title) in zip(("tab:blue", "tab:red"), GROUPS.items(), strict=True):
        methods = adaptation["settings"][setting]["methods"]
        ks = sorted(methods[METHOD], key=int)
        people = sorted(methods[METHOD][K]["by_task"])
        before, after = (np.array([[methods[row][k]["by_task"][one] for one in people] for k in ks]) for row in (BASE, METHOD))
        at = ks.index(K)
        points.scatter(before[at], after[at], s=18, color=colour, label=title)
        gains = after - before
        places = [int(k) for k in ks]
        for column in gains.T:
            lines.plot(places, column, color=colour, alpha=0.25, linewidth=1)
        lines.plot(places, gains.mean(1), color=colour, linewidth=3, marker="o", label=f"{title}: mean")
    ends = points.get_xlim()
    points.plot(ends, ends, color="grey", linewidth=1)
    points.set(title=f"k = {K}, 16 objects that trained nothing", xlabel="Acc@1 without adaptation, %", ylabel="adapted, %")
    lines.axhline(0.0, color="grey", linewidth=1)
    lines.set_xticks(places, ks)
    lines.set(title="gain in Acc@1", xlabel="k, pairs shown", ylabel="points")
    for axes in (points, lines):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    save_figure(figure, path)
