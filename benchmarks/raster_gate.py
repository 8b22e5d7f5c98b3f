"""What the rasterisers' answers are held against: the NumPy twins, themselves held against the papers' golden image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.raster_peers import LINE_WIDTH, Kind
from benchmarks.rounds import Verdict
from benchmarks.sketches import SIDE, SketchSet
from fgsbir_edge._reference import raster as twin

Image = NDArray[np.uint8]

GOLDEN = [[(40.4, 40.6), (200.2, 60.1), (119.5, 200.5)], [(30, 128), (220, 128)], [(128, 30), (128, 31)]]
GOLDEN_DIGEST = "9085fd24521c7aec"  # of the papers' rasteriser (METHODS D.2)
SMOOTH = 64  # sketches on which anti-aliased answers are checked: their twin takes 0.1 s each
HALF = 127  # more is ink
MIN_OVERLAP = 0.4  # intersection over union below which a peer draws something else


class Gate:
    """Expected images of a sketch set, drawn by the twins when they are first asked for."""

    def __init__(self, sketches: SketchSet) -> None:
        golden = twin.bresenham([np.array(stroke, np.float64) for stroke in GOLDEN], SIDE, SIDE)
        digest = hashlib.sha256((golden > 0).astype(np.uint8).tobytes()).hexdigest()[:16]
        if digest != GOLDEN_DIGEST:
            raise SystemExit(f"the reference draws {digest} instead of the papers' {GOLDEN_DIGEST}: timings would mean nothing")
        self._sketches = sketches
        self._drawn: dict[tuple[Kind, int], Image] = {}
        self._every = -(-len(sketches) // SMOOTH)

    def checked(self, kind: Kind, index: int) -> bool:
        """Whether the image of sketch ``index`` is compared: all are, but for the slow twin of anti-aliasing."""
        return not kind.startswith("antialias") or index % self._every == 0

    def expected(self, kind: Kind, index: int) -> Image:
        """What the twin draws: [256, 256] uint8."""
        if (kind, index) not in self._drawn:
            self._drawn[kind, index] = _twin(kind, self._sketches.arrays[index])
        return self._drawn[kind, index]

    def verdict(self, kind: Kind, *, same: bool, answers: Iterable[tuple[int, Image]]) -> Verdict:
        """Hold ``answers``, (index, image [256, 256] uint8), against the twin: exactly where ``same``, else say how far off."""
        pairs = [(image.astype(np.int16), self.expected(kind, index)) for index, image in answers if self.checked(kind, index)]
        if not pairs:
            return Verdict(False, "no image to check")
        if same:
            wrong = sum(not np.array_equal(image, wanted) for image, wanted in pairs)
            return Verdict(not wrong, f"{wrong} of {len(pairs)} images differ" if wrong else f"same pixels, {len(pairs)} images")
        joint = sum(int(((image > HALF) & (wanted > HALF)).sum()) for image, wanted in pairs)
        either = sum(int(((image > HALF) | (wanted > HALF)).sum()) for image, wanted in pairs)
        levels = sum(int(np.abs(image - wanted).sum()) for image, wanted in pairs) / sum(int((w > 0).sum()) for _, w in pairs)
        overlap = joint / max(1, either)
        return Verdict(overlap >= MIN_OVERLAP, f"IoU {overlap:.3f}, {levels:.1f} levels off on ink, {len(pairs)} images")

    def within_a_level(self, kind: Kind, answers: Iterable[tuple[int, Image]]) -> Verdict:
        """No pixel may be more than one of 255 levels off."""
        off = [
            int(np.abs(image.astype(np.int16) - self.expected(kind, index)).max())
            for index, image in answers
            if self.checked(kind, index)
        ]
        return Verdict(bool(off) and max(off) <= 1, f"at most {max(off, default=256)} of 255 levels off, {len(off)} images")

    def normalised(
        self,
        kind: Kind,
        answers: Iterable[tuple[int, NDArray[Any]]],
        to_floats: Callable[[Image], NDArray[np.float64]],
        bound: float,
    ) -> Verdict:
        """Float images [3, 256, 256]: none farther than ``bound`` (and a level, if smooth) from ``to_floats`` of the twin's."""
        level = float(np.abs(to_floats(np.full((1, 1), 255, np.uint8)) - to_floats(np.full((1, 1), 254, np.uint8))).max())
        allowed = bound + (level if kind.startswith("antialias") else 0.0)
        off = [
            float(np.abs(image.astype(np.float64) - to_floats(self.expected(kind, index))).max())
            for index, image in answers
            if self.checked(kind, index)
        ]
        worst = max(off, default=np.inf)
        return Verdict(worst <= allowed, f"at most {worst:.2g} off (allowed {allowed:.2g}), {len(off)} images")


def _twin(kind: Kind, strokes: list[NDArray[np.float64]]) -> Image:
    if kind == "lines":
        ink: Image = twin.lines(strokes, SIDE, SIDE).astype(np.uint8) * np.uint8(255)
        return ink
    if kind == "dilated":
        return twin.bresenham(strokes, SIDE, SIDE)
    return twin.antialias(strokes, SIDE, SIDE, 1.0 if kind == "antialias 1" else LINE_WIDTH)
