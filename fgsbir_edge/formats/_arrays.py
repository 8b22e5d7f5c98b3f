"""Arrays from .npy and .npz files that nobody vouches for: plain numbers and text only, sizes checked before memory is taken.

numpy.load trusts the shape in the header when it allocates; here the header has to agree with the bytes that follow it.
"""

from __future__ import annotations

import io
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.errors import SketchFormatError, SketchTooLargeError
from fgsbir_edge.formats._files import MAX_BYTES, read_bytes
from fgsbir_edge.reading import AnyPath

Array = NDArray[Any]


def read_npy(data: bytes, name: str) -> Array:
    """Parse the bytes of a .npy file. Raises SketchFormatError if it is damaged or holds anything but numbers or text."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in {(1, 0), (2, 0)}:
            raise SketchFormatError(f"{name}: .npy version {version} is not read: save it again with numpy.save")
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers as Python 2 wrote them: they are read all the same
            shape, fortran, dtype = read_header(stream)
    except (ValueError, TypeError, SyntaxError, RecursionError, tokenize.TokenError) as error:
        raise SketchFormatError(f"{name}: not a .npy array, or damaged: save it again with numpy.save") from error
    if dtype.kind not in "fiuU":
        raise SketchFormatError(f"{name}: array of dtype {dtype} is not read: save plain numbers (objects need unpickling)")
    body = data[stream.tell() :]
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(body):
        raise SketchFormatError(
            f"{name}: {len(body)} bytes do not make an array of shape {shape} and dtype {dtype}: the file is truncated"
        )
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")


def read_npz(path: AnyPath) -> dict[str, Array]:
    """Read every array of a .npz file.

    Raises:
        SketchFormatError: not a .npz, damaged, or an array that read_npy refuses.
        SketchTooLargeError: the arrays unpack to more than 256 MiB.
        UnreadableImageError: the file is missing or cannot be opened.
    """
    data = read_bytes(path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise SketchTooLargeError(f"{path}: unpacks to more than {MAX_BYTES} bytes: split the file")
            parts = {entry.filename.removesuffix(".npy"): _unpacked(archive, entry) for entry in entries}
    except (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise SketchFormatError(f"{path}: not a .npz file, or damaged: save it again with numpy.savez") from error
    return {name: read_npy(part, f"{path}: {name}") for name, part in parts.items()}


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    # Other methods unpack without a limit, and so does read() without a size.
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise zipfile.BadZipFile("compression method that numpy does not write")
    with archive.open(entry) as stream:
        return stream.read(entry.file_size)
