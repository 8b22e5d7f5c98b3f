"""The table of the zero-sketch start: no adaptation, starts without a sketch, k real pairs, and both, on the same episodes.

Everything runs as on a device: photos as a gallery encodes them, adapting by the device's own code with its guard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fgsbir_edge.adapt import adapt
from fgsbir_edge.head import Adapter, Head
from fgsbir_edge.zero_sketch import handed_over, shifted_start
from training.episodes import Task
from training.episodic.methods.protocol import EncodedEpisode, ProtocolConfig, Role, Scorer, cosine, measure
from training.episodic.methods.settings import CATEGORIES, Setting, SettingConfig
from training.episodic.table import BASE, Row, markdown, note_of, tabulate
from training.generation.drawing import ArtistOptions
from training.zero_sketch_start import Fitted, StandIns, left_out

SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
PAIRS = "pairs"
BESIDE = "pairs + "  # a start beside real pairs
WITHOUT, WITH = "without a sketch", "with k real pairs"
TITLES = {
    "photos": "start from its photos",
    "edges": "start from edges of its photos",
    "generated": "start from generated sketches",
    "certain": "start from generated sketches, weighted by D_C",
}


@dataclass(frozen=True)
class ZeroSketchConfig:
    """The command's configuration.

    Args:
        setting: a dataset of categories, and its validation set that is measured.
        protocol: support pairs of the rows with real pairs, draws and seed.
        shares: the values of r to choose from.
        edge_scales: of training.data.edges, 0 (fine) to 2.
        samples, temperature, pen_temperature: of generated sketches (training.generate).
        threads: of the encoder.
    """

    setting: SettingConfig = CATEGORIES
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    shares: tuple[float, ...] = SHARES
    edge_scales: tuple[int, ...] = (1, 2)
    samples: int = 2
    temperature: float = 0.3
    pen_temperature: float = 1.0
    threads: int = 1

    def __post_init__(self) -> None:
        if not self.shares or min(self.shares) <= 0 or self.samples < 1 or self.threads < 1:
            raise ValueError("expected one or more shares above 0, samples and threads of 1 or more")
        if self.setting.kind != "category":
            raise ValueError('setting.kind is "person"; people have no photos of their own to start from, write "category"')

    @property
    def drawing(self) -> ArtistOptions:
        """How the generator draws."""
        return ArtistOptions(
            samples=self.samples, temperature=self.temperature, pen_temperature=self.pen_temperature, threads=self.threads
        )


@dataclass(frozen=True, eq=False)
class Rows:
    """A dataset's features by row: sketches [S,C], photos [P,C]."""

    sketch_rows: np.ndarray
    photo_rows: np.ndarray

    def sketches(self, rows: np.ndarray) -> np.ndarray:
        """[n,C]."""
        found: np.ndarray = self.sketch_rows[rows]
        return found

    def photos(self, rows: np.ndarray) -> np.ndarray:
        """[n,C]."""
        found: np.ndarray = self.photo_rows[rows]
        return found


@dataclass(frozen=True, eq=False)
class ZeroSketch:
    """A row: `shifts` [D] by the name of the category are what it starts with (None: nothing), `pairs` whether it adapts too."""

    name: str
    head: Head
    rows: Rows
    shifts: Mapping[str, np.ndarray] | None = None
    pairs: bool = False

    def items(self, setting: Setting, tasks: Sequence[Task]) -> Rows:
        """The features."""
        return self.rows

    def adapted(self, episode: EncodedEpisode, rng: np.random.Generator) -> Scorer:
        """The start, what the pairs give, or both."""
        adapter = Adapter.identity(self.head)
        start = None if self.shifts is None else shifted_start(self.head, self.shifts[episode.task.name])
        if self.pairs:
            sketches, photos, places = episode.support(0)
            result = adapt(self.head, sketches, photos[places], candidates=self.rows.photos(episode.task.gallery))
            adapter = (result if start is None else handed_over(self.head, start, result)).adapter
        elif start is not None:
            adapter = start

        def embed(features: np.ndarray, role: Role) -> np.ndarray:
            return adapter.embed(self.head, features, role)

        return cosine(embed)


def starts(head: Head, found: tuple[StandIns, Fitted], setting: Setting) -> dict[str, np.ndarray]:
    """The shift [D] of each category: of measured ones by the fitted constants, of training ones by the others' reference."""
    stand_ins, fitted = found
    shifts = {task.name: fitted.start.shift(stand_ins.mean(head, task.gallery)) for task in setting.measured}
    means = stand_ins.means(head, setting.choosing)
    changes = np.float32(-fitted.start.share) * (means - left_out(means))
    return shifts | {task.name: change for task, change in zip(setting.choosing, changes, strict=True)}


def tables(
    head: Head, rows: Rows, setting: Setting, found: Mapping[str, tuple[StandIns, Fitted]], protocol: ProtocolConfig
) -> dict[str, Any]:
    """{"measured", "training": {row: {k: cell}}}, and "markdown". Rows: BASE, PAIRS, every stand-in alone and beside pairs."""
    methods = [ZeroSketch(BASE, head, rows), ZeroSketch(PAIRS, head, rows, pairs=True)]
    titles = {BASE: Row(WITHOUT, "no adaptation"), PAIRS: Row(WITH, "k real pairs")}
    for name, fit in found.items():
        shifts = starts(head, fit, setting)
        methods += [ZeroSketch(name, head, rows, shifts), ZeroSketch(BESIDE + name, head, rows, shifts, pairs=True)]
        titles |= {name: Row(WITHOUT, TITLES[name]), BESIDE + name: Row(WITH, f"after a {TITLES[name]}")}
    report: dict[str, Any] = {}
    sections = []
    for what, tasks in (("measured", setting.measured), ("training", setting.choosing)):
        results = {method.name: {k: measure(method, setting, tasks, k, protocol) for k in protocol.ks} for method in methods}
        report[what] = tabulate(results)
        counts = {k: len(measured.tasks) for k, measured in results[BASE].items()}
        sections.append(markdown(f"{what} categories", report[what], titles, note_of(counts, protocol.draws)))
    return report | {"markdown": "\n".join(sections)}
