"""One table of tasks through both forms of the native loop, in both types, against the float64 reference."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from fgsbir_edge import _native
from fgsbir_edge._reference import adapt as twin

MARGIN, FEATURES = 1.5, 24
HINGE, SMOOTH = 0.0, 10.0
# Against the reference on the same input: coefficients and outputs relative to the largest, losses relative to the first. With
# few dimensions some outputs are short, and what is divided by their length is rounded as coarsely.
BOUND = {(np.float64, False): 1e-12, (np.float64, True): 1e-10, (np.float32, False): 2e-6, (np.float32, True): 1e-4}
LOSS_BOUND = {(np.float64, False): 1e-13, (np.float64, True): 1e-10, (np.float32, False): 3e-7, (np.float32, True): 5e-6}


@dataclass(frozen=True)
class Layout:
    """k sketches, the photo of each, and further photos."""

    photo_of: tuple[int, ...]  # number of each sketch's photo
    photos: int  # named ones and others

    @property
    def items(self) -> int:
        return len(self.photo_of) + self.photos

    def triplets(self) -> np.ndarray:
        k = len(self.photo_of)
        rows = [(a, k + p, k + n) for a, p in enumerate(self.photo_of) for n in range(self.photos) if n != p]
        return np.array(rows, np.int32)


LAYOUTS = {
    "one pair, six negatives": Layout((0,), 7),
    "two pairs": Layout((0, 1), 2),
    "five pairs": Layout((0, 1, 2, 3, 4), 5),
    "nine sketches of four photos": Layout((0, 0, 1, 2, 2, 2, 3, 3, 0), 4),
    "five pairs, many negatives": Layout((0, 1, 2, 3, 4), 45),
}


def problem(layout: Layout, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Outputs [m, D] and Gram matrix [m, m] of float32 numbers, of sketches that lie near their photos."""
    rng = np.random.default_rng(seed)
    photos = rng.normal(size=(layout.photos, FEATURES)) / np.sqrt(FEATURES)
    sketches = photos[list(layout.photo_of)] + 0.6 * rng.normal(size=(len(layout.photo_of), FEATURES)) / np.sqrt(FEATURES)
    x = np.concatenate([sketches, photos])
    outputs = x @ rng.normal(size=(FEATURES, width)) / np.sqrt(width) + 0.1 * rng.normal(size=width)
    return outputs.astype(np.float32), (x @ x.T + 1).astype(np.float32)


# Width 1 is more than an odd size: with more items than dimensions the Gram form's coefficients are not unique and can outgrow
# the outputs; were the loop not to notice and give way to the span form, it would be wrong by half here.
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("width", [1, 3, 64, 513])
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("form", ["gram", "span"])
def test_native_loop_equals_reference(form: str, dtype: type, width: int, layout: Layout) -> None:
    outputs, gram = problem(layout, width)
    triplets = layout.triplets()
    steps = np.array([0.3, 0.2, 0.1, 0.05, 0.05, 0.05, 0.02, 0.02])
    for side, sharpness, momentum in itertools.product(["sketch", "both"], [HINGE, SMOOTH], [0.0, 0.9]):
        moves = (np.arange(layout.items) < (len(layout.photo_of) if side == "sketch" else layout.items)).astype(np.uint8)
        rates = steps.astype(dtype)
        got = _native.adapt(outputs.astype(dtype), gram.astype(dtype), triplets, moves, rates, MARGIN, sharpness, momentum, form)
        expected = twin.adapt_in_span(outputs, gram, triplets, moves, rates, (MARGIN, sharpness), momentum)
        bound, loss_bound = BOUND[dtype, width < 64], LOSS_BOUND[dtype, width < 64]
        case = f"{side}, sharpness {sharpness}, momentum {momentum}"
        # On a line there is nowhere to turn to: all gradients vanish, and errors are measured by a gradient of 1 / |u|.
        scale = np.abs(expected[0]).max() if width > 1 else steps.sum() / np.linalg.norm(outputs, axis=1).max()
        assert np.abs(got[0] - expected[0]).max() <= bound * scale, case
        assert np.abs(got[1] - expected[1]).max() <= bound * np.abs(expected[1]).max(), case
        assert np.abs(got[2] - expected[2]).max() <= loss_bound * max(expected[2][0], MARGIN), case
        assert not got[0][moves == 0].any(), case
        if width > 1:
            assert expected[2][-1] < expected[2][0], "a task that stands still shows nothing"


def test_the_two_forms_are_two() -> None:
    """What is asked for is what runs: the forms agree, but not to the last bit."""
    layout = LAYOUTS["five pairs"]
    outputs, gram = problem(layout, 64)
    arguments = layout.triplets(), np.ones(layout.items, np.uint8), np.full(8, 0.1, np.float32), MARGIN, SMOOTH, 0.0
    by_gram, by_span = (_native.adapt(outputs, gram, *arguments, form)[0] for form in ("gram", "span"))
    assert not np.array_equal(by_gram, by_span)
    np.testing.assert_allclose(by_gram, by_span, rtol=0, atol=1e-6 * np.abs(by_span).max())


@pytest.mark.parametrize("form", ["gram", "span"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
def test_loop_in_the_span_is_descent_on_the_full_head(form: str, dtype: type) -> None:
    """Three ways to the same end: W itself stepped, the reference in the span, and the native loop."""
    rng = np.random.default_rng(1)
    layout = LAYOUTS["nine sketches of four photos"]
    x, weight, bias = rng.normal(size=(layout.items, 9)), rng.normal(size=(20, 9)), rng.normal(size=20)
    outputs, gram, steps = x @ weight.T + bias, x @ x.T + 1, np.array([0.5, 0.2, 0.1])
    moves = (rng.random(layout.items) < 0.6).astype(np.uint8)  # neither side: rows that move lie between rows that stay
    rest = layout.triplets(), moves, steps, (MARGIN, SMOOTH), 0.5
    full_weight, full_bias, full_losses = twin.adapt(weight, bias, x, *rest)
    coefficients, moved, losses = twin.adapt_in_span(outputs, gram, *rest)
    np.testing.assert_allclose(weight + coefficients.T @ x, full_weight, rtol=0, atol=1e-12)
    np.testing.assert_allclose(bias + coefficients.sum(axis=0), full_bias, rtol=0, atol=1e-12)
    np.testing.assert_allclose(losses, full_losses, rtol=1e-12)
    got = _native.adapt(
        outputs.astype(dtype), gram.astype(dtype), layout.triplets(), moves, steps.astype(dtype), MARGIN, SMOOTH, 0.5, form
    )
    for ours, theirs in zip(got, (coefficients, moved, losses), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=BOUND[dtype, True] * np.abs(theirs).max())


@pytest.mark.parametrize("form", ["gram", "span"])
def test_near_photos_keep_their_digits(form: str) -> None:
    """A sketch that nearly is its photo: directions come from small differences, which the Gram form makes in float64.

    In the span form float32 outputs themselves are moved, and the error of a gradient grows with one over the distance.
    """
    rng = np.random.default_rng(2)
    layout = LAYOUTS["five pairs"]
    photos = rng.normal(size=(5, 64)) / 8
    x = np.concatenate([photos + 0.001 * rng.normal(size=(5, 64)) / 8, photos])
    outputs, gram = (x @ rng.normal(size=(64, 48)) / 7).astype(np.float32), (x @ x.T + 1).astype(np.float32)
    moves, steps = np.ones(10, np.uint8), np.full(20, 0.2, np.float32)
    got = _native.adapt(outputs, gram, layout.triplets(), moves, steps, 0.3, SMOOTH, 0.0, form)
    expected = twin.adapt_in_span(outputs, gram, layout.triplets(), moves, steps, (0.3, SMOOTH))
    bound = 1e-6 if form == "gram" else 1e-3
    assert np.abs(got[0] - expected[0]).max() <= bound * np.abs(expected[0]).max()
    np.testing.assert_allclose(got[2], expected[2], rtol=2e-6)
