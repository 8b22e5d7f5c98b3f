"""The files of a bundle's folder, and the parts of its manifest; ``bundle`` says what is in them."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgsbir_edge.errors import BundleFormatError, BundleHashError, BundleMissingFileError, OutputError
from fgsbir_edge.files import read_bounded, sync_folder, write_atomic
from fgsbir_edge.head import Head, digest_of
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.variant import ENCODER, FP32, SKETCH, Variant

if TYPE_CHECKING:
    from fgsbir_edge.bundle import Bundle

MANIFEST, HEAD = "manifest.json", "head.safetensors"
MAX_MANIFEST_BYTES = 2**20
MAX_ENCODER_BYTES = 2**31 - 1  # protobuf's own limit
Side = tuple[InputSpec, dict[str, Variant], dict[str, Any]]  # of sketches: input, variants, how it was made


def sketch_entry(side: Bundle) -> dict[str, Any]:
    """The manifest's "sketch_encoder"."""
    variants = {name: entry.to_manifest() for name, entry in side.variants.items()}
    return {"input": side.input.to_manifest(), "variants": variants, "made": dict(side.provenance)}


def sketch_side(entry: Mapping[str, Any]) -> Side:
    """The reverse: input, variants with fp32 among them, how it was made. Raises ValueError, KeyError or TypeError."""
    variants = {key: Variant.from_manifest(key, value, SKETCH) for key, value in entry["variants"].items()}
    if FP32 not in variants:
        raise ValueError(f"the sketch encoder has no variant {FP32!r}")
    return InputSpec.from_manifest(entry["input"]), variants, dict(entry.get("made", {}))


def write_folder(target: Path, parts: Mapping[str, bytes], manifest: Mapping[str, Any]) -> None:
    """Write a bundle's folder in the place of an older one, whole or not at all. Raises OutputError."""
    if target.exists() and not (target / MANIFEST).is_file():
        raise OutputError(f"{target}: exists and is not a bundle; choose another folder or remove it first")
    mark = f"{os.getpid()}.{os.urandom(4).hex()}"
    fresh, stale = target.parent / f".{target.name}.{mark}.part", target.parent / f".{target.name}.{mark}.old"
    try:
        fresh.mkdir(parents=True)
        for name, data in parts.items():
            write_atomic(fresh / name, data)
        write_atomic(fresh / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
        if target.exists():
            os.replace(target, stale)
        os.replace(fresh, target)
        sync_folder(target.parent)
    except OSError as error:
        if stale.exists() and not target.exists():
            os.replace(stale, target)
        raise OutputError(f"{target}: cannot write ({error.strerror or error}); choose a writable folder") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if target.exists():
            shutil.rmtree(stale, ignore_errors=True)


def described(head: Head) -> dict[str, Any]:
    """What a reader of the manifest wants to know of the head; the device reads head.safetensors alone."""
    net = head.margin_net
    return {
        "digest": head.digest,
        "step_sizes": [float(size) for size in head.step_sizes],
        "margin": head.margin if net is None else None,
        "margin_network": None if net is None else {"hidden": len(net.b1), "sha256": digest_of(net.packed.tobytes())},
        "sharpness": head.sharpness,
        "side": head.side,
        "negatives": head.negatives,
        "centre": head.centre if math.isfinite(head.centre) else None,
        "start_share": None if head.start is None else head.start.share,
    }


def check_hash(path: Path, got: str, wanted: str) -> None:
    if got != wanted:
        raise BundleHashError(
            f"{path}: sha256 is {got[:12]}, the manifest says {wanted[:12]}; the file was changed or is damaged, "
            "copy the bundle again"
        )


def read_file(path: Path, limit: int = 256 * 2**20) -> bytes:
    try:
        return read_bounded(path, limit)
    except OSError as error:
        raise BundleMissingFileError(
            f"{path}: cannot read ({error.strerror}); a bundle is a folder with {MANIFEST}, {ENCODER} and {HEAD}, check the path"
        ) from error
    except ValueError as error:
        raise BundleFormatError(f"{path}: {error}; export the bundle again") from error
