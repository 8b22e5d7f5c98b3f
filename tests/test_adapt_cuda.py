"""Tasks for the GPU as Python prepares them, with a stand-in for the kernel that reads and writes the addresses it is given."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fgsbir_edge import _native, adapt_cuda
from fgsbir_edge.adapt_cuda import Pairs, Ranking, Rule, TaskArrays, TaskPlan, TaskResults, Tasks, adapt_tasks_cuda
from fgsbir_edge.errors import DeviceError, ShapeError
from tests.fake_device import Interface

WIDTH = 6
PEOPLE = [Pairs((3, 4, 5), 7), Pairs((2, 2), 4)]  # the second one drew one photo twice; each has a photo that nobody drew


class OnHost(Interface):
    """An array of NumPy that claims to lie on GPU 3."""

    def __init__(self, array: NDArray[Any]) -> None:
        super().__init__(array.shape, array.dtype, data=(array.ctypes.data, not array.flags.writeable))
        self.array = array


class Core:
    """Stands for the native core: solves every task on the CPU, from and to the addresses that it is told."""

    def __init__(self, workspace_bytes: int = 0) -> None:
        self.workspace_bytes = workspace_bytes
        self.plans: list[SimpleNamespace] = []
        self.runs: list[tuple[Any, ...]] = []

    def cuda_device_of(self, _: int) -> int:
        return 3

    def cuda_order_streams(self, *_: int) -> None:
        raise AssertionError("no array names a stream")

    def AdaptCudaPlan(  # noqa: N802
        self,
        supports: Any,
        pools: Any,
        tasks: Any,
        queries: Any,
        rule: Any,
        photos_move: bool,
        hidden: int,
        width: int,
        device: int,
    ) -> Any:
        if tasks[1].max(initial=0) > 100:
            raise ValueError("triplets[0] names item 101, but there are 7")
        plan = SimpleNamespace(**{**locals(), "workspace_bytes": self.workspace_bytes})
        self.plans.append(plan)
        return plan

    def adapt_cuda(self, plan: Any, arrays: list[int], out: list[int], workspace: int, stream: int) -> None:
        self.runs.append((arrays, out, workspace, stream))
        (row_offsets, moves), (support, triplets, ends, margins, result_rows) = plan.supports, plan.tasks
        step_sizes, momentum, sharpness, form = plan.rule
        items = np.diff(row_offsets)
        outputs = memory(arrays[0], (row_offsets[-1], plan.width))
        gram = memory(arrays[1], (int((items**2).sum()),))
        starts = np.cumsum([0, *(items**2)])
        losses = memory(out[2], (len(support), len(step_sizes) + 1), ctypes.c_double)
        for task, s in enumerate(support):
            rows = slice(row_offsets[s], row_offsets[s + 1])
            square = gram[starts[s] : starts[s + 1]].reshape(items[s], items[s])
            given = triplets[ends[task] : ends[task + 1]], moves[rows], step_sizes.astype(np.float32)
            name = ("automatic", "gram", "span")[form]
            found = _native.adapt(outputs[rows].copy(), square, *given, margins[task], sharpness, momentum, name)
            losses[task] = found[2]
            if result_rows[task] >= 0 and out[0]:
                written = memory(out[0], (row_offsets[-1], plan.width))
                written[result_rows[task] : result_rows[task] + items[s]] = found[0]


def memory(address: int, shape: tuple[int, ...], kind: Any = ctypes.c_float) -> NDArray[Any]:
    """What lies at an address."""
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(kind)), shape)


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    stand_in = Core()
    monkeypatch.setattr(adapt_cuda, "cuda", lambda: stand_in)
    return stand_in


def problem(seed: int = 0) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Outputs and Gram matrices of PEOPLE."""
    rng = np.random.default_rng(seed)
    features = [rng.normal(size=(person.items, 5)) for person in PEOPLE]
    weight = rng.normal(size=(5, WIDTH))
    return [(x @ weight).astype(np.float32) for x in features], [(x @ x.T + 1).astype(np.float32) for x in features]


def arrays() -> TaskArrays:
    outputs, gram = problem()
    return TaskArrays(OnHost(np.concatenate(outputs)), OnHost(np.concatenate([k.ravel() for k in gram])))


def rule(**changes: Any) -> Rule:
    return replace(Rule(np.array([0.1, 0.05, 0.02]), 10.0), **changes)


def tasks(**changes: Any) -> Tasks:
    return replace(Tasks.of_pairs(PEOPLE, "both", "gallery", 0.3), **changes)


def results(rows: int = 11, count: int = 2, steps: int = 3) -> TaskResults:
    return TaskResults(OnHost(np.full((count, steps + 1), -1.0)), OnHost(np.full((rows, WIDTH), 77, np.float32)))


def test_every_task_reaches_its_place(core: Core) -> None:
    plan, out = TaskPlan(tasks(), rule(momentum=0.5, form="span"), WIDTH), results()
    assert adapt_tasks_cuda(plan, arrays(), out, stream=9) is out
    assert adapt_tasks_cuda(plan, arrays(), out) is out
    assert [run[2:] for run in core.runs] == [(0, 9), (0, 0)]
    assert len(core.plans) == 1, "arranged once for a GPU"
    assert core.plans[0].device == 3
    outputs, gram = problem()
    row = 0
    for number, person in enumerate(PEOPLE):
        triplets = _native.plan_triplets(np.array(person.photo_of, np.int32), person.items, "gallery")
        moves = np.ones(person.items, np.uint8)
        steps = np.array([0.1, 0.05, 0.02], np.float32)
        expected = _native.adapt(outputs[number], gram[number], triplets, moves, steps, 0.3, 10.0, 0.5, "span")
        np.testing.assert_array_equal(out.coefficients.array[row : row + person.items], expected[0])
        np.testing.assert_array_equal(out.losses.array[number], expected[2])
        assert expected[2][-1] < expected[2][0]
        row += person.items


def test_one_support_may_keep_its_square(core: Core) -> None:
    outputs, gram = problem()
    plan = TaskPlan(Tasks.of_pairs(PEOPLE[:1], "sketch", "support", 0.3), rule(), WIDTH)
    out = results(7, 1)
    adapt_tasks_cuda(plan, TaskArrays(OnHost(outputs[0]), OnHost(gram[0])), out)
    assert (out.coefficients.array[3:] == 0).all(), "photos stay"
    assert core.plans[0].supports[1].tolist() == [1, 1, 1, 0, 0, 0, 0]


def test_folds_leave_out_each_pair() -> None:
    folded = Tasks.of_pairs(PEOPLE, "both", "support", np.nan, folds=True)
    assert folded.support.tolist() == [0] * 4 + [1] * 3
    assert folded.result_rows.tolist() == [0, -1, -1, -1, 7, -1, -1]
    assert np.isnan(folded.margins).all()
    ranking = folded.ranking
    assert ranking is not None
    assert ranking.photos_move
    assert ranking.query.tolist() == [-1, 0, 1, 2, -1, 0, 1]
    assert ranking.truth.tolist() == [0, 0, 1, 2, 0, 0, 0]
    assert ranking.pool_offsets.tolist() == [0, 4, 6]
    parts = np.split(folded.triplets, folded.triplet_offsets[1:-1])
    assert parts[0].tolist() == [[0, 3, 4], [0, 3, 5], [1, 4, 3], [1, 4, 5], [2, 5, 3], [2, 5, 4]]
    assert parts[2].tolist() == [[0, 3, 5], [2, 5, 3]]
    assert len(parts[4]) == 0, "one photo and no negative"
    assert TaskPlan(folded, rule(hidden=2), WIDTH).result_rows == 11


def test_ranking_is_passed_on(core: Core) -> None:
    folded = Tasks.of_pairs(PEOPLE[:1], "both", "gallery", 0.3, folds=True)
    (outputs, *_), (gram, *_) = problem()
    pool, cross = OnHost(outputs[3:].copy()), OnHost(gram[3:].copy())
    given = TaskArrays(OnHost(outputs), OnHost(gram), None, pool, cross)
    ranks = [OnHost(np.zeros(4, np.int32)) for _ in range(2)]
    out = TaskResults(OnHost(np.zeros((4, 4))), None, None, OnHost(np.zeros(4)), *ranks)
    adapt_tasks_cuda(TaskPlan(folded, rule(), WIDTH), given, out)
    addresses, targets, _, _ = core.runs[0]
    assert addresses[2:] == [pool.array.ctypes.data, cross.array.ctypes.data, 0]
    assert targets[0] == targets[1] == 0
    assert targets[3:] == [out.margins.array.ctypes.data, *(rank.array.ctypes.data for rank in ranks)]
    assert core.plans[0].photos_move
    for missing, message in (
        (replace(given, cross=None), "cross is None"),
        (replace(given, pool_outputs=None), "pool_outputs is None"),
    ):
        with pytest.raises(ShapeError, match=message):
            adapt_tasks_cuda(TaskPlan(folded, rule(), WIDTH), missing, out)


def test_workspace_is_asked_for(core: Core) -> None:
    core.workspace_bytes = 64
    plan = TaskPlan(tasks(), rule(), WIDTH)
    assert plan.workspace_bytes(3) == 64
    for workspace in (None, OnHost(np.zeros(63, np.uint8))):
        with pytest.raises(DeviceError, match="need a workspace of 64 bytes, got"):
            adapt_tasks_cuda(plan, arrays(), results(), workspace=workspace)
    space = OnHost(np.zeros(64, np.uint8))
    adapt_tasks_cuda(plan, arrays(), results(), workspace=space)
    assert core.runs[0][2] == space.array.ctypes.data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"row_offsets": np.array([0, 7, 11], np.int32)},
            r"row_offsets is int32 \[3\], expected NumPy, C-contiguous int64 \[n\]",
        ),
        ({"row_offsets": [0, 7, 11]}, "row_offsets is list"),
        ({"moves": np.ones(10, np.uint8)}, r"moves is uint8 \[10\], expected .* \[11\]"),
        ({"moves": np.ones(11, np.bool_)}, "moves is bool"),
        ({"support": np.zeros((2, 1), np.int32)}, r"support is int32 \[2, 1\]"),
        ({"triplets": np.zeros((4, 2), np.int32)}, r"expected .* \[n, 3\]"),
        ({"triplets": np.zeros((3, 4), np.int32).T}, "C-contiguous"),
        ({"triplet_offsets": np.array([0, 5])}, r"triplet_offsets is int64 \[2\], expected .* \[3\]"),
        ({"margins": np.zeros(2, np.float32)}, "margins is float32"),
        ({"result_rows": np.zeros(3, np.int64)}, "result_rows is int64"),
    ],
)
def test_wrong_tasks_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        TaskPlan(tasks(**change), rule(), WIDTH)


def test_wrong_rankings_and_rules_are_refused() -> None:
    ranking = Ranking(np.array([0, 1]), np.zeros(2, np.int32), np.full(2, -1, np.int32), np.zeros(2, np.int32), False)
    TaskPlan(tasks(ranking=ranking), rule(), WIDTH)
    for change, message in ({"pool_of": np.zeros(3, np.int32)}, "pool_of"), ({"query": np.zeros(2)}, "query is float64"):
        with pytest.raises(ShapeError, match=message):
            TaskPlan(tasks(ranking=replace(ranking, **change)), rule(), WIDTH)
    with pytest.raises(ShapeError, match="form is 'fast', expected one of automatic, gram, span"):
        TaskPlan(tasks(), rule(form="fast"), WIDTH)
    with pytest.raises(ShapeError, match="step_sizes is float32"):
        TaskPlan(tasks(), rule(step_sizes=np.zeros(2, np.float32)), WIDTH)


@pytest.mark.parametrize(
    ("given", "out", "message"),
    [
        ({"outputs": Interface((11, WIDTH), np.float64)}, {}, r"outputs is float64 \[11, 6\], expected float32 \[11, 6\]"),
        ({"outputs": Interface((11, 5), np.float32)}, {}, r"expected float32 \[11, 6\]"),
        ({"gram": Interface((11, 11), np.float32)}, {}, r"gram is float32 \[11, 11\], expected float32 \[65\]"),
        ({}, {"losses": Interface((2, 3), np.float64)}, r"losses is float64 \[2, 3\], expected float64 \[2, 4\]"),
        ({}, {"losses": None}, "losses is None"),
        ({}, {"coefficients": Interface((10, WIDTH), np.float32)}, r"coefficients .* \[11, 6\]"),
        ({}, {"moved": Interface((11, WIDTH), np.float32, data=(64, True))}, "moved is read-only"),
        ({}, {"margins": Interface((2,), np.float32)}, "margins is float32"),
        ({}, {"base_ranks": Interface((2,), np.int64)}, "base_ranks is int64"),
    ],
)
def test_wrong_arrays_are_refused(core: Core, given: dict[str, Any], out: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        adapt_tasks_cuda(TaskPlan(tasks(), rule(), WIDTH), replace(arrays(), **given), replace(results(), **out))
    assert not core.runs


def test_arrays_in_host_memory_are_refused() -> None:
    outputs, _ = problem()
    with pytest.raises(DeviceError, match=r"outputs .* lies in host memory"):
        adapt_tasks_cuda(TaskPlan(tasks(), rule(), WIDTH), replace(arrays(), outputs=np.concatenate(outputs)), results())


def test_margin_network_is_needed_where_there_is_one(core: Core) -> None:
    plan = TaskPlan(tasks(), rule(hidden=2), WIDTH)
    with pytest.raises(ShapeError, match="margin_net is None"):
        adapt_tasks_cuda(plan, arrays(), results())
    with pytest.raises(ShapeError, match=r"margin_net is float32 \[9\], expected float32 \[21\]"):
        adapt_tasks_cuda(plan, replace(arrays(), margin_net=Interface((9,), np.float32)), results())
    adapt_tasks_cuda(plan, replace(arrays(), margin_net=OnHost(np.zeros(21, np.float32))), results())
    assert core.plans[0].hidden == 2


def test_wrong_indices_are_named(core: Core) -> None:
    wild = tasks(triplets=np.full_like(tasks().triplets, 101))
    with pytest.raises(ShapeError, match="names item 101"):
        adapt_tasks_cuda(TaskPlan(wild, rule(), WIDTH), arrays(), results())
    assert not core.plans


def test_without_a_gpu_the_reason_is_told() -> None:
    found = _native.cuda_devices()
    if not isinstance(found, str):
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match="no GPU can be used"):
        adapt_tasks_cuda(TaskPlan(tasks(), rule(), WIDTH), arrays(), results())
