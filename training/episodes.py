"""Episodes: k support pairs to adapt on, query sketches to be judged by, and the gallery they are searched in.

Support and query photos are disjoint (METHODS C.6). A task is one person (all photos that person drew) or one category.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.data.folder import Pair


@dataclass(frozen=True)
class Task:
    """Rows of a feature table that belong together: sketches [S] with the gallery position [S] of each one's photo."""

    name: str
    sketches: np.ndarray  # [S] rows of the sketch table
    truth: np.ndarray  # [S] positions in gallery
    gallery: np.ndarray  # [N] rows of the photo table


@dataclass(frozen=True)
class Episode:
    """Indices into a task, positions in task.sketches: support [k], query [Q] of other photos, shown [R] of the same photos.

    `shown` are further sketches of the photos in the support, whoever drew them: empty where everything was drawn once.
    """

    task: Task
    support: np.ndarray
    query: np.ndarray
    shown: np.ndarray


def person_tasks(
    pairs: Sequence[Pair], gallery: Sequence[str], sketch_rows: dict[str, int], photo_rows: dict[str, int]
) -> list[Task]:
    """One task per user of `pairs`; the gallery is `gallery` for all."""
    return _tasks(pairs, lambda pair: pair.user, {pair.user: list(gallery) for pair in pairs}, sketch_rows, photo_rows)


def category_tasks(
    pairs: Sequence[Pair], photo_category: dict[str, str], sketch_rows: dict[str, int], photo_rows: dict[str, int]
) -> list[Task]:
    """One task per category; the gallery is every photo of the category, those without sketches too."""
    galleries: dict[str, list[str]] = defaultdict(list)
    for name, category in sorted(photo_category.items()):
        galleries[category].append(name)
    return _tasks(pairs, lambda pair: pair.category, galleries, sketch_rows, photo_rows)


def _tasks(pairs, key, galleries, sketch_rows, photo_rows) -> list[Task]:  # type: ignore[no-untyped-def]
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[key(pair)].append(pair)
    tasks = []
    for name in sorted(groups):
        place = {photo: position for position, photo in enumerate(galleries[name])}
        tasks.append(
            Task(
                name,
                np.array([sketch_rows[pair.sketch] for pair in groups[name]]),
                np.array([place[pair.photo] for pair in groups[name]]),
                np.array([photo_rows[photo] for photo in galleries[name]]),
            )
        )
    return tasks


def gives(task: Task, k: int) -> bool:
    """Whether a task can give k support pairs and a query of another photo, whichever photo is kept back for it."""
    sketches = np.unique(task.truth, return_counts=True)[1]
    return len(sketches) > 1 and int(sketches.sum() - sketches.max()) >= k


def draw(task: Task, k: int, rng: np.random.Generator, *, queries: int | None = None) -> Episode:
    """k support pairs and the sketches of all other photos (at most `queries` of them).

    Support photos are k where the task has more than twice as many, else about half of them with several sketches each:
    categories have few photos with sketches.

    Raises:
        ValueError: the task has fewer than two photos with sketches, or fewer than k sketches outside one photo.
    """
    photos = rng.permutation(np.unique(task.truth))
    if len(photos) < 2:
        raise ValueError(f"task {task.name!r} has {len(photos)} photo(s) with sketches; an episode needs two")
    count = k if len(photos) > 2 * k else (len(photos) + 1) // 2
    chosen: list[int] = []
    while len(chosen) < k and count < len(photos):
        pool = [rng.permutation(np.flatnonzero(task.truth == photo)).tolist() for photo in photos[:count]]
        chosen = []
        while len(chosen) < k and any(pool):  # one sketch of each photo in turn
            for options in pool:
                if options and len(chosen) < k:
                    chosen.append(options.pop())
        if len(chosen) < k:
            count += 1
    if len(chosen) < k:
        raise ValueError(f"task {task.name!r} has too few sketches for {k} support pairs and a query")
    among_shown = np.isin(task.truth, photos[:count])
    query = rng.permutation(np.flatnonzero(~among_shown))
    shown = np.setdiff1d(np.flatnonzero(among_shown), chosen)
    return Episode(task, np.array(chosen), query if queries is None else query[:queries], shown)


def negative_mask(own: np.ndarray, photos: np.ndarray) -> np.ndarray:
    """Which photos an inner loop's sketches take as negatives, as a device does: float32 [k,n], 1 for every photo but their own.

    Args:
        own: int [k], the photo of each sketch.
        photos: int [n], the rows of photos; where one is there several times, the first counts: a device holds it once.
    """
    first = np.isin(np.arange(len(photos)), np.unique(photos, return_index=True)[1])
    mask: np.ndarray = ((own[:, None] != photos[None, :]) & first).astype(np.float32)
    return mask
