"""Splits of the known datasets: pinned photos, several tables, and on the real data, nothing on both sides."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fgsbir_edge.preprocess import InputSpec
from tests.training.vectors import vector_folder
from training.data.folder import Pair, PairsFolder
from training.data.recipes import CHAIRV1_SHARED, CHAIRV2_SHARED, RECIPES, training_side, validation_sets
from training.data.sources import SourceConfig, open_sources
from training.data.splits import merge_pairs, split_photos

pytestmark = pytest.mark.torch


def test_pinned_photos_train_and_the_next_take_their_places(shapes: Path) -> None:
    folder = PairsFolder.read(shapes)
    train, held = split_photos(folder, 4, "salt")
    pinned = frozenset(sorted(held)[:2])
    new_train, new_held = split_photos(folder, 4, "salt", pinned)
    assert pinned <= new_train
    assert len(new_held) == 4
    assert held - pinned < new_held
    assert new_train | new_held == train | held
    assert split_photos(folder, 4, "salt", frozenset({"elsewhere.png"})) == (train, held)
    assert split_photos(folder, 4, "salt", frozenset(sorted(train)[:3])) == (train, held)


def test_merged_tables_count_no_photo_twice() -> None:
    first = [Pair("a", "1"), Pair("b", "1"), Pair("c", "2")]
    further = [Pair("d", "2"), Pair("e", "3"), Pair("f", "3")]
    assert [pair.sketch for pair in merge_pairs(first, further)] == ["a", "b", "c", "e", "f"]


def test_a_known_folder_is_split_by_its_name(tmp_path: Path) -> None:
    root = vector_folder(tmp_path / "chairv1", photos=60)
    (held,) = validation_sets(tmp_path)
    assert (held.name, len(held.photos or ()), len(held.pairs), held.per_category) == ("chairv1", 50, 100, False)
    (root / "few.csv").write_text("sketch,photo,category\n" + "".join(f"{n}_0,{n}.png,thing\n" for n in range(55)))
    for pairs in ("pairs.csv", "few.csv", "few.csv+pairs.csv"):  # the split is that of pairs.csv whatever trains
        (source,) = open_sources([SourceConfig("c", "chairv1", pairs)], tmp_path, InputSpec(size=32))
        assert not set(source.groups[""]) & (held.photos or set())
    (edges,) = open_sources([SourceConfig("c", "chairv1", kind="edges")], tmp_path, InputSpec(size=32))
    assert len(edges.groups[""]) == 10
    assert not set(edges.groups[""]) & (held.photos or set())


@pytest.fixture(scope="module")
def research() -> Path:
    folder = os.environ.get("FGSBIR_DATA")
    if folder is None or not all((Path(folder) / name / "pairs.csv").is_file() for name in RECIPES):
        pytest.skip(f"FGSBIR_DATA does not name a folder that holds {', '.join(RECIPES)} (research data, not shipped)")
    return Path(folder)


def test_no_research_set_validates_on_what_trains(research: Path) -> None:
    sides = {name: training_side(PairsFolder.read(research / name), "train") for name in RECIPES}
    sets = {held.name: held for held in validation_sets(research)}
    sizes = {name: len(held.photos) for name, held in sets.items() if held.photos}
    assert sizes == {"chairv2": 60, "chairv1": 50, "shoev1": 76, "drawings32_unseen": 16}
    for name in ("chairv2", "chairv1", "shoev1"):
        assert not sides[name].photos & (sets[name].photos or set())
        assert {pair.photo for pair in sets[name].pairs} == sets[name].photos
    drawings = sides["drawings32"]
    assert not drawings.photos & (sets["drawings32_unseen"].photos or set())
    for name in ("drawings32_people", "drawings32_unseen"):
        assert not (drawings.users or set()) & {pair.user for pair in sets[name].pairs}
    assert not sides["sketchy"].photos & {pair.photo for pair in sets["sketchy"].pairs}


def test_chairs_in_both_sets_train_in_both(research: Path) -> None:
    """The photos that the split report takes for copies are the pinned ones, no validation photo among them."""
    from training.data.fingerprints import PhotoPrints, near_photos

    folders = [PairsFolder.read(research / name) for name in ("chairv1", "chairv2")]
    prints = [PhotoPrints.of({name: folder.photo_path(name) for name in sorted(folder.photo_category)})[0] for folder in folders]
    copies = {
        (prints[0].names[row], prints[1].names[column])
        for row, column, _, likeness in near_photos(prints[0], prints[1], 6)
        if likeness >= 0.98
    }
    assert copies == set(zip(CHAIRV1_SHARED, CHAIRV2_SHARED, strict=True))
    for folder, shared in zip(folders, (CHAIRV1_SHARED, CHAIRV2_SHARED), strict=True):
        assert set(shared) <= training_side(folder, "train").photos
