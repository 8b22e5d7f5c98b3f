"""Which people, objects, categories and photos train, and which validate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fgsbir_edge.errors import PairsFormatError
from tests.training.episodic_toys import folder
from training.config import ConfigError
from training.data.splits import split_categories, split_drawings
from training.episodic.config import DomainConfig
from training.episodic.domains import open_domains, parts

pytestmark = pytest.mark.torch


def test_people_and_objects_of_drawings_that_validate_never_train() -> None:
    data = folder("drawings32", photos=8, categories=4, people=32)
    train, held = parts(data, DomainConfig("drawn", "drawings32", "person"))
    split = split_drawings(data)
    assert train is not None
    assert {pair.user for pair in train.pairs} == split.train
    assert {pair.photo for pair in train.pairs} == train.photos == split.seen  # the outer loop's own objects too
    assert [part.name for part in held] == ["drawn_people", "drawn_known", "drawn_unseen"]
    people, known, unseen = held
    assert {pair.user for pair in (*people.pairs, *unseen.pairs)} == split.validation
    assert {pair.user for pair in known.pairs} == split.train
    assert known.photos == unseen.photos == split.unseen
    assert not (split.test | split.demo) & {pair.user for part in (train, *held) for pair in part.pairs}
    assert not {pair.sketch for pair in train.pairs} & {pair.sketch for part in held for pair in part.pairs}


def test_categories_of_sketchy() -> None:
    data = folder("sketchy", photos=3, categories=60, people=1)
    train, held = parts(data, DomainConfig("sketchy", "sketchy", "category"))
    split = split_categories(data)
    assert train is not None
    assert {pair.category for pair in train.pairs} == split.backbone | split.outer
    assert {pair.category for pair in held[0].pairs} == split.validation
    assert not {pair.category for part in (train, *held) for pair in part.pairs} & split.test
    assert {data.photo_category[photo] for photo in train.photos} == split.backbone | split.outer


@pytest.mark.parametrize(
    ("data", "setting", "what"),
    [
        (folder("mine"), "person", "user"),
        (folder("mine"), "category", "category"),
        (folder("mine", photos=20, categories=1), "category", "photo"),
    ],
)
def test_another_dataset_holds_back_a_part_of_its_own(data, setting, what) -> None:  # type: ignore[no-untyped-def]
    train, held = parts(data, DomainConfig("mine", "mine", setting))
    assert train is not None
    mine, theirs = ({getattr(pair, what) for pair in part.pairs} for part in (train, held[0]))
    assert mine
    assert theirs
    assert not mine & theirs
    again = parts(data, DomainConfig("mine", "mine", setting))
    assert again == (train, held)


def test_all_and_none() -> None:
    data = folder("mine")
    train, held = parts(data, DomainConfig("mine", "mine", "category", split="all"))
    assert train is not None
    assert (train.pairs, held) == (data.pairs, ())
    train, held = parts(data, DomainConfig("mine", "mine", "category", split="none"))
    assert train is None
    assert held[0].pairs == data.pairs


def test_tasks_of_a_folder(shapes: Path) -> None:
    domains, sets = open_domains(
        [
            DomainConfig("kinds", shapes.name, "category", k=(1, 3)),
            DomainConfig("people", shapes.name, "person", share=2.0),
            DomainConfig("unseen", shapes.name, "category", split="none"),
        ],
        shapes.parent,
        (2,),
    )
    assert [(item.name, item.k, item.share) for item in domains] == [("kinds", (1, 3), 1.0), ("people", (2,), 2.0)]
    assert [item.name for item in sets] == ["kinds", "people_people", "people_unseen", "unseen"]
    assert domains[0].dataset is domains[1].dataset
    dataset = domains[0].dataset
    for item in (*domains, *sets):
        for task in item.tasks:
            for row, place in zip(task.sketches, task.truth, strict=True):
                assert dataset.folder.pairs[row].photo == dataset.photos[task.gallery[place]]


def test_errors_name_the_remedy(shapes: Path) -> None:
    with pytest.raises(ConfigError, match="lower k"):
        open_domains([DomainConfig("kinds", shapes.name, "category", k=(40,))], shapes.parent, (5,))
    with pytest.raises(ConfigError, match="nothing trains"):
        open_domains([DomainConfig("kinds", shapes.name, "category", split="none")], shapes.parent, (2,))
    data = folder("mine", people=1)
    nobody = replace(data, pairs=tuple(replace(pair, user="") for pair in data.pairs))
    with pytest.raises(PairsFormatError, match="column user"):
        parts(nobody, DomainConfig("mine", "mine", "person"))
