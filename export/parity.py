"""How far encoders of one model are apart: on real sketches and photos, on adversarial inputs, in ranks and accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fgsbir_edge.arrays import Float32
from fgsbir_edge.head import Head
from fgsbir_edge.preprocess import InputSpec
from training.evaluate_retrieval import AT, Search, exact_figures
from training.evaluate_table import Table
from training.evaluation import Encode, Reading, encode_rows, photo_encode, photo_input, sketch_input

TIE = 1e-4  # of cosines of embeddings
ODD_BATCHES = (3, 7)  # beside 1; no multiple of what kernels work in


@dataclass(frozen=True, eq=False)
class Encoded:
    """What one encoder makes of a table: features float32 of its `sketches` [S,C] and `photos` [N,C]."""

    sketches: Float32
    photos: Float32

    def search(self, table: Table, head: Head, photos: Encoded | None = None) -> Search:
        """The table searched with these sketches among these photos, or those of another encoder."""
        row = {key: index for index, key in enumerate(table.sketches)}
        queries = head.embed(self.sketches)[[row[pair.sketch] for pair in table.pairs]]
        return Search(table, queries, head.embed((photos or self).photos))


def encoded(table: Table, encoders: Mapping[str, Encode], spec: InputSpec) -> dict[str, Encoded]:
    """Features of every encoder; each image is read once, photos are encoded as a gallery does. Raises what reading raises."""

    def together(encodes: list[Encode], pixels: np.ndarray) -> np.ndarray:
        return np.stack([encode(pixels) for encode in encodes], axis=1)

    of_sketches = partial(together, list(encoders.values()))
    of_photos = partial(together, [photo_encode(encode, spec) for encode in encoders.values()])
    sketches = encode_rows(table.sketches, partial(sketch_input, table.folder, spec=spec), of_sketches, Reading()).rows
    photos = encode_rows(table.photos, partial(photo_input, table.folder, spec=spec), of_photos, Reading()).rows
    return {name: Encoded(sketches[:, index], photos[:, index]) for index, name in enumerate(encoders)}


def accuracy(mine: Encoded, table: Table, head: Head, fp32: Encoded | None = None) -> dict[str, Any]:
    """Acc@1/5/10 in percent and the mean reciprocal rank of a plain search; Acc@1 among photos that `fp32` encoded too."""
    figures = _figures(mine.search(table, head))
    if fp32 is not None:
        figures["acc@1_among_fp32_photos"] = _figures(mine.search(table, head, fp32))["acc@1"]
    return figures


def _figures(search: Search) -> dict[str, Any]:
    ranking = search.ranking
    exact = exact_figures(ranking.ranks, ranking.galleries)
    figures: dict[str, Any] = {f"acc@{at}": round(exact[f"acc@{at}"], 3) for at in AT}
    return figures | {"mean_reciprocal_rank": round(exact["mean_reciprocal_rank"], 5), "queries": len(ranking.ranks)}


def distance(mine: Encoded, reference: Encoded, table: Table, head: Head) -> dict[str, Any]:
    """Smallest and mean cosine of features, largest difference of an element, and how many queries change their rank.

    `ranks_changed_beyond_ties` leaves out those whose rank is decided by similarities that differ by less than TIE.
    """
    cosines = np.concatenate([_cosines(mine.sketches, reference.sketches), _cosines(mine.photos, reference.photos)])
    apart = max(np.abs(mine.sketches - reference.sketches).max(), np.abs(mine.photos - reference.photos).max())
    ours, theirs = mine.search(table, head), reference.search(table, head)
    ranks, expected = ours.ranking.ranks, theirs.ranking.ranks
    low, high = rank_bounds(ours)
    return {
        "cosine_min": _digits(cosines.min()),
        "cosine_mean": _digits(cosines.mean()),
        "largest_difference": float(f"{apart:.3g}"),
        "ranks_changed": int(np.sum(ranks != expected)),
        "ranks_changed_beyond_ties": int(np.sum((expected < low) | (expected > high))),
        "queries": len(ranks),
    }


def rank_bounds(search: Search) -> tuple[np.ndarray, np.ndarray]:
    """Best and worst rank [Q] of each query's photo if similarities within TIE of its own may fall either way."""
    low, high = np.zeros((2, len(search.table.pairs)), np.int64)
    for group in search.groups:
        gallery = search.photos[group.photos]
        for query, truth in zip(group.queries, group.truth, strict=True):
            scores = gallery @ search.sketches[query]
            others = np.delete(scores, truth)
            low[query] = 1 + np.sum(others > scores[truth] + TIE)
            high[query] = 1 + np.sum(others >= scores[truth] - TIE)
    return low, high


def adversarial(spec: InputSpec) -> dict[str, Float32]:
    """Inputs float32 [1,3,S,S] that no camera gives: by name, normalised as `spec` says."""
    shape = (spec.size, spec.size, 3)
    dot = np.ones(shape)
    dot[spec.size // 2, spec.size // 3] = 0.0
    noise = np.random.default_rng(0).integers(0, 256, shape) / 255.0
    images = {"all white": np.ones(shape), "all black": np.zeros(shape), "noise": noise, "single pixel": dot}
    scaled = {name: (image - np.array(spec.mean)) / np.array(spec.std) for name, image in images.items()}
    return {name: np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) for name, image in scaled.items()}


def adversarial_distance(encode: Encode, reference: Encode, spec: InputSpec) -> dict[str, Any]:
    """Cosine to the reference's features on each adversarial input, and the largest change that the size of a batch makes.

    The inputs go in alone and in batches of 3 and 7; each row should not depend on its neighbours.
    """
    inputs = adversarial(spec)
    alone = {name: encode(pixels) for name, pixels in inputs.items()}
    cosines = {name: _digits(_cosines(alone[name], reference(pixels))[0]) for name, pixels in inputs.items()}
    names, apart = list(inputs), 0.0
    for count in ODD_BATCHES:
        order = [names[index % len(names)] for index in range(count)]
        rows = encode(np.concatenate([inputs[name] for name in order]))
        apart = max(apart, *(float(np.abs(row - alone[name][0]).max()) for row, name in zip(rows, order, strict=True)))
    return {"cosine": cosines, "batches": [1, *ODD_BATCHES], "largest_difference_between_batches": float(f"{apart:.3g}")}


def _cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosines [n] of rows [n,C], in float64; 0, which no bound lets through, where a row is zero or not finite."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    with np.errstate(invalid="ignore"):
        cosines = (left * right).sum(axis=1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
    return np.where(np.isfinite(cosines), cosines, 0.0)


def _digits(cosine: float) -> float:
    return round(float(cosine), 9)
