"""An unpickler for files of plain arrays that nobody vouches for.

A pickle is a program. This one may build numbers, text, lists, tuples, dicts, sets and NumPy arrays of plain numbers, and name
nothing else. NumPy's own reconstruction is not called either, since it trusts the states that the pickle hands it: its names are
bound to the small checked stand-ins below.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.errors import SketchFormatError


class PlainArray:
    """Stands in for an array while its pickle runs; ``value`` is the array once the state has arrived."""

    value: NDArray[Any] | None = None

    def __init__(self, *_: object) -> None:
        """Take whatever an empty array is made from."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _array(data, dtype, shape, "F" if fortran else "C")


class _Function:
    """Stands in for a function. Unlike one it has no attributes that a pickle could set."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: object) -> None:
        raise SketchFormatError("pickle sets the state of a function, which is refused: copy the file again")


class _PlainDtype:
    """Stands in for numpy.dtype: a number type and its byte order."""

    def __init__(self, code: Any, *_: object) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<>=|]?[fiub][0-9]{1,2}", code):
            raise SketchFormatError(f"pickle holds an array of dtype {code!r}, expected numbers: save plain float arrays")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":
            self.value = self.value.newbyteorder(">")


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    if isinstance(data, str):  # Python 2 bytes, decoded as latin1
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)) or not isinstance(dtype, _PlainDtype):
        raise SketchFormatError("pickle holds an array of objects, expected numbers: save plain float arrays")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.value.itemsize != len(data):
        raise SketchFormatError(f"pickle holds {len(data)} bytes for an array of shape {shape}: the file is damaged")
    array: NDArray[Any] = np.frombuffer(bytes(data), dtype.value).reshape(shape, order="F" if order == "F" else "C")
    return array


def _scalar(dtype: Any, data: Any) -> Any:
    return _array(data, dtype, (), "C")[()]


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> PlainArray:
    stand_in = PlainArray()
    stand_in.value = _array(data, dtype, shape, order)
    return stand_in


def _encode(text: Any, encoding: Any = None) -> bytes:
    """Bytes in a pickle of protocol 2 or less, which are written as latin1 text to be encoded."""
    if not isinstance(text, str) or encoding != "latin1":
        raise SketchFormatError(f"pickle encodes text as {encoding!r}, expected 'latin1': save it again")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): PlainArray,
    ("numpy", "dtype"): _PlainDtype,
    ("_codecs", "encode"): _Function(_encode),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): PlainArray for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Function(_scalar) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Function(_from_buffer) for core in ("core", "_core")},
}

_OPCODES = {opcode.code.encode("latin1"): opcode for opcode in pickletools.opcodes}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise SketchFormatError(
                f"pickle asks for {module}.{name}, which is refused: only NumPy arrays and plain containers are read; "
                "if you trust the file, load it with its own program and save plain arrays"
            ) from None


def _check_memo(data: bytes) -> None:
    """Refuse a pickle that numbers more objects than it has bytes: the memo is a table that grows to the highest number.

    Raises SketchFormatError, and ValueError or KeyError if the pickle is truncated or damaged.
    """
    stream = io.BytesIO(data)
    while (code := stream.read(1)) != b".":
        opcode = _OPCODES[code]
        if opcode.name == "STRING":  # genops, which does the rest of this, fails on the escapes that Python 2 writes here
            stream.readline()
        elif opcode.arg is not None:
            argument = opcode.arg.reader(stream)
            if "PUT" in opcode.name and argument > len(data):
                raise SketchFormatError("pickle is damaged: it numbers more objects than it has bytes")


def loads(data: bytes) -> Any:
    """Run a pickle of plain containers and arrays; arrays come back as PlainArray. Text of Python 2 is read as latin1.

    Raises:
        SketchFormatError: the pickle names anything else, is truncated or is damaged.
    """
    try:
        _check_memo(data)
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except SketchFormatError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise SketchFormatError("pickle is truncated or damaged: copy it again") from error
