"""A checkpoint of training/ as a bundle the device loads: ``python -m export.bundle --checkpoint C --out DIR --check DATA``.

The ONNX file is checked against PyTorch on real sketches and photos, in batches of odd sizes and on inputs that no camera gives,
before anything is written: same features within a stated bound, same ranks. Variants (``--variants fp16 int8 int8_cpu``) are
measured beside it and refused where they lose accuracy. ``--bundle DIR`` instead of a checkpoint adds variants to a bundle, or
with ``--sketch-encoder CHECKPOINT`` a light encoder for sketches, of which the variants then are.
``--confidence FILE`` takes the constants that ``training.confidence`` has written; a bundle gets them without any measuring.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from export.agreement import GRAPH, PYTORCH, agree
from export.calibration import IMAGES
from export.onnx_encoder import OPSET, export_model, halved, serialised
from export.provenance import file_sha256, folders, versions
from export.quantise import Method
from export.sketch_encoder import with_sketch_encoder
from export.variants import MOST_LOSS, NAMES, QUERIES, Plan, make, measure, measured, refuse
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.confidence import Confidence
from fgsbir_edge.console import put_json, run, say
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.errors import BundleFormatError
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.variant import FP32
from training.data.folder import PairsFolder
from training.evaluate_table import GalleryRule
from training.evaluation import Encode


def export(
    checkpoint: Path,
    out: Path,
    name: str,
    check: PairsFolder,
    notes: dict[str, Any],
    *,
    half_weights: bool = True,
    plan: Plan | None = None,
) -> dict[str, Any]:
    """Write the bundle with the plan's variants and return the parity report of fp32.

    Raises:
        ParityError: the graph's features or ranks are not PyTorch's.
        VariantRefusedError: a variant loses more than 0.5 points Acc@1 and is not allowed to.
    """
    import torch

    from training.checkpoint import load_model
    from training.evaluation import torch_encode
    from training.heads import runtime_head

    plan = plan or Plan()
    torch.set_num_threads(plan.threads)
    encoder, _, meta = load_model(checkpoint)
    model = export_model(encoder)
    exact = serialised(model)
    stored = serialised(halved(model)) if half_weights else exact
    trial = Bundle(name, InputSpec.from_manifest(meta["input"]), stored, runtime_head(checkpoint), {})
    references = {
        PYTORCH: torch_encode(encoder),
        GRAPH: OnnxEncoder(replace(trial, encoder=exact), threads=plan.threads).encode,
    }
    kept = ("step", "validation", "adaptation", "meta_validation", "meta_steps")
    training = {key: meta[key] for key in kept if key in meta}
    facts = {"checkpoint": file_sha256(checkpoint), "weights": "float16" if half_weights else "float32", "opset": OPSET}
    found = _finish(trial, out, (check, plan, references), {**notes, "training": training, "export": facts})
    return dict(found[FP32]["parity"])


def add_variants(source: Path, out: Path, check: PairsFolder, plan: Plan) -> dict[str, Any]:
    """Write the bundle `source` with further variants as `out`, its fp32 encoder byte for byte the same.

    Returns what ``measure`` found of every variant. Raises what ``Bundle.load`` does, and VariantRefusedError.
    """
    bundle = Bundle.load(source)
    return _finish(bundle, out, (check, plan, {}), dict(bundle.provenance))


def _finish(
    bundle: Bundle, out: Path, judges: tuple[PairsFolder, Plan, Mapping[str, Encode]], provenance: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    check, plan, references = judges
    bundle, table = make(bundle, check, plan), plan.table(check)
    found = measure(bundle, table, references, plan.threads)
    if references:
        agree(found)
    refuse(found, plan.variants, plan.allow_loss, check.root.resolve().name)
    checked = {"folder": check.root.resolve().name, "pairs": plan.pairs, "gallery": plan.gallery, "queries": len(table.pairs)}
    roots = [check.root, *(folder.root for folder in plan.calibration)] if plan.variants else [check.root]
    facts = {**provenance.get("export", {}), "check": checked, "folders": folders(roots), "packages": versions()}
    graph = {"graph": found[GRAPH]["parity"]} if references else {}
    bundle = replace(measured(bundle, found), provenance={**provenance, "export": facts | graph})
    bundle.save(out)
    Bundle.load(out)  # as a user would, hashes and all
    return found


def add_sketch_encoder(
    source: Path, checkpoint: Path, out: Path, judges: tuple[PairsFolder, Plan], *, half_weights: bool = True, alone: bool = False
) -> dict[str, Any]:
    """Write the bundle `source` with a light encoder for sketches, and variants of that, as `out`; `alone`: nothing but these.

    Returns what was measured. Raises what ``Bundle.load``, ``with_sketch_encoder`` and ``Bundle.save_sketch_encoder`` do.
    """
    check, plan = judges
    bundle, found = with_sketch_encoder(Bundle.load(source), checkpoint, check, plan, half_weights=half_weights)
    if alone:
        bundle.save_sketch_encoder(out)
    else:
        bundle.save(out)
    Bundle.load(out)
    return found


def read_confidence(path: Path) -> Confidence:
    """The constants in a file of ``training.confidence``. Raises BundleFormatError."""
    remedy = "give a file that 'python -m training.confidence --out' has written"
    try:
        confidence = Confidence.from_manifest(json.loads(path.read_text(encoding="utf-8"))["confidence"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleFormatError(f"{path}: no constants of confidence in it ({error}); {remedy}") from error
    if confidence is None:
        raise BundleFormatError(f"{path}: its confidence is of another version or form; {remedy}")
    return confidence


def add_confidence(source: Path, out: Path, confidence: Confidence, *, alone: bool = False) -> None:
    """Write the bundle `source` with these constants as `out`, which may be the same folder. All else stays as it is.

    `alone`: nothing but the sketch encoder and these.
    """
    bundle = replace(Bundle.load(source), confidence=confidence)
    if alone:
        bundle.save_sketch_encoder(out)
    else:
        bundle.save(out)
    Bundle.load(out)


def write(arguments: argparse.Namespace) -> int:
    """Do what the command line says."""
    confidence = None if arguments.confidence is None else read_confidence(arguments.confidence)
    if confidence is not None and arguments.check is None:
        add_confidence(arguments.bundle, arguments.out, confidence, alone=arguments.alone)
        say(f"{arguments.out} written")
        put_json(confidence.to_manifest())
        return 0
    notes = json.loads(arguments.notes.read_text(encoding="utf-8")) if arguments.notes else {}
    check = PairsFolder.read(arguments.check, arguments.pairs)
    plan = Plan(
        variants=tuple(dict.fromkeys(arguments.variants)),
        calibration=tuple(PairsFolder.read(folder) for folder in arguments.calibration),
        images=arguments.images,
        method=arguments.method,
        allow_loss=frozenset(arguments.allow_loss),
        pairs=arguments.pairs,
        gallery=arguments.gallery,
        queries=arguments.queries,
        threads=arguments.threads,
    )
    half = not arguments.float32
    if arguments.sketch_encoder is not None:
        parts = (arguments.bundle, arguments.sketch_encoder, arguments.out)
        report = add_sketch_encoder(*parts, (check, plan), half_weights=half, alone=arguments.alone)
    elif arguments.bundle is not None:
        report = add_variants(arguments.bundle, arguments.out, check, plan)
    else:
        name = arguments.name or arguments.checkpoint.stem
        report = export(arguments.checkpoint, arguments.out, name, check, notes, half_weights=half, plan=plan)
    if confidence is not None:
        add_confidence(arguments.out, arguments.out, confidence, alone=arguments.alone)
    say(f"{arguments.out} written")
    put_json(report)
    return 0


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m export.bundle", description=__doc__)
    source = options.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, help="of training/, to be exported")
    source.add_argument("--bundle", type=Path, help="bundle that is to get variants; its fp32 encoder stays as it is")
    options.add_argument(
        "--sketch-encoder", type=Path, metavar="CHECKPOINT", help="of training.distil, for --bundle; --variants are then of it"
    )
    options.add_argument("--alone", action="store_true", help="write that encoder by itself, for the bundle in the package")
    options.add_argument("--out", type=Path, required=True, help="bundle folder to write; an existing bundle there is replaced")
    options.add_argument("--name", help="of the bundle; the checkpoint's file name without it")
    options.add_argument("--check", type=Path, help="dataset folder that proves parity and accuracy")
    options.add_argument(
        "--confidence", type=Path, metavar="FILE", help="of training.confidence: constants that go into the bundle"
    )
    options.add_argument("--pairs", default="pairs.csv", help="table inside --check")
    options.add_argument("--gallery", choices=get_args(GalleryRule), default="category", help="what a sketch is searched among")
    options.add_argument("--queries", type=int, default=QUERIES, help="rows of that table at most")
    options.add_argument("--variants", nargs="+", choices=NAMES, default=[], help="further forms of the encoder")
    options.add_argument(
        "--allow-loss", nargs="+", choices=NAMES, default=[], help=f"variants kept though they lose more than {MOST_LOSS} points"
    )
    options.add_argument("--calibration", type=Path, nargs="+", default=[], help="dataset folders for int8; --check without it")
    options.add_argument("--images", type=int, default=IMAGES, help="to calibrate on, half of them sketches")
    options.add_argument("--method", choices=get_args(Method), default="minmax", help="how int8 ranges are chosen")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument(
        "--float32", action="store_true", help="store weights as float32: twice the size, bit for bit the trained ones"
    )
    options.add_argument("--notes", type=Path, help="JSON file that goes into the manifest's provenance: data, terms, figures")
    return options


def main() -> int:
    options = parser()
    arguments = options.parse_args()
    if arguments.sketch_encoder is not None and arguments.bundle is None:
        options.error("--sketch-encoder goes into a bundle: give it by --bundle")
    if arguments.alone and arguments.sketch_encoder is None and (arguments.confidence is None or arguments.check is not None):
        options.error("--alone goes with --sketch-encoder, or with --confidence for a bundle that has one")
    plain = not arguments.variants and arguments.sketch_encoder is None
    alone = arguments.bundle is not None and arguments.confidence is not None and plain
    if arguments.check is None and not alone:
        options.error("--check is needed, unless --confidence alone goes into a --bundle")
    return run(lambda: write(arguments))


if __name__ == "__main__":
    sys.exit(main())
