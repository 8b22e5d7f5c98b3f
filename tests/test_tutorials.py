"""Every snippet of the tutorials runs, in the order of the pages, in a folder as they describe it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.snippets import ROOT, make_workplace, run, snippets

TUTORIALS = ROOT / "docs" / "tutorials"
RUNTIME = ("your_photos", "person", "category")
TRAINING = ("train", "export")  # the second exports what the first has trained


def follow(names: tuple[str, ...], folder: Path, modules: tuple[str, ...]) -> int:
    """Run all snippets of these pages; returns how many."""
    make_workplace(folder)
    found = [snippet for name in names for snippet in snippets(TUTORIALS / f"{name}.md")]
    for snippet in found:
        run(snippet, folder, modules)
    return len(found)


def test_no_tutorial_is_left_out() -> None:
    assert {path.stem for path in TUTORIALS.glob("*.md")} == {*RUNTIME, *TRAINING}


@pytest.mark.parametrize("name", RUNTIME)
def test_tutorial(name: str, tmp_path: Path) -> None:
    assert follow((name,), tmp_path, ("fgsbir_edge",)) >= 2


def test_embedding_goes_on_from_the_first(tmp_path: Path) -> None:
    follow(("your_photos",), tmp_path, ("fgsbir_edge",))
    for snippet in snippets(ROOT / "docs" / "embed.md"):
        run(snippet, tmp_path, ("fgsbir_edge",))


@pytest.mark.slow
@pytest.mark.torch
def test_tutorials_of_training(tmp_path: Path) -> None:
    for package in ("torch", "onnxscript", "onnxslim"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    assert follow(TRAINING, tmp_path, ("training", "export")) >= 3
    assert (tmp_path / "mine" / "manifest.json").is_file()
