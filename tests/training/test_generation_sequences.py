"""Sketches to stroke-5 rows and back, and sets of them."""

from __future__ import annotations

import numpy as np
import pytest

from fgsbir_edge.errors import EmptySketchError, NonFiniteError, ShapeError, SketchTooLargeError
from fgsbir_edge.pairs import Pair
from fgsbir_edge.sketch import Sketch
from tests.training.downloads import scribble
from training.generation.sequences import (
    END,
    SequenceOptions,
    SequenceSet,
    offset_scale,
    padded,
    prepared,
    to_rows,
    to_sketch,
)

HOUSE = Sketch.from_strokes([[[0, 10], [10, 10], [10, 20], [0, 20], [0, 10]], [[0, 10], [5, 5], [10, 10]], [[4, 20], [4, 16]]])


def test_rows_of_a_house() -> None:
    """15 high, so a unit is 190/15 canvas units: 10 units are 126.67. Written out by hand from the rounded corners."""
    rows = to_rows(HOUSE, 10.0, epsilon=0.0) * np.array([10, 10, 1, 1, 1])
    left, right, top, eaves, foot = 65, 191, 33, 96, 223  # 128 -+ 63.33; 128 -+ 95; 33 + 63.33
    middle, door, lintel = 128, 115, 172  # 64.67 + 50.67; 223 - 50.67 = 172.33
    corners = [(left, eaves), (right, eaves), (right, foot), (left, foot), (left, eaves), (left, eaves), (middle, top)]
    corners += [(right, eaves), (door, foot), (door, lintel)]
    np.testing.assert_allclose(rows[:, :2], np.diff(corners, axis=0), atol=1e-4)
    assert rows[:, 2:].argmax(axis=1).tolist() == [0, 0, 0, 1, 0, 0, 1, 0, 2]
    assert (rows[:, 2:].sum(axis=1) == 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_there_and_back(seed: int) -> None:
    sketch = scribble(seed)
    kept = prepared(sketch)
    again = to_sketch(to_rows(sketch, 37.5), 37.5)
    assert again.offsets.tolist() == kept.offsets.tolist()
    assert again.num_points < sketch.num_points
    np.testing.assert_allclose(again.points, kept.centred().points, atol=1e-3)
    x0, y0, x1, y1 = again.bounds
    assert max(x1 - x0, y1 - y0) == pytest.approx(190)
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((128, 128))


def test_a_drawing_keeps_its_proportions() -> None:
    """The released way back stretches each axis by itself (METHODS B.4); one scaling for both does not."""
    wide = Sketch.from_strokes([[[0, 0], [40, 0], [40, 10], [0, 10]]])
    x0, y0, x1, y1 = to_sketch(to_rows(wide, 5.0), 5.0).bounds
    assert (x1 - x0, y1 - y0) == pytest.approx((190, 48), abs=0.5)


def test_rows_after_the_end_count_for_nothing() -> None:
    rows = to_rows(HOUSE, 20.0)
    tail = np.array([[5, 5, 1, 0, 0], [np.nan, 0, 0, 1, 0]], dtype=np.float32)
    np.testing.assert_array_equal(to_sketch(np.concatenate([rows, tail]), 20.0).points, to_sketch(rows, 20.0).points)


def test_an_end_row_apart_is_no_point() -> None:
    rows = to_rows(HOUSE, 20.0)
    lifted = np.concatenate([rows, [END]])
    lifted[len(rows) - 1, 2:] = 0, 1, 0
    np.testing.assert_array_equal(to_sketch(lifted, 20.0).points, to_sketch(rows, 20.0).points)


def test_rows_without_an_end_draw_all() -> None:
    rows = to_rows(HOUSE, 20.0)
    rows[-1, 2:] = 1, 0, 0
    assert to_sketch(rows, 20.0).num_points == len(rows) + 1


@pytest.mark.parametrize("rows", [np.zeros((0, 5)), [END], [END, END], [(0, 0, 1, 0, 0), END], [(0, 0, 0, 1, 0)] * 3])
def test_what_has_no_extent_is_a_dot(rows: object) -> None:
    assert to_sketch(np.array(rows), 30.0).points.tolist() == [[128, 128], [128, 128]]


def test_damaged_rows_are_refused() -> None:
    with pytest.raises(NonFiniteError, match="NaN"):
        to_sketch([(np.nan, 0, 1, 0, 0), END], 30.0)
    with pytest.raises(ShapeError, match="one drawing"):
        to_sketch(np.zeros((2, 3, 5)), 30.0)
    with pytest.raises(ValueError, match="offset_scale"):
        to_sketch([END], 0.0)
    with pytest.raises(EmptySketchError):
        to_rows(Sketch.from_strokes([[[3, 3], [3, 3]]]), 30.0)


def test_scale_makes_offsets_of_unit_deviation() -> None:
    sketches = [scribble(seed) for seed in range(6)]
    scale = offset_scale(sketches)
    offsets = np.concatenate([to_rows(sketch, scale)[:, :2] for sketch in sketches])
    assert offsets.std() == pytest.approx(1, abs=1e-4)
    assert offset_scale(sketches, epsilon=0.0) < scale  # fewer, longer offsets
    with pytest.raises(EmptySketchError, match="scale"):
        offset_scale([])


def test_padding_ends_every_sequence() -> None:
    sequences = [to_rows(scribble(seed), 40.0) for seed in range(3)]
    longest = max(map(len, sequences))
    rows, lengths = padded(sequences, longest)
    assert rows.shape == (3, longest + 1, 5)
    for table, length, sequence in zip(rows, lengths, sequences, strict=True):
        np.testing.assert_array_equal(table[:length], sequence)
        assert table[length - 1, 4] == 1
        assert (table[length:] == END).all()
        assert len(table[length:]) >= 1
    with pytest.raises(SketchTooLargeError, match="epsilon"):
        padded(sequences, longest - 1)


def test_a_set_draws_its_sketches() -> None:
    sketches = [scribble(seed) for seed in range(3)]
    rows, lengths = padded([to_rows(sketch, 40.0) for sketch in sketches], 90)
    pairs = tuple(Pair(f"{n}.svg", f"{n}.png") for n in range(3))
    found = SequenceSet(rows, lengths, 40.0, pairs)
    assert (len(found), found.max_length) == (3, 90)
    np.testing.assert_allclose(found.sketch(1).points, to_sketch(to_rows(sketches[1], 40.0), 40.0).points)
    with pytest.raises(ShapeError, match="rows are"):
        SequenceSet(rows, lengths, 40.0, pairs[:2])
    with pytest.raises(ShapeError, match="lengths are"):
        SequenceSet(rows, lengths.astype(np.int32), 40.0, pairs)


def test_options_fit_together() -> None:
    assert SequenceOptions(max_points=101).max_length == 100
    with pytest.raises(ValueError, match="max_points"):
        SequenceOptions(max_points=102)
    with pytest.raises(ValueError, match="trace_epsilon"):
        SequenceOptions(trace_epsilon=-1.0)
