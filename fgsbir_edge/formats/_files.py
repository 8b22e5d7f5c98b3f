"""What every reader needs: bounded reads with plain errors, and errors that say where they happened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from fgsbir_edge.errors import FgsbirError, SketchTooLargeError
from fgsbir_edge.reading import AnyPath, read_start

MAX_BYTES = 256 * 2**20  # the largest QMUL pickle has 4 MB


@contextlib.contextmanager
def located(where: str) -> Iterator[None]:
    """Put ``where`` (a file, a line, a key) in front of the message of any error raised on purpose; its class stays."""
    try:
        yield
    except FgsbirError as error:
        raise type(error)(f"{where}: {error}".replace("\n", " ")) from error


def read_bytes(path: AnyPath, limit: int = MAX_BYTES) -> bytes:
    """Read a whole file. Raises UnreadableImageError, and SketchTooLargeError beyond ``limit`` bytes."""
    data = read_start(path, limit + 1)
    if len(data) > limit:
        raise SketchTooLargeError(f"{os.fspath(path)}: more than {limit} bytes: split the file")
    return data
