"""Search through every backend and storage: the same answers as brute force, ties and categories included."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fgsbir_edge import _native
from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import DeviceError, FaissMissingError
from fgsbir_edge.gallery.flat import FaissFlat, SearchOptions, chosen
from fgsbir_edge.gallery.nearest import Question, best, nearest
from fgsbir_edge.gallery.search import Hit, PhotoIndex
from fgsbir_edge.head import Adapter, Head
from tests.fake_cupy_arrays import install_cupy
from tests.toy import EMBEDDING, FEATURES, toy_head

COUNT = 700
SETTINGS = {
    "native": SearchOptions(backend="native"),
    "native float16": SearchOptions(backend="native", storage="float16", threads=2),
    "numpy": SearchOptions(backend="numpy"),
    "cupy": SearchOptions(backend="cupy"),
    "cupy float16": SearchOptions(backend="cupy", storage="float16"),
    "faiss": SearchOptions(backend="faiss"),
    "faiss float16": SearchOptions(backend="faiss", storage="float16"),
    "faiss int8": SearchOptions(backend="faiss", storage="int8", threads=2),
}


SETTINGS_REFUSED = [
    {"backend": "best"},
    {"storage": "int4"},
    {"threads": 0},
    {"shortlist": 0},
    {"shortlist": "all"},
    {"backend": "numpy", "storage": "float16"},
    {"backend": "native", "storage": "int8"},
]


@pytest.fixture(params=SETTINGS, ids=SETTINGS)
def options(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SearchOptions:
    chosen = SETTINGS[request.param]
    if chosen.backend == "cupy":
        install_cupy(monkeypatch)
    if chosen.backend == "faiss":
        pytest.importorskip("faiss", reason="faiss is not installed: pip install 'fgsbir-edge[search]'")
    return chosen


def photos(seed: int = 0, count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, FEATURES)).astype(np.float16)


def index(features: np.ndarray, options: SearchOptions) -> PhotoIndex:
    items = [SimpleNamespace(name=f"{i}", id=i, category="even" if i % 2 == 0 else "odd") for i in range(len(features))]
    return PhotoIndex(items, features, options)  # type: ignore[arg-type]


def adapter(head: Head, side: str, strength: float = 0.1) -> Adapter:
    rng = np.random.default_rng(8)
    change = strength * rng.normal(size=(EMBEDDING, 4))
    return Adapter(head.digest, change, rng.normal(size=(4, FEATURES)), side)  # type: ignore[arg-type]


def places(hits: list[Hit]) -> list[int]:
    return [hit.id for hit in hits]


def by_force(queries: Float32, rows: Float32, k: int, allowed: range | None = None) -> list[list[int]]:
    """Float64, ties within 1e-6 in ascending order."""
    scores = queries.astype(np.float64) @ rows.astype(np.float64).T
    answers = []
    for row in scores:
        which = list(allowed or range(len(row)))
        which.sort(key=lambda place: -row[place])
        runs = np.cumsum([0, *(row[a] - row[b] > 1e-6 for a, b in itertools.pairwise(which))])
        answers.append([place for _, place in sorted(zip(runs.tolist(), which, strict=True))][:k])
    return answers


@pytest.mark.parametrize("side", [None, "sketch", "both"])
@pytest.mark.parametrize("k", [1, 10, COUNT, 2 * COUNT])
def test_answers_are_those_of_brute_force(options: SearchOptions, side: str | None, k: int) -> None:
    head, features = toy_head(), photos()
    changed = None if side is None else adapter(head, side)
    sketches = photos(1, 6).astype(np.float32)
    queries = head.embed(sketches) if changed is None else changed.embed(head, sketches)
    rows = head.embed(features) if changed is None else changed.embed(head, features, "photo")
    found = index(features, options).search(sketches, k, head=head, adapter=changed)
    assert [places(hits) for hits in found] == by_force(queries, rows, k)
    assert [hit.rank for hit in found[0]] == list(range(1, min(k, COUNT) + 1))
    nearest_one = np.linalg.norm(queries[0] - rows[found[0][0].id])
    assert found[0][0].distance == pytest.approx(nearest_one, abs=1e-3)


def test_categories_are_kept_apart(options: SearchOptions) -> None:
    head, features = toy_head(), photos()
    photo_index = index(features, options)
    sketches = photos(1, 4).astype(np.float32)
    found = photo_index.search(sketches, 7, head=head, places=photo_index.select("odd"))
    assert [places(hits) for hits in found] == by_force(head.embed(sketches), head.embed(features), 7, range(1, COUNT, 2))


def test_near_ties_beyond_what_is_stored(options: SearchOptions) -> None:
    """Hundreds of photos that 8 bits and float16 cannot tell apart: rounding must not decide."""
    head = toy_head()
    rng = np.random.default_rng(4)
    features = np.repeat(photos(0, 1), COUNT, axis=0).astype(np.float32)
    features += 0.003 * rng.normal(size=features.shape).astype(np.float32)
    sketches = photos(0, 1).astype(np.float32)
    stored = features.astype(np.float16)
    found = index(stored, options).search(sketches, 5, head=head)
    rows, query = head.embed(stored), head.embed(sketches)
    scores = (query.astype(np.float64) @ rows.astype(np.float64).T)[0]
    assert scores[places(found[0])].min() >= np.sort(scores)[-5] - 2e-6


def test_equal_photos_come_in_gallery_order(options: SearchOptions) -> None:
    features = np.repeat(photos(0, 3), [400, 1, 1], axis=0)[::-1].copy()
    found = index(features, options).search(photos(0, 1).astype(np.float32), 6, head=toy_head())
    assert places(found[0]) == [2, 3, 4, 5, 6, 7]


def test_a_shortlist_is_exact_where_it_holds_all_and_close_where_it_does_not(options: SearchOptions) -> None:
    head, features = toy_head(), photos()
    changed = adapter(head, "both", 0.03)
    sketches = photos(1, 20).astype(np.float32)
    settings = {"backend": options.backend, "storage": options.storage}
    exact = index(features, SearchOptions(**settings)).search(sketches, 5, head=head, adapter=changed)
    shares = []
    for length in (5, 100, COUNT - 1):
        short = index(features, SearchOptions(**settings, shortlist=length)).search(sketches, 5, head=head, adapter=changed)
        assert all(len(hits) == 5 for hits in short)
        shares.append(np.mean([len({*places(a)} & {*places(b)}) / 5 for a, b in zip(exact, short, strict=True)]))
    assert shares[0] < shares[1] <= shares[2] == 1.0
    still = adapter(head, "sketch")
    short = index(features, SearchOptions(**settings, shortlist=5)).search(sketches, 9, head=head, adapter=still)
    assert len(short[0]) == 9, "photos that stay need no shortlist"


def test_rounding_is_bounded(options: SearchOptions) -> None:
    """What ``error`` promises holds for every pair of query and photo."""
    head = toy_head()
    rows, queries = head.embed(photos()), head.embed(photos(1, 50).astype(np.float32))
    flat = index(photos(), options).flat(head)
    scores, where = flat.top(queries, COUNT, None)
    true = np.take_along_axis(queries.astype(np.float64) @ rows.T.astype(np.float64), where, axis=1)
    worst = np.abs(scores - true).max()
    assert worst <= flat.error
    assert flat.error < {"float32": 2e-5, "float16": 1e-3, "int8": 0.05}[options.storage]
    assert (np.diff(scores, axis=1) <= 0).all()


def test_threads_are_only_lent() -> None:
    faiss = pytest.importorskip("faiss", reason="faiss is not installed: pip install 'fgsbir-edge[search]'")
    rows = toy_head().embed(photos())
    flat = FaissFlat(lambda a, b: rows[a:b], rows.shape, SearchOptions(backend="faiss", threads=2))
    before = faiss.omp_get_max_threads()
    flat.top(rows[:2], 3, None)
    assert faiss.omp_get_max_threads() == before


def test_auto_takes_the_core_and_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(SearchOptions()) == "native"
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert chosen(SearchOptions(storage="int8")) == "native", "auto makes do with what there is"
    sketch = photos(1, 1).astype(np.float32)
    with pytest.raises(FaissMissingError, match=r"fgsbir-edge\[search\]"):
        index(photos(), SearchOptions(backend="faiss")).search(sketch, 1, head=toy_head())
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError, match="pip install cupy-cuda12x"):
        index(photos(), SearchOptions(backend="cupy")).search(sketch, 1, head=toy_head())
    monkeypatch.delattr(_native, "top_products")
    assert chosen(SearchOptions()) == "numpy"


@pytest.mark.parametrize("change", SETTINGS_REFUSED)
def test_options_out_of_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        SearchOptions(**change)  # type: ignore[arg-type]


def test_candidates_are_asked_for_again_until_none_can_be_missed() -> None:
    """An index that is off by up to 0.1: asking once would answer wrongly."""
    rng = np.random.default_rng(2)
    true = np.sort(rng.uniform(0, 1, 3000))[::-1].astype(np.float32)
    rough = true + rng.uniform(-0.1, 0.1, len(true)).astype(np.float32)
    asked = []

    class Rough:
        error = 0.1 + 1e-6

        def top(self, queries: Float32, count: int, allowed: object) -> tuple[np.ndarray, np.ndarray]:
            asked.append(count)
            order = np.argsort(-rough)[:count]
            return rough[order][None], order[None]

        def rows(self, places: np.ndarray) -> None:
            return None

    question = Question(np.ones((1, 1), np.float32), 4, None, len(true))
    ((found, scores),) = nearest(Rough(), question, lambda _, where: true[where])
    assert sorted(found) == [0, 1, 2, 3]
    assert len(asked) > 1
    assert asked[-1] < len(true)
    np.testing.assert_array_equal(scores, true[found])


def test_best_breaks_ties_by_place() -> None:
    found, scores = best(np.array([7, 3, 9, 1]), np.array([0.5, 0.5 + 5e-7, 0.1, 0.9], np.float32), 3)
    assert found == [1, 3, 7]
    assert scores == pytest.approx([0.9, 0.5, 0.5])


def test_halves_are_widened_exactly() -> None:
    """All 65,536 of them, in every instruction set's odd places too."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    for width in (1, 7, 64):
        table = np.resize(bits, (-(-len(bits) // width), width))
        wide = _native.gather_half(table, np.arange(len(table))[::-1].copy())[::-1]
        with np.errstate(invalid="ignore"):  # NumPy warns of signalling NaN on AArch64
            expected = table.view(np.float16).astype(np.float32)
        np.testing.assert_array_equal(wide, expected)
    with pytest.raises(ValueError, match=r"places\[1\] is 3"):
        _native.gather_half(np.zeros((3, 2), np.uint16), np.array([0, 3]))
    with pytest.raises(ValueError, match="uint16"):
        _native.gather_half(np.zeros((3, 2), np.float16), np.array([0]))


@pytest.mark.parametrize("level", ["baseline", "avx2"])
def test_halves_with_other_instructions(level: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "exactly", "tests/test_search.py"],
        env={**os.environ, "FGSBIR_SIMD": level},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert run.returncode == 0, run.stdout
