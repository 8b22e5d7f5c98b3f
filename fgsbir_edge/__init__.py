"""Find the one photo that a hand-drawn sketch means, and adapt to a new person or category from a handful of pairs.

    from fgsbir_edge import Engine

    engine = Engine.open(photos="photos/")
    hits = engine.search("drawing.png")
    mine = engine.adapt([("mine1.png", "chair1.jpg"), ("mine2.png", "chair2.jpg")]).adapter
    hits = engine.search("drawing.png", adapter=mine)

Names are imported on first use, so that ``import fgsbir_edge`` costs nothing and ``python -m fgsbir_edge.adapt`` starts fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fgsbir_edge.adapt import AdaptOptions, AdaptResult
    from fgsbir_edge.bundle import Bundle
    from fgsbir_edge.engine import Engine
    from fgsbir_edge.errors import FgsbirError
    from fgsbir_edge.gallery import Gallery, Hit
    from fgsbir_edge.head import Adapter, Head
    from fgsbir_edge.sketch import Sketch

__all__ = ["AdaptOptions", "AdaptResult", "Adapter", "Bundle", "Engine", "FgsbirError", "Gallery", "Head", "Hit", "Sketch"]

_HOMES = {
    "AdaptOptions": "adapt",
    "AdaptResult": "adapt",
    "Adapter": "head",
    "Bundle": "bundle",
    "Engine": "engine",
    "FgsbirError": "errors",
    "Gallery": "gallery",
    "Head": "head",
    "Hit": "gallery",
    "Sketch": "sketch",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("fgsbir-edge")
        except metadata.PackageNotFoundError:  # a checkout on the path, never installed
            return "0+uninstalled"
    if name not in _HOMES:
        raise AttributeError(f"module 'fgsbir_edge' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"fgsbir_edge.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
