"""The losses once more, as plain loops over Python numbers: what the tests hold the real ones to."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


def distance(a: Rows, b: Rows) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def cosine(a: Rows, b: Rows) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def candidates(row: int, photo: list[int], category: list[int] | None) -> list[int]:
    """Rows of other photos; of the same category only, where one is given and there are any."""
    others = [k for k in range(len(photo)) if photo[k] != photo[row]]
    near = [k for k in others if category is not None and category[k] == category[row]]
    return near or others


def pick(row: list[float], own: float, others: list[int], mining: str) -> int:
    if mining == "batch-hard":
        return min(others, key=lambda k: row[k])
    farther = [k for k in others if row[k] > own]
    return min(farther, key=lambda k: row[k]) if farther else max(others, key=lambda k: row[k])


def triplet(anchors: Rows, others: Rows, photo: list[int], category: list[int] | None, margin: float, mining: str) -> float:
    values = []
    for i in range(len(photo)):
        among = candidates(i, photo, category)
        if not among:
            continue
        row = [distance(anchors[i], other) for other in others]
        values.append(max(0.0, margin + row[i] - row[pick(row, row[i], among, mining)]))
    return sum(values) / len(values) if values else 0.0


def relative(sketches: Rows, photos: Rows, photo: list[int], margin: float, kind: str, floor: float) -> float:
    values = []
    for i in range(len(photo)):
        among = candidates(i, photo, None)
        unlike = {j: distance(photos[i], photos[j]) + floor for j in among}
        for j in among:
            r = unlike[j] / (sum(unlike.values()) / len(among))
            gap = distance(sketches[i], photos[i]) - distance(sketches[i], photos[j])
            value = r * max(0.0, margin + gap) if kind == "weight" else max(0.0, margin * r + gap)
            if value > 0.0:
                values.append(value)
    return sum(values) / len(values) if values else 0.0


def row_cross_entropy(
    cosines: list[float], positives: list[int], negatives: list[int], temperature: float, smoothing: float, hardness: float
) -> float:
    share = {k: math.exp(cosines[k] / temperature) for k in positives}
    mean_weight = sum(math.exp(hardness * cosines[k]) for k in negatives) / max(len(negatives), 1)
    for k in negatives:
        share[k] = math.exp(cosines[k] / temperature) * math.exp(hardness * cosines[k]) / mean_weight
    whole = sum(share.values())
    loss = 0.0
    for k, part in share.items():
        target = smoothing / len(share) + ((1.0 - smoothing) / len(positives) if k in positives else 0.0)
        loss -= target * math.log(part / whole)
    return loss


def info_nce(
    sketches: Rows,
    photos: Rows,
    photo: list[int],
    temperature: float,
    *,
    same_photo: str = "mask",
    smoothing: float = 0.0,
    hardness: float = 0.0,
    intra: bool = False,
    stored: tuple[Rows, Rows, list[int]] | None = None,
) -> float:
    total = 0.0
    for side, (anchors, others) in enumerate(((sketches, photos), (photos, sketches))):
        columns, owner = list(others), list(photo)
        if intra:
            columns, owner = columns + list(anchors), owner + list(photo)
        if stored is not None:
            columns, owner = columns + list(stored[1 - side]), owner + stored[2]
        for i in range(len(photo)):
            negatives = [k for k in range(len(columns)) if owner[k] != photo[i]]
            twins = [k for k in range(len(photo)) if photo[k] == photo[i]]
            row = [cosine(anchors[i], column) for column in columns]
            positives = twins if same_photo == "positive" else [i]
            total += row_cross_entropy(row, positives, negatives, temperature, smoothing, hardness)
    return total / (2 * len(photo))


def patches(sketch_map: Rows, photo_map: Rows, photo: list[int], grid: int, temperature: float) -> float:
    """For maps whose side is a multiple of the grid."""
    step, total = sketch_map.shape[-1] // grid, 0.0
    for y in range(grid):
        for x in range(grid):
            window = (..., slice(y * step, (y + 1) * step), slice(x * step, (x + 1) * step))
            sides = []
            for maps in (sketch_map, photo_map):
                cells = maps[window].mean(axis=(2, 3))
                sides.append(cells / np.sqrt((cells**2).sum(axis=1, keepdims=True)))
            total += info_nce(sides[0], sides[1], photo, temperature)
    return total / grid**2


def divergence(
    rows: Rows, columns: Rows, teacher_rows: Rows, teacher_columns: Rows, temperature: float, *, own_row: bool
) -> float:
    total = 0.0
    for i in range(len(rows)):
        kept = [j for j in range(len(columns)) if own_row or j != i]
        shares = []
        for a, b in ((teacher_rows, teacher_columns), (rows, columns)):
            weights = [math.exp(cosine(a[i], b[j]) / temperature) for j in kept]
            shares.append([weight / sum(weights) for weight in weights])
        total += sum(t * math.log(t / s) for t, s in zip(*shares, strict=True))
    return total / len(rows)
