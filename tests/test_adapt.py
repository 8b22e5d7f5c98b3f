"""Adaptation: the adapter is full-matrix descent, the guard is brute-force leave-one-out, and neither trips over odd input."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from fgsbir_edge import _native
from fgsbir_edge._reference.adapt import adapt as full_descent
from fgsbir_edge.adapt import AdaptOptions, adapt
from fgsbir_edge.errors import AdapterMismatchError, NativeMissingError, NonFiniteError, NoPairsError, ShapeError
from fgsbir_edge.head import Adapter, Head
from fgsbir_edge.inner import Support, formed
from fgsbir_edge.margin import MarginNet
from tests.toy import FEATURES, toy_head

Rows = np.ndarray


def task(k: int = 5, n: int = 12, noise: float = 1.0, seed: int = 0) -> tuple[Rows, Rows, Rows]:
    """k sketches near their photos, the photos, and a gallery of n photos that begins with them."""
    rng = np.random.default_rng(seed)
    gallery = rng.normal(size=(n, FEATURES)).astype(np.float32)
    sketches = gallery[:k] + noise * rng.normal(size=(k, FEATURES)).astype(np.float32)
    return sketches, gallery[:k], gallery


def ranks(head: Head, sketches: Rows, gallery: Rows, truth: Rows, result: object = None) -> list[int]:
    """By hand: how many photos are not farther than the true one."""
    adapter = getattr(result, "adapter", None)
    queries = head.embed(sketches) if adapter is None else adapter.embed(head, sketches, "sketch")
    photos = head.embed(gallery) if adapter is None else adapter.embed(head, gallery, "photo")
    distances = np.linalg.norm(queries[:, None] - photos[None], axis=2)
    return [int(np.sum(row <= row[true])) for row, true in zip(distances, truth, strict=True)]


@pytest.mark.parametrize("negatives", ["support", "gallery"])
@pytest.mark.parametrize("side", ["sketch", "both"])
@pytest.mark.parametrize("sharpness", [0.0, 10.0])
def test_adapter_is_gradient_descent_on_the_full_head(side: str, negatives: str, sharpness: float) -> None:
    head = toy_head(sharpness=sharpness)
    sketches, photos, gallery = task(k=4, n=7)
    options = AdaptOptions(side=side, negatives=negatives, guard=False)  # type: ignore[arg-type]
    result = adapt(head, sketches, photos, negatives_features=gallery, options=options)

    rows = np.concatenate([sketches, gallery])  # photos of pairs first, as in the gallery
    pool = range(4, 8) if negatives == "support" else range(4, 11)
    triplets = np.array([(a, 4 + a, other) for a in range(4) for other in pool if other != 4 + a])
    moves = np.arange(11) < 4 if side == "sketch" else np.ones(11)
    weight, bias, losses = full_descent(head.weight, head.bias, rows, triplets, moves, head.step_sizes, (0.3, sharpness))
    adapter = result.adapter
    np.testing.assert_allclose(head.weight + adapter.coefficients @ adapter.support, weight, atol=1e-5)
    np.testing.assert_allclose(head.bias + adapter.coefficients.sum(axis=1), bias, atol=1e-5)
    np.testing.assert_allclose(result.losses, losses, atol=1e-6)
    assert adapter.rank == (4 if side == "sketch" else 8 if negatives == "support" else 11)


@pytest.mark.parametrize("side", ["sketch", "both"])
def test_head_written_out_embeds_as_the_adapter_does(side: str) -> None:
    head = toy_head(step_sizes=[2.0, 1.0])
    sketches, photos, gallery = task()
    adapter = adapt(head, sketches, photos, options=AdaptOptions(side=side, guard=False)).adapter  # type: ignore[arg-type]
    changed = formed(head, adapter)
    np.testing.assert_allclose(changed.embed(gallery), adapter.embed(head, gallery, "sketch"), atol=2e-6)
    assert np.abs(changed.embed(gallery) - head.embed(gallery)).max() > 0.01
    assert (changed.side, changed.margin, changed.sharpness) == (head.side, head.margin, head.sharpness)
    same = formed(head, Adapter.identity(head))
    np.testing.assert_array_equal(same.weight, head.weight)
    with pytest.raises(AdapterMismatchError):
        formed(toy_head(seed=1), adapter)


def test_features_to_a_written_head_in_one_call() -> None:
    """adapt_features with arrays for W' and b' is adapt, then formed."""
    head = toy_head()
    sketches, photos, _ = task()
    for side in ("sketch", "both"):
        options = AdaptOptions(side=side, guard=False)  # type: ignore[arg-type]
        weight, bias = np.empty_like(head.weight), np.empty_like(head.bias)
        nothing = np.empty((0, FEATURES), np.float32)
        settings = options.recipe(head).settings(head)
        _native.adapt_features(
            head.weight, head.bias, [(sketches, photos, nothing)], None, *settings, new_weight=weight, new_bias=bias
        )
        expected = formed(head, adapt(head, sketches, photos, options=options).adapter)
        np.testing.assert_array_equal(weight, expected.weight)
        np.testing.assert_array_equal(bias, expected.bias)
        with pytest.raises(ValueError, match="one episode, but there are 2"):
            _native.adapt_features(
                head.weight, head.bias, [(sketches, photos, nothing)] * 2, None, *settings, new_weight=weight, new_bias=bias
            )
        with pytest.raises(ValueError, match=r"new_weight .* as weight"):
            _native.adapt_features(
                head.weight, head.bias, [(sketches, photos, nothing)], None, *settings, new_weight=weight[1:], new_bias=bias
            )


def test_shared_photos_count_once_and_are_no_negatives_of_their_own_sketches() -> None:
    sketches, photos, gallery = task(k=4)
    photos = photos[[0, 0, 1, 1]]
    support = Support.build(toy_head(), sketches, photos, gallery[1:3])
    assert len(support.rows) == 4 + 3
    assert support.photo_of == (4, 4, 5, 5)
    assert support.others == (6,)
    assert support.triplets(range(4), "support").tolist() == [[0, 4, 5], [1, 4, 5], [2, 5, 4], [3, 5, 4]]
    assert support.triplets([0, 1], "support").tolist() == []
    assert support.triplets([0], "gallery").tolist() == [[0, 4, 5], [0, 4, 6]]


@pytest.mark.parametrize("photo_rows", [[0], [0, 0, 0]], ids=["one pair", "one photo"])
def test_without_negatives_the_base_head_stays(head: Head, photo_rows: list[int]) -> None:
    sketches, _, gallery = task(k=len(photo_rows))
    result = adapt(head, sketches, gallery[photo_rows])
    assert (result.status, result.reason, result.margin, result.losses) == ("kept-base", "no-negatives", None, ())
    assert result.adapter.rank == 0


def test_one_pair_takes_the_gallery_s_negatives_only_when_asked(head: Head) -> None:
    sketches, photos, gallery = task(k=1)
    assert adapt(head, sketches, photos, negatives_features=gallery).reason == "no-negatives"
    options = AdaptOptions(negatives="gallery")
    result = adapt(head, sketches, photos, negatives_features=gallery, candidates=gallery, options=options)
    assert (result.status, result.recipe.negatives) == ("adapted", "gallery")
    assert result.losses[-1] < result.losses[0]
    assert "needs 3 pairs" in result.guard.note
    assert result.guard.note in result.explanation


def test_steps_beyond_the_learned_ones_repeat_the_last(head: Head) -> None:
    sketches, photos, _ = task()
    five = adapt(head, sketches, photos, options=AdaptOptions(steps=5, guard=False))
    spelt = adapt(head, sketches, photos, options=AdaptOptions(step_sizes=(0.2, 0.1, 0.05, 0.05, 0.05), guard=False))
    two = adapt(head, sketches, photos, options=AdaptOptions(steps=2, guard=False))
    assert five.losses == spelt.losses
    assert len(five.losses) == 6
    assert two.losses == five.losses[:3]


def test_margin_fixed_predicted_or_given() -> None:
    sketches, photos, _ = task()
    zeros = {"w1": (4, 3), "b1": (4,), "w2": (4, 8), "b2": (4,), "w3": (1, 4)}
    net = MarginNet(**{name: np.zeros(shape) for name, shape in zeros.items()}, b3=np.array([np.log(3.0)]))
    assert adapt(toy_head(margin=0.2), sketches, photos).margin == 0.2
    assert adapt(toy_head(margin_net=net), sketches, photos).margin == pytest.approx(0.75)
    assert adapt(toy_head(margin_net=net), sketches, photos, options=AdaptOptions(margin=0.4)).margin == 0.4


@pytest.mark.parametrize("negatives", ["support", "gallery"])
def test_margin_net_sees_the_base_distances_of_the_triplets(negatives: str) -> None:
    sketches, photos, gallery = task(k=3, n=7)
    rng = np.random.default_rng(0)
    h = 5
    shapes = {"w1": (h, 3), "b1": (h,), "w2": (h, 2 * h), "b2": (h,), "w3": (1, h), "b3": (1,)}
    net = MarginNet(**{name: 0.4 * rng.normal(size=shape) for name, shape in shapes.items()})
    options = AdaptOptions(guard=False, negatives=negatives)  # type: ignore[arg-type]
    head = toy_head(margin_net=net)
    result = adapt(head, sketches, photos, negatives_features=gallery, options=options)
    distances = np.linalg.norm(head.embed(sketches)[:, None] - head.embed(gallery)[None], axis=2)
    pairs = [(a, n) for a in range(3) for n in range(3 if negatives == "support" else 7) if n != a]
    near, far = np.array([distances[a, a] for a, _ in pairs]), np.array([distances[pair] for pair in pairs])
    assert 0.01 < result.margin < 0.99, "a saturated margin would show nothing"
    assert result.margin == pytest.approx(net.predict(near, far), rel=1e-5)


@pytest.mark.parametrize("negatives", ["support", "gallery"])
@pytest.mark.parametrize("side", ["sketch", "both"])
def test_guard_is_leave_one_out_by_hand(side: str, negatives: str) -> None:
    head = toy_head(step_sizes=[3.0, 3.0])
    sketches, photos, gallery = task(k=5, n=40, noise=3.0)
    options = AdaptOptions(side=side, negatives=negatives)  # type: ignore[arg-type]
    report = adapt(head, sketches, photos, negatives_features=gallery, candidates=gallery, options=options).guard
    base = ranks(head, sketches, gallery, np.arange(5))
    adapted = []
    for left in range(5):
        rest = [pair for pair in range(5) if pair != left]
        part = adapt(
            head, sketches[rest], photos[rest], negatives_features=gallery, options=replace(options, guard=False)
        )  # the left-out photo is in the gallery, so it is among the negatives
        adapted += ranks(head, sketches[[left]], gallery, np.array([left]), part)
    assert adapted != base, "a setting in which nothing moves shows nothing"
    assert (report.base_rank, report.adapted_rank) == (np.mean(base), np.mean(adapted))
    assert report.candidates == 40


def test_guard_ranks_among_the_pairs_photos_without_a_gallery(head: Head) -> None:
    sketches, photos, _ = task(k=4, noise=2.0)
    report = adapt(head, sketches, photos).guard
    assert report.candidates == 4
    assert report.base_rank == np.mean(ranks(head, sketches, photos, np.arange(4)))


def test_guard_adds_photos_that_the_gallery_lacks(head: Head) -> None:
    sketches, photos, gallery = task(k=4, n=12)
    report = adapt(head, sketches, photos, candidates=gallery[3:]).guard
    assert report.candidates == 12
    assert report.base_rank == np.mean(ranks(head, sketches, gallery, np.arange(4)))


def harmful(guard: bool = True) -> object:
    """A fit of the support so tight that the left-out pairs are lost."""
    head = toy_head(step_sizes=[30.0])
    sketches, photos, gallery = task(k=5, n=40, noise=1.5, seed=2)
    return adapt(head, sketches, photos, candidates=gallery, options=AdaptOptions(guard=guard))


def test_guard_keeps_the_base_head_when_left_out_pairs_get_worse() -> None:
    result = harmful()
    assert result.losses[-1] < result.losses[0], "the support itself must look fine, or another check would speak"
    assert (result.status, result.reason) == ("kept-base", "worse-leave-one-out")
    assert result.guard.worse
    assert result.adapter.rank == 0
    assert result.adapter.meta["kept_base"] == "worse-leave-one-out"


def test_guard_can_be_switched_off() -> None:
    result = harmful(guard=False)
    assert (result.status, result.reason, result.guard.note) == ("adapted", "", "not checked: switched off")
    assert result.adapter.rank == 5


def test_guard_lets_an_adapter_pass_that_is_not_worse(head: Head) -> None:
    sketches, photos, gallery = task(k=5, noise=0.5)
    result = adapt(head, sketches, photos, candidates=gallery)
    assert (result.status, result.reason) == ("adapted", "")
    assert result.guard.base_rank == result.guard.adapted_rank == 1.0


@pytest.mark.parametrize(
    ("step", "guard"), [(1e38, True), (1e38, False), (-3.0, True)], ids=["overflow", "overflow, no guard", "uphill"]
)
def test_divergence_keeps_the_base_head(step: float, guard: bool) -> None:
    head = toy_head(step_sizes=[step] * 3)
    sketches, photos, gallery = task()
    with np.errstate(all="ignore"):
        result = adapt(head, sketches, photos, candidates=gallery, options=AdaptOptions(guard=guard))
    assert (result.status, result.reason) == ("kept-base", "diverged")
    assert result.adapter.rank == 0
    np.testing.assert_array_equal(result.adapter.embed(head, sketches), head.embed(sketches))


def test_bad_input_is_named(head: Head) -> None:
    sketches, photos, _ = task()
    with pytest.raises(NoPairsError, match="give at least one"):
        adapt(head, [], [])
    with pytest.raises(ShapeError, match="5 sketches and 4 photos"):
        adapt(head, sketches, photos[:4])
    with pytest.raises(NonFiniteError, match="photo features"):
        adapt(head, sketches, photos * np.float32("nan"))
    with pytest.raises(ShapeError, match="candidates"):
        adapt(head, sketches, photos, candidates=np.zeros((3, 3)))


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"margin": float("nan")}, {"step_sizes": ()}, {"side": "left"}, {"negatives": "none"}]
)
def test_options_refuse_nonsense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AdaptOptions(**wrong)  # type: ignore[arg-type]


def test_missing_native_core_names_the_remedy(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("fgsbir_edge._native", raising=False)
    monkeypatch.setitem(sys.modules, "fgsbir_edge._native", None)
    with pytest.raises(NativeMissingError, match="pip install"):
        adapt(head, *task()[:2])
