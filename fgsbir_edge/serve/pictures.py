"""A photo's file as a picture for a screen."""

from __future__ import annotations

import hashlib
import io

from fgsbir_edge.errors import FgsbirError
from fgsbir_edge.gallery import Item
from fgsbir_edge.photo import ImageBudget, flattened, open_image
from fgsbir_edge.reading import read_start
from fgsbir_edge.serve.problems import Problem

MIN_SIDE, MAX_SIDE = 64, 2048  # pixels, the longer side
QUALITY = 88


def picture(item: Item, side: int) -> bytes:
    """The photo that was indexed as JPEG, its longer side at most ``side`` pixels, upright and without what else the file held.

    The file is where the gallery says; it is shown only where its content is still what was indexed. Raises Problem.
    """
    budget = ImageBudget()
    try:
        data = read_start(item.source, budget.max_bytes + 1)
        if hashlib.sha256(data).hexdigest() != item.sha256:
            raise _gone("has changed since it was indexed")
        image = flattened(open_image(data, budget, wanted=side))
    except FgsbirError:
        raise _gone("is no longer where it was indexed, or cannot be read") from None
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def _gone(what: str) -> Problem:
    return Problem(404, "PhotoFileGone", f"the file of this photo {what}", "take its thumbnail, or index the folder again")
