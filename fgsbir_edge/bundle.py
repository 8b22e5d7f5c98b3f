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

A folder may also hold a sketch encoder by itself, for the bundle in the package: "format", "version", "name", "sketch_encoder",
"over": {"name": "...", "features_digest": "..."}, which says for which one. Loading it gives that bundle with both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fgsbir_edge.bundle_files import (
    HEAD,
    MANIFEST,
    MAX_ENCODER_BYTES,
    MAX_MANIFEST_BYTES,
    Side,
    check_hash,
    described,
    read_file,
    sketch_entry,
    sketch_side,
    write_folder,
)
from fgsbir_edge.confidence import Confidence
from fgsbir_edge.errors import BundleFormatError, BundleMissingFileError
from fgsbir_edge.head import Head, digest_of
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.variant import ENCODER, FP32, SKETCH, Variant, digest

FORMAT, VERSION, WITH_SKETCH = "fgsbir-edge-bundle", 1, 2
DEFAULT_FOLDER = Path(__file__).parent / "models" / "default"
LIGHT, LIGHT_FOLDER = "light", DEFAULT_FOLDER.parent / "light"


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
        if self.sketch is not None and self.sketch.head is not self.head:
            object.__setattr__(self, "sketch", replace(self.sketch, head=self.head))

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
        data = read_file(self.path / entry.file, MAX_ENCODER_BYTES)
        check_hash(self.path / entry.file, digest(data), entry.sha256)
        return data

    def encoder_path(self, variant: str = FP32) -> Path:
        """A variant's ONNX file on disk, its hash checked now. Raises what ``encoder_bytes`` does, and for a bundle in memory."""
        entry = self.variant(variant)
        if self.path is None:
            raise BundleMissingFileError(f"{self.name}: the bundle is in memory and has no files; save it first")
        path = self.path / entry.file
        check_hash(path, digest(read_file(path, MAX_ENCODER_BYTES)), entry.sha256)
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

        "light" is the bundle in the package with its light sketch encoder, unless there is a folder of that name. Raises
        BundleMissingFileError (no manifest, or a file it names), BundleHashError, BundleFormatError (not a bundle, another
        version, or tensors whose shapes disagree with the manifest).
        """
        folder = LIGHT_FOLDER if os.fspath(path) == LIGHT and not os.path.exists(path) else Path(path)
        raw = read_file(folder / MANIFEST, MAX_MANIFEST_BYTES)
        try:
            manifest = json.loads(raw)
            if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
                raise ValueError(f'"format" is not {FORMAT!r}')
            if manifest.get("version") not in (VERSION, WITH_SKETCH):
                raise BundleFormatError(
                    f"{folder / MANIFEST}: version {manifest.get('version')!r}, this release reads {VERSION} and {WITH_SKETCH}; "
                    "export the bundle again, or update fgsbir-edge"
                )
            if "over" in manifest:
                return cls._over(folder, manifest, verify)
            spec = InputSpec.from_manifest(manifest["input"])
            features, embedding = int(manifest["features"]), int(manifest["embedding"])
            hashes = {name: str(manifest["files"][name]["sha256"]) for name in (ENCODER, HEAD)}
            variants = {key: Variant.from_manifest(key, entry) for key, entry in manifest.get("variants", {}).items()}
            if verify and FP32 in variants and variants[FP32].sha256 != hashes[ENCODER]:
                raise ValueError(f"variant {FP32!r} and {ENCODER} have different hashes")
            confidence = _confidence(manifest)
            name, provenance = str(manifest["name"]), dict(manifest.get("provenance", {}))
            drawn = sketch_side(manifest["sketch_encoder"]) if "sketch_encoder" in manifest else None
        except KeyError as error:
            raise BundleFormatError(f"{folder / MANIFEST}: {error} is missing; export the bundle again") from error
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise BundleFormatError(f"{folder / MANIFEST}: {error}; export the bundle again") from error
        encoder, head_bytes = read_file(folder / ENCODER, MAX_ENCODER_BYTES), read_file(folder / HEAD)
        found = digest(encoder)
        if verify:
            check_hash(folder / ENCODER, found, hashes[ENCODER])
            check_hash(folder / HEAD, digest(head_bytes), hashes[HEAD])
        head = Head.from_bytes(head_bytes, str(folder / HEAD))
        if head.weight.shape != (embedding, features):
            raise BundleFormatError(
                f"{folder / HEAD}: weight has shape {list(head.weight.shape)}, the manifest says {[embedding, features]}; "
                "export the bundle again"
            )
        sketch = None if drawn is None else cls._sketch(f"{name} sketches", folder, drawn, head, verify)
        return cls(name, spec, encoder, head, provenance, folder, variants, confidence, sketch, hashed=found)

    @classmethod
    def _sketch(cls, name: str, folder: Path, drawn: Side, head: Head, verify: bool) -> Bundle:
        """The sketches' side of a folder."""
        spec, variants, made = drawn
        encoder = read_file(folder / SKETCH, MAX_ENCODER_BYTES)
        found = digest(encoder)
        if verify:
            check_hash(folder / SKETCH, found, variants[FP32].sha256)
        return cls(name, spec, encoder, head, made, folder, variants, hashed=found)

    @classmethod
    def _over(cls, folder: Path, manifest: Mapping[str, Any], verify: bool) -> Bundle:
        """The bundle in the package with the sketch encoder of a folder that holds nothing else."""
        base, wanted, name = cls.load(DEFAULT_FOLDER, verify), manifest["over"], str(manifest["name"])
        if base.features_digest != wanted["features_digest"]:
            raise BundleFormatError(
                f"{folder}: a sketch encoder for bundle {wanted['name']!r}, this release has {base.name!r}; export it again"
            )
        sketch = cls._sketch(f"{name} sketches", folder, sketch_side(manifest["sketch_encoder"]), base.head, verify)
        return replace(base, name=name, sketch=sketch, confidence=_confidence(manifest))

    def save_sketch_encoder(self, folder: str | os.PathLike[str]) -> None:
        """Write the sketch encoder by itself, for releases whose bundle is this one without it.

        Raises OutputError, BundleMissingFileError where there is one encoder alone, BundleFormatError where the bundle in this
        package is another.
        """
        own, base = self.sketch, Bundle.default()
        if own is None:
            raise BundleMissingFileError(f"{self._place}: has no sketch encoder; export one into it with --sketch-encoder")
        if base.features_digest != self.features_digest:
            raise BundleFormatError(f"{self._place}: not the encoder of bundle {base.name!r} in this package; save both together")
        over = {"name": base.name, "features_digest": base.features_digest}
        manifest = {
            "format": FORMAT,
            "version": WITH_SKETCH,
            "name": f"{base.name}-light",
            "over": over,
            **_entry(self.confidence),
        }
        parts = {entry.file: own.encoder_bytes(name) for name, entry in own.variants.items()}
        write_folder(Path(folder), parts, {**manifest, "sketch_encoder": sketch_entry(own)})

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the bundle folder; an existing one is replaced only once the new one is complete. Raises OutputError.

        A folder that is not a bundle is never replaced.
        """
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
            "head": described(self.head),
            "variants": {name: entry.to_manifest() for name, entry in self.variants.items()},
            **({} if own is None else {"sketch_encoder": sketch_entry(own)}),
            **_entry(self.confidence),
            "provenance": dict(self.provenance),
        }
        write_folder(Path(folder), parts, manifest)


def _confidence(manifest: Mapping[str, Any]) -> Confidence | None:
    return Confidence.from_manifest(manifest["confidence"]) if "confidence" in manifest else None


def _entry(confidence: Confidence | None) -> dict[str, Any]:
    return {} if confidence is None else {"confidence": confidence.to_manifest()}


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
