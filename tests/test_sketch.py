"""Sketch: validation, geometry, simplification, prefixes, packing."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fgsbir_edge.errors import EmptySketchError, NonFiniteError, ShapeError, SketchTooLargeError
from fgsbir_edge.sketch import MAX_POINTS, Sketch, SketchBatch, pack

HOUSE = Sketch.from_strokes([[(0, 0), (10, 0), (10, 5)], [(2, 2)], [(4, 4), (6, 5)]])

steady = settings(deadline=None)  # a slow machine is not a failure
coordinates = st.floats(-1e4, 1e4, allow_nan=False, width=32)
strokes_strategy = st.lists(
    st.integers(1, 12).flatmap(lambda n: arrays(np.float64, (n, 2), elements=coordinates)), min_size=1, max_size=6
).filter(lambda strokes: sum(map(len, strokes)) >= 2)


def reference_rdp(points: np.ndarray, epsilon: float) -> np.ndarray:
    """The recursion of the PyPI rdp package, written out point by point."""
    start, end = points[0], points[-1]
    farthest, index = 0.0, 0
    for i in range(1, len(points) - 1):
        if (start == end).all():
            distance = np.hypot(*(points[i] - start))
        else:
            chord, way = end - start, points[i] - start
            distance = abs(chord[0] * way[1] - chord[1] * way[0]) / np.hypot(*chord)
        if distance > farthest:
            farthest, index = distance, i
    if farthest > epsilon:
        left, right = reference_rdp(points[: index + 1], epsilon), reference_rdp(points[index:], epsilon)
        return np.concatenate([left[:-1], right])
    return points[[0, -1]]


def farthest_from_chord(points: np.ndarray) -> int:
    chord, way = points[-1] - points[0], points - points[0]
    return int(np.abs(chord[0] * way[:, 1] - chord[1] * way[:, 0]).argmax())


class TestConstruction:
    def test_strokes_become_points_and_offsets(self):
        assert HOUSE.num_points == 6
        assert HOUSE.num_strokes == 3
        assert HOUSE.offsets.tolist() == [0, 3, 4, 6]
        assert HOUSE.points.dtype == np.float64
        assert HOUSE.offsets.dtype == np.int64
        assert [stroke.tolist() for stroke in HOUSE.strokes] == [[[0, 0], [10, 0], [10, 5]], [[2, 2]], [[4, 4], [6, 5]]]
        assert HOUSE.bounds == (0, 0, 10, 5)

    def test_empty_strokes_are_dropped_and_further_columns_ignored(self):
        sketch = Sketch.from_strokes([[], np.empty((0, 2)), [(1, 2, 1), (3, 4, 0)]])
        assert sketch.points.tolist() == [[1, 2], [3, 4]]

    def test_is_a_copy_and_immutable(self):
        mine = np.array([[0.0, 0], [1, 1]])
        sketch = Sketch(mine, np.array([0, 2]))
        mine[:] = 7
        assert sketch.points[1].tolist() == [1, 1]
        with pytest.raises(ValueError, match="read-only"):
            sketch.points[0] = 1
        with pytest.raises(ValueError, match="read-only"):
            sketch.strokes[0][0] = 1
        with pytest.raises(dataclasses.FrozenInstanceError):
            sketch.points = mine

    @pytest.mark.parametrize("strokes", [[], [[]], [[(1, 1)]], [[], [(1, 1)]]])
    def test_fewer_than_two_points(self, strokes):
        with pytest.raises(EmptySketchError, match="draw a line"):
            Sketch.from_strokes(strokes)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, value):
        with pytest.raises(NonFiniteError, match="point 1 of the sketch"):
            Sketch.from_strokes([[(0, 0), (value, 1)]])

    @pytest.mark.parametrize(
        ("strokes", "message"),
        [
            ([[1, 2, 3]], "stroke 0 has shape"),
            ([[(0, 0), (1, 1)], [(1,), (2,)]], "stroke 1 has shape"),
            ([[(0, 0), (1,)]], "ragged"),
            ([[("0", "0"), ("1", "1")]], "expected real numbers"),
            ([[(0j, 0), (1, 1)]], "expected real numbers"),
            ([[(10**400, 0), (1, 1)]], "expected real numbers"),
            ([5], "stroke 0 has shape"),
        ],
    )
    def test_wrong_shape(self, strokes, message):
        with pytest.raises(ShapeError, match=message):
            Sketch.from_strokes(strokes)

    @pytest.mark.parametrize("offsets", [[0, 1], [1, 2], [0, 0, 2], [0, 3], [0, 2, 1, 2], [[0, 2]], [], [2], [0.0, 2.0]])
    def test_wrong_offsets(self, offsets):
        with pytest.raises(ShapeError, match="offsets"):
            Sketch(np.zeros((2, 2)), np.array(offsets))

    def test_wrong_points(self):
        with pytest.raises(ShapeError, match=r"expected \[P, 2\]"):
            Sketch(np.zeros((2, 3)), np.array([0, 2]))

    def test_a_million_points_name_the_remedy_and_the_remedy_works(self):
        line = np.column_stack([np.arange(1e6), np.zeros(1_000_000)])
        with pytest.raises(SketchTooLargeError, match=r"max_points=None.*simplified"):
            Sketch.from_strokes([line])
        loaded = Sketch.from_strokes([line], max_points=None)
        assert loaded.num_points == 1_000_000
        with pytest.raises(SketchTooLargeError, match="simplified"):
            pack([loaded])
        assert loaded.simplified(1.0).points.tolist() == [[0, 0], [999_999, 0]]

    def test_the_limit_itself_is_allowed(self):
        line = np.column_stack([np.arange(MAX_POINTS), np.zeros(MAX_POINTS)])
        assert pack([Sketch.from_strokes([line])]).points.shape == (MAX_POINTS, 2)

    def test_far_coordinates(self):
        with pytest.raises(SketchTooLargeError, match="scale it down"):
            Sketch.from_strokes([[(0, 0), (1e300, 1)]])


class TestCentred:
    @steady
    @given(strokes_strategy)
    def test_longer_side_and_centre(self, strokes):
        sketch = Sketch.from_strokes(strokes)
        x0, y0, x1, y1 = sketch.bounds
        if max(x1 - x0, y1 - y0) < 1e-3:
            return
        a0, b0, a1, b1 = sketch.centred().bounds
        assert max(a1 - a0, b1 - b0) == pytest.approx(190)
        assert (a0 + a1) / 2 == pytest.approx(128)
        assert (b0 + b1) / 2 == pytest.approx(128)
        # Uniform: the box keeps its aspect.
        assert (a1 - a0) * (y1 - y0) == pytest.approx((b1 - b0) * (x1 - x0), abs=1e-3)

    def test_vertical_line_scales_by_its_height(self):
        assert Sketch.from_strokes([[(5, 0), (5, 10)]]).centred().points.tolist() == [[128, 33], [128, 223]]

    def test_horizontal_line_on_another_canvas(self):
        line = Sketch.from_strokes([[(0, 7), (2, 7)]]).centred(canvas=100, long_side=50)
        assert line.points.tolist() == [[25, 50], [75, 50]]

    def test_dots_have_no_scale(self):
        with pytest.raises(EmptySketchError, match="all 3 points"):
            Sketch.from_strokes([[(4, 4), (4, 4)], [(4, 4)]]).centred()

    def test_a_sketch_in_the_frame_stays(self):
        framed = Sketch.from_strokes([[(33, 60), (223, 60), (100.25, 196)]])
        assert framed.centred().points.tolist() == framed.points.tolist()

    def test_transforms(self):
        assert HOUSE.scaled(2, 3).points[2].tolist() == [20, 15]
        turned = HOUSE.transformed([[0, -1, 1], [1, 0, 2]])
        assert turned.points[2].tolist() == [-4, 12]
        assert turned.offsets.tolist() == HOUSE.offsets.tolist()
        with pytest.raises(ShapeError, match=r"\[2, 3\]"):
            HOUSE.transformed(np.eye(3))
        with pytest.raises(NonFiniteError):
            HOUSE.scaled(np.nan, 1)


class TestSimplified:
    @steady
    @given(strokes_strategy, st.sampled_from([0.0, 0.5, 3.0, 500.0]))
    def test_agrees_with_the_recursive_definition(self, strokes, epsilon):
        simplified = Sketch.from_strokes(strokes).simplified(epsilon)
        expected = [reference_rdp(s, epsilon) if len(s) > 1 else s for s in strokes]
        assert [s.tolist() for s in simplified.strokes] == [s.tolist() for s in expected]

    def test_known_shape(self):
        sketch = Sketch.from_strokes([[(0, 0), (1, 0.1), (2, -0.1), (3, 5), (4, 6), (5, 7), (6, 8.1), (7, 9), (8, 9), (9, 9)]])
        assert sketch.simplified(1.0).points.tolist() == [[0, 0], [2, -0.1], [3, 5], [7, 9], [9, 9]]

    def test_closed_stroke_measures_from_its_ends(self):
        square = Sketch.from_strokes([[(0, 0), (10, 0), (10, 10), (0, 10), (0, 0)]])
        assert square.simplified(1).num_points == 5
        assert square.simplified(20).points.tolist() == [[0, 0], [0, 0]]

    def test_a_point_as_far_as_epsilon_goes(self):
        bump = Sketch.from_strokes([[(0, 0), (1, 1), (2, 0)]])
        assert bump.simplified(1.0).num_points == 2
        assert bump.simplified(0.999).num_points == 3

    def test_splits_that_nest_as_deep_as_the_stroke_is_long(self):
        # A dying zigzag: each split takes one point off the front, so that a recursion would go as deep as there are points.
        step = np.arange(2 * sys.getrecursionlimit())
        stroke = np.column_stack([step, 1000 * 0.99**step * (-1.0) ** step])
        assert all(farthest_from_chord(stroke[first:]) == 1 for first in range(len(stroke) - 2))
        assert Sketch.from_strokes([stroke]).simplified(0.0).num_points == len(stroke)

    def test_a_long_stroke(self):
        t = np.linspace(0, 300, MAX_POINTS)
        spiral = Sketch.from_strokes([np.column_stack([t * np.cos(t), t * np.sin(t)])])
        assert 100 < spiral.simplified(1.0).num_points < MAX_POINTS / 10

    @pytest.mark.parametrize("epsilon", [-1, np.nan, np.inf])
    def test_epsilon_is_checked(self, epsilon):
        with pytest.raises(ValueError, match="epsilon"):
            HOUSE.simplified(epsilon)


class TestPrefixes:
    @pytest.mark.parametrize(
        ("count", "offsets"), [(2, [0, 2]), (3, [0, 3]), (4, [0, 3, 4]), (5, [0, 3, 4, 5]), (6, [0, 3, 4, 6]), (99, [0, 3, 4, 6])]
    )
    def test_prefix_cuts_across_strokes(self, count, offsets):
        prefix = HOUSE.prefix(count)
        assert prefix.offsets.tolist() == offsets
        assert prefix.points.tolist() == HOUSE.points[: offsets[-1]].tolist()

    @pytest.mark.parametrize("count", [1, 0, -3])
    def test_prefix_of_less_than_a_line(self, count):
        with pytest.raises(EmptySketchError):
            HOUSE.prefix(count)

    def test_prefixes_are_evenly_spaced_and_end_with_the_whole(self):
        sketch = Sketch.from_strokes([np.column_stack([np.arange(170.0), np.zeros(170)])])
        assert [prefix.num_points for prefix in sketch.prefixes()] == list(range(10, 171, 10))

    @steady
    @given(strokes_strategy, st.integers(1, 20))
    def test_prefixes_grow_and_are_never_shorter_than_two(self, strokes, count):
        sketch = Sketch.from_strokes(strokes)
        prefixes = sketch.prefixes(count)
        sizes = [prefix.num_points for prefix in prefixes]
        assert len(prefixes) == count
        assert sizes == sorted(sizes)
        assert sizes[0] >= 2
        assert prefixes[-1].points.tolist() == sketch.points.tolist()
        assert prefixes[-1].offsets.tolist() == sketch.offsets.tolist()

    def test_count_is_checked(self):
        with pytest.raises(ValueError, match="count"):
            HOUSE.prefixes(0)


class TestPack:
    def test_offsets(self):
        batch = pack([HOUSE, Sketch.from_strokes([[(1, 1), (2, 2)]])])
        assert isinstance(batch, SketchBatch)
        assert batch.num_sketches == 2
        assert batch.points.dtype == np.float32
        assert batch.points.flags.c_contiguous
        assert batch.stroke_offsets.tolist() == [0, 3, 4, 6, 8]
        assert batch.sketch_offsets.tolist() == [0, 3, 4]
        assert batch.stroke_offsets.dtype == batch.sketch_offsets.dtype == np.int64
        assert batch.points[6:].tolist() == [[1, 1], [2, 2]]

    def test_rounds_half_to_even_before_float32(self):
        sketch = Sketch.from_strokes([[(0.5, 1.5), (2.5, -0.5), (3.5, 101.49999999)]])
        assert np.float32(101.49999999) == 101.5  # which would round to 102
        assert pack([sketch], round_points=True).points.tolist() == [[0, 2], [2, 0], [4, 101]]

    def test_nothing_to_pack(self):
        batch = pack([])
        assert batch.num_sketches == 0
        assert batch.points.shape == (0, 2)
        assert batch.stroke_offsets.tolist() == batch.sketch_offsets.tolist() == [0]
