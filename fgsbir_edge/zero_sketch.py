"""The zero-sketch start: an adapter for a category that nobody has drawn yet, from its photos alone, and how pairs take over.

Its photos stand in for p sketches, p being the head's ``centre``: with k real pairs the shift of sketches is

    c = (k · -mean(W s + b)  +  p · c_start) / (k + p)

so the start is in full force at k = 0 and fades as pairs come. What the photos say (``start.py``) costs one mean over stored
features.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from fgsbir_edge.adapt import AdaptResult
from fgsbir_edge.arrays import Float32, matrix
from fgsbir_edge.errors import AdapterFormatError, EmptyGalleryError, NoStartError
from fgsbir_edge.head import Adapter, Head

META = "start"  # in an adapter's metadata; its value says what the start was made of
PHOTOS = "photos"


def start_adapter(head: Head, blocks: Iterable[Float32], category: str | None = None) -> Adapter:
    """The adapter of a category from features of all its photos, in blocks [n, C]; it moves sketches alone.

    Take every photo that will be searched: one that is left out is not lowered as the others are, and is found too often.
    Raises NoStartError for a head without a start, EmptyGalleryError without a photo, ShapeError and NonFiniteError.
    """
    if head.start is None:
        raise NoStartError("the bundle has no zero-sketch start; add one with 'python -m training.zero_sketch fit'")
    total, count = np.zeros(head.features, np.float64), 0
    for block in blocks:
        rows = matrix("photo features", block, head.features)
        total += rows.sum(axis=0, dtype=np.float64)
        count += len(rows)
    if not count:
        raise EmptyGalleryError("a zero-sketch start needs the category's photos and got none")
    shift = head.start.shift(head.outputs(total / count)[0])  # the mean output: outputs are linear in features
    facts = {PHOTOS: str(count), "share": f"{head.start.share:.6g}"} | ({"category": category} if category else {})
    return shifted_start(head, shift, facts)


def shifted_start(head: Head, shift: Float32, facts: dict[str, str] | None = None, *, source: str = PHOTOS) -> Adapter:
    """A start from a shift [D] of sketches, however it was found; ``source`` says from what, ``facts`` go into its metadata.

    Raises ValueError on another shape and on numbers that are not finite.
    """
    return replace(Adapter.identity(head, "sketch", {**(facts or {}), META: source}), sketch_shift=shift)


def handed_over(head: Head, start: Adapter, result: AdaptResult) -> AdaptResult:
    """What real pairs gave, with the start where it still counts; where the guard kept the base head, the start alone.

    A recipe that does not centre sketches has no p: its pairs replace the start at once. Raises AdapterFormatError where
    ``start`` was not made by ``start_adapter``, and AdapterMismatchError where it was made for another head.
    """
    if META not in start.meta or start.sketch_shift is None:
        raise AdapterFormatError("this adapter is no zero-sketch start; make one with 'fgsbir-edge zero-sketch'")
    start.check(head, "zero-sketch start")
    if result.status == "kept-base":
        return replace(result, adapter=start, explanation=f"{result.explanation}; the zero-sketch start stays in force")
    if not math.isfinite(result.recipe.centre):
        return result
    pairs, prior = int(result.adapter.meta["pairs"]), result.recipe.centre
    weight = prior / (pairs + prior)
    own = result.adapter.sketch_shift
    shift = np.float32(weight) * start.sketch_shift + (0.0 if own is None else own)
    meta = {**result.adapter.meta, "start_weight": f"{weight:.6g}"}
    return replace(result, adapter=replace(result.adapter, sketch_shift=shift.astype(np.float32), meta=meta))
