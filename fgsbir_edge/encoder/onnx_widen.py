"""Weights that an ONNX file keeps as float16 behind a Cast, as plain float32 weights: the same numbers for TensorRT.

A bundle's fp32 graph stores its large weights in half the bytes; ONNX Runtime carries the Casts out when it loads it. To TensorRT
a convolution whose kernel comes out of a Cast is one with a kernel computed at run time, which older releases take in part only.
The file is rewritten as the protocol-buffer records that it consists of, since a device has no onnx package.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_GRAPH = 7  # ModelProto
_NODE, _INITIALIZER = 1, 5  # GraphProto
_INPUT, _OUTPUT, _OPERATOR, _ATTRIBUTE = 1, 2, 4, 5  # NodeProto
_NAME, _INTEGER, _SUBGRAPHS = 1, 3, (6, 11)  # AttributeProto
_DIMS, _TYPE, _TENSOR_NAME, _RAW = 1, 2, 8, 9  # TensorProto
_FLOAT, _FLOAT16 = 1, 10  # TensorProto.DataType
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types

Field = tuple[int, int, bytes, bytes]  # number, wire type, value, the whole record


def widened(model: bytes) -> bytes:
    """An ONNX file's bytes with every Cast of a float16 weight to float32 carried out; the same bytes where there is none.

    What cannot be read is given back as it is: saying what is wrong with it is the parser's business.
    """
    try:
        parts = list(_fields(model))
        graphs = [index for index, field in enumerate(parts) if field[0] == _GRAPH]
        if len(graphs) != 1:
            return model
        graph = _widened_graph(parts[graphs[0]][2])
    except (IndexError, UnicodeDecodeError, ValueError):
        return model
    if graph is None:
        return model
    return b"".join(_record(_GRAPH, graph) if index == graphs[0] else field[3] for index, field in enumerate(parts))


def _widened_graph(graph: bytes) -> bytes | None:
    """None where there is nothing to do, or a node holds a graph of its own, whose use of weights is not looked at."""
    parts = list(_fields(graph))
    weights = {_text(value, _TENSOR_NAME): value for number, _, value, _ in parts if number == _INITIALIZER}
    casts: dict[int, str] = {}  # place of a Cast: name of its weight
    used: set[str] = set()
    for index, (number, _, value, _) in enumerate(parts):
        if number != _NODE:
            continue
        node = list(_fields(value))
        attributes = [list(_fields(field[2])) for field in node if field[0] == _ATTRIBUTE]
        if any(field[0] in _SUBGRAPHS for attribute in attributes for field in attribute):
            return None
        inputs = [field[2].decode() for field in node if field[0] == _INPUT]
        if _text(value, _OPERATOR) == "Cast" and _to_float(attributes) and _is_half(weights.get(inputs[0])):
            casts[index] = inputs[0]
        else:
            used.update(inputs)
    if not casts:
        return None
    gone = set(casts.values()) - used
    kept = []
    for index, (number, _, value, record) in enumerate(parts):
        if index in casts:
            kept.append(_record(_INITIALIZER, _wide(weights[casts[index]], _text(value, _OUTPUT))))
        elif number != _INITIALIZER or _text(value, _TENSOR_NAME) not in gone:
            kept.append(record)
    return b"".join(kept)


def _to_float(attributes: list[list[Field]]) -> bool:
    """Whether a Cast's attributes say "to": FLOAT."""
    found = {field[0]: field[2] for attribute in attributes for field in attribute if _first(attribute, _NAME) == b"to"}
    return found.get(_INTEGER) == bytes([_FLOAT])


def _is_half(tensor: bytes | None) -> bool:
    """Whether a tensor is float16 with its values inside, as raw bytes."""
    if tensor is None:
        return False
    return _first(tensor, _TYPE) == bytes([_FLOAT16]) and any(field[0] == _RAW for field in _fields(tensor))


def _wide(tensor: bytes, name: str) -> bytes:
    """A tensor as float32, under another name."""
    values = np.frombuffer(_first(tensor, _RAW), "<f2").astype("<f4").tobytes()
    dims = b"".join(field[3] for field in _fields(tensor) if field[0] == _DIMS)
    kind = _varint(_TYPE << 3 | _VARINT) + _varint(_FLOAT)
    return dims + kind + _record(_TENSOR_NAME, name.encode()) + _record(_RAW, values)


def _text(message: bytes, number: int) -> str:
    return _first(message, number).decode()


def _first(message: bytes | list[Field], number: int) -> bytes:
    """A field's value; empty where it is missing."""
    fields = _fields(message) if isinstance(message, bytes) else iter(message)
    return next((field[2] for field in fields if field[0] == number), b"")


def _fields(message: bytes) -> Iterator[Field]:
    """The records of a message in order. Raises ValueError or IndexError where it is none."""
    place = 0
    while place < len(message):
        start = place
        tag, place = _read_varint(message, place)
        begin, wire = place, tag & 7
        if wire == _BYTES:
            length, begin = _read_varint(message, place)
            place = begin + length
        elif wire == _VARINT:
            _, place = _read_varint(message, place)
        elif wire in (_FIXED32, _FIXED64):
            place += 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if place > len(message):
            raise ValueError("cut short")
        yield tag >> 3, wire, message[begin:place], message[start:place]


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError("a number of more than 64 bits")


def _record(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)
