"""Pixels kept on disk between runs, one small file for each, named by everything the pixels depend on.

Key. The SHA-256 of: the format version below, Pillow's version (it decodes and resizes), the kind of pixels ("photo", "ink",
"edges", "trace"), the settings of that kind (side, photo fit, line width, scale, format), and the bytes of the source file. So
neither the file's name, nor its place, nor its time counts: a copied dataset finds its entries, and a changed file never finds
its old ones.

File. The .npy of one uint8 array, then the SHA-256 of that. What is truncated, damaged or of another shape is made again and
replaced; writing is atomic, so that several processes may share a folder. Nothing is ever deleted: remove the folder at will.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from fgsbir_edge.errors import OutputError
from fgsbir_edge.files import write_atomic
from fgsbir_edge.photo import ImageBudget
from fgsbir_edge.reading import read_start

FORMAT = 2  # raise when photo_pixels, drawing_pixels or edges.py give other pixels, or the file changes
_DIGEST = 32  # bytes

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class PixelCache:
    """A folder of cached pixels; it is made when the first entry is written."""

    folder: Path

    def get(self, source: Path, kind: str, settings: tuple[object, ...], make: Callable[[], Pixels]) -> Pixels:
        """The cached pixels of a source file, or `make()`, which is kept.

        Raises UnreadableImageError for a source that cannot be read, what `make` raises, and OutputError where the folder
        cannot be written.
        """
        path = self.path(source, kind, settings)
        pixels = read_entry(path)
        if pixels is None:
            pixels = make()
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(
                    f"{path.parent}: cannot be made ({error.strerror or error}); choose another cache folder"
                ) from error
            write_atomic(path, packed(pixels))
        return pixels

    def path(self, source: Path, kind: str, settings: tuple[object, ...]) -> Path:
        """The file that an entry has."""
        key = hashlib.sha256(json.dumps([FORMAT, PIL.__version__, kind, *settings]).encode())
        key.update(read_start(str(source), ImageBudget().max_bytes + 1))
        name = key.hexdigest()
        return self.folder / name[:2] / f"{name}.npy"


def packed(pixels: Pixels) -> bytes:
    """The content of an entry."""
    stream = io.BytesIO()
    np.save(stream, pixels, allow_pickle=False)
    data = stream.getvalue()
    return data + hashlib.sha256(data).digest()


def read_entry(path: Path) -> Pixels | None:
    """The pixels of an entry, or None where there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    data, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(data).digest() != digest:
        return None
    pixels: Pixels = np.load(io.BytesIO(data), allow_pickle=False)
    return pixels
