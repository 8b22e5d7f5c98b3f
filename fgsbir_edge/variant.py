"""One form of a bundle's encoder: the same network in another arithmetic, with what was measured of it when it was made."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FP32 = "fp32"
ENCODER, SKETCH = "encoder.onnx", "sketch.onnx"
_NAME = re.compile(r"[a-z0-9_]{1,32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class Variant:
    """An entry of "variants" in a bundle's manifest. Raises ValueError when a field is not what a manifest may hold.

    Args:
        name: "fp32", "fp16", "int8", "bf16", ...: lower-case letters, digits and "_".
        sha256: of the ONNX file, in hex.
        size: bytes of the ONNX file.
        accuracy: figures on the folder that the export was checked on; empty where nothing was measured.
        parity: distance of its features to the reference's; empty where nothing was measured.
        made: how: method, calibration set, layers left in float.
        content: the ONNX file, for a variant that is not on disk yet.
        network: ENCODER, or SKETCH for a form of the sketch encoder.
    """

    name: str
    sha256: str
    size: int
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    network: str = ENCODER

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"variant name is {self.name!r}, expected lower-case letters, digits and '_'")
        if not _SHA256.fullmatch(self.sha256) or self.size < 0:
            raise ValueError(f"variant {self.name!r}: sha256 {self.sha256[:70]!r} or bytes {self.size} is no such thing")
        if self.content is not None and digest(self.content) != self.sha256:
            raise ValueError(f"variant {self.name!r}: content does not have sha256 {self.sha256[:12]}")

    @property
    def file(self) -> str:
        """Name of its file inside the bundle's folder: ``encoder.onnx`` for fp32, else ``encoder.NAME.onnx``."""
        return self.network if self.name == FP32 else f"{self.network.removesuffix('.onnx')}.{self.name}.onnx"

    @classmethod
    def of(cls, name: str, content: bytes, network: str = ENCODER, **measured: Mapping[str, Any]) -> Variant:
        """A variant made in memory; `measured` are ``accuracy``, ``parity`` and ``made``."""
        return cls(name, digest(content), len(content), content=content, network=network, **measured)

    def to_manifest(self) -> dict[str, Any]:
        """The JSON form; what is empty is left out."""
        measured = {key: dict(getattr(self, key)) for key in ("accuracy", "parity", "made")}
        entry = {"file": self.file, "sha256": self.sha256, "bytes": self.size}
        return entry | {key: value for key, value in measured.items() if value}

    @classmethod
    def from_manifest(cls, name: str, entry: Mapping[str, Any], network: str = ENCODER) -> Variant:
        """The reverse of ``to_manifest``. Raises ValueError, KeyError or TypeError when the entry is not one."""
        accuracy, parity, made = (dict(entry.get(key, {})) for key in ("accuracy", "parity", "made"))
        variant = cls(name, str(entry["sha256"]), int(entry["bytes"]), accuracy, parity, made, network=network)
        if entry["file"] != variant.file:
            raise ValueError(f"variant {name!r} is in file {entry['file']!r}, expected {variant.file!r}")
        return variant


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()
