"""A checkpoint of training/ as a bundle the device loads: ``python -m export.bundle --checkpoint C --out DIR``.

The ONNX file is checked against PyTorch on real sketches and photos before anything is written: same features within a stated
bound, same ranks.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fgsbir_edge.bundle import Bundle, write_bundle
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.errors import FgsbirError
from fgsbir_edge.preprocess import InputSpec
from training.checkpoint import load_model
from training.data.folder import PairsFolder
from training.evaluation import encode_photos, encode_sketches, torch_encode
from training.heads import runtime_head
from training.metrics import gallery_ranks

log = logging.getLogger("export.bundle")

COSINE_FLOOR = 0.999  # float16 weights move the features of a trained network by about 1e-5, of a random one by 1e-3
PARITY_PAIRS = 64


def parity(folder: PairsFolder, bundle: Bundle, checkpoint: Path) -> dict[str, Any]:
    """Smallest cosine between ONNX Runtime's and PyTorch's features, and how many ranks differ, on pairs of `folder`."""
    encoder, _, _ = load_model(checkpoint)
    device, reference = OnnxEncoder(bundle, threads=2).encode, torch_encode(encoder)
    pairs = folder.pairs[:PARITY_PAIRS]
    names = sorted({pair.photo for pair in pairs})
    truth = np.array([names.index(pair.photo) for pair in pairs])
    cosines, ranks = [], []
    features: list[tuple[np.ndarray, np.ndarray]] = []
    for encode in (device, reference):
        features.append(
            (
                encode_sketches(folder, [pair.sketch for pair in pairs], encode, bundle.input),
                encode_photos(folder, names, encode, bundle.input),
            )
        )
        sketches, photos = features[-1]
        ranks.append(gallery_ranks(bundle.head.embed(sketches), bundle.head.embed(photos), truth))
    for ours, theirs in zip(*features, strict=True):
        cosines.append(float(np.min(np.sum(ours * theirs, axis=1))))
    return {"cosine_min": min(cosines), "ranks_changed": int(np.sum(ranks[0] != ranks[1])), "pairs": len(pairs)}


def export(
    checkpoint: Path, out: Path, name: str, check: PairsFolder, notes: dict[str, Any], *, half_weights: bool = True
) -> dict[str, Any]:
    """Write the bundle and return its parity report.

    Raises:
        RuntimeError: features of the ONNX file are further from PyTorch's than COSINE_FLOOR allows.
    """
    from export.onnx_encoder import export_encoder

    encoder, _, meta = load_model(checkpoint)
    with tempfile.TemporaryDirectory() as scratch:
        onnx_file = Path(scratch) / "encoder.onnx"
        export_encoder(encoder, onnx_file, half_weights=half_weights)
        trial = Bundle(name, InputSpec.from_manifest(meta["input"]), onnx_file.read_bytes(), runtime_head(checkpoint), {})
    report = parity(check, trial, checkpoint)
    if report["cosine_min"] < COSINE_FLOOR:
        raise RuntimeError(
            f"ONNX features have cosine {report['cosine_min']:.6f} to PyTorch's, at least {COSINE_FLOOR} is expected"
        )
    kept = ("step", "validation", "adaptation", "meta_validation", "meta_steps")
    provenance = {**notes, "training": {key: meta[key] for key in kept if key in meta}, "parity": report}
    trial = replace(trial, provenance=provenance)
    write_bundle(out, name=name, encoder=trial.encoder, head=trial.head, input=trial.input, provenance=provenance)
    return report


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m export.bundle", description=__doc__)
    options.add_argument("--checkpoint", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True, help="bundle folder to write; an existing bundle there is replaced")
    options.add_argument("--name", required=True)
    options.add_argument("--check", type=Path, required=True, help="dataset folder whose first pairs prove parity")
    options.add_argument(
        "--float32", action="store_true", help="store weights as float32: twice the size, bit for bit the trained ones"
    )
    options.add_argument("--notes", type=Path, help="JSON file that goes into the manifest's provenance: data, terms, figures")
    arguments = options.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    notes = json.loads(arguments.notes.read_text(encoding="utf-8")) if arguments.notes else {}
    try:
        check = PairsFolder.read(arguments.check)
        report = export(arguments.checkpoint, arguments.out, arguments.name, check, notes, half_weights=not arguments.float32)
    except FgsbirError as error:
        log.error("error: %s", error)
        return error.exit_code
    log.info("%s written: %s", arguments.out, json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
