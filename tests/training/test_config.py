"""Configuration files: what fits is taken, what does not is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from training.config import ConfigError, from_table, read_config, to_table


@dataclass(frozen=True)
class Inner:
    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class Outer:
    count: int
    kind: Literal["small", "large"] = "small"
    pair: tuple[float, float] = (0.0, 1.0)
    parts: tuple[Inner, ...] = ()
    inner: Inner | None = None
    flag: bool = False

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count must not be negative")


TEXT = """
count = 3
kind = "large"
pair = [1, 2.5]
[[parts]]
name = "a"
[[parts]]
name = "b"
weight = 2
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_a_file_becomes_nested_dataclasses(tmp_path: Path) -> None:
    read = read_config(write(tmp_path, TEXT), Outer)
    assert read == Outer(3, "large", (1.0, 2.5), (Inner("a"), Inner("b", 2.0)))
    assert isinstance(read.parts[1].weight, float)


def test_a_table_survives_a_round_trip(tmp_path: Path) -> None:
    read = read_config(write(tmp_path, TEXT), Outer)
    assert from_table(Outer, to_table(read)) == read


def test_settings_override_single_values(tmp_path: Path) -> None:
    settings = ["count=7", "inner.name=plain words", "inner.weight=0.5", "flag=true", "pair=[3, 4]"]
    read = read_config(write(tmp_path, TEXT), Outer, settings)
    assert (read.count, read.inner, read.flag, read.pair) == (7, Inner("plain words", 0.5), True, (3.0, 4.0))


def test_settings_reach_a_table_by_its_name(tmp_path: Path) -> None:
    read = read_config(write(tmp_path, TEXT), Outer, ["parts.b.weight=3.5", "parts.a.name=c"])
    assert read.parts == (Inner("c"), Inner("b", 3.5))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("parts.d.weight=3", "0 tables are named 'd'; there are a, b"),
        ("parts.weight=3", "'parts' is a list; name one of its tables"),
        ("parts.b.weight.more=3", "'weight' is not a table"),
        ("pair.0.weight=3", "there are none with names"),
        ("count.more=3", "'count' is not a table"),
    ],
)
def test_settings_that_reach_nothing(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(write(tmp_path, TEXT), Outer, [setting])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind = 'large'", "'count' is missing"),
        ("count = 1\nsteps = 2", "unknown key 'steps'; there are count, kind"),
        ("count = 1.5", "count is 1.5, expected int"),
        ("count = true", "count is True, expected int"),
        ("count = 1\nflag = 1", "flag is 1, expected bool"),
        ("count = 1\nkind = 'huge'", "kind is 'huge', expected one of 'small', 'large'"),
        ("count = 1\npair = [1]", "pair has 1 values, expected 2"),
        ("count = 1\npair = 1", "pair is 1, expected a list"),
        ("count = 1\npair = [1, 'x']", r"pair\[1\] is 'x', expected float"),
        ("count = 1\ninner = 3", "inner is 3, expected a table"),
        ("count = 1\n[[parts]]\nweight = 1", r"parts\[0\]: 'name' is missing"),
        ("count = -1", "count must not be negative"),
        ("count = ", "not readable as TOML"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(write(tmp_path, text), Outer)


def test_missing_files_and_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        read_config(tmp_path / "none.toml", Outer)
    path = write(tmp_path, TEXT)
    with pytest.raises(ConfigError, match=r"expected table\.key=value"):
        read_config(path, Outer, ["count"])
    with pytest.raises(ConfigError, match="'count' is not a table"):
        read_config(path, Outer, ["count.x=1"])
