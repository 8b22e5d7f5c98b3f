"""Lines between junctions to strokes: what thinning added goes, and lines that go on in one direction become one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.data.thinning import Line, PixelGraph

FloatArray = NDArray[np.float64]
LONGEST_BRIDGE = 4  # times `bridge`; longer ones need not be straight

End = tuple[int, int]  # a line's number, and 0 for its first point or -1 for its last


@dataclass(frozen=True)
class Limits:
    """Pixels but for `turn`, degrees: see TraceOptions, whose fields these are, measured in the drawing at hand."""

    width: float
    bridge: float
    spur: float
    gap: float
    reach: float
    turn: float


def strokes_of(graph: PixelGraph, limits: Limits) -> list[FloatArray]:
    """Strokes [n, 2] along the lines of a graph, from junction to junction and on; a closed one ends where it begins."""
    net = _Net(graph, limits)
    partners = net.partners()
    left = set(net.lines)
    starts = [(number, side) for number in net.lines for side in (0, -1) if (number, side) not in partners]
    strokes: list[FloatArray] = []
    scraps: list[FloatArray] = []  # short pieces between longer strokes, whose ink these cover
    for start in [*starts, *((number, 0) for number in net.lines)]:  # the latter are left in rings
        if start[0] not in left:
            continue
        pieces = [net.touching(start)] if start not in partners else []
        end: End | None = start
        while end is not None and end[0] in left:
            left.remove(end[0])
            pieces.append(net.points(end))
            other = end[0], -1 - end[1]
            if other not in partners:
                pieces.append(net.touching(other))
            end = partners.get(other)
        if end is not None or net.lines[start[0]].closed:
            pieces.append(net.points(start)[:1])
        stroke = np.concatenate(pieces)
        attached = max(net.lines[start[0]].start, net.lines[start[0]].end) >= 0
        (scraps if attached and length(stroke) < limits.spur else strokes).append(stroke)
    return strokes or scraps


def length(points: FloatArray) -> float:
    """Pixels along points [n, 2]."""
    return float(np.hypot(*np.diff(points, axis=0).T).sum())


class _Net:
    """The lines that are left, and which junctions are one."""

    def __init__(self, graph: PixelGraph, limits: Limits) -> None:
        self.limits = limits
        self.lines: dict[int, Line] = dict(enumerate(graph.lines))
        self.junction_points = graph.junction_points
        self.junction_of = graph.junction_of
        self._drop_holes()
        self._drop_spurs()
        self._join_crossings()

    def points(self, end: End) -> FloatArray:
        """A line's points [n, 2], from this end on."""
        return self.lines[end[0]].points[:: 1 if end[1] == 0 else -1]

    def touching(self, end: End) -> FloatArray:
        """The junction's pixel nearest to a line's end [1, 2], none [0, 2] for a free end."""
        at = self._junction(end)
        if not len(at):
            return at
        gaps = np.hypot(*(at - self.points(end)[0]).T)
        return at[[int(gaps.argmin())]]

    def partners(self) -> dict[End, End]:
        """Which end of a line goes on as which: at each junction those that turn least, then the next; then over gaps."""
        found: dict[End, End] = {}
        ends = self._ends()
        free = ends.pop(-1)
        for meeting in ends.values():
            _match(meeting, self._turns(meeting), 180.0 if len(meeting) == 2 else self.limits.turn, found)
        free += [end for meeting in ends.values() for end in meeting if end not in found]
        if free:
            _match(free, self._gaps(free), self.limits.gap, found)
        return found

    def _junction(self, end: End) -> FloatArray:
        """The pixels [n, 2] of the junction at a line's end."""
        line = self.lines[end[0]]
        number = line.start if end[1] == 0 else line.end
        points: FloatArray = self.junction_points[(self.junction_of == number) & (number >= 0)]
        return points

    def _ends(self) -> dict[int, list[End]]:
        """The ends of lines at each junction; those that end freely at -1."""
        found: dict[int, list[End]] = {-1: []}
        for number, line in self.lines.items():
            for side, junction in () if line.closed else ((0, line.start), (-1, line.end)):
                found.setdefault(junction, []).append((number, side))
        return found

    def _short(self, limit: float) -> list[int]:
        """Lines shorter than `limit`, shortest first."""
        lengths = sorted((length(line.points), number) for number, line in self.lines.items())
        return [number for pixels, number in lengths if pixels < limit]

    def _drop_holes(self) -> None:
        """Of short lines between the same junctions one stays; short lines from a junction to itself go."""
        seen: set[tuple[int, int]] = set()
        for number in self._short(2 * self.limits.bridge):
            first, second = sorted((self.lines[number].start, self.lines[number].end))
            if first >= 0 and (first == second or (first, second) in seen):
                del self.lines[number]
            seen.add((first, second))

    def _drop_spurs(self) -> None:
        """Shortest first, so that of the fork at the end of a thick line one prong stays."""
        degree = {junction: len(ends) for junction, ends in self._ends().items()}
        for number in self._short(self.limits.spur):
            first, second = sorted((self.lines[number].start, self.lines[number].end))
            if first < 0 <= second and degree[second] > 2:
                degree[second] -= 1
                del self.lines[number]

    def _join_crossings(self) -> None:
        """Where two lines cross, thinning leaves two forks and a bridge between them, long at a small angle: they become one."""
        for number in self._short(LONGEST_BRIDGE * self.limits.bridge):
            start, end, ends = self.lines[number].start, self.lines[number].end, self._ends()
            if min(start, end) < 0 or start == end:
                continue
            left, right = ([other for other in ends[side] if other[0] != number] for side in (start, end))
            if len(left) == len(right) == 2 and self._crosses(self.lines[number].points, left, right):
                del self.lines[number]
                self.junction_of = np.where(self.junction_of == end, start, self.junction_of)
                for other, side in right:
                    line = self.lines[other]
                    self.lines[other] = replace(line, start=line.start if side else start, end=start if side else line.end)

    def _crosses(self, bridge: FloatArray, left: list[End], right: list[End]) -> bool:
        """Whether each line on the left goes on as one on the right, and the bridge is no longer than such lines overlap.

        Lines of width w that lean by an angle a to their bisector overlap over about w / sin(a).
        """
        turns = self._turns([*left, *right])[:2, 2:]
        if min(np.diag(turns).max(), np.diag(turns[::-1]).max()) > self.limits.turn:
            return False
        along = bridge[-1] - bridge[0]
        away = np.array([self._direction(end) for end in [*left, *right]]) * np.array([[-1], [-1], [1], [1]])
        lean = np.arccos(np.clip(away @ along / max(float(np.hypot(*along)), 1e-9), -1, 1)).mean()
        return length(bridge) * float(np.sin(min(lean, np.pi / 2))) < self.limits.bridge

    def _gaps(self, ends: list[End]) -> FloatArray:
        """Pixels between ends [n, n], infinite where going on from one as the other would turn too much."""
        points = np.array([self.points(end)[0] for end in ends])
        across = points[None] - points[:, None]
        gaps = np.hypot(across[..., 0], across[..., 1])
        ahead = -np.einsum("ijk,ik->ij", across, np.array([self._direction(end) for end in ends]))
        faces = ahead >= np.cos(np.radians(self.limits.turn)) * gaps
        goes_on = (self._turns(ends) <= self.limits.turn) & ((gaps < self.limits.width) | (faces & faces.T))
        return np.where(goes_on, gaps, np.inf)

    def _turns(self, ends: list[End]) -> FloatArray:
        """Degrees that a line turns which goes on from one end as another [n, n]."""
        away = np.array([self._direction(end) for end in ends])
        turns: FloatArray = np.degrees(np.arccos(np.clip(-away @ away.T, -1, 1)))
        return turns

    def _direction(self, end: End) -> FloatArray:
        """Unit vector along a line, away from its end; what lies within the ink's width of a junction is bent and left out."""
        points = self.points(end)
        way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
        near, far = np.searchsorted(way, (min(0.5 * self.limits.width, 0.3 * way[-1]), self.limits.reach))
        vector = points[min(far, len(points) - 1)] - points[near]
        at = self._junction(end)
        if len(points) == 1 and len(at):
            vector = points[0] - at.mean(axis=0)
        unit: FloatArray = vector / max(float(np.hypot(*vector)), 1e-9)
        return unit


def _match(ends: list[End], costs: FloatArray, limit: float, found: dict[End, End]) -> None:
    """Pair ends by their costs [n, n], the cheapest first, none dearer than `limit`."""
    first, second = np.triu_indices(len(ends), 1)
    order = np.argsort(costs[first, second], kind="stable")
    for a, b in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if costs[a, b] > limit:
            return
        if ends[a] not in found and ends[b] not in found:
            found[ends[a]], found[ends[b]] = ends[b], ends[a]
