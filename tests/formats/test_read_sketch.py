"""read_sketch: the right reader for every extension."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fgsbir_edge.errors import SketchFormatError, SketchTooLargeError, UnreadableImageError
from fgsbir_edge.formats import read_sketch
from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.formats.qmul import write_qmul, write_strokes_npz
from fgsbir_edge.formats.quickdraw import write_quickdraw
from fgsbir_edge.formats.stroke3 import to_stroke3, write_stroke3
from fgsbir_edge.formats.svg import write_svg
from fgsbir_edge.sketch import Sketch
from tests.formats.samples import HOUSE, same

OTHER = HOUSE.scaled(2, 1)


@pytest.mark.parametrize("suffix", ["svg", "SVG", "ndjson", "npy", "npz", "pkl", "pickle"])
def test_vector_files(tmp_path, suffix):
    path = tmp_path / f"sketch.{suffix}"
    match suffix.lower():
        case "svg":
            write_svg(path, HOUSE)
        case "ndjson":
            write_quickdraw(path, [HOUSE], raw=True)
        case "npy":
            write_stroke3(path, HOUSE)
        case "npz":
            write_strokes_npz(path, {"only": HOUSE})
        case _:
            write_qmul(path, {"only": HOUSE})
    for source in (path, str(path)):
        sketch = read_sketch(source)
        assert isinstance(sketch, Sketch)
        assert same(sketch, HOUSE)
    with pytest.raises(SketchTooLargeError):
        read_sketch(path, max_points=3)


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "webp", "bmp"])
def test_images(tmp_path, suffix):
    image = Image.new("RGB", (40, 30), "white")
    ImageDraw.Draw(image).line((5, 5, 30, 20), fill="black", width=2)
    image.save(tmp_path / f"drawing.{suffix}")
    drawing = read_sketch(tmp_path / f"drawing.{suffix}")
    assert isinstance(drawing, Drawing)
    assert drawing.ink.shape == (30, 40)


def test_npz_of_one_stroke3_array(tmp_path):
    np.savez(tmp_path / "s.npz", to_stroke3(HOUSE))
    assert same(read_sketch(tmp_path / "s.npz"), HOUSE)


@pytest.mark.parametrize("suffix", ["npz", "pkl"])
def test_collections_need_a_key(tmp_path, suffix):
    path = tmp_path / f"many.{suffix}"
    (write_strokes_npz if suffix == "npz" else write_qmul)(path, {"/train/a_1": HOUSE, "/train/a_2": OTHER})
    assert same(read_sketch(f"{path}#/train/a_2"), OTHER)
    with pytest.raises(SketchFormatError, match=rf"2 sketches: name one as .*many\.{suffix}#KEY, where the keys are /train/a_1"):
        read_sketch(path)
    with pytest.raises(SketchFormatError, match="no sketch of key 'b'"):
        read_sketch(f"{path}#b")


def test_ndjson_takes_a_number(tmp_path):
    path = tmp_path / "many.ndjson"
    write_quickdraw(path, [HOUSE, OTHER], raw=True)
    assert same(read_sketch(path), HOUSE)
    assert same(read_sketch(f"{path}#1"), OTHER)
    with pytest.raises(SketchFormatError, match="no drawing 2"):
        read_sketch(f"{path}#2")
    for item in ("x", "-1", "²"):
        with pytest.raises(SketchFormatError, match="counted from 0"):
            read_sketch(f"{path}#{item}")


def test_a_name_with_a_hash_is_a_name(tmp_path):
    write_svg(tmp_path / "a#3.svg", HOUSE)
    assert same(read_sketch(tmp_path / "a#3.svg"), HOUSE)


@pytest.mark.parametrize("name", ["sketch.gif", "sketch", "sketch.csv"])
def test_unknown_extension_lists_what_is_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SketchFormatError, match=r"\.svg, \.ndjson, \.npz, \.npy, \.pkl, \.pickle or an image \(\.png"):
        read_sketch(tmp_path / name)


@pytest.mark.parametrize("suffix", ["svg", "ndjson", "npy", "npz", "pkl", "png"])
def test_missing(tmp_path, suffix):
    with pytest.raises(UnreadableImageError, match=rf"none\.{suffix}: no such file"):
        read_sketch(tmp_path / f"none.{suffix}")
    (tmp_path / f"folder.{suffix}").mkdir()
    with pytest.raises(UnreadableImageError):
        read_sketch(tmp_path / f"folder.{suffix}")
