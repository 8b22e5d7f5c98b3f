"""Sketches that the format tests share."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fgsbir_edge.sketch import Sketch

HOUSE = Sketch.from_strokes([[(0.5, 0), (10, 0), (10, 5)], [(2, 2), (3, 3)], [(4, 4), (6, 5.25)]])


def sketches(elements: st.SearchStrategy[float], shortest_stroke: int = 1) -> st.SearchStrategy[Sketch]:
    stroke = st.integers(shortest_stroke, 8).flatmap(lambda n: arrays(np.float64, (n, 2), elements=elements))
    return st.lists(stroke, min_size=1, max_size=5).filter(lambda strokes: sum(map(len, strokes)) >= 2).map(Sketch.from_strokes)


steady = settings(deadline=None, max_examples=40)  # files are synced; a slow disk is not a failure
any_coordinates = st.floats(-1e6, 1e6, allow_nan=False)
whole_coordinates = st.integers(-1000, 1000).map(float)


def same(one: Sketch, other: Sketch, within: float = 0.0) -> bool:
    return one.offsets.tolist() == other.offsets.tolist() and bool(np.abs(one.points - other.points).max() <= within)
