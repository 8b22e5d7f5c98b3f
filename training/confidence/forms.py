"""The forms of confidence that were compared: each is fitted to trials and gives probabilities [T, SHORTLIST + 2] for others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fgsbir_edge.arrays import Float32
from fgsbir_edge.confidence import OTHERS, SHORTLIST, Confidence
from fgsbir_edge.confidence_fit import ABSENT, FIXED, WEAK, Searches, fit, probabilities
from training.confidence.trials import Trials

Judge = Callable[[Searches], np.ndarray]
Form = Callable[[Trials, np.ndarray], Judge]

_MASS = 0.07  # temperature of the logistic form's soft count of near photos, that of the training's loss
_RIDGE = 1e-3


def softmax(trials: Trials, weights: np.ndarray) -> Judge:
    """The form of ``fgsbir_edge.confidence``."""
    return _judge(fit(trials.searches, weights))


def one_slope(trials: Trials, weights: np.ndarray) -> Judge:
    """The same, but the slope does not change with the gallery's size."""
    return _judge(fit(trials.searches, weights, spread=_fixed(1)))


def without_crowd(trials: Trials, weights: np.ndarray) -> Judge:
    """Nor do the next photos play a part in what is absent."""
    return _judge(fit(trials.searches, weights, spread=_fixed(1, 7, 8)))


def without_size(trials: Trials, weights: np.ndarray) -> Judge:
    """Nor does the gallery's size: a softmax with one constant for what is absent."""
    return _judge(fit(trials.searches, weights, spread=_fixed(1, 6, 7, 8)))


def logistic(trials: Trials, weights: np.ndarray) -> Judge:
    """Two logistic regressions on the same statistics: of the photo being there, and of the first hit being it if it is."""
    places = trials.searches.places
    rows, there = _statistics(trials.searches), places != ABSENT
    inside = _regression(rows, there, weights)
    first = _regression(rows[there], (places == 0)[there], weights[there])

    def judge(searches: Searches) -> np.ndarray:
        given = _statistics(searches)
        known, right = _sigmoid(given @ inside), _sigmoid(given @ first)
        shares = np.zeros((len(searches), SHORTLIST + 2))
        shares[:, 0], shares[:, -2], shares[:, -1] = known * right, known * (1.0 - right), 1.0 - known
        return shares

    return judge


FORMS: dict[str, Form] = {
    "softmax, constant absent weight": without_size,
    "softmax, absent weight by size": without_crowd,
    "softmax, absent weight by size and the next photos": one_slope,
    "softmax, slope by size too": softmax,
    "two logistic regressions": logistic,
}


def _judge(confidence: Confidence) -> Judge:
    return lambda searches: probabilities(confidence, searches)


def _fixed(*places: int) -> tuple[float, ...]:
    return tuple(FIXED if place in places else value for place, value in enumerate(WEAK))


def _statistics(searches: Searches) -> np.ndarray:
    """[T, 8]: 1, best similarity, its lead, log soft count of all, log size, the next ones' mean, adapted or not, times best."""
    near: Float32 = searches.similarities
    best, second = near[:, 0], np.where(np.isfinite(near[:, 1]), near[:, 1], near[:, 0])
    lower = np.where(np.isfinite(near), (near - best[:, None]) / _MASS, -np.inf)
    mass = np.log(np.exp(lower).sum(axis=1))
    others = near[:, 1 : OTHERS + 1]
    count = np.maximum(np.isfinite(others).sum(axis=1), 1)
    crowd = np.where(np.isfinite(others), others, 0.0).sum(axis=1) / count
    adapted = searches.adapted.astype(np.float64)
    columns = [np.ones(len(near)), best, best - second, mass, np.log(searches.sizes), crowd, adapted, adapted * best]
    return np.stack(columns, axis=1).astype(np.float64)


def _regression(rows: np.ndarray, happened: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Coefficients of a logistic regression, by Newton's method with halved steps."""
    theta = np.zeros(rows.shape[1])

    def value(at: np.ndarray) -> float:
        logits = rows @ at
        return float(weights @ (happened * logits - np.logaddexp(0.0, logits)) - 0.5 * _RIDGE * at @ at)

    for _ in range(50):
        share = _sigmoid(rows @ theta)
        gradient = rows.T @ (weights * (happened - share)) - _RIDGE * theta
        curvature = (rows * (weights * share * (1.0 - share))[:, None]).T @ rows + _RIDGE * np.eye(len(theta))
        step = np.linalg.solve(curvature, gradient)
        while value(theta + step) < value(theta) and np.abs(step).max() > 1e-9:
            step = step / 2
        theta = theta + step
        if np.abs(step).max() < 1e-8:
            break
    return theta


def _sigmoid(values: np.ndarray) -> np.ndarray:
    result: np.ndarray = 0.5 * (1.0 + np.tanh(values / 2.0))
    return result
