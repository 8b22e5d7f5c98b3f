"""Checks of each backend with each variant: features against the processor's, replayed graphs, CuPy; and of the engine cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fgsbir_edge.bench_inputs import Demo, cosine, scribbles
from fgsbir_edge.encoder.backends import BACKENDS, CPU, Setting, missing, open_encoder
from fgsbir_edge.engine import strokes_encoder
from fgsbir_edge.errors import FgsbirError
from fgsbir_edge.preprocess import sketch_pixels
from fgsbir_edge.selftest import Check, CheckError, SkipError

if TYPE_CHECKING:
    from fgsbir_edge.arrays import Float32
    from fgsbir_edge.bundle import Bundle
    from fgsbir_edge.encoder import Encoder
    from fgsbir_edge.strokes_cuda import StrokesEncoder

EXACT, REDUCED = 0.999, 0.98  # smallest cosine to onnx-cpu fp32: of fp32 itself, of variants with fewer bits
_BATCHES = (1, 1, 1, 5, 5, 12, 1)  # sizes change, and come back to what was recorded
Say = Callable[[str], None]


def checks(bundle: Bundle, say: Say) -> list[Check]:
    """For every backend and variant of every encoder, whether or not it can run here."""
    found = _checks(bundle, "", say)
    if bundle.sketch is not None:
        found += _checks(bundle.sketch, "sketch encoder, ", say)
    return [*found, Check("engine cache", lambda: _cache(bundle, say))]


def _checks(bundle: Bundle, label: str, say: Say) -> list[Check]:
    truth, found = _Truth(bundle), []
    for backend in BACKENDS:
        for variant in bundle.variants:
            one = _Backend(bundle, Setting(backend, variant), truth, say)
            name = f"{label}{one.setting.name}"
            found.append(Check(f"{name}: features of the shipped drawings and photos", one.features))
            if backend != CPU:
                found.append(Check(f"{name}: strokes to features on the GPU", one.strokes))
                found.append(Check(f"{name}: replayed CUDA graph", one.replayed))
                found.append(Check(f"{name}: CuPy arrays in and out", one.cupy))
    return found


class _Truth:
    """What the processor says, computed once."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.drawings = scribbles(max(_BATCHES), seed=2)

    @cached_property
    def demo(self) -> Float32:
        """Pixels of the shipped drawings and photos."""
        demo = Demo.load(self.bundle)
        return np.concatenate([demo.sketches, demo.photos])

    @cached_property
    def pixels(self) -> Float32:
        """Pixels of made-up strokes."""
        return sketch_pixels(self.drawings, self.bundle.input)

    @cached_property
    def features(self) -> tuple[Float32, Float32]:
        """Of both."""
        encoder = open_encoder(self.bundle, Setting(CPU))
        return encoder.encode(self.demo), encoder.encode(self.pixels)


class _Backend:
    """One backend with one variant; opened by the first check that needs it."""

    def __init__(self, bundle: Bundle, setting: Setting, truth: _Truth, say: Say) -> None:
        self.setting = setting
        self._bundle, self._truth, self._say = bundle, truth, say
        self._failed = False

    def features(self) -> str:
        """From the host and back."""
        return self._compare(self._encoder.encode(self._truth.demo), self._truth.features[0])

    def strokes(self) -> str:
        """The rasteriser writes into the network's input."""
        strokes, wanted = self._on_gpu, self._truth.features[1]
        worst = min(cosine(strokes.encode(self._truth.drawings[:size]), wanted[:size]) for size in _BATCHES)
        self._judge(worst)
        return f"cosine at least {worst:.6f} over batches of {', '.join(map(str, sorted(set(_BATCHES))))}"

    def replayed(self) -> str:
        """The same bits as without a recording."""
        from fgsbir_edge.strokes_cuda import StrokesEncoder

        recorded = self._on_gpu
        if not recorded.encoder.recordable:
            raise SkipError("ONNX Runtime's work is not recorded")
        plain = StrokesEncoder(recorded.encoder, self._bundle.input, record=False)
        for size in _BATCHES:
            drawings = self._truth.drawings[:size]
            if not np.array_equal(recorded.encode(drawings), plain.encode(drawings)):
                raise CheckError(f"a replayed batch of {size} gives other features")
        if recorded.replay is None or recorded.replay.refused is not None:
            raise CheckError(f"not recorded: {recorded.replay and recorded.replay.refused}; every kernel is started by itself")
        return f"the same bits, {recorded.replay.recorded} recordings"

    def cupy(self) -> str:
        """Arrays of CuPy go in, and come out."""
        from fgsbir_edge.gpu_libraries import load

        encoder = self._on_gpu.encoder
        try:
            cupy = load("cupy")
        except FgsbirError as error:
            raise SkipError(str(error)) from error
        pixels = cupy.asarray(self._truth.pixels.astype(encoder.input(1).dtype))
        return self._compare(encoder.encode_device(pixels).get().astype(np.float32), self._truth.features[1])

    @cached_property
    def _encoder(self) -> Encoder:
        if reason := missing(self.setting.backend):
            raise SkipError(reason)
        if self._failed:  # not again: building an engine can take minutes
            raise SkipError("it cannot be opened, see above")
        try:
            return open_encoder(self._bundle, self.setting, say=self._say)
        except Exception:
            self._failed = True
            raise

    @cached_property
    def _on_gpu(self) -> StrokesEncoder:
        strokes = strokes_encoder(self._bundle, self._encoder)
        if strokes is None:
            raise SkipError("this installation has no device code to draw with: build it with FGSBIR_CUDA=ON")
        return strokes

    def _compare(self, rows: Float32, wanted: Float32) -> str:
        worst = cosine(rows, wanted)
        self._judge(worst)
        return f"{len(rows)} images, cosine to onnx-cpu fp32 at least {worst:.6f}"

    def _judge(self, worst: float) -> None:
        bound = EXACT if self.setting.variant == "fp32" else REDUCED
        if not worst >= bound:
            raise CheckError(f"features are not those of onnx-cpu fp32: smallest cosine {worst:.6f}, expected {bound} or more")


def _cache(bundle: Bundle, say: Say) -> str:
    """A second start finds the engine that the first one built."""
    from fgsbir_edge.encoder.engine_cache import load_engine

    if reason := missing("tensorrt"):
        raise SkipError(reason)
    first = load_engine(bundle, say=say)
    said: list[str] = []
    if load_engine(bundle, say=said.append) != first or said:
        raise CheckError(f"the engine was not found again: {'; '.join(said) or 'another one came back'}")
    return f"an engine of {len(first) / 2**20:.1f} MiB is found again"
