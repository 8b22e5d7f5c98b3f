"""The encoder on ONNX Runtime, its CPU provider; ``onnx_device`` has those for a GPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from fgsbir_edge.arrays import Float32, finite_features
from fgsbir_edge.errors import BundleFormatError, ShapeError

if TYPE_CHECKING:
    from fgsbir_edge.bundle import Bundle

MAX_BATCH = 32  # bounds the memory of activations; larger batches are not faster on a CPU
BATCH_OF_A_THREAD = 5  # on one core 32 at a time are no faster, take 120 MiB more, and the first time half as long again
MAX_DEFAULT_THREADS = 4
NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
_ERRORS_ONLY = 3  # ONNX Runtime's severity scale; its warnings are about the machine, not about the model


def default_threads() -> int:
    """Threads when nobody says otherwise: the cores that this process may use, at most 4."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available, MAX_DEFAULT_THREADS))


class OnnxEncoder:
    """An ONNX graph with input "image" float32 [B, 3, S, S] and output "features" float32 [B, C], B dynamic.

    The number of threads is always explicit: left to itself the runtime takes every core, and collapses when one is busy.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None, variant: str = "fp32", *, deferred: bool = False) -> None:
        """Load a bundle's graph, or another ``variant`` of it; ``deferred``: when it is first used, which is then what raises.

        Raises BundleFormatError when it cannot be run, or has another interface than its manifest, and what
        ``Bundle.encoder_bytes`` raises.
        """
        self.name = f"onnx-cpu {variant}"
        workers = default_threads() if threads is None else threads
        self._batch = min(MAX_BATCH, BATCH_OF_A_THREAD * workers)
        self._open = partial(open_session, bundle, variant, workers, ["CPUExecutionProvider"])
        self._opening = Lock()
        self._session = None if deferred else self._open()
        self.size, self.features = bundle.input.size, bundle.head.features

    def encode(self, pixels: Float32) -> Float32:
        """float32 [B, 3, S, S] -> float32 [B, C], in batches of at most 32.

        Raises ShapeError (another shape or dtype) and NonFiniteError (the network gave NaN or infinity).
        """
        shape = (3, self.size, self.size)
        if pixels.dtype != np.float32 or pixels.shape[1:] != shape or pixels.ndim != 4:
            raise ShapeError(f"encoder input: got {pixels.dtype} {list(pixels.shape)}, expected float32 {['B', *shape]}")
        session, rows = self._opened(), np.empty((len(pixels), self.features), np.float32)
        for start in range(0, len(pixels), self._batch):
            chunk = np.ascontiguousarray(pixels[start : start + self._batch])
            (rows[start : start + self._batch],) = session.run(["features"], {"image": chunk})
        return finite_features(rows)

    def _opened(self) -> Any:
        """The session; several threads may ask."""
        with self._opening:
            if self._session is None:
                self._session = self._open()
            return self._session


def load_runtime() -> Any:
    """ONNX Runtime, told before it is loaded to send nobody word of what it runs; it is then silent for the whole process.

    From 1.29 on its Linux builds note models and sessions in the user's cache folder and send them to their maker, unless
    ORT_DISABLE_TELEMETRY is set when it starts. Whoever wants that sets the variable to 0. Where the application has loaded the
    runtime before, it is too late for either.
    """
    os.environ.setdefault(NO_TELEMETRY, "1")
    import onnxruntime

    return onnxruntime


def open_session(bundle: Bundle, variant: str, threads: int, providers: Sequence[Any]) -> Any:
    """An InferenceSession over a bundle's graph, its interface checked. Raises BundleFormatError."""
    onnxruntime = load_runtime()
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    model = bundle.encoder_bytes(variant)
    try:
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # the runtime's exceptions share no base class of their own
        reason = " ".join(str(error).split())[:200]
        raise BundleFormatError(f"encoder {variant}: cannot be loaded ({reason}); export the bundle again") from error
    _check("input", session.get_inputs(), "image", (3, bundle.input.size, bundle.input.size))
    _check("output", session.get_outputs(), "features", (bundle.head.features,))
    return session


def _check(kind: str, nodes: Sequence[Any], name: str, tail: tuple[int, ...]) -> None:
    """The graph's only input or output must have this name, float32, and these dimensions after a free batch dimension."""
    for node in nodes if len(nodes) == 1 else []:
        batch, *rest = node.shape
        if (node.name, node.type, tuple(rest)) == (name, "tensor(float)", tail) and not isinstance(batch, int):
            return
    found = [(node.name, node.type, node.shape) for node in nodes]
    raise BundleFormatError(f"encoder.onnx: {kind} is {found}, expected {name!r} float32 {['B', *tail]}; export the bundle again")
