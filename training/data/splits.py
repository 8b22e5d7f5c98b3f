"""Splits cut from the training data, by photo, by person, by object and by category.

Some objects and categories train nothing but the outer loop of meta-learning: an episode over things that the backbone already
knows leaves its inner step nothing to learn, and the learned step size goes to zero.

Membership depends on the name alone: names are ordered by a hash and the first ones are taken. So a split is the same on every
machine and every version of every library, and adding data never moves an old item across.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from training.data.folder import Pair, PairsFolder

# drawings32: 63 people, 32 objects in four kinds
DEMO_PEOPLE, TEST_PEOPLE, VALIDATION_PEOPLE = 3, 20, 4
UNSEEN_OBJECTS_PER_KIND, OUTER_OBJECTS_PER_KIND = 4, 2
CHAIRV2_VALIDATION_PHOTOS = 60
CHAIRV1_VALIDATION_PHOTOS = 50
SHOEV1_VALIDATION_PHOTOS = 76
SKETCHY_VALIDATION, SKETCHY_TEST, SKETCHY_OUTER = 12, 12, 29
SKETCHY_LEFT_OUT = frozenset({"shoe"})  # shoes stay a category that training never saw


def ordered(names: Iterable[str], salt: str) -> list[str]:
    """Names in an order fixed by their hash: a shuffle that needs no random generator."""
    return sorted(set(names), key=lambda name: hashlib.sha256(f"{salt}/{name}".encode()).digest())


@dataclass(frozen=True)
class DrawingsSplit:
    """People and objects of drawings32. `unseen` objects and all but `train` people are kept out of every training step.

    The backbone trains on `seen` less `outer`; the outer loop on all of `seen`.
    """

    train: frozenset[str]
    validation: frozenset[str]
    test: frozenset[str]
    demo: frozenset[str]
    seen: frozenset[str]
    outer: frozenset[str]
    unseen: frozenset[str]


def split_drawings(folder: PairsFolder) -> DrawingsSplit:
    people = ordered(folder.users, "drawings32-people")
    cuts = (DEMO_PEOPLE, DEMO_PEOPLE + TEST_PEOPLE, DEMO_PEOPLE + TEST_PEOPLE + VALIDATION_PEOPLE)
    unseen: set[str] = set()
    outer: set[str] = set()
    for kind in sorted(set(folder.photo_category.values())):
        objects = ordered((name for name, category in folder.photo_category.items() if category == kind), "drawings32-objects")
        unseen.update(objects[:UNSEEN_OBJECTS_PER_KIND])
        outer.update(objects[UNSEEN_OBJECTS_PER_KIND:][:OUTER_OBJECTS_PER_KIND])
    return DrawingsSplit(
        train=frozenset(people[cuts[2] :]),
        validation=frozenset(people[cuts[1] : cuts[2]]),
        test=frozenset(people[cuts[0] : cuts[1]]),
        demo=frozenset(people[: cuts[0]]),
        seen=frozenset(folder.photo_category) - unseen,
        outer=frozenset(outer),
        unseen=frozenset(unseen),
    )


def split_photos(
    folder: PairsFolder, validation: int, salt: str, keep: frozenset[str] = frozenset()
) -> tuple[frozenset[str], frozenset[str]]:
    """(training photos, validation photos); every sketch of a photo goes with it.

    Photos in `keep` are for training whatever their hash says; the next ones in order take their places.
    """
    photos = ordered((pair.photo for pair in folder.pairs), salt)
    photos = [photo for photo in photos if photo not in keep] + [photo for photo in photos if photo in keep]
    return frozenset(photos[validation:]), frozenset(photos[:validation])


def merge_pairs(first: Iterable[Pair], further: Iterable[Pair]) -> tuple[Pair, ...]:
    """All pairs of `first`, and those of `further` whose photos `first` lacks, so that no sketch of two tables counts twice."""
    pairs = tuple(first)
    known = {pair.photo for pair in pairs}
    return pairs + tuple(pair for pair in further if pair.photo not in known)


@dataclass(frozen=True)
class CategorySplit:
    """Categories of sketchy: for the backbone, for the outer loop alone, for validation, for the figures reported."""

    backbone: frozenset[str]
    outer: frozenset[str]
    validation: frozenset[str]
    test: frozenset[str]


def split_categories(folder: PairsFolder) -> CategorySplit:
    names = ordered((pair.category for pair in folder.pairs if pair.category not in SKETCHY_LEFT_OUT), "sketchy-categories")
    cuts = (SKETCHY_VALIDATION, SKETCHY_VALIDATION + SKETCHY_TEST, SKETCHY_VALIDATION + SKETCHY_TEST + SKETCHY_OUTER)
    return CategorySplit(
        validation=frozenset(names[: cuts[0]]),
        test=frozenset(names[cuts[0] : cuts[1]]),
        outer=frozenset(names[cuts[1] : cuts[2]]),
        backbone=frozenset(names[cuts[2] :]),
    )


def select(
    pairs: Iterable[Pair],
    *,
    photos: frozenset[str] | None = None,
    users: frozenset[str] | None = None,
    categories: frozenset[str] | None = None,
) -> tuple[Pair, ...]:
    """The pairs whose photo, user and category are in the given sets (None: any)."""
    return tuple(
        pair
        for pair in pairs
        if (photos is None or pair.photo in photos)
        and (users is None or pair.user in users)
        and (categories is None or pair.category in categories)
    )
