"""Generated sketches as pictures: pixels for networks and people, animations, and where the generator looked.

Everything is a pure function of its input: equal sketches give equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import ShapeError
from fgsbir_edge.preprocess import InputSpec, sketch_pixels
from fgsbir_edge.raster import RasterSpec, rasterize, rasterize_prefixes
from fgsbir_edge.sketch import CANVAS, MIN_EXTENT, Sketch

SIDE = 256  # pixels of PNG, GIF and each half of an attention frame
LINE = 2.0  # pixels wide
FRAMES = 48  # of a GIF while it is drawn
SECONDS = 4.0  # that drawing takes
PAUSE = 1.5  # seconds that the finished drawing stays
HEAT = (230, 40, 0)  # colour of full attention
STRENGTH = 0.85  # of that colour over the photo at the largest attention

Pixels = NDArray[np.uint8]


def is_dot(sketch: Sketch) -> bool:
    """Whether a drawing has no extent, so that there is nothing to see or to search by."""
    x0, y0, x1, y1 = sketch.bounds
    return max(x1 - x0, y1 - y0) < MIN_EXTENT


def sketch_input(sketches: Sequence[Sketch], spec: InputSpec) -> Float32:
    """What an encoder sees of sketches, float32 [B,3,S,S]: centred as on the device; one without extent stays the dot it is."""
    batch = np.empty((len(sketches), 3, spec.size, spec.size), np.float32)
    drawn = [row for row, sketch in enumerate(sketches) if not is_dot(sketch)]
    dots = [row for row, sketch in enumerate(sketches) if is_dot(sketch)]
    if drawn:
        batch[drawn] = sketch_pixels([sketches[row] for row in drawn], spec)
    if dots:
        raster = RasterSpec(spec.size, spec.size, spec.style, spec.line_width, spec.ink, spec.mean, spec.std)
        batch[dots] = rasterize([sketches[row] for row in dots], raster)
    return batch


def picture(sketch: Sketch, side: int = SIDE) -> Pixels:
    """Black on white, uint8 [side,side], in the place the sketch has on the 256 canvas."""
    drawn: Pixels = rasterize(sketch, _spec(side))[0]
    return drawn


def png(image: Image.Image | Pixels) -> bytes:
    """The bytes of a PNG file."""
    return _saved(image if isinstance(image, Image.Image) else Image.fromarray(image), "PNG")


def few_colours(image: Image.Image) -> Image.Image:
    """The image in 256 colours without a pattern: a third of the file, for pictures that come by the hundred."""
    return image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)


def animated_gif(sketch: Sketch, side: int = SIDE, frames: int = FRAMES) -> bytes:
    """The sketch as it is drawn, stroke by stroke at one speed, over and over: a GIF of `frames` steps and a pause.

    Raises ValueError for fewer than one frame.
    """
    drawn = [Image.fromarray(frame) for frame in rasterize_prefixes(_evenly(sketch, 4 * frames), _spec(side), frames)]
    drawn[-1] = Image.fromarray(picture(sketch, side))
    times = [round(1000 * SECONDS / frames)] * (frames - 1) + [round(1000 * PAUSE)]
    return _saved(drawn[0], "GIF", save_all=True, append_images=drawn[1:], duration=times, loop=0)


def animated_svg(sketch: Sketch, seconds: float = SECONDS) -> bytes:
    """The sketch as an SVG that draws itself once, stroke by stroke in order, each in the time its length takes (SMIL).

    One polyline a stroke, as in fgsbir_edge.formats.svg, whose reader reads this too: to 0.005 units, since coordinates have two
    places. A stroke is a dash that grows from nothing; until then it is transparent, as an empty dash leaves a dot.
    """
    lengths = [float(np.hypot(*np.diff(stroke, axis=0).T).sum()) for stroke in sketch.strokes]
    total = sum(lengths) or 1.0
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {CANVAS:g} {CANVAS:g}">',
        f'<g fill="none" stroke="black" stroke-width="{LINE:g}" stroke-linecap="round" stroke-linejoin="round">',
    ]
    begin = 0.0
    for stroke, length in zip(sketch.strokes, lengths, strict=True):
        points = " ".join(f"{x:.2f},{y:.2f}" for x, y in stroke.tolist())
        time = seconds * length / total
        dash = f"{max(length, 0.01):.2f}"
        lines += [
            f'<polyline points="{points}" opacity="0" stroke-dasharray="{dash}">',
            f'<set attributeName="opacity" to="1" begin="{begin:.3f}s" fill="freeze"/>',
            f'<animate attributeName="stroke-dashoffset" from="{dash}" to="0" begin="{begin:.3f}s" '
            f'dur="{max(time, 0.001):.3f}s" fill="freeze"/>',
            "</polyline>",
        ]
        begin += time
    return "\n".join([*lines, "</g>", "</svg>"]).encode() + b"\n"


def attention_frames(photo: Pixels, sketch: Sketch, attention: Float32) -> Iterator[Image.Image]:
    """Where the generator looked for each row it drew: the photo under the attention map, and beside it the sketch so far.

    Args:
        photo: uint8 [S,S,3], as the generator saw it.
        attention: [n,h,w], the weights for each row; row i leads to point i + 1.

    Yields n RGB images of 512 x 256 pixels; the map's largest weight has the full colour. Raises ShapeError.
    """
    if photo.ndim != 3 or photo.shape[2] != 3 or attention.ndim != 3:
        raise ShapeError(
            f"photo {list(photo.shape)} and attention {list(attention.shape)}: expected [S,S,3] and [n,h,w] of one sketch"
        )
    base = np.asarray(Image.fromarray(photo).resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=np.float32)
    grey = base.mean(axis=2, keepdims=True).repeat(3, axis=2)  # so that the colour of attention is the only one
    for row, weights in enumerate(attention):
        shares = np.asarray(weights, dtype=np.float32) / max(float(weights.max()), 1e-12)
        heat = Image.fromarray(shares).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        mix = STRENGTH * np.clip(np.asarray(heat), 0.0, 1.0)[..., None]
        looked = np.rint(grey * (1 - mix) + np.array(HEAT, np.float32) * mix).astype(np.uint8)
        drawn = picture(sketch.prefix(row + 2))[..., None].repeat(3, axis=2)
        yield Image.fromarray(np.concatenate([looked, drawn], axis=1))


def _evenly(sketch: Sketch, points: int) -> Sketch:
    """The same lines with about so many points, evenly spaced: thinning leaves them far apart on long lines."""
    step = max(sum(float(np.hypot(*np.diff(stroke, axis=0).T).sum()) for stroke in sketch.strokes) / points, 1e-6)
    strokes = []
    for stroke in sketch.strokes:
        parts = np.maximum(np.ceil(np.hypot(*np.diff(stroke, axis=0).T) / step), 1).astype(np.int64)
        where = np.concatenate([[0.0], *(number + np.arange(1, count + 1) / count for number, count in enumerate(parts))])
        index = np.arange(len(stroke))
        strokes.append(np.stack([np.interp(where, index, stroke[:, axis]) for axis in (0, 1)], axis=1))
    return Sketch.from_strokes(strokes)


def _spec(side: int) -> RasterSpec:
    return RasterSpec(side, side, "antialias", LINE * side / CANVAS, "dark")


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
