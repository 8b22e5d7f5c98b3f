"""Raster drawings: finding the ink whatever the colours, and placing it as the rasteriser places strokes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from fgsbir_edge.errors import (
    EmptySketchError,
    ImageTooLargeError,
    NonFiniteError,
    ShapeError,
    TruncatedImageError,
    UnreadableImageError,
)
from fgsbir_edge.formats.drawing import MAX_SIDE, Drawing, drawing_pixels, read_drawing
from fgsbir_edge.photo import ImageBudget
from fgsbir_edge.sketch import Sketch


def mask(width: int = 120, height: int = 90, line: int = 3) -> Image.Image:
    """A drawing's ink as L, 255 = ink: a box with a diagonal, antialiased."""
    image = Image.new("L", (4 * width, 4 * height))
    draw = ImageDraw.Draw(image)
    corners = [(80, 60), (4 * width - 120, 60), (4 * width - 120, 4 * height - 100), (80, 4 * height - 100)]
    draw.line([*corners, corners[0], corners[2]], fill=255, width=4 * line, joint="curve")
    return image.reduce(4)


def drawn(ink: Image.Image, line_colour: object = 0, paper: object = 255, mode: str = "L") -> Image.Image:
    image = Image.new(mode, ink.size, paper)
    image.paste(Image.new(mode, ink.size, line_colour), mask=ink)
    return image


def encoded(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the ink of two pictures that both have."""
    one, other = one.astype(float), other.astype(float)
    return float(np.minimum(one, other).sum() / np.maximum(one, other).sum())


REFERENCE = Drawing(np.asarray(mask(), np.float32) / 255)


class TestDrawing:
    def test_is_a_read_only_copy(self):
        ink = np.eye(5, dtype=np.float64) * 2
        drawing = Drawing(ink)
        ink[:] = 0
        assert drawing.ink.dtype == np.float32
        assert drawing.ink.max() == 1
        with pytest.raises(ValueError, match="read-only"):
            drawing.ink[0, 0] = 0

    @pytest.mark.parametrize(
        ("ink", "error"),
        [
            (np.ones((2, 2, 3)), ShapeError),
            (np.ones(4), ShapeError),
            (np.zeros((4, 4)), EmptySketchError),
            (np.zeros((0, 4)), EmptySketchError),
            (np.array([[1, np.nan]]), NonFiniteError),
        ],
    )
    def test_checks(self, ink, error):
        with pytest.raises(error):
            Drawing(ink)


class TestInk:
    @pytest.mark.parametrize(
        "image",
        [
            pytest.param(drawn(mask()), id="dark on light"),
            pytest.param(drawn(mask(), 255, 0), id="light on dark"),
            pytest.param(drawn(mask(), 90, 230), id="grey pencil"),
            pytest.param(drawn(mask(), "yellow", "white", "RGB"), id="yellow on white"),
            pytest.param(drawn(mask(), "white", "navy", "RGB"), id="white on blueprint"),
            pytest.param(drawn(mask(), "red", "white", "RGB").quantize(32), id="palette"),
            pytest.param(drawn(mask()).convert("RGBA"), id="opaque RGBA"),
            pytest.param(drawn(mask()).convert("LA"), id="opaque LA"),
            pytest.param(drawn(mask(), "black", "white", "RGB").convert("CMYK"), id="CMYK"),
            pytest.param(Image.fromarray(np.asarray(drawn(mask())).astype(np.uint16) * 257), id="16-bit"),
            pytest.param(Image.fromarray(np.asarray(drawn(mask())).astype(np.int32) * 257), id="32-bit"),
        ],
    )
    def test_colours_and_modes(self, image):
        ink = Drawing.from_image(image).ink
        assert ink.shape == (90, 120)
        assert np.abs(ink - REFERENCE.ink).max() < 0.15

    @pytest.mark.parametrize("colour", ["black", "white", "red", "yellow", "#404040"])
    @pytest.mark.parametrize("hidden", ["black", "white"])
    def test_transparent_paper(self, colour, hidden):
        image = drawn(mask(), colour, hidden, "RGB")
        image.putalpha(mask())
        assert overlap(Drawing.from_image(image).ink, REFERENCE.ink) > 0.8

    def test_transparent_paper_hides_what_lies_under_it(self):
        image = Image.new("RGBA", (120, 90), (0, 0, 0, 0))
        image.paste((10, 10, 10, 255), mask=mask())
        image.putpixel((0, 0), (255, 0, 0, 0))
        assert Drawing.from_image(image).ink[0, 0] == 0

    def test_transparent_corners_of_an_opaque_sheet_are_paper(self):
        image = drawn(mask()).convert("RGBA")
        image.paste((0, 0, 0, 0), (0, 0, 12, 12))
        assert np.abs(Drawing.from_image(image).ink - REFERENCE.ink).max() < 0.15

    def test_one_transparent_colour(self):
        palette = drawn(mask(), 0, 255, "L").quantize(2)
        data = encoded(palette, transparency=int(np.asarray(palette)[0, 0]))
        assert overlap(read_drawing(data).ink, REFERENCE.ink) > 0.7

    @pytest.mark.parametrize("quality", [20, 50, 90])
    def test_jpeg_artefacts_are_paper(self, quality):
        ink = read_drawing(encoded(drawn(mask()), "JPEG", quality=quality)).ink
        far = np.asarray(mask().filter(ImageFilter.MaxFilter(17))) == 0
        assert ink[far].max() == 0
        assert overlap(ink, REFERENCE.ink) > 0.8

    @pytest.mark.parametrize("lamp", [0.0, 0.5])
    def test_photo_of_a_sheet(self, lamp):
        # Pencil on paper that is shaded, yellowish and grainy.
        rng = np.random.default_rng(0)
        ink = np.asarray(mask(600, 450, 7), float) / 255
        y, x = np.mgrid[0:1:450j, 0:1:600j]
        shade = (0.85 - lamp * x - 0.2 * lamp * y * y)[..., None] * np.array([1, 0.97, 0.85])
        photo = shade * (1 - 0.55 * ink[..., None]) + rng.normal(0, 0.02, (450, 600, 3))
        drawing = read_drawing(encoded(Image.fromarray((photo.clip(0, 1) * 255).astype(np.uint8)), "JPEG", quality=70))
        assert overlap(drawing.ink, ink) > 0.7
        assert drawing.ink[ink == 0].mean() < 0.005
        # The same place and size as from the clean drawing: no speck widens the box.
        clean = drawing_pixels(Drawing(ink.astype(np.float32)), 96)
        assert overlap(drawing_pixels(drawing, 96), clean) > 0.75

    def test_a_large_black_shape_does_not_turn_the_paper(self):
        image = Image.new("L", (100, 100), 255)
        image.paste(0, (10, 10, 70, 80))
        ink = Drawing.from_image(image).ink
        assert (ink[10:80, 10:70] == 1).all()
        assert ink.sum() == 60 * 70

    @pytest.mark.parametrize(
        "image",
        [
            Image.new("L", (50, 40), 255),
            Image.new("RGB", (50, 40), "black"),
            Image.new("RGBA", (50, 40), (0, 0, 0, 0)),
            Image.new("RGBA", (50, 40), (9, 9, 9, 255)),
            Image.new("L", (1, 1), 0),
            Image.new("L", (0, 9)),
        ],
    )
    def test_no_ink(self, image):
        with pytest.raises(EmptySketchError, match=r"no ink: draw at least one line"):
            Drawing.from_image(image)

    def test_an_empty_sheet_photographed(self):
        rng = np.random.default_rng(0)
        sheet = 0.8 - 0.3 * np.linspace(0, 1, 300)[None, :, None] + rng.normal(0, 0.03, (300, 300, 3))
        data = encoded(Image.fromarray((sheet.clip(0, 1) * 255).astype(np.uint8)), "JPEG")
        with pytest.raises(EmptySketchError):
            read_drawing(data)

    def test_large_drawings_are_averaged_down(self):
        image = Image.new("L", (3 * MAX_SIDE, MAX_SIDE), 255)
        ImageDraw.Draw(image).line((100, 100, 2900, 900), fill=0, width=3)
        ink = Drawing.from_image(image).ink
        assert ink.shape == (-(-MAX_SIDE // 3), MAX_SIDE)
        assert ink.max() == 1


class TestReadDrawing:
    def test_path_names_the_drawing_without_ink(self, tmp_path):
        Image.new("L", (30, 20), 255).save(tmp_path / "blank.png")
        for path in (tmp_path / "blank.png", str(tmp_path / "blank.png")):
            with pytest.raises(EmptySketchError, match=r"/blank\.png: drawing of 30 x 20 pixels has no ink"):
                read_drawing(path)

    def test_guards_of_photos_hold(self, tmp_path):
        data = encoded(drawn(mask()))
        with pytest.raises(TruncatedImageError):
            read_drawing(data[: len(data) // 2])
        with pytest.raises(ImageTooLargeError):
            read_drawing(data, ImageBudget(max_pixels=1000))
        with pytest.raises(UnreadableImageError):
            read_drawing(tmp_path / "none.png")


class TestPixels:
    @pytest.mark.parametrize("size", [64, 160, 256])
    @pytest.mark.parametrize("shape", [(300, 200), (200, 300), (40, 30), (900, 900)])
    def test_longer_side_and_centre(self, size, shape):
        pixels = drawing_pixels(Drawing(np.ones((shape[1], shape[0]), np.float32)), size)
        assert pixels.shape == (size, size)
        assert pixels.dtype == np.uint8
        rows, columns = np.flatnonzero(pixels.max(axis=1) > 127), np.flatnonzero(pixels.max(axis=0) > 127)
        scale = size * 190 / 256 / max(shape)
        assert len(columns) == pytest.approx(shape[0] * scale, abs=1.5)
        assert len(rows) == pytest.approx(shape[1] * scale, abs=1.5)
        assert columns[0] + columns[-1] == pytest.approx(size, abs=1)
        assert rows[0] + rows[-1] == pytest.approx(size, abs=1)

    def test_only_the_ink_counts(self):
        wide = np.zeros((400, 700), np.float32)
        wide[50:140, 500:620] = REFERENCE.ink
        assert (drawing_pixels(Drawing(wide), 96) == drawing_pixels(REFERENCE, 96)).all()

    @pytest.mark.parametrize("source", [100, 256, 600, 1000])
    @pytest.mark.parametrize("strength", [1.0, 0.4])
    def test_thin_lines_come_out_as_the_rasteriser_draws_them(self, source, strength):
        # A ring one pixel wide, on sheets of many sizes: always about two pixels of full ink.
        side = 4 * source
        image = Image.new("L", (side, side))
        ImageDraw.Draw(image).ellipse((40, 40, side - 40, side - 40), outline=255, width=4)
        ring = Drawing(np.asarray(image.reduce(4), np.float32) / 255 * strength)
        pixels = drawing_pixels(ring, 160).astype(float) / 255
        length = np.pi * 160 * 190 / 256
        assert pixels.sum() / length == pytest.approx(2.0, abs=0.45)
        assert np.percentile(pixels[pixels > 0.05], 60) > 0.5

    @pytest.mark.parametrize(("side", "line_width"), [(256, 1.0), (256, 3.0), (800, 6.0), (1024, 2.0)])
    def test_a_drawn_sketch_lies_where_its_strokes_do(self, side, line_width):
        pytest.importorskip("fgsbir_edge._native", reason="the compiled core is not built")
        from fgsbir_edge.raster import RasterSpec, rasterize

        t = np.linspace(0, 6, 60)
        sketch = Sketch.from_strokes([np.column_stack([t * 30, 60 * np.sin(t)]), [(20, -80), (60, 10), (150, 70)]]).centred()
        vector = rasterize([sketch], RasterSpec(160, 160, "antialias", 2.0, "light"))[0]
        sheet = rasterize([sketch], RasterSpec(side, side, "antialias", line_width, "light"))[0]
        pixels = drawing_pixels(Drawing(sheet.astype(np.float32) / 255), 160)
        shares = {(y, x): overlap(np.roll(pixels, (y, x), (0, 1)), vector) for y in (-1, 0, 1) for x in (-1, 0, 1)}
        assert shares[0, 0] > 0.8
        assert shares[0, 0] == max(shares.values())

    def test_thick_lines_stay(self):
        ring = Image.new("L", (400, 400))
        ImageDraw.Draw(ring).ellipse((20, 20, 380, 380), outline=255, width=30)
        pixels = drawing_pixels(Drawing(np.asarray(ring, np.float32) / 255), 160).astype(float) / 255
        area = np.pi * (180**2 - 150**2) * (160 * 190 / 256 / 330) ** 2
        assert pixels.sum() == pytest.approx(area, rel=0.05)

    def test_specks_far_apart(self):
        specks = np.zeros((30, 1000), np.float32)
        specks[0, 0] = specks[29, 999] = 0.21
        assert (drawing_pixels(Drawing(specks), 16) > 0).any()

    def test_line_width_is_asked_for(self):
        thin, wide = (drawing_pixels(REFERENCE, 160, line_width=width).sum(dtype=float) for width in (1.0, 8.0))
        assert wide > 1.5 * thin

    def test_single_pixel(self):
        dot = np.zeros((9, 9), np.float32)
        dot[4, 4] = 1
        assert drawing_pixels(Drawing(dot), 32)[16, 16] == 255

    @pytest.mark.parametrize("shape", [(1, 2000), (2000, 1)])
    def test_straight_line(self, shape):
        pixels = drawing_pixels(Drawing(np.ones(shape, np.float32)), 64)
        assert pixels.max() > 200
        assert (pixels > 127).any(axis=0 if shape[0] == 1 else 1).sum() == pytest.approx(64 * 190 / 256, abs=3)

    @pytest.mark.parametrize(("size", "long_side"), [(7, 0.7), (0, 0.7), (64, 0.0), (64, 1.01), (64, np.nan)])
    def test_arguments(self, size, long_side):
        with pytest.raises(ValueError, match="long_side"):
            drawing_pixels(REFERENCE, size, long_side)

    def test_lines_at_the_edge_of_the_whole_frame(self):
        pixels = drawing_pixels(REFERENCE, 64, long_side=1.0)
        assert pixels[:, 0].any()
        assert pixels[:, -1].any()

    def test_whole_frame(self):
        assert (drawing_pixels(Drawing(np.ones((5, 5), np.float32)), 32, long_side=1.0) == 255).all()
