"""From a configuration and a supervised checkpoint to all that a run needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fgsbir_edge.preprocess import InputSpec
from training.checkpoint import load_model
from training.config import ConfigError
from training.episodic.config import MetaConfig, Setting
from training.episodic.domains import Dataset, Domain, TaskSet, open_domains
from training.episodic.model import Kind, MetaModel, Trunk
from training.episodic.outer import Objective
from training.episodic.regularisers import Regularisers
from training.episodic.sources import CachedSource, FeatureSource, PixelSource, cached_source
from training.episodic.stream import EpisodeStream
from training.episodic.validation import MetaValidator
from training.episodic.words import WordVectorsError
from training.models.encoder import EmbeddingHead, Encoder, initialise_by_pca

ROWS_PER_DOMAIN = 600  # of sketches and of photos for principal components, so that no dataset outweighs another


@dataclass(frozen=True, eq=False)
class Prepared:
    """A run before its first step; `meta` is the start checkpoint's."""

    objective: Objective
    stream: EpisodeStream
    validator: MetaValidator
    domains: list[Domain]
    validation: list[TaskSet]
    meta: dict[str, Any]

    @property
    def source(self) -> FeatureSource:
        return self.stream.source


def prepare(config: MetaConfig, data: Path, checkpoint: Path, cache: Path) -> Prepared:
    """Domains, features, network and validation of a run; what is random comes from its seed.

    `cache` is the folder of cached features, or of decoded images. Raises ConfigError and what reading datasets raises.
    """
    if not checkpoint.is_file():
        raise ConfigError(f"{checkpoint}: there is no such checkpoint; train one with training.supervised")
    torch.manual_seed(config.run.seed)
    encoder, head, meta = load_model(checkpoint)
    spec = InputSpec.from_manifest(meta["input"])
    domains, validation = open_domains(config.domains, data, config.episodes.k)
    datasets = {item.dataset.number: item.dataset for item in (*domains, *validation)}
    source, kind = open_source(config, list(datasets.values()), (encoder, head), spec, (domains, cache))
    encoder, head = sized(encoder, head, config.features.embedding)
    trunk = Trunk(encoder, kind, config.features.train, config.features.chunk)
    model = MetaModel(head.linear, config.inner, config.margin, gains=config.features.gains)
    stream = EpisodeStream(domains, source, config.episodes, config.inner, config.outer.negatives, config.run.seed)
    regularisers = build_regularisers(config, head.linear.in_features, stream.categories)
    objective = Objective(trunk, model, config.outer, regularisers, together=config.run.devices > 1)
    return Prepared(objective, stream, MetaValidator(validation, source, config.validation), domains, validation, meta)


def open_source(
    config: MetaConfig,
    datasets: Sequence[Dataset],
    network: tuple[Encoder, EmbeddingHead],
    spec: InputSpec,
    place: tuple[Sequence[Domain], Path],
) -> tuple[FeatureSource, Kind]:
    """The source that `config` names and what it gives; sets projection and head to principal components where asked to."""
    features, (encoder, head), (domains, cache) = config.features, network, place
    if features.source == "pixels":
        return PixelSource(spec, features.augmentation, cache), "pixels"
    pooled = cached_source(datasets, encoder, spec, cache, features.versions)
    if features.projection == "pca":
        initialise_by_pca(encoder, head, training_rows(pooled, domains), features.whitening)
    if features.train == "projection":
        return pooled, "pooled"
    return pooled.projected(encoder), "projected"


def build_regularisers(config: MetaConfig, width: int, categories: dict[Setting, list[str]]) -> dict[str, Regularisers]:
    """For each setting that trains, over features [n,`width`]; empty without the table. Raises ConfigError, WordVectorsError."""
    if config.regularisers is None:
        return {}
    try:
        return {setting: Regularisers(width, names, setting, config.regularisers) for setting, names in categories.items()}
    except WordVectorsError:
        raise
    except ValueError as error:
        raise ConfigError(f"regularisers: {error}") from None


def training_rows(source: CachedSource, domains: Sequence[Domain]) -> torch.Tensor:
    """Pooled features float32 [N,R] of clean training sketches and photos, equally many of every domain."""
    rng, rows = np.random.default_rng(0), []
    for domain in domains:
        tables = source.tables[domain.dataset.number]
        for table, used in (
            (tables.sketches, [task.sketches for task in domain.tasks]),
            (tables.photos, [task.gallery for task in domain.tasks]),
        ):
            indices = np.unique(np.concatenate(used))
            rows.append(table[rng.permutation(indices)[:ROWS_PER_DOMAIN], 0])
    return torch.from_numpy(np.concatenate(rows)).float()


@torch.no_grad()
def sized(encoder: Encoder, head: EmbeddingHead, width: int) -> tuple[Encoder, EmbeddingHead]:
    """The network with a head of another width D; 0 or the same: as it is.

    Fewer outputs are the leading principal directions of the head's matrix, which keep distances best. More are added as random
    rows of the length of its least one.

    Raises:
        ConfigError: this network has no head.
    """
    old = head.linear
    if width in (0, old.out_features):
        return encoder, head
    if encoder.config.head == "identity":
        raise ConfigError("features.embedding cannot be set: this checkpoint's head is the identity")
    new = EmbeddingHead(old.in_features, width)
    left, singular, _ = torch.linalg.svd(old.weight, full_matrices=False)
    count = min(width, len(singular))
    new.linear.weight.zero_()
    new.linear.bias.zero_()
    new.linear.weight[:count] = left[:, :count].T @ old.weight
    new.linear.bias[:count] = left[:, :count].T @ old.bias
    if width > count:
        rows = torch.randn(width - count, old.in_features)
        new.linear.weight[count:] = F.normalize(rows, dim=1) * singular[-1]
    encoder.config = replace(encoder.config, embedding=width)
    return encoder, new.eval()
