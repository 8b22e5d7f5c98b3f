"""Adaptation on a GPU: kernel time of one task, and ten thousand tasks in one launch beside torch.func.vmap on the same GPU.

``python -m benchmarks.adapt_cuda [--tasks 10000] [--rounds 30] [--quick] [--out FILE]``. Times are of the device, by CUDA events
around graphs of many launches, so that the interpreter's part is in none of them. Answers are checked against float64 before
anything is timed. Needs a GPU and PyTorch that can use it; says so and exits with 3 without.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.adapt_task import MARGIN, PAIRS, SHARPNESS, STEP_SIZE, Task, judged
from benchmarks.record import RESULTS, libraries, write
from benchmarks.rounds import Ratio, Report
from benchmarks.samples import ratio, significant, summary
from benchmarks.tables import text
from fgsbir_edge import _native
from fgsbir_edge._reference import adapt as reference
from fgsbir_edge.adapt_cuda import Form, Pairs, Rule, TaskArrays, TaskPlan, TaskResults, Tasks, adapt_tasks_cuda
from fgsbir_edge.errors import DeviceError

SIZES = ((64, 0), (512, 0), (64, 64), (512, 64))  # D, further photos
STEPS = 5
FEATURES = 512  # C; our loop never sees it
LAUNCHES = 50  # in one graph
KERNEL_US = 15.0  # the target for one task of five pairs, D = 64, five steps
OURS, GRADIENT, SPAN, LAUNCH = "ours", "torch.func.vmap, W and b", "torch.func.vmap, in the span", "launching alone"
_NO_GPU = 3


@dataclass(frozen=True)
class Device:
    """PyTorch on a GPU, and how often to time there."""

    torch: Any
    rounds: int

    def array(self, values: NDArray[Any]) -> Any:
        """A copy on the GPU."""
        return self.torch.from_numpy(np.ascontiguousarray(values)).cuda()

    def time(self, call: Callable[[], object], launches: int) -> list[float]:
        """Microseconds of one call in each round: ``launches`` of them, recorded once and started together."""
        side = self.torch.cuda.Stream()
        with self.torch.cuda.stream(side):  # what is allocated on a first call must not be recorded
            for _ in range(3):
                call()
        self.torch.cuda.synchronize()
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph):
            for _ in range(launches):
                call()
        times = []
        for turn in range(self.rounds + 2):
            start, stop = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            stop.record()
            stop.synchronize()
            if turn >= 2:  # the first rounds warm up
                times.append(1e3 * start.elapsed_time(stop) / launches)
        return times


def device(rounds: int) -> Device:
    """The GPU. Raises DeviceError that says what is missing."""
    found = _native.cuda_devices(probe=True)
    problem = found if isinstance(found, str) else found[0]["problem"]
    if problem:
        raise DeviceError(f"no GPU can be used: {problem}")
    try:
        import torch
    except ImportError as error:
        raise DeviceError("PyTorch is not installed: it holds the arrays and the events of this benchmark") from error
    if not torch.cuda.is_available():
        raise DeviceError(f"PyTorch {torch.__version__} cannot use the GPU: install a build for CUDA")
    return Device(torch, rounds)


class Batch:
    """Tasks of one shape with one head: their arrays on the GPU, and our plan."""

    def __init__(self, place: Device, tasks: list[Task], form: Form) -> None:
        rows = tasks[0].rows
        self.tasks, self.torch = tasks, place.torch
        self.x = place.array(np.stack([task.support for task in tasks]))  # [B, m, C]
        self.weight, self.bias = place.array(tasks[0].weight), place.array(tasks[0].bias)
        self.outputs = (self.x @ self.weight.T + self.bias).contiguous()
        self.gram = (self.x @ self.x.transpose(1, 2) + 1).contiguous()
        people = [Pairs(tuple(range(PAIRS, 2 * PAIRS)), rows)] * len(tasks)
        self.plan = TaskPlan(
            Tasks.of_pairs(people, "both", "gallery", MARGIN),
            Rule(np.full(STEPS, STEP_SIZE), SHARPNESS, form=form),
            tasks[0].outputs,
        )
        new = partial(place.torch.empty, device="cuda")
        width = tasks[0].outputs
        self.losses = new((len(tasks), STEPS + 1), dtype=place.torch.float64)
        self.coefficients = new((len(tasks) * rows, width), dtype=place.torch.float32)
        size = self.plan.workspace_bytes()
        self.workspace = new((size,), dtype=place.torch.uint8) if size else None
        self.arrays = TaskArrays(self.outputs.view(-1, width), self.gram.view(-1))

    def run(self) -> object:
        """All tasks, in one launch."""
        return adapt_tasks_cuda(self.plan, self.arrays, TaskResults(self.losses, self.coefficients), workspace=self.workspace)

    def verdict(self, coefficients: Any) -> str:
        """How far coefficients [B m, D] are from float64's, by a few of the tasks. Raises SystemExit where they are wrong."""
        host = coefficients.cpu().numpy().reshape(len(self.tasks), self.tasks[0].rows, -1)
        worst = 0.0
        for number in range(0, len(self.tasks), max(1, len(self.tasks) // 5)):
            task = self.tasks[number]
            u, k = (array[number].cpu().numpy() for array in (self.outputs, self.gram))
            moves, steps = np.ones(task.rows, np.uint8), np.full(STEPS, STEP_SIZE)
            expected, _, _ = reference.adapt_in_span(u, k, task.triplets, moves, steps, (MARGIN, SHARPNESS))
            worst = max(worst, float(np.abs(host[number] - expected).max() / np.abs(expected).max()))
        found = judged(worst)
        if not found.passed:
            raise SystemExit(f"wrong coefficients ({found.finding}): times of wrong answers mean nothing")
        return found.finding


def peers(batch: Batch) -> dict[str, Callable[[], Any]]:
    """torch.func.vmap over all tasks: on W and b, which returns both, and with our algebra, which returns the coefficients."""
    from benchmarks.adapt_torch import _unrolled

    torch, task = batch.torch, batch.tasks[0]
    shares, sizes = torch.from_numpy(task.shares).cuda(), torch.full((STEPS,), STEP_SIZE, device="cuda")

    def loss(u: Any) -> Any:
        z = torch.nn.functional.normalize(u, dim=1)
        distances = (2 - 2 * (z[:PAIRS] @ z[PAIRS:].T)).clamp_min(1e-12).sqrt()
        excess = MARGIN + distances.diagonal()[:, None] - distances
        return (torch.nn.functional.softplus(excess, beta=SHARPNESS) * shares).sum()

    def in_span(u: Any, k: Any) -> Any:
        coefficients = torch.zeros_like(u)
        for _ in range(STEPS):
            gradient = torch.func.grad(loss)(u)
            u, coefficients = u - STEP_SIZE * (k @ gradient), coefficients - STEP_SIZE * gradient
        return coefficients

    on_weights = torch.func.vmap(_unrolled, in_dims=(None, None, 0, None, None))
    return {
        GRADIENT: lambda: on_weights(batch.weight, batch.bias, batch.x, shares, sizes),
        SPAN: lambda: torch.func.vmap(in_span)(batch.outputs, batch.gram),
    }


def one_task(place: Device, report: Report, size: tuple[int, int]) -> None:
    """Kernel time of a single task in each form."""
    task = Task(FEATURES, *size)
    group = f"one task, D={size[0]}, {task.rows} rows, {STEPS} steps"
    forms: tuple[Form, ...] = ("automatic", "span", "gram")
    for form in forms:
        batch = Batch(place, [task], form)
        batch.run()
        _row(report, group, f"{OURS}, {form}", place.time(batch.run, LAUNCHES), batch.verdict(batch.coefficients))
    number = place.torch.zeros(1, device="cuda")
    _row(report, group, LAUNCH, place.time(number.zero_, LAUNCHES), "", limit=True)


def many_tasks(place: Device, report: Report, count: int) -> None:
    """All tasks in one launch, ours and PyTorch's."""
    size = SIZES[0]
    group = f"{count:,} tasks at once, D={size[0]}, {2 * PAIRS} rows, {STEPS} steps"
    batch = Batch(place, [Task(FEATURES, *size, seed=seed) for seed in range(count)], "automatic")
    batch.run()
    _row(report, group, OURS, place.time(batch.run, 1), batch.verdict(batch.coefficients), items=count)
    for name, call in peers(batch).items():
        try:
            answer = call()
            coefficients = answer if name == SPAN else _coefficients(batch, answer[0])
            finding = batch.verdict(coefficients)
            times = place.time(call, 1)
        except (RuntimeError, SystemExit) as error:  # out of memory, or a graph that PyTorch cannot record
            report.skipped.append({"name": name, "reason": str(error).partition("\n")[0]})
            continue
        _row(report, group, name, times, finding, items=count)


def _coefficients(batch: Batch, weights: Any) -> Any:
    """A of W' = W + A X [B, D, C], by least squares: rows of X are independent."""
    change = (weights - batch.weight).double()  # [B, D, C]
    x = batch.x.double()
    return batch.torch.linalg.solve(x @ x.transpose(1, 2), x @ change.transpose(1, 2)).float()


def _row(report: Report, group: str, name: str, times: list[float], finding: str, *, items: int = 1, limit: bool = False) -> None:
    figures = summary([[value / items] for value in times])
    row = {"group": group, "name": name, "unit": "us", **figures, "agrees": finding, "bytes": 0, "threads": 0, "limit": limit}
    report.rows.append(row | ({"per_second": significant(1e6 / figures["median"])} if items > 1 else {}))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything this benchmark finds, as it goes into JSON. Raises DeviceError without a GPU."""
    place, report = device(1 if options.quick else options.rounds), Report()
    for size in SIZES[:1] if options.quick else SIZES:
        one_task(place, report, size)
    first = report.rows[0]
    value, low, high = ratio(first["rounds"], np.ones(len(first["rounds"])), paired=True)
    target = f"kernel time of one adaptation, us: k={PAIRS}, D={SIZES[0][0]}, {STEPS} steps"
    report.target(target, KERNEL_US, Ratio(value, low, high, first["best"]), most=True)
    many_tasks(place, report, options.tasks)
    return {
        "question": "adaptation on a GPU",
        "quick": options.quick,
        "rounds": place.rounds,
        "libraries": libraries(("numpy", "torch")),
        "build": _native.build_info(),
        **report.figures(),
        "machine": {"device": place.torch.cuda.get_device_name()},
    }


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.adapt_cuda", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--quick", action="store_true", help="one round of one size: a smoke test, its figures mean nothing")
    parser.add_argument("--out", type=Path, default=RESULTS / "adapt_cuda.json")
    options = parser.parse_args(arguments)
    try:
        figures = run(options)
    except DeviceError as error:
        sys.stderr.write(f"benchmarks.adapt_cuda: {error}\n")
        return _NO_GPU
    write(options.out, figures)
    sys.stdout.write(text(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
