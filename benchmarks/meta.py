"""Meta-training side by side: this project's inner loop beside full-matrix code, to second order, in episodes a second.

``python -m benchmarks.meta [--rounds 15] [--all] [--quick] [--out FILE] [--compare OLD]``. Eight tasks a step, each with k
support pairs and 16 query pairs; gradients for head, features, rates and margins. One thread. Heads, loss and gradients of every
competitor are held against float64 before anything is timed; competitors take turns; figures are microseconds per episode. Three
questions a task: the inner loop alone (the graph for the second order is kept), the outer loss with it, and the outer loss with
its gradients. What adapting adds to an outer step is its time less that of the same step without adaptation, round by round.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compare import comparison
from benchmarks.meta_methods import BASE, OURS, PEERS, Method, methods, step, without
from benchmarks.meta_tables import FORWARD, INNER, STEP, group, meta_text
from benchmarks.meta_task import MetaTask
from benchmarks.record import RESULTS, libraries, one_thread_a_library, write
from benchmarks.rounds import Competitor, Ratio, Report, Verdict, race
from benchmarks.samples import ratio, significant

WIDTHS, EMBEDDINGS, PAIRS, STEPS = (240, 512, 1280), (64, 240, 512), (1, 5, 10), (1, 5)
WANTED = 10  # times faster than full-matrix code, for the inner loop


@dataclass(frozen=True)
class Options:
    """What to run. ``every`` runs every k with every head; else k = 5 with all, and the others with one of them. ``quick`` is a
    smoke test of one small head, whose figures mean nothing."""

    rounds: int = 15
    every: bool = False
    quick: bool = False


def tasks(options: Options) -> list[MetaTask]:
    """The cells of a run."""
    if options.quick:
        return [MetaTask(24, 8, 3, steps, episodes=2, queries=4) for steps in (1, 2)]
    chosen = [(C, D, k) for C, D, k in product(WIDTHS, EMBEDDINGS, PAIRS) if options.every or k == 5 or (C, D) == (512, 64)]
    return [MetaTask(*sizes, steps) for sizes in chosen for steps in STEPS]


def run(options: Options) -> dict[str, Any]:
    """Everything this benchmark finds, as it goes into JSON."""
    report, cells = Report(), tasks(options)
    rounds, turn_ms = (1, 1.0) if options.quick else (options.rounds, 20.0)
    for task in cells:
        everyone = methods(task)
        race(report, group(task.name, INNER), [_inner(task, *item) for item in everyone.items()], rounds=rounds, turn_ms=turn_ms)
        for stage in (FORWARD, STEP):
            competitors = [_outer(task, name, method.outer, stage) for name, method in everyone.items()]
            competitors.append(_base(task, stage))
            race(report, group(task.name, stage), competitors, rounds=rounds, turn_ms=turn_ms)
    for row in report.rows:
        row["per_second"] = significant(1e6 / row["median"], 4)
    judge(report, cells)
    return {
        "question": "inner loop of meta-training, to second order",
        "rounds": rounds,
        "quick": options.quick,
        "episodes": cells[0].episodes,
        "cells": [task.name for task in cells],
        "libraries": libraries(("numpy", "torch")),
        **report.figures(),
    }


def _inner(task: MetaTask, name: str, method: Method) -> Competitor:
    """The inner loop alone."""
    return Competitor(name, lambda _: method.adapt(), task.episodes, lambda: task.heads_verdict(method.heads()))


def _outer(task: MetaTask, name: str, outer: Callable[[], Any], stage: str) -> Competitor:
    """An outer step, with or without gradients."""
    if stage == FORWARD:
        return Competitor(name, lambda _: outer(), task.episodes, lambda: task.outer_verdict((outer().detach(), ())))
    solve = partial(step, task, outer)
    return Competitor(name, lambda _: solve(), task.episodes, lambda: task.outer_verdict(solve()))


def _base(task: MetaTask, stage: str) -> Competitor:
    """The same step that adapts nothing: there is no answer to check, it is what all others have in common."""
    outer = without(task)
    work: Callable[[], object] = outer if stage == FORWARD else partial(step, task, outer)
    return Competitor(BASE, lambda _: work(), task.episodes, lambda: Verdict(True, "not adapted"))


def judge(report: Report, cells: list[MetaTask]) -> None:
    """The target in every cell, our fastest form against each peer: the inner loop alone, and what it adds to an outer step."""
    for task in cells:
        inner, outer = group(task.name, INNER), group(task.name, STEP)
        for peer in PEERS:
            best = report.fastest(inner, OURS)
            got = report.times(inner, best, (inner, peer)) if best else None
            report.target(f"inner loop, times faster than {peer} ({task.name})", WANTED, got)
        for peer in PEERS:
            text = f"what adapting adds to an outer step, times faster than {peer} ({task.name})"
            report.target(text, WANTED, added(report, outer, report.fastest(outer, OURS), peer))


def added(report: Report, where: str, name: str | None, peer: str) -> Ratio | None:
    """How many times as much the peer adds to a step that adapts nothing; None where one was not timed or adds nothing."""
    rows = [report.row(where, one) for one in (name or "", peer, BASE)]
    if None in rows:
        return None
    own, other, base = (np.asarray(row["rounds"]) for row in rows if row is not None)
    best = [row["best"] for row in rows if row is not None]
    above, below = other - base, own - base
    if np.median(below) <= 0 or best[0] <= best[2]:
        return None
    return Ratio(*ratio(above, below, paired=True), (best[1] - best[2]) / (best[0] - best[2]))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.meta", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--all", action="store_true", help="every k with every head: three times as long")
    parser.add_argument("--quick", action="store_true", help="one small head, one round: whether everything runs")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/meta.json; --quick writes nothing by default")
    parser.add_argument("--compare", type=Path, help="an earlier result: print ratios of times with their intervals")
    arguments = parser.parse_args()
    one_thread_a_library()
    figures = run(Options(arguments.rounds, arguments.all, arguments.quick))
    out = arguments.out or (None if arguments.quick else RESULTS / "meta.json")
    if out is not None:
        write(out, figures)
    sys.stdout.write(meta_text(figures))
    if arguments.compare:
        sys.stdout.write(comparison(figures, arguments.compare))


if __name__ == "__main__":
    main()
