"""Files that a user names: opened only if they are ordinary files, with errors that say what to check."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fgsbir_edge.errors import UnreadableImageError

AnyPath = str | os.PathLike[str]


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
