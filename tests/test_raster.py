"""The rasteriser: golden images, the native core against its NumPy twin, clipping, outputs, threads, refusals."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgsbir_edge import _native
from fgsbir_edge._reference import raster as twin
from fgsbir_edge.errors import NonFiniteError, ShapeError, SketchTooLargeError
from fgsbir_edge.raster import RasterSpec, rasterize
from fgsbir_edge.sketch import Sketch, SketchBatch, pack

GOLDEN_STROKES = [[(40.4, 40.6), (200.2, 60.1), (119.5, 200.5)], [(30, 128), (220, 128)], [(128, 30), (128, 31)]]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def digest(mask: np.ndarray) -> str:
    return hashlib.sha256((mask > 0).astype(np.uint8).tobytes()).hexdigest()[:16]


def batch_of(*sketches: list[list[tuple[float, float]]]) -> SketchBatch:
    """A batch without the checks of Sketch: sketches and strokes may be empty or single points."""
    strokes = [stroke for sketch in sketches for stroke in sketch]
    points = np.array([point for stroke in strokes for point in stroke], dtype=np.float32).reshape(-1, 2)
    return SketchBatch(points, np.cumsum([0, *map(len, strokes)]), np.cumsum([0, *map(len, sketches)]))


def scribble(seed: int, points: int = 60, low: float = -20.0, high: float = 280.0) -> Sketch:
    rng = np.random.default_rng(seed)
    return Sketch.from_strokes(np.array_split(rng.uniform(low, high, (points, 2)), [points // 3, points // 2]))


def sketches_within(low: float, high: float) -> st.SearchStrategy[list[list[tuple[float, float]]]]:
    coordinate = st.floats(low, high, width=32) | st.integers(-2, 36).map(float)
    stroke = st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=6)
    return st.lists(stroke, min_size=0, max_size=4)


# ---- golden images ----


def test_golden_sketch_of_the_papers_rasteriser():
    lines = twin.lines([np.array(stroke, dtype=float) for stroke in GOLDEN_STROKES], 256, 256)
    assert (lines.sum(), digest(lines)) == (493, "2c0099e863718538")
    image = rasterize(Sketch.from_strokes(GOLDEN_STROKES), RasterSpec())[0]
    assert ((image > 0).sum(), digest(image)) == (1477, "9085fd24521c7aec")
    assert set(np.unique(image)) == {0, 255}


def test_segments_depend_on_their_direction():
    forwards = twin.segment_pixels(10, 10, 16, 13)
    assert [y for _, y in forwards] == [10, 11, 11, 12, 12, 13, 13]
    assert set(twin.segment_pixels(16, 13, 10, 10)) != set(forwards)


def test_dilation_is_scipys():
    ndimage = pytest.importorskip("scipy.ndimage")
    mask = np.random.default_rng(0).random((40, 50)) < 0.1
    np.testing.assert_array_equal(twin.dilated(mask), ndimage.binary_dilation(mask))


def test_chairv2_golden_hashes():
    folder = os.environ.get("FGSBIR_DATA")
    if not folder:
        pytest.skip("FGSBIR_DATA does not name a folder that holds chairv2/ (research data, not shipped)")
    golden = json.loads((Path(__file__).parent / "golden" / "raster_chairv2.json").read_text())["sha256"]
    with np.load(Path(folder) / "chairv2" / "strokes.npz", allow_pickle=False) as stored:
        keys, offsets, points = stored["keys"].tolist(), stored["offsets"], stored["points"].astype(np.float64)
    sketches = []
    for key in golden:
        own = points[slice(*offsets[keys.index(key) :][:2])]
        sketches.append(Sketch.from_strokes(np.split(own, np.flatnonzero(own[:, 2]) + 1)))
    images = rasterize(sketches, RasterSpec(), threads=2)
    assert {key: digest(image) for key, image in zip(golden, images, strict=True)} == golden


# ---- native core against its twin ----


@settings(max_examples=150, deadline=None)
@given(sketches_within(-3000.0, 3000.0), st.integers(1, 40), st.integers(1, 40))
def test_bresenham_is_bit_exact(sketch: list[list[tuple[float, float]]], height: int, width: int):
    image = rasterize(batch_of(sketch), RasterSpec(height, width), scale=False)[0]
    strokes = [np.array(stroke) for stroke in sketch]
    np.testing.assert_array_equal(image, twin.bresenham(strokes, height, width))


def test_every_short_segment_is_bit_exact():
    """All segments between the points of a 10x10 grid around a canvas of 5x6 pixels: every way of entering and leaving it."""
    grid = [(float(x), float(y)) for x in range(-2, 8) for y in range(-2, 8)]
    segments = [[start, end] for start in grid for end in grid]
    images = rasterize(batch_of(*([segment] for segment in segments)), RasterSpec(5, 6), scale=False)
    for segment, image in zip(segments, images, strict=True):
        np.testing.assert_array_equal(image, twin.bresenham([np.array(segment)], 5, 6), err_msg=str(segment))


@settings(max_examples=150, deadline=None)
@given(sketches_within(-300.0, 300.0), st.integers(1, 40), st.integers(1, 40), st.floats(0.125, 12.0))
def test_antialias_is_within_one_level(sketch: list[list[tuple[float, float]]], height: int, width: int, line_width: float):
    image = rasterize(batch_of(sketch), RasterSpec(height, width, "antialias", line_width), scale=False)[0]
    expected = twin.antialias([np.array(stroke) for stroke in sketch], height, width, line_width)
    assert np.abs(image.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("style", "line_width"), [("bresenham", 2.0), ("antialias", 2.0), ("antialias", 0.7)])
def test_whole_canvas_matches_the_twin(style, line_width):
    sketch = scribble(3)
    image = rasterize(pack([sketch]), RasterSpec(style=style, line_width=line_width))[0]
    strokes = [stroke.astype(np.float32).astype(float) for stroke in sketch.strokes]
    if style == "bresenham":
        np.testing.assert_array_equal(image, twin.bresenham(strokes, 256, 256))
    else:
        difference = np.abs(image.astype(int) - twin.antialias(strokes, 256, 256, line_width))
        assert difference.max() <= 1
        assert image.max() == min(255, np.floor((0.5 + line_width / 2) * 255 + 0.5)) or line_width < 1


# ---- clipping ----


def far_pixels(start: tuple[int, int], end: tuple[int, int], side: int) -> set[tuple[int, int]]:
    """Visible pixels of a segment too long to walk, by the closed form of the walk in whole numbers of any size."""
    (x0, y0), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
    x_is_major = abs(dx) > abs(dy)
    major, minor = (dx, dy) if x_is_major else (dy, dx)
    a0, b0 = (x0, y0) if x_is_major else (y0, x0)
    steps = {(a - a0) * (1 if major > 0 else -1): a for a in range(1, side)}
    pixels = set()
    for k, a in steps.items():
        if 0 <= k <= abs(major):
            b = b0 + (1 if minor > 0 else -1) * ((2 * abs(minor) * k + abs(major)) // (2 * abs(major)))
            if 0 < b < side:
                pixels.add((a, b) if x_is_major else (b, a))
    return pixels


# float32 holds these exactly: multiples of 64 up to 1e9
FAR = st.integers(-15_625_000, 15_625_000).map(lambda n: 64 * n)
NEAR = st.integers(-5, 70)


@settings(max_examples=150, deadline=None)
@given(st.tuples(FAR, FAR), st.tuples(NEAR, NEAR) | st.tuples(FAR, FAR), st.booleans())
def test_far_segments_are_bit_exact(far: tuple[int, int], near: tuple[int, int], backwards: bool):
    start, end = (near, far) if backwards else (far, near)
    if start == end:
        return
    expected = np.zeros((64, 64), np.bool_)
    for x, y in far_pixels(start, end, 64):
        expected[y, x] = True
    image = rasterize(batch_of([[start, end]]), RasterSpec(64, 64), scale=False)[0]
    np.testing.assert_array_equal(image > 0, twin.dilated(expected))


@settings(max_examples=100, deadline=None)
@given(st.tuples(FAR, FAR), st.tuples(NEAR, NEAR) | st.tuples(FAR, FAR))
def test_far_antialiased_segments(far: tuple[int, int], near: tuple[int, int]):
    image = rasterize(batch_of([[far, near]]), RasterSpec(64, 64, "antialias", 3.0), scale=False)[0]
    expected = twin.antialias([np.array([far, near], dtype=float)], 64, 64, 3.0)
    assert np.abs(image.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("point", "ink"), [((0, 5), 0), ((5, 0), 0), ((1, 5), 5), ((7, 7), 3), ((8, 7), 0), ((-3, 4), 0)])
def test_dots_at_the_frame(point, ink):
    assert (rasterize(batch_of([[point]]), RasterSpec(8, 8), scale=False) > 0).sum() == ink


# ---- scaling and rounding ----


def test_scale_is_canvas_to_pixels():
    sketch = scribble(1)
    for style in ("bresenham", "antialias"):
        spec = RasterSpec(64, 192, style)
        np.testing.assert_array_equal(rasterize(sketch, spec), rasterize(sketch.scaled(0.75, 0.25), spec, scale=False))


def test_rounding_is_half_to_even_and_happens_before_float32():
    spec = RasterSpec(16, 16)
    dots = [Sketch.from_strokes([[(x, 8.0)], [(x, 8.0)]]) for x in (2.5, 3.5, 1.5 - 1e-9)]
    columns = rasterize(dots, spec, scale=False)[:, 8].argmax(axis=1) + 1  # a dot's cross begins one to its left
    assert columns.tolist() == [2, 4, 1]


# ---- outputs ----


@pytest.mark.parametrize("style", ["bresenham", "antialias"])
def test_polarity(style):
    sketch = scribble(2)
    light, dark = (rasterize(sketch, RasterSpec(80, 90, style, ink=ink)) for ink in ("light", "dark"))
    assert light.dtype == np.uint8
    assert light.shape == (1, 80, 90)
    assert light.max() == 255
    np.testing.assert_array_equal(light, 255 - dark)


@pytest.mark.parametrize("style", ["bresenham", "antialias"])
@pytest.mark.parametrize("ink", ["light", "dark"])
def test_float_output_is_the_normalised_byte_output(style, ink):
    sketches = [scribble(4), scribble(5, low=100, high=120)]
    values = rasterize(sketches, RasterSpec(64, 70, style, ink=ink))
    floats = rasterize(sketches, RasterSpec(64, 70, style, 2.0, ink, *IMAGENET))
    assert floats.dtype == np.float32
    expected = np.stack([twin.output(value, False, *IMAGENET) for value in values])
    np.testing.assert_allclose(floats, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("style", ["bresenham", "antialias"])
@pytest.mark.parametrize("normalised", [False, True])
def test_threads_do_not_change_the_result(style, normalised):
    sketches = [scribble(seed) for seed in range(9)]
    spec = RasterSpec(64, 64, style, 2.0, "dark", *(IMAGENET if normalised else (None, None)))
    alone = rasterize(sketches, spec, threads=1)
    for threads in (2, 5, 40):
        np.testing.assert_array_equal(rasterize(sketches, spec, threads=threads), alone)


@pytest.mark.parametrize("style", ["bresenham", "antialias"])
def test_sketches_of_a_batch_do_not_mix(style):
    spec = RasterSpec(64, 64, style)
    sketches = [scribble(seed) for seed in range(5)]
    apart = np.concatenate([rasterize(sketch, spec) for sketch in sketches])
    np.testing.assert_array_equal(rasterize(sketches, spec), apart)


def test_blank_and_empty_batches():
    images = rasterize(batch_of([], [[(3, 3)]], [[]]), RasterSpec(8, 8), scale=False)
    assert (images > 0).sum(axis=(1, 2)).tolist() == [0, 5, 0]
    assert rasterize([], RasterSpec(8, 8)).shape == (0, 8, 8)


def test_out_is_written_in_place():
    spec = RasterSpec(32, 32, "antialias", 2.0, "dark", *IMAGENET)
    sketches = [scribble(6), scribble(7)]
    room = np.full((4, 3, 32, 32), np.nan, np.float32)
    assert rasterize(sketches, spec, out=room[1:3]).base is room
    np.testing.assert_array_equal(room[1:3], rasterize(sketches, spec))
    assert np.isnan(room[[0, 3]]).all()


# ---- refusals ----


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"height": 0}, "0x256"),
        ({"width": 40_000}, "256x40000"),
        ({"style": "crayon"}, "style is 'crayon'"),
        ({"line_width": 0.0}, "line_width is 0.0"),
        ({"line_width": float("nan")}, "line_width is nan"),
        ({"ink": "red"}, "ink is 'red'"),
        ({"mean": (0.5, 0.5, 0.5)}, "both mean and std"),
        ({"mean": (0.5, 0.5), "std": (1.0, 1.0)}, "three finite numbers"),
        ({"mean": (0.5, 0.5, 0.5), "std": (1.0, 0.0, 1.0)}, "std above 0"),
        ({"mean": (0.5, float("nan"), 0.5), "std": (1.0, 1.0, 1.0)}, "three finite numbers"),
    ],
)
def test_spec_refuses(settings_, message):
    with pytest.raises(ValueError, match=message):
        RasterSpec(**settings_)


def test_points_are_checked():
    spec = RasterSpec(8, 8)
    for value in (np.nan, np.inf):
        with pytest.raises(NonFiniteError, match="point 1"):
            rasterize(batch_of([[(1, 1), (2, value)]]), spec)
    with pytest.raises(SketchTooLargeError, match="2e\\+09"):
        rasterize(batch_of([[(1, 1), (2, 2e9)]]), spec, scale=False)
    with pytest.raises(ShapeError, match="stroke_offsets ends at 9"):
        rasterize(SketchBatch(np.zeros((3, 2), np.float32), np.array([0, 9]), np.array([0, 1])), spec)
    with pytest.raises(ShapeError, match=r"points is float32 \[3, 3\]"):
        rasterize(SketchBatch(np.zeros((3, 3), np.float32), np.array([0, 3]), np.array([0, 1])), spec)
    with pytest.raises(ValueError, match="threads is 0"):
        rasterize(scribble(0), spec, threads=0)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((1, 8, 9), np.uint8),
        np.zeros((1, 8, 8), np.float32),
        np.zeros((1, 8, 16), np.uint8)[:, :, ::2],
        np.frombuffer(bytes(64), np.uint8).reshape(1, 8, 8),
    ],
)
def test_unsuitable_out(out):
    with pytest.raises(ShapeError, match="expected writeable C-contiguous uint8"):
        rasterize(scribble(0), RasterSpec(8, 8), out=out)


GOOD = {
    "points": np.zeros((4, 2), np.float32),
    "stroke_offsets": np.array([0, 2, 4]),
    "sketch_offsets": np.array([0, 2]),
    "out": np.zeros((1, 8, 8), np.uint8),
    "style": 0,
    "line_width": 2.0,
    "std": (1.0, 1.0, 1.0),
    "threads": 1,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": np.zeros((4, 2))}, r"points is float64 \[4, 2\]"),
        ({"points": np.zeros((2, 4), np.float32).T}, "points .* C-contiguous"),
        ({"points": np.zeros((4, 3), np.float32)}, r"\[P, 2\]"),
        ({"points": np.full((4, 2), np.nan, np.float32)}, r"points\[0\] is not finite"),
        ({"stroke_offsets": np.array([0, 2, 4], np.int32)}, "stroke_offsets is int32"),
        ({"stroke_offsets": np.array([], np.int64)}, "stroke_offsets"),
        ({"stroke_offsets": np.array([0, 5, 4])}, "stroke_offsets falls at index 2"),
        ({"stroke_offsets": np.array([0, -1, 4])}, "stroke_offsets falls at index 1"),
        ({"stroke_offsets": np.array([0, 2, 5])}, "stroke_offsets ends at 5"),
        ({"sketch_offsets": np.array([1, 2])}, r"sketch_offsets\[0\] is 1"),
        ({"sketch_offsets": np.array([0, 1, 2])}, "out is uint8"),
        ({"out": np.zeros((1, 8, 8), np.int8)}, "out is int8"),
        ({"out": np.zeros((1, 4, 8, 8), np.float32)}, "out is float32"),
        ({"out": np.zeros((1, 3, 8, 8), np.float16)[:, :, ::2]}, "out is float16"),
        ({"out": np.zeros((1, 0, 8), np.uint8)}, "image is 0x8"),
        ({"style": 7}, "style is 7"),
        ({"style": 1, "line_width": -1.0}, "line_width is -1"),
        ({"std": (1.0, 0.0, 1.0), "out": np.zeros((1, 3, 8, 8), np.float32)}, "channel 1"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_native_refuses(change, message):
    given = {**GOOD, **change}
    batch = (given["points"], given["stroke_offsets"], given["sketch_offsets"])
    settings = (given["style"], given["line_width"], False, (0.0, 0.0, 0.0), given["std"])
    with pytest.raises(ValueError, match=message):
        _native.rasterize(batch, given["out"], settings, (1.0, 1.0), given["threads"])
