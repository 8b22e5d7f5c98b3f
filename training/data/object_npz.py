"""The .npz files of Sketch-RNN: arrays of arrays, which NumPy can only store as a pickle inside the file.

They are read by the project's restricted unpickler, widened by one thing: an array whose elements are themselves arrays of plain
numbers. Nothing else that a pickle can ask for is answered.
"""

from __future__ import annotations

import io
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.errors import SketchFormatError, SketchTooLargeError
from fgsbir_edge.formats import _arrays, _unpickle
from fgsbir_edge.formats._files import located
from fgsbir_edge.reading import open_binary

MAX_UNPACKED = 2**30  # the largest published category unpacks to a quarter of this

Array = NDArray[Any]


class _ObjectDtype:
    """Stands in for numpy.dtype('O')."""

    def __setstate__(self, state: object) -> None:
        """The state of an object dtype says nothing that matters here."""


class _Rows(_unpickle.PlainArray):
    """Stands in for an array of numbers, or for an array whose elements are such arrays."""

    items: tuple[Any, ...] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, _, data = state
        if not isinstance(dtype, _ObjectDtype):
            super().__setstate__(state)
        elif len(shape) == 1 and isinstance(data, list) and len(data) == shape[0]:
            self.items = tuple(data)
        else:
            raise SketchFormatError(f"holds objects in shape {shape}, expected a list of arrays")


def _dtype(code: Any, *rest: Any) -> Any:
    return _ObjectDtype() if code in ("O", "O8", "O4") else _unpickle._PlainDtype(code, *rest)


class _Unpickler(_unpickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)  # refuses what is not allowed
        if found is _unpickle.PlainArray:
            return _Rows
        return _unpickle._Function(_dtype) if name == "dtype" else found


def read_object_npz(path: str | Path) -> dict[str, list[Array]]:
    """Every member of the file as a list of arrays.

    Raises:
        SketchFormatError: not a .npz, truncated, or anything in it but lists of arrays of numbers.
        SketchTooLargeError: it unpacks to more than 1 GiB.
        UnreadableImageError: the file is missing or cannot be opened.
    """
    with located(str(path)), open_binary(path) as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                entries = archive.infolist()
                if sum(entry.file_size for entry in entries) > MAX_UNPACKED:
                    raise SketchTooLargeError(f"unpacks to more than {MAX_UNPACKED} bytes: split the file")
                parts = {entry.filename.removesuffix(".npy"): _arrays._unpacked(archive, entry) for entry in entries}
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise SketchFormatError("not a .npz file, or truncated: download it again") from error
        return {name: _members(data, name) for name, data in parts.items()}


def _members(data: bytes, name: str) -> list[Array]:
    with located(name):
        stream = io.BytesIO(data)
        try:
            version = np.lib.format.read_magic(stream)
            read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the files were written under Python 2, which NumPy remarks upon
                shape, _, dtype = read_header(stream)
        except (ValueError, TypeError, SyntaxError, RecursionError) as error:
            raise SketchFormatError("not a .npy array, or damaged: download the file again") from error
        if dtype.kind != "O" or len(shape) != 1:
            raise SketchFormatError(f"array of dtype {dtype} and shape {shape}, expected a list of stroke-3 arrays")
        body = data[stream.tell() :]
        try:
            _unpickle._check_memo(body)
            rows = _Unpickler(io.BytesIO(body), encoding="latin1").load()
        except SketchFormatError:
            raise
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise SketchFormatError("truncated or damaged: download the file again") from error
        items = rows.items if isinstance(rows, _Rows) else None
        if items is None or len(items) != shape[0]:
            raise SketchFormatError(f"does not hold the {shape[0]} arrays that it announces: download the file again")
        values = [item.value if isinstance(item, _unpickle.PlainArray) else None for item in items]
        if not all(value is not None for value in values):
            raise SketchFormatError("holds something other than arrays of numbers: it is no Sketch-RNN file")
        return [value for value in values if value is not None]
