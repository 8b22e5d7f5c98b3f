"""How good probabilities are: reliability, ECE, Brier score, AUROC, and what is left when unsure answers are turned away."""

from __future__ import annotations

from typing import Any

import numpy as np

from fgsbir_edge.confidence import SHORTLIST
from fgsbir_edge.confidence_fit import ABSENT
from training.confidence.trials import Trials

BINS = 10
COVERAGES = (0.1, 0.2, 0.3, 0.5)
RESAMPLES = 500


def bins_of(predicted: np.ndarray, happened: np.ndarray, count: int = BINS) -> list[dict[str, float]]:
    """Bins of equally many [T]: mean prediction, share that happened, how many."""
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, count) if len(part)]
    return [
        {"predicted": float(predicted[part].mean()), "happened": float(happened[part].mean()), "count": len(part)}
        for part in parts
    ]


def ece(predicted: np.ndarray, happened: np.ndarray, count: int = BINS) -> float:
    """Expected calibration error: the mean distance of prediction and share over bins of equally many, 0 to 1."""
    rows = bins_of(predicted, happened, count)
    return sum(abs(row["predicted"] - row["happened"]) * row["count"] for row in rows) / len(predicted)


def brier(predicted: np.ndarray, happened: np.ndarray) -> float:
    """Mean squared error, 0 to 1."""
    return float(np.mean(np.square(predicted - happened)))


def auroc(predicted: np.ndarray, happened: np.ndarray) -> float:
    """How often something that happened has the higher prediction than something that did not, ties counting half; NaN where
    everything happened, or nothing."""
    yes = int(happened.sum())
    if yes in (0, len(happened)):
        return float("nan")
    _, inverse, counts = np.unique(predicted, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    return float((ranks[happened].sum() - yes * (yes + 1) / 2.0) / (yes * (len(happened) - yes)))


def accuracy_at(predicted: np.ndarray, happened: np.ndarray, coverage: float) -> float:
    """The share that happened among the ``coverage`` of highest predictions."""
    kept = np.argsort(-predicted, kind="stable")[: max(1, round(coverage * len(predicted)))]
    return float(happened[kept].mean())


def figures(shares: np.ndarray, trials: Trials, *, intervals: bool = False) -> dict[str, Any]:
    """All figures of probabilities [T, SHORTLIST + 2] (hits, behind, absent): of the first hit, and of the photo being there.

    With ``intervals``, 95 % bootstrap intervals over the trials' units.
    """
    places = trials.searches.places
    first, right = shares[:, 0], places == 0
    inside, present = 1.0 - shares[:, -1], places != ABSENT
    label = np.where(present, places, SHORTLIST + 1)
    surprise = -np.log(np.maximum(shares[np.arange(len(places)), label], 1e-12))
    result: dict[str, Any] = {
        "searches": len(trials),
        "first hit right": float(right.mean()),
        "log loss": float(surprise.mean()),
        "first": _of(first, right) | {f"right at {100 * share:.0f} %": accuracy_at(first, right, share) for share in COVERAGES},
        "in gallery": _of(inside, present),
    }
    if intervals:
        for name, predicted, happened in (("first", first, right), ("in gallery", inside, present)):
            result[name] |= _intervals(predicted, happened, trials.units)
    return result


def _of(predicted: np.ndarray, happened: np.ndarray) -> dict[str, Any]:
    return {
        "ece": ece(predicted, happened),
        "brier": brier(predicted, happened),
        "auroc": auroc(predicted, happened),
        "mean": float(predicted.mean()),
        "happened": float(happened.mean()),
    }


def _intervals(predicted: np.ndarray, happened: np.ndarray, units: np.ndarray) -> dict[str, Any]:
    names, inverse = np.unique(units, return_inverse=True)
    members = [np.flatnonzero(inverse == number) for number in range(len(names))]
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(RESAMPLES):
        which = np.concatenate([members[number] for number in rng.integers(len(names), size=len(names))])
        rows.append((ece(predicted[which], happened[which]), auroc(predicted[which], happened[which])))
    low, high = np.nanpercentile(np.array(rows), (2.5, 97.5), axis=0)
    return {"units": len(names), "ece interval": [low[0], high[0]], "auroc interval": [low[1], high[1]]}


def turned_away(inside: np.ndarray, places: np.ndarray, share: float) -> float:
    """The threshold below which ``share`` of the searches whose photo is there fall: 0 to 1."""
    return float(np.quantile(inside[places != ABSENT], share))


def sure_from(first: np.ndarray, right: np.ndarray, wrong: float) -> float:
    """The lowest threshold from which on at most ``wrong`` of the first hits are not the photo meant; 1 where there is none."""
    order = np.argsort(-first, kind="stable")
    rate = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(rate <= wrong)
    return float(first[order[good[-1]]]) if len(good) else 1.0


def at_thresholds(shares: np.ndarray, trials: Trials, none_below: float, sure: float) -> dict[str, float]:
    """What both thresholds do: shares of present and absent photos that are turned away; how many first hits are taken as sure,
    and how many of these are wrong."""
    places = trials.searches.places
    away, taken = 1.0 - shares[:, -1] < none_below, shares[:, 0] >= sure
    return {
        "present turned away": _share(away[places != ABSENT]),
        "absent turned away": _share(away[places == ABSENT]),
        "sure": _share(taken),
        "sure and wrong": _share(places[taken] != 0),
    }


def _share(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
