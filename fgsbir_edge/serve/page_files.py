"""The drawing page's files, read once: what a client asks for never becomes a path."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
START = "index.html"


@dataclass(frozen=True)
class PageFile:
    """A file and its media type."""

    data: bytes
    type: str


def page_files() -> dict[str, PageFile]:
    """All files of the page by name."""
    folder = resources.files("fgsbir_edge.serve").joinpath("page")
    return {
        entry.name: PageFile(entry.read_bytes(), TYPES["." + entry.name.rpartition(".")[2]])
        for entry in folder.iterdir()
        if "." + entry.name.rpartition(".")[2] in TYPES
    }
