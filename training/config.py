"""Configuration files: TOML tables into frozen dataclasses, every key and type checked.

A dataclass is its own schema: fields without a default must be given, unknown keys are errors, a whole number may stand for a
float. ``--set loss.temperature=0.05`` on a command line overrides one value, written as in TOML; of a list of tables with names
``--set data.sources.NAME.folder=DIR`` one table's.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fgsbir_edge.errors import FgsbirError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")


class ConfigError(FgsbirError, ValueError):
    """A configuration file is missing, is not TOML, or holds a key or value that does not fit."""

    exit_code = 42


def read_config(path: str | Path, kind: type[T], settings: Sequence[str] = ()) -> T:
    """A dataclass `kind` from a TOML file, with `settings` ("table.key=value") applied. Raises ConfigError."""
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such configuration file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not readable as TOML: {error}") from None
    for setting in settings:
        apply_setting(table, setting)
    return from_table(kind, table, str(path))


def from_table(kind: type[T], table: Mapping[str, Any], where: str = "configuration") -> T:
    """A dataclass from nested dictionaries, as TOML and JSON give them. Raises ConfigError naming the key."""
    hints = get_type_hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(table) - set(known)):
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; there are {', '.join(known)}")
    values = {name: _value(hints[name], table[name], f"{where}: {name}") for name in known if name in table}
    required = [name for name, field in known.items() if _is_required(field) and name not in values]
    if required:
        raise ConfigError(f"{where}: {required[0]!r} is missing")
    try:
        return kind(**values)
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from None


def to_table(value: Any) -> Any:
    """The reverse, fit for JSON: dataclasses to dictionaries, tuples to lists; None is left out of dictionaries."""
    if dataclasses.is_dataclass(value):
        items = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: to_table(item) for name, item in items.items() if item is not None}
    if isinstance(value, (tuple, list)):
        return [to_table(item) for item in value]
    return value


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def apply_setting(table: dict[str, Any], setting: str) -> None:
    """Set one dotted key. Text that is not a TOML value is taken as a string."""
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"setting {setting!r}: expected table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = key.strip().split(".")
    place: Any = table
    for name in path:
        place = _named(place, name, setting) if isinstance(place, list) else place.setdefault(name, {})
        if not isinstance(place, (dict, list)):
            raise ConfigError(f"setting {setting!r}: {name!r} is not a table")
    if not isinstance(place, dict):
        raise ConfigError(f"setting {setting!r}: {path[-1]!r} is a list; name one of its tables and a key of it")
    place[last] = value


def _named(tables: list[Any], name: str, setting: str) -> Any:
    """The table of that name."""
    found = [table for table in tables if isinstance(table, dict) and table.get("name") == name]
    if len(found) != 1:
        names = ", ".join(str(table["name"]) for table in tables if isinstance(table, dict) and "name" in table)
        raise ConfigError(f"setting {setting!r}: {len(found)} tables are named {name!r}; there are {names or 'none with names'}")
    return found[0]


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _optional(hint, value, where)
    if origin is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{where} is {value!r}, expected one of {', '.join(map(repr, get_args(hint)))}")
        return value
    if origin is tuple:
        return _tuple(get_args(hint), value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {value!r}, expected a table")
        return {name: _value(get_args(hint)[1], item, f"{where}.{name}") for name, item in value.items()}
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {value!r}, expected a table")
        return from_table(hint, value, where)  # type: ignore[arg-type]
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where} is {value!r}, expected {hint.__name__}")
    return value


def _optional(hint: Any, value: Any, where: str) -> Any:
    """A value of "X | None"."""
    choices = [choice for choice in get_args(hint) if choice is not type(None)]
    return None if value is None else _value(choices[0], value, where)


def _tuple(hints: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} is {value!r}, expected a list")
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(value) != len(hints):
        raise ConfigError(f"{where} has {len(value)} values, expected {len(hints)}")
    return tuple(_value(hint, item, f"{where}[{index}]") for index, (hint, item) in enumerate(zip(hints, value, strict=True)))
