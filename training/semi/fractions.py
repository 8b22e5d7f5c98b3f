"""Label fractions: which photos keep their sketches, and datasets cut down to them (METHODS B.10, last figure).

Photos are ordered by a hash of their names and the first ones are labelled, so that a larger fraction holds a smaller one and
every pipeline agrees, on any machine.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fgsbir_edge.errors import OutputError
from fgsbir_edge.files import write_atomic
from training.config import ConfigError
from training.data.folder import Pair, PairsFolder
from training.data.recipes import training_side
from training.data.sources import SourceConfig
from training.data.splits import merge_pairs, ordered, select


@dataclass(frozen=True)
class TrainingPairs:
    """A source's training side: its folder, the pairs that may train, all photos that may be seen."""

    folder: PairsFolder
    pairs: tuple[Pair, ...]
    photos: frozenset[str]

    def labelled(self, fraction: float) -> TrainingPairs:
        """The same where only `fraction` of the photos that have sketches keep them; the other photos are still there.

        Raises ConfigError for a fraction outside (0,1].
        """
        kept = labelled_photos((pair.photo for pair in self.pairs), fraction, self.folder.root.name)
        return replace(self, pairs=select(self.pairs, photos=kept))


def labelled_photos(photos: Iterable[str], fraction: float, salt: str) -> frozenset[str]:
    """The first `fraction` of distinct photos in hash order, rounded, at least two. Raises ConfigError outside (0,1]."""
    if not 0 < fraction <= 1:
        raise ConfigError(f"the label fraction is {fraction:g}, expected more than 0 and at most 1; write 0.2 for 20 %")
    names = ordered(photos, f"{salt}-labelled")
    return frozenset(names[: max(2, math.floor(fraction * len(names) + 0.5))])


def training_pairs(source: SourceConfig, data: Path) -> TrainingPairs:
    """What of a source of pairs may train. Raises ConfigError for another kind, PairsFormatError for a bad table or no pairs."""
    if source.kind != "pairs":
        raise ConfigError(f"source {source.name}: kind is {source.kind!r}; only pairs of people have labels to take away")
    root = data / source.folder
    first, *further = source.pairs.split("+")
    folder = PairsFolder.read(root, first)
    side = training_side(PairsFolder.read(root) if (root / "pairs.csv").is_file() else folder, source.split)
    for table in further:
        folder = replace(folder, pairs=merge_pairs(folder.pairs, PairsFolder.read(root, table).pairs))
    return TrainingPairs(folder, select(folder.pairs, photos=side.photos, users=side.users), side.photos)


def cut(sources: Sequence[SourceConfig], data: Path, fraction: float, out: Path) -> tuple[SourceConfig, ...]:
    """Folders under `out` that hold what those of `sources` hold, and for each source of pairs a table of those labelled.

    Everything but these tables is a link, and so is all else under `data`. The new sources name the tables; their folders are to
    be looked for under `out` and have their old names, by which their splits are known. Sources of edge drawings need no labels
    and stay as they are.

    Raises ConfigError for a fraction outside (0,1], OutputError where links cannot be made, and what reading a table raises.
    """
    made = []
    for number, source in enumerate(sources):
        _linked(data / source.folder, out / source.folder)
        if source.kind != "pairs":
            made.append(source)
            continue
        pairs = training_pairs(source, data).labelled(fraction).pairs
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(("sketch", "photo", "category", "user"))
        writer.writerows((pair.sketch, pair.photo, pair.category, pair.user) for pair in pairs)
        name = f"labelled-{number}.csv"
        write_atomic(out / source.folder / name, table.getvalue().encode())
        made.append(replace(source, pairs=name))
    _linked(data, out)
    return tuple(made)


def _linked(folder: Path, target: Path) -> None:
    """Links in `target` to what lies in `folder`, but for what is there already."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path in folder.resolve().iterdir() if folder.is_dir() else ():
            if not os.path.lexists(target / path.name):
                os.symlink(path, target / path.name)
    except OSError as error:
        raise OutputError(f"{target}: cannot be made ({error.strerror or error}); choose another --out") from error
