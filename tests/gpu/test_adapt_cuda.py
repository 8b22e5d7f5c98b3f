"""Adaptation on a GPU: the table of tasks that the CPU's loop is tested with, and batches, on arrays of PyTorch and CuPy."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fgsbir_edge import _native
from fgsbir_edge._reference import adapt as twin
from fgsbir_edge.adapt_cuda import Form, Pairs, Rule, TaskArrays, TaskPlan, TaskResults, Tasks, adapt_tasks_cuda
from fgsbir_edge.errors import DeviceError, ShapeError
from tests.test_adapt_table import HINGE, LAYOUTS, MARGIN, SMOOTH, Layout, problem

# Relative to a task's largest coefficient; docs/cuda.md.
BOUND, LOSS_BOUND = 1e-4, 1e-5


class Results:
    """Arrays on the GPU for everything that tasks leave, and their copies on the host."""

    def __init__(self, library: Any, plan: TaskPlan) -> None:
        count, rows = len(plan.tasks.support), (plan.result_rows, plan.width)
        self.library = library
        self.out = TaskResults(
            library.new((count, len(plan.rule.step_sizes) + 1), np.float64),
            library.new(rows, np.float32),
            library.new(rows, np.float32),
            library.new((count,), np.float64),
            library.new((count,), np.int32),
            library.new((count,), np.int32),
        )

    def host(self) -> TaskResults:
        names = ("losses", "coefficients", "moved", "margins", "base_ranks", "adapted_ranks")
        return TaskResults(**{name: self.library.to_host(getattr(self.out, name)) for name in names})


def run(library: Any, tasks: Tasks, rule: Rule, outputs: NDArray[Any], gram: NDArray[Any], **more: NDArray[Any]) -> TaskResults:
    """Results on the host, with a workspace where one is needed."""
    plan = TaskPlan(tasks, rule, outputs.shape[1])
    results = Results(library, plan)
    size = plan.workspace_bytes()
    space = library.new((size,), np.uint8) if size else None
    given = {name: library.to_gpu(array) for name, array in more.items()}
    arrays = TaskArrays(library.to_gpu(outputs), library.to_gpu(gram), **given)
    adapt_tasks_cuda(plan, arrays, results.out, workspace=space)
    return results.host()


def one(layout: Layout, moves: NDArray[np.uint8]) -> Tasks:
    """The layout as a batch of one task."""
    triplets = layout.triplets()
    return Tasks(
        np.array([0, layout.items]),
        moves,
        np.zeros(1, np.int32),
        triplets,
        np.array([0, len(triplets)]),
        np.array([MARGIN]),
        np.zeros(1, np.int64),
    )


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("width", [3, 64, 513])
@pytest.mark.parametrize("form", ["gram", "span", "automatic"])
def test_kernel_equals_reference_and_cpu(library: Any, form: Form, width: int, layout: Layout) -> None:
    outputs, gram = problem(layout, width)
    steps = np.array([0.3, 0.2, 0.1, 0.05, 0.05, 0.05, 0.02, 0.02])
    for side, sharpness, momentum in itertools.product(["sketch", "both"], [HINGE, SMOOTH], [0.0, 0.9]):
        moves = (np.arange(layout.items) < (len(layout.photo_of) if side == "sketch" else layout.items)).astype(np.uint8)
        got = run(library, one(layout, moves), Rule(steps, sharpness, momentum, form), outputs, gram)
        rates = steps.astype(np.float32)
        expected = twin.adapt_in_span(outputs, gram, layout.triplets(), moves, rates, (MARGIN, sharpness), momentum)
        on_cpu = _native.adapt(outputs, gram, layout.triplets(), moves, rates, MARGIN, sharpness, momentum, "automatic")
        case = f"{side}, sharpness {sharpness}, momentum {momentum}"
        for answer in (expected, on_cpu):
            assert np.abs(got.coefficients - answer[0]).max() <= BOUND * np.abs(expected[0]).max(), case
            assert np.abs(got.moved - answer[1]).max() <= BOUND * np.abs(expected[1]).max(), case
            assert np.abs(got.losses[0] - answer[2]).max() <= LOSS_BOUND * max(expected[2][0], MARGIN), case
        assert not got.coefficients[moves == 0].any(), case
        assert got.margins[0] == MARGIN


def people(count: int, seed: int = 0) -> list[Pairs]:
    """Two to seven pairs each, a photo or two of them drawn twice, and up to eleven further photos."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        pairs = int(random.integers(2, 8))
        photo_of = tuple(int(pairs + (i if random.random() < 0.9 else random.integers(pairs))) for i in range(pairs))
        made.append(Pairs(photo_of, 2 * pairs + int(random.integers(0, 12))))
    return made


def batch(everyone: list[Pairs], width: int, seed: int = 0) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Outputs and Gram matrices of all supports."""
    random = np.random.default_rng(seed)
    weight = random.normal(size=(24, width)) / np.sqrt(width)
    outputs, gram = [], []
    for person in everyone:
        x = random.normal(size=(person.items, 24)) / np.sqrt(24)
        x[: len(person.photo_of)] = 0.5 * x[: len(person.photo_of)] + 0.8 * x[list(person.photo_of)]
        outputs.append((x @ weight).astype(np.float32))
        gram.append((x @ x.T + 1).astype(np.float32))
    return outputs, gram


def flat(arrays: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate([array.ravel() for array in arrays])


def test_ten_thousand_tasks_in_one_launch(library: Any) -> None:
    everyone = people(60 if _native.build_info()["cuda_toolkit"] == "emulated" else 10_000)
    outputs, gram = batch(everyone, 64)
    tasks, rule = Tasks.of_pairs(everyone, "both", "gallery", 0.3), Rule(np.full(5, 0.1), SMOOTH)
    got = run(library, tasks, rule, np.concatenate(outputs), flat(gram))
    again = run(library, tasks, rule, np.concatenate(outputs), flat(gram))
    for name in ("coefficients", "moved", "losses"):
        np.testing.assert_array_equal(getattr(got, name), getattr(again, name))  # the same bits from run to run
    ends, starts = tasks.triplet_offsets, tasks.row_offsets
    for number in range(0, len(everyone), 7):
        rows, triplets = slice(starts[number], starts[number + 1]), tasks.triplets[ends[number] : ends[number + 1]]
        steps = np.full(5, 0.1, np.float32)
        expected = _native.adapt(outputs[number], gram[number], triplets, tasks.moves[rows], steps, 0.3, SMOOTH)
        assert np.abs(got.coefficients[rows] - expected[0]).max() <= BOUND * np.abs(expected[0]).max()
        np.testing.assert_allclose(got.losses[number], expected[2], rtol=0, atol=LOSS_BOUND)
        alone = Tasks.of_pairs(everyone[number : number + 1], "both", "gallery", 0.3)
        if number % 70 == 0:  # and the same bits as alone
            single = run(library, alone, rule, outputs[number], gram[number])
            np.testing.assert_array_equal(single.coefficients, got.coefficients[rows])
            np.testing.assert_array_equal(single.losses[0], got.losses[number])


@pytest.mark.parametrize("side", ["sketch", "both"])
def test_margin_network_and_folds_as_on_the_cpu(library: Any, side: Any) -> None:
    everyone = [
        Pairs(tuple(range(k, 2 * k)), 2 * k) for k in (2, 3, 4, 5, 5, 6, 7, 9, 12)
    ]  # all photos are drawn: one pool for both
    outputs, gram = batch(everyone, 32)
    hidden = 16
    net = np.random.default_rng(2).normal(size=2 * hidden * hidden + 6 * hidden + 1).astype(np.float32) * 0.3
    tasks = Tasks.of_pairs(everyone, side, "support", np.nan, folds=True)
    empty = np.diff(tasks.triplet_offsets) == 0  # of two pairs one is left, and no negative
    ks = [len(person.photo_of) for person in everyone]
    pools = np.concatenate([u[k:] for u, k in zip(outputs, ks, strict=True)])
    cross = flat([g[k:] for g, k in zip(gram, ks, strict=True)])
    more = {"pool_outputs": pools, "margin_net": net} | ({"cross": cross} if side == "both" else {})
    rule = Rule(np.array([0.2, 0.1, 0.1]), SMOOTH, hidden=hidden)
    got = run(library, tasks, rule, np.concatenate(outputs), flat(gram), **more)
    head = np.eye(32, dtype=np.float32), np.zeros(32, np.float32)  # the supports hold their outputs already
    first = differ = 0
    for person, u, k in zip(everyone, outputs, gram, strict=True):
        support = u, u, k, np.array(person.photo_of, np.int32)
        settings = rule.step_sizes, np.nan, net, SMOOTH, 0.0, 1
        coefficients, losses, margins, ranks, *_ = _native.adapt_support(*head, support, None, side, "support", *settings)
        there = slice(first, first + len(losses))
        used = ~empty[there]
        np.testing.assert_allclose(got.losses[there], losses, rtol=0, atol=LOSS_BOUND)
        np.testing.assert_allclose(got.margins[there][used], margins[used], rtol=0, atol=1e-5)
        row = int(tasks.result_rows[first])
        assert np.abs(got.coefficients[row : row + person.items] - coefficients).max() <= BOUND * np.abs(coefficients).max()
        differ += int((got.base_ranks[there] != ranks[0]).sum() + (got.adapted_ranks[there] != ranks[1]).sum())
        first += len(losses)
    assert differ <= 1, "ranks may differ only where two photos are equally near to the last digits"


def test_tasks_beyond_shared_memory_take_a_workspace(library: Any) -> None:
    layout = LAYOUTS["five pairs, many negatives"]
    outputs, gram = problem(layout, 2048)
    tasks, rule = one(layout, np.ones(layout.items, np.uint8)), Rule(np.full(3, 0.1), SMOOTH, form="span")
    plan = TaskPlan(tasks, rule, 2048)
    results = Results(library, plan)
    arrays = TaskArrays(library.to_gpu(outputs), library.to_gpu(gram))
    with pytest.raises(DeviceError, match="need a workspace of"):
        adapt_tasks_cuda(plan, arrays, results.out)
    got = run(library, tasks, rule, outputs, gram)
    steps = np.full(3, 0.1, np.float32)
    expected = twin.adapt_in_span(outputs, gram, layout.triplets(), tasks.moves, steps, (MARGIN, SMOOTH), 0.0)
    assert np.abs(got.coefficients - expected[0]).max() <= BOUND * np.abs(expected[0]).max()


def test_nan_stays_in_its_task(library: Any) -> None:
    everyone = people(6, seed=3)
    outputs, gram = batch(everyone, 48)
    tasks, rule = Tasks.of_pairs(everyone, "both", "gallery", 0.3), Rule(np.full(2, 0.1), HINGE)
    whole = run(library, tasks, rule, np.concatenate(outputs), flat(gram))
    outputs[2][0, 5] = np.nan
    got = run(library, tasks, rule, np.concatenate(outputs), flat(gram))
    assert np.isnan(got.losses[2]).all()
    np.testing.assert_array_equal(np.delete(got.losses, 2, axis=0), np.delete(whole.losses, 2, axis=0))


def test_a_plan_serves_many_streams(library: Any) -> None:
    everyone = people(3, seed=4)
    outputs, gram = batch(everyone, 64)
    tasks, rule = Tasks.of_pairs(everyone, "both", "gallery", 0.3), Rule(np.full(5, 0.1), SMOOTH)
    expected = run(library, tasks, rule, np.concatenate(outputs), flat(gram))
    plan = TaskPlan(tasks, rule, 64)
    for _ in range(2):
        stream, current = library.stream()
        with current:
            results = Results(library, plan)
            arrays = TaskArrays(library.to_gpu(np.concatenate(outputs)), library.to_gpu(flat(gram)))
            adapt_tasks_cuda(plan, arrays, results.out)
            np.testing.assert_array_equal(results.host().coefficients, expected.coefficients)
        stream.synchronize()


def test_wrong_indices_never_reach_the_gpu(library: Any) -> None:
    layout = LAYOUTS["two pairs"]
    outputs, gram = problem(layout, 8)
    tasks = one(layout, np.ones(layout.items, np.uint8))
    wild = tasks.triplets.copy()
    wild[0, 2] = layout.items
    with pytest.raises(ShapeError, match=f"names item {layout.items}"):
        run(library, replace(tasks, triplets=wild), Rule(np.full(1, 0.1), SMOOTH), outputs, gram)
