"""Batches of episodes: what is drawn, and that it depends on the seed and the step alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from tests.training.episodic_toys import folder, source_of, stream, world
from training.config import ConfigError
from training.episodes import negative_mask
from training.episodic.config import EpisodeConfig, InnerConfig
from training.episodic.stream import EpisodeBatch, Places

pytestmark = pytest.mark.torch


def pairs_of(batch: EpisodeBatch, positions: torch.Tensor) -> list[int]:
    """Rows of the dataset's sketches at positions of a batch, told by their features."""
    table = np.concatenate([world()[2].tables[0].sketches[:, version] for version in range(2)])
    count = len(table) // 2
    return [int(np.abs(table - batch.sketches[at].numpy()).sum(1).argmin()) % count for at in positions]


def photos_of(batch: EpisodeBatch, positions: torch.Tensor) -> list[str]:
    table = world()[2].tables[0].photos[:, 0]
    rows = [int(np.abs(table - batch.photos[at].numpy()).sum(1).argmin()) for at in positions]
    return [batch.domain.dataset.photos[row] for row in rows]


def test_support_and_queries_share_no_photo_and_truth_is_their_photo() -> None:
    domain, _, source = world()
    batch = stream(domain, source).batch(0)
    pairs = domain.dataset.folder.pairs
    assert len(batch.episodes) == 3
    for places in batch.episodes:
        assert len(places.support) == 3
        assert len(places.query) == 6
        support, query = ([pairs[row].photo for row in pairs_of(batch, at)] for at in (places.support, places.query))
        assert not set(support) & set(query)
        assert photos_of(batch, places.photos) == support  # negatives "support": no further photos
        assert photos_of(batch, places.gallery[places.query_truth]) == query
        assert photos_of(batch, places.gallery[places.shown_truth]) == [pairs[row].photo for row in pairs_of(batch, places.shown)]
        users = {pairs[row].user for row in pairs_of(batch, torch.cat([places.support, places.query]))}
        assert len(users) == 1
        once = [photo not in support[:place] for place, photo in enumerate(support)]
        wanted = [[float(own != other and first) for other, first in zip(support, once, strict=True)] for own in support]
        assert places.mask.tolist() == wanted


def test_a_photo_that_several_sketches_share_is_one_negative() -> None:
    """As on a device, which holds it once: three sketches, two of photo 7, and a further photo."""
    mask = negative_mask(np.array([7, 3, 7]), np.array([7, 3, 7, 5]))
    assert mask.tolist() == [[0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1]]
    assert mask.dtype == np.float32


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    domain, _, source = world(k=(1, 3))
    first, again = stream(domain, source), stream(domain, source)
    ahead = list(again.stream(0, 5, workers=3))
    for step, batch in enumerate(ahead):
        other = first.batch(step)
        assert torch.equal(batch.sketches, other.sketches)
        assert torch.equal(batch.episodes[0].query, other.episodes[0].query)
    assert not torch.equal(first.batch(0).sketches[:4], first.batch(0, rank=1).sketches[:4])
    assert {len(first.batch(step).episodes[0].support) for step in range(12)} == {1, 3}


def test_drawn_negatives_are_neither_shown_nor_asked_for() -> None:
    domain, _, source = world()
    config = EpisodeConfig(tasks=2, queries=4)
    batch = stream(domain, source, config, InnerConfig(negatives="drawn")).batch(1)
    for places in batch.episodes:
        count = len(places.support)
        assert places.mask.sum(1).tolist() == [1.0] * count
        assert torch.equal(places.mask[:, count:], torch.eye(count))
        free = set(photos_of(batch, places.photos[count:]))
        assert not free & set(photos_of(batch, places.photos[:count]))
        assert not free & set(photos_of(batch, places.gallery[places.query_truth]))


def test_drawn_negatives_where_every_photo_is_shown_or_asked_for() -> None:
    data = folder("few", photos=5, categories=1)
    domain, _, _ = world("category", (2,), data)
    batch = stream(domain, source_of(domain.dataset), EpisodeConfig((2,), 1, 99), InnerConfig(negatives="drawn")).batch(0)
    places = batch.episodes[0]
    assert not (places.photos[2:] == places.photos[:2]).any()


def test_further_photos_and_a_smaller_gallery() -> None:
    domain, _, source = world()
    config = EpisodeConfig(tasks=2, queries=4, gallery=10)
    for places in stream(domain, source, config, InnerConfig(negatives="gallery", further=5), 2).batch(0).episodes:
        assert len(places.photos) == len(set(places.photos.tolist())) == 3 + 5
        assert len(places.gallery) == len(set(places.gallery.tolist())) == 10
        assert set(places.photos[:3].tolist()) <= set(places.gallery.tolist())
        assert places.negatives.shape == (4, 2)
        assert not (places.negatives == places.query_truth[:, None]).any()


def test_regularisers_see_each_sketch_with_its_photo() -> None:
    domain, _, source = world()
    made = stream(domain, source)
    batch = made.batch(2)
    joint, pairs = batch.joint, domain.dataset.folder.pairs
    assert len(joint.sketches) == 3 * (3 + 6)
    for sketch, photo, row, category in zip(
        pairs_of(batch, joint.sketches), photos_of(batch, joint.photos), joint.photo_index, joint.category, strict=True
    ):
        assert pairs[sketch].photo == photo == domain.dataset.photos[row]
        assert made.categories["person"][category] == pairs[sketch].category


def test_photos_are_augmented_only_where_asked() -> None:
    domain, _, source = world()
    clean = {row.tobytes() for row in source.tables[0].photos[:, 0]}
    found = Counter()
    for augment in ("sketches", "both", "none"):
        made = stream(domain, source, EpisodeConfig((3,), 4, 4, augment=augment))  # type: ignore[arg-type]
        for step in range(3):
            batch = made.batch(step)
            found[augment] += sum(row.numpy().tobytes() not in clean for row in batch.photos)
            if augment == "none":
                still = {row.tobytes() for row in source.tables[0].sketches[:, 0]}
                assert all(row.numpy().tobytes() in still for row in batch.sketches)
    assert found["sketches"] == found["none"] == 0
    assert found["both"] > 0


def test_augmentation_needs_versions() -> None:
    domain, _, _ = world()
    with pytest.raises(ConfigError, match="versions"):
        stream(domain, source_of(domain.dataset, versions=1))


def test_moving_a_batch_keeps_it() -> None:
    domain, _, source = world()
    batch = stream(domain, source).batch(0)
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))
    assert isinstance(moved.episodes[0], Places)
    assert moved.episodes[0].mask.device.type == moved.joint.category.device.type == moved.sketches.device.type == "meta"
