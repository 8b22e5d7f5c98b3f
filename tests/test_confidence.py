"""Confidence: the formula, what must not change with it, and its way through bundles, engine and command line."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.cli import main
from fgsbir_edge.confidence import SHORTLIST, Answer, Confidence, answer
from fgsbir_edge.confidence_fit import ABSENT, FIXED, WEAK, Searches, fit, padded, probabilities
from fgsbir_edge.confidence_own import calibrated, searches_for
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import BundleFormatError, NonFiniteError, NoPairsError, UnknownPhotoError
from fgsbir_edge.gallery import Hit
from fgsbir_edge.head import Adapter
from fgsbir_edge.pairs import DataFolder

CONSTANTS = Confidence((8.0, 0.4, -2.0), (5.0, 0.5), (2.0, 0.5, 4.0, 3.0, -0.5), 0.3, 0.9, provenance={"data": "made up"})


def drawn(count: int, seed: int = 0, constants: Confidence = CONSTANTS) -> Searches:
    """Searches whose outcomes are drawn with just the probabilities that ``constants`` give."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(np.log(2), np.log(2000), count)).astype(np.int64)
    rows = np.stack([padded(np.sort(rng.normal(0.2, 0.15, min(size, SHORTLIST)))[::-1].tolist()) for size in sizes])
    blank = Searches(rows, sizes, np.full(count, ABSENT), rng.random(count) < 0.3)
    shares = probabilities(constants, blank)
    places = np.array([rng.choice(SHORTLIST + 2, p=row) for row in shares])
    return replace(blank, places=np.where(places == SHORTLIST + 1, ABSENT, places))


def slope_at(size: int, constants: Confidence) -> float:
    return constants.slope[0] + constants.slope[1] * math.log(size)


def test_the_formula() -> None:
    slope = 8 + 0.4 * math.log(100)
    weights = [math.exp(slope * 0.6), math.exp(slope * 0.4), math.exp(slope * 0.1)]
    behind = math.exp(slope * 0.1 + 5.0 + 0.5 * math.log(97 / 3))
    absent = math.exp(2.0 + 0.5 * math.log(100) + 4.0 * 0.25 + 3.0 * 0.15)  # others: mean 0.25, deviation 0.15
    total = sum(weights) + behind + absent
    found = CONSTANTS.assess([0.6, 0.4, 0.1], 100)
    assert found.hits == pytest.approx([weight / total for weight in weights])
    assert (found.behind, found.absent) == pytest.approx((behind / total, absent / total))
    assert found.in_gallery == pytest.approx(1 - absent / total)
    assert found.among(2) == pytest.approx(sum(weights[:2]) / total)


def test_the_formula_of_an_adapted_search_in_a_gallery_of_one() -> None:
    photo, absent = math.exp(6 * 0.5), math.exp(2.0 - 0.5)
    found = CONSTANTS.assess([0.5], 1, adapted=True)
    assert found.hits == pytest.approx([photo / (photo + absent)])
    assert found.behind == 0


@pytest.mark.parametrize("size", [SHORTLIST, 10**6])
def test_huge_slopes_do_not_overflow(size: int) -> None:
    found = replace(CONSTANTS, slope=(1e6, 1.0, 0.0)).assess([0.9] * SHORTLIST, size)
    assert sum(found.hits) + found.behind + found.absent == pytest.approx(1)


def test_nearer_first_hits_and_smaller_galleries_are_surer() -> None:
    rest = [0.3, 0.2, 0.1]
    sure = [CONSTANTS.assess([first, *rest], 50).hits[0] for first in np.linspace(0.3, 1.0, 30)]
    assert sure == sorted(sure)
    by_size = [CONSTANTS.assess([0.6, *rest], size) for size in (4, 5, 10, 1000, 10**6)]
    assert [one.hits[0] for one in by_size] == sorted((one.hits[0] for one in by_size), reverse=True)
    assert len({one.hits[0] for one in by_size}) == 5


def test_hits_are_as_sure_as_they_are_near_and_ties_share() -> None:
    found = CONSTANTS.assess([0.5, 0.5, 0.4], 3)
    assert found.hits[0] == found.hits[1] > found.hits[2]


def test_what_comes_behind_the_shortlist_is_not_looked_at() -> None:
    near = np.linspace(0.8, 0.1, SHORTLIST).tolist()
    assert CONSTANTS.assess([*near, 0.05, float("nan")], 100) == CONSTANTS.assess(near, 100)


def test_an_expected_share_moves_the_odds_and_not_what_is_turned_away() -> None:
    rare = replace(CONSTANTS, absent_share=0.1)
    for first in (0.2, 0.4, 0.6):
        common, other = (one.assess([first, 0.2], 40).absent for one in (CONSTANTS, rare))
        assert other / (1 - other) == pytest.approx(common / (1 - common) / 9)
        assert (1 - common >= CONSTANTS.threshold) == (1 - other >= rare.threshold)


@pytest.mark.parametrize(
    ("near", "size", "error"),
    [
        ([], 10, ValueError),
        ([0.5, 0.4], 1, ValueError),
        ([0.1, 0.9], 2, ValueError),
        ([0.5, float("nan")], 9, NonFiniteError),
        ([float("inf"), 0.1], 9, NonFiniteError),
    ],
)
def test_bad_similarities(near: list[float], size: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        CONSTANTS.assess(near, size)


@pytest.mark.parametrize(
    "bad",
    [
        {"slope": (float("nan"), 0.0, 0.0)},
        {"slope": (0.0, 0.0, 0.0)},
        {"slope": (8.0, 0.0, -8.0)},
        {"slope": (8.0, -0.5, 0.0)},
        {"slope": (8.0, 0.0)},
        {"behind": (1.0,)},
        {"absent": (1.0, float("inf"), 0.0, 0.0, 0.0)},
        {"none_below": 1.5},
        {"sure_from": float("nan")},
        {"absent_share": 0.0},
        {"absent_share": 1.0},
    ],
)
def test_bad_constants(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="confidence"):
        replace(CONSTANTS, **bad)


def test_the_fit_and_the_formula_agree() -> None:
    searches = drawn(300)
    for constants in (CONSTANTS, replace(CONSTANTS, absent_share=0.2)):
        shares = probabilities(constants, searches)
        for row, share in enumerate(shares):
            near = searches.similarities[row]
            near = near[np.isfinite(near)].tolist()
            found = constants.assess(near, int(searches.sizes[row]), adapted=bool(searches.adapted[row]))
            assert share[: len(near)] == pytest.approx(found.hits)
            assert share[len(near) : SHORTLIST] == pytest.approx(0)
            assert share[SHORTLIST:] == pytest.approx([found.behind, found.absent])


def test_a_fit_recovers_the_probabilities_that_outcomes_were_drawn_with() -> None:
    fitted, fresh = fit(drawn(6000)), drawn(500, seed=1)
    assert np.abs(probabilities(fitted, fresh) - probabilities(CONSTANTS, fresh)).max() < 0.1
    assert slope_at(100, fitted) == pytest.approx(slope_at(100, CONSTANTS), rel=0.1)


def likelihood(constants: Confidence, searches: Searches) -> float:
    label = np.where(searches.places == ABSENT, SHORTLIST + 1, searches.places)
    return float(np.log(probabilities(constants, searches)[np.arange(len(searches)), label]).sum())


def test_a_fit_is_at_the_top() -> None:
    searches = drawn(2000)
    fitted = fit(searches)
    for name in ("slope", "behind", "absent"):
        for place, value in enumerate(getattr(fitted, name)):
            for change in (-0.02, 0.02):
                values = list(getattr(fitted, name))
                values[place] = value + change
                assert likelihood(replace(fitted, **{name: tuple(values)}), searches) < likelihood(fitted, searches)


def test_few_searches_stay_near_the_start() -> None:
    other = replace(CONSTANTS, slope=(20.0, 0.4, -2.0))
    held = fit(drawn(30, constants=other), start=CONSTANTS, spread=(FIXED,) * len(WEAK))
    assert held.slope + held.absent == pytest.approx(CONSTANTS.slope + CONSTANTS.absent)
    free = fit(drawn(3000, constants=other), start=CONSTANTS, spread=WEAK)
    assert slope_at(100, free) == pytest.approx(slope_at(100, other), rel=0.1)


def test_searches_that_ask_for_farther_photos_are_refused() -> None:
    searches = drawn(300)
    with pytest.raises(ValueError, match="nearer photos must be likelier"):
        fit(replace(searches, places=np.minimum(searches.sizes, SHORTLIST) - 1))


def test_weights_count_as_repeats() -> None:
    searches = drawn(400)
    some = np.arange(len(searches)) < 100
    fields = ("similarities", "sizes", "places", "adapted")
    twice = Searches(*(np.concatenate([getattr(searches, name), getattr(searches, name)[some]]) for name in fields))
    weighted, repeated = fit(searches, 1.0 + some), fit(twice)
    assert weighted.absent == pytest.approx(repeated.absent, rel=1e-3)


@pytest.mark.parametrize(
    "change", [{"places": np.array([5])}, {"places": np.array([-2])}, {"sizes": np.array([9])}, {"sizes": np.array([1])}]
)
def test_searches_that_contradict_themselves(change: dict[str, Any]) -> None:
    good = Searches(padded([0.5, 0.4])[None], np.array([2]), np.array([0]), np.array([False]))
    with pytest.raises(ValueError, match=r"similarities must|places must"):
        replace(good, **change)
    with pytest.raises(ValueError, match="no searches"):
        fit(Searches(np.empty((0, SHORTLIST), np.float32), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.bool_)))


def hits(scores: list[float], among: int) -> list[Hit]:
    return [Hit(f"{n}.png", n, n + 1, math.sqrt(2 - 2 * score), None, among) for n, score in enumerate(scores)]


def test_score_is_the_cosine() -> None:
    assert [hit.score for hit in hits([1.0, 0.25, -1.0], 3)] == pytest.approx([1.0, 0.25, -1.0])


def test_an_answer_keeps_its_hits_whether_known_or_not() -> None:
    found = hits([0.5, 0.2, 0.1], 3)
    expected = CONSTANTS.assess([hit.score for hit in found], 3)
    for threshold, known in ((expected.in_gallery, True), (expected.in_gallery + 1e-9, False)):
        one = answer(found, 2, CONSTANTS, none_below=threshold)
        assert [hit.name for hit in one] == ["0.png", "1.png"]
        assert [hit.confidence for hit in one] == pytest.approx(list(expected.hits[:2]))
        assert (one.in_gallery, one.known) == (expected.in_gallery, known)
        assert one.shown == pytest.approx(expected.among(2))
    assert answer(found, 3, CONSTANTS).known is (expected.in_gallery >= 0.3)
    assert answer(found, 1, replace(CONSTANTS, sure_from=expected.hits[0])).sure is True
    assert answer(found, 1, replace(CONSTANTS, sure_from=1.0)).sure is False
    with pytest.raises(ValueError, match="none_below"):
        answer(found, 1, CONSTANTS, none_below=float("nan"))


def test_hits_behind_the_shortlist_have_no_confidence() -> None:
    found = hits(np.linspace(0.9, 0.1, 60).tolist(), 60)
    one = answer(found, 55, CONSTANTS)
    assert [hit.confidence is None for hit in one] == [False] * SHORTLIST + [True] * 5


def test_an_adapter_that_changes_nothing_is_none(bundle: Bundle) -> None:
    found = hits([0.5, 0.2], 2)
    still = Adapter.identity(bundle.head)
    moved = replace(still, sketch_shift=np.ones(len(still.coefficients), np.float32))
    assert answer(found, 2, CONSTANTS, adapter=still) == answer(found, 2, CONSTANTS)
    assert answer(found, 2, CONSTANTS, adapter=moved) != answer(found, 2, CONSTANTS)


@pytest.mark.parametrize(("among", "constants"), [(2, None), (0, CONSTANTS)])
def test_without_constants_or_size_there_is_no_confidence(among: int, constants: Confidence | None) -> None:
    one = answer(hits([0.5, 0.2], among), 1, constants)
    assert isinstance(one, Answer)
    assert (len(one), one[0].confidence, one.in_gallery, one.known, one.sure, one.shown) == (1, None, None, None, None, None)


@pytest.fixture
def sure(bundle: Bundle, tmp_path: Path) -> Path:
    """The toy bundle with constants."""
    replace(bundle, confidence=CONSTANTS).save(tmp_path / "sure")
    return tmp_path / "sure"


def test_bundles_carry_the_constants(sure: Path, bundle: Bundle) -> None:
    loaded = Bundle.load(sure)
    assert loaded.confidence == CONSTANTS
    assert loaded.features_digest == bundle.features_digest
    assert bundle.confidence is None
    loaded.save(sure)
    assert Bundle.load(sure).confidence == CONSTANTS


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(confidence=[]),
        lambda manifest: manifest.update(confidence=None),
        lambda manifest: manifest["confidence"].pop("slope"),
        lambda manifest: manifest["confidence"].pop("version"),
        lambda manifest: manifest["confidence"].update(slope=[-1, 0, 0]),
        lambda manifest: manifest["confidence"].update(slope="abc"),
        lambda manifest: manifest["confidence"].update(absent=3),
        lambda manifest: manifest["confidence"].update(absent=[1, 2, 3, 4, None]),
        lambda manifest: manifest["confidence"].update(behind=[1, 2, 3]),
        lambda manifest: manifest["confidence"].update(none_below=float("nan")),
        lambda manifest: manifest["confidence"].update(provenance=7),
    ],
)
def test_bad_constants_in_a_manifest(sure: Path, change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(BundleFormatError, match=r"manifest\.json"):
        Bundle.load(edited(sure, change))


@pytest.mark.parametrize("newer", [{"version": 2}, {"form": "forest"}])
def test_constants_of_a_newer_kind_are_passed_over(sure: Path, newer: dict[str, Any]) -> None:
    assert Bundle.load(edited(sure, lambda manifest: manifest["confidence"].update(newer))).confidence is None


def test_the_engine_assesses_more_than_it_shows(sure: Path, data_path: Path) -> None:
    sketch = data_path / "sketches" / "ann" / "4.png"
    with Engine.open(photos=data_path / "photos", bundle=sure, threads=1) as engine:
        one = engine.search(sketch, 3)
        every = engine.search(sketch, len(engine.gallery))
        part = engine.search(sketch, 3, category="odd")
        engine.confidence = None
        plain = engine.search(sketch, 3)
    assert [hit.confidence for hit in one] == [hit.confidence for hit in every[:3]]
    assert one.in_gallery == every.in_gallery == pytest.approx(every.shown)
    assert {hit.among for hit in every} == {len(every)}
    assert part[0].among == len(every) // 2
    assert [hit._replace(confidence=None) for hit in one] == plain
    assert plain.known is None


def test_the_command_line_says_none_of_these(sure: Path, data_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    query = ["query", data_path / "sketches" / "ann" / "4.png", "--photos", data_path / "photos", "--bundle", sure, "--top", "3"]

    def run(*more: str) -> tuple[str, str]:
        assert main([str(word) for word in [*query, *more]]) == 0
        return capfd.readouterr()

    out, err = run("--none-below", "1")
    rows = [line.split("\t") for line in out.splitlines()]
    assert [len(row) for row in rows] == [5, 5, 5]
    assert "perhaps none of these: only " in err
    assert " % sure that the photo you mean is in the gallery" in run("--none-below", "0")[1]
    facts = json.loads(run("--json", "--none-below", "1")[0])
    assert facts["known"] is False
    assert facts["hits"][0]["confidence"] == pytest.approx(float(rows[0][4]), abs=1e-3)
    assert facts["hits"][0]["score"] == pytest.approx(1 - facts["hits"][0]["distance"] ** 2 / 2, abs=1e-5)
    with pytest.raises(SystemExit):
        main([str(word) for word in [*query, "--none-below", "7"]])


def test_the_released_bundle_has_constants(tmp_path: Path) -> None:
    released = Bundle.default()
    assert released.confidence is not None
    assert released.confidence.provenance["model"]["head"] == released.head.digest
    without = edited(shutil.copytree(str(released.path), tmp_path / "old"), lambda manifest: manifest.pop("confidence"))
    old = Bundle.load(without)
    assert (old.confidence, old.features_digest, old.name) == (None, released.features_digest, released.name)


def test_own_pairs_move_the_constants_towards_what_they_say(sure: Path, data_path: Path) -> None:
    sketches = sorted((data_path / "sketches" / "ann").iterdir())
    names = {pair.sketch: pair.photo for pair in DataFolder.open(data_path).pairs}
    pairs = [(path, names[f"ann/{path.name}"]) for path in sketches] * 2
    with Engine.open(photos=data_path / "photos", bundle=sure, threads=1) as engine:
        searches = searches_for(engine, pairs)
        assert searches.places[1::2].tolist() == [ABSENT] * len(pairs)
        assert searches.sizes.tolist() == [len(engine.gallery), len(engine.gallery) - 1] * len(pairs)
        for (sketch, photo), row, place in zip(pairs, searches.similarities[::2], searches.places[::2], strict=True):
            found = engine.search(sketch, len(engine.gallery))
            assert found[int(place)].name == photo
            assert row[: len(found)] == pytest.approx([hit.score for hit in found], abs=1e-6)
        own = calibrated(engine, pairs)
        assert own.none_below == CONSTANTS.none_below
        assert likelihood(own, searches) > likelihood(CONSTANTS, searches)
        with pytest.raises(NoPairsError, match="at least 20"):
            calibrated(engine, pairs[:5])
        with pytest.raises(UnknownPhotoError):
            calibrated(engine, [(sketches[0], "nothing.png")] * 20)
        engine.confidence = None
        with pytest.raises(BundleFormatError, match="no constants"):
            calibrated(engine, pairs)
