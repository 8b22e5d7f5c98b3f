"""The model file: a folder with ``manifest.json``, ``encoder.onnx`` and ``head.safetensors``; hashes are checked on load.

{"format": "fgsbir-edge-bundle", "version": 1, "name": "...",
 "input": {"size": 160, "mean": [..3], "std": [..3], "photo_fit": "pad", "photo_shift": 5 (left out where it is 0),
           "sketch": {"style": "antialias", "line_width": 2.0, "ink": "dark"}},
 "features": C, "embedding": D,
 "files": {"encoder.onnx": {"sha256": "...", "bytes": n}, "head.safetensors": {...}},
 "provenance": {...}}
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fgsbir_edge.errors import BundleFormatError, BundleHashError, BundleMissingFileError, OutputError
from fgsbir_edge.files import read_bounded, sync_folder, write_atomic
from fgsbir_edge.head import Head, digest_of
from fgsbir_edge.preprocess import InputSpec

FORMAT, VERSION = "fgsbir-edge-bundle", 1
MANIFEST, ENCODER, HEAD = "manifest.json", "encoder.onnx", "head.safetensors"
MAX_MANIFEST_BYTES = 2**20
MAX_ENCODER_BYTES = 2**31 - 1  # protobuf's own limit
DEFAULT_FOLDER = Path(__file__).parent / "models" / "default"


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded bundle. ``encoder`` holds the very bytes whose hash was checked; ``path`` is None for one made in memory."""

    name: str
    input: InputSpec
    encoder: bytes
    head: Head
    provenance: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @cached_property
    def encoder_sha256(self) -> str:
        """SHA-256 of the ONNX file."""
        return hashlib.sha256(self.encoder).hexdigest()

    @cached_property
    def features_digest(self) -> str:
        """What stored photo features depend on: the encoder and how photos become its input. Galleries are bound to it."""
        photo = {name: value for name, value in self.input.to_manifest().items() if name != "sketch"}
        return digest_of(self.encoder_sha256.encode(), json.dumps(photo, sort_keys=True).encode())

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
            if manifest.get("version") != VERSION:
                raise BundleFormatError(
                    f"{folder / MANIFEST}: version {manifest.get('version')!r}, this release reads {VERSION}; "
                    "export the bundle again, or update fgsbir-edge"
                )
            spec = InputSpec.from_manifest(manifest["input"])
            features, embedding = int(manifest["features"]), int(manifest["embedding"])
            hashes = {name: str(manifest["files"][name]["sha256"]) for name in (ENCODER, HEAD)}
            name, provenance = str(manifest["name"]), dict(manifest.get("provenance", {}))
        except KeyError as error:
            raise BundleFormatError(f"{folder / MANIFEST}: {error} is missing; export the bundle again") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise BundleFormatError(f"{folder / MANIFEST}: {error}; export the bundle again") from error
        encoder, head_bytes = _read(folder / ENCODER, MAX_ENCODER_BYTES), _read(folder / HEAD)
        if verify:
            for part, data in ((ENCODER, encoder), (HEAD, head_bytes)):
                got = hashlib.sha256(data).hexdigest()
                if got != hashes[part]:
                    raise BundleHashError(
                        f"{folder / part}: sha256 is {got[:12]}, the manifest says {hashes[part][:12]}; the file was changed or "
                        "is damaged, copy the bundle again"
                    )
        head = Head.from_bytes(head_bytes, str(folder / HEAD))
        if head.weight.shape != (embedding, features):
            raise BundleFormatError(
                f"{folder / HEAD}: weight has shape {list(head.weight.shape)}, the manifest says {[embedding, features]}; "
                "export the bundle again"
            )
        return cls(name, spec, encoder, head, provenance, folder)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the bundle folder; an existing one is replaced only once the new one is complete. Raises OutputError.

        A folder that is not a bundle is never replaced.
        """
        target = Path(folder)
        if target.exists() and not (target / MANIFEST).is_file():
            raise OutputError(f"{target}: exists and is not a bundle; choose another folder or remove it first")
        parts = {ENCODER: self.encoder, HEAD: self.head.to_bytes()}
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "input": self.input.to_manifest(),
            "features": self.head.features,
            "embedding": self.head.embedding,
            "files": {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in parts.items()},
            "provenance": dict(self.provenance),
        }
        mark = f"{os.getpid()}.{secrets.token_hex(4)}"
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
    folder: str | os.PathLike[str], *, name: str, encoder: bytes, head: Head, input: InputSpec, provenance: Mapping[str, Any]
) -> Bundle:
    """Write a bundle and read it back as a user would, hashes and all. Raises OutputError and what ``Bundle.load`` raises."""
    Bundle(name, input, encoder, head, provenance).save(folder)
    return Bundle.load(folder)


def _read(path: Path, limit: int = 256 * 2**20) -> bytes:
    try:
        return read_bounded(path, limit)
    except OSError as error:
        raise BundleMissingFileError(
            f"{path}: cannot read ({error.strerror}); a bundle is a folder with {MANIFEST}, {ENCODER} and {HEAD}, check the path"
        ) from error
    except ValueError as error:
        raise BundleFormatError(f"{path}: {error}; export the bundle again") from error
