"""How long each stage of a query takes on each backend that is here, and which is the fastest of those that agree."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fgsbir_edge.bench_inputs import PAIRS, Demo, cosine, scribbles
from fgsbir_edge.encoder.backends import CPU, Setting, open_encoder
from fgsbir_edge.engine import strokes_encoder
from fgsbir_edge.errors import FgsbirError
from fgsbir_edge.preprocess import sketch_pixels

if TYPE_CHECKING:
    from fgsbir_edge.arrays import Float32
    from fgsbir_edge.bundle import Bundle
    from fgsbir_edge.encoder import DeviceEncoder, Encoder
    from fgsbir_edge.engine import Engine
    from fgsbir_edge.strokes_cuda import StrokesEncoder

AGREEMENT = 0.999  # smallest cosine to the features of onnx-cpu fp32 with which a backend may be chosen
_SKETCHES = 32  # different ones take turns, so that no run finds its points in the cache


@dataclass(frozen=True)
class Plan:
    """How much to measure: timed runs of each stage after ``warmup`` runs that are not counted; ``threads`` as in Setting."""

    runs: int = 200
    warmup: int = 20
    threads: int | None = None
    agreement: float = AGREEMENT


@dataclass(frozen=True)
class Times:
    """Milliseconds of one run: percentiles over ``runs``."""

    p50: float
    p90: float
    p99: float
    runs: int


@dataclass(frozen=True)
class Measured:
    """One backend with one variant. ``stages``: raster, encode, and query, which is strokes to features as a search runs it.

    ``agreement`` is the smallest cosine to onnx-cpu fp32 over the shipped drawings and photos and made-up strokes; ``replayed``
    whether the query is a replayed CUDA graph.
    """

    setting: Setting
    stages: dict[str, Times]
    agreement: float
    replayed: bool = False


@dataclass(frozen=True)
class Report:
    """What was measured, what was left out and why, and the fastest that agrees (None: none does)."""

    measured: tuple[Measured, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    fastest: Measured | None = None


Say = Callable[[str], None]


def measure(work: Callable[[int], object], plan: Plan) -> Times:
    """Times of ``work(i)``, i counting up; it has to return only when its work is done."""
    for number in range(plan.warmup):
        work(number)
    times = np.empty(plan.runs)
    for number in range(plan.runs):
        start = time.perf_counter()
        work(number)
        times[number] = 1e3 * (time.perf_counter() - start)
    p50, p90, p99 = (float(value) for value in np.percentile(times, (50, 90, 99)))
    return Times(p50, p90, p99, plan.runs)


def bench_encoders(bundle: Bundle, settings: Sequence[Setting], plan: Plan, say: Say) -> Report:
    """Measure each setting that can be opened. Raises what opening onnx-cpu fp32 raises, which the others are compared with."""
    demo = Demo.load(bundle)
    wanted = _answers(open_encoder(bundle, Setting(CPU, threads=plan.threads)), bundle, demo)
    measured, left_out = [], {}
    for setting in settings:
        say(f"{setting.name} ...")
        try:
            measured.append(_bench(bundle, setting, plan, (demo, wanted), say))
        except FgsbirError as error:
            left_out[setting.name] = str(error)
    agreeing = [one for one in measured if one.agreement >= plan.agreement]
    fastest = min(agreeing, key=lambda one: one.stages["query"].p50, default=None)
    return Report(tuple(measured), left_out, fastest)


def bench_rest(engine: Engine, plan: Plan) -> dict[str, Times]:
    """The stages after the encoder, which are the same for all backends: head, search (head included), adapt.

    ``adapt`` learns from five pairs with the guard off; search is over the engine's gallery.
    """
    from fgsbir_edge.adapt import AdaptOptions, adapt

    demo = Demo.load(engine.bundle, PAIRS)
    sketches, photos = engine.encoder.encode(demo.sketches), engine.encoder.encode(demo.photos)
    queries = [sketches[row : row + 1] for row in range(len(sketches))]
    options = AdaptOptions(guard=False)
    return {
        "head": measure(lambda number: engine.head.embed(queries[number % len(queries)]), plan),
        "search": measure(lambda number: engine.gallery.search(queries[number % len(queries)], 10, head=engine.head), plan),
        "adapt": measure(lambda _: adapt(engine.head, sketches, photos, options=options), plan),
    }


def as_json(report: Report, rest: dict[str, Times]) -> dict[str, Any]:
    """Plain JSON values, microsecond precision."""
    return {
        "encoders": [
            {
                "backend": one.setting.backend,
                "variant": one.setting.variant,
                "agreement": round(one.agreement, 6),
                "replayed": one.replayed,
                "millis": _rounded(one.stages),
            }
            for one in report.measured
        ],
        "left_out": report.left_out,
        "rest_millis": _rounded(rest),
        "fastest": None if report.fastest is None else report.fastest.setting.name,
    }


def _rounded(stages: dict[str, Times]) -> dict[str, Any]:
    return {
        stage: {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(times).items()}
        for stage, times in stages.items()
    }


def _answers(encoder: Encoder, bundle: Bundle, demo: Demo) -> Float32:
    """Features that encoders are compared by."""
    pixels = sketch_pixels(scribbles(8, seed=1), bundle.input)
    return np.concatenate([encoder.encode(part) for part in (demo.sketches, demo.photos, pixels)])


def _bench(bundle: Bundle, setting: Setting, plan: Plan, truth: tuple[Demo, Float32], say: Say) -> Measured:
    encoder = open_encoder(bundle, setting, say=say)
    agreement = cosine(_answers(encoder, bundle, truth[0]), truth[1])
    strokes = strokes_encoder(bundle, encoder)
    if strokes is None:
        return Measured(setting, _host_stages(bundle, encoder, plan), agreement)
    drawings = scribbles(_SKETCHES, seed=1)
    pixels = sketch_pixels(drawings, bundle.input)
    agreement = min(agreement, cosine(strokes.encode(drawings), encoder.encode(pixels)))
    stages = _device_stages(strokes, strokes.encoder, plan)
    return Measured(setting, stages, agreement, strokes.replay is not None and strokes.replay.refused is None)


def _host_stages(bundle: Bundle, encoder: Encoder, plan: Plan) -> dict[str, Times]:
    drawings = scribbles(_SKETCHES)
    pixels = [sketch_pixels([drawing], bundle.input) for drawing in drawings]
    return {
        "raster": measure(lambda number: sketch_pixels([drawings[number % _SKETCHES]], bundle.input), plan),
        "encode": measure(lambda number: encoder.encode(pixels[number % _SKETCHES]), plan),
        "query": measure(lambda number: encoder.encode(sketch_pixels([drawings[number % _SKETCHES]], bundle.input)), plan),
    }


def _device_stages(strokes: StrokesEncoder, encoder: DeviceEncoder, plan: Plan) -> dict[str, Times]:
    """Raster and encode one by one, each waited for, which costs more than it does within a query."""
    drawings = scribbles(_SKETCHES)

    def draw(number: int) -> None:
        strokes.draw([drawings[number % _SKETCHES]])
        encoder.stream.synchronize()

    def encode(_: int) -> None:
        encoder.enqueue(1)
        encoder.stream.synchronize()

    return {
        "raster": measure(draw, plan),
        "encode": measure(encode, plan),
        "query": measure(lambda number: strokes.encode([drawings[number % _SKETCHES]]), plan),
    }
