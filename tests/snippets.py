"""Runs the snippets of a Markdown page, one after another, as a reader would who follows it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fgsbir_edge.samples import write_samples

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ENTRY = "from fgsbir_edge.cli import main; import sys; sys.exit(main())"


@dataclass(frozen=True)
class Snippet:
    """A fenced block: its language, the file it is the text of (or ""), and its text. Indented blocks are not meant to be run."""

    language: str
    title: str
    body: str


def snippets(page: Path) -> list[Snippet]:
    """All fenced blocks of a page, in order."""
    return [Snippet(*found) for found in FENCE.findall(page.read_text(encoding="utf-8"))]


def make_workplace(folder: Path) -> None:
    """What pages start from: the folder that ``fgsbir-edge samples`` makes."""
    write_samples(folder)


def run(snippet: Snippet, folder: Path, modules: tuple[str, ...]) -> str:
    """Run Python and shell, write titled blocks to their file; of ``python -m`` those of the packages named.

    Returns what was printed. Raises AssertionError with what a command said when it fails.
    """
    said = ""
    if snippet.title:
        (folder / snippet.title).write_text(snippet.body, encoding="utf-8")
    elif snippet.language == "python":
        said = _succeed([sys.executable, "-c", snippet.body], folder)
    elif snippet.language == "bash":
        for line in snippet.body.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["fgsbir-edge"]:
                said += _succeed([sys.executable, "-c", ENTRY, *words[1:]], folder)
            elif words[:2] == ["python", "-m"] and words[2].partition(".")[0] in modules:
                said += _succeed([sys.executable, *words[1:]], folder)
    return said


def _succeed(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
