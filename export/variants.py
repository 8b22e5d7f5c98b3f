"""Variants of a bundle's encoder: made, measured beside fp32, and refused where they lose too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from export.calibration import IMAGES, CalibrationSet
from export.onnx_encoder import serialised
from export.parity import Encoded, accuracy, adversarial_distance, distance, encoded
from export.precision import in_half
from export.quantise import Method, Quantiser, Scheme
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.errors import FgsbirError
from fgsbir_edge.variant import ENCODER, FP32, Variant
from training.data.folder import PairsFolder
from training.data.splits import ordered
from training.evaluate_table import GalleryRule, Table
from training.evaluation import Encode

NAMES = ("fp16", "int8", "int8_cpu")
MOST_LOSS = 0.5  # points of Acc@1
QUERIES = 1000


class VariantRefusedError(FgsbirError):
    """A variant is less accurate than what is let through."""

    exit_code = 46


@dataclass(frozen=True)
class Plan:
    """What to make and how to judge it.

    Args:
        variants: of NAMES.
        calibration: folders whose images int8 is calibrated on; the check folder where there are none.
        images: for calibration.
        method: how int8 ranges are chosen.
        allow_loss: variants that are kept however much they lose.
        pairs, gallery: table of the check folder, and which photos a sketch is searched among (training.evaluate_table).
        queries: rows of that table at most.
        threads: of the encoders.
    """

    variants: tuple[str, ...] = ()
    calibration: tuple[PairsFolder, ...] = ()
    images: int = IMAGES
    method: Method = "minmax"
    allow_loss: frozenset[str] = frozenset()
    pairs: str = "pairs.csv"
    gallery: GalleryRule = "category"
    queries: int = QUERIES
    threads: int = 1

    def table(self, check: PairsFolder) -> Table:
        """The queries to judge by: all of the folder's table, or so many drawn by a hash of their names."""
        table = Table.read(check.root, self.pairs, self.gallery)
        if len(table.pairs) <= self.queries:
            return table
        kept = set(ordered((pair.sketch for pair in table.pairs), "parity")[: self.queries])
        return replace(table, pairs=tuple(pair for pair in table.pairs if pair.sketch in kept))


def make(bundle: Bundle, check: PairsFolder, plan: Plan) -> Bundle:
    """`bundle` with the plan's variants, not measured yet; variants that it has already and the plan does not name stay.

    Of a bundle's sketches' side, variants are calibrated on sketches alone and int8 takes every layer: none stands out there, and
    a share of the sum of errors would leave most in float. Raises NoPairsError when there is nothing to calibrate on.
    """
    model = onnx.load_from_string(bundle.encoder)
    made, network = dict(bundle.variants), bundle.variants[FP32].network
    if "fp16" in plan.variants:
        facts = {"arithmetic": "float16, unit length float32"}
        made["fp16"] = Variant.of("fp16", serialised(in_half(model)), network, made=facts)
    left = None if network == ENCODER else ()
    schemes = {"int8": Scheme(True, plan.method, left), "int8_cpu": Scheme(False, plan.method, left)}
    wanted = [name for name in plan.variants if name in schemes]
    if wanted:
        folders = plan.calibration or (check,)
        calibration = CalibrationSet.draw(folders, bundle.input, plan.images, photos=network == ENCODER)
        quantiser = Quantiser.of(model, calibration, (plan.method,))
        for name in wanted:
            graph, how = quantiser.quantised(schemes[name])
            made[name] = Variant.of(name, serialised(graph), network, made=how)
        if "fp16" in plan.variants:
            largest = float(f"{quantiser.largest(plan.method):.4g}")  # float16 holds 65504
            made["fp16"] = replace(made["fp16"], made={**made["fp16"].made, "largest_activation": largest})
    return replace(bundle, variants=made)


def encoders(bundle: Bundle, threads: int) -> dict[str, Encode]:
    """Every variant on ONNX Runtime."""
    return {name: OnnxEncoder(bundle, threads=threads, variant=name).encode for name in bundle.variants}


def measure(bundle: Bundle, table: Table, references: Mapping[str, Encode], threads: int) -> dict[str, dict[str, Any]]:
    """Accuracy and parity of every variant, and of further encoders of the same model (`references`, PyTorch for instance).

    The first of the references is what fp32 is compared with; fp32 is what the others are compared with.
    """
    every = {**references, **encoders(bundle, threads)}
    rows = encoded(table, every, bundle.input)
    first = next(iter(references), None)
    result: dict[str, dict[str, Any]] = {}
    for name in every:
        beside = first if name == FP32 or name in references else FP32
        fp32 = None if name == FP32 or name in references else rows[FP32]
        entry: dict[str, Any] = {"accuracy": accuracy(rows[name], table, bundle.head, fp32)}
        if beside not in (None, name):
            entry["parity"] = {"reference": beside, **_apart(name, beside, rows, every, table, bundle)}
        result[name] = entry
    return result


def _apart(
    name: str, beside: str, rows: Mapping[str, Encoded], every: Mapping[str, Encode], table: Table, bundle: Bundle
) -> dict[str, Any]:
    found = distance(rows[name], rows[beside], table, bundle.head)
    return {**found, "adversarial": adversarial_distance(every[name], every[beside], bundle.input)}


def measured(bundle: Bundle, found: Mapping[str, Mapping[str, Any]]) -> Bundle:
    """The bundle with what ``measure`` found in its variants."""
    return replace(bundle, variants={name: replace(one, **found.get(name, {})) for name, one in bundle.variants.items()})


def refuse(found: Mapping[str, Mapping[str, Any]], variants: Sequence[str], allowed: frozenset[str], data: str) -> None:
    """Raise VariantRefusedError for the first of `variants` that loses more than MOST_LOSS and is not `allowed` to."""
    plain = found[FP32]["accuracy"]["acc@1"]
    for name in variants:
        got = found[name]["accuracy"]["acc@1"]
        if plain - got > MOST_LOSS and name not in allowed:
            raise VariantRefusedError(
                f"{name} loses {plain - got:.2f} points Acc@1 on {data} (fp32 {plain:.2f}, {name} {got:.2f}), at most "
                f"{MOST_LOSS} is let through; calibrate on other images (--calibration, --method) or give --allow-loss {name}"
            )
