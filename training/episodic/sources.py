"""Where the outer loop's features come from: pooled features computed once, or pixels that go through the encoder in every step.

A source gives inputs of the trunk (model.py), which makes differentiable features of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from fgsbir_edge.encoder.shifts import encode_shifted
from fgsbir_edge.preprocess import InputSpec
from training.data.augment import Augmentation
from training.data.folder import Pair
from training.data.pixels import PixelStore
from training.episodic.domains import Dataset
from training.episodic.model import Kind
from training.features import VERSIONS, FeatureTable, cached, compute, pool_digest
from training.models.encoder import Encoder

Role = Literal["sketch", "photo"]
Encode = Callable[[Tensor], Tensor]  # inputs [n,*] -> rows [n,C]
STILL = Augmentation.none()
BATCH = 32  # images encoded at a time where no gradient is needed


@dataclass(frozen=True, eq=False)
class Ask:
    """Rows of a dataset's sketches or photos, int64 [n], and the version of each [n]: 0 is what a device sees."""

    rows: np.ndarray
    versions: np.ndarray


class FeatureSource(Protocol):
    """Inputs of the trunk, by dataset and row."""

    @property
    def kind(self) -> Kind: ...

    @property
    def versions(self) -> int:
        """How many versions of an image may be asked for."""
        ...

    def inputs(self, dataset: Dataset, role: Role, ask: Ask, rng: np.random.Generator) -> Tensor:
        """float32 [n,*]. `rng` draws what augments images; two equal entries of `ask` are drawn apart."""
        ...

    def still(self, dataset: Dataset, role: Role, rows: np.ndarray, encode: Encode) -> Tensor:
        """Rows [n,C] of what a device sees of these images, `encode` applied as it does: to photos, over shifted copies where the
        input's description says so. Without gradient."""
        ...


@dataclass(frozen=True, eq=False)
class Rows:
    """Tables of a dataset: sketches [S,V,*] and photos [P,V,*]."""

    sketches: np.ndarray
    photos: np.ndarray

    def of(self, role: Role) -> np.ndarray:
        return self.sketches if role == "sketch" else self.photos


@dataclass(frozen=True, eq=False)
class CachedSource:
    """Rows of tables, by the number of the dataset: pooled, or projected already."""

    tables: dict[int, Rows]
    kind: Kind = "pooled"

    @property
    def versions(self) -> int:
        return min(int(table.sketches.shape[1]) for table in self.tables.values())

    def inputs(self, dataset: Dataset, role: Role, ask: Ask, rng: np.random.Generator) -> Tensor:
        return torch.from_numpy(self.tables[dataset.number].of(role)[ask.rows, ask.versions].astype(np.float32))

    @torch.no_grad()
    def still(self, dataset: Dataset, role: Role, rows: np.ndarray, encode: Encode) -> Tensor:
        return encode(torch.from_numpy(self.tables[dataset.number].of(role)[rows, 0].astype(np.float32)))

    @torch.no_grad()
    def projected(self, encoder: Encoder) -> CachedSource:
        """The same taken through a projection that does not train."""

        def project(table: np.ndarray) -> np.ndarray:
            versions = (torch.from_numpy(table[:, version]).float() for version in range(table.shape[1]))
            return np.stack([encoder.projection(rows).numpy() for rows in versions], axis=1)

        tables = {number: Rows(project(item.sketches), project(item.photos)) for number, item in self.tables.items()}
        return CachedSource(tables, "projected")


def cached_source(
    datasets: Iterable[Dataset], encoder: Encoder, spec: InputSpec, folder: Path, versions: int = VERSIONS
) -> CachedSource:
    """Pooled features of whole datasets from `folder`, computed there first where this network's are missing."""
    tables = {}
    for dataset in datasets:
        table = _table(dataset, PixelStore(dataset.folder, spec), encoder, folder, versions)
        tables[dataset.number] = Rows(table.sketches, table.photos)
    return CachedSource(tables)


def _table(dataset: Dataset, store: PixelStore, encoder: Encoder, folder: Path, versions: int) -> FeatureTable:
    if dataset.table == "pairs.csv" and versions == VERSIONS:
        table = cached(store, encoder, folder)
        if _fits(table, dataset):
            return table
    content = hashlib.sha256(repr((dataset.keys, dataset.photos, versions)).encode()).hexdigest()[:16]
    path = folder / f"{dataset.folder.root.name}-{store.spec.size}-{pool_digest(encoder)}-{content}.npz"
    if not path.is_file():
        compute(store, encoder, dataset.folder.pairs, dataset.photos, versions=versions, seed=0).save(path)
    return FeatureTable.load(path)


def _fits(table: FeatureTable, dataset: Dataset) -> bool:
    return table.sketch_keys == dataset.keys and table.photo_names == dataset.photos


@dataclass(frozen=True, eq=False)
class PixelSource:
    """Images as a device sees them (version 0) or augmented anew (any other version); decoded once and kept in memory."""

    spec: InputSpec
    augmentation: Augmentation = field(default_factory=Augmentation)
    cache: Path | None = None
    stores: dict[int, PixelStore] = field(default_factory=dict, repr=False)
    kind: Kind = "pixels"
    versions: int = 2

    def inputs(self, dataset: Dataset, role: Role, ask: Ask, rng: np.random.Generator) -> Tensor:
        pixels = torch.empty(len(ask.rows), 3, self.spec.size, self.spec.size).contiguous(memory_format=torch.channels_last)
        for changed, options in ((ask.versions > 0, self.augmentation), (ask.versions == 0, STILL)):
            at = np.flatnonzero(changed)
            if len(at):
                pixels[torch.from_numpy(at)] = self._batch(dataset, role, ask.rows[at], rng, options)
        return pixels

    def _batch(self, dataset: Dataset, role: Role, rows: np.ndarray, rng: np.random.Generator, options: Augmentation) -> Tensor:
        store = self.stores.setdefault(dataset.number, PixelStore(dataset.folder, self.spec, self.cache))
        if role == "sketch":
            return store.sketch_batch([dataset.folder.pairs[row] for row in rows], rng, None, options)
        return store.photo_batch([Pair("", dataset.photos[row]) for row in rows], rng, None, options)

    @torch.no_grad()
    def still(self, dataset: Dataset, role: Role, rows: np.ndarray, encode: Encode) -> Tensor:
        shift = self.spec.photo_shift if role == "photo" else 0

        def array(pixels: np.ndarray) -> np.ndarray:
            result: np.ndarray = encode(torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)).cpu().numpy()
            return result

        unused = np.random.default_rng(0)
        parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        found = [encode_shifted(array, self._batch(dataset, role, part, unused, STILL).numpy(), shift) for part in parts]
        return torch.from_numpy(np.concatenate(found))
