"""Sketches that a model never saw, and the photos that they are searched among, as embeddings.

Queries are those of the recipes' validation sets (``training.data.recipes``), or, for the last look, of the people and categories
that splits keep for reports. Photos are all of the folder's, those of the queries' categories first, at most ``PHOTOS``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import PairsFormatError
from fgsbir_edge.files import write_atomic
from fgsbir_edge.head import Head, digest_of
from fgsbir_edge.variant import ENCODER, SKETCH
from training.data.folder import Pair, PairsFolder
from training.data.recipes import training_side, validation_sets
from training.data.splits import ordered, select, split_categories, split_drawings
from training.data.unlabelled import read_unlabelled
from training.evaluate_model import open_model, open_sketches
from training.evaluation import Encode, Reading, encode_rows, photo_encode, photo_input, sketch_input

PHOTOS = 1350  # of one folder with sketches
FURTHER = 400  # of one without
PEOPLE = "drawings32"  # its units are people; those of all others are photos


@dataclass(frozen=True, eq=False)
class Pool:
    """Photos of several folders by one model: names "folder/photo", categories, features [P, C] and unit embeddings [P, D]."""

    names: tuple[str, ...]
    kinds: np.ndarray  # [P] str
    features: Float32
    embeddings: Float32


@dataclass(frozen=True, eq=False)
class Domain:
    """Queries of one kind: features [Q, C] and the row of each one's photo in ``pool`` [Q].

    ``units`` [Q] str are what intervals resample and what is never on both sides of a fit: people where there are people, else
    photos.
    ``tasks`` [Q] str are what an adapter is for: people, else categories.
    """

    name: str
    head: Head
    sketches: Float32
    truth: np.ndarray
    units: np.ndarray
    tasks: np.ndarray
    pool: Pool


@dataclass(frozen=True)
class Queries:
    """Pairs of a folder that a model has not trained on. ``domain``: the category where there is one, else the folder."""

    folder: PairsFolder
    pairs: tuple[Pair, ...]
    domain: str


def held_out(root: Path) -> Queries:
    """The validation pairs of a dataset folder. Raises PairsFormatError."""
    sets = validation_sets(root.parent, [root.name])
    if not sets:
        raise PairsFormatError(f"{root}: no pairs.csv in it; give a dataset folder")
    return Queries(sets[0].folder, sets[0].pairs, _domain(sets[0].folder))


def last_look(root: Path) -> Queries:
    """The pairs of a folder that its split keeps for reports. Raises PairsFormatError where it keeps none."""
    folder = PairsFolder.read(root)
    if root.name == "drawings32":
        return Queries(folder, select(folder.pairs, users=split_drawings(folder).test), _domain(folder))
    if root.name == "sketchy":
        return Queries(folder, select(folder.pairs, categories=split_categories(folder).test), _domain(folder))
    raise PairsFormatError(f"{root}: its split keeps nothing for reports; there are drawings32 and sketchy")


def _domain(folder: PairsFolder) -> str:
    kinds = {pair.category for pair in folder.pairs}
    return next(iter(kinds)) if len(kinds) == 1 else folder.root.name


class Coder:
    """A model that encodes; ``cache`` keeps its features between runs, as float16, as a gallery does.

    Raises what ``open_model`` raises.
    """

    def __init__(self, model: Path, cache: Path | None = None, threads: int = 1) -> None:
        self.cache, self.threads = cache, threads
        self._encode, self.head, self._spec = open_model(model, threads)
        self._drawn = open_sketches(model, threads, (self._encode, self._spec))
        files = [model] if model.is_file() else [model / name for name in (ENCODER, SKETCH) if (model / name).is_file()]
        weights = [file.read_bytes() for file in files]
        self._key = digest_of(weights[0], repr(self._spec).encode())[:16]
        self._drawn_key = digest_of(weights[-1], repr(self._drawn[1]).encode())[:16]

    def sketches(self, folder: PairsFolder, keys: Sequence[str]) -> Float32:
        """Features [n, C]."""
        encode, spec = self._drawn
        return self._rows(
            f"{folder.root.name}-sketches-{self._drawn_key}", keys, partial(sketch_input, folder, spec=spec), encode
        )

    def photos(self, folder: PairsFolder, names: Sequence[str]) -> Float32:
        """Features [n, C]."""
        load = partial(photo_input, folder, spec=self._spec)
        return self._rows(f"{folder.root.name}-photos-{self._key}", names, load, photo_encode(self._encode, self._spec))

    def _rows(self, what: str, names: Sequence[str], load: Callable[[str], np.ndarray], encode: Encode) -> Float32:
        known: dict[str, np.ndarray] = {}
        path = None if self.cache is None else self.cache / f"{what}.npz"
        if path is not None and path.is_file():
            with np.load(path, allow_pickle=False) as arrays:
                known = dict(zip(arrays["names"].tolist(), arrays["rows"], strict=True))
        if missing := [name for name in dict.fromkeys(names) if name not in known]:
            rows = encode_rows(missing, load, encode, Reading(threads=self.threads, progress=what)).rows
            known |= dict(zip(missing, rows.astype(np.float16), strict=True))
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                buffer = io.BytesIO()
                np.savez(buffer, names=np.array(list(known)), rows=np.stack(list(known.values())))
                write_atomic(path, buffer.getvalue())
        return np.stack([known[name] for name in names]).astype(np.float32)


class Plain(PairsFolder):
    """Photos that lie in the folder itself, without a table."""

    def photo_path(self, name: str) -> Path:
        return self.root / name


def chosen_photos(queries: Queries) -> list[str]:
    """At most PHOTOS of a folder: those asked for, those of their categories, those that trained nothing, the rest; by hash."""
    folder = queries.folder
    trained = training_side(folder, "train").photos
    asked = {pair.photo for pair in queries.pairs}
    touched = {pair.category for pair in queries.pairs}
    order = ordered(folder.photo_category, "confidence")
    order.sort(key=lambda name: (name not in asked, folder.photo_category[name] not in touched, name in trained))
    return order[: max(PHOTOS, len(asked))]


def build(coder: Coder, queries: Sequence[Queries], extra: Sequence[tuple[Path, str]] = ()) -> list[Domain]:
    """Domains over one pool: all photos of the queries' folders, and of ``extra`` folders (path, category) without sketches.

    Folders of one domain (``Queries.domain``) become one.
    """
    names: list[str] = []
    kinds: list[str] = []
    rows: list[Float32] = []
    for one in queries:
        chosen = chosen_photos(one)
        names += [f"{one.folder.root.name}/{name}" for name in chosen]
        kinds += [one.folder.photo_category[name] for name in chosen]
        rows.append(coder.photos(one.folder, chosen))
    for root, kind in extra:
        chosen = ordered(read_unlabelled(root, check=False).names, "confidence")[:FURTHER]
        names += [f"{root.name}/{name}" for name in chosen]
        kinds += [kind] * len(chosen)
        rows.append(coder.photos(Plain(root, (), {}), chosen))
    features = np.concatenate(rows)
    pool = Pool(tuple(names), np.array(kinds), features, coder.head.embed(features))
    place = {name: row for row, name in enumerate(names)}
    domains = []
    for domain in dict.fromkeys(one.domain for one in queries):
        parts = [one for one in queries if one.domain == domain]
        sketches = np.concatenate([coder.sketches(one.folder, [pair.sketch for pair in one.pairs]) for one in parts])
        labelled = [(one.folder.root.name, pair) for one in parts for pair in one.pairs]
        truth = np.array([place[f"{root}/{pair.photo}"] for root, pair in labelled])
        units = np.array([pair.user if root == PEOPLE else f"{root}/{pair.photo}" for root, pair in labelled])
        tasks = np.array([pair.user if root == PEOPLE else pair.category for root, pair in labelled])
        domains.append(Domain(domain, coder.head, sketches, truth, units, tasks, pool))
    return domains
