"""Centred sketches: the shift that a support takes from all sketches, in the native core, the adapter and its file."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fgsbir_edge._reference import adapt as twin
from fgsbir_edge.adapt import AdaptOptions, AdaptResult, adapt
from fgsbir_edge.arrays import normalised
from fgsbir_edge.gallery.search import PhotoIndex
from fgsbir_edge.head import Adapter, Head
from fgsbir_edge.inner import formed
from tests.toy import FEATURES, toy_head

PRIOR = 1.5


def pairs(k: int, seed: int = 0, common: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """k sketches that lie near their photos but for a direction that all of them share."""
    rng = np.random.default_rng(seed)
    photos = rng.normal(size=(k, FEATURES)).astype(np.float32)
    shared = common * rng.normal(size=FEATURES)
    return (photos + shared + 0.3 * rng.normal(size=photos.shape)).astype(np.float32), photos


def learn(head: Head, k: int = 4, **options: object) -> AdaptResult:
    return adapt(head, *pairs(k), options=AdaptOptions(**{"guard": False, **options}))  # type: ignore[arg-type]


@pytest.mark.parametrize("side", ["sketch", "both"])
@pytest.mark.parametrize("form_width", [8, 3], ids=["inner products", "outputs"])
def test_steps_begin_at_the_shifted_outputs(side: str, form_width: int) -> None:
    head = toy_head(step_sizes=[0.8, 0.5], side=side, centre=PRIOR)
    head = replace(head, weight=head.weight[:form_width], bias=head.bias[:form_width])
    sketches, photos = pairs(4)
    rows = np.concatenate([sketches, photos])
    outputs = rows.astype(np.float64) @ head.weight.T + head.bias
    shift = -outputs[:4].mean(axis=0) * 4 / (4 + PRIOR)
    outputs[:4] += shift
    triplets = np.array([(i, 4 + i, 4 + j) for i in range(4) for j in range(4) if i != j])
    moves = np.arange(8) < (8 if side == "both" else 4)
    gram = rows.astype(np.float64) @ rows.T + 1.0
    expected, _, losses = twin.adapt_in_span(outputs, gram, triplets, moves, head.step_sizes, (head.margin, head.sharpness))
    result = learn(head)
    assert result.adapter.sketch_shift is not None
    np.testing.assert_allclose(result.adapter.sketch_shift, shift, rtol=1e-5)
    np.testing.assert_allclose(result.losses, losses, rtol=1e-4)
    moving = expected[moves]
    np.testing.assert_allclose(result.adapter.coefficients.T, moving, atol=2e-5 * np.abs(moving).max())
    assert abs(losses[0] - learn(head, centre=math.inf).losses[0]) > 1e-3, "the shift shows in the first loss"


def test_sketches_alone_are_shifted() -> None:
    head = toy_head(side="both", centre=PRIOR)
    adapter = learn(head).adapter
    unshifted = replace(adapter, sketch_shift=None)
    sketches, photos = pairs(3, seed=5)
    assert adapter.sketch_shift is not None
    np.testing.assert_array_equal(adapter.embed(head, photos, "photo"), unshifted.embed(head, photos, "photo"))
    outputs = head.outputs(sketches) + unshifted.shift(sketches) + adapter.sketch_shift
    np.testing.assert_allclose(adapter.embed(head, sketches), normalised(outputs), atol=1e-6)
    assert adapter.digest != unshifted.digest
    alone = replace(Adapter.identity(head), sketch_shift=adapter.sketch_shift)
    assert alone.moves("sketch")
    assert not alone.moves("photo")
    for role in ("sketch", "photo"):
        written = formed(head, adapter, role)
        np.testing.assert_allclose(written.embed(sketches), adapter.embed(head, sketches, role), atol=1e-5)
    assert formed(head, alone, "photo") is head


def test_what_is_shared_is_taken_away() -> None:
    """Sketches that differ from their photos by one common direction find them once it is gone, and not before."""
    head = toy_head(centre=0.0)
    sketches, photos = pairs(12, common=4.0)
    ranks = []
    adapter = adapt(head, sketches[:6], photos[:6], options=AdaptOptions(steps=1, step_sizes=(0.0,))).adapter
    for embedded in (head.embed(sketches[6:]), adapter.embed(head, sketches[6:])):
        scores = embedded @ head.embed(photos).T
        ranks.append(np.mean([(row >= row[6 + i]).sum() for i, row in enumerate(scores)]))
    assert ranks[1] < 0.6 * ranks[0]


def test_one_photo_alone_is_enough_for_a_shift() -> None:
    """Without triplets there is no step, but what the sketches have in common is known."""
    sketches, photos = pairs(3)
    photos = photos[[0, 0, 0]]
    head = toy_head(centre=PRIOR)
    result = adapt(head, sketches, photos, candidates=pairs(9, seed=2)[1])
    assert (result.adapter.rank, result.status) == (0, "adapted")
    assert "several pairs" in result.guard.note
    guarded = adapt(head, *pairs(3), candidates=pairs(9, seed=2)[1], options=AdaptOptions(step_sizes=(0.0,)))
    assert guarded.guard.base_rank != guarded.guard.adapted_rank, "the guard looks at shifts too"
    unguarded = adapt(head, sketches, photos, options=AdaptOptions(guard=False))
    assert unguarded.status == "adapted"
    assert "have in common alone" in unguarded.explanation
    np.testing.assert_allclose(
        unguarded.adapter.sketch_shift, twin.centre_shift(head.outputs(sketches), PRIOR), rtol=1e-5, atol=1e-6
    )
    off = adapt(head, sketches, photos, options=AdaptOptions(centre=math.inf))
    assert (off.status, off.reason, off.adapter.sketch_shift) == ("kept-base", "no-negatives", None)


def test_files_keep_it(tmp_path: Path) -> None:
    head = toy_head(centre=PRIOR)
    again = Head.from_bytes(head.to_bytes())
    assert again.centre == PRIOR
    assert Head.from_bytes(toy_head().to_bytes()).centre == math.inf
    adapter = learn(head).adapter
    adapter.save(tmp_path / "a.safetensors")
    loaded = Adapter.load(tmp_path / "a.safetensors", head)
    np.testing.assert_array_equal(loaded.sketch_shift, adapter.sketch_shift)
    assert loaded.digest == adapter.digest
    assert loaded.meta["centre"] == "1.5"


def test_an_index_moves_photos_without_it() -> None:
    head = toy_head(side="both", centre=PRIOR)
    adapter = learn(head).adapter
    photos = pairs(5, seed=3)[1].astype(np.float16)
    items = [SimpleNamespace(name=str(i), category=None) for i in range(5)]
    index = PhotoIndex(items, photos)  # type: ignore[arg-type]
    expected = adapter.embed(head, photos.astype(np.float32), "photo")
    np.testing.assert_allclose(index.embeddings(head, adapter), expected, atol=1e-5)


@pytest.mark.parametrize("centre", [-0.5, math.nan])
def test_priors_out_of_range_are_refused(centre: float) -> None:
    with pytest.raises(ValueError, match="centre is"):
        AdaptOptions(centre=centre)
    with pytest.raises(ValueError, match="centre is"):
        toy_head(centre=centre)


def test_shift_of_another_width_is_refused() -> None:
    head = toy_head()
    with pytest.raises(ValueError, match="sketch_shift has 17 entries"):
        replace(Adapter.identity(head), sketch_shift=np.zeros(head.embedding + 1, np.float32))
