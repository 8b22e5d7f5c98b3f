"""Image files to pixels: budgets, damage, orientation, colour modes, resizing."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from fgsbir_edge.errors import ImageTooLargeError, TruncatedImageError, UnreadableImageError
from fgsbir_edge.photo import ImageBudget, flattened, has_alpha, load_image, load_photo, open_image, photo_pixels

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def halves(width: int = 40, height: int = 20) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def textured(width: int = 64, height: int = 48) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises that many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def outcome_of(data: bytes) -> tuple[Image.Image | None, str]:
    try:
        return load_image(data), ""
    except (TruncatedImageError, UnreadableImageError) as error:
        return None, str(error)


class TestSources:
    def test_path_bytes_and_stream_agree(self, tmp_path):
        data = encoded(halves())
        path = tmp_path / "photo.png"
        path.write_bytes(data)
        expected = np.asarray(halves())
        for source in (path, str(path), data, io.BytesIO(data)):
            image = load_image(source)
            assert image.mode == "RGB"
            assert (np.asarray(image) == expected).all()

    @pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "BMP"])
    def test_formats_are_told_by_content(self, image_format, tmp_path):
        path = tmp_path / "photo.dat"
        path.write_bytes(encoded(halves(), image_format))
        assert load_image(path).getpixel((2, 10))[0] > 240

    def test_missing(self, tmp_path):
        with pytest.raises(UnreadableImageError, match=r"absent\.jpg: no such file: check the path"):
            load_image(tmp_path / "absent.jpg")

    def test_folder(self, tmp_path):
        with pytest.raises(UnreadableImageError, match="a folder"):
            load_image(tmp_path)

    def test_pipe_is_refused_rather_than_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(UnreadableImageError, match="not an ordinary file"):
            load_image(tmp_path / "pipe.png")

    def test_null_byte_in_path(self):
        with pytest.raises(UnreadableImageError, match="cannot be read"):
            load_image("a\0b.png")

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "empty"),
            (b"not an image at all", "convert it"),
            (b"RIFF\0\0\0\0WAVEfmt ", "convert it"),
            (b"GIF89a", "convert it"),
        ],
    )
    def test_not_an_image(self, data, message):
        with pytest.raises(UnreadableImageError, match=message):
            load_image(data)


class TestDamage:
    @pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "BMP"])
    @pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
    def test_truncated(self, image_format, share, tmp_path):
        data = encoded(textured(), image_format)
        path = tmp_path / "photo"
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(TruncatedImageError, match=r"photo: .*truncated or damaged.*copy or export it again"):
            load_image(path)

    @pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "BMP"])
    def test_any_prefix_is_either_whole_or_a_named_error(self, image_format):
        data = encoded(textured(24, 16), image_format)
        whole = np.asarray(load_image(data))
        outcomes = [outcome_of(data[:length]) for length in range(0, len(data), 7)]
        assert all((np.asarray(image) == whole).all() for image, _ in outcomes if image)
        assert all("\n" not in message for _, message in outcomes)
        assert sum(bool(message) for _, message in outcomes) > len(outcomes) / 2

    def test_flipped_bytes(self):
        data = bytearray(encoded(textured()))
        data[60:70] = bytes(10)
        with pytest.raises(TruncatedImageError):
            load_image(bytes(data))


class TestBudget:
    def test_bomb_is_refused_by_its_header(self):
        bomb = png_claiming(50_000, 50_000)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ImageTooLargeError, match=r"50000 x 50000 pixels, at most 64000000"):
                load_image(bomb)

    def test_between_pillows_warning_and_its_error(self):
        with pytest.raises(ImageTooLargeError, match="10000 x 10000"):
            load_image(png_claiming(10_000, 10_000))

    def test_pixels(self):
        data = encoded(halves(40, 20))
        assert load_image(data, ImageBudget(max_pixels=800)).size == (40, 20)
        with pytest.raises(ImageTooLargeError, match="scale it down"):
            load_image(data, ImageBudget(max_pixels=799))

    def test_bytes(self, tmp_path):
        data = encoded(textured())
        path = tmp_path / "photo.png"
        path.write_bytes(data)
        assert load_image(path, ImageBudget(max_bytes=len(data))).size == (64, 48)
        for source in (path, data, io.BytesIO(data)):
            with pytest.raises(ImageTooLargeError, match="more than 100 bytes"):
                load_image(source, ImageBudget(max_bytes=100))


class TestOrientation:
    @pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif(self, image_format, orientation):
        # A dark corner tells all eight apart.
        image = Image.new("L", (48, 32), 255)
        image.paste(0, (0, 0, 16, 16))
        exif = Image.Exif()
        exif[0x010F] = "A maker's name"
        exif[0x0112] = orientation
        upright = load_image(encoded(image.convert("RGB"), image_format, exif=exif.tobytes()))
        corner = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]
        assert upright.size == ((48, 32) if orientation < 5 else (32, 48))
        x = 8 if corner[1] == "l" else upright.width - 8
        y = 8 if corner[0] == "t" else upright.height - 8
        assert upright.getpixel((x, y))[0] < 60
        assert upright.getpixel((upright.width - x, upright.height - y))[0] > 200

    @pytest.mark.parametrize(
        "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"junk" * 9]
    )
    def test_damaged_exif_leaves_the_image(self, exif):
        assert load_image(encoded(halves(), "JPEG", exif=exif)).size == (40, 20)

    def test_orientation_out_of_range(self):
        exif = Image.Exif()
        exif[0x0112] = 77
        assert load_image(encoded(halves(), "JPEG", exif=exif.tobytes())).size == (40, 20)


class TestModes:
    def test_transparency_is_flattened_on_white(self):
        image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
        image.putpixel((1, 1), (0, 0, 255, 255))
        image.putpixel((2, 2), (0, 0, 0, 51))
        flat = load_image(encoded(image))
        assert flat.getpixel((0, 0)) == WHITE
        assert flat.getpixel((1, 1)) == BLUE
        assert flat.getpixel((2, 2)) == (204, 204, 204)

    def test_palette_with_a_transparent_entry(self):
        image = Image.new("P", (4, 4), 0)
        image.putpalette([255, 0, 0, 0, 0, 255])
        image.putpixel((1, 1), 1)
        data = encoded(image, transparency=0)
        assert has_alpha(open_image(data))
        assert load_image(data).getpixel((0, 0)) == WHITE
        assert load_image(data).getpixel((1, 1)) == BLUE

    def test_palette(self):
        assert load_image(encoded(halves().quantize(4))).getpixel((1, 1)) == RED

    def test_sixteen_bit_grey_is_scaled_not_clipped(self):
        grey = np.array([[0, 257 * 128], [257 * 200, 65535]], dtype=np.uint16)
        image = load_image(encoded(Image.fromarray(grey)))
        assert np.asarray(image)[..., 0].tolist() == [[0, 128], [200, 255]]

    @pytest.mark.parametrize("mode", ["1", "L", "LA"])
    def test_grey_modes(self, mode):
        assert load_image(encoded(Image.new("L", (3, 3), 255).convert(mode))).getpixel((1, 1)) == WHITE

    def test_cmyk(self):
        red, green, blue = load_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")).getpixel((4, 4))
        assert red > 240
        assert max(green, blue) < 15

    def test_flattened_leaves_rgb_alone(self):
        assert (np.asarray(flattened(halves())) == np.asarray(halves())).all()


class TestPixels:
    def test_pad_keeps_the_aspect_on_white(self):
        pixels = photo_pixels(halves(40, 20), 20, "pad")
        assert pixels.shape == (20, 20, 3)
        assert pixels.dtype == np.uint8
        assert (pixels[:5] == 255).all()
        assert (pixels[15:] == 255).all()
        assert (pixels[5:15, :8] == RED).all()
        assert (pixels[5:15, 12:] == BLUE).all()

    def test_stretch_fills_the_square(self):
        pixels = photo_pixels(halves(40, 20), 20, "stretch")
        assert (pixels[:, :8] == RED).all()
        assert (pixels[:, 12:] == BLUE).all()

    def test_resize_is_antialiased(self):
        stripes = np.zeros((128, 128, 3), np.uint8)
        stripes[:, ::2] = 255
        pixels = photo_pixels(Image.fromarray(stripes), 16)
        assert np.abs(pixels[2:-2, 2:-2].astype(int) - 127).max() <= 4

    @pytest.mark.parametrize("size", [(1000, 1), (1, 1000), (1, 1)])
    def test_extreme_shapes(self, size):
        assert photo_pixels(Image.new("RGB", size), 16).shape == (16, 16, 3)
        assert (photo_pixels(Image.new("RGB", size), 16) == 0).any()

    def test_any_mode_is_taken(self):
        assert (photo_pixels(Image.new("RGBA", (8, 8)), 8) == 255).all()

    def test_arguments(self):
        with pytest.raises(ValueError, match="size"):
            photo_pixels(halves(), 0)
        with pytest.raises(ValueError, match="fit"):
            photo_pixels(halves(), 8, "crop")

    @pytest.mark.parametrize("fit", ["pad", "stretch"])
    def test_the_short_way_for_jpegs_gives_the_same_photo(self, fit):
        rng = np.random.default_rng(1)
        smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((1600, 1200), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x0112] = 6
        data = encoded(smooth, "JPEG", quality=90, exif=exif.tobytes())
        assert max(open_image(data, wanted=64).size) == 200  # an eighth, which is at least twice 64
        short, long = load_photo(data, 64, fit), photo_pixels(load_image(data), 64, fit)
        assert np.abs(short.astype(int) - long).max() <= 4
        assert np.abs(short.astype(int) - long).mean() < 1

    def test_load_photo_takes_the_budget(self):
        with pytest.raises(ImageTooLargeError):
            load_photo(encoded(halves()), 16, budget=ImageBudget(max_pixels=10))
