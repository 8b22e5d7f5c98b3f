"""Files that are either whole or not there: atomic writes, bounded reads, and safetensors with their metadata."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.errors import OutputError

MAX_TENSOR_BYTES = 256 * 2**20  # a head or an adapter is kilobytes to a few megabytes; more than this is another file


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` so that after a crash or a full disk ``path`` holds the old content or the new, never a part.

    Raises OutputError naming the path and the system's reason.
    """
    target = Path(path)
    temporary = target.parent / f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}.part"
    try:
        with open(temporary, "xb") as stream:  # not tempfile: the result should have an ordinary file's permissions
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
        sync_folder(target.parent)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{target}: cannot write ({reason}); choose a writable folder with free space") from error
    finally:
        temporary.unlink(missing_ok=True)  # gone already unless something failed


def read_bounded(path: str | os.PathLike[str], limit: int = MAX_TENSOR_BYTES) -> bytes:
    """The content of a file of at most ``limit`` bytes. Raises OSError, and ValueError when it is longer."""
    with open(path, "rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"more than {limit} bytes")
    return data


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut, where the system allows folders to be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def pack_tensors(tensors: dict[str, NDArray[np.float32]], metadata: dict[str, str]) -> bytes:
    """The bytes of a safetensors file of float32 tensors. Equal input gives equal bytes.

    Written by hand, a length, a JSON header and the data, because the library's own writer shuffles the metadata: then neither
    the hash of a bundle's head nor an adapter would be reproducible.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    parts = []
    start = 0
    for name, tensor in sorted(tensors.items()):
        data = np.ascontiguousarray(tensor, dtype="<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, start + len(data)]}
        parts.append(data)
        start += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts aligned
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def unpack_tensors(data: bytes) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises ValueError with a short reason when it is not one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)  # checks the header before anything below reads it
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"not a safetensors file: {error}") from error
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = {str(key): str(value) for key, value in header.get("__metadata__", {}).items()}
    return tensors, metadata
