"""What a bundle was made from: hashes of files and folders, and versions of packages. Never where they lay."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

PACKAGES = ("fgsbir-edge", "numpy", "onnx", "onnxruntime", "onnxscript", "onnxslim", "torch")
_CHUNK = 1 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises OSError."""
    state = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def folder_sha256(root: Path) -> str:
    """SHA-256 over names and contents of all files below `root`, in the order of their names. Raises OSError."""
    state = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        state.update(f"{path.relative_to(root).as_posix()}\0{file_sha256(path)}\n".encode())
    return state.hexdigest()


def folders(roots: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each data folder by its own name."""
    return {root.resolve().name: folder_sha256(root) for root in roots}


def versions() -> dict[str, str]:
    """Versions of Python and of those PACKAGES that are installed."""
    found = {name: dist.version for name in PACKAGES for dist in metadata.distributions(name=name)}
    return {"python": platform.python_version(), **found}
