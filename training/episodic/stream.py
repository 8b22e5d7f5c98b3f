"""Outer steps as batches of episodes: each a pure function of the seed and the step."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.config import ConfigError
from training.episodes import Episode, draw, negative_mask
from training.episodic.config import EpisodeConfig, InnerConfig
from training.episodic.domains import Dataset, Domain
from training.episodic.sources import Ask, FeatureSource

_STREAM, _PIXELS = 2, 3  # keep these draws apart from others of the same seed


@dataclass(frozen=True, eq=False)
class Places:
    """An episode as positions in its batch's rows, int64.

    support    [k] sketches
    photos     [n] photos of the inner loop: those of the support's sketches, then further negatives
    mask       float32 [k,n], 1 where a photo is a negative of a sketch
    gallery    [N] photos that queries are searched among
    query      [Q] sketches, and `query_truth` [Q] where in `gallery` their photos are
    shown      [R] further sketches of the support's photos, `shown_truth` [R] likewise
    negatives  [Q,c] positions in `gallery` that the outer triplets take; c = 0: all others
    """

    support: Tensor
    photos: Tensor
    mask: Tensor
    gallery: Tensor
    query: Tensor
    query_truth: Tensor
    shown: Tensor
    shown_truth: Tensor
    negatives: Tensor


@dataclass(frozen=True, eq=False)
class Joint:
    """The pairs of D_tr and D_val of all episodes, joined (METHODS C.2): what the regularisers see, int64 [n].

    sketches, photos   positions in the batch's rows; photo i is that of sketch i
    photo_index        row of the photo in its dataset
    category           position in EpisodeStream.categories of the batch's setting
    """

    sketches: Tensor
    photos: Tensor
    photo_index: Tensor
    category: Tensor


class EpisodeBatch:
    """Episodes of one domain; `sketches` and `photos` are inputs of the trunk [n,*], each image once.

    No dataclass: Fabric would look into it to convert what it holds, and refuse to change a frozen one.
    """

    def __init__(self, domain: Domain, sketches: Tensor, photos: Tensor, episodes: tuple[Places, ...], joint: Joint) -> None:
        self.domain, self.sketches, self.photos, self.episodes, self.joint = domain, sketches, photos, episodes, joint

    def to(self, device: torch.device) -> EpisodeBatch:
        """The batch with its tensors on a device."""
        if device.type == "cpu":
            return self
        episodes = tuple(_moved(places, device) for places in self.episodes)
        sketches, photos = (side.to(device, non_blocking=True) for side in (self.sketches, self.photos))
        return EpisodeBatch(self.domain, sketches, photos, episodes, _moved(self.joint, device))


def _moved(value: Any, device: torch.device) -> Any:
    return replace(value, **{item.name: getattr(value, item.name).to(device) for item in fields(value)})


class _Rows:
    """The images of a batch: each (row, version) once."""

    def __init__(self) -> None:
        self.place: dict[tuple[int, int], int] = {}

    def take(self, rows: np.ndarray, version: int) -> np.ndarray:
        """Positions [n] of rows [n]."""
        return np.array([self.place.setdefault((int(row), version), len(self.place)) for row in rows], dtype=np.int64)

    def ask(self) -> Ask:
        wanted = np.array(list(self.place), dtype=np.int64).reshape(-1, 2)
        return Ask(wanted[:, 0], wanted[:, 1])


@dataclass(frozen=True, eq=False)
class _Draws:
    """What is drawn for an episode beside itself: positions in its task's gallery, and versions of its images."""

    episode: Episode
    further: np.ndarray  # [n] photos; or, "drawn", one for each sketch
    support: int
    query: int
    shown: tuple[np.ndarray, int]
    photo: int


class EpisodeStream:
    """An endless sequence of batches; domains take turns at random, in proportion to their shares.

    Args:
        source: where inputs come from.
        inner: says which photos are negatives of the inner loop.
        negatives: photos drawn for each query as negatives of the outer triplets; 0: none are drawn.

    Raises:
        ConfigError: augmented versions asked for that the source has not.
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        source: FeatureSource,
        config: EpisodeConfig,
        inner: InnerConfig,
        negatives: int,
        seed: int,
    ) -> None:
        if config.augment != "none" and source.versions < 2:
            raise ConfigError('episodes.augment needs features.versions of 2 or more, or write "none"')
        self.domains, self.source, self.config, self.inner = tuple(domains), source, config, inner
        self.outer_negatives, self.seed = negatives, seed
        self.versions = 1 if config.augment == "none" else source.versions
        shares = np.array([domain.share for domain in self.domains])
        self.shares = shares / shares.sum()
        self.categories = {
            setting: sorted({name for domain in self.domains if domain.setting == setting for name in _categories(domain)})
            for setting in dict.fromkeys(domain.setting for domain in self.domains)
        }

    def batch(self, step: int, rank: int = 0) -> EpisodeBatch:
        """The batch of a step, 0 or more, on the `rank`-th of several devices. Raises what reading images raises."""
        seeds = [self.seed, _STREAM, step] if rank == 0 else [self.seed, _STREAM, step, rank]
        rng = np.random.default_rng(seeds)
        config = self.config
        domain = self.domains[int(rng.choice(len(self.domains), p=self.shares))]
        picks = rng.integers(len(domain.tasks), size=config.tasks)
        k = domain.k[0] if len(domain.k) == 1 else int(rng.choice(domain.k))
        episodes = [draw(domain.tasks[int(pick)], k, rng, queries=config.queries) for pick in picks]
        return self._loaded(domain, self._draws(episodes, rng), rng, np.random.default_rng([*seeds, _PIXELS]))

    def stream(self, first: int, last: int, workers: int = 0, rank: int = 0) -> Generator[EpisodeBatch, None, None]:
        """The batches of steps `first` to `last` - 1 in order, equal for any number of `workers`, threads that work ahead."""
        if workers == 0:
            for step in range(first, last):
                yield self.batch(step, rank)
            return
        with ThreadPoolExecutor(workers) as pool:
            ahead = {step: pool.submit(self.batch, step, rank) for step in range(first, min(first + workers, last))}
            try:
                for step in range(first, last):
                    made = ahead.pop(step).result()
                    if step + workers < last:
                        ahead[step + workers] = pool.submit(self.batch, step + workers, rank)
                    yield made
            finally:
                for future in ahead.values():
                    future.cancel()

    def _draws(self, episodes: list[Episode], rng: np.random.Generator) -> list[_Draws]:
        versions = self.versions
        support = int(rng.integers(versions))
        further = [self._further(episode, rng) for episode in episodes]
        if self.inner.negatives == "gallery":  # episodes are stacked: as many in each
            count = min(self.inner.further, *map(len, further))
            further = [photos[:count] for photos in further]
        found = []
        for episode, negatives in zip(episodes, further, strict=True):
            query = int(rng.integers(versions))
            if len(episode.shown):
                shown = episode.shown, int(rng.integers(versions))
            elif versions > 1:  # drawn once: the augmented drawing stands in
                shown = episode.support, int(rng.integers(1, versions))
            else:
                shown = episode.shown, 0
            found.append(_Draws(episode, negatives, support, query, shown, 0))
        if self.config.augment != "both":
            return found
        return [replace(item, photo=int(rng.integers(versions))) for item in found]

    def _further(self, episode: Episode, rng: np.random.Generator) -> np.ndarray:
        """Positions in the task's gallery of photos beside the support's."""
        task, own = episode.task, episode.task.truth[episode.support]
        others = rng.permutation(np.setdiff1d(np.arange(len(task.gallery)), own))
        if self.inner.negatives == "support":
            return others[:0]
        if self.inner.negatives == "gallery":
            return others
        free = np.setdiff1d(others, task.truth[episode.query])
        if len(free):
            return rng.choice(free, len(own))
        # Every photo is shown or asked for: another one of the support's, or where there is none any other
        return np.array([rng.choice(rest if len(rest := own[own != photo]) else others) for photo in own])

    def _loaded(self, domain: Domain, draws: list[_Draws], rng: np.random.Generator, pixels: np.random.Generator) -> EpisodeBatch:
        sketches, photos = _Rows(), _Rows()
        places = tuple(self._places(item, sketches, photos, rng) for item in draws)
        dataset = domain.dataset
        return EpisodeBatch(
            domain,
            self.source.inputs(dataset, "sketch", sketches.ask(), pixels),
            self.source.inputs(dataset, "photo", photos.ask(), pixels),
            places,
            self._joint(dataset, domain, places, photos),
        )

    def _places(self, item: _Draws, sketches: _Rows, photos: _Rows, rng: np.random.Generator) -> Places:
        episode, task = item.episode, item.episode.task
        own = task.truth[episode.support]
        gallery = self._gallery(episode, rng)
        where = np.zeros(len(task.gallery), np.int64)
        where[gallery] = np.arange(len(gallery))
        inner = np.concatenate([own, item.further])
        shown, version = item.shown
        query_truth = where[task.truth[episode.query]]
        arrays = {
            "support": sketches.take(task.sketches[episode.support], item.support),
            "photos": photos.take(task.gallery[inner], item.photo),
            "mask": self._mask(own, inner),
            "gallery": photos.take(task.gallery[gallery], item.photo),
            "query": sketches.take(task.sketches[episode.query], item.query),
            "query_truth": query_truth,
            "shown": sketches.take(task.sketches[shown], version),
            "shown_truth": where[task.truth[shown]],
            "negatives": self._negatives(query_truth, len(gallery), rng),
        }
        return Places(**{name: torch.from_numpy(array) for name, array in arrays.items()})

    def _mask(self, own: np.ndarray, inner: np.ndarray) -> np.ndarray:
        if self.inner.negatives != "drawn":
            return negative_mask(own, inner)
        count = len(own)
        mask = np.zeros((count, len(inner)), np.float32)
        mask[np.arange(count), count + np.arange(count)] = 1.0
        return mask

    def _gallery(self, episode: Episode, rng: np.random.Generator) -> np.ndarray:
        """Positions in the task's gallery that queries are searched among: those needed, and others up to the limit."""
        task = episode.task
        every = np.arange(len(task.gallery))
        if not self.config.gallery or len(every) <= self.config.gallery:
            return every
        needed = np.unique(task.truth[np.concatenate([episode.support, episode.query])])
        others = rng.permutation(np.setdiff1d(every, needed))[: max(0, self.config.gallery - len(needed))]
        return np.sort(np.concatenate([needed, others]))

    def _negatives(self, truth: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Other positions [Q,c] in the gallery than `truth` [Q]."""
        if not self.outer_negatives:
            return np.zeros((len(truth), 0), np.int64)
        drawn = rng.integers(count - 1, size=(len(truth), self.outer_negatives))
        others: np.ndarray = drawn + (drawn >= truth[:, None])
        return others

    def _joint(self, dataset: Dataset, domain: Domain, places: Sequence[Places], photos: _Rows) -> Joint:
        sketch = torch.cat([part for item in places for part in (item.support, item.query)])
        photo = torch.cat(
            [part for item in places for part in (item.photos[: len(item.support)], item.gallery[item.query_truth])]
        )
        rows = photos.ask().rows[photo.numpy()]
        position = {name: number for number, name in enumerate(self.categories[domain.setting])}
        category = [position[dataset.folder.photo_category[dataset.photos[row]]] for row in rows]
        return Joint(sketch, photo, torch.from_numpy(rows), torch.tensor(category, dtype=torch.int64))


def _categories(domain: Domain) -> set[str]:
    """Categories of all photos that the domain's tasks hold."""
    rows = np.unique(np.concatenate([task.gallery for task in domain.tasks]))
    return {domain.dataset.folder.photo_category[domain.dataset.photos[row]] for row in rows}
