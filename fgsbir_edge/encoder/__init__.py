"""Pixels to features. Every backend keeps to one small protocol, so that the engine does not know which one it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from fgsbir_edge.arrays import Float32

if TYPE_CHECKING:
    from fgsbir_edge.gpu_stream import GpuBuffer, GpuStream


class Encoder(Protocol):
    """A frozen network: normalised pixels in, features out."""

    @property
    def size(self) -> int:
        """S, pixels a side of the input."""
        ...

    @property
    def features(self) -> int:
        """C, the width of the output."""
        ...

    @property
    def name(self) -> str:
        """Backend and variant, for people: "onnx-cpu fp32"."""
        ...

    def encode(self, pixels: Float32) -> Float32:
        """float32 [B, 3, S, S] -> float32 [B, C]; any B, also 0. Raises ShapeError, NonFiniteError."""
        ...


class DeviceEncoder(Encoder, Protocol):
    """An encoder whose input and output lie on a GPU, so that whoever draws the input there needs no way through the host.

    ``stream`` is the one stream that all its work goes into; ``max_batch`` the largest B of one run; ``recordable`` whether its
    work may be recorded and replayed; ``rows`` [max_batch, C] the host's memory that ``fetch`` writes to.
    """

    stream: GpuStream
    max_batch: int
    recordable: bool
    rows: NDArray[Any]

    def input(self, batch: int) -> GpuBuffer:
        """Where the network reads B images: [B, 3, S, S], float32 or float16; always the same memory."""
        ...

    def output(self, batch: int) -> GpuBuffer:
        """Where it writes their features: [B, C], float32 or float16; always the same memory."""
        ...

    def enqueue(self, batch: int) -> None:
        """Put a run over the first B images of the input into the stream; does not wait. Raises DeviceError."""
        ...

    def fetch(self, batch: int) -> None:
        """Put the way of B features to ``rows`` into the stream; nothing where GPU and host share their memory. Does not wait."""
        ...

    def encode_device(self, pixels: Any, out: Any = None) -> Any:
        """[B, 3, S, S] on the GPU -> [B, C] on the GPU, for arrays of CuPy, PyTorch, PyCUDA and others."""
        ...
