"""A light sketch encoder of ``training.distil`` into the bundle that it was distilled from, checked, with variants of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from export.agreement import GRAPH, PYTORCH, agree
from export.onnx_encoder import OPSET, export_model, halved, serialised
from export.parity import Encoded, accuracy, adversarial_distance, distance
from export.provenance import file_sha256, folders, versions
from export.variants import Plan, encoders, make, measured, refuse
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.errors import BundleFormatError
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.variant import FP32
from training.data.folder import PairsFolder
from training.evaluate_table import Table
from training.evaluation import Encode, Reading, encode_photos, encode_rows, sketch_input, torch_encode
from training.light.checkpoint import load_light

LARGE = "encoder of photos"


def with_sketch_encoder(
    bundle: Bundle, checkpoint: Path, check: PairsFolder, plan: Plan, *, half_weights: bool = True
) -> tuple[Bundle, dict[str, dict[str, Any]]]:
    """`bundle` with the encoder of `checkpoint` for sketches, and what was measured of it, its variants, and the other encoder.

    The plan's variants are made of the sketch encoder. Confidence is dropped: it was fitted to the other encoder's distances.

    Raises:
        BundleFormatError: no such checkpoint, or distilled from another encoder.
        VariantRefusedError: a variant loses more than 0.5 points Acc@1 and is not allowed to.
    """
    encoder, meta = load_light(checkpoint)
    teacher = meta["teacher"]
    if teacher["features_digest"] != bundle.features_digest:
        raise BundleFormatError(
            f"{checkpoint}: distilled from {teacher['name']!r} ({teacher['features_digest'][:12]}), not from the encoder of "
            f"bundle {bundle.name!r} ({bundle.features_digest[:12]}); give the bundle it was distilled from"
        )
    model = export_model(encoder)
    exact = serialised(model)
    stored = serialised(halved(model)) if half_weights else exact
    made = {
        "checkpoint": file_sha256(checkpoint),
        "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "weights": "float16" if half_weights else "float32",
        "opset": OPSET,
        "step": meta["step"],
        "validation": meta["validation"],
        "validation of the teacher": teacher["validation"],
    }
    result = bundle.with_sketch_encoder(stored, InputSpec.from_manifest(meta["input"]), made)
    side = make(result.for_sketches, check, plan)
    graph = OnnxEncoder(replace(side, encoder=exact), threads=plan.threads).encode
    found = _measure(bundle, side, {PYTORCH: torch_encode(encoder), GRAPH: graph}, check, plan)
    agree(found)
    refuse(found, plan.variants, plan.allow_loss, check.root.resolve().name)
    checked = {"folder": check.root.resolve().name, "pairs": plan.pairs, "gallery": plan.gallery}
    facts = {**made, LARGE: found[LARGE]["accuracy"], "check": checked, "folders": folders([check.root]), "packages": versions()}
    side = replace(measured(side, found), provenance=facts)
    return replace(result, sketch=side), found


def _measure(
    bundle: Bundle, side: Bundle, references: dict[str, Encode], check: PairsFolder, plan: Plan
) -> dict[str, dict[str, Any]]:
    """Accuracy of sketches by every encoder among the bundle's own photos; parity of fp32 to PyTorch, of variants to fp32."""
    table = plan.table(check)
    large = OnnxEncoder(bundle, threads=plan.threads).encode
    photos = encode_photos(table.folder, table.photos, large, bundle.input)
    every = {**references, **encoders(side, plan.threads)}
    rows = {name: Encoded(_sketches(table, encode, side.input), photos) for name, encode in every.items()}
    rows[LARGE] = Encoded(_sketches(table, large, bundle.input), photos)
    result: dict[str, dict[str, Any]] = {}
    for name, mine in rows.items():
        result[name] = {"accuracy": accuracy(mine, table, bundle.head)}
        beside = PYTORCH if name in (FP32, GRAPH) else FP32
        if name not in (PYTORCH, LARGE):
            apart = distance(mine, rows[beside], table, bundle.head)
            result[name]["parity"] = {
                "reference": beside,
                **apart,
                "adversarial": adversarial_distance(every[name], every[beside], side.input),
            }
    return result


def _sketches(table: Table, encode: Encode, spec: InputSpec) -> np.ndarray:
    return encode_rows(table.sketches, partial(sketch_input, table.folder, spec=spec), encode, Reading()).rows
