"""What is known of a category before anybody draws it, as a shift of its sketches: fitted on categories that people have drawn.

Whatever stands in for a category's sketches (its photos, their edges, a generator's drawings) has a mean output m_c by the head.
The shift is -r (m_c - o) with o the mean of m_c over the training categories, which takes out what stand-ins have in common and
sketches have not. r is chosen on training categories too, each by the others' o: Acc@1 of its queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgsbir_edge.arrays import Float32
from fgsbir_edge.head import Head
from fgsbir_edge.start import Start
from training.episodes import Task, draw, gives
from training.episodic.methods.protocol import ProtocolConfig
from training.metrics import ranks_of

CHOSEN_AT = 5  # pairs: the share is chosen on the queries of such episodes


@dataclass(frozen=True, eq=False)
class StandIns:
    """What stands in for sketches: features [n,C], the photo row [n] each belongs to, and what each weighs [n]."""

    rows: np.ndarray
    photos: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, photos: np.ndarray) -> StandIns:
        """All weighing alike."""
        return cls(features, photos, np.ones(len(features), np.float32))

    @classmethod
    def of_photos(cls, features: np.ndarray) -> StandIns:
        """The photos themselves."""
        return cls.of(features, np.arange(len(features)))

    def mean(self, head: Head, gallery: np.ndarray) -> Float32:
        """Weighted mean output [D] over a category's photos. Raises ValueError where nothing stands in for any of them."""
        own = np.isin(self.photos, gallery)
        weights = self.weights[own]
        if not weights.sum() > 0:
            raise ValueError("nothing stands in for the photos of a category; draw them first")
        mean: Float32 = (weights @ head.outputs(self.rows[own]) / weights.sum()).astype(np.float32)
        return mean

    def means(self, head: Head, tasks: Sequence[Task]) -> Float32:
        """[T,D], a row a category."""
        return np.stack([self.mean(head, task.gallery) for task in tasks])


@dataclass(frozen=True, eq=False)
class Fitted:
    """The constants, and Acc@1 on the training categories by share, in percent ("none": without a start)."""

    start: Start
    curve: dict[str, float]


def left_out(means: Float32) -> Float32:
    """The reference [T,D] of each category: the mean over all the others [T,D]."""
    others: Float32 = (means.sum(axis=0) - means) / np.float32(len(means) - 1)
    return others


def fit(
    head: Head,
    features: tuple[np.ndarray, np.ndarray],
    tasks: Sequence[Task],
    stand_ins: StandIns,
    shares: Sequence[float],
    protocol: ProtocolConfig,
) -> Fitted:
    """Constants from training categories, whose tasks index the features of sketches [S,C] and photos [P,C].

    Of shares that do equally well the smallest is taken. Raises ValueError where fewer than two categories can give CHOSEN_AT
    pairs and a query, or no share is given.
    """
    sketches, photos = features
    large = [task for task in tasks if gives(task, CHOSEN_AT)]
    if len(large) < 2 or not shares:
        raise ValueError(f"{len(large)} training categories, {len(shares)} shares: a start needs two or more, and one or more")
    means = stand_ins.means(head, large)
    changes = means - left_out(means)
    found = np.zeros(1 + len(shares))
    for number, task in enumerate(large):
        gallery, outputs = head.embed(photos[task.gallery]), head.outputs(sketches[task.sketches])
        counts = asked(task, number, protocol)
        for place, share in enumerate((0.0, *shares)):
            ranks = ranks_of((outputs - np.float32(share) * changes[number]) @ gallery.T, task.truth)
            found[place] += 100.0 * float(counts @ (ranks == 1)) / len(large)
    best = min(shares, key=lambda share: (-round(found[1 + shares.index(share)], 6), share))
    curve = dict(zip(("none", *(f"{share:g}" for share in shares)), found.round(3).tolist(), strict=True))
    return Fitted(Start(means.mean(axis=0), float(best)), curve)


def asked(task: Task, number: int, protocol: ProtocolConfig) -> np.ndarray:
    """How often each sketch of a task [S] is asked for in the draws of its episodes; all draws count alike and sum to 1."""
    counts = np.zeros(len(task.sketches))
    for turn in range(protocol.draws):
        query = draw(task, CHOSEN_AT, np.random.default_rng([protocol.seed, number, turn])).query
        counts[query] += 1.0 / (len(query) * protocol.draws)
    return counts
