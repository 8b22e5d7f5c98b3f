"""Where training pairs come from: a source is a part of a dataset, and its share of the steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from fgsbir_edge.errors import PairsFormatError
from fgsbir_edge.preprocess import InputSpec
from training.data.edges import SCALES, edge_key
from training.data.folder import Pair, PairsFolder
from training.data.pixels import PixelStore
from training.data.recipes import training_side
from training.data.splits import merge_pairs, select
from training.data.unlabelled import read_unlabelled

Kind = Literal["pairs", "edges"]
Groups = dict[str, dict[str, tuple[Pair, ...]]]  # category -> photo -> its pairs


@dataclass(frozen=True)
class SourceConfig:
    """A source as a configuration file names it.

    Args:
        name: a label for logs.
        folder: dataset folder, or for "edges" any folder of photos; relative to where training is told the data lie.
        pairs: table in it; several joined by "+": of a later one only the photos that those before it lack.
        share: weight of this source among all, more than 0.
        kind: "pairs" of people's sketches, or "edges": edge drawings of the photos (edges.py) instead of sketches.
        by_category: a batch takes whole categories, so that its negatives look alike; else all photos are one group.
        split: "train" for the training side of a dataset known by its folder's name (recipes.py), or "all".
        sketches_per_photo: how many sketches of a photo a batch takes, where there are so many.

    Raises:
        ValueError: a field out of range; the message names it.
    """

    name: str
    folder: str
    pairs: str = "pairs.csv"
    share: float = 1.0
    kind: Kind = "pairs"
    by_category: bool = False
    split: str = "train"
    sketches_per_photo: int = 1

    def __post_init__(self) -> None:
        if not self.share > 0 or self.share == float("inf"):
            raise ValueError(f"source {self.name}: share is {self.share}, expected a number above 0; leave out an unused source")
        if self.kind not in get_args(Kind):
            raise ValueError(f"source {self.name}: kind is {self.kind!r}, expected one of {get_args(Kind)}")
        if self.sketches_per_photo < 1:
            raise ValueError(f"source {self.name}: sketches_per_photo is {self.sketches_per_photo}, expected 1 or more")


@dataclass(frozen=True)
class UnpairedFolder(PairsFolder):
    """Photos without sketches, in any folder: `root` itself holds them."""

    def photo_path(self, name: str) -> Path:
        return self.root / name


@dataclass(frozen=True)
class Source:
    """Pairs to draw batches from. Raises ValueError for fewer than two photos: a batch would have no negative."""

    name: str
    share: float
    store: PixelStore
    groups: Groups
    sketches_per_photo: int = 1

    def __post_init__(self) -> None:
        if sum(map(len, self.groups.values())) < 2:
            raise ValueError(f"source {self.name}: fewer than two photos with a sketch; take a larger split or another folder")

    def sample(self, rng: np.random.Generator, count: int) -> list[Pair]:
        """Up to `count` pairs of distinct sketches, `sketches_per_photo` of a photo where it has so many.

        Photos are of one category, or of several whole ones where the first has too few, so that negatives look alike.
        """
        pairs: list[Pair] = []
        for category in rng.permutation(sorted(self.groups)):
            photos = self.groups[str(category)]
            for photo in rng.permutation(sorted(photos)):
                options = photos[str(photo)]
                wanted = min(self.sketches_per_photo, count - len(pairs), len(options))
                pairs += [options[index] for index in rng.choice(len(options), wanted, replace=False)]
                if len(pairs) == count:
                    return pairs
        return pairs


def grouped(pairs: Iterable[Pair], *, by_category: bool) -> Groups:
    """Pairs by category (or all in one group) and photo."""
    groups: dict[str, dict[str, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for pair in pairs:
        groups[pair.category if by_category else ""][pair.photo].append(pair)
    return {name: {photo: tuple(some) for photo, some in photos.items()} for name, photos in groups.items()}


def open_sources(configs: Sequence[SourceConfig], data: Path, spec: InputSpec, cache: Path | None = None) -> tuple[Source, ...]:
    """Sources in the order of `configs`, folders relative to `data`; pixels are decoded when they are first used.

    Raises:
        PairsFormatError: a table that cannot be read, an unknown split, or no pairs in it.
        UnreadableImageError: a folder without photos.
        ValueError: no source, two of one name, or fewer than two photos in one.
    """
    names = [config.name for config in configs]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"sources {names}: expected at least one, each with a name of its own")
    stores: dict[Path, PixelStore] = {}
    sources = []
    for config in configs:
        root = data / config.folder
        store, pairs = _opened(config, root, spec, cache)
        store = stores.setdefault(root, store)  # photos of a folder are in memory once
        if not pairs:
            raise PairsFormatError(f"{root}: no pairs in split {config.split!r}; see its {config.pairs}")
        groups = grouped(pairs, by_category=config.by_category)
        sources.append(Source(config.name, config.share, store, groups, config.sketches_per_photo))
    return tuple(sources)


def _opened(config: SourceConfig, root: Path, spec: InputSpec, cache: Path | None) -> tuple[PixelStore, tuple[Pair, ...]]:
    first, *further = config.pairs.split("+")
    if config.kind == "edges" and not (root / first).is_file():
        photos = read_unlabelled(root / "photos" if (root / "photos").is_dir() else root, check=False)
        pairs = edge_pairs(dict.fromkeys(photos.names, ""))
        return PixelStore(UnpairedFolder(photos.root, pairs, dict.fromkeys(photos.names, "")), spec, cache), pairs
    folder = PairsFolder.read(root, first)
    side = training_side(PairsFolder.read(root) if (root / "pairs.csv").is_file() else folder, config.split)
    for table in further:
        folder = replace(folder, pairs=merge_pairs(folder.pairs, PairsFolder.read(root, table).pairs))
    store = PixelStore(folder, spec, cache)
    if config.kind == "edges":
        return store, edge_pairs({photo: folder.photo_category[photo] for photo in sorted(side.photos)})
    return store, select(folder.pairs, photos=side.photos, users=side.users)


def edge_pairs(photos: dict[str, str]) -> tuple[Pair, ...]:
    """For each photo (with its category) an edge drawing at every scale, which count as several sketches of it."""
    scales = range(len(SCALES))
    return tuple(Pair(edge_key(photo, scale), photo, category) for photo, category in photos.items() for scale in scales)
