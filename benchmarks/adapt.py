"""Adaptation side by side: this project's inner loop, PyTorch in five forms, NumPy, and the arithmetic that none can do without.

``python -m benchmarks.adapt [--rounds 15] [--no-compile] [--quick] [--out FILE] [--compare OLD]``. Five pairs with and without 64
further photos, 5 and 20 steps, three sizes of the head. One thread for everyone unless a row says otherwise. Every W' is held
against float64 before anything is timed; competitors take turns; figures are microseconds per step, set-up included.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks import limits
from benchmarks.adapt_span import Solver, WholeCall, full_gradient, written_out
from benchmarks.adapt_targets import BATCH, CACHED, GROWING, GUARDED, PLAIN, WHOLE, cell, growing, judge, judge_growth
from benchmarks.adapt_task import (
    COMPILED,
    FORMED,
    LOOP,
    MANY,
    NUMPY,
    TOGETHER,
    UNFORMED,
    UNWRITTEN,
    VMAP,
    Answer,
    Float32,
    Task,
    judged,
)
from benchmarks.compare import comparison
from benchmarks.record import RESULTS, libraries, one_thread_a_library, write
from benchmarks.rounds import Competitor, Report, Verdict, race
from benchmarks.samples import significant
from benchmarks.tables import text

LIBRARIES = ("numpy", "torch")
SIZES = ((512, 64), (512, 512), (1280, 64))  # C, D
EXTRA = (0, 64)
STEPS = (5, 20)
WIDTHS, LONG = (512, 1280, 4096), (5, 50)  # C and T of the question whether a step's time depends on C
TASKS = 64  # in a batch


@dataclass(frozen=True)
class Options:
    """What to run. ``quick`` times one round of one small head: a smoke test, its figures mean nothing."""

    rounds: int = 15
    compiled: bool = True
    quick: bool = False


def run(options: Options) -> dict[str, Any]:
    """Everything this benchmark finds, as it goes into JSON."""
    report, rounds = Report(), 1 if options.quick else options.rounds
    turn_ms = 1.0 if options.quick else 20.0
    sizes = ((32, 8),) if options.quick else SIZES
    peaks = limits.peak_gflops(0.05 if options.quick else 1.0)
    torch_methods = _torch_module(report)
    first_calls: dict[str, float] = {}
    for task in [Task(C, D, extra) for C, D in sizes for extra in EXTRA]:
        methods: dict[str, Callable[[int], Answer]] = {}
        if torch_methods is not None:
            methods = torch_methods.methods(task)
            if options.compiled:
                first_calls |= _add_compiled(report, task, torch_methods, methods)
        for steps in STEPS:
            _cell(report, task, steps, methods, max(peaks.values()), rounds=rounds, turn_ms=turn_ms)
    growing_tasks = [Task(width, 64, 0) for width in (WIDTHS[:2] if options.quick else WIDTHS)]
    _growth(report, growing_tasks, rounds, turn_ms)
    _whole_calls(report, Task(*sizes[0], 0), rounds, turn_ms)
    _batch(report, Task(*sizes[0], 0), torch_methods, rounds, 4 if options.quick else TASKS)
    judge(report)
    judge_growth(report, growing_tasks, LONG)
    return {
        "question": "inner loop of adaptation, five pairs",
        "rounds": rounds,
        "quick": options.quick,
        "peak_gflops": peaks,
        "first_call_seconds": first_calls,
        "libraries": libraries(LIBRARIES),
        **report.figures(),
    }


def _add_compiled(
    report: Report, task: Task, torch_methods: ModuleType, methods: dict[str, Callable[[int], Answer]]
) -> dict[str, float]:
    """Compile for one task; returns the seconds that it took, by the task's name. Needs a C++ compiler, and may fail without."""
    start = time.perf_counter()
    try:
        methods[COMPILED] = torch_methods.compiled(task)
    except Exception as error:  # whatever the compiler says
        report.skipped.append({"name": f"{COMPILED} ({task.name})", "reason": f"{type(error).__name__}: {error}".splitlines()[0]})
        return {}
    return {task.name: round(time.perf_counter() - start, 1)}


def _torch_module(report: Report) -> ModuleType | None:
    try:
        return import_module("benchmarks.adapt_torch")
    except ImportError as error:
        report.skipped.append({"name": "PyTorch", "reason": f"cannot be imported ({error}): pip install '.[bench]'"})
        return None


def _cell(
    report: Report,
    task: Task,
    steps: int,
    methods: dict[str, Callable[[int], Answer]],
    gflops: float,
    *,
    rounds: int,
    turn_ms: float,
) -> None:
    """All ways of taking ``steps`` steps on one task."""
    group, written = cell(task, steps), task.weight.nbytes // steps
    target, solver = np.empty_like(task.weight), Solver([task])
    everyone: dict[str, Callable[[int], Answer]] = {**methods, NUMPY: partial(full_gradient, task), FORMED: solver.one}
    competitors = [Competitor("copying W alone", lambda _: np.copyto(target, task.weight), steps, None, written, 1, True)]
    competitors += [_solver(name, task, steps, method) for name, method in everyone.items()]

    def short() -> Float32:
        return solver.coefficients(steps)[0]

    competitors.append(Competitor(UNFORMED, lambda _: short(), steps, partial(_check_coefficients, task, steps, short)))
    race(report, group, competitors, rounds=rounds, turn_ms=turn_ms)
    for row in report.rows:
        if row["group"] == group and not row["limit"]:
            floor = task.floor_operations(steps, formed=row["name"] != UNFORMED) / gflops / 1e3 / steps
            row |= {"floor": significant(floor, 4), "floor_multiple": significant(row["median"] / floor, 3)}


def _solver(name: str, task: Task, steps: int, method: Callable[[int], Answer]) -> Competitor:
    """A method that writes W' out, timed per step."""

    def run(_: int) -> Answer:
        return method(steps)

    return Competitor(name, run, steps, lambda: task.verdict(method(steps), steps), task.weight.nbytes // steps)


def _growth(report: Report, tasks: list[Task], rounds: int, turn_ms: float) -> None:
    """The same task at growing C, few steps and many: the difference is what steps take. Figures are per run."""
    competitors = []
    for task in tasks:
        for steps in LONG:
            solver = _solver(growing(task, steps), task, steps, Solver([task]).one)
            competitors.append(replace(solver, items=1, bytes=0))
    race(report, GROWING, competitors, rounds=rounds, turn_ms=turn_ms)


def _whole_calls(report: Report, task: Task, rounds: int, turn_ms: float) -> None:
    """The package's own calls; figures are per call of five steps."""
    call = WholeCall([task], STEPS[0])

    def check(guard: bool) -> Verdict:
        result = call.adapt(guard)
        if result.status != "adapted":
            return Verdict(False, result.explanation)
        return task.verdict(written_out(task, result.adapter.coefficients.T), STEPS[0])

    competitors = [
        Competitor(CACHED, lambda _: call.cached(), 1, partial(_check_coefficients, task, STEPS[0], call.cached)),
        Competitor(PLAIN, lambda _: call.adapt(False), 1, partial(check, False)),
        Competitor(GUARDED, lambda _: call.adapt(True), 1, partial(check, True)),
    ]
    race(report, WHOLE, competitors, rounds=rounds, turn_ms=turn_ms)


def _batch(report: Report, shape: Task, torch_methods: ModuleType | None, rounds: int, count: int) -> None:
    """Many people at once; figures are per person."""
    tasks = [Task(shape.features, shape.outputs, shape.extra, seed) for seed in range(count)]
    steps = STEPS[0]

    apart, call = [Solver([task]) for task in tasks], WholeCall(tasks, steps)
    together = {1: Solver(tasks), 2: Solver(tasks, threads=2)}

    def written(answers: Callable[[], list[Answer]]) -> Callable[[], Verdict]:
        return lambda: _worst(tasks, steps, answers())

    def unwritten(found: Callable[[], list[Float32]]) -> Callable[[], Verdict]:
        return lambda: _worst(tasks, steps, [written_out(*pair) for pair in zip(tasks, found(), strict=True)])

    def loop() -> list[Answer]:
        return [solver.one(steps) for solver in apart]

    def many() -> list[Float32]:
        return [result.adapter.coefficients.T for result in call.many()]

    competitors = [Competitor(LOOP, lambda _: loop(), count, written(loop))]
    for threads, solver in together.items():
        suffix = f", {threads} threads" if threads > 1 else ""
        formed, short = partial(solver.formed, steps), partial(solver.coefficients, steps)
        competitors.append(_of(TOGETHER + suffix, formed, count, written(formed), threads))
        competitors.append(_of(UNWRITTEN + suffix, short, count, unwritten(short), threads))
    competitors.append(Competitor(MANY, lambda _: call.many(), count, unwritten(many)))
    if torch_methods is not None:
        solve = torch_methods.batched(tasks, steps)
        competitors.append(_of(VMAP, solve, count, written(lambda: list(zip(*solve(), strict=True)))))
    race(report, BATCH, competitors, rounds=rounds, turn_ms=40.0)
    for row in report.rows:
        if row["group"] == BATCH:
            row["per_second"] = significant(1e6 / row["median"], 4)


def _of(name: str, work: Callable[[], object], items: int, check: Callable[[], Verdict], threads: int = 1) -> Competitor:
    """A competitor whose work does not depend on the number of the call."""
    return Competitor(name, lambda _: work(), items, check, threads=threads)


def _check_coefficients(task: Task, steps: int, method: Callable[[], Float32]) -> Verdict:
    return task.verdict(written_out(task, method()), steps)


def _worst(tasks: list[Task], steps: int, answers: list[Answer]) -> Verdict:
    """The verdict on the answer that is farthest off."""
    return judged(max(task.error(answer, steps) for task, answer in zip(tasks, answers, strict=True)))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapt", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: its first calls take minutes")
    parser.add_argument("--quick", action="store_true", help="one small head, one round: whether everything runs")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/adapt.json; --quick writes nothing by default")
    parser.add_argument("--compare", type=Path, help="an earlier result: print ratios of times with their intervals")
    arguments = parser.parse_args()
    one_thread_a_library()
    figures = run(Options(arguments.rounds, not arguments.no_compile, arguments.quick))
    out = arguments.out or (None if arguments.quick else RESULTS / "adapt.json")
    if out is not None:
        write(out, figures)
    sys.stdout.write(text(figures))
    if arguments.compare:
        sys.stdout.write(comparison(figures, arguments.compare))


if __name__ == "__main__":
    main()
