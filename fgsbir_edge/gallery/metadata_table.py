"""Tables of metadata, keyed by photo name.

CSV, UTF-8, with a header: a column ``name``, and one for each key. A column's kind may be said, ``price:number``, ``sku:text``,
``sold:bool``, ``tags:list`` (texts separated by ";"); otherwise all of its cells tell: numbers, true or false, or text. An empty
cell says nothing.

JSON lines: an object for each photo, with "name" and the keys; null takes a key away.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fgsbir_edge.errors import MetadataError
from fgsbir_edge.files import read_bounded
from fgsbir_edge.gallery.metadata import Value, check_facts, check_key

Table = dict[str, dict[str, Value | None]]

MAX_TABLE_BYTES = 1 << 29
SEPARATOR = ";"
_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")  # 007 is a label, not a number
_FLAGS = {"true": True, "false": False}
_HINT = "see docs/gallery.md for what a table may hold"


def read_metadata_table(path: str | os.PathLike[str]) -> Table:
    """Read a .csv or .jsonl file: what each photo's metadata should be. Raises MetadataError naming the line that is wrong."""
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    if suffix not in (".csv", ".jsonl", ".ndjson"):
        raise MetadataError(f"{path}: a table of metadata is a .csv or .jsonl file; rename or convert it")
    try:
        text = read_bounded(path, MAX_TABLE_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise MetadataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:  # too long, or not UTF-8
        raise MetadataError(f"{path}: {error}; a table is UTF-8 text of at most {MAX_TABLE_BYTES >> 20} MiB") from error
    rows = _csv_rows(path, text) if suffix == ".csv" else _json_rows(path, text)
    table: Table = {}
    for line, name, facts in rows:
        if not isinstance(name, str) or not name:
            raise MetadataError(f"{path}: line {line} has no photo's name; fill in or delete it")
        if name in table:
            raise MetadataError(f"{path}: line {line} names {name!r} again; keep one line a photo")
        table[name] = _checked(path, line, facts)
    return table


def _checked(path: str | os.PathLike[str], line: int, facts: Mapping[str, object]) -> dict[str, Value | None]:
    try:
        said = check_facts({key: value for key, value in facts.items() if value is not None})
        return {**said, **{check_key(key): None for key, value in facts.items() if value is None}}
    except MetadataError as error:
        raise MetadataError(f"{path}: line {line}: {error}") from None


def _json_rows(path: str | os.PathLike[str], text: str) -> Iterable[tuple[int, Any, dict[str, object]]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            facts = json.loads(content, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise MetadataError(f"{path}: line {line} is not one JSON object ({error}); {_HINT}") from error
        if not isinstance(facts, dict):
            raise MetadataError(f"{path}: line {line} is not one JSON object; {_HINT}")
        yield line, facts.pop("name", None), facts


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object, each of whose keys stands there once."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _csv_rows(path: str | os.PathLike[str], text: str) -> Iterable[tuple[int, Any, dict[str, object]]]:
    lines, rows = [], []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader, [])
        for row in reader:
            if row:
                lines.append(reader.line_num)
                rows.append(row)
    except csv.Error as error:
        raise MetadataError(f"{path}: not a CSV table ({error}); {_HINT}") from error
    names = [column.strip().partition(":")[0] for column in header]
    if "name" not in names or len(set(names)) != len(names):
        raise MetadataError(f"{path}: header {','.join(header)[:200]!r} needs a column 'name', and each column once; {_HINT}")
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(header):
            raise MetadataError(f"{path}: line {line} has {len(row)} cells, the header {len(header)}; quote cells with commas")
    key = names.index("name")
    kinds = {
        i: _kind(path, column.strip().partition(":")[2], (row[i].strip() for row in rows))
        for i, column in enumerate(header)
        if i != key
    }
    for line, row in zip(lines, rows, strict=True):
        facts: dict[str, object] = {}
        for i, convert in kinds.items():
            if row[i].strip():
                try:
                    facts[names[i]] = convert(row[i].strip())
                except (ValueError, KeyError):
                    raise MetadataError(f"{path}: line {line}: {row[i][:80]!r} does not fit column {header[i]!r}") from None
        yield line, row[key].strip(), facts


def _number(cell: str) -> int | float:
    if not _NUMBER.fullmatch(cell):
        raise ValueError(cell)
    value = float(cell)
    return int(cell) if cell.lstrip("+-").isdecimal() and abs(value) < 1e15 else value


def _flag(cell: str) -> bool:
    return _FLAGS[cell.lower()]


def _list(cell: str) -> Value:
    return tuple(part.strip() for part in cell.split(SEPARATOR) if part.strip())


_KINDS: dict[str, Callable[[str], Value]] = {"text": str, "number": _number, "bool": _flag, "list": _list}


def _kind(path: str | os.PathLike[str], said: str, cells: Iterable[str]) -> Callable[[str], Value]:
    """What reads a column's cells: as its header says, or as all of them can be read."""
    if said:
        if said not in _KINDS:
            raise MetadataError(f"{path}: column kind {said!r} is unknown; there are {', '.join(_KINDS)}")
        return _KINDS[said]
    filled = [cell for cell in cells if cell]
    if filled and all(_NUMBER.fullmatch(cell) for cell in filled):
        return _number
    if filled and all(cell.lower() in _FLAGS for cell in filled):
        return _flag
    return str
