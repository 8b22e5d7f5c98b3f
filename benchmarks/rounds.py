"""Competitors checked before they are timed, and timed in turns, so that whatever drifts on the machine hits all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.samples import ratio, significant, summary

Samples = dict[str, NDArray[np.float64]]
Clock = Callable[[], int]  # nanoseconds


@dataclass(frozen=True)
class Verdict:
    """What a check of an answer found: whether the competitor may be timed, and how far its answer is from the expected one."""

    passed: bool
    finding: str


@dataclass(frozen=True)
class Competitor:
    """Something to time.

    Args:
        name: what tables call it.
        run: does the work of call number n.
        items: sketches, images or steps in one call; figures are per item.
        check: looks at the answer of ``run``; None only where there is no answer to check, as in writing constants.
        bytes: bytes that one item must at least write; 0 where that is not the question.
        threads: how many it may use.
        limit: does nothing but what any competitor must do at least, as fast as the machine allows.
    """

    name: str
    run: Callable[[int], object]
    items: int = 1
    check: Callable[[], Verdict] | None = None
    bytes: int = 0
    threads: int = 1
    limit: bool = False


@dataclass(frozen=True)
class Ratio:
    """How many times as long one took as the other: by medians of rounds, with its 95 % interval."""

    value: float
    low: float
    high: float
    best: float | None = None  # the same by each call's shortest round, which a busy machine disturbs least
    ceiling: float | None = None  # what it would be if the faster one ran at the limit that was measured


@dataclass
class Report:
    """What a run found, as it goes into JSON."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)  # name, reason

    def figures(self) -> dict[str, list[dict[str, Any]]]:
        """The report as it goes into JSON."""
        return {"rows": self.rows, "targets": self.targets, "rejected": self.rejected, "skipped": self.skipped}

    def row(self, group: str, name: str) -> dict[str, Any] | None:
        """The row of a competitor, or None where it was skipped or rejected."""
        found = [row for row in self.rows if (row["group"], row["name"]) == (group, name)]
        return found[0] if found else None

    def fastest(self, group: str, names: Sequence[str]) -> str | None:
        """The name with the smallest median in a group; None where none of them was timed."""
        found = [row for name in names if (row := self.row(group, name)) is not None]
        return min(found, key=lambda row: float(row["median"]))["name"] if found else None

    def times(self, group: str, name: str, against: tuple[str, str]) -> Ratio | None:
        """How many times as long ``against`` (group, name) took; None where either was not timed."""
        own, other = self.row(group, name), self.row(*against)
        if own is None or other is None:
            return None
        paired = len(own["rounds"]) == len(other["rounds"])
        value, low, high = ratio(other["rounds"], own["rounds"], paired=paired)
        share, multiple = other.get("limit_share"), other.get("floor_multiple")
        ceiling = multiple if multiple is not None else 1 / share if share else None
        return Ratio(value, low, high, other["best"] / own["best"], ceiling)

    def target(self, text: str, wanted: float, got: Ratio | None, *, most: bool = False) -> None:
        """Record a target: whether the ratio is at least (with ``most``: at most) the one wanted; None where not measured.

        Both the ratio of medians and the one at best must be: a busy machine interrupts long calls more often than short ones,
        which makes medians flatter whoever is fast.
        """
        entry: dict[str, Any] = {"target": text, "wanted": wanted, "most": most, "got": None, "reached": None}
        if got is not None:
            values = [got.value, *([] if got.best is None else [got.best])]
            entry["reached"] = bool(max(values) <= wanted if most else min(values) >= wanted)
            entry |= {"got": significant(got.value, 4), "interval": [significant(got.low, 4), significant(got.high, 4)]}
            entry |= {"by_best": got.best and significant(got.best, 4)}
            entry |= {"at_the_limit": None if most or got.ceiling is None else significant(got.ceiling, 4)}
        self.targets.append(entry)


def race(
    report: Report,
    group: str,
    competitors: Sequence[Competitor],
    *,
    rounds: int,
    turn_ms: float = 20.0,
    calls: int | None = None,
    clock: Clock = time.perf_counter_ns,
) -> None:
    """Check every competitor, time those that pass, and add their rows to the report.

    In each round every competitor has one turn, in an order drawn anew: as many calls as fit into ``turn_ms`` going by the
    warm-up (1 to 500), or ``calls``. Call numbers go on from round to round. Times are microseconds per item by ``clock``,
    which gives nanoseconds; ``time.thread_time_ns`` leaves out what other processes take, for work of one thread alone.
    """
    verdicts = {competitor.name: _verdict(competitor) for competitor in competitors}
    admitted = [competitor for competitor in competitors if verdicts[competitor.name].passed]
    for competitor in competitors:
        if competitor not in admitted:
            report.rejected.append({"group": group, "name": competitor.name, "reason": verdicts[competitor.name].finding})
    turns = {competitor.name: calls or _calls_for(competitor, turn_ms, clock) for competitor in admitted}
    times = _interleaved(admitted, rounds, turns, clock)
    for competitor in admitted:
        row = {"group": group, "name": competitor.name, "unit": "us", **summary(times[competitor.name])}
        row |= {"agrees": verdicts[competitor.name].finding, "bytes": competitor.bytes}
        report.rows.append({**row, "threads": competitor.threads, "limit": competitor.limit})
    _shares(report, group)


def _shares(report: Report, group: str) -> None:
    """Add to each row of a group its rate as a share of the fastest limit's with as many threads: 1 is the limit itself."""
    rows = [row for row in report.rows if row["group"] == group and row["bytes"]]
    for row in rows:
        rates = [other["bytes"] / other["median"] for other in rows if other["limit"] and other["threads"] == row["threads"]]
        if rates:
            row["limit_share"] = significant(row["bytes"] / row["median"] / max(rates), 3)


def _verdict(competitor: Competitor) -> Verdict:
    """Run a competitor once and check its answer at once (others may write to the same memory); raising is failing."""
    try:
        competitor.run(0)
        return competitor.check() if competitor.check else Verdict(True, "")
    except Exception as error:  # a peer may raise anything; the others are timed all the same
        return Verdict(False, f"{type(error).__name__}: {error}")


def _calls_for(competitor: Competitor, turn_ms: float, clock: Clock) -> int:
    """Warm up for a turn and return how many calls fit into one."""
    start, done = clock(), 0
    while done < 2 or clock() - start < turn_ms * 1e6:
        competitor.run(0)
        done += 1
        if done >= 500:
            break
    each = max(1.0, (clock() - start) / done)
    return int(min(500, max(1, turn_ms * 1e6 // each)))


def _interleaved(competitors: Sequence[Competitor], rounds: int, calls: dict[str, int], clock: Clock) -> Samples:
    """Microseconds per item [rounds, calls] of each competitor."""
    times: Samples = {one.name: np.empty((rounds, calls[one.name])) for one in competitors}
    order = np.random.default_rng(0)
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()  # a collection would land on whoever happens to allocate next
    try:
        for turn in range(rounds):
            for index in order.permutation(len(competitors)):
                _take_turn(competitors[index], turn, times[competitors[index].name], clock)
    finally:
        if was_enabled:
            gc.enable()
    return times


def _take_turn(competitor: Competitor, turn: int, times: NDArray[np.float64], clock: Clock) -> None:
    run, calls = competitor.run, times.shape[1]
    for call in range(calls):
        start = clock()
        run(turn * calls + call)
        times[turn, call] = (clock() - start) / (1e3 * competitor.items)
