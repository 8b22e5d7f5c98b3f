"""Every snippet of README.md runs, in a folder with photos and drawings named as the README names them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.snippets import ROOT, make_workplace, run, snippets

README = ROOT / "README.md"
MODULES = ("fgsbir_edge",)  # training commands need research data that cannot be shipped; tests/test_tutorials.py trains


def test_readme_names_both_commands() -> None:
    text = README.read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text


def test_snippets_run(tmp_path: Path) -> None:
    """In the order in which the README has them, since later ones use what earlier ones made."""
    make_workplace(tmp_path)
    found = snippets(README)
    assert {"python", "bash"} <= {snippet.language for snippet in found}
    said = [run(snippet, tmp_path, MODULES) for snippet in found]
    assert said[0].splitlines()[0] == "basset.jpg", "the first thing that a reader sees is a drawing that finds its photo"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), f"README.md links to {target}, which is not there"
