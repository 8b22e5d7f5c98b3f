"""The encoder on ONNX Runtime's providers for NVIDIA GPUs, reading and writing device memory in a stream of ours.

ONNX Runtime lists a provider even when the libraries beneath it are missing, and then runs on the CPU instead. So the session is
asked what it really uses, and is refused if that is not what was wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fgsbir_edge.encoder.on_device import OnDevice
from fgsbir_edge.encoder.onnx import MAX_BATCH, load_runtime, open_session
from fgsbir_edge.errors import DeviceError
from fgsbir_edge.gpu_stream import GpuBuffer, GpuStream

if TYPE_CHECKING:
    from pathlib import Path

    from fgsbir_edge.bundle import Bundle

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_WAITS = "disable_synchronize_execution_providers"
_NEEDS = {
    CUDA: "pip install onnxruntime-gpu in the place of onnxruntime, of a release for the CUDA and cuDNN that are installed",
    TENSORRT: "it needs onnxruntime-gpu and the TensorRT libraries of the release that it was built for; wheels for AArch64 have "
    "none of it, there use the backend 'tensorrt'",
}


class OnnxDeviceEncoder(OnDevice):
    """The bundle's graph on the CUDA or the TensorRT provider. Its work is not recorded: it is more than CUDA's."""

    recordable = False

    def __init__(
        self, bundle: Bundle, stream: GpuStream, provider: str = CUDA, variant: str = "fp32", *, cache: Path | None = None
    ) -> None:
        """Open a session. ``cache``: folder of the user's own for engines that the TensorRT provider builds; None keeps none.

        Raises DeviceError where the provider is missing or did not load, and BundleFormatError.
        """
        if reason := absent(provider):
            raise DeviceError(reason)
        wanted = _options(provider, stream, bundle.input.size, cache)
        session = open_session(bundle, variant, 1, [*wanted, "CPUExecutionProvider"])
        loaded = session.get_providers()
        if provider not in loaded:
            raise DeviceError(
                f"ONNX Runtime did not load its {provider} and fell back to {', '.join(loaded)}; why is on stderr above. "
                f"{_NEEDS[provider]}"
            )
        session.disable_fallback()
        self._session = session
        self._run_options = load_runtime().RunOptions()
        self._run_options.add_run_config_entry(_WAITS, "1")
        self._bound: tuple[int, Any] | None = None
        name = "onnx-cuda" if provider == CUDA else "onnx-tensorrt"
        shape = (MAX_BATCH, bundle.input.size, bundle.head.features)
        super().__init__(f"{name} {variant}", stream, shape, (np.float32, np.float32))

    def enqueue(self, batch: int) -> None:
        """See DeviceEncoder."""
        if self._bound is None or self._bound[0] != batch:
            binding = self._session.io_binding()
            _bind(binding.bind_input, "image", self.input(batch), self.stream.device)
            _bind(binding.bind_output, "features", self.output(batch), self.stream.device)
            self._bound = (batch, binding)
        try:
            self._session.run_with_iobinding(self._bound[1], self._run_options)
        except Exception as error:  # the runtime's exceptions share no base class of their own
            raise DeviceError(f"ONNX Runtime failed on the GPU: {' '.join(str(error).split())[:300]}") from error


def absent(provider: str) -> str:
    """Why this installation cannot have the provider; empty: it lists it, and only a session shows whether it loads."""
    offered = load_runtime().get_available_providers()
    return "" if provider in offered else f"this ONNX Runtime has no {provider} (it has {', '.join(offered)}): {_NEEDS[provider]}"


def _bind(bind: Any, name: str, buffer: GpuBuffer, device: int) -> None:
    bind(name, "cuda", device, buffer.dtype.type, list(buffer.shape), buffer.pointer)


def _options(provider: str, stream: GpuStream, size: int, cache: Path | None) -> list[Any]:
    """The providers to ask for, best first, each with its options."""
    place = {"device_id": str(stream.device), "user_compute_stream": str(stream.handle)}
    cuda = (CUDA, {**place, "do_copy_in_default_stream": "0"})
    if provider == CUDA:
        return [cuda]
    shapes = {f"trt_profile_{end}_shapes": f"image:{batch}x3x{size}x{size}" for end, batch in _PROFILE.items()}
    kept = {} if cache is None else {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(cache)}
    return [(TENSORRT, {**place, **shapes, **kept}), cuda]


_PROFILE = {"min": 1, "opt": 8, "max": MAX_BATCH}
