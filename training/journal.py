"""What a run writes down: log.csv, curves.png drawn from it, and TensorBoard events where asked for."""

from __future__ import annotations

import csv
import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fgsbir_edge.errors import FgsbirError

LOG, CURVES = "log.csv", "curves.png"


class Journal:
    """Rows of figures by step, appended to ``folder/log.csv``. Reopened at a step, it drops what was written after that step.

    A row may bring new columns; older rows then have them empty.
    """

    def __init__(self, folder: Path, step: int, *, tensorboard: bool = False) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = [row for row in read_log(folder) if row["step"] <= step]
        self._write()
        self.board = _summary_writer(folder, step) if tensorboard else None

    def add(self, row: Mapping[str, float]) -> None:
        """Write one row; it must hold "step"."""
        self.rows.append(dict(row))
        self._write()
        if self.board is not None:
            for name, value in row.items():
                if name != "step":
                    self.board.add_scalar(name, value, int(row["step"]))
            self.board.flush()

    def _write(self) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        temporary = self.folder / (LOG + ".partial")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns or ["step"], restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(temporary, self.folder / LOG)

    def draw(self, ending: str = "/acc@1", label: str = "validation Acc@1, %") -> None:
        """Redraw the curves; on the right the figures whose names have this ending."""
        draw_curves(self.rows, self.folder / CURVES, ending, label)


def read_log(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's log.csv; none where there is no log yet."""
    path = folder / LOG
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def draw_curves(rows: list[dict[str, float]], path: Path, ending: str = "/acc@1", label: str = "validation Acc@1, %") -> None:
    """Loss on the left, every validation set's figure of this ending on the right, against steps; empty axes of an empty log."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(14, 4), layout="constrained")
    panels: tuple[tuple[Any, Callable[[str], bool], str], ...] = (
        (left, lambda name: name.startswith("loss") and name != "loss/temperature", "training loss"),
        (right, lambda name: name.endswith(ending), label),
    )
    for axes, wanted, title in panels:
        for name in dict.fromkeys(name for row in rows for name in row if wanted(name)):
            points = [(row["step"], row[name]) for row in rows if name in row]
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 20 else None, label=name)
        axes.set(xlabel="step", ylabel=title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    temporary = path.with_suffix(".partial.png")
    figure.savefig(temporary, dpi=110)
    pyplot.close(figure)
    os.replace(temporary, path)


def _summary_writer(folder: Path, step: int) -> Any:
    try:
        board = importlib.import_module("torch.utils.tensorboard")
    except ImportError:
        raise FgsbirError("run.tensorboard is set, but TensorBoard is not installed: pip install tensorboard") from None
    return board.SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
