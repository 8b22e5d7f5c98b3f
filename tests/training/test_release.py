"""Recipes of released models: steps in order, once each, taken up where they stopped; and the shipped ones name what there is."""

from __future__ import annotations

import functools
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from training.config import ConfigError, read_config
from training.release import NOTES, ROOT, Recipe, Step, StepError, follow

RECIPES = sorted((ROOT / "training" / "recipes").glob("*.toml"))
TWO = Recipe(
    "{out}/b",
    (
        Step("first", ("training.first", "--data", "{data}", "--out", "{out}/a"), ("{out}/a",)),
        Step("second", ("training.second", "{out}/a"), ("{out}/b",)),
    ),
)


class Commands:
    """Stands in for the commands: notes them, writes what they are to make."""

    def __init__(self, out: Path) -> None:
        self.out, self.ran, self.fail, self.lazy = out, list[str](), "", ""

    def __call__(self, command: Sequence[str]) -> int:
        self.ran.append(command[0].partition(".")[2])
        name = {"first": "a", "second": "b"}[self.ran[-1]]
        if self.ran[-1] == self.fail:
            (self.out / name).touch()  # a checkpoint of a training that was stopped
            return 3
        if self.ran[-1] != self.lazy:
            (self.out / name).write_text(" ".join(command))
        return 0


def test_steps_run_once_in_order(tmp_path: Path) -> None:
    commands = Commands(tmp_path)
    done = follow(TWO, Path("/data"), tmp_path, commands)
    assert (done["made"], list(done["seconds"])) == (str(tmp_path / "b"), ["first", "second"])
    assert (tmp_path / "a").read_text() == f"training.first --data /data --out {tmp_path}/a"
    follow(TWO, Path("/data"), tmp_path, commands)
    assert commands.ran == ["first", "second"]


def test_what_is_made_of_something_older_is_made_anew(tmp_path: Path) -> None:
    commands = Commands(tmp_path)
    follow(TWO, Path("/data"), tmp_path, commands)
    (tmp_path / "a").unlink()
    follow(TWO, Path("/data"), tmp_path, commands)
    follow(TWO, Path("/other"), tmp_path, commands)
    assert commands.ran == ["first", "second"] * 3


def test_a_step_that_failed_is_run_again_and_its_time_adds_up(tmp_path: Path) -> None:
    commands = Commands(tmp_path)
    commands.fail = "second"
    with pytest.raises(StepError, match="'second' failed with exit code 3"):
        follow(TWO, Path("/data"), tmp_path, commands)
    notes = json.loads((tmp_path / NOTES).read_text())
    notes["second"]["seconds"] = 100.0
    (tmp_path / NOTES).write_text(json.dumps(notes))
    commands.fail = ""
    done = follow(TWO, Path("/data"), tmp_path, commands)
    assert commands.ran == ["first", "second", "second"]
    assert done["seconds"]["second"] >= 100.0


def test_a_step_that_makes_nothing_is_an_error(tmp_path: Path) -> None:
    commands = Commands(tmp_path)
    commands.lazy = "first"
    with pytest.raises(StepError, match=r"did not make .*/a"):
        follow(TWO, Path("/data"), tmp_path, commands)


def test_notes_of_something_else_are_kept(tmp_path: Path) -> None:
    (tmp_path / NOTES).write_text('{"first": 1}')
    with pytest.raises(ConfigError, match=r"not notes of training\.release"):
        follow(TWO, Path("/data"), tmp_path, Commands(tmp_path))
    assert (tmp_path / NOTES).read_text() == '{"first": 1}'


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_name_modules_files_and_what_came_before(path: Path) -> None:
    recipe, made = read_config(path, Recipe), set[str]()
    for step in recipe.steps:
        assert importlib.util.find_spec(step.command[0]), step.command[0]
        for word in step.command[1:]:
            if word.startswith(("training/", "fgsbir_edge/")):
                assert (ROOT / word).exists(), word
        inputs = [word for word in step.command if word.startswith("{out}") and word.endswith(".safetensors")]
        assert {word for word in inputs if word not in step.makes} <= made
        made.update(step.makes)
    assert any(path.startswith(recipe.made) for path in made)


@functools.cache
def help_of(words: tuple[str, ...]) -> str:
    return subprocess.run([sys.executable, "-m", *words, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_say_what_their_commands_take(path: Path) -> None:
    """Every option of a step is one of its command's own."""
    for step in read_config(path, Recipe).steps:
        known = help_of(tuple(word for word in step.command[:2] if not word.startswith("-")))
        for word in step.command:
            if word.startswith("--"):
                assert word in known, f"{step.name}: {word}"


@pytest.mark.parametrize(
    ("steps", "fault"),
    [
        ('[{name="a", command=["rm", "-r"], makes=["x"]}]', "begins with a module"),
        ('[{name="a", command=["training.meta"], makes=[]}]', "makes nothing"),
        ('[{name="a", command=["training.meta"], makes=["x"]}, {name="a", command=["training.meta"], makes=["x"]}]', "one name"),
    ],
)
def test_recipes_that_cannot_be_meant(tmp_path: Path, steps: str, fault: str) -> None:
    (tmp_path / "r.toml").write_text(f'made = "x"\nsteps = {steps}\n')
    with pytest.raises(ConfigError, match=fault):
        read_config(tmp_path / "r.toml", Recipe)
