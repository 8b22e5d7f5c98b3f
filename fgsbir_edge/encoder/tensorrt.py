"""The encoder as a native TensorRT engine: one execution context for each batch size, tensors by name, a stream of its own.

The engine is built on this very machine from the bundle's ONNX file (``engine_cache``), or read from the user's own cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fgsbir_edge.encoder.on_device import OnDevice
from fgsbir_edge.encoder.trt_api import TENSORRT, load
from fgsbir_edge.errors import DeviceError
from fgsbir_edge.gpu_stream import GpuStream

if TYPE_CHECKING:
    from fgsbir_edge.bundle import Bundle

INPUT, OUTPUT = "image", "features"


class TensorRTEncoder(OnDevice):
    """An engine with input "image" [B, 3, S, S] and output "features" [B, C], B dynamic within its profiles.

    ``profiles`` are (smallest B, largest B) of each; a run takes the narrowest that B fits into.
    """

    def __init__(self, bundle: Bundle, engine: bytes, stream: GpuStream, variant: str = "fp32") -> None:
        """Load a serialised engine that was built on this machine, see ``engine_cache.load_engine``.

        Raises DeviceError when TensorRT refuses it or it is of another network, and TensorrtMissingError.
        """
        library = load(TENSORRT)
        trt = library.trt
        self._runtime = trt.Runtime(library.logger)
        with library.messages() as heard:
            self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise DeviceError(
                f"TensorRT {library.version} does not take its own engine ({'; '.join(heard.errors) or 'without a reason'}): "
                "'fgsbir-edge engine clear', and it is built again"
            )
        dtypes = _interface(trt, self._engine, (3, bundle.input.size, bundle.input.size), bundle.head.features)
        self.profiles = _profiles(self._engine)
        largest = max(high for _, high in self.profiles)
        shape = (largest, bundle.input.size, bundle.head.features)
        super().__init__(f"tensorrt {variant}", stream, shape, (dtypes[INPUT], dtypes[OUTPUT]))
        self._strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._scratch = stream.buffer((max(1, int(self._engine.device_memory_size_v2)),), np.uint8)
        self._contexts: dict[int, Any] = {}  # by batch

    def enqueue(self, batch: int) -> None:
        """See DeviceEncoder. Runs over the next power of two, so that few contexts and recordings serve all sizes."""
        size = min(1 << (batch - 1).bit_length(), self.profiles[self._profile(batch)][1])
        context = self._contexts.get(size) or self._new_context(size)
        if not context.execute_async_v3(self.stream.handle):
            raise DeviceError("TensorRT could not start the engine; what it says is in its log")

    def _profile(self, batch: int) -> int:
        fitting = [(high, number) for number, (low, high) in enumerate(self.profiles) if low <= batch <= high]
        if not fitting:
            raise DeviceError(f"a batch of {batch} fits none of the engine's profiles {self.profiles}; build it for that size")
        return min(fitting)[1]

    def _new_context(self, batch: int) -> Any:
        """A context with its shapes and addresses set for good: a recorded run is valid only while its context keeps them.

        All contexts run in one stream, one after the other, and so share their scratch memory.
        """
        context = self._engine.create_execution_context(self._strategy)
        if context is None:
            raise DeviceError("TensorRT cannot make an execution context: free device memory, or build for smaller batches")
        context.set_device_memory(self._scratch.pointer, self._scratch.nbytes)
        number = self._profile(batch)
        if not context.set_optimization_profile_async(number, self.stream.handle):
            raise DeviceError(f"TensorRT refuses profile {number} of its own engine; build it again")
        self.stream.synchronize()
        for name, buffer in ((INPUT, self._input), (OUTPUT, self._output)):
            if not context.set_tensor_address(name, buffer.pointer):
                raise DeviceError(f"TensorRT refuses the address of tensor {name!r}")
        if not context.set_input_shape(INPUT, (batch, 3, self.size, self.size)):
            raise DeviceError(f"TensorRT refuses a batch of {batch}; its profiles are {self.profiles}")
        if missing := context.infer_shapes():
            raise DeviceError(f"TensorRT lacks the shapes of {missing}; the engine has more inputs than 'image'")
        self._contexts[batch] = context
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
