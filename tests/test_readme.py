"""Every snippet of README.md runs, in a folder with photos and drawings named as the README names them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fgsbir_edge.pairs import DEMO_FOLDER

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
COMMANDS = [line for language, body in BLOCKS if language == "bash" for line in body.splitlines() if "fgsbir" in line]
SCRIPTS = {"fgsbir-edge": "from fgsbir_edge.cli import main; import sys; sys.exit(main())"}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/ and sketches/ of the shipped demo, the latter flattened to the first person's, and pairs.csv."""
    shutil.copytree(DEMO_FOLDER / "photos", tmp_path / "photos")
    person = sorted(path for path in (DEMO_FOLDER / "sketches").iterdir())[0]
    shutil.copytree(person, tmp_path / "sketches")
    names = sorted(path.stem for path in (tmp_path / "photos").iterdir())
    rows = [f"sketches/{name}.png,{name}.jpg" for name in names]
    (tmp_path / "pairs.csv").write_text("\n".join(["sketch,photo", *rows[:5]]) + "\n")
    (tmp_path / "queries.csv").write_text("\n".join(["sketch,photo", *rows[5:]]) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_readme_names_both_commands() -> None:
    text = README.read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text
    assert len(COMMANDS) >= 3


@pytest.mark.usefixtures("workplace")
def test_python_snippets_run(capsys: pytest.CaptureFixture[str]) -> None:
    snippets = [body for language, body in BLOCKS if language == "python"]
    assert snippets
    for body in snippets:
        exec(compile(body, str(README), "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.strip()


@pytest.mark.usefixtures("workplace")
def test_commands_run() -> None:
    """In the order in which the README has them, since later ones use what earlier ones made."""
    for line in COMMANDS:
        words = shlex.split(line, comments=True)
        if words[0] in SCRIPTS:
            words = [sys.executable, "-c", SCRIPTS[words[0]], *words[1:]]
        elif words[:2] == ["python", "-m"] and words[2].startswith("fgsbir_edge"):
            words[0] = sys.executable
        else:
            continue  # training commands need research data that cannot be shipped
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
