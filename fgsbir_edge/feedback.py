"""Learning as people go along: each sketch whose photo they confirmed is one more pair, and the adapter follows at once.

Two guards stand before an adapter comes into force. That of ``adapt`` leaves the person's own pairs out in turn. The other looks
for drift: pairs that other people have shown are ranked with the base head and with the adapter, and where their mean rank got
worse, the base head stays. The pair is kept in any case: with more of them, the next adapter may hold.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from fgsbir_edge.adapt import AdaptOptions, AdaptResult
from fgsbir_edge.arrays import Float32, matrix
from fgsbir_edge.errors import NoPairsError, OutputError, ShapeError, UnknownPhotoError
from fgsbir_edge.gallery.people import OutdatedError, Shown
from fgsbir_edge.head import Adapter, Head
from fgsbir_edge.ranking import rank_of

if TYPE_CHECKING:
    import os

    from fgsbir_edge.engine import Engine, SketchLike

MAX_PAIRS = 20  # of one person; beyond them the oldest goes
ANCHORS = 64  # pairs of other people that drift is looked for with
CANDIDATES = 1024  # photos that anchors are ranked among
ATTEMPTS = 5  # where other processes change the same person at the same time


@dataclass(frozen=True)
class Drift:
    """Mean ranks of other people's pairs under the base head and under the adapter; None without anchors."""

    base_rank: float | None
    adapted_rank: float | None
    anchors: int

    @property
    def worse(self) -> bool:
        """Whether the adapter makes other people's photos harder to find."""
        return self.base_rank is not None and self.adapted_rank is not None and self.adapted_rank > self.base_rank


@dataclass(frozen=True)
class Feedback:
    """What a person has shown by now and what was learned of it. ``adapter`` is the one in force."""

    person: str
    version: int
    pairs: int
    adapter: Adapter
    result: AdaptResult | None  # None without pairs
    drift: Drift
    explanation: str  # one sentence for a person


class Learner:
    """The people of an engine's gallery."""

    def __init__(self, engine: Engine, options: AdaptOptions | None = None, max_pairs: int = MAX_PAIRS) -> None:
        if max_pairs < 1:
            raise ValueError(f"max_pairs is {max_pairs}, expected at least 1")
        self._engine, self._options, self._max_pairs = engine, options, max_pairs

    def show(self, person: str, sketch: SketchLike, photo: str) -> Feedback:
        """Note that ``person`` meant ``photo`` (its name in the gallery, or the file it was indexed from) by ``sketch``.

        A new name of a person is a new person.

        Raises UnknownPhotoError, ValueError (no name), OutputError (nothing is changed), and what reading a sketch raises.
        """
        name = self._engine.gallery.name_of(photo) or photo
        self._engine.gallery.positions([name])  # before the sketch costs an encoding
        return self.show_features(person, self._engine.encode_sketches([sketch]), [name])

    def show_features(self, person: str, sketches: ArrayLike, photos: Sequence[str]) -> Feedback:
        """``show`` for k pairs, from features [k, C] of the sketches: one step, which one ``undo`` takes back.

        Raises NoPairsError, ShapeError and what ``show`` raises.
        """
        rows = matrix("sketch features", sketches, self._engine.head.features)
        if len(rows) != len(photos):
            raise ShapeError(f"{len(rows)} sketches and {len(photos)} photos: give one photo for each sketch")
        if not photos:
            raise NoPairsError("no pair to learn from: give at least one sketch and its photo")
        self._engine.gallery.positions(photos)
        people = self._engine.gallery.people
        for _ in range(ATTEMPTS):
            before = after = people.shown_or_nothing(person)
            for photo, row in zip(photos, rows, strict=True):
                after = after.with_pair(photo, row, self._max_pairs)
            after = replace(after, version=before.version + 1)
            feedback, ids = self._learn(after)
            try:
                people.replace(before, after, feedback.adapter, ids)
            except OutdatedError:
                continue
            return feedback
        raise OutputError(f"{person!r} is being changed by another process all the time; try again")

    def undo(self, person: str) -> Feedback:
        """Take back what the person has shown last. Raises UnknownPersonError, OutputError."""
        people = self._engine.gallery.people
        for _ in range(ATTEMPTS):
            now, earlier = people.shown(person), people.shown(person, back=1)
            feedback, ids = self._learn(earlier)
            try:
                people.undo(now, feedback.adapter, ids)
            except OutdatedError:
                continue
            return feedback
        raise OutputError(f"{person!r} is being changed by another process all the time; try again")

    def adapter(self, person: str) -> Adapter:
        """The adapter in force for a person, learned again where photos or head have changed. Raises UnknownPersonError."""
        people = self._engine.gallery.people
        shown = people.shown(person)
        known = people.adapter(person, self._engine.head)
        if known is not None:
            return known
        feedback, ids = self._learn(shown)
        with contextlib.suppress(OutputError, OutdatedError):  # only read, or gone on since: the adapter serves all the same
            people.keep(shown, feedback.adapter, ids)
        return feedback.adapter

    def load(self, path: str | os.PathLike[str], *, skip_missing: bool = False) -> Feedback:
        """Take over a person from a file of ``Gallery.people.save``, learning the adapter here.

        Photos that this gallery lacks are an error, unless ``skip_missing`` leaves their pairs out. Raises PersonFormatError,
        UnknownPhotoError, NoPairsError (none is left), ValueError (the name is taken), OutputError.
        """
        people = self._engine.gallery.people
        loaded = people.load(path)
        taken = ValueError(f"{loaded.person!r} is known here already; forget that person first")
        nobody = replace(loaded, version=0, photos=(), sketches=loaded.sketches[:0])
        for _ in range(ATTEMPTS):
            if loaded.person in people.names():
                raise taken
            shown = self._known_pairs(loaded, path, skip_missing)
            feedback, ids = self._learn(shown)
            try:
                people.replace(nobody, shown, feedback.adapter, ids)
            except OutdatedError:
                continue
            return feedback
        raise OutputError(f"{path}: its photos are being changed by another process all the time; try again")

    def _known_pairs(self, shown: Shown, path: str | os.PathLike[str], skip_missing: bool) -> Shown:
        """Those pairs of a file whose photos are here."""
        positions = self._engine.gallery.index.positions
        here = [place for place, photo in enumerate(shown.photos) if photo in positions]
        if len(here) < len(shown) and not skip_missing:
            missing = [photo for photo in shown.photos if photo not in positions]
            raise UnknownPhotoError(f"{path}: {len(missing)} photos are not here, such as {missing[0]!r}; index them first")
        if not here:
            raise NoPairsError(f"{path}: no pair of it can be used here; index its photos first")
        return replace(shown, photos=tuple(shown.photos[i] for i in here), sketches=shown.sketches[here])

    def _learn(self, shown: Shown) -> tuple[Feedback, dict[str, int]]:
        """What there is to learn, and the ids of the photos it is learned from: read before their features, so never too new."""
        head = self._engine.head
        none = Drift(None, None, 0)
        if not len(shown):
            explanation = "nothing shown: the base head serves"
            return Feedback(shown.person, shown.version, 0, Adapter.identity(head), None, none, explanation), {}
        ids = self._engine.gallery.ids_of(shown.photos)
        photos = self._engine.gallery.features(shown.photos)
        result = self._engine.adapt_features(shown.sketches, photos, options=self._options)
        adapter, drift, explanation = result.adapter, none, result.explanation
        if result.status == "adapted":
            drift = self._drift(shown.person, adapter)
            if drift.worse:
                adapter = Adapter.identity(head, adapter.side, adapter.meta)
                ranks = f"mean rank {drift.base_rank:.2f} -> {drift.adapted_rank:.2f} over {drift.anchors} pairs"
                explanation = f"base head kept: other people's photos would be harder to find, {ranks}"
        return Feedback(shown.person, shown.version, len(shown), adapter, result, drift, explanation), ids

    def _drift(self, person: str, adapter: Adapter) -> Drift:
        """Ranks of other people's pairs among their photos and some more of the gallery."""
        index = self._engine.gallery.index
        names, sketches = self._engine.gallery.people.pairs_of_others(person, ANCHORS)
        kept = [place for place, name in enumerate(names) if name in index.positions]
        if not kept:
            return Drift(None, None, 0)
        own = [index.positions[names[place]] for place in kept]
        others = np.random.default_rng(0).permutation(len(index.entries))[:CANDIDATES]
        places = np.unique(np.concatenate([own, others]))
        photos, true = index.features(places), np.searchsorted(places, own)
        ranks = [_mean_rank(self._engine.head, chosen, sketches[kept], photos, true) for chosen in (None, adapter)]
        return Drift(ranks[0], ranks[1], len(kept))


def _mean_rank(head: Head, adapter: Adapter | None, sketches: Float32, photos: Float32, true: np.ndarray) -> float:
    if adapter is None:
        queries, rows = head.embed(sketches), head.embed(photos)
    else:
        queries, rows = adapter.embed(head, sketches, "sketch"), adapter.embed(head, photos, "photo")
    scores = queries @ rows.T
    return float(np.mean([rank_of(row, int(place)) for row, place in zip(scores, true, strict=True)]))
