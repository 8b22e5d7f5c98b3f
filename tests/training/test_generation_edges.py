"""The edges of photos as strokes, for a generator to learn from photos that nobody drew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgsbir_edge.errors import EmptySketchError
from fgsbir_edge.sketch import Sketch
from training.data.folder import PairsFolder
from training.data.sources import UnpairedFolder, edge_pairs
from training.generation import dataset
from training.generation.dataset import sequence_set, vector_sketch
from training.generation.edge_strokes import edge_strokes, longest_strokes
from training.generation.sequences import SequenceOptions, to_sketch

SQUARE = (64, 192)  # left and right, top and bottom of the black square below


@pytest.fixture
def photos(tmp_path: Path) -> PairsFolder:
    """A black square on white, and a photo of nothing."""
    image = np.full((256, 256, 3), 255, np.uint8)
    image[SQUARE[0] : SQUARE[1], SQUARE[0] : SQUARE[1]] = 0
    (tmp_path / "photos").mkdir()
    Image.fromarray(image).save(tmp_path / "photos" / "square.png")
    Image.new("RGB", (256, 256), "white").save(tmp_path / "photos" / "nothing.png")
    names = {"nothing.png": "", "square.png": ""}
    return UnpairedFolder(tmp_path / "photos", edge_pairs(names), names)


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_strokes_lie_on_the_edges(photos: PairsFolder, scale: int) -> None:
    sketch = edge_strokes(photos.photo_path("square.png"), "pad", scale)
    points = sketch.points
    x, y = points[:, 0], points[:, 1]
    beside = np.minimum.reduce([abs(x - SQUARE[0]), abs(x - SQUARE[1]), abs(y - SQUARE[0]), abs(y - SQUARE[1])])
    assert beside.max() < 5  # corners are rounded by the coarse scales
    assert points.min() > SQUARE[0] - 4
    assert points.max() < SQUARE[1] + 4
    assert np.ptp(x) == pytest.approx(SQUARE[1] - SQUARE[0], abs=4)
    assert np.ptp(y) == pytest.approx(SQUARE[1] - SQUARE[0], abs=4)


def test_a_photo_without_edges_is_said_and_left_out(photos: PairsFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EmptySketchError, match=r"nothing\.png: the photo has no edges"):
        edge_strokes(photos.photo_path("nothing.png"), "pad", 1)
    plain = sequence_set(photos, photos.pairs)
    assert {pair.photo for pair in plain.pairs} == {"square.png"}
    assert len(plain) == 3
    drawn = to_sketch(plain.rows[2, : plain.lengths[2]], plain.scale)
    assert np.ptp(drawn.points, axis=0) == pytest.approx([190, 190], abs=4)  # centred as people's sketches are
    kept = sequence_set(photos, photos.pairs, cache=tmp_path / "cache")
    np.testing.assert_array_equal(kept.rows, plain.rows)

    def never(*_: object) -> None:
        raise AssertionError("looked for edges again")

    monkeypatch.setattr(dataset, "edge_strokes", never)
    again = sequence_set(photos, photos.pairs, cache=tmp_path / "cache")
    np.testing.assert_array_equal(again.rows, plain.rows)
    with pytest.raises(EmptySketchError, match="no edges"):
        vector_sketch(photos, "edges:0:nothing.png", tmp_path / "cache")


def test_the_longest_strokes_come_first_and_stay_in_order() -> None:
    def stroke(length: float, points: int) -> np.ndarray:
        return np.stack([np.linspace(0, length, points), np.zeros(points)], axis=1)

    sketch = Sketch.from_strokes([stroke(10, 4), stroke(50, 6), stroke(30, 3), stroke(20, 2)])
    for points, lengths in ((2, [50]), (6, [50]), (8, [50, 20]), (9, [50, 30]), (11, [50, 30, 20]), (15, [10, 50, 30, 20])):
        assert [float(part[-1, 0]) for part in longest_strokes(sketch, points).strokes] == lengths, points


def test_the_budget_takes_the_large_outline(tmp_path: Path) -> None:
    image = np.full((256, 256, 3), 255, np.uint8)
    image[20:200, 20:140] = 0
    image[180:240, 180:240] = 0
    Image.fromarray(image).save(tmp_path / "two.png")
    photos = UnpairedFolder(tmp_path, edge_pairs({"two.png": ""}), {"two.png": ""})
    every, few = (sequence_set(photos, photos.pairs[1:2], SequenceOptions(edge_points=points), scale=1.0) for points in (60, 8))
    both, one = (to_sketch(found.rows[0, : found.lengths[0]], 1.0) for found in (every, few))
    assert (both.num_strokes, one.num_strokes) == (2, 1)
    assert np.ptp(both.points, axis=0) == pytest.approx([190, 190], abs=4)
    assert np.ptp(one.points, axis=0) == pytest.approx([190 * 120 / 180, 190], abs=5)  # centred anew
    with pytest.raises(ValueError, match="edge_points is 1, expected 2 or more"):
        SequenceOptions(edge_points=1)
