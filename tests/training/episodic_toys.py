"""A world for meta-training without images: people and categories over random features, with a device's meaning of each row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.data.folder import Pair, PairsFolder
from training.episodic.config import DomainConfig, EpisodeConfig, InnerConfig, MarginConfig, OuterConfig, ValidationConfig
from training.episodic.domains import Dataset, Domain, TaskSet, _tasks, parts
from training.episodic.model import MetaModel, Trunk
from training.episodic.outer import Objective
from training.episodic.sources import CachedSource, Rows
from training.episodic.stream import EpisodeStream
from training.models.config import EncoderConfig
from training.models.encoder import Encoder, build_encoder

WIDTH, EMBEDDING = 12, 6


def folder(name: str, photos: int = 8, categories: int = 4, people: int = 5, drawings: int = 1) -> PairsFolder:
    """`photos` of each category, drawn so many times by each person."""
    names = [f"{kind}/{number}.png" for kind in map(str, range(categories)) for number in range(photos)]
    pairs = [
        Pair(f"{user}/{turn}/{photo}", photo, photo.split("/")[0], user)
        for user in (f"u{number}" for number in range(people))
        for photo in names
        for turn in range(drawings)
    ]
    return PairsFolder(Path("nowhere") / name, tuple(pairs), {photo: photo.split("/")[0] for photo in names})


def source_of(dataset: Dataset, versions: int = 2, seed: int = 0) -> CachedSource:
    """Projected rows: a photo's, and its sketches' near it, each person's moved by a direction of their own."""
    rng = np.random.default_rng(seed)
    photos = rng.normal(size=(len(dataset.photos), 1, WIDTH))
    people = {user: rng.normal(size=WIDTH) for user in dataset.folder.users}
    of = dataset.rows[1]
    sketches = np.stack([photos[of[pair.photo]] + 0.7 * people[pair.user] for pair in dataset.folder.pairs])
    noise = [rng.normal(scale=0.3, size=(len(rows), versions, WIDTH)) for rows in (sketches, photos)]
    return CachedSource(
        {dataset.number: Rows((sketches + noise[0]).astype(np.float32), (photos + noise[1]).astype(np.float32))}, "projected"
    )


def world(
    setting: str = "person", k: tuple[int, ...] = (3,), data: PairsFolder | None = None
) -> tuple[Domain, list[TaskSet], CachedSource]:
    """A domain, what validates, and the source of both."""
    dataset = Dataset(0, data or folder("toys"), "pairs.csv")
    config = DomainConfig("toys", "toys", setting)  # type: ignore[arg-type]
    train, held = parts(dataset.folder, config)
    assert train is not None
    sets = [TaskSet(part.name, config.setting, dataset, _tasks(part, config.setting, dataset)) for part in held]
    domain = Domain("toys", config.setting, dataset, _tasks(train, config.setting, dataset), 1.0, k)
    return domain, sets, source_of(dataset)


def stream(
    domain: Domain,
    source: CachedSource,
    config: EpisodeConfig | None = None,
    inner: InnerConfig | None = None,
    negatives: int = 0,
) -> EpisodeStream:
    return EpisodeStream([domain], source, config or EpisodeConfig(tasks=3, queries=6), inner or InnerConfig(), negatives, 0)


def tiny_encoder(size: int = 32) -> Encoder:
    return build_encoder(EncoderConfig(size, WIDTH, EMBEDDING, grids=(2, 1)), seed=0).eval()


def objective(
    inner: InnerConfig | None = None, margin: MarginConfig | None = None, outer: OuterConfig | None = None
) -> Objective:
    """Over projected features; the head is random, always the same."""
    torch.manual_seed(3)
    head = nn.Linear(WIDTH, EMBEDDING)
    model = MetaModel(head, inner or InnerConfig(), margin or MarginConfig())
    return Objective(Trunk(tiny_encoder(), "projected"), model, outer or OuterConfig())


VALIDATION = ValidationConfig(k=(3,), draws=2)
