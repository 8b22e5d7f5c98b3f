"""What a joint run draws its batches from: labelled pairs, photos without sketches beside them, and people's drawings as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.preprocess import InputSpec
from training.config import ConfigError
from training.data.folder import Pair, PairsFolder
from training.data.pixels import PixelStore
from training.data.recipes import training_side
from training.data.sources import Source, SourceConfig, grouped
from training.data.unlabelled import read_unlabelled
from training.generation.sequences import SequenceSet
from training.semi.config import UnlabelledConfig
from training.semi.fractions import TrainingPairs, training_pairs

Rows = Callable[[PairsFolder, Sequence[Pair]], SequenceSet]  # pairs of a folder as the generator's rows


@dataclass(frozen=True)
class PhotoPool(PairsFolder):
    """Photos of several folders under names of their own. Sketches come from elsewhere: there are none in it."""

    paths: dict[str, Path]

    def photo_path(self, name: str) -> Path:
        return self.paths[name]

    def extended(self, photos: Mapping[str, tuple[Path, str]]) -> PhotoPool:
        """With further photos, each a path and a category."""
        categories = {name: category for name, (_, category) in photos.items()}
        paths = {name: path for name, (path, _) in photos.items()}
        return PhotoPool(self.root, (), {**self.photo_category, **categories}, {**self.paths, **paths})


@dataclass(frozen=True)
class JointSource:
    """One source of a joint run.

    Args:
        labelled: pairs for the retrieval network, as in supervised training.
        real: people's sketches of the labelled photos as rows; photos by their names in the pool.
        unlabelled: category -> names in the pool of photos without sketches; one category "" unless the source keeps them apart.
    """

    labelled: Source
    real: SequenceSet
    unlabelled: dict[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        return self.labelled.name

    def draw_unlabelled(self, rng: np.random.Generator, count: int) -> list[str]:
        """Up to `count` distinct photos, of one category or of several whole ones where the first has too few."""
        names: list[str] = []
        for category in rng.permutation(sorted(self.unlabelled)):
            photos = self.unlabelled[str(category)]
            names += [photos[index] for index in rng.permutation(len(photos))[: count - len(names)]]
            if len(names) == count:
                break
        return names

    def draw_real(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Numbers in `real` of up to `count` sketches of distinct photos."""
        chosen: dict[str, int] = {}
        for number in rng.permutation(len(self.real)):
            chosen.setdefault(self.real.pairs[number].photo, int(number))
            if len(chosen) == count:
                break
        return np.array(list(chosen.values()), dtype=np.int64)


@dataclass(frozen=True)
class Pool:
    """All sources, and every photo of theirs, labelled or not, in one folder."""

    sources: tuple[JointSource, ...]
    photos: PhotoPool

    def pick(self, rng: np.random.Generator) -> JointSource:
        """A source, by the shares."""
        shares = np.array([source.labelled.share for source in self.sources])
        return self.sources[int(rng.choice(len(self.sources), p=shares / shares.sum()))]

    def told(self) -> str:
        """One line for the log."""
        parts = []
        for source in self.sources:
            photos = sum(map(len, source.labelled.groups.values()))
            sketches = sum(len(pairs) for group in source.labelled.groups.values() for pairs in group.values())
            free = sum(map(len, source.unlabelled.values()))
            parts.append(
                f"{source.name}: {photos} labelled photos with {sketches} sketches, {len(source.real)} of them as rows "
                f"({len(source.real.too_long)} too long); {free} photos without"
            )
        return "; ".join(parts)

    def pairs(self, names: Sequence[str]) -> list[Pair]:
        """Pairs of photos of the pool with the drawings that will be made of them."""
        return [Pair(name, name, self.photos.photo_category[name]) for name in names]


def open_pool(
    sources: Sequence[SourceConfig], config: UnlabelledConfig, data: Path, spec: InputSpec, rows: Rows, cache: Path | None = None
) -> Pool:
    """Read the tables, take labels away, list the photos; pixels are decoded when they are first used.

    `rows` makes the generator's rows of people's sketches.

    Raises:
        ConfigError: no source, two of one name, a source that is not of pairs, folders for an unknown source, no unlabelled
            photos, or too few sketches short enough for the generator.
        What reading a table or a folder raises.
    """
    names = [source.name for source in sources]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"sources {names}: expected at least one, each with a name of its own")
    if unknown := sorted(set(config.folders) - set(names)):
        raise ConfigError(f"unlabelled.folders names the source {unknown[0]!r}; there are {', '.join(names)}")
    made, photos = [], PhotoPool(data, (), {}, {})
    for source in sources:
        whole = training_pairs(source, data)
        part = whole.labelled(config.fraction)
        photos = photos.extended(pool_photos(whole.folder, sorted(whole.photos)))
        drawn = {pair.photo for pair in part.pairs}
        free = pool_photos(whole.folder, sorted(whole.photos - drawn))
        kinds = set(whole.folder.photo_category.values())
        for folder in config.folders.get(source.name, ()):
            free |= {f"{folder}/{name}": entry for name, entry in _photos(data / folder, kinds).items()}
        if len(free) < 2:
            raise ConfigError(
                f"source {source.name}: {len(free)} photos without sketches; lower unlabelled.fraction (now {config.fraction:g}) "
                "or name folders of photos in unlabelled.folders"
            )
        photos = photos.extended(free)
        groups: dict[str, list[str]] = {}
        for name, (_, category) in free.items():
            groups.setdefault(category if source.by_category else "", []).append(name)
        unlabelled = {category: tuple(some) for category, some in groups.items()}
        made.append(JointSource(_labelled(source, part, spec, cache), _real(source, part, rows), unlabelled))
    return Pool(tuple(made), photos)


def pool_name(folder: PairsFolder, photo: str) -> str:
    """What a photo of a dataset is called in a pool."""
    return f"{folder.root.name}/{photo}"


def pool_photos(folder: PairsFolder, names: Iterable[str]) -> dict[str, tuple[Path, str]]:
    """Paths and categories of photos of a dataset, by their names in a pool."""
    return {pool_name(folder, name): (folder.photo_path(name), folder.photo_category[name]) for name in names}


def in_pool(rows: SequenceSet, folder: PairsFolder) -> SequenceSet:
    """The same rows, their photos by their names in a pool."""
    return replace(rows, pairs=tuple(replace(pair, photo=pool_name(folder, pair.photo)) for pair in rows.pairs))


def _labelled(source: SourceConfig, part: TrainingPairs, spec: InputSpec, cache: Path | None) -> Source:
    groups = grouped(part.pairs, by_category=source.by_category)
    return Source(source.name, source.share, PixelStore(part.folder, spec, cache), groups, source.sketches_per_photo)


def _real(source: SourceConfig, part: TrainingPairs, rows: Rows) -> SequenceSet:
    found = rows(part.folder, part.pairs)
    if len({pair.photo for pair in found.pairs}) < 2:
        raise ConfigError(
            f"source {source.name}: {len(found)} of {len(part.pairs)} labelled sketches are short enough for the generator; "
            "raise the label fraction, or the epsilon and max_points that the generator was trained with"
        )
    return in_pool(found, part.folder)


def _photos(root: Path, kinds: set[str]) -> dict[str, tuple[Path, str]]:
    """Photos of a folder that may be seen in training, by name, with categories: the only one of `kinds` if they have none."""
    if (root / "pairs.csv").is_file():
        folder = PairsFolder.read(root)
        return {
            name: (folder.photo_path(name), folder.photo_category[name]) for name in sorted(training_side(folder, "train").photos)
        }
    found = read_unlabelled(root / "photos" if (root / "photos").is_dir() else root, check=False)
    return {name: (found.photo_path(name), next(iter(kinds)) if len(kinds) == 1 else "") for name in found.names}
