"""The guard's folds in the native core against the NumPy twin, and many persons at once against one after another."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from fgsbir_edge import _native
from fgsbir_edge._reference import adapt as twin
from fgsbir_edge.adapt import AdaptOptions, AdaptResult, adapt
from fgsbir_edge.adapt_many import CROSS_ELEMENTS, Person, adapt_many
from fgsbir_edge.errors import NonFiniteError, NoPairsError, ShapeError
from fgsbir_edge.guard import GuardReport, leave_one_out
from fgsbir_edge.head import Head
from fgsbir_edge.inner import Support, leave_out, solve, solve_episodes
from fgsbir_edge.margin import MarginNet
from tests.toy import FEATURES, toy_head

NOTHING = np.empty((0, FEATURES), np.float32)


def margin_net(h: int = 6, seed: int = 0) -> MarginNet:
    rng = np.random.default_rng(seed)
    shapes = {"w1": (h, 3), "b1": (h,), "w2": (h, 2 * h), "b2": (h,), "w3": (1, h), "b3": (1,)}
    return MarginNet(**{name: 0.4 * rng.normal(size=shape) for name, shape in shapes.items()})


def person(k: int, photos: int, seed: int, noise: float = 3.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """k sketches far from their photos (ranks spread out), of which some are repeated, and a gallery that holds them."""
    rng = np.random.default_rng(seed)
    gallery = rng.normal(size=(photos, FEATURES)).astype(np.float32)
    own = gallery[rng.integers(0, min(photos, max(1, k - 1)), size=k)]
    return own + noise * rng.normal(size=own.shape).astype(np.float32), own, gallery


@pytest.mark.parametrize("negatives", ["support", "gallery"])
@pytest.mark.parametrize("side", ["sketch", "both"])
@pytest.mark.parametrize("centre", [math.inf, 1.5], ids=["", "centred"])
@pytest.mark.parametrize(("net", "momentum"), [(False, 0.0), (True, 0.0), (True, 0.5)])
def test_folds_equal_the_full_head_left_out_by_hand(side: str, negatives: str, net: bool, momentum: float, centre: float) -> None:
    head = toy_head(step_sizes=[3.0, 2.0, 2.0], margin_net=margin_net() if net else None, centre=centre)
    recipe = AdaptOptions(side=side, negatives=negatives, momentum=momentum).recipe(head)  # type: ignore[arg-type]
    margin = head.margin_net or head.margin
    how = twin.Descent(side, negatives, head.step_sizes, margin, head.sharpness, momentum, centre)
    changed = 0
    for seed in range(8):
        sketches, photos, gallery = person(k=3 + seed % 4, photos=30, seed=seed)
        support = Support.build(head, sketches, photos, gallery[10:18])
        folds = leave_out(head, support, recipe, gallery)
        base, adapted = twin.leave_one_out((head.weight, head.bias), sketches, photos, gallery[10:18], gallery, how)
        np.testing.assert_array_equal(folds.base_ranks, base)
        np.testing.assert_array_equal(folds.adapted_ranks, adapted)
        assert folds.candidates == 30
        changed += int((base != adapted).sum())
    assert changed > 5, "ranks that stay show nothing"


def test_photos_that_candidates_lack_are_added_once() -> None:
    head = toy_head(step_sizes=[3.0])
    sketches, photos, gallery = person(k=6, photos=30, seed=3)
    lacking = gallery[~(gallery[:, None] == photos[None, [0, 2]]).all(axis=2).any(axis=1)]
    missing = len(np.unique(photos[[0, 2]], axis=0))
    assert len(lacking) == 30 - missing
    for side in ("sketch", "both"):
        recipe = AdaptOptions(side=side).recipe(head)  # type: ignore[arg-type]
        support = Support.build(head, sketches, photos, NOTHING)
        whole, lacked = leave_out(head, support, recipe, gallery), leave_out(head, support, recipe, lacking)
        assert whole.candidates == lacked.candidates == 30
        np.testing.assert_array_equal(whole.base_ranks, lacked.base_ranks)
        np.testing.assert_array_equal(whole.adapted_ranks, lacked.adapted_ranks)


def test_repeated_candidates_tie_and_count_against() -> None:
    head = toy_head()
    sketches, photos, gallery = person(k=4, photos=10, seed=1)
    support = Support.build(head, sketches, photos, NOTHING)
    recipe = AdaptOptions().recipe(head)
    once, twice = (leave_out(head, support, recipe, np.concatenate([gallery] * copies)) for copies in (1, 2))
    np.testing.assert_array_equal(twice.base_ranks, 2 * once.base_ranks)
    assert twice.candidates == 20


def test_a_fold_without_triplets_ranks_as_the_base_head() -> None:
    """Three sketches of two photos: with the only sketch of one photo left out there is nothing to tell apart."""
    head = toy_head(step_sizes=[5.0])
    sketches, _, gallery = person(k=3, photos=12, seed=0)
    photos = gallery[[0, 0, 1]]
    report = leave_one_out(head, Support.build(head, sketches, photos, NOTHING), AdaptOptions().recipe(head), gallery)
    how = twin.Descent("sketch", "support", head.step_sizes, 0.3, 10.0)
    base, adapted = twin.leave_one_out((head.weight, head.bias), sketches, photos, NOTHING, gallery, how)
    assert base[2] == adapted[2]
    assert (report.base_rank, report.adapted_rank) == (base[2], adapted[2])


def test_pairs_whose_photo_others_show_are_not_asked() -> None:
    head = toy_head(step_sizes=[5.0])
    sketches, _, gallery = person(k=5, photos=12, seed=2)
    photos = gallery[[0, 0, 1, 2, 3]]
    recipe = AdaptOptions().recipe(head)
    support = Support.build(head, sketches, photos, NOTHING)
    folds, report = leave_out(head, support, recipe, gallery), leave_one_out(head, support, recipe, gallery)
    assert folds.unseen.tolist() == [False, False, True, True, True]
    assert (report.base_rank, report.adapted_rank) == (folds.base_ranks[2:].mean(), folds.adapted_ranks[2:].mean())
    assert adapt(head, sketches, photos, candidates=gallery).guard == report
    twice = gallery[[0, 0, 1, 1]]
    nobody = adapt(head, sketches[:4], twice, candidates=gallery)
    assert nobody.guard.note == "not checked: every photo is shown by several pairs"
    assert nobody.status == "adapted"


@pytest.mark.parametrize(("adapted", "worse"), [(1.0, False), (4.0, False), (5.0, False), (5.25, True), (None, False)])
def test_a_mean_rank_may_grow_by_a_quarter(adapted: float | None, worse: bool) -> None:
    assert GuardReport(4.0, adapted, 30, "").worse is worse


def test_margins_of_folds_are_their_own() -> None:
    """Each fold asks the network about its own triplets."""
    net = margin_net()
    head = toy_head(margin_net=net)
    sketches, photos, gallery = person(k=4, photos=9, seed=5)
    support = Support.build(head, sketches, photos, gallery)
    recipe = AdaptOptions(negatives="gallery").recipe(head)
    prepared = support.rows, support.outputs, support.gram, support.photo_rows
    margins = _native.adapt_support(head.weight, head.bias, prepared, gallery, *recipe.settings(head), 1)[2]
    chosen = [range(4), *([pair for pair in range(4) if pair != left] for left in range(4))]
    expected = [twin.predict_margin(net, support.outputs, support.triplets(pairs, "gallery")) for pairs in chosen]
    np.testing.assert_allclose(margins, expected, rtol=1e-6)
    assert len(set(margins.tolist())) == 5


# ---- many persons ----

OPTIONS = {
    "plain": AdaptOptions(guard=False),
    "guarded": AdaptOptions(),
    "both sides, all photos": AdaptOptions(side="both", negatives="gallery", momentum=0.5),
    "centred": AdaptOptions(centre=2.0, side="both"),
}


def crowd() -> list[Person]:
    """Persons with 1 to 9 pairs, some with one photo alone, some with further negatives."""
    people = []
    for seed in range(12):
        sketches, photos, gallery = person(k=1 + (5 * seed) % 9, photos=6 + seed, seed=seed, noise=1.0)
        people.append(Person(sketches, photos, gallery if seed % 3 else None))
    return people


def same(one: AdaptResult, other: AdaptResult) -> bool:
    """Equal in every bit, times apart."""
    arrays = zip(
        (one.adapter.coefficients, one.adapter.support), (other.adapter.coefficients, other.adapter.support), strict=True
    )
    rest = [
        replace(result, adapter=None, recipe=None, millis=0.0, guard_millis=0.0)  # type: ignore[arg-type]
        for result in (one, other)
    ]
    shifts = [np.asarray(result.adapter.sketch_shift, np.float64) for result in (one, other)]  # None: NaN
    equal = all(np.array_equal(a, b) for a, b in arrays) and np.array_equal(*shifts, equal_nan=True)
    return equal and one.adapter.meta == other.adapter.meta and rest[0] == rest[1]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shared", [False, True], ids=["own photos", "shared gallery"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_many_equal_one_after_another(options: AdaptOptions, shared: bool, threads: int) -> None:
    head = toy_head(margin_net=margin_net(), step_sizes=[1.0, 1.0])
    people = crowd()
    gallery = np.concatenate([np.asarray(people[4].photos), person(k=3, photos=40, seed=99)[2]]) if shared else None
    together = adapt_many(head, people, candidates=gallery, options=options, threads=threads)
    alone = [
        adapt(head, one.sketches, one.photos, negatives_features=one.negatives, candidates=gallery, options=options)
        for one in people
    ]
    assert [same(a, b) for a, b in zip(together, alone, strict=True)] == [True] * len(people)
    kinds = {(result.status, result.adapter.rank > 0) for result in together}
    assert len(kinds) >= 2, "a crowd that all fares alike shows little"


def test_many_in_parts_equal_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    head, people = toy_head(), crowd()
    gallery = person(k=3, photos=40, seed=99)[2]
    options = AdaptOptions(side="both")
    at_once = adapt_many(head, people, candidates=gallery, options=options)
    monkeypatch.setattr("fgsbir_edge.adapt_many.CROSS_ELEMENTS", 20 * 40)
    in_parts = adapt_many(head, people, candidates=gallery, options=options)
    assert all(same(a, b) for a, b in zip(at_once, in_parts, strict=True))
    assert CROSS_ELEMENTS > 20 * 40


def test_many_name_the_person_that_is_wrong(head: Head) -> None:
    good = crowd()[2]
    assert adapt_many(head, []) == []
    with pytest.raises(NoPairsError, match="person 1: no sketch-photo pairs"):
        adapt_many(head, [good, Person([], [])])
    with pytest.raises(ShapeError, match="person 2: got"):
        adapt_many(head, [good, good, Person(good.sketches, np.asarray(good.photos)[:1])])
    with pytest.raises(NonFiniteError, match="person 0: sketch features"):
        adapt_many(head, [Person(np.asarray(good.sketches) * np.nan, good.photos)])


# ---- the same bits ----


def bits(threads: int) -> bytes:
    """All that a run over three persons finds: both sides, few and many photos, hence both forms, with folds and margins."""
    head = toy_head(margin_net=margin_net())
    parts = []
    for side, photos in itertools.product(("sketch", "both"), (8, 30)):
        sketches, own, gallery = person(k=5, photos=photos, seed=photos)
        recipe = AdaptOptions(side=side, negatives="gallery").recipe(head)  # type: ignore[arg-type]
        for found in solve_episodes(head, [(sketches, own, gallery)] * 3, recipe, gallery, fold_pairs=1, threads=threads):
            assert found.solution is not None
            assert found.folds is not None
            parts += [found.solution.coefficients, found.solution.losses, found.folds.adapted_ranks]
    return b"".join(part.tobytes() for part in parts)


def test_bits_do_not_depend_on_threads_or_on_the_run() -> None:
    assert bits(threads=1) == bits(threads=1) == bits(threads=2) == bits(threads=5)


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(level: str) -> None:
    """The table of tests under each set of instructions that this machine has; one that it lacks falls back to a lower one."""
    files = ["tests/test_adapt_table.py", "tests/test_adapt_native.py", "tests/test_adapt_guard.py"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-k", "not instruction_set and not autograd", *files],
        env={**os.environ, "FGSBIR_SIMD": level},
        capture_output=True,
        text=True,
        cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
    )
    assert run.returncode == 0, run.stdout


# ---- refusals ----


def test_solve_is_the_part_of_adapt_that_it_is(head: Head) -> None:
    sketches, photos, gallery = person(k=5, photos=12, seed=7)
    options = AdaptOptions(guard=False, side="both")
    whole = adapt(head, sketches, photos, options=options)
    support = Support.build(head, sketches, photos, gallery)
    solution = solve(head, support, range(5), options.recipe(head))
    assert solution is not None
    np.testing.assert_array_equal(solution.coefficients.T, whole.adapter.coefficients)
    np.testing.assert_array_equal(support.rows[solution.rows], whole.adapter.support)
    some = solve(head, support, [0, 2, 3], options.recipe(head))
    part = adapt(head, sketches[[0, 2, 3]], photos[[0, 2, 3]], options=options)
    assert some is not None
    np.testing.assert_allclose(some.losses, part.losses, rtol=1e-6)
    np.testing.assert_array_equal(support.rows[some.rows], part.adapter.support)


GOOD = {
    "weight": np.ones((3, 4), np.float32),
    "bias": np.ones(3, np.float32),
    "support": (
        np.ones((4, 4), np.float32),
        np.ones((4, 3), np.float32),
        np.ones((4, 4), np.float32),
        np.array([2, 3], np.int32),
    ),
    "candidates": None,
    "side": "sketch",
    "negatives": "support",
    "step_sizes": np.ones(2, np.float32),
    "margin": 0.3,
    "margin_net": None,
    "sharpness": 10.0,
}


def support_with(place: int, value: np.ndarray) -> tuple[np.ndarray, ...]:
    parts = list(GOOD["support"])  # type: ignore[call-overload]
    parts[place] = value
    return tuple(parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": np.ones((3, 4), np.float16)}, "weight is float16"),
        ({"weight": np.ones((3, 4))}, "bias is float32"),
        ({"bias": np.ones(2, np.float32)}, r"\[D\] with D = 3"),
        ({"support": (1, 2)}, "2 parts"),
        ({"support": support_with(0, np.ones((4, 5), np.float32))}, "C = 4"),
        ({"support": support_with(1, np.ones((4, 2), np.float32))}, r"outputs .* D = 3"),
        ({"support": support_with(2, np.ones((4, 5), np.float32))}, r"gram .* m = 4"),
        ({"support": support_with(3, np.array([2, 3]))}, "photo_of is int64"),
        ({"support": support_with(3, np.array([2, 4], np.int32))}, r"photo_of\[1\] is 4, expected the row of a photo, 2 to 3"),
        ({"support": support_with(3, np.array([2, 1], np.int32))}, r"photo_of\[1\] is 1"),
        ({"support": support_with(3, np.arange(5, dtype=np.int32))}, "5 pairs cannot have 4 rows"),
        ({"candidates": np.ones((2, 3), np.float32), "fold_pairs": 1}, r"candidates .* C = 4"),
        ({"side": "left"}, "side is 'left'"),
        ({"negatives": "none"}, "negatives is 'none'"),
        ({"form": "best"}, "form is 'best'"),
        ({"margin": float("nan")}, "no margin network; give a number"),
        ({"margin_net": np.ones(10, np.float32)}, "margin_net is float32"),
        ({"margin_net": np.ones(9)}, "margin_net is float64"),
        ({"sharpness": -1.0}, "sharpness is -1"),
        ({"momentum": float("inf")}, "momentum is inf"),
        ({"centre": -1.0}, "centre is -1"),
        ({"centre": float("nan")}, "centre is nan"),
    ],
)
def test_adapt_support_refuses(change: dict[str, object], message: str) -> None:
    _native.adapt_support(**GOOD)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        _native.adapt_support(**{**GOOD, **change})  # type: ignore[arg-type]


def test_options_refuse_momentum_out_of_range() -> None:
    for momentum in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="momentum"):
            AdaptOptions(momentum=momentum)
