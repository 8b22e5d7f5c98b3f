"""Folder layout, splits, episodes and metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fgsbir_edge.errors import PairsFormatError
from training.data.folder import PairsFolder
from training.data.splits import ordered, select, split_photos
from training.episodes import category_tasks, draw, person_tasks
from training.metrics import accuracy, bootstrap_interval, gallery_ranks


def rows(names: list[str]) -> dict[str, int]:
    return {name: row for row, name in enumerate(names)}


def test_folder_reads_pairs_and_distractors(shapes: Path) -> None:
    folder = PairsFolder.read(shapes)
    assert len(folder.pairs) == 24
    assert len(folder.photo_category) == 14
    assert folder.photo_category["disc/6.png"] == "disc"
    assert folder.users == ["ann", "bob"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sketch,category\na,b\n", "no column 'photo'"),
        ("sketch,photo\n", "no rows"),
        ("sketch,photo\na,gone.png\n", "'gone.png' is not under"),
    ],
)
def test_bad_tables_name_the_remedy(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(PairsFormatError, match=words):
        PairsFolder.read(tmp_path)


def test_splits_do_not_depend_on_what_else_is_there() -> None:
    names = [f"p{i}" for i in range(50)]
    few = [name for name in ordered(names, "salt") if name in set(names[:20])]
    assert few == ordered(reversed(names[:20]), "salt")
    assert ordered(names, "salt") != ordered(names, "other")


def test_split_photos_moves_every_sketch_of_a_photo(shapes: Path) -> None:
    folder = PairsFolder.read(shapes)
    train, held = split_photos(folder, 4, "salt")
    assert len(held) == 4
    assert not train & held
    assert len(select(folder.pairs, photos=held)) == 8


@pytest.mark.parametrize("k", [1, 3, 5])
def test_episodes_keep_support_and_query_photos_apart(shapes: Path, k: int) -> None:
    folder = PairsFolder.read(shapes)
    tables = rows([pair.sketch for pair in folder.pairs]), rows(sorted(folder.photo_category))
    people = person_tasks(folder.pairs, sorted(folder.photo_category), *tables)
    categories = category_tasks(folder.pairs, folder.photo_category, *tables)
    assert [len(task.gallery) for task in (*people, *categories)] == [14, 14, 7, 7]
    for task in (*people, *categories):
        for seed in range(5):
            episode = draw(task, k, np.random.default_rng(seed))
            assert len(set(episode.support.tolist())) == k
            assert len(episode.query) > 0
            assert not set(task.truth[episode.support]) & set(task.truth[episode.query])


def test_episode_needs_two_photos(shapes: Path) -> None:
    folder = PairsFolder.read(shapes)
    tables = rows([pair.sketch for pair in folder.pairs]), rows(sorted(folder.photo_category))
    (task,) = category_tasks(select(folder.pairs, photos=frozenset({"disc/0.png"})), folder.photo_category, *tables)
    with pytest.raises(ValueError, match="needs two"):
        draw(task, 1, np.random.default_rng(0))


def test_ties_count_against() -> None:
    collapsed = np.tile(np.array([[1.0, 0.0]], np.float32), (7, 1))
    assert gallery_ranks(collapsed[:2], collapsed, np.array([0, 3])).tolist() == [7, 7]
    assert accuracy(np.array([1, 2, 6]), 5) == pytest.approx(200 / 3)


def test_bootstrap_interval_holds_the_mean() -> None:
    values = np.random.default_rng(0).normal(5.0, 1.0, 200)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(4 * 1.0 / np.sqrt(200), rel=0.2)
