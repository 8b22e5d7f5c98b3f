"""docs/embed.md and docs/robot.md: the Python runs, and what they say of the examples is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fgsbir_edge.engine import Engine
from fgsbir_edge.pairs import DEMO_FOLDER
from tests.examples.programs import EXAMPLES, ROOT


def read(name: str) -> str:
    """A page."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_python_in_embed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Engine.open(photos=DEMO_FOLDER / "photos", gallery=tmp_path / "photos.fgsbir", threads=1).close()
    monkeypatch.chdir(tmp_path)
    (body,) = re.findall(r"```python\n(.*?)```", read("embed.md"), re.DOTALL)
    exec(compile(body, "embed.md", "exec"), {"__name__": "embed"})
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_files_named_in_the_pages_exist() -> None:
    for file in re.findall(r"^\| `(\w+\.h)` \|", read("embed.md"), re.MULTILINE):
        assert (EXAMPLES / "cpp" / file).is_file(), file
    headers = {path.name for path in (EXAMPLES / "cpp").glob("*.h")}
    assert set(re.findall(r"^\| `(\w+\.h)` \|", read("embed.md"), re.MULTILINE)) == headers


def test_the_robot_s_page_has_every_parameter_and_topic() -> None:
    text = (EXAMPLES / "ros2" / "fgsbir_ros" / "config" / "find.yaml").read_text(encoding="utf-8")
    page = read("robot.md")
    for name, value in re.findall(r"^ +(\w+): (\S+)", text, re.MULTILINE):
        assert f"`{name}`" in page or (f"`topics.{name}`" in page and f"`{value}`" in page), name


def test_jetson_s_table_of_images_is_that_of_the_recipes() -> None:
    images = dict(re.findall(r"^(\w+)=(\S*)", (ROOT / "containers" / "images.env").read_text(encoding="utf-8"), re.MULTILINE))
    page = read("jetson.md")
    for target in ("jetpack6", "jetpack7", "cpu"):
        (row,) = re.findall(rf"^\| `{target}` \|(.*)\|$", page, re.MULTILINE)
        image, _, tag = images[f"{target.upper()}_IMAGE"].rpartition(":")
        assert f"`{image.rsplit('/', 1)[-1]}` {re.split(r'[.-]', tag)[0]}" in row
        assert images[f"{target.upper()}_PYTHON"] in row
        sm = images[f"{target.upper()}_SM"]
        assert (f"({sm[:-1]}.{sm[-1]})" if sm else "none") in row
