"""QuickDraw ndjson: simplified and raw, streaming, errors that name the line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given

from fgsbir_edge.errors import EmptySketchError, NonFiniteError, ShapeError, SketchFormatError, SketchTooLargeError
from fgsbir_edge.formats import quickdraw
from fgsbir_edge.formats.quickdraw import QuickDrawing, iter_quickdraw, read_quickdraw, write_quickdraw
from fgsbir_edge.sketch import Sketch
from tests.formats.samples import HOUSE, any_coordinates, same, sketches, steady

CAT = {
    "key_id": "5891796615823360",
    "word": "cat",
    "countrycode": "AE",
    "timestamp": "2017-03-01 20:41:36.70725 UTC",
    "recognized": False,
    "drawing": [[[0, 129, 255], [0, 7, 200]], [[30, 40], [50, 60]]],
}


def ndjson(path, *entries):
    path.write_text("".join((entry if isinstance(entry, str) else json.dumps(entry)) + "\n" for entry in entries))
    return path


class TestReading:
    def test_simplified(self, tmp_path):
        drawing = read_quickdraw(ndjson(tmp_path / "cat.ndjson", CAT))
        assert [stroke.tolist() for stroke in drawing.sketch.strokes] == [[[0, 0], [129, 7], [255, 200]], [[30, 50], [40, 60]]]
        assert (drawing.word, drawing.key_id, drawing.recognized) == ("cat", "5891796615823360", False)
        assert drawing.times is None

    def test_raw_keeps_times(self, tmp_path):
        raw = CAT | {"drawing": [[[1.5, 2.25], [3, 4], [0, 16]], [[], [], []], [[5, 6], [7, 8], [40, 55]]]}
        drawing = read_quickdraw(ndjson(tmp_path / "cat.ndjson", raw))
        assert drawing.sketch.points.tolist() == [[1.5, 3], [2.25, 4], [5, 7], [6, 8]]
        assert drawing.times is not None
        assert drawing.times.tolist() == [0, 16, 40, 55]

    def test_index_and_blank_lines(self, tmp_path):
        path = ndjson(tmp_path / "c.ndjson", CAT, "", "  ", CAT | {"word": "dog"})
        assert [drawing.word for drawing in iter_quickdraw(path)] == ["cat", "dog"]
        assert read_quickdraw(path, 1).word == "dog"
        with pytest.raises(SketchFormatError, match="no drawing 2"):
            read_quickdraw(path, 2)

    def test_streams(self, tmp_path):
        path = ndjson(tmp_path / "c.ndjson", CAT, "not json")
        stream = iter_quickdraw(path)
        assert next(stream).word == "cat"
        with pytest.raises(SketchFormatError):
            next(stream)

    @pytest.mark.parametrize(
        ("line", "error", "message"),
        [
            ("{", SketchFormatError, "not a line of JSON"),
            ("[" * 100_000, SketchFormatError, "not a line of JSON"),
            ('{"drawing": [[[' + "1" * 5000 + ",1],[1,1]]]}", SketchFormatError, "JSON"),
            ("[]", SketchFormatError, 'no list "drawing"'),
            ("{}", SketchFormatError, 'no list "drawing"'),
            ('{"drawing": 5}', SketchFormatError, 'no list "drawing"'),
            ('{"drawing": [5]}', SketchFormatError, "stroke 0 is not"),
            ('{"drawing": [[[1, 2], [3, 4]], [[1, 2], [3]]]}', SketchFormatError, "stroke 1 is not"),
            ('{"drawing": [[[1, 2]]]}', SketchFormatError, "stroke 0 is not"),
            ('{"drawing": [[["a", "b"], ["c", "d"]]]}', SketchFormatError, "stroke 0 is not"),
            ('{"drawing": [[[1, null], [3, 4]]]}', SketchFormatError, "stroke 0 is not"),
            ('{"drawing": []}', EmptySketchError, "0 points"),
            ('{"drawing": [[[1], [2]]]}', EmptySketchError, "1 point,"),
            ('{"drawing": [[[1, NaN], [3, 4]]]}', NonFiniteError, "point 1"),
            ('{"drawing": [[[1, 1e999], [3, 4]]]}', NonFiniteError, "point 1"),
            ("\udc80", SketchFormatError, "not a line of JSON"),
        ],
    )
    def test_bad_lines_are_named(self, tmp_path, line, error, message):
        path = tmp_path / "c.ndjson"
        path.write_bytes((json.dumps(CAT) + "\n" + line).encode("utf-8", "surrogateescape"))
        with pytest.raises(error, match=rf"c\.ndjson:2: .*{message}") as caught:
            list(iter_quickdraw(path))
        assert "\n" not in str(caught.value)

    def test_bad_lines_can_be_passed_over(self, tmp_path):
        path = ndjson(tmp_path / "c.ndjson", "x", CAT, {"drawing": [[[1], [2]]]}, CAT)
        errors = []
        assert len(list(iter_quickdraw(path, on_error=errors.append))) == 2
        assert [type(error) for error in errors] == [SketchFormatError, EmptySketchError]

    def test_overlong_line(self, tmp_path, monkeypatch):
        monkeypatch.setattr(quickdraw, "MAX_LINE_BYTES", 300)
        path = ndjson(tmp_path / "c.ndjson", CAT, "x" * 400, CAT)
        with pytest.raises(SketchTooLargeError, match=":2: line of more than 300 bytes"):
            list(iter_quickdraw(path, on_error=lambda _: None))

    def test_limit(self, tmp_path):
        many = {"drawing": [[list(range(100_001)), [0] * 100_001]]}
        path = ndjson(tmp_path / "c.ndjson", many)
        with pytest.raises(SketchTooLargeError, match=":1: sketch has 100001 points"):
            read_quickdraw(path)
        assert read_quickdraw(path, max_points=None).sketch.num_points == 100_001


class TestWriting:
    @steady
    @given(sketches(any_coordinates))
    def test_raw_round_trip(self, tmp_path_factory, sketch):
        path = tmp_path_factory.mktemp("raw") / "c.ndjson"
        times = np.arange(sketch.num_points) * 3.5
        write_quickdraw(path, [QuickDrawing(sketch, "cat", "7", False, times)], raw=True)
        back = read_quickdraw(path)
        assert same(back.sketch, sketch)
        assert back.times is not None
        assert back.times.tolist() == times.tolist()
        assert (back.word, back.key_id, back.recognized) == ("cat", "7", False)

    def test_simplified_aligns_scales_and_rounds(self, tmp_path):
        sketch = Sketch.from_strokes([[(-10, 100), (10, 100), (10, 108)], [(0, 104), (1, 104)]])
        write_quickdraw(tmp_path / "c.ndjson", [sketch])
        entry = json.loads((tmp_path / "c.ndjson").read_text())
        assert entry["drawing"] == [[[0, 255, 255], [0, 0, 102]], [[128, 140], [51, 51]]]

    def test_simplified_leaves_simplified_drawings_alone(self, tmp_path):
        first = read_quickdraw(ndjson(tmp_path / "a.ndjson", CAT))
        write_quickdraw(tmp_path / "b.ndjson", [first, first])
        again = list(iter_quickdraw(tmp_path / "b.ndjson"))
        assert len(again) == 2
        assert same(again[1].sketch, first.sketch)
        assert again[1].word == "cat"

    def test_raw_without_times_ticks(self, tmp_path):
        write_quickdraw(tmp_path / "c.ndjson", [HOUSE], raw=True)
        assert read_quickdraw(tmp_path / "c.ndjson").times.tolist() == [0, 20, 40, 60, 80, 100, 120]

    def test_times_of_another_length(self, tmp_path):
        with pytest.raises(ShapeError, match="times"):
            write_quickdraw(tmp_path / "c.ndjson", [QuickDrawing(HOUSE, times=np.zeros(3))], raw=True)
        assert not (tmp_path / "c.ndjson").exists()

    def test_dot(self, tmp_path):
        with pytest.raises(EmptySketchError):
            write_quickdraw(tmp_path / "c.ndjson", [Sketch.from_strokes([[(1, 1), (1, 1)]])])
