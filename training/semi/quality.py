"""What an arm's generator is worth (METHODS B.10): its drawings of held-out photos recognised, searched with, and compared.

Classifier and retrieval model are the same for all arms and learn from none of them; training.evaluate_generator has the
definitions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgsbir_edge.files import write_atomic
from training.data.recipes import ValidationSet
from training.evaluate_generator import drawings_of, measure, photos_of
from training.evaluate_model import open_model
from training.evaluate_retrieval import Bootstrap
from training.generation.classifier import load_classifier
from training.generation.drawing import ArtistOptions, open_artist
from training.generation.quality import Finder

FILE = "generation.json"  # in the folder of a run
SAMPLES = 3  # drawings of a photo


@dataclass(frozen=True)
class Judges:
    """`classifier`: of training.sketch_classifier; `finder`: a bundle folder or a retrieval checkpoint. Either may be missing."""

    classifier: Path | None = None
    finder: Path | None = None

    @property
    def any(self) -> bool:
        return self.classifier is not None or self.finder is not None


def drawing_quality(
    generator: Path, sets: Sequence[ValidationSet], judges: Judges, out: Path, threads: int = 1
) -> dict[str, float]:
    """Percent "rec@1", "rec@10", "ret@1", "ret@10" and "fid", means over `sets`; from the file `out` where it holds them.

    The file is measured anew for another generator, other judges or another way to draw. Raises what opening them raises.
    """
    options = ArtistOptions(samples=SAMPLES, threads=threads)
    files = [path for path in (generator, judges.classifier, judges.finder) if path is not None]
    of = {"drawing": list(astuple(options)), "files": [_digest(path) for path in files]}
    if out.is_file() and json.loads(out.read_text())["of"] == of:
        return measured(out)
    artist = open_artist(generator, "cpu", threads)
    classifier = None if judges.classifier is None else load_classifier(judges.classifier)
    finder = None if judges.finder is None else Finder(*open_model(judges.finder, threads))
    found: dict[str, list[float]] = {}
    for item in sets:
        drawings = drawings_of(artist, item.folder, photos_of([item], None), options)
        for name, value in _flat(measure([item], drawings, classifier, finder, Bootstrap())[item.name]).items():
            found.setdefault(name, []).append(value)
    figures = {name: float(np.mean(values)) for name, values in found.items()}
    write_atomic(out, (json.dumps({"of": of, "figures": figures}, indent=2) + "\n").encode())
    return figures


def measured(path: Path) -> dict[str, float]:
    """The figures of a file of `drawing_quality`; none where there is no file."""
    return dict(json.loads(path.read_text())["figures"]) if path.is_file() else {}


def _flat(figures: dict[str, Any]) -> dict[str, float]:
    flat: dict[str, float] = {}
    if "recognition" in figures:
        drawn = figures["recognition"]["drawn"]
        flat |= {"rec@1": drawn["acc@1"], "rec@10": drawn["acc@10"]}
    if "retrieval" in figures:
        drawn = figures["retrieval"]["drawn"]
        flat |= {"ret@1": drawn["acc@1"], "ret@10": drawn["acc@10"]}
    if "fid" in figures:
        flat["fid"] = figures["fid"]["fid"]
    return flat


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of a bundle folder's manifest, which holds the hashes of its parts."""
    return hashlib.sha256((path / "manifest.json" if path.is_dir() else path).read_bytes()).hexdigest()
