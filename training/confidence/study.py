"""What is fitted and what is found of it: constants, thresholds, and figures on trials that were not fitted to."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from fgsbir_edge.confidence import LENGTHS, Confidence
from fgsbir_edge.confidence_fit import ABSENT, fit, probabilities
from training.confidence.figures import at_thresholds, bins_of, ece, figures, sure_from, turned_away
from training.confidence.forms import FORMS, Form, logistic, softmax
from training.confidence.trials import Trials

FOLDS = 5
TURNED_AWAY, WRONG = 0.05, 0.05  # what the thresholds allow: of photos that are there, of first hits taken as sure
BANDS = (2, 5, 20, 50, 200, 600, 10**9)  # gallery sizes, from one to below the next
SMALL, LARGE = 100, 300  # the look beyond the sizes fitted to: from galleries up to the first to those above the second


def balanced(trials: Trials) -> np.ndarray:
    """Weights [T] with which every domain counts the same, its adapted searches as much as the others; their mean is 1."""
    key = np.char.add(trials.domains, np.where(trials.pairs > 0, "+", ""))
    _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
    weights: np.ndarray = len(trials) / len(counts) / counts[inverse]
    return weights


def crossed(trials: Trials, form: Form) -> np.ndarray:
    """Probabilities [T, *] of each trial by a fit to those of other units (people, photos): FOLDS of them."""
    names, inverse = np.unique(trials.units, return_inverse=True)
    fold = np.random.default_rng(0).permutation(np.arange(len(names)) % FOLDS)[inverse]
    return _by_parts(trials, form, fold)


def left_out(trials: Trials, form: Form) -> np.ndarray | None:
    """Probabilities [T, *] of each trial by a fit to the other domains; None where there is but one."""
    names, domain = np.unique(trials.domains, return_inverse=True)
    return _by_parts(trials, form, domain) if len(names) > 1 else None


def _by_parts(trials: Trials, form: Form, part: np.ndarray) -> np.ndarray:
    shares: np.ndarray | None = None
    for number in np.unique(part):
        rest, own = trials.part(part != number), trials.part(part == number)
        found = form(rest, balanced(rest))(own.searches)
        if shares is None:
            shares = np.empty((len(trials), found.shape[1]))
        shares[part == number] = found
    assert shares is not None
    return shares


def constants(trials: Trials) -> tuple[Confidence, np.ndarray]:
    """The constants fitted to all trials, with thresholds from cross-fitted probabilities, which are the second result."""
    shares = crossed(trials, softmax)
    places = trials.searches.places
    plain = fit(trials.searches, balanced(trials))
    below = turned_away(1.0 - shares[:, -1], places, TURNED_AWAY)
    sure = sure_from(shares[:, 0], places == 0, WRONG)
    rounded: dict[str, Any] = {name: tuple(round(value, 4) for value in getattr(plain, name)) for name in LENGTHS}
    return replace(plain, **rounded, none_below=round(below, 4), sure_from=round(sure, 4)), shares


def study(trials: Trials, confidence: Confidence, shares: np.ndarray) -> dict[str, Any]:
    """Figures of the cross-fitted probabilities ``shares``, without a domain, of other forms, beyond the sizes fitted to."""
    apart = left_out(trials, softmax)
    adapted = trials.pairs > 0
    thresholds = confidence.none_below, confidence.sure_from
    places, inside = trials.searches.places, 1.0 - shares[:, -1]

    def table(which: np.ndarray, of: np.ndarray, intervals: bool = True) -> dict[str, Any]:
        part = trials.part(which)
        return figures(of[which], part, intervals=intervals) | {"thresholds": at_thresholds(of[which], part, *thresholds)}

    result: dict[str, Any] = {"all": table(np.ones(len(trials), np.bool_), shares), "domains": {}, "adapted": {}, "sizes": {}}
    for name in np.unique(trials.domains):
        own = trials.domains == name
        for what, which in (("domains", own & ~adapted), ("adapted", own & adapted)):
            if which.any():
                found = {"crossed": table(which, shares)}
                result[what][str(name)] = found if apart is None else found | {"domain left out": table(which, apart)}
        for count in np.unique(trials.pairs[own & adapted]):
            which = own & (trials.pairs == count)
            by_pairs = result["adapted"][str(name)].setdefault("ece by pairs", {})
            by_pairs[str(count)] = {
                "searches": int(which.sum()),
                "first": ece(shares[which, 0], places[which] == 0),
                "in gallery": ece(inside[which], places[which] != ABSENT),
            }
    for low, high in pairwise(BANDS):
        which = (trials.searches.sizes >= low) & (trials.searches.sizes < high)
        if which.any():
            result["sizes"][f"from {low}"] = table(which, shares, intervals=False)
    result["reliability"] = {
        "first": bins_of(shares[:, 0], places == 0),
        "in gallery": bins_of(inside, places != ABSENT),
    }
    result["forms"] = {name: _compared(trials, form) for name, form in FORMS.items()}
    result["beyond"] = {name: _beyond(trials, form) for name, form in FORMS.items()}
    return result


def last_look(trials: Trials, confidence: Confidence) -> dict[str, Any]:
    """Figures of constants as they are on trials that played no part in them."""
    shares = probabilities(confidence, trials.searches)
    result = {}
    for name in np.unique(trials.domains):
        for what, which in (("", trials.pairs == 0), (", adapted", trials.pairs > 0)):
            own = (trials.domains == name) & which
            if own.any():
                part = trials.part(own)
                thresholds = at_thresholds(shares[own], part, confidence.none_below, confidence.sure_from)
                result[f"{name}{what}"] = figures(shares[own], part, intervals=True) | {"thresholds": thresholds}
    return result


def _compared(trials: Trials, form: Form) -> dict[str, Any]:
    """A form's figures, cross-fitted, and with domains left out as the mean over domains."""
    kept = figures(crossed(trials, form), trials)
    if form is logistic:  # it says nothing of the hits behind the first
        kept.pop("log loss")
    apart = left_out(trials, form)
    if apart is None:
        return {"crossed": kept}
    alone = [figures(apart[own], trials.part(own)) for own in (trials.domains == name for name in np.unique(trials.domains))]
    means = {
        what: {key: float(np.mean([one[what][key] for one in alone])) for key in ("ece", "brier", "auroc")}
        for what in ("first", "in gallery")
    }
    return {"crossed": kept, "domain left out": means}


def _beyond(trials: Trials, form: Form) -> dict[str, Any]:
    """Galleries larger than all that were fitted to, by that fit and by the fit to all sizes (both cross-fitted over units)."""
    sizes = trials.searches.sizes

    def small(rest: Trials, _: np.ndarray) -> Any:
        kept = rest.part(rest.searches.sizes <= SMALL)
        return form(kept, balanced(kept))

    which = sizes > LARGE
    if not which.any():
        return {}
    part = trials.part(which)
    return {
        "fitted to": f"galleries of at most {SMALL}",
        "searches in": f"galleries of more than {LARGE}, at most {int(sizes.max())}",
        "fitted to small": figures(crossed(trials, small)[which], part),
        "fitted to all": figures(crossed(trials, form)[which], part),
    }
