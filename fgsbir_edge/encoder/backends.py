"""The encoder's backends by name: which there are, which could run here, and how one is opened."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fgsbir_edge.encoder import Encoder
from fgsbir_edge.errors import BundleFormatError, FgsbirError

if TYPE_CHECKING:
    from fgsbir_edge.bundle import Bundle
    from fgsbir_edge.gpu_stream import GpuStream, Library

CPU = "onnx-cpu"
BACKENDS = {
    CPU: "ONNX Runtime on the processor; always there",
    "onnx-cuda": "ONNX Runtime's CUDA provider",
    "onnx-tensorrt": "ONNX Runtime's TensorRT provider",
    "tensorrt": "TensorRT itself, with an engine built here",
}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """How to run a bundle's encoder. Raises BundleFormatError for a backend or library that there is not.

    Args:
        backend: a name of BACKENDS.
        variant: of the bundle: "fp32", "fp16", ...
        threads: of the processor, for onnx-cpu; None takes the cores there are, at most 4.
        library: through which the GPU is used, see ``gpu_stream``; None takes what is there.
        device: number of the GPU.
    """

    backend: str = CPU
    variant: str = "fp32"
    threads: int | None = None
    library: Library | None = None
    device: int = 0

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise BundleFormatError(f"there is no backend {self.backend!r}; choose one of auto, {', '.join(BACKENDS)}")
        if self.library is None:
            return
        from fgsbir_edge.gpu_stream import LIBRARIES

        if self.library not in LIBRARIES:
            raise BundleFormatError(f"there is no GPU library {self.library!r}; choose one of {', '.join(LIBRARIES)}")

    @property
    def name(self) -> str:
        """Backend and variant, for people."""
        return f"{self.backend} {self.variant}"


def open_encoder(bundle: Bundle, setting: Setting, *, say: Say | None = None, deferred: bool = False) -> Encoder:
    """The encoder of a bundle on one backend. ``say`` hears of engines that are built, which can take minutes.

    ``deferred``: on the processor the network is loaded when it is first used; GPUs are asked at once.

    Raises:
        DeviceError: no GPU, a library is missing, or ONNX Runtime's provider did not load; the message says which and the remedy.
        TensorrtMissingError, EngineBuildError, EngineCacheError: no TensorRT, or no engine.
        BundleFormatError, BundleMissingFileError, BundleHashError: the bundle, or this variant of it.
    """
    from fgsbir_edge.encoder.onnx import OnnxEncoder

    if setting.backend == CPU:
        return OnnxEncoder(bundle, setting.threads, setting.variant, deferred=deferred)
    from fgsbir_edge.gpu_stream import open_stream

    stream = open_stream(setting.library, setting.device)
    if setting.backend == "tensorrt":
        return _tensorrt(bundle, setting, stream, say)
    from fgsbir_edge.encoder import onnx_device
    from fgsbir_edge.encoder.engine_folder import EngineFolder

    if setting.backend == "onnx-cuda":
        return onnx_device.OnnxDeviceEncoder(bundle, stream, onnx_device.CUDA, setting.variant)
    folder = EngineFolder(EngineFolder.default().path / "onnxruntime")
    folder.check()  # engines are code: ONNX Runtime too is to read them from a folder of the user's own alone
    return onnx_device.OnnxDeviceEncoder(bundle, stream, onnx_device.TENSORRT, setting.variant, cache=folder.path)


def _tensorrt(bundle: Bundle, setting: Setting, stream: GpuStream, say: Say | None) -> Encoder:
    from fgsbir_edge.encoder.engine_cache import load_engine
    from fgsbir_edge.encoder.tensorrt import TensorRTEncoder

    quiet: Say = lambda _: None  # noqa: E731 - a name for what stands in for nobody listening
    return TensorRTEncoder(bundle, load_engine(bundle, setting.variant, say=say or quiet), stream, setting.variant)


def missing(backend: str) -> str:
    """Why a backend cannot run here, as far as can be told at once; empty: it may. Opening it is the only proof."""
    if backend == CPU:
        return "" if importlib.util.find_spec("onnxruntime") else "onnxruntime is not installed: pip install onnxruntime"
    from fgsbir_edge.gpu_stream import open_stream

    try:
        open_stream()
        if backend == "tensorrt":
            from fgsbir_edge.encoder.trt_api import load

            load()
            return ""
    except FgsbirError as error:
        return str(error)
    from fgsbir_edge.encoder.onnx_device import CUDA, TENSORRT, absent

    return absent(CUDA if backend == "onnx-cuda" else TENSORRT)
