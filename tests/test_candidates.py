"""Photos that the guard ranks among, embedded once: the same verdicts, and never those of another gallery or head."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgsbir_edge import candidates as module
from fgsbir_edge.adapt import AdaptOptions, adapt
from fgsbir_edge.adapt_many import Person, adapt_many
from fgsbir_edge.arrays import Float32
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.candidates import Candidates, Guarded
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import AdapterMismatchError, EmptyGalleryError, NonFiniteError, ShapeError
from fgsbir_edge.head import Head


def rows(rng: np.random.Generator, count: int, head: Head) -> Float32:
    return rng.normal(size=(count, head.features)).astype(np.float32)


@pytest.mark.parametrize("side", ["sketch", "both"])
@pytest.mark.parametrize("held", [0, 3, 5])  # how many of the pairs' photos the candidates hold
def test_what_is_embedded_already_gives_the_same_verdict(bundle: Bundle, side: str, held: int) -> None:
    head, rng = bundle.head, np.random.default_rng(held)
    sketches, photos, others = (rows(rng, count, head) for count in (5, 5, 200))
    found = np.concatenate([others[:77], photos[:held], others[77:]])
    options = AdaptOptions(side=side, steps=3)  # type: ignore[arg-type]
    plain = adapt(head, sketches, photos, candidates=found, options=options)
    kept = adapt(head, sketches, photos, candidates=Candidates.of(head, found), options=options)
    assert kept.guard == plain.guard
    assert plain.guard.candidates == 200 + 5
    assert plain.guard.base_rank != plain.guard.adapted_rank
    np.testing.assert_array_equal(kept.adapter.coefficients, plain.adapter.coefficients)
    many = adapt_many(head, [Person(sketches, photos)] * 2, candidates=Candidates.of(head, found), options=options)
    assert [one.guard for one in many] == [plain.guard] * 2


def test_outputs_are_those_that_count(bundle: Bundle) -> None:
    """Swapped among the candidates, they change the ranks: so nothing is embedded a second time."""
    head, rng = bundle.head, np.random.default_rng(0)
    sketches, photos, others = (rows(rng, count, head) for count in (5, 5, 100))
    right = Candidates.of(head, np.concatenate([photos, others]))
    wrong = replace(right, outputs=np.ascontiguousarray(right.outputs[::-1]))
    assert adapt(head, sketches, photos, candidates=right).guard != adapt(head, sketches, photos, candidates=wrong).guard


def test_candidates_of_another_head_are_refused(bundle: Bundle) -> None:
    head, rng = bundle.head, np.random.default_rng(0)
    kept = Candidates.of(replace(head, weight=head.weight + 1), rows(rng, 9, head))
    with pytest.raises(AdapterMismatchError, match="embedded by head"):
        adapt(head, rows(rng, 3, head), rows(rng, 3, head), candidates=kept)


def test_bad_candidates_are_refused(bundle: Bundle) -> None:
    head, rng = bundle.head, np.random.default_rng(0)
    with pytest.raises(ShapeError, match="candidates"):
        Candidates.of(head, np.zeros((3, head.features + 1), np.float32))
    bad = rows(rng, 3, head)
    bad[1, 2] = np.nan
    with pytest.raises(NonFiniteError, match="candidates"):
        Candidates.of(head, bad)


@pytest.fixture
def engine(bundle: Bundle, tmp_path: Path) -> Engine:
    rng = np.random.default_rng(0)
    for number in range(9):
        folder = tmp_path / "photos" / ("chairs" if number < 5 else "shoes")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return Engine.open(bundle=bundle, photos=tmp_path / "photos", threads=1)


def test_a_gallery_embeds_them_once_and_again_when_it_changes(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def counted(head: Head, features: Float32) -> Candidates:
        made.append(len(features))
        return original(head, features)

    original = Candidates.of
    monkeypatch.setattr(Candidates, "of", counted)
    features = rows(np.random.default_rng(1), 3, engine.head)
    names = ["chairs/0.png", "chairs/1.png", "chairs/2.png"]
    photos = engine.photo_features(names)
    for _ in range(2):
        assert engine.adapt_features(features, photos).guard.candidates == 9
        assert engine.adapt_features(features, photos, category="chairs").guard.candidates == 5
    assert made == [9, 5]
    engine.adapt_features(features, photos, options=AdaptOptions(guard=False))
    assert made == [9, 5]
    with pytest.raises(EmptyGalleryError, match="category 'cups' has no photos"):
        engine.adapt_features(features, photos, category="cups", options=AdaptOptions(guard=False))
    engine.gallery.remove(["shoes/8.png"])
    assert engine.adapt_features(features, photos).guard.candidates == 8
    assert made == [9, 5, 8]
    engine.close()


def test_a_large_gallery_is_sampled_always_alike(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CANDIDATES", 6)
    one, other = (Guarded().candidates(engine.head, engine.gallery.index, None) for _ in range(2))
    assert one is not None
    assert other is not None
    assert len(one) == 6
    np.testing.assert_array_equal(one.features, other.features)
    everything = engine.gallery.index.features(np.arange(9))
    places = [int(np.flatnonzero((everything == row).all(axis=1))[0]) for row in one.features]
    assert places == sorted(set(places))
    engine.close()


def test_a_gallery_that_was_read_anew_is_let_go(engine: Engine) -> None:
    engine.adapt_features(rows(np.random.default_rng(1), 3, engine.head), engine.photo_features(["chairs/0.png"] * 3))
    old = weakref.ref(engine.gallery.index)
    engine.gallery.remove(["shoes/8.png"])
    assert len(engine.gallery.index.entries) == 8
    gc.collect()
    assert old() is None
    engine.close()


def test_few_categories_stay_in_memory(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 1)
    guarded, index = Guarded(), engine.gallery.index
    first = guarded.candidates(engine.head, index, "chairs")
    assert guarded.candidates(engine.head, index, "chairs") is first
    guarded.candidates(engine.head, index, "shoes")
    assert guarded.candidates(engine.head, index, "chairs") is not first
    engine.close()
