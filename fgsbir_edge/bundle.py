"""The model file: a folder with ``manifest.json``, ``head.safetensors``, ``encoder.onnx`` and its variants; hashes are checked.

{"format": "fgsbir-edge-bundle", "version": 1 (2 with a sketch encoder), "name": "...",
 "input": {"size": 160, "mean": [..3], "std": [..3], "photo_fit": "pad", "photo_shift": 5 (left out where it is 0),
           "sketch": {"style": "antialias", "line_width": 2.0, "ink": "dark"}},
 "features": C, "embedding": D,
 "files": {"encoder.onnx": {"sha256": "...", "bytes": n}, "head.safetensors": {...}},
 "head": {what head.safetensors holds, for people to read},
 "variants": {"fp32": {"file": "encoder.onnx", "sha256": "...", "bytes": n, "accuracy": {...}, "parity": {...}, "made": {...}},
              "fp16": {"file": "encoder.fp16.onnx", ...}, "int8": ...},
 "sketch_encoder": {"input": {as above}, "variants": {"fp32": {"file": "sketch.onnx", ...}, ...}, "made": {...}},
 "confidence": {constants of fgsbir_edge.confidence},
 "provenance": {...}}

"head", "variants" and "confidence" are younger than version 1; a bundle without them is whole, has the variant fp32 alone, and
its answers have no confidence. With "sketch_encoder" sketches have a network and an input of their own, whose features lie where
``encoder.onnx`` would put them; releases that know version 1 alone refuse such a bundle, since they would encode with the other.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fgsbir_edge.confidence import Confidence
from fgsbir_edge.errors import BundleFormatError, BundleHashError, BundleMissingFileError, OutputError
from fgsbir_edge.files import read_bounded, sync_folder, write_atomic
from fgsbir_edge.head import Head, digest_of
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.variant import ENCODER, FP32, SKETCH, Variant, digest

FORMAT, VERSION, WITH_SKETCH = "fgsbir-edge-bundle", 1, 2
MANIFEST, HEAD = "manifest.json", "head.safetensors"
MAX_MANIFEST_BYTES = 2**20
MAX_ENCODER_BYTES = 2**31 - 1  # protobuf's own limit
DEFAULT_FOLDER = Path(__file__).parent / "models" / "default"


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded bundle. ``encoder`` holds the very bytes whose hash was checked; ``path`` is None for one made in memory.

    ``variants`` always holds "fp32", which is ``encoder``. Variants that were made from another encoder (``replace`` with a new
    one) are dropped. ``confidence`` is None where the bundle has no constants for it, or some that this release does not know.
    ``sketch`` is the sketches' side of a bundle with two encoders: the same head behind another network and input.
    """

    name: str
    input: InputSpec
    encoder: bytes
    head: Head
    provenance: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    variants: Mapping[str, Variant] = field(default_factory=dict)
    confidence: Confidence | None = None
    sketch: Bundle | None = None
    hashed: InitVar[str | None] = None  # the SHA-256 of ``encoder``, from whoever has just taken it

    def __post_init__(self, hashed: str | None) -> None:
        if hashed is not None:
            self.__dict__["encoder_sha256"] = hashed
        given = dict(self.variants)
        plain = given.get(FP32, Variant(FP32, self.encoder_sha256, len(self.encoder)))
        if plain.sha256 != self.encoder_sha256:
            plain, given = Variant(FP32, self.encoder_sha256, len(self.encoder)), {}
        object.__setattr__(self, "variants", MappingProxyType({FP32: plain} | given))
        if self.sketch is not None and (self.sketch.head, self.sketch.path) != (self.head, self.path):
            object.__setattr__(self, "sketch", replace(self.sketch, head=self.head, path=self.path))

    @cached_property
    def encoder_sha256(self) -> str:
        """SHA-256 of the fp32 ONNX file."""
        return digest(self.encoder)

    def variant(self, name: str) -> Variant:
        """The variant of this name. Raises BundleMissingFileError, which lists those that are there."""
        if name not in self.variants:
            raise BundleMissingFileError(
                f"{self._place}: no variant {name!r}, there are {', '.join(self.variants)}; choose one of these, or export the "
                "bundle with --variants"
            )
        return self.variants[name]

    def nearest(self, name: str, side: Bundle | None = None) -> str:
        """The variant that one side (None: the photos') runs as where ``name`` is asked for: fp32 where it lacks it.

        Raises BundleMissingFileError where neither side has it.
        """
        if name not in self.for_sketches.variants:
            self.variant(name)
        return name if name in (side or self).variants else FP32

    def encoder_bytes(self, variant: str = FP32) -> bytes:
        """A variant's ONNX file. Raises BundleMissingFileError (no such variant, or its file is gone) and BundleHashError."""
        entry = self.variant(variant)
        if variant == FP32:
            return self.encoder
        if entry.content is not None:
            return entry.content
        if self.path is None:
            raise BundleMissingFileError(f"{self.name}: variant {variant!r} has no file; save the bundle it comes from first")
        data = _read(self.path / entry.file, MAX_ENCODER_BYTES)
        _check(self.path / entry.file, digest(data), entry.sha256)
        return data

    def encoder_path(self, variant: str = FP32) -> Path:
        """A variant's ONNX file on disk, its hash checked now. Raises what ``encoder_bytes`` does, and for a bundle in memory."""
        entry = self.variant(variant)
        if self.path is None:
            raise BundleMissingFileError(f"{self.name}: the bundle is in memory and has no files; save it first")
        path = self.path / entry.file
        _check(path, digest(_read(path, MAX_ENCODER_BYTES)), entry.sha256)
        return path

    @property
    def _place(self) -> str:
        return self.name if self.path is None else str(self.path)

    @cached_property
    def features_digest(self) -> str:
        """What stored photo features depend on: the encoder and how photos become its input. Galleries are bound to it.

        Variants share it: they are the same network, and each one's distance to fp32 was measured when it was made.
        """
        photo = {name: value for name, value in self.input.to_manifest().items() if name != "sketch"}
        return digest_of(self.encoder_sha256.encode(), json.dumps(photo, sort_keys=True).encode())

    @property
    def for_sketches(self) -> Bundle:
        """What encodes sketches, as a bundle that every backend opens like any other: this one unless it has two encoders."""
        return self if self.sketch is None else self.sketch

    @cached_property
    def pairs_digest(self) -> str:
        """What features of sketches depend on, and adapters learned from them: both encoders, where there are two."""
        if self.sketch is None:
            return self.features_digest
        drawn = json.dumps(self.sketch.input.to_manifest(), sort_keys=True)
        return digest_of(self.features_digest.encode(), self.sketch.encoder_sha256.encode(), drawn.encode())

    def with_sketch_encoder(self, encoder: bytes, input: InputSpec, made: Mapping[str, Any]) -> Bundle:
        """This bundle with a sketch encoder (ONNX) that gives these features; ``made`` says how. Its confidence is dropped.

        Confidence was fitted to distances between the features of one network.
        """
        plain = Variant.of(FP32, encoder, SKETCH)
        side = Bundle(f"{self.name} sketches", input, encoder, self.head, made, variants={FP32: plain})
        return replace(self, sketch=side, confidence=None)

    @classmethod
    def default(cls) -> Bundle:
        """The bundle shipped inside the package. Raises BundleMissingFileError when this build carries none."""
        return cls.load(DEFAULT_FOLDER)

    @classmethod
    def load(cls, path: str | os.PathLike[str], verify: bool = True) -> Bundle:
        """Read and check a bundle folder. ``verify=False`` skips the hashes, never the manifest.

        Raises BundleMissingFileError (no manifest, or a file it names), BundleHashError, BundleFormatError (not a bundle, another
        version, or tensors whose shapes disagree with the manifest).
        """
        folder = Path(path)
        raw = _read(folder / MANIFEST, MAX_MANIFEST_BYTES)
        try:
            manifest = json.loads(raw)
            if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
                raise ValueError(f'"format" is not {FORMAT!r}')
            if manifest.get("version") not in (VERSION, WITH_SKETCH):
                raise BundleFormatError(
                    f"{folder / MANIFEST}: version {manifest.get('version')!r}, this release reads {VERSION} and {WITH_SKETCH}; "
                    "export the bundle again, or update fgsbir-edge"
                )
            spec = InputSpec.from_manifest(manifest["input"])
            features, embedding = int(manifest["features"]), int(manifest["embedding"])
            hashes = {name: str(manifest["files"][name]["sha256"]) for name in (ENCODER, HEAD)}
            variants = {key: Variant.from_manifest(key, entry) for key, entry in manifest.get("variants", {}).items()}
            if verify and FP32 in variants and variants[FP32].sha256 != hashes[ENCODER]:
                raise ValueError(f"variant {FP32!r} and {ENCODER} have different hashes")
            confidence = Confidence.from_manifest(manifest["confidence"]) if "confidence" in manifest else None
            name, provenance = str(manifest["name"]), dict(manifest.get("provenance", {}))
            drawn = _sketch_side(manifest["sketch_encoder"]) if "sketch_encoder" in manifest else None
        except KeyError as error:
            raise BundleFormatError(f"{folder / MANIFEST}: {error} is missing; export the bundle again") from error
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise BundleFormatError(f"{folder / MANIFEST}: {error}; export the bundle again") from error
        encoder, head_bytes = _read(folder / ENCODER, MAX_ENCODER_BYTES), _read(folder / HEAD)
        found = digest(encoder)
        if verify:
            _check(folder / ENCODER, found, hashes[ENCODER])
            _check(folder / HEAD, digest(head_bytes), hashes[HEAD])
        head = Head.from_bytes(head_bytes, str(folder / HEAD))
        if head.weight.shape != (embedding, features):
            raise BundleFormatError(
                f"{folder / HEAD}: weight has shape {list(head.weight.shape)}, the manifest says {[embedding, features]}; "
                "export the bundle again"
            )
        sketch = None
        if drawn is not None:
            own = _read(folder / SKETCH, MAX_ENCODER_BYTES)
            own_found = digest(own)
            if verify:
                _check(folder / SKETCH, own_found, drawn[1][FP32].sha256)
            sketch = cls(f"{name} sketches", drawn[0], own, head, drawn[2], folder, drawn[1], hashed=own_found)
        return cls(name, spec, encoder, head, provenance, folder, variants, confidence, sketch, hashed=found)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the bundle folder; an existing one is replaced only once the new one is complete. Raises OutputError.

        A folder that is not a bundle is never replaced.
        """
        target = Path(folder)
        if target.exists() and not (target / MANIFEST).is_file():
            raise OutputError(f"{target}: exists and is not a bundle; choose another folder or remove it first")
        parts = {entry.file: self.encoder_bytes(name) for name, entry in self.variants.items()} | {HEAD: self.head.to_bytes()}
        own = self.sketch
        if own is not None:
            parts |= {entry.file: own.encoder_bytes(name) for name, entry in own.variants.items()}
        manifest = {
            "format": FORMAT,
            "version": VERSION if own is None else WITH_SKETCH,
            "name": self.name,
            "input": self.input.to_manifest(),
            "features": self.head.features,
            "embedding": self.head.embedding,
            "files": {name: {"sha256": digest(data), "bytes": len(data)} for name, data in parts.items()},
            "head": _described(self.head),
            "variants": {name: entry.to_manifest() for name, entry in self.variants.items()},
            **({} if own is None else {"sketch_encoder": _sketch_entry(own)}),
            **({} if self.confidence is None else {"confidence": self.confidence.to_manifest()}),
            "provenance": dict(self.provenance),
        }
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


def write_bundle(
    folder: str | os.PathLike[str],
    *,
    name: str,
    encoder: bytes,
    head: Head,
    input: InputSpec,
    provenance: Mapping[str, Any],
    variants: Mapping[str, Variant] | None = None,
) -> Bundle:
    """Write a bundle and read it back as a user would, hashes and all. Raises OutputError and what ``Bundle.load`` raises."""
    Bundle(name, input, encoder, head, provenance, variants=variants or {}).save(folder)
    return Bundle.load(folder)


def _sketch_entry(side: Bundle) -> dict[str, Any]:
    """The manifest's "sketch_encoder"."""
    variants = {name: entry.to_manifest() for name, entry in side.variants.items()}
    return {"input": side.input.to_manifest(), "variants": variants, "made": dict(side.provenance)}


def _sketch_side(entry: Mapping[str, Any]) -> tuple[InputSpec, dict[str, Variant], dict[str, Any]]:
    """The reverse: input, variants with fp32 among them, how it was made. Raises ValueError, KeyError or TypeError."""
    variants = {key: Variant.from_manifest(key, value, SKETCH) for key, value in entry["variants"].items()}
    if FP32 not in variants:
        raise ValueError(f"the sketch encoder has no variant {FP32!r}")
    return InputSpec.from_manifest(entry["input"]), variants, dict(entry.get("made", {}))


def _described(head: Head) -> dict[str, Any]:
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


def _check(path: Path, got: str, wanted: str) -> None:
    if got != wanted:
        raise BundleHashError(
            f"{path}: sha256 is {got[:12]}, the manifest says {wanted[:12]}; the file was changed or is damaged, "
            "copy the bundle again"
        )


def _read(path: Path, limit: int = 256 * 2**20) -> bytes:
    try:
        return read_bounded(path, limit)
    except OSError as error:
        raise BundleMissingFileError(
            f"{path}: cannot read ({error.strerror}); a bundle is a folder with {MANIFEST}, {ENCODER} and {HEAD}, check the path"
        ) from error
    except ValueError as error:
        raise BundleFormatError(f"{path}: {error}; export the bundle again") from error
