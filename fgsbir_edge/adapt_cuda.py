"""Adaptation on a GPU: any number of tasks in one kernel launch, on arrays in device memory. See :func:`adapt_tasks_cuda`.

What is small and whole-numbered (which rows, triplets, queries) is NumPy and goes into a :class:`TaskPlan`, which is checked and
arranged once; what is large (outputs, inner products, results) stays on the GPU. A plan depends on sizes and triplets, not on
features: people with the same number of pairs can share one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.device import DeviceArray, call, cuda, device_array, on_one_device, stream_handle
from fgsbir_edge.errors import DeviceError, ShapeError
from fgsbir_edge.head import Negatives, Side
from fgsbir_edge.inner import native

Form = Literal["automatic", "gram", "span"]
FORMS: tuple[Form, ...] = ("automatic", "gram", "span")  # by the native numbers


@dataclass(frozen=True, eq=False)
class Tasks:
    """What is learned from what: B tasks on S supports that have R rows together. All arrays are NumPy, C-contiguous.

    Args:
        row_offsets: int64 [S+1]; support s is rows row_offsets[s] to row_offsets[s+1].
        moves: uint8 [R]; 1: the row's gradient moves the head and the row moves with it.
        support: int32 [B]; support of each task.
        triplets: int32 [t, 3]; (anchor, positive, negative) as rows of the task's own support.
        triplet_offsets: int64 [B+1]; task b has triplets triplet_offsets[b] to triplet_offsets[b+1].
        margins: float64 [B]; NaN asks the margin network.
        result_rows: int64 [B]; the row where a task's m rows begin in the results, -1 where they are not wanted.
        ranking: what left-out sketches are ranked among; None: nothing is ranked.
    """

    row_offsets: NDArray[np.int64]
    moves: NDArray[np.uint8]
    support: NDArray[np.int32]
    triplets: NDArray[np.int32]
    triplet_offsets: NDArray[np.int64]
    margins: NDArray[np.float64]
    result_rows: NDArray[np.int64]
    ranking: Ranking | None = None

    @classmethod
    def of_pairs(cls, people: Sequence[Pairs], side: Side, negatives: Negatives, margin: float, *, folds: bool = False) -> Tasks:
        """One task for each of ``people``, with all their pairs; with ``folds``, then one that leaves out each pair in turn.

        Supports are one after another, sketches before photos, and results lie as the rows do; folds write no rows. The sketch
        that a fold leaves out is ranked among its own support's photos: pools are ``outputs`` and ``gram`` of rows k to m. margin
        NaN asks the margin network. Raises ValueError where photo_of names no photo.
        """
        plan_triplets = native().plan_triplets
        triplets, margins, support, rows, query, truth = [], [], [], [], [], []
        offsets = np.cumsum([0, *(person.items for person in people)])
        for number, person in enumerate(people):
            for left_out in range(-1, len(person.photo_of) if folds else 0):
                kept = np.array(person.photo_of, np.int32)
                truth.append(kept[left_out] - len(kept) if left_out >= 0 else 0)
                kept[left_out : left_out + 1 if left_out >= 0 else 0] = -1
                triplets.append(plan_triplets(kept, person.items, negatives))
                support.append(number)
                margins.append(margin)
                rows.append(offsets[number] if left_out < 0 else -1)
                query.append(left_out)
        ends = np.cumsum([0, *map(len, triplets)], dtype=np.int64)
        moves = [np.arange(person.items) < (person.items if side == "both" else len(person.photo_of)) for person in people]
        ranking = None
        if folds:
            pools = np.cumsum([0, *(person.items - len(person.photo_of) for person in people)], dtype=np.int64)
            of = np.arange(len(people), dtype=np.int32)
            ranking = Ranking(pools, of, np.array(query, np.int32), np.array(truth, np.int32), side == "both")
        return cls(
            offsets.astype(np.int64),
            np.concatenate(moves).astype(np.uint8),
            np.array(support, np.int32),
            np.concatenate(triplets),
            ends,
            np.array(margins, np.float64),
            np.array(rows, np.int64),
            ranking,
        )


@dataclass(frozen=True)
class Pairs:
    """One person's support in short: the row of each sketch's photo (len(photo_of) to items - 1), and how many rows there are."""

    photo_of: tuple[int, ...]
    items: int


@dataclass(frozen=True, eq=False)
class Ranking:
    """Pools of photos, and whose photo is looked for. All arrays are NumPy, C-contiguous.

    Args:
        pool_offsets: int64 [P+1]; pool p is photos pool_offsets[p] to pool_offsets[p+1].
        pool_of: int32 [S]; the pool of each support, -1: none.
        query: int32 [B]; the row of the support that a task ranks, -1: none.
        truth: int32 [B]; its true photo, counted within the pool.
        photos_move: whether the pool's photos go through the changed head too (side "both").
    """

    pool_offsets: NDArray[np.int64]
    pool_of: NDArray[np.int32]
    query: NDArray[np.int32]
    truth: NDArray[np.int32]
    photos_move: bool


@dataclass(frozen=True, eq=False)
class Rule:
    """How the descent goes, for all tasks alike.

    Args:
        step_sizes: float64 [T].
        sharpness: b of softplus_b(x) = log(1 + e^(b x)) / b; 0: the hinge.
        momentum: beta of V = beta V + G.
        form: two ways to the same result; "automatic" takes the one with less arithmetic.
        hidden: h of the margin network, 0: there is none.
    """

    step_sizes: NDArray[np.float64]
    sharpness: float
    momentum: float = 0.0
    form: Form = "automatic"
    hidden: int = 0


@dataclass(frozen=True, eq=False)
class TaskArrays:
    """The input, on one GPU, float32, C-contiguous (any library's arrays: fgsbir_edge.device).

    Args:
        outputs: [R, D] head outputs of all supports' rows before any step.
        gram: [sum of m·m] X Xᵀ + 1 of one support after another; [m, m] does too where there is one support.
        margin_net: [2h·h + 6h + 1] W1 [h, 3], b1, W2 [h, 2h], b2, W3, b3; needed where a margin is NaN.
        pool_outputs: [photos of all pools, D] head outputs before any step; needed for ranking.
        cross: [sum of N·m] products of the pool's features with the support's, + 1, one support after another;
            needed where photos move.
    """

    outputs: Any
    gram: Any
    margin_net: Any = None
    pool_outputs: Any = None
    cross: Any = None


@dataclass(frozen=True, eq=False)
class TaskResults:
    """Where results go, on the same GPU, C-contiguous; None is not written. Rows: as many as ``Tasks.result_rows`` reach.

    Args:
        losses: float64 [B, T+1]: before each step and after the last.
        coefficients: float32 [rows, D], Aᵀ; zero in rows that do not move.
        moved: float32 [rows, D], outputs after the last step.
        margins: float64 [B], those used.
        base_ranks, adapted_ranks: int32 [B], before any step and after the last; 0 for a task without a query.
    """

    losses: Any
    coefficients: Any = None
    moved: Any = None
    margins: Any = None
    base_ranks: Any = None
    adapted_ranks: Any = None


class TaskPlan:
    """Tasks and a rule for outputs of width D, arranged for the kernel once and kept on every GPU that it has run on.

    Raises ShapeError on an array of a wrong dtype, shape or layout. Indices are checked before the first run on a GPU.
    """

    def __init__(self, tasks: Tasks, rule: Rule, width: int) -> None:
        self.tasks, self.rule, self.width = tasks, rule, width
        if rule.form not in FORMS:
            raise ShapeError(f"form is {rule.form!r}, expected one of {', '.join(FORMS)}")
        _expect("row_offsets", tasks.row_offsets, np.int64, (None,), at_least=1)
        _expect("support", tasks.support, np.int32, (None,))
        supports, count = len(tasks.row_offsets) - 1, len(tasks.support)
        _expect("moves", tasks.moves, np.uint8, (int(tasks.row_offsets[-1]),))
        _expect("triplets", tasks.triplets, np.int32, (None, 3))
        _expect("triplet_offsets", tasks.triplet_offsets, np.int64, (count + 1,))
        _expect("margins", tasks.margins, np.float64, (count,))
        _expect("result_rows", tasks.result_rows, np.int64, (count,))
        _expect("step_sizes", rule.step_sizes, np.float64, (None,))
        if tasks.ranking is not None:
            _expect("pool_offsets", tasks.ranking.pool_offsets, np.int64, (None,), at_least=1)
            _expect("pool_of", tasks.ranking.pool_of, np.int32, (supports,))
            _expect("query", tasks.ranking.query, np.int32, (count,))
            _expect("truth", tasks.ranking.truth, np.int32, (count,))
        self._native: dict[int, Any] = {}

    @property
    def result_rows(self) -> int:
        """Rows of ``TaskResults.coefficients`` and ``moved``."""
        items = np.diff(self.tasks.row_offsets)[self.tasks.support]
        wanted = self.tasks.result_rows >= 0
        return int((self.tasks.result_rows + items)[wanted].max(initial=0))

    def workspace_bytes(self, device: int = 0) -> int:
        """Bytes of GPU memory that a run needs as ``workspace``; 0 where every task fits into shared memory. Needs the GPU."""
        return int(self.on(cuda(), device).workspace_bytes)

    def on(self, core: Any, device: int) -> Any:
        """The native plan for a GPU, made once. Raises ShapeError on wrong indices, DeviceError when CUDA refuses."""
        if device not in self._native:
            tasks, rule, ranking = self.tasks, self.rule, self.tasks.ranking
            try:
                self._native[device] = call(
                    core.AdaptCudaPlan,
                    (tasks.row_offsets, tasks.moves),
                    None if ranking is None else (ranking.pool_offsets, ranking.pool_of),
                    (tasks.support, tasks.triplets, tasks.triplet_offsets, tasks.margins, tasks.result_rows),
                    None if ranking is None else (ranking.query, ranking.truth),
                    (rule.step_sizes, rule.momentum, rule.sharpness, FORMS.index(rule.form)),
                    ranking is not None and ranking.photos_move,
                    rule.hidden,
                    self.width,
                    device,
                )
            except ValueError as error:
                raise ShapeError(str(error)) from error
        return self._native[device]


def adapt_tasks_cuda(
    plan: TaskPlan, arrays: TaskArrays, out: TaskResults, *, workspace: Any = None, stream: Any = None
) -> TaskResults:
    """Margin network, T steps, losses and leave-one-out ranks of all tasks as one kernel in a stream; does not wait for it.

    L = mean over triplets of softplus_b(margin + d(a, p) - d(a, n)), d the Euclidean distance of the normalised outputs; each
    step V = momentum V + dL/dU, U -= alpha_t gram V, A -= alpha_t V on the rows that move (METHODS C.3, C.5).

    Args:
        workspace: uint8 [plan.workspace_bytes()] on the GPU, where that is not 0; runs that overlap in time must not share it.
        stream: a handle, or a stream of PyTorch, CuPy, PyCUDA or Numba. None takes the current stream of the library that the
            arrays come from (PyTorch, CuPy), otherwise the default stream. Who reads ``out`` in another stream has to
            wait for this one.

    Returns:
        ``out``. Within 1e-4 of the float64 reference, relative to a task's largest coefficient (docs/cuda.md says where that
        ends); the same bits on every run and in every batch. NaN in the input shows in the losses of its task.

    Raises:
        DeviceError: no GPU, no device code in this installation, arrays in host memory or on several GPUs, a missing workspace,
            or CUDA refused.
        ShapeError: a wrong dtype, shape, layout or index, a missing array, or a result that cannot be written to.
        NativeMissingError: the compiled core is not installed.
    """
    handle = stream_handle(stream, (arrays.outputs, arrays.gram, out.losses))
    inputs = _inputs(plan, arrays, handle)
    outputs = _outputs(plan, out, handle)
    space = None if workspace is None else device_array("workspace", workspace, handle).expect(np.uint8, (None,), writeable=True)
    core = cuda()
    given = [array for array in (*inputs, *outputs, space) if array is not None]
    native = plan.on(core, on_one_device(core, given, handle))
    if native.workspace_bytes > (0 if space is None else space.shape[0]):
        raise DeviceError(
            f"these tasks need a workspace of {native.workspace_bytes} bytes, got {0 if space is None else space.shape[0]}: pass "
            "workspace=, uint8 on the GPU"
        )
    try:
        call(core.adapt_cuda, native, _addresses(inputs), _addresses(outputs), 0 if space is None else space.pointer, handle)
    except ValueError as error:
        raise ShapeError(str(error)) from error
    return out


def _inputs(plan: TaskPlan, arrays: TaskArrays, stream: int) -> list[DeviceArray | None]:
    """In the native order: outputs, gram, pool outputs, cross, margin network."""
    tasks, ranking, hidden = plan.tasks, plan.tasks.ranking, plan.rule.hidden
    items = np.diff(tasks.row_offsets)
    outputs = device_array("outputs", arrays.outputs, stream).expect(np.float32, (int(tasks.row_offsets[-1]), plan.width))
    gram = device_array("gram", arrays.gram, stream)
    square = len(items) == 1 and len(gram.shape) == 2
    gram.expect(np.float32, (int(items[0]), int(items[0])) if square else (int((items**2).sum()),))
    photos = cross = net = None
    if hidden > 0:
        net = _required("margin_net", arrays.margin_net, stream).expect(np.float32, (2 * hidden * hidden + 6 * hidden + 1,))
    if ranking is not None:
        photos = _required("pool_outputs", arrays.pool_outputs, stream).expect(
            np.float32, (int(ranking.pool_offsets[-1]), plan.width)
        )
        if ranking.photos_move:
            sizes = np.append(np.diff(ranking.pool_offsets), 0)  # pool -1 is none
            cross = _required("cross", arrays.cross, stream)
            flat = int((sizes[ranking.pool_of] * items).sum())
            square = len(items) == 1 and len(cross.shape) == 2
            cross.expect(np.float32, (int(sizes[ranking.pool_of[0]]), int(items[0])) if square else (flat,))
    return [outputs, gram, photos, cross, net]


def _outputs(plan: TaskPlan, out: TaskResults, stream: int) -> list[DeviceArray | None]:
    """In the native order: coefficients, moved, losses, margins, base ranks, adapted ranks."""
    count, steps, rows = len(plan.tasks.support), len(plan.rule.step_sizes), (plan.result_rows, plan.width)
    kinds: dict[str, tuple[Any, tuple[int, ...]]] = {
        "coefficients": (np.float32, rows),
        "moved": (np.float32, rows),
        "losses": (np.float64, (count, steps + 1)),
        "margins": (np.float64, (count,)),
        "base_ranks": (np.int32, (count,)),
        "adapted_ranks": (np.int32, (count,)),
    }
    given = {field.name: getattr(out, field.name) for field in fields(out)}
    if given["losses"] is None:
        raise ShapeError("losses is None: a float64 [B, T+1] array on the GPU is needed")
    return [
        None if given[name] is None else device_array(name, given[name], stream).expect(dtype, shape, writeable=True)
        for name, (dtype, shape) in kinds.items()
    ]


def _required(name: str, value: Any, stream: int) -> DeviceArray:
    if value is None:
        raise ShapeError(f"{name} is None, but the plan's tasks use it: pass it in TaskArrays")
    return device_array(name, value, stream)


def _addresses(arrays: list[DeviceArray | None]) -> list[int]:
    return [0 if array is None else array.pointer for array in arrays]


def _expect(name: str, array: Any, dtype: Any, shape: tuple[int | None, ...], *, at_least: int = 0) -> None:
    fits = (
        isinstance(array, np.ndarray) and array.dtype == np.dtype(dtype) and array.ndim == len(shape) and array.flags.c_contiguous
    )
    if fits:
        fits = all(wanted in (None, length) for wanted, length in zip(shape, array.shape, strict=True)) and len(array) >= at_least
    if not fits:
        got = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        wanted = ", ".join("n" if length is None else str(length) for length in shape)
        raise ShapeError(f"{name} is {got}, expected NumPy, C-contiguous {np.dtype(dtype)} [{wanted}]")
