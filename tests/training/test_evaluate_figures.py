"""Ranks, percentiles and intervals against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fgsbir_edge.head import Head
from training.data.folder import Pair, PairsFolder
from training.evaluate_retrieval import Bootstrap, Search, figures_of, retrieval
from training.evaluate_table import Table
from training.metrics import blocks, bootstrap_interval, bootstrap_intervals, gallery_ranks, percentile_ranks
from training.report import Encoded

A, B = "a", "b"
# Directions in degrees. a2 and a3 are the same photo twice; a4 has no sketch; b0 is alone in its category.
PHOTOS = {"a0": 0.0, "a1": 10.0, "a2": 20.0, "a3": 20.0, "a4": 70.0, "b0": 90.0}
QUERIES = {"q0": 1.0, "q1": 4.0, "q2": 20.0, "q3": 21.0, "q4": 89.0}
PAIRS = (
    Pair("q0", "a0", A, "ann"),
    Pair("q1", "a1", A, "bob"),
    Pair("q2", "a2", A, "ann"),
    Pair("q3", "a3", A, "bob"),
    Pair("q4", "b0", B, "ann"),
)


def unit(degrees: list[float]) -> np.ndarray:
    angles = np.deg2rad(np.array(degrees))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def search(*, per_category: bool = True, photos: dict[str, float] | None = None) -> Search:
    photos = photos or PHOTOS
    folder = PairsFolder(Path("made-up"), PAIRS, {name: name[0] for name in photos})
    table = Table("pairs.csv", folder, PAIRS, tuple(sorted(photos)), per_category)
    return Search(table, unit([QUERIES[pair.sketch] for pair in PAIRS]), unit([photos[name] for name in sorted(photos)]))


def test_ranks_by_category_with_ties_and_a_gallery_of_one() -> None:
    ranking = search().ranking
    assert ranking.ranks.tolist() == [1, 2, 2, 2, 1]
    assert ranking.galleries.tolist() == [5, 5, 5, 5, 1]
    assert ranking.wrong == ("a1", "a0", "a3", "a2", "")
    np.testing.assert_allclose(ranking.similarity, np.cos(np.deg2rad([1, 6, 0, 1, 1])), atol=1e-6)
    np.testing.assert_allclose(ranking.wrong_similarity[:4], np.cos(np.deg2rad([9, 4, 0, 1])), atol=1e-6)
    np.testing.assert_allclose(ranking.percentiles, [100, 75, 75, 75, np.nan])
    assert np.isnan(ranking.margins[4])


def test_ranks_over_all_photos() -> None:
    ranking = search(per_category=False).ranking
    assert ranking.ranks.tolist() == [1, 2, 2, 2, 1]
    assert ranking.galleries.tolist() == [6] * 5
    assert ranking.wrong[4] == "a4"


def test_figures_of_the_whole_table() -> None:
    result = retrieval(search(), Bootstrap())
    assert {key: result[key] for key in ("queries", "gallery", "photos_drawn", "single_photo_queries")} == {
        "queries": 5,
        "gallery": 6,
        "photos_drawn": 5,
        "single_photo_queries": 1,
    }
    assert result["galleries"] == {"per": "category", "count": 2, "smallest": 1, "largest": 5}
    assert (result["acc@1"], result["acc@5"], result["median_rank"]) == (40.0, 100.0, 2.0)
    assert result["mean_reciprocal_rank"] == 0.7
    assert result["mean_percentile"] == 81.25  # of four queries: where nothing was searched there is none
    assert [result["by_category"][name]["acc@1"] for name in (A, B)] == [25.0, 100.0]
    assert result["by_category"][B]["mean_percentile"] is None
    assert result["by_category"][B]["acc@1_interval"] is None  # one photo: nothing to resample
    mean = {"groups": 2, "acc@1": 62.5, "acc@5": 100.0, "acc@10": 100.0, "mean_percentile": 81.25, "mean_reciprocal_rank": 0.8125}
    assert result["mean_by_category"] == mean
    assert {name: figures["acc@1"] for name, figures in result["by_user"].items()} == {"ann": 66.67, "bob": 0.0}
    assert result["mean_by_user"]["acc@1"] == 33.33


def test_the_true_photo_stands_behind_all_that_tie_with_it() -> None:
    found = search()
    assert [name for name, _ in found.nearest(2, 3)] == ["a3", "a2", "a1"]
    assert [name for name, _ in found.nearest(3, 2)] == ["a2", "a3"]
    assert [name for name, _ in found.nearest(4, 5)] == ["b0"]
    for query, pair in enumerate(PAIRS):
        order = [name for name, _ in found.nearest(query, 9)]
        assert order.index(pair.photo) + 1 == found.ranking.ranks[query]


def test_the_report_counts_the_gallery_that_was_searched() -> None:
    found = search()
    names = sorted(PHOTOS)
    encoded = Encoded(found.table.folder, PAIRS, names, found.sketches, found.photos)
    head = Head(np.eye(2), np.zeros(2), np.array([0.1]))
    assert encoded.retrieval(head, per_category=True)["mean_percentile"] == 81.25
    assert encoded.retrieval(head)["mean_percentile"] == 88.0  # ranks 1, 2, 2, 2, 1 of six


def test_a_photo_of_two_categories_is_in_both_galleries() -> None:
    pairs = (*PAIRS, Pair("q4", "a4", B))
    folder = PairsFolder(Path("made-up"), pairs, {name: name[0] for name in PHOTOS})
    table = Table("pairs.csv", folder, pairs, tuple(sorted(PHOTOS)), True)
    sketches = unit([QUERIES[pair.sketch] for pair in pairs])
    ranking = Search(table, sketches, unit([PHOTOS[name] for name in sorted(PHOTOS)])).ranking
    assert ranking.galleries.tolist() == [5, 5, 5, 5, 2, 2]
    assert ranking.ranks.tolist() == [1, 2, 2, 2, 1, 2]


def test_embeddings_that_are_no_numbers_rank_last() -> None:
    found = search()
    found.sketches[0] = np.nan
    found.photos[1] = np.nan  # a1
    assert found.ranking.ranks.tolist() == [5, 5, 3, 3, 1]  # a photo without a place counts against every other
    assert found.ranking.wrong[0] != "a0"
    assert [name for name, _ in found.nearest(0, 5)][-1] == "a0"


def test_a_collapsed_model_ranks_last() -> None:
    found = search(photos=dict.fromkeys(PHOTOS, 45.0))
    assert found.ranking.ranks.tolist() == [5, 5, 5, 5, 1]
    assert retrieval(found, Bootstrap())["mean_percentile"] == 0.0


def test_percentile_ranks() -> None:
    np.testing.assert_allclose(percentile_ranks(np.array([1, 2, 3, 1, 1]), np.array([3, 3, 3, 2, 1])), [100, 50, 0, 100, np.nan])
    assert percentile_ranks(np.array([26]), 101).tolist() == [75.0]


def test_blocks_cover_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.metrics.BLOCK", 10)
    assert blocks(7, 4) == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 7)]
    assert blocks(2, 400) == [slice(0, 1), slice(1, 2)]
    assert blocks(0, 5) == []


def test_ranks_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    truth = rng.integers(0, 30, 10)
    whole = gallery_ranks(rows[30:], rows[:30], truth)
    monkeypatch.setattr("training.metrics.BLOCK", 64)
    assert gallery_ranks(rows[30:], rows[:30], truth).tolist() == whole.tolist()
    intervals = bootstrap_intervals(rows, np.arange(40), draws=50)
    monkeypatch.undo()
    np.testing.assert_allclose(bootstrap_intervals(rows, np.arange(40), draws=50), intervals)


def test_resampling_single_values_is_the_textbook_bootstrap() -> None:
    values = np.random.default_rng(1).normal(size=37)
    picks = np.random.default_rng(3).integers(0, 37, size=(500, 37))
    low, high = np.percentile(values[picks].mean(axis=1), (2.5, 97.5))
    np.testing.assert_allclose(bootstrap_interval(values, draws=500, seed=3), (low, high))


def test_resampling_whole_photos_is_the_textbook_cluster_bootstrap() -> None:
    clusters = np.array([0, 0, 0, 1, 2, 2, 3])
    values = np.array([1.0, 2.0, 3.0, 10.0, 4.0, np.nan, 6.0])
    draws = np.random.default_rng(5).integers(0, 4, size=(300, 4))
    means = [np.nanmean(np.concatenate([values[clusters == pick] for pick in picks])) for picks in draws]
    expected = np.percentile(means, (2.5, 97.5))
    np.testing.assert_allclose(bootstrap_intervals(values[:, None], clusters, draws=300, seed=5)[0], expected)


def test_sketches_of_one_photo_are_not_independent() -> None:
    """Five sketches a photo that all succeed or all fail: resampling queries claims sqrt(5) times too much."""
    ranks = np.repeat(np.where(np.arange(60) % 3 == 0, 2, 1), 5)
    photos = [f"p{number // 5}" for number in range(300)]
    low, high = figures_of(ranks, 60, photos)["acc@1_interval"]
    query_low, query_high = figures_of(ranks, 60, photos, Bootstrap("query"))["acc@1_interval"]
    assert low < query_low < 66.67 < query_high < high
    assert (high - low) / (query_high - query_low) == pytest.approx(5**0.5, rel=0.1)
