"""curves.png of a joint run: what is trained, what it is worth, and what goes wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from training.journal import CURVES

PANELS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("validation Acc@1, %", lambda name: name.endswith("/acc@1") or name in ("held/ret@1",)),
    ("losses", lambda name: name.startswith("loss/") and name not in ("loss/policy", "loss/G")),
    ("certainty", lambda name: name in ("weight/mean", "held/real", "held/swapped", "held/drawn", "held/agreement")),
    ("D_C right, share", lambda name: name.startswith("discriminator/")),
    ("reward", lambda name: name.startswith("reward/")),
    ("rows of a drawing; share without end x 100", lambda name: name.startswith("drawn/")),
)


def draw_joint_curves(rows: list[dict[str, float]], folder: Path) -> None:
    """Six panels against steps; a panel without figures stays empty."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(2, 3, figsize=(17, 8), layout="constrained")
    for axes, (label, wanted) in zip(grid.flat, PANELS, strict=True):
        for name in dict.fromkeys(name for row in rows for name in row if wanted(name)):
            factor = 100.0 if name == "drawn/endless" else 1.0
            points = [(row["step"], factor * row[name]) for row in rows if name in row]
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 20 else None, label=name)
        axes.set(xlabel="step", ylabel=label)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    temporary = folder / "curves.partial.png"
    figure.savefig(temporary, dpi=110)
    pyplot.close(figure)
    os.replace(temporary, folder / CURVES)
