"""A small dataset of vector sketches, for the tests of batches and augmentation."""

from __future__ import annotations

import csv
from pathlib import Path

from fgsbir_edge.formats.qmul import write_strokes_npz
from tests.training.downloads import picture, save, scribble


def vector_folder(root: Path, photos: int = 8) -> Path:
    """Photos of one category, each with two vector sketches of six strokes."""
    rows, sketches = [], {}
    for number in range(photos):
        save(picture(number, (80, 60)), root / "photos" / f"{number}.png")
        for turn in range(2):
            sketches[f"{number}_{turn}"] = scribble(10 * number + turn, strokes=6)
            rows.append((f"{number}_{turn}", f"{number}.png", "thing"))
    write_strokes_npz(root / "strokes.npz", sketches)
    with (root / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("sketch", "photo", "category"), *rows])
    return root
