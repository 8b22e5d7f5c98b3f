"""Processes from their start to the first photos found, and to an adapter on the disk, with the memory they take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.adapt_task import PAIRS
from benchmarks.end_to_end_place import Place
from benchmarks.end_to_end_tables import FIRST_HIT, OURS, RESEARCH, START, START_FILES, WRITTEN
from benchmarks.rounds import Report
from benchmarks.samples import significant, summary
from benchmarks.sketches import drawing_files
from fgsbir_edge.encoder.onnx import default_threads
from fgsbir_edge.pairs import DEMO_FOLDER

_ROOT = Path(__file__).parents[1]
_UNSET = ("PYTHONDONTWRITEBYTECODE",)  # an installed package has its bytecode; a checkout writes it when it starts first


@dataclass(frozen=True)
class Start:
    """One process: microseconds to its first word on stdout and of the processor in all, and its highest memory in MiB."""

    wall: float
    processor: float
    peak: float


class Kind(NamedTuple):
    """A process to start: its row's group and name, Python's arguments, and the threads that work in it."""

    group: str
    name: str
    command: list[str]
    threads: int = 1


class Starts:
    """What is started, over the gallery of ``place``; ``folder`` is scratch space. Drawings are files, as a shell has them."""

    def __init__(self, folder: Path, place: Place) -> None:
        self._folder, self._place = folder, place
        self._drawings = drawing_files()[:PAIRS]

    def race(self, report: Report, starts: int, *, research: bool) -> None:
        """Add rows of ``starts`` processes of each kind, begun in turns; one more of each goes before and is not counted."""
        if not starts:
            return
        kinds = self._ours()
        if research:
            self._hand_over()
            kinds += self._research()
        taken: list[list[Start]] = [[] for _ in kinds]
        order = np.random.default_rng(0)
        for turn in range(starts + 1):
            for number in order.permutation(len(kinds)):
                one = start(kinds[number].command)
                if turn:
                    taken[number].append(one)
        for (group, name, _, threads), found in zip(kinds, taken, strict=True):
            row: dict[str, Any] = {"group": group, "name": name, "unit": "us", **summary([[one.wall] for one in found])}
            busy = summary([[one.processor] for one in found])
            row |= {"agrees": "", "bytes": 0, "threads": threads, "limit": group == START}
            row |= {"processor": busy["median"], "processor_min": busy["min"]}
            report.rows.append({**row, "peak_mib": significant(max(one.peak for one in found), 4)})

    def _ours(self) -> list[Kind]:
        bundle = self._place.engine.bundle.path
        common = ["--gallery", str(self._place.gallery), "--json", *(["--bundle", str(bundle)] if bundle else [])]
        one = ["--threads", "1"]
        adapt = ["-m", "fgsbir_edge.adapt", *common, "--output", str(self._folder / "ours.safetensors")]
        named = [*adapt, *(f"{file}={file.stem}.jpg" for file in self._drawings)]
        files = [*adapt, *(f"{file}={DEMO_FOLDER / 'photos' / f'{file.stem}.jpg'}" for file in self._drawings)]
        usual = default_threads()
        kinds = [
            Kind(START, "Python", ["-c", "print()"]),
            Kind(START, "Python with NumPy and ONNX Runtime", ["-c", "import numpy, onnxruntime; print()"]),
            Kind(FIRST_HIT, OURS, ["-m", "fgsbir_edge.cli", "query", str(self._drawings[0]), *common, *one]),
            Kind(WRITTEN, OURS, [*named, *one]),
            Kind(START_FILES, OURS, [*files, *one]),
        ]
        if usual > 1:  # what a command takes that names no threads
            unnamed = f"{OURS}, {usual} threads"
            kinds += [Kind(WRITTEN, unnamed, named, usual), Kind(START_FILES, unnamed, files, usual)]
        return kinds

    def _research(self) -> list[Kind]:
        child = ["-m", "benchmarks.end_to_end_child"]
        drawings = [str(file) for file in self._drawings]
        return [
            Kind(START, "Python with PyTorch", ["-c", "import torch; print()"]),
            Kind(FIRST_HIT, RESEARCH, [*child, "query", str(self._folder), drawings[0]]),
            Kind(WRITTEN, RESEARCH, [*child, "adapt", str(self._folder), *drawings]),
        ]

    def _hand_over(self) -> None:
        """What research code loads: weights, the head, and the features of the photos."""
        import torch

        from benchmarks.end_to_end_torch import released_state

        place = self._place
        torch.save(released_state(place.engine.bundle), self._folder / "network.pt")
        names = [entry.name for entry in place.engine.gallery.index.entries]
        spec = place.engine.input.to_manifest()
        (self._folder / "facts.json").write_text(json.dumps({"input": spec, "names": names}), encoding="utf-8")
        np.savez(self._folder / "photos.npz", features=place.photos, weight=place.head.weight, bias=place.head.bias)


def start(arguments: Sequence[str]) -> Start:
    """Run Python with these arguments, which must print something when its work is done. Raises SystemExit when it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in _UNSET}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(_ROOT / "benchmarks" / "launch.py"), sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed: {done.stderr[-500:]}")
    found = json.loads(done.stdout)
    return Start(1e6 * found["wall"], 1e6 * found["processor"], found["peak"] / 1024)
