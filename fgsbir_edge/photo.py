"""Image files to pixels, within byte and pixel budgets. Drawings (formats/drawing.py) pass through the same guards.

JPEG, PNG, WebP and BMP are read; of an animation, the first frame. Colour profiles are ignored: values are taken as sRGB.
"""

from __future__ import annotations

import functools
import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.errors import ImageTooLargeError, TruncatedImageError, UnreadableImageError
from fgsbir_edge.reading import read_start
from fgsbir_edge.trim import trimmed

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

    Parser = Callable[[io.BytesIO], Image]

Source = str | os.PathLike[str] | bytes | BinaryIO
Fit = Literal["pad", "stretch", "trim"]

_ORIENTATION_TAG = 0x0112
_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class ImageBudget:
    """Limits that an image file has to keep; checked before any pixel is decoded.

    Args:
        max_bytes: size of the file.
        max_pixels: width times height; a 64-megapixel photo takes 192 MB as RGB.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 64_000_000


_DEFAULT_BUDGET = ImageBudget()


def load_image(source: Source, budget: ImageBudget = _DEFAULT_BUDGET) -> Image:
    """Read an image as RGB: EXIF orientation applied, transparency flattened on white, 16-bit grey scaled to 8 bits.

    Args:
        source: path, the file's bytes, or a binary stream (read to its end).

    Raises:
        UnreadableImageError: missing, a folder, empty, or not a JPEG, PNG, WebP or BMP.
        TruncatedImageError: the file breaks off, or is damaged so that its pixels cannot be decoded.
        ImageTooLargeError: the file or its pixels exceed ``budget``.
    """
    return flattened(open_image(source, budget))


def load_photo(source: Source, size: int, fit: Fit = "pad", budget: ImageBudget = _DEFAULT_BUDGET) -> NDArray[np.uint8]:
    """Read a photo straight into uint8 [size, size, 3], RGB.

    The result of :func:`load_image` and :func:`photo_pixels`, but large JPEGs are decoded at a half, quarter or eighth of their
    size where that still leaves twice the pixels asked for: several times faster, and equal to within a few grey levels.
    Raises what they raise.
    """
    wanted = 2 * size if fit == "trim" else size  # the object may fill half the photo
    return photo_pixels(flattened(open_image(source, budget, wanted=wanted, fit=fit)), size, fit)


def photo_pixels(image: Image, size: int, fit: Fit = "pad") -> NDArray[np.uint8]:
    """Resize an image to uint8 [size, size, 3], RGB, antialiased (triangle filter).

    Args:
        image: a PIL image of any mode.
        size: pixels a side, at least 1.
        fit: "pad" keeps the aspect and centres on white, "stretch" fills the square, "trim" frames an object on a plain
            background as sketches are framed (trim.py) and is "pad" for any other photo.

    Raises:
        ValueError: ``size`` below 1, or another ``fit``.
    """
    from PIL import Image

    image = flattened(image)
    if fit == "trim":
        image = trimmed(image) or image
    width, height = _fitted(image.size, size, fit)
    resized = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)
    pixels = np.full((size, size, 3), 255, np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    pixels[top : top + height, left : left + width] = np.asarray(resized)
    return pixels


def open_image(source: Source, budget: ImageBudget = _DEFAULT_BUDGET, *, wanted: int | None = None, fit: Fit = "pad") -> Image:
    """Decode an image in its own mode, EXIF orientation applied; with ``wanted``, JPEGs may come smaller, as in load_photo.

    Raises what :func:`load_image` raises.
    """
    name, data = _read(source, budget.max_bytes)
    image = _parse_header(name, data)
    if image.width * image.height > budget.max_pixels:
        raise ImageTooLargeError(
            f"{name}: {image.width} x {image.height} pixels, at most {budget.max_pixels} are decoded: scale it down first"
        )
    orientation = _exif_orientation(image.info.get("exif", b""))
    if wanted is not None:
        width, height = _fitted(image.size, 2 * wanted, fit)
        image.draft(None, (width, height))
    try:
        image.load()
    except MemoryError:
        raise ImageTooLargeError(f"{name}: {image.width} x {image.height} pixels do not fit in memory: scale it down") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error and more for damage
        raise TruncatedImageError(f"{name}: image is truncated or damaged ({_reason(error)}): copy or export it again") from error
    return _upright(image, orientation)


def flattened(image: Image) -> Image:
    """Return a PIL image of any mode as RGB: transparency over white, 16-bit grey scaled to 8 bits."""
    from PIL import Image

    if has_alpha(image):
        paper = Image.new("RGBA", image.size, (*_WHITE, 255))
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey to white instead of scaling it.
        levels = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def has_alpha(image: Image) -> bool:
    """Tell whether a PIL image has an alpha channel, or a colour that stands for transparency."""
    return image.mode in {"RGBA", "RGBa", "LA", "La", "PA"} or (
        "transparency" in image.info and image.mode in {"1", "L", "P", "RGB"}
    )


def _fitted(image_size: tuple[int, int], size: int, fit: str) -> tuple[int, int]:
    """Width and height that ``image_size`` takes inside a square of ``size``."""
    if size < 1:
        raise ValueError(f"size is {size}, expected at least 1 pixel")
    if fit == "stretch":
        return size, size
    if fit not in ("pad", "trim"):
        raise ValueError(f"fit is {fit!r}, expected 'pad', 'stretch' or 'trim'")
    longer = max(image_size)
    width, height = (max(1, round(side * size / longer)) for side in image_size)
    return width, height


def _read(source: Source, max_bytes: int) -> tuple[str, bytes]:
    """Return a name for messages and the file's bytes, within the budget."""
    if isinstance(source, bytes):
        name, data = "image", source[: max_bytes + 1]
    elif isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        data = read_start(name, max_bytes + 1)
    else:
        name, data = str(getattr(source, "name", "image")), source.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ImageTooLargeError(f"{name}: more than {max_bytes} bytes: scale the image down or compress it")
    if not data:
        raise UnreadableImageError(f"{name}: empty, expected a JPEG, PNG, WebP or BMP image")
    return name, data


def _parse_header(name: str, data: bytes) -> Image:
    """Return the image with its header parsed and no pixel decoded.

    The parsers are called directly rather than through Image.open, because that one warns or raises about large images by a
    global limit, and silencing warnings is not safe between threads. The limit that counts is the budget's.
    """
    magic = next((magic for magic in _PARSERS if data.startswith(magic)), None)
    if magic is None or (magic == b"RIFF" and data[8:12] != b"WEBP"):
        raise UnreadableImageError(f"{name}: not a JPEG, PNG, WebP or BMP image: convert it to one of these")
    try:
        return _PARSERS[magic]()(io.BytesIO(data))
    except Exception as error:  # as in open_image: whatever a parser raises, the file is at fault
        raise TruncatedImageError(f"{name}: image header is truncated or damaged: copy or export it again") from error


def _bmp() -> Parser:
    from PIL.BmpImagePlugin import BmpImageFile

    return BmpImageFile


@functools.cache
def _jpeg() -> Parser:
    from PIL.Image import Exif
    from PIL.JpegImagePlugin import JpegImageFile

    class Jpeg(JpegImageFile):
        def getexif(self) -> Exif:
            """Give the parser nothing to look for the resolution in: nobody uses it, and looking warns about damaged EXIF."""
            return Exif()

    return Jpeg


def _png() -> Parser:
    from PIL.PngImagePlugin import PngImageFile

    return PngImageFile


def _webp() -> Parser:
    from PIL.WebPImagePlugin import WebPImageFile

    return WebPImageFile


# Pillow's parser for the first bytes of each format; loaded when the first such file comes.
_PARSERS: dict[bytes, Callable[[], Parser]] = {b"\xff\xd8\xff": _jpeg, b"\x89PNG\r\n\x1a\n": _png, b"RIFF": _webp, b"BM": _bmp}


def _reason(error: BaseException) -> str:
    """Return one short line about an error of another library."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:120] or type(error).__name__


def _exif_orientation(exif: object) -> int:
    """Return the orientation, 1 to 8, in the first image directory of an EXIF block; 1 where it is absent or damaged.

    Read by hand because Pillow's parser warns about damage elsewhere in the block.
    """
    block = exif.removeprefix(b"Exif\0\0") if isinstance(exif, bytes) else b""
    order: Literal["little", "big"] = "little" if block[:2] == b"II" else "big"

    def number(start: int, length: int) -> int:
        return int.from_bytes(block[start : start + length], order)

    if block[:4] not in {b"II*\0", b"MM\0*"}:
        return 1
    directory = number(4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
        if number(entry, 2) == _ORIENTATION_TAG:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1


def _upright(image: Image, orientation: int) -> Image:
    """Turn an image so that its first row is the top."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image
