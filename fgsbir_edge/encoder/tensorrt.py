"""The encoder as a native TensorRT engine: one execution context for each profile, tensors by name, a stream of its own.

The engine is built on this very machine from the bundle's ONNX file (``engine_cache``), or read from the user's own cache.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fgsbir_edge.encoder.on_device import OnDevice
from fgsbir_edge.errors import DeviceError
from fgsbir_edge.gpu_stream import GpuStream

if TYPE_CHECKING:
    from fgsbir_edge.bundle import Bundle

INPUT, OUTPUT = "image", "features"
_MISSING = (
    "TensorRT cannot be imported ({}); it comes with JetPack (apt install python3-libnvinfer), and a virtual environment has to be "
    "made with --system-site-packages to see it"
)


def load_tensorrt() -> Any:
    """The module. Raises DeviceError with the remedy."""
    try:
        return importlib.import_module("tensorrt")
    except Exception as error:  # a library that is missing beneath it may raise anything
        raise DeviceError(_MISSING.format(" ".join(str(error).split())[:200] or type(error).__name__)) from error


class TensorRTEncoder(OnDevice):
    """An engine with input "image" [B, 3, S, S] and output "features" [B, C], B dynamic within its profiles.

    ``profiles`` are (smallest B, largest B) of each; a run takes the narrowest that B fits into.
    """

    def __init__(self, bundle: Bundle, engine: Path, stream: GpuStream, variant: str = "fp32") -> None:
        """Load an engine that was built for this machine. Raises DeviceError when it cannot be, or is of another network."""
        trt = load_tensorrt()
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine.read_bytes())
        if self._engine is None:
            raise DeviceError(
                f"{engine}: TensorRT {trt.__version__} does not take this engine; remove the file to have it built again"
            )
        dtypes = _interface(trt, self._engine, (3, bundle.input.size, bundle.input.size), bundle.head.features)
        self.profiles = _profiles(self._engine)
        self._contexts: dict[int, Any] = {}
        self._batches: dict[int, int] = {}  # what each context's shapes are set for
        largest = max(high for _, high in self.profiles)
        shape = (largest, bundle.input.size, bundle.head.features)
        super().__init__(f"tensorrt {variant}", stream, shape, (dtypes[INPUT], dtypes[OUTPUT]))

    def enqueue(self, batch: int) -> None:
        """See DeviceEncoder."""
        number = self._profile(batch)
        context = self._contexts.get(number) or self._new_context(number)
        if self._batches.get(number) != batch:
            if not context.set_input_shape(INPUT, (batch, 3, self.size, self.size)):
                raise DeviceError(f"TensorRT refuses a batch of {batch}; its profiles are {self.profiles}")
            missing = context.infer_shapes()
            if missing:
                raise DeviceError(f"TensorRT lacks the shapes of {missing}; the engine has more inputs than 'image'")
            self._batches[number] = batch
        if not context.execute_async_v3(self.stream.handle):
            raise DeviceError("TensorRT could not start the engine; its reason is in its log, on stderr")

    def _profile(self, batch: int) -> int:
        fitting = [(high, number) for number, (low, high) in enumerate(self.profiles) if low <= batch <= high]
        if not fitting:
            raise DeviceError(f"a batch of {batch} fits none of the engine's profiles {self.profiles}; build it for that size")
        return min(fitting)[1]

    def _new_context(self, number: int) -> Any:
        """Contexts are kept, since changing the profile of one waits for the GPU."""
        context = self._engine.create_execution_context()
        if context is None:
            raise DeviceError("TensorRT cannot make an execution context: free device memory, or build for smaller batches")
        if not context.set_optimization_profile_async(number, self.stream.handle):
            raise DeviceError(f"TensorRT refuses profile {number} of its own engine; build it again")
        self.stream.synchronize()
        for name, buffer in ((INPUT, self._input), (OUTPUT, self._output)):
            if not context.set_tensor_address(name, buffer.pointer):
                raise DeviceError(f"TensorRT refuses the address of tensor {name!r}")
        self._contexts[number] = context
        return context


def _interface(trt: Any, engine: Any, image: tuple[int, ...], features: int) -> dict[str, Any]:
    """Dtypes of input and output, in NumPy's terms. Raises DeviceError unless the tensors are a bundle's."""
    wanted = {INPUT: (trt.TensorIOMode.INPUT, image), OUTPUT: (trt.TensorIOMode.OUTPUT, (features,))}
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    for name, (mode, tail) in wanted.items():
        shape = tuple(engine.get_tensor_shape(name)) if name in names else ()
        if name not in names or engine.get_tensor_mode(name) != mode or shape[1:] != tail:
            raise DeviceError(
                f"the engine has tensors {names}, {name!r} being {list(shape)}; expected [B, {list(tail)}]: build it again"
            )
    if len(names) != len(wanted):
        raise DeviceError(f"the engine has tensors {names}, expected {list(wanted)}: build it again")
    floats = {trt.DataType.FLOAT: np.float32, trt.DataType.HALF: np.float16}
    kinds = {name: engine.get_tensor_dtype(name) for name in wanted}
    if not set(kinds.values()) <= set(floats):
        raise DeviceError(f"the engine's tensors are {kinds}, expected float32 or float16: export the bundle again")
    return {name: np.dtype(floats[kind]) for name, kind in kinds.items()}


def _profiles(engine: Any) -> list[tuple[int, int]]:
    """Smallest and largest batch of each profile."""
    shapes = [engine.get_tensor_profile_shape(INPUT, number) for number in range(engine.num_optimization_profiles)]
    return [(int(low[0]), int(high[0])) for low, _, high in shapes]
