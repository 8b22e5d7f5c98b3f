"""The durable store of photos and exact search in it: one SQLite file."""

from __future__ import annotations

from fgsbir_edge.gallery.folder import AddReport
from fgsbir_edge.gallery.gallery import Gallery
from fgsbir_edge.gallery.search import Hit
from fgsbir_edge.gallery.store import Item

__all__ = ["AddReport", "Gallery", "Hit", "Item"]
