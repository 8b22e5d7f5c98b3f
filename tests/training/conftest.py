"""A tiny dataset in the standard layout: drawn shapes as photos and as sketches, two people, two categories."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

pytest.importorskip("torch", reason="PyTorch is not installed")


def shape(draw: ImageDraw.ImageDraw, kind: str, size: int, fill: tuple[int, int, int] | None) -> None:
    box = (64 - size, 64 - size, 64 + size, 64 + size)
    outline = (0, 0, 0)
    if kind == "disc":
        draw.ellipse(box, fill=fill, outline=outline, width=3)
        draw.line((64 - size, 64, 64 + size, 64), fill=outline, width=2)
    else:
        draw.rectangle(box, fill=fill, outline=outline, width=3)
        draw.line((64 - size, 64 - size, 64 + size, 64 + size), fill=outline, width=1 + size // 10)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 photos in two categories, each drawn once by two people; one distractor a category."""
    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    rows = []
    for kind in ("disc", "box"):
        for number in range(7):
            size = 18 + 6 * number
            name = f"{kind}/{number}.png"
            (root / "photos" / kind).mkdir(parents=True, exist_ok=True)
            image = Image.new("RGB", (128, 128), "white")
            shape(ImageDraw.Draw(image), kind, size, tuple(int(v) for v in rng.integers(60, 220, 3)))
            image.save(root / "photos" / name)
            for user in ("ann", "bob") if number < 6 else ():
                key = f"{user}/{kind}{number}.png"
                (root / "sketches" / user).mkdir(parents=True, exist_ok=True)
                drawing = Image.new("RGB", (128, 128), "white")
                shape(ImageDraw.Draw(drawing), kind, size + int(rng.integers(-1, 2)), None)
                drawing.convert("L").save(root / "sketches" / key)
                rows.append((key, name, kind, user))
    with (root / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("sketch", "photo", "category", "user"))
        writer.writerows(rows)
    return root
