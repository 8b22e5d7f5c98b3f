"""What else the rasteriser draws: lists, prefixes, a growing canvas, float16, large batches; alike on every processor."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgsbir_edge.errors import NonFiniteError, ShapeError, SketchTooLargeError
from fgsbir_edge.raster import Canvas, RasterSpec, rasterize, rasterize_prefixes
from fgsbir_edge.sketch import Sketch, pack

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SPECS = [
    RasterSpec(64, 70),
    RasterSpec(64, 128, "antialias", 2.0, "dark"),
    RasterSpec(33, 65, "antialias", 5.0, "light", *IMAGENET),
]


def scribble(seed: int, points: int = 60) -> Sketch:
    rng = np.random.default_rng(seed)
    return Sketch.from_strokes(np.array_split(rng.uniform(-20, 280, (points, 2)), [points // 3, points // 2]))


# ---- plain objects ----


@pytest.mark.parametrize("spec", SPECS)
def test_lists_arrays_and_packed_batches_draw_alike(spec):
    sketches = [scribble(seed) for seed in range(3)]
    expected = rasterize(sketches, spec)
    as_arrays = [[stroke.copy() for stroke in sketch.strokes] for sketch in sketches]
    as_lists = [[[tuple(point) for point in stroke.tolist()] for stroke in strokes] for strokes in as_arrays]
    wide = [[np.hstack([stroke, np.ones((len(stroke), 1))]) for stroke in strokes] for strokes in as_arrays]
    sliced = [[np.asfortranarray(stroke) for stroke in strokes] for strokes in as_arrays]
    for same in (as_arrays, as_lists, wide, sliced, tuple(as_lists), [list(map(list, strokes)) for strokes in as_lists]):
        np.testing.assert_array_equal(rasterize(same, spec), expected)
    if spec.style == "antialias":  # a packed batch has lost the float64 that bresenham rounds
        np.testing.assert_array_equal(
            rasterize(pack(sketches), RasterSpec(256, 256, "antialias")), rasterize(sketches, RasterSpec(256, 256, "antialias"))
        )


def test_integers_and_empty_strokes_are_taken():
    square = [[(10, 10), (20, 10), (20, 20)], [], [(15, 15)]]
    images = rasterize(
        [square, [], [np.array([[10, 10], [20, 10], [20, 20]], np.int16), np.array([[15, 15]], np.uint8)]], RasterSpec()
    )
    np.testing.assert_array_equal(images[0], images[2])
    assert images[0].any()
    assert not images[1].any()


@pytest.mark.parametrize(
    ("sketches", "message"),
    [
        ([[[(1, 2), (3,)]]], "sketch 0, stroke 0, point 1: expected a pair"),
        ([[[(1, 2)]], [[(1, 2)], [(1, "x")]]], "sketch 1, stroke 1, point 0: expected a pair"),
        ([[[(1, 2), 5]]], "sketch 0, stroke 0, point 1"),
        ([[7]], "sketch 0, stroke 0 is no array"),
        ([7], "sketch 0 is no sequence of strokes"),
        ([[np.zeros((3, 1))]], r"stroke 0 has shape \[3, 1\]"),
        ([[np.zeros((3, 2), complex)]], "dtype complex128"),
        ([[np.array([["a", "b"]])]], "expected real numbers"),
    ],
)
def test_objects_that_are_no_sketches(sketches, message):
    with pytest.raises(ShapeError, match=message):
        rasterize(sketches, RasterSpec(8, 8))


def test_coordinates_of_objects_are_checked():
    with pytest.raises(NonFiniteError, match="point 2"):
        rasterize([[[(1, 1)], [(2, 2), (3, float("nan"))]]], RasterSpec(8, 8))
    with pytest.raises(SketchTooLargeError, match="2e\\+09"):
        rasterize([[[(1, 1), (2e9, 2)]]], RasterSpec(8, 8), scale=False)
    many = Sketch.from_strokes([np.zeros((100_001, 2))], max_points=None)
    with pytest.raises(SketchTooLargeError, match="100001 points"):
        rasterize([many], RasterSpec(8, 8))


# ---- prefixes ----


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("count", [1, 4, 17, 100])
def test_prefixes_are_the_images_of_prefixes(spec, count):
    sketches = [scribble(8), scribble(9, points=7)]
    images = rasterize_prefixes(sketches, spec, count, threads=2)
    expected = rasterize([prefix for sketch in sketches for prefix in sketch.prefixes(count)], spec)
    np.testing.assert_array_equal(images, expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 24), max_size=5).map(sorted), st.sampled_from(["bresenham", "antialias"]))
def test_any_point_counts(seed, counts, style):
    spec, sketch = RasterSpec(40, 48, style), scribble(seed, points=24)
    images = rasterize_prefixes([sketch, sketch], spec, [counts, [24]])
    for image, count in zip(images, [*counts, 24], strict=True):
        strokes = [stroke[: max(0, count - int(start))] for stroke, start in zip(sketch.strokes, sketch.offsets, strict=False)]
        np.testing.assert_array_equal(image, rasterize([strokes], spec)[0])


@pytest.mark.parametrize(
    ("prefixes", "message"),
    [
        ([[3, 2]], "prefix 1 has 2 points, expected 3 to 60"),
        ([[61]], "expected 0 to 60"),
        ([[-1]], "has -1 points"),
        ([[1], [2]], "of 2 sketches, expected 1"),
    ],
)
def test_prefixes_that_do_not_grow(prefixes, message):
    with pytest.raises(ShapeError, match=message):
        rasterize_prefixes([scribble(0)], RasterSpec(8, 8), prefixes)


def test_no_prefix_at_all():
    with pytest.raises(ValueError, match="prefixes is 0"):
        rasterize_prefixes([scribble(0)], RasterSpec(8, 8), 0)


# ---- a canvas that grows ----


@pytest.mark.parametrize("spec", SPECS)
def test_canvas_shows_what_a_batch_would(spec):
    sketch, canvas = scribble(11), Canvas(spec)
    np.testing.assert_array_equal(canvas.image(), rasterize([[]], spec))
    for number, stroke in enumerate(sketch.strokes):
        canvas.add(stroke[:3])
        for point in stroke[3:]:
            canvas.add(point[None], continues=True)
        np.testing.assert_array_equal(canvas.image(), rasterize([sketch.strokes[: number + 1]], spec))
    canvas.clear()
    np.testing.assert_array_equal(canvas.image(), rasterize([[]], spec))
    canvas.add(sketch.strokes[0])
    np.testing.assert_array_equal(canvas.image(), rasterize([sketch.strokes[:1]], spec))


def test_canvas_refuses_and_keeps_what_it_has():
    canvas = Canvas(RasterSpec(32, 32))
    canvas.add([(10.0, 10.0), (200.0, 200.0)])
    before = canvas.image()
    with pytest.raises(NonFiniteError):
        canvas.add([(1.0, float("inf"))])
    with pytest.raises(ShapeError, match="expected a pair"):
        canvas.add([1.0, 2.0])
    with pytest.raises(ShapeError, match=r"\[n, 2\]"):
        canvas.add(np.zeros(3))
    with pytest.raises(ShapeError, match="expected writeable"):
        canvas.image(np.zeros((1, 31, 32), np.uint8))
    np.testing.assert_array_equal(canvas.image(), before)


# ---- output forms ----


@pytest.mark.parametrize("style", ["bresenham", "antialias"])
@pytest.mark.parametrize("scale", [1.0, 3e5, 1e-7])
def test_float16_is_the_rounded_float32(style, scale):
    """Also where float16 overflows to infinity and where it is subnormal."""
    norm = (IMAGENET[0], tuple(value / scale for value in IMAGENET[1]))
    wide = rasterize(scribble(3), RasterSpec(50, 64, style, 2.0, "light", *norm))
    half = rasterize(scribble(3), RasterSpec(50, 64, style, 2.0, "light", *norm, "float16"))
    assert half.dtype == np.float16
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(half, wide.astype(np.float16))


@pytest.mark.parametrize("width", [64, 200])
@pytest.mark.parametrize("spec", [RasterSpec(), RasterSpec(style="antialias", mean=IMAGENET[0], std=IMAGENET[1])])
def test_large_outputs_are_the_small_ones(spec, width):
    """Beyond 16 MB the core writes around the cache where rows are whole cache lines."""
    spec = RasterSpec(128, width, spec.style, mean=spec.mean, std=spec.std)
    sketches = [scribble(seed) for seed in range(40)] * (55 if spec.mean is None else 5)
    together = rasterize(sketches, spec, threads=2)
    for index in (0, 7, len(sketches) - 1):
        np.testing.assert_array_equal(together[index], rasterize(sketches[index], spec)[0])


def test_a_huge_line_width_fills_the_canvas():
    image = rasterize([[[(16.0, 16.0), (17.0, 16.0)]]], RasterSpec(32, 32, "antialias", 200.0), scale=False)
    assert (image == 255).all()


# ---- instruction sets ----

DIGEST = """
import hashlib, sys, numpy as np
sys.path.insert(0, {root!r})
from tests.test_raster_forms import digest
print(digest())
"""


def digest() -> str:
    """One hash over both styles and all formats, of sketches that touch every path."""
    found = hashlib.sha256()
    sketches = [scribble(seed, points) for seed, points in ((1, 9), (2, 60), (3, 400))]
    for style in ("bresenham", "antialias"):
        for height, width in ((40, 37), (256, 256), (64, 1100)):
            for line_width in (0.5, 2.0, 9.0):
                for norm in ((None, None), IMAGENET):
                    found.update(rasterize(sketches, RasterSpec(height, width, style, line_width, "dark", *norm)).tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same_bytes(level, tmp_path):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = {**os.environ, "FGSBIR_SIMD": level}
    command = [sys.executable, "-c", DIGEST.format(root=root)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.split()[-1] == digest()
