"""Stroke-3 and stroke-5: layout, restoration, files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fgsbir_edge.errors import (
    EmptySketchError,
    NonFiniteError,
    ShapeError,
    SketchFormatError,
    SketchTooLargeError,
    UnreadableImageError,
)
from fgsbir_edge.formats.stroke3 import (
    from_stroke3,
    from_stroke5,
    read_strokes,
    to_stroke3,
    to_stroke5,
    write_stroke3,
    write_stroke5,
)
from fgsbir_edge.sketch import Sketch
from tests.formats.samples import any_coordinates, same, sketches, steady, whole_coordinates

CORNER = Sketch.from_strokes([[(10, 20), (13, 24), (13, 30)], [(0, 0), (5, 0)]])


class TestStroke3:
    def test_layout(self):
        assert to_stroke3(CORNER).tolist() == [[10, 20, 0], [3, 4, 0], [0, 6, 1], [-13, -30, 0], [5, 0, 1]]

    def test_restored_strokes_start_at_origin_plus_first_offset(self):
        sketch = from_stroke3([[10, 20, 0], [3, 4, 1], [1, 1, 0], [1, 0, 0]])
        assert [stroke.tolist() for stroke in sketch.strokes] == [[[10, 20], [13, 24]], [[14, 25], [15, 25]]]

    @steady
    @given(sketches(whole_coordinates))
    def test_round_trip_of_whole_numbers_is_exact(self, sketch):
        assert same(from_stroke3(to_stroke3(sketch)), sketch)

    @steady
    @given(sketches(any_coordinates))
    def test_round_trip(self, sketch):
        assert same(from_stroke3(to_stroke3(sketch)), sketch, within=1e-8)

    @pytest.mark.parametrize("rows", [np.zeros((4, 2)), np.zeros((4, 5)), np.zeros(3), np.zeros((2, 3), object)])
    def test_other_shapes(self, rows):
        with pytest.raises(ShapeError, match=r"\[n, 3\]"):
            from_stroke3(rows)

    def test_bad_rows(self):
        with pytest.raises(EmptySketchError):
            from_stroke3(np.zeros((0, 3)))
        with pytest.raises(EmptySketchError):
            from_stroke3([[1, 1, 1]])
        with pytest.raises(NonFiniteError):
            from_stroke3([[1, 1, 0], [np.nan, 1, 1]])


class TestStroke5:
    def test_layout_of_the_papers(self):
        assert to_stroke5(CORNER, max_len=6).tolist() == [
            [3, 4, 1, 0, 0],
            [0, 6, 0, 1, 0],
            [-13, -30, 1, 0, 0],
            [5, 0, 0, 0, 1],
            [0, 0, 0, 0, 1],
            [0, 0, 0, 0, 1],
        ]

    def test_without_a_length_there_is_no_padding(self):
        assert to_stroke5(CORNER).shape == (4, 5)
        assert (to_stroke5(CORNER) == to_stroke5(CORNER, max_len=9)[:4]).all()

    def test_too_long(self):
        assert len(to_stroke5(CORNER, max_len=4)) == 4
        with pytest.raises(SketchTooLargeError, match="simplify"):
            to_stroke5(CORNER, max_len=3)

    @steady
    @given(sketches(whole_coordinates, shortest_stroke=2), st.integers(0, 5))
    def test_round_trip(self, sketch, padding):
        assume(sketch.num_points > 2 or np.ptp(sketch.points, axis=0).any())  # a dot drawn as two points looks like an end row
        rows = to_stroke5(sketch, max_len=sketch.num_points - 1 + padding)
        assert (rows[:, 2:].sum(axis=1) == 1).all()
        assert same(from_stroke5(rows, start=tuple(sketch.points[0])), sketch)

    def test_the_first_point_is_the_origin_unless_told(self):
        assert from_stroke5(to_stroke5(CORNER)).points[:2].tolist() == [[0, 0], [3, 4]]

    def test_a_first_stroke_of_one_point_joins_the_second(self):
        dotted = Sketch.from_strokes([[(1, 1)], [(2, 2), (3, 3)]])
        assert from_stroke5(to_stroke5(dotted), start=(1, 1)).offsets.tolist() == [0, 3]

    def test_a_last_stroke_of_one_point(self):
        dotted = Sketch.from_strokes([[(1, 1), (2, 2)], [(3, 3)]])
        assert same(from_stroke5(to_stroke5(dotted), start=(1, 1)), dotted)

    def test_separate_end_row_of_sketch_rnn(self):
        rows = [[3, 4, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 1], [9, 9, 1, 0, 0]]
        assert from_stroke5(rows).points.tolist() == [[0, 0], [3, 4], [4, 4]]

    def test_rows_without_an_end(self):
        assert from_stroke5([[3, 4, 1, 0, 0], [1, 0, 1, 0, 0]]).num_points == 3

    def test_a_models_probabilities(self):
        rows = [[1, 0, 0.6, 0.3, 0.1], [1, 0, 0.2, 0.7, 0.1], [1, 0, 0.5, 0.4, 0.1], [1, 0, 0.1, 0.4, 0.5], [7, 7, 0.9, 0.1, 0]]
        assert from_stroke5(rows).offsets.tolist() == [0, 3, 5]

    def test_nothing_but_an_end(self):
        with pytest.raises(EmptySketchError):
            from_stroke5([[0, 0, 0, 0, 1]])


class TestFiles:
    def test_stroke3(self, tmp_path):
        write_stroke3(tmp_path / "s.npy", CORNER)
        assert same(read_strokes(tmp_path / "s.npy"), CORNER)

    def test_stroke5_loses_the_position(self, tmp_path):
        write_stroke5(tmp_path / "s.npy", CORNER, max_len=50)
        assert np.load(tmp_path / "s.npy").shape == (50, 5)
        assert same(read_strokes(tmp_path / "s.npy"), CORNER.transformed([[1, 0, -10], [0, 1, -20]]))

    def test_npz_of_one_array(self, tmp_path):
        np.savez(tmp_path / "s.npz", sketch=to_stroke3(CORNER).astype(np.int16))
        assert same(read_strokes(tmp_path / "s.npz"), CORNER)

    def test_fortran_order(self, tmp_path):
        np.save(tmp_path / "s.npy", np.asfortranarray(to_stroke3(CORNER)))
        assert same(read_strokes(tmp_path / "s.npy"), CORNER)

    def test_several_arrays(self, tmp_path):
        np.savez(tmp_path / "s.npz", a=to_stroke3(CORNER), b=to_stroke3(CORNER))
        with pytest.raises(SketchFormatError, match="holds 2 arrays"):
            read_strokes(tmp_path / "s.npz")

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((4, 4)), "stroke-3"),
            (np.zeros(9), "stroke-3"),
            (np.array(["a"]), "stroke-3"),
            (np.zeros((2, 3), complex), "complex"),
            (np.zeros((2, 3), object), "dtype object"),
        ],
    )
    def test_other_arrays(self, tmp_path, array, message):
        np.save(tmp_path / "s.npy", array, allow_pickle=True)
        with pytest.raises(SketchFormatError, match=rf"s\.npy: .*{message}"):
            read_strokes(tmp_path / "s.npy")

    def test_truncated_anywhere(self, tmp_path):
        write_stroke3(tmp_path / "s.npy", CORNER)
        data = (tmp_path / "s.npy").read_bytes()
        for length in range(0, len(data), 5):
            (tmp_path / "s.npy").write_bytes(data[:length])
            with pytest.raises(SketchFormatError, match=r"s\.npy: "):
                read_strokes(tmp_path / "s.npy")

    def test_errors_name_the_file(self, tmp_path):
        np.save(tmp_path / "s.npy", np.full((3, 3), np.nan))
        with pytest.raises(NonFiniteError, match=r"s\.npy: point 0"):
            read_strokes(tmp_path / "s.npy")
        with pytest.raises(UnreadableImageError, match="no such file"):
            read_strokes(tmp_path / "none.npy")
