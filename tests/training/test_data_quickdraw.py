"""QuickDraw lines and Sketch-RNN arrays, whole, damaged and hostile."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgsbir_edge.errors import SketchFormatError, UnreadableImageError
from fgsbir_edge.formats.stroke3 import to_stroke3
from tests.training.downloads import npz_of, python2_array, scribble, sketch_rnn
from training.data.object_npz import read_object_npz
from training.data.quickdraw import SPLITS, QuickDrawOptions, QuickDrawSet, read_quickdraw_sets

SHORT = QuickDrawOptions(min_points=2)


def line(number: int, word: str = "hot dog", *, raw: bool = False, recognized: bool = True, points: int = 14) -> str:
    """A drawing as Google publishes it."""
    rng = np.random.default_rng(number)
    scale = 3.7 if raw else 1
    strokes = [rng.integers(0, 255, (2, points - 4)).tolist(), rng.integers(0, 255, (2, 4)).tolist()]
    if raw:
        strokes = [[[value * scale for value in axis] for axis in stroke] + [list(range(len(stroke[0])))] for stroke in strokes]
    facts = {"word": word, "countrycode": "GB", "timestamp": "2017-03-01 20:41:36.70725 UTC"}
    return json.dumps({**facts, "recognized": recognized, "key_id": f"{4503600000000000 + number}", "drawing": strokes})


def write(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def total(sets: dict[str, QuickDrawSet]) -> int:
    return sum(len(part.sketches) for part in sets.values())


@pytest.mark.parametrize("raw", [False, True])
def test_lines_become_centred_sketches(tmp_path: Path, raw: bool) -> None:
    sets = read_quickdraw_sets(write(tmp_path / "hot dog.ndjson", [line(n, raw=raw) for n in range(40)]))
    assert total(sets) == 40
    for part in sets.values():
        for key, sketch in part.sketches.items():
            assert key.startswith("hot_dog/45036")
            assert part.words[key] == "hot_dog"
            x0, y0, x1, y1 = sketch.bounds
            assert max(x1 - x0, y1 - y0) == pytest.approx(190)
            assert (x0 + x1) / 2 == pytest.approx(128)


def test_the_split_depends_on_the_number_alone(tmp_path: Path) -> None:
    lines = [line(n) for n in range(400)]
    whole = read_quickdraw_sets(write(tmp_path / "a.ndjson", lines))
    assert 4 <= len(whole["valid"].sketches) <= 28  # a thirtieth of 400 is 13
    assert 4 <= len(whole["test"].sketches) <= 28
    part = read_quickdraw_sets(write(tmp_path / "b.ndjson", lines[200:][::-1]))
    for split in SPLITS:
        assert set(part[split].sketches) <= set(whole[split].sketches)


def test_limit_takes_the_first_of_each_split(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ndjson", [line(n) for n in range(400)])
    whole, few = read_quickdraw_sets(path), read_quickdraw_sets(path, QuickDrawOptions(limit=5))
    for split in SPLITS:
        assert list(few[split].sketches) == list(whole[split].sketches)[:5]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    dot = json.dumps({"word": "dot", "key_id": "9", "recognized": True, "drawing": [[[7] * 12, [7] * 12]]})
    nothing = json.dumps({"word": "dot", "key_id": "8", "recognized": True, "drawing": []})
    lines = [line(0), line(1, recognized=False), line(2, points=10), dot, nothing, line(3, points=11)]
    sets = read_quickdraw_sets(write(tmp_path / "a.ndjson", lines))
    assert total(sets) == 2
    assert sets["train"].notes == ["a.ndjson: 1 short", "a.ndjson: 2 empty", "a.ndjson: 1 not recognised"]
    assert total(read_quickdraw_sets(tmp_path / "a.ndjson", QuickDrawOptions(min_points=2, recognized=False))) == 4


def test_truncated_line_is_named(tmp_path: Path) -> None:
    lines = [line(0), line(1), line(2)[:50]]
    path = write(tmp_path / "a.ndjson", lines)
    with pytest.raises(SketchFormatError, match=r"a\.ndjson:3: not a line of JSON"):
        read_quickdraw_sets(path)
    sets = read_quickdraw_sets(path, QuickDrawOptions(skip_bad=True))
    assert total(sets) == 2
    assert "a.ndjson:3" in sets["train"].notes[0]


def test_names_from_the_file_stay_names(tmp_path: Path) -> None:
    with pytest.raises(SketchFormatError, match="cannot name a category"):
        read_quickdraw_sets(write(tmp_path / "a.ndjson", [line(0, word="../../up")]))
    with pytest.raises(SketchFormatError, match="is there twice"):
        read_quickdraw_sets(write(tmp_path / "a.ndjson", [line(0), line(0)]))
    with pytest.raises(SketchFormatError, match="not a number"):
        read_quickdraw_sets(write(tmp_path / "a.ndjson", [line(0).replace("4503600000000000", "../x")]))


@pytest.mark.parametrize("suffix", [".txt", ".bin"])
def test_other_files_are_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").touch()
    with pytest.raises(SketchFormatError, match=r"expected \.ndjson or \.npz"):
        read_quickdraw_sets(tmp_path / f"a{suffix}")
    with pytest.raises(UnreadableImageError, match=r"no \.ndjson or \.npz file"):
        read_quickdraw_sets(tmp_path)


def stroke3(seed: int) -> np.ndarray:
    return np.rint(to_stroke3(scribble(seed))).astype(np.int16)


def test_sketch_rnn_keeps_its_split(tmp_path: Path) -> None:
    rows = {
        split: [stroke3(10 * i + n) for n in range(count)] for i, (split, count) in enumerate(zip(SPLITS, (5, 2, 3), strict=True))
    }
    path = sketch_rnn(tmp_path / "sketchrnn_hot dog.full.npz", rows)
    sets = read_quickdraw_sets(path, SHORT)
    assert {split: len(part.sketches) for split, part in sets.items()} == {"train": 5, "valid": 2, "test": 3}
    sketch = sets["valid"].sketches["hot_dog/valid_000001"]
    points = np.cumsum(rows["valid"][1][:, :2].astype(float), axis=0)
    extent = np.ptp(points, axis=0).max()
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    assert np.allclose(sketch.points, (points - middle) * 190 / extent + 128)
    assert sketch.num_strokes == int(rows["valid"][1][:, 2].sum())
    assert list(read_quickdraw_sets(path, QuickDrawOptions(limit=2, min_points=2))["train"].sketches) == [
        "hot_dog/train_000000",
        "hot_dog/train_000001",
    ]


@pytest.mark.parametrize("long", ["", "L"])
def test_files_of_python_2_are_read(tmp_path: Path, long: str) -> None:
    rows = [stroke3(1)[:20], stroke3(2)[:9]]
    body = python2_array(rows)
    check = pickle.loads(body, encoding="latin1")
    assert [array.tolist() for array in check] == [array.tolist() for array in rows]  # the bytes are what NumPy would read
    read = read_object_npz(npz_of(tmp_path / "a.npz", {"train": body}, count=2, long=long))
    assert [array.tolist() for array in read["train"]] == [array.tolist() for array in rows]
    assert read["train"][0].dtype == np.int16


def test_several_files_make_one_set(tmp_path: Path) -> None:
    for word in ("cat", "bird"):
        sketch_rnn(tmp_path / f"sketchrnn_{word}.npz", {split: [stroke3(1)] for split in SPLITS})
    write(tmp_path / "shoe.ndjson", [line(1, "shoe")])
    sets = read_quickdraw_sets(tmp_path, SHORT)
    assert {word for part in sets.values() for word in part.words.values()} == {"bird", "cat", "shoe"}
    assert list(sets["test"].sketches)[:2] == ["bird/test_000000", "cat/test_000000"]


def test_bad_rows_are_named_or_skipped(tmp_path: Path) -> None:
    good, bad = stroke3(1), np.zeros((4, 2), np.int16)
    path = sketch_rnn(tmp_path / "cat.npz", {"train": [good, bad, good[:, :3]], "valid": [good], "test": [good[:1]]})
    with pytest.raises(Exception, match=r"cat\.npz: train 1: rows have shape \(4, 2\)"):
        read_quickdraw_sets(path, SHORT)
    sets = read_quickdraw_sets(path, QuickDrawOptions(min_points=2, skip_bad=True))
    assert len(sets["train"].sketches) == 2
    assert len(sets["test"].sketches) == 0
    assert sets["train"].notes[0] == "cat.npz: 1 empty"


def test_missing_split_is_named(tmp_path: Path) -> None:
    path = sketch_rnn(tmp_path / "cat.npz", {"train": [stroke3(1)], "test": [stroke3(2)]})
    with pytest.raises(SketchFormatError, match="no array 'valid'"):
        read_quickdraw_sets(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_archive_is_named(tmp_path: Path, share: float) -> None:
    path = sketch_rnn(tmp_path / "cat.npz", {split: [stroke3(n) for n in range(9)] for split in SPLITS})
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(SketchFormatError, match=r"cat\.npz"):
        read_quickdraw_sets(path)


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def objects(*items: Any) -> bytes:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    stream = io.BytesIO()
    pickle.dump(array, stream, protocol=3)
    return stream.getvalue()


@pytest.mark.parametrize("where", ["element", "whole", "nested"])
def test_a_pickle_in_an_archive_is_not_run(tmp_path: Path, where: str) -> None:
    evil = Hostile(tmp_path / "ran")
    inner = np.empty(1, dtype=object)
    inner[0] = evil
    body = {"element": objects(evil), "whole": pickle.dumps(evil), "nested": objects(inner)}[where]
    path = npz_of(tmp_path / "cat.npz", dict.fromkeys(SPLITS, body))
    np.load(path, allow_pickle=True)["train"]
    assert (tmp_path / "ran").exists()  # NumPy would run it
    (tmp_path / "ran").rmdir()
    with pytest.raises(SketchFormatError, match="refused"):
        read_quickdraw_sets(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("body", "count", "words"),
    [
        (objects("text"), 1, "something other than arrays"),
        (objects([1, 2, 3]), 1, "something other than arrays"),
        (objects(stroke3(1)), 2, "does not hold the 2 arrays"),
        (pickle.dumps([1]), 1, "does not hold the 1 arrays"),
        (objects(np.array([None])), 1, "something other than arrays"),
        (b"", 1, "truncated or damaged"),
        (objects(stroke3(1))[:-40], 1, "truncated or damaged"),
        (objects(np.array(["a", "b"])), 1, "dtype"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, body: bytes, count: int, words: str) -> None:
    with pytest.raises(SketchFormatError, match=words):
        read_object_npz(npz_of(tmp_path / "cat.npz", {"train": body}, count))


def test_plain_arrays_are_no_sketch_rnn_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "cat.npz", train=np.zeros((3, 3)))
    with pytest.raises(SketchFormatError, match="expected a list of stroke-3 arrays"):
        read_object_npz(tmp_path / "cat.npz")
