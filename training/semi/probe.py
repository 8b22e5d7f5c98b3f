"""Why a run fails: what D_C and the drawings are worth on photos and sketches that trained nothing.

A D_C that is sure of held-out pairs judges drawings; one that is as sure of people's sketches beside the wrong photos judges the
drawing alone; one that doubts held-out people's sketches knows its labelled photos or sketches by heart, and its weights mean
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata

from training.data.folder import Pair
from training.data.recipes import ValidationSet
from training.data.splits import ordered
from training.generation.sequences import SequenceSet
from training.metrics import accuracy, gallery_ranks, percentile_ranks
from training.semi.players import Chance, Players

SEED = 20_210_321  # the probe's own chance: always the same, so that its figures can be compared along a run
MOST = 48  # photos of a set: a probe costs about as much as four steps


@dataclass(frozen=True)
class Probe:
    """Held-out people's sketches of distinct photos, a set of them for each gallery; `photos` must be in the players' pool."""

    sets: tuple[SequenceSet, ...]

    def __call__(self, players: Players) -> dict[str, float]:
        """Figures as they are now, without training anything: means over the sets.

        "held/real"        mean certainty of people's sketches; "held/swapped": of the same beside other photos
        "held/drawn"       mean certainty of drawings
        "held/ret@1"       share (%) of drawings that find their photo in the set with F; "held/percentile": 100 (N - r) / (N - 1)
        "held/agreement"   rank correlation of the drawings' certainty and that percentile: whether weights choose well (B.5)
        """
        every = [_figures(each, players) for each in self.sets]
        return {f"held/{name}": float(np.mean([figures[name] for figures in every])) for name in (every[0] if every else ())}


def _figures(real: SequenceSet, players: Players) -> dict[str, float]:
    names = [pair.photo for pair in real.pairs]
    people = [real.sketch(number) for number in range(len(names))]
    chance = Chance(np.random.default_rng(SEED), torch.Generator().manual_seed(SEED))
    drawings = players.draw(names, chance)
    pairs, drawn = drawings.pairs, players.certainties(drawings.pairs, drawings.sketches).cpu().numpy()
    sketches, photos = (players.embed(pixels).cpu().numpy() for pixels in players.plain(pairs, drawings.sketches))
    ranks = gallery_ranks(sketches, photos, np.arange(len(names)))
    percentile = percentile_ranks(ranks, len(names))
    return {
        "real": float(players.certainties(pairs, people).mean()),
        "swapped": float(players.certainties(pairs, people[1:] + people[:1]).mean()),
        "drawn": float(drawn.mean()),
        "ret@1": accuracy(ranks, 1),
        "percentile": float(percentile.mean()),
        "agreement": correlation(drawn, percentile),
    }


def held_pairs(chosen: ValidationSet) -> tuple[Pair, ...]:
    """A pair of each photo of a validation set, photos in hash order, MOST at most."""
    first: dict[str, Pair] = {}
    for pair in chosen.pairs:
        first.setdefault(pair.photo, pair)
    return tuple(first[name] for name in ordered(first, "probe")[:MOST])


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two rows [n]; 0 where one of them is constant."""
    ranks = [rankdata(values) for values in (first, second)]
    if any(np.ptp(values) == 0 for values in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
