"""Pictures to strokes: thinning, junctions, crossings, order, and how much of a drawing's ink its trace covers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from fgsbir_edge.errors import EmptySketchError, ShapeError
from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.raster import RasterSpec, rasterize
from fgsbir_edge.sketch import Sketch
from tests.training.downloads import drawn, scribble
from training.data.thinning import pixel_graph, thinned
from training.data.trace import TraceOptions, trace, trace_drawing

SIDE = 160
Lines = Sequence[Sequence[tuple[float, float]]]
EIGHT = np.ones((3, 3))


def ink(lines: Lines, width: int = 3) -> np.ndarray:
    image = Image.new("L", (SIDE, SIDE), 0)
    for line in lines:
        ImageDraw.Draw(image).line([tuple(point) for point in line], fill=255, width=width, joint="curve")
    return np.asarray(image)


def ends(sketch: Sketch) -> set[frozenset[tuple[int, int]]]:
    """First and last points of all strokes, to the nearest ten pixels."""
    rounded = [(stroke[[0, -1]] / 10).round().astype(int) * 10 for stroke in sketch.strokes]
    return {frozenset((int(x), int(y)) for x, y in pair) for pair in rounded}


def blobs(seed: int) -> np.ndarray:
    """Ink of all shapes, holes and touching corners."""
    noise = np.random.default_rng(seed).normal(size=(60, 70))
    return np.asarray(ndimage.gaussian_filter(noise, 0.4 + seed * 0.3) > 0.05)


def holes(flags: np.ndarray) -> int:
    return int(ndimage.label(np.pad(~flags, 1, constant_values=True))[1])  # paper: connected by sides alone


@pytest.mark.parametrize("seed", range(6))
def test_thinning_keeps_the_shape_of_things(seed: int) -> None:
    """No piece appears, vanishes, breaks or joins, and no hole opens or closes; nothing is left to take away."""
    flags = blobs(seed)
    lines = thinned(flags)
    assert not (lines & ~flags).any()
    assert lines.sum() < flags.sum()
    labels, count = ndimage.label(flags, EIGHT)
    assert ndimage.label(lines, EIGHT)[1] == count == len(np.unique(labels[lines]))
    assert holes(lines) == holes(flags)
    np.testing.assert_array_equal(thinned(lines), lines)
    blocks = lines[:-1, :-1] & lines[1:, :-1] & lines[:-1, 1:] & lines[1:, 1:]
    assert not blocks.any()


@pytest.mark.parametrize("seed", range(6))
def test_every_pixel_of_a_line_is_in_the_graph_once(seed: int) -> None:
    lines = thinned(blobs(seed))
    graph = pixel_graph(lines, np.where(lines, 255, 0).astype(np.uint8))
    points = sum(len(line.points) for line in graph.lines) + len(graph.junction_points)
    assert points == lines.sum()
    for line in graph.lines:
        assert {line.start, line.end} <= {-1, *graph.junction_of.tolist()}
        steps = np.hypot(*np.diff(line.points, axis=0).T)
        assert (steps < 3).all()  # neighbours, each moved by less than a pixel
        assert not line.closed or np.hypot(*(line.points[0] - line.points[-1])) < 3


def test_thin_lines_lie_in_the_middle_of_the_ink() -> None:
    """A slanted line three pixels wide: after smoothing no point is farther than half a pixel from its axis."""
    sketch = trace(ink([[(10, 30), (150, 85)]]))
    assert sketch.num_strokes == 1
    x, y = sketch.points[5:-5].T
    assert np.abs((y - 30) * 140 - (x - 10) * 55).max() / np.hypot(140, 55) < 0.5


@pytest.mark.parametrize("second", [[(80, 10), (80, 150)], [(10, 110), (150, 50)], [(10, 90), (150, 70)]])
@pytest.mark.parametrize("width", [2, 4])
def test_crossing_lines_stay_two(second: list[tuple[float, float]], width: int) -> None:
    """At right angles, at 46 and at 16 degrees, where ink merges over four and more widths."""
    first = [(10.0, 70.0), (150.0, 90.0)]
    sketch = trace(ink([first, second], width))
    assert ends(sketch) == {frozenset((round(x / 10) * 10, round(y / 10) * 10) for x, y in line) for line in (first, second)}


def test_a_line_that_meets_another_is_a_stroke_up_to_it() -> None:
    sketch = trace(ink([[(10, 40), (150, 40)], [(80, 40), (80, 140)]]))
    assert ends(sketch) == {frozenset({(10, 40), (150, 40)}), frozenset({(80, 40), (80, 140)})}


def test_lines_that_turn_too_much_are_two() -> None:
    bent: Lines = [[(10, 80), (80, 80), (110, 130)], [(80, 80), (30, 150)]]  # turns by 59 and by 126 degrees
    assert trace(ink(bent)).num_strokes == 2
    assert trace(ink(bent), TraceOptions(turn=40.0)).num_strokes == 3


def test_a_ring_is_one_closed_stroke_drawn_clockwise() -> None:
    image = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(image).ellipse((30, 20, 130, 140), outline=255, width=4)
    (stroke,) = trace(np.asarray(image)).strokes
    assert (stroke[0] == stroke[-1]).all()
    x, y = stroke[:-1].T - np.array([[80], [80]])
    assert (x * np.roll(y, -1) - y * np.roll(x, -1) > 0).mean() > 0.95  # y points down
    assert np.abs(np.hypot(x / 48.5, y / 58.5) - 1).max() < 0.03


def test_a_tail_does_not_open_a_ring() -> None:
    image = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(image).ellipse((20, 20, 100, 100), outline=255, width=3)
    ImageDraw.Draw(image).line((60, 99, 60, 150), fill=255, width=3)
    ring, tail = trace(np.asarray(image)).strokes
    assert (ring[0] == ring[-1]).all()
    assert np.hypot(*(tail[[0, -1]] - [60, 98]).T).min() < 3


def test_thick_lines_have_no_stubs() -> None:
    """Ends of lines 14 wide, cut square, are forks to thinning; a rough side grows stubs."""
    picture = ink([[(30, 30), (130, 120)]], 14)
    rough = picture.copy()
    rough[np.random.default_rng(0).random(picture.shape) < 0.05] = 0
    for image in (picture, ndimage.median_filter(rough, 3)):
        (stroke,) = trace(image).strokes
        assert np.hypot(*(stroke[0] - stroke[-1])) > 115


def test_a_skipping_pen_draws_on() -> None:
    dashes: Lines = [[(10, 80), (60, 81)], [(64, 81), (100, 84)], [(104, 85), (150, 95)]]
    assert trace(ink(dashes)).num_strokes == 1
    assert trace(ink(dashes), TraceOptions(gap=0.0)).num_strokes == 3
    corner: Lines = [[(20, 20), (100, 20)], [(104, 24), (104, 140)]]
    assert trace(ink(corner)).num_strokes == 2


def test_dirt_goes_and_dots_stay() -> None:
    lines: Lines = [[(10, 40), (150, 40)], [(10, 120), (150, 120)]]
    picture = ink(lines, 4).copy()
    picture[80, 30] = 255
    assert trace(picture).num_strokes == 2
    picture[78:83, 100:105] = 255
    sketch = trace(picture)
    assert sketch.num_strokes == 3
    dot = min(sketch.strokes, key=len)
    assert np.abs(dot - [102, 80]).max() < 2


def test_outlines_come_first_and_details_where_the_pen_is() -> None:
    """Long line, its neighbour from the near end, then the two short ones; the far short one last."""
    lines: Lines = [[(10, 20), (150, 20)], [(150, 50), (60, 50)], [(60, 70), (50, 80)], [(20, 140), (30, 150)]]
    strokes = trace(ink(lines)).strokes
    found = [(stroke[[0, -1]] / 10).round().astype(int).tolist() for stroke in strokes]
    assert found == [[[1, 2], [15, 2]], [[15, 5], [6, 5]], [[6, 7], [5, 8]], [[2, 14], [3, 15]]]


def near(one: np.ndarray, other: np.ndarray, pixels: float = 2.0) -> float:
    """The share of `one` within so many pixels of `other`."""
    return float((ndimage.distance_transform_edt(~other)[one] <= pixels).mean())


def curves(seed: int) -> Sketch:
    """Five smooth strokes over each other, as a hand draws them."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter1d(rng.normal(size=(5, 120, 2)), 14, axis=1)
    return Sketch.from_strokes(noise * 450 + rng.uniform(70, 186, (5, 1, 2))).centred()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("width", [2, 3, 5])
def test_a_trace_covers_the_ink_and_nothing_else(seed: int, width: int) -> None:
    picture = 255 - np.asarray(drawn(curves(seed), 256, width))
    sketch = trace(picture)
    again = np.asarray(rasterize([sketch], RasterSpec(256, 256, "antialias", float(width))))[0]
    assert near(picture > 127, again > 127) > 0.97
    assert near(again > 127, picture > 127) > 0.99
    assert sketch.num_strokes <= 15  # five, which cross up to a dozen times


def test_a_drawing_is_framed_as_the_encoder_frames_it() -> None:
    original = scribble(2)
    for size in (128, 512):
        traced = trace_drawing(Drawing.from_image(drawn(original, size, 2)))
        x0, y0, x1, y1 = traced.bounds
        assert max(x1 - x0, y1 - y0) == pytest.approx(190)
        np.testing.assert_allclose(traced.bounds, original.bounds, atol=2.5)


def test_a_large_picture_gives_the_strokes_of_a_small_one() -> None:
    small, large = (Drawing.from_image(drawn(scribble(2), size, size // 64)) for size in (192, 768))
    counts = [trace_drawing(drawing).num_strokes for drawing in (small, large)]
    assert abs(counts[0] - counts[1]) <= 2


@pytest.mark.parametrize("seed", range(20))
def test_any_picture_gives_a_sketch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.random((37, 53)), seed % 4 * 0.4)
    picture = np.where(noise > np.quantile(noise, rng.uniform(0.05, 0.98)), 255, 0).astype(np.uint8)
    sketch = trace(picture)
    assert sketch.bounds[0] >= -1
    assert sketch.bounds[2] <= 53
    assert np.isfinite(sketch.points).all()


def test_what_cannot_be_traced_is_named() -> None:
    with pytest.raises(EmptySketchError, match="no ink"):
        trace(np.zeros((20, 30), np.uint8))
    with pytest.raises(ShapeError, match="float"):
        trace(np.zeros((20, 30)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gap"):
        TraceOptions(gap=-1.0)
    with pytest.raises(ValueError, match="ink"):
        TraceOptions(ink=0)
