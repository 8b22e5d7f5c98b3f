"""A released model from data folders, every step of it: ``python -m training.release RECIPE.toml --data DATA --out O``.

RECIPE.toml (training/recipes/) names steps; each is a command of this project, run as ``python -m``:

    made = "{out}/bundle"                                   # what is released
    [[steps]]
    name = "network"
    command = ["training.supervised", "--config", "training/configs/edge.toml", "--data", "{data}", "--out", "{out}/edge"]
    makes = ["{out}/edge/last.safetensors"]

A step that is done is not run again while its command stays the same and what it made is there; a training that was stopped goes
on where it was. O/release.json notes what each step took. Nothing is written outside O: to release, copy what was made.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgsbir_edge.console import put_json, run
from fgsbir_edge.errors import FgsbirError
from fgsbir_edge.files import write_atomic
from training.config import ConfigError, read_config

log = logging.getLogger("training.release")

ROOT = Path(__file__).parents[1]
NOTES = "release.json"


class StepError(FgsbirError):
    """A step of a recipe failed, or made nothing."""

    exit_code = 48


@dataclass(frozen=True)
class Step:
    """A command and the files or folders that it leaves behind; ``{data}`` and ``{out}`` stand for the folders given."""

    name: str
    command: tuple[str, ...]
    makes: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """Steps in order, and which of the things they make is the released model."""

    made: str
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        if len(set(names)) < len(names):
            raise ValueError(f"two steps have one name: {', '.join(names)}")
        for step in self.steps:
            if not step.command or step.command[0].partition(".")[0] not in ("training", "export"):
                raise ValueError(f"step {step.name!r}: a command begins with a module of training or export")
            if not step.makes:
                raise ValueError(f"step {step.name!r} makes nothing")


Runner = Callable[[Sequence[str]], int]


def run_module(command: Sequence[str]) -> int:
    """``python -m`` in the checkout, its data to stderr; the exit code."""
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, stdout=sys.stderr.fileno(), check=False).returncode


def follow(recipe: Recipe, data: Path, out: Path, runner: Runner = run_module) -> dict[str, Any]:
    """Do what is not done yet; the released path, and seconds by step. Raises StepError, which names the step."""
    out.mkdir(parents=True, exist_ok=True)
    noted = read_notes(out)

    def filled(text: str) -> str:
        return text.replace("{data}", str(data)).replace("{out}", str(out))

    anew = False  # what comes after a step that was run is run too: it was made from something older
    for step in recipe.steps:
        command, makes = [filled(word) for word in step.command], [Path(filled(path)) for path in step.makes]
        known: dict[str, Any] = noted.get(step.name, {})
        same = known.get("command") == command
        if same and not anew and not known["stopped"] and all(path.exists() for path in makes):
            log.info("%s: done before, in %.0f s", step.name, known["seconds"])
            continue
        anew = True
        log.info("%s: python -m %s", step.name, " ".join(command))
        begun, spent = time.monotonic(), known["seconds"] if same and known["stopped"] else 0.0
        try:
            code = runner(command)
        finally:
            spent += time.monotonic() - begun
            noted[step.name] = {"command": command, "seconds": round(spent, 1), "stopped": True}
            write_notes(out, noted)
        if code:
            raise StepError(f"step {step.name!r} failed with exit code {code}; mend what it says above and run the same again")
        if missing := [path for path in makes if not path.exists()]:
            raise StepError(f"step {step.name!r} did not make {missing[0]}; its recipe is wrong")
        noted[step.name]["stopped"] = False
        write_notes(out, noted)
    return {"made": filled(recipe.made), "seconds": {step.name: noted[step.name]["seconds"] for step in recipe.steps}}


def read_notes(out: Path) -> dict[str, Any]:
    """What O/release.json says, by step; nothing where there is none. Raises ConfigError for another file of that name."""
    path = out / NOTES
    if not path.exists():
        return {}
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
        return {name: {key: note[key] for key in ("command", "seconds", "stopped")} for name, note in notes.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not notes of training.release ({error}); give another --out, or remove it") from None


def write_notes(out: Path, notes: dict[str, Any]) -> None:
    """The reverse, whole or not at all."""
    write_atomic(out / NOTES, (json.dumps(notes, indent=1) + "\n").encode())


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m training.release", description=__doc__)
    options.add_argument("recipe", type=Path, help="TOML file, e.g. training/recipes/default.toml")
    options.add_argument("--data", type=Path, required=True, help="folder that holds the dataset folders")
    options.add_argument("--out", type=Path, required=True, help="folder for everything that is made; an unfinished run goes on")
    options.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    return options


def main() -> int:
    arguments = parser().parse_args()

    def start() -> int:
        recipe = read_config(arguments.recipe, Recipe)
        if arguments.dry_run:
            put_json({step.name: list(step.command) for step in recipe.steps})
            return 0
        if not arguments.data.is_dir():
            raise ConfigError(f"{arguments.data}: no such folder; docs/data.md says what lies in it")
        put_json(follow(recipe, arguments.data.absolute(), arguments.out.absolute()))
        return 0

    return run(start)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    sys.exit(main())
