"""Fitting confidence: figures with known answers, fair searches, and the command from a folder to a bundle."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from export import bundle as export_bundle
from fgsbir_edge.arrays import normalised
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.confidence import SHORTLIST
from fgsbir_edge.confidence_fit import ABSENT, BEHIND
from fgsbir_edge.engine import Engine
from fgsbir_edge.head import Head
from tests.toy import FEATURES, toy_head
from training.confidence import __main__ as command
from training.confidence.data import Domain, Pool
from training.confidence.figures import accuracy_at, auroc, bins_of, brier, ece, sure_from, turned_away
from training.confidence.forms import FORMS
from training.confidence.study import balanced, crossed, left_out
from training.confidence.trials import Trials, draw, draw_adapted

HALF = np.array([0.1, 0.1, 0.9, 0.9])
YES = np.array([False, True, True, True])


def test_figures_with_known_answers() -> None:
    assert bins_of(HALF, YES, 2) == [
        {"predicted": pytest.approx(0.1), "happened": 0.5, "count": 2},
        {"predicted": pytest.approx(0.9), "happened": 1.0, "count": 2},
    ]
    assert ece(HALF, YES, 2) == pytest.approx((0.4 + 0.1) / 2)
    assert brier(HALF, YES) == pytest.approx((0.01 + 0.81 + 0.01 + 0.01) / 4)
    assert auroc(HALF, YES) == pytest.approx((0.5 + 1 + 1) / 3)
    assert np.isnan(auroc(HALF, np.ones(4, np.bool_)))
    assert accuracy_at(HALF, YES, 0.5) == 1.0
    assert accuracy_at(HALF, YES, 1.0) == 0.75


def test_thresholds_keep_what_they_promise() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(2000)
    right = rng.random(2000) < first
    threshold = sure_from(first, right, 0.1)
    assert 1 - right[first >= threshold].mean() <= 0.1
    assert 1 - right[first >= threshold - 0.05].mean() > 0.1
    assert sure_from(first, np.zeros(2000, np.bool_), 0.1) == 1.0
    places = np.where(right, 0, ABSENT)
    assert (first[right] < turned_away(first, places, 0.05)).mean() == pytest.approx(0.05, abs=1e-3)


def domain(name: str, seed: int, noise: float = 1.8) -> Domain:
    """Sketches near their photos, 80 photos of two kinds, by the toy head."""
    rng = np.random.default_rng(seed)
    photos = normalised(rng.normal(size=(80, FEATURES)).astype(np.float32))
    head: Head = toy_head()
    truth = np.repeat(np.arange(24), 3)
    sketches = photos[truth] + noise * normalised(rng.normal(size=(72, FEATURES)).astype(np.float32))
    kinds = np.where(np.arange(80) < 30, "bird", "car")
    pool = Pool(tuple(f"{n}.png" for n in range(80)), kinds, photos, head.embed(photos))
    return Domain(name, head, sketches, truth, np.array([f"{name}{n}" for n in truth]), np.full(72, f"{name} people"), pool)


def test_searches_are_what_a_gallery_would_answer() -> None:
    one = domain("a", 0, noise=4.0)
    trials = draw(one, 12, 0)
    places, sizes, near = trials.searches.places, trials.searches.sizes, trials.searches.similarities
    assert 0.4 < np.mean(places == ABSENT) < 0.6
    assert (sizes.min(), sizes.max() > SHORTLIST) == (2, True)
    assert (places == BEHIND).any()
    filled = np.where(np.isfinite(near), near, -np.inf)
    assert np.all(filled[:, :-1] >= filled[:, 1:])
    queries = one.head.embed(one.sketches)
    which = np.tile(np.arange(len(queries)), 12)
    own = np.einsum("qd,qd->q", queries[which], one.pool.embeddings[one.truth[which]])
    shown = (places >= 0) & (places < BEHIND)
    assert near[shown, places[shown]] == pytest.approx(own[shown], abs=1e-6)
    assert not np.any(near[places == ABSENT] == own[places == ABSENT, None])


def test_adapted_searches_ask_for_other_photos_and_say_on_how_many_pairs() -> None:
    one = domain("a", 0)
    trials = draw_adapted(one, 4, 0)
    assert set(trials.pairs.tolist()) <= {0, 1, 3, 5, 10}
    assert np.array_equal(trials.searches.adapted, trials.pairs > 0)
    assert (trials.pairs > 0).any()


def test_fits_are_judged_on_units_and_domains_they_have_not_seen() -> None:
    trials = Trials.joined([draw(domain("a", 0), 4, 0), draw(domain("b", 1), 4, 0)])
    seen: list[set[str]] = []

    def form(rest: Trials, weights: np.ndarray):  # type: ignore[no-untyped-def]
        assert len(weights) == len(rest)
        seen.append(set(rest.units))
        return lambda searches: np.zeros((len(searches), SHORTLIST + 2))

    crossed(trials, form)
    assert len(seen) == 5
    assert all(len(units) < 48 for units in seen)
    assert all(sum(unit in units for units in seen) == 4 for unit in set(trials.units))
    seen.clear()
    left_out(trials, form)
    assert [{unit[0] for unit in units} for units in seen] == [{"b"}, {"a"}]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_gives_probabilities_that_tell_more_than_the_mean(form) -> None:  # type: ignore[no-untyped-def]
    trials, fresh = draw(domain("a", 0), 12, 0), draw(domain("b", 1), 12, 0)
    shares = form(trials, balanced(trials))(fresh.searches)
    assert shares.sum(axis=1) == pytest.approx(1)
    right = fresh.searches.places == 0
    assert shares.min() >= 0
    assert brier(shares[:, 0], right) < 0.95 * brier(np.full(len(fresh), right.mean()), right)


def test_domains_weigh_the_same() -> None:
    trials = Trials.joined([draw(domain("a", 0), 1, 0), draw(domain("b", 1), 3, 0), draw_adapted(domain("b", 1), 2, 0)])
    weights = balanced(trials)
    sums = [weights[(trials.domains == name) & (trials.pairs == 0)].sum() for name in ("a", "b")]
    assert sums[0] == pytest.approx(sums[1])
    assert weights.mean() == pytest.approx(1)


def test_from_a_folder_to_a_bundle(
    bundle_path: Path, data_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out, cache = tmp_path / "results" / "c.json", tmp_path / "cache"
    words = ["confidence", "--model", str(bundle_path), "--data", str(data_path), "--turns", "60", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*words, "--cache", str(cache)])
    assert command.main() == 0
    found, shown = json.loads(out.read_text()), json.loads(capfd.readouterr().out)
    assert found["confidence"] == shown
    assert str(tmp_path) not in out.read_text()
    kept = sorted(path.name for path in cache.iterdir())
    assert len(kept) == 2
    out.unlink()
    assert command.main() == 0
    assert json.loads(out.read_text()) == found
    assert sorted(path.name for path in cache.iterdir()) == kept
    target = tmp_path / "sure"
    monkeypatch.setattr(sys, "argv", ["bundle", "--bundle", str(bundle_path), "--confidence", str(out), "--out", str(target)])
    assert export_bundle.main() == 0
    before, after = Bundle.load(bundle_path), Bundle.load(target)
    assert after.confidence is not None
    assert after.confidence.to_manifest() == shown
    assert (after.features_digest, after.head.digest, after.name) == (before.features_digest, before.head.digest, before.name)
    with Engine.open(photos=data_path / "photos", bundle=target, threads=1) as engine:
        assert engine.search(data_path / "sketches" / "ann" / "4.png", 3).known is not None


@pytest.mark.parametrize("content", ["{}", "[]", "nothing", '{"confidence": {"version": 9, "form": "softmax"}}'])
def test_a_file_without_constants(
    content: str, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.json").write_text(content)
    words = ["--bundle", str(bundle_path), "--confidence", str(tmp_path / "c.json"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["bundle", *words])
    assert export_bundle.main() == 21
    assert "training.confidence" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_twin_needs_its_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["confidence", "--model", "m", "--data", "d", "--twin", "t", "--out", str(tmp_path / "o")])
    with pytest.raises(SystemExit):
        command.main()
