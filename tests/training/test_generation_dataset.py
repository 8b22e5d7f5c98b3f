"""Sequences of folders, vector and raster, with and without a cache, and of QuickDraw drawings."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgsbir_edge.errors import EmptySketchError, PairsFormatError
from fgsbir_edge.formats.qmul import write_strokes_npz
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.sketch import Sketch
from tests.training.downloads import drawn, picture, save, scribble
from training.data.folder import PairsFolder
from training.data.quickdraw import QuickDrawSet
from training.generation import dataset
from training.generation.dataset import pictures, quickdraw_set, sequence_set, vector_sketch
from training.generation.sequences import SequenceOptions, offset_scale, prepared, to_rows


@pytest.fixture
def vectors(tmp_path: Path) -> PairsFolder:
    """Five vector sketches of one to five strokes."""
    write_strokes_npz(tmp_path / "strokes.npz", {f"s{n}": scribble(n, n + 1) for n in range(5)})
    save(picture(0), tmp_path / "photos" / "p.png")
    (tmp_path / "pairs.csv").write_text("sketch,photo,category\n" + "".join(f"s{n},p.png,chair\n" for n in range(5)))
    return PairsFolder.read(tmp_path)


def test_vector_sketches_as_they_are(vectors: PairsFolder) -> None:
    found = sequence_set(vectors, vectors.pairs)
    sketches = [vectors.sketch(f"s{n}") for n in range(5)]
    assert found.pairs == vectors.pairs
    assert found.scale == pytest.approx(offset_scale(sketches))
    assert found.rows.shape == (5, 101, 5)
    for number, sketch in enumerate(sketches):
        np.testing.assert_array_equal(found.rows[number, : found.lengths[number]], to_rows(sketch, found.scale))


def test_long_sketches_are_left_out_and_named(vectors: PairsFolder) -> None:
    points = [prepared(vectors.sketch(pair.sketch)).num_points for pair in vectors.pairs]
    limit = sorted(points)[2]
    found = sequence_set(vectors, vectors.pairs, SequenceOptions(max_points=limit, max_length=limit - 1), scale=30.0)
    assert found.scale == 30.0
    assert found.too_long == tuple(f"s{n}" for n in range(5) if points[n] > limit)
    assert [pair.sketch for pair in found.pairs] == [f"s{n}" for n in range(5) if points[n] <= limit]
    assert found.lengths.max() == limit - 1
    with pytest.raises(PairsFormatError, match="larger epsilon"):
        sequence_set(vectors, vectors.pairs, SequenceOptions(max_points=2))


def test_raster_sketches_are_traced_once(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cache the same rows come back without tracing, of a copied folder too; a changed file is traced anew."""
    copy = tmp_path / "copy"
    shutil.copytree(shapes, copy)
    folder = PairsFolder.read(shapes)
    plain = sequence_set(folder, folder.pairs[:6])
    first = sequence_set(folder, folder.pairs[:6], cache=tmp_path / "cache")
    np.testing.assert_array_equal(first.rows, plain.rows)
    traced = []
    again = dataset.trace_drawing
    monkeypatch.setattr(dataset, "trace_drawing", lambda *given: traced.append(given) or again(*given))
    moved = PairsFolder.read(copy)
    np.testing.assert_array_equal(sequence_set(moved, moved.pairs[:6], cache=tmp_path / "cache").rows, plain.rows)
    assert not traced
    drawn(scribble(3)).save(copy / "sketches" / folder.pairs[0].sketch)
    changed = sequence_set(moved, moved.pairs[:6], cache=tmp_path / "cache")
    assert len(traced) == 1
    assert changed.lengths[0] != plain.lengths[0]
    assert len(changed.sketch(0).strokes) > 1


def test_a_traced_disc_is_a_disc(shapes: Path) -> None:
    folder = PairsFolder.read(shapes)
    sketch, traced = vector_sketch(folder, "ann/disc5.png")
    assert traced
    radius = np.hypot(*(sketch.points - 128).T)
    assert radius.max() == pytest.approx(95, abs=1.5)
    assert sketch.num_strokes == 2  # and the line across it
    coarse, fine = (sequence_set(folder, folder.pairs[:1], SequenceOptions(trace_epsilon=e)) for e in (None, 1.5))
    assert coarse.lengths[0] < fine.lengths[0]


def test_the_second_folder_of_sketches(shapes: Path, tmp_path: Path) -> None:
    root = tmp_path / "shoes"
    shutil.copytree(shapes, root)
    (root / "sketches").rename(root / "sketches_extra")
    folder, original = PairsFolder.read(root), PairsFolder.read(shapes)
    for cache in (None, tmp_path / "cache"):
        found = sequence_set(folder, folder.pairs[:2], cache=cache)
        np.testing.assert_array_equal(found.rows, sequence_set(original, original.pairs[:2]).rows)


def test_an_empty_sketch_is_named(shapes: Path, tmp_path: Path) -> None:
    root = tmp_path / "blank"
    shutil.copytree(shapes, root)
    folder = PairsFolder.read(root)
    Image.new("L", (64, 64), 255).save(root / "sketches" / folder.pairs[1].sketch)
    with pytest.raises(EmptySketchError, match=folder.pairs[1].sketch):
        sequence_set(folder, folder.pairs[:3])


def test_quickdraw_drawings_are_their_own_photos() -> None:
    sketches = {f"shoe/{n}": scribble(n) for n in range(3)}
    found = quickdraw_set(QuickDrawSet(sketches, dict.fromkeys(sketches, "shoe")))
    assert [(pair.sketch, pair.photo, pair.category) for pair in found.pairs] == [(key, key, "shoe") for key in sketches]
    spec = InputSpec(size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), ink="light")
    seen = pictures(found, [2, 0], spec)
    assert (seen.shape, seen.dtype) == ((2, 3, 64, 64), np.float32)
    assert np.median(seen) == 1  # white paper
    assert seen.min() == -1
    assert not np.array_equal(seen[0], seen[1])


def test_a_dot_is_no_quickdraw_drawing() -> None:
    dot = Sketch.from_strokes([[[5, 5], [5, 5]]])
    with pytest.raises(EmptySketchError, match="shoe/7"):
        quickdraw_set(QuickDrawSet({"shoe/7": dot}, {"shoe/7": "shoe"}))
