"""What goes wrong, as clients see it: a status and one object ``{error, message, remedy}``."""

from __future__ import annotations

import logging

from fgsbir_edge import errors
from fgsbir_edge.errors import FgsbirError

_log = logging.getLogger(__name__)

# Anything that is not listed is the server's fault: 500, and what was wrong stands in its log alone.
STATUS: dict[type[FgsbirError], int] = {
    errors.EmptyGalleryError: 404,
    errors.UnknownPhotoError: 404,
    errors.UnknownPersonError: 404,
    errors.SketchTooLargeError: 413,
    errors.ImageTooLargeError: 413,
    errors.UnreadableImageError: 415,
    errors.NoPairsError: 422,
    errors.EmptySketchError: 422,
    errors.NonFiniteError: 422,
    errors.TruncatedImageError: 422,
    errors.SketchFormatError: 422,
    errors.FilterError: 422,
    errors.OutputError: 503,
    errors.GalleryFormatError: 503,
}
OWN = "look into the server's log, or ask whoever runs it"


class Problem(Exception):  # noqa: N818 - an answer rather than a fault
    """An answer other than success. ``headers`` go out with it."""

    def __init__(self, status: int, error: str, message: str, remedy: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.error, self.message, self.remedy = status, error, message, remedy
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, str]:
        """The object that is sent."""
        return {"error": self.error, "message": self.message, "remedy": self.remedy}


def problem_of(error: FgsbirError, gallery: str) -> Problem:
    """The answer to an error of the engine; the gallery's path is nobody's business but the log's."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    status = next((STATUS[base] for base in type(error).__mro__ if base in STATUS), 500)
    if status >= 500:
        _log.error("%s: %s", kind, text)
        return Problem(status, kind, " ".join((type(error).__doc__ or kind).split()), OWN)
    message, remedy = split_remedy(text.replace(gallery, "the gallery"))
    return Problem(status, kind, message, remedy or "change the request and send it again")


def split_remedy(text: str) -> tuple[str, str]:
    """A message into what is wrong and what to do: errors of this package say the latter last, after a semicolon or a colon."""
    for mark in ("; ", ": "):
        message, found, remedy = text.rpartition(mark)
        if found:
            return message, remedy
    return text, ""
