"""What every reader needs: bounded reads with plain errors, and errors that say where they happened."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fgsbir_edge.errors import FgsbirError, SketchTooLargeError, UnreadableImageError

AnyPath = str | os.PathLike[str]

MAX_BYTES = 256 * 2**20  # the largest QMUL pickle has 4 MB


@contextlib.contextmanager
def located(where: str) -> Iterator[None]:
    """Put ``where`` (a file, a line, a key) in front of the message of any error raised on purpose; its class stays."""
    try:
        yield
    except FgsbirError as error:
        raise type(error)(f"{where}: {error}".replace("\n", " ")) from error


@contextlib.contextmanager
def readable(path: AnyPath) -> Iterator[None]:
    """Turn what the system says about a file that cannot be opened or read into UnreadableImageError."""
    name = os.fspath(path)
    try:
        yield
    except FileNotFoundError:
        raise UnreadableImageError(f"{name}: no such file: check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise UnreadableImageError(f"{name!r}: cannot be read ({reason}): check the path and its permissions") from error


def open_binary(path: AnyPath) -> BinaryIO:
    """Open an ordinary file. Raises UnreadableImageError if it is missing, a folder, a pipe or not permitted."""
    with readable(path):
        # Opened only after the check: opening a pipe would wait for its writer.
        if not stat.S_ISREG(os.stat(path).st_mode):
            kind = "a folder" if os.path.isdir(path) else "not an ordinary file"
            raise UnreadableImageError(f"{os.fspath(path)}: {kind}, expected a file: check the path")
        return Path(path).open("rb")


def read_start(path: AnyPath, count: int) -> bytes:
    """Read at most ``count`` bytes from the start of an ordinary file. Raises UnreadableImageError."""
    with open_binary(path) as stream, readable(path):
        return stream.read(count)


def read_bytes(path: AnyPath, limit: int = MAX_BYTES) -> bytes:
    """Read a whole file. Raises UnreadableImageError, and SketchTooLargeError beyond ``limit`` bytes."""
    data = read_start(path, limit + 1)
    if len(data) > limit:
        raise SketchTooLargeError(f"{os.fspath(path)}: more than {limit} bytes: split the file")
    return data
