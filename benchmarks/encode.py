"""One encoder on the CPU: ONNX Runtime in each precision beside PyTorch, eager and compiled: ``python -m benchmarks.encode``.

All run in turns in one process on the same images. Without ``--bundle`` and ``--checkpoint`` the network is the released model's
architecture with random weights, exported and quantised on the spot: times do not depend on what weights say.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import libraries, write
from benchmarks.rounds import Competitor, Report, Verdict, race
from benchmarks.tables import group_table, groups
from export.calibration import CalibrationSet
from export.onnx_encoder import export_model, halved, serialised
from export.precision import in_half
from export.quantise import Quantiser, Scheme
from fgsbir_edge.arrays import Float32
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.head import Head
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.variant import FP32, Variant
from training.models.config import EncoderConfig
from training.models.encoder import Encoder, build_encoder

RESULT = Path(__file__).parents[1] / "docs" / "results" / "encode.json"
BATCHES, THREADS = (1, 8), (1, 2)
EAGER, COMPILED = "torch eager", "torch.compile"
LEAST = {FP32: 0.999, "fp16": 0.99, "int8": 0.9, "int8_cpu": 0.9}  # cosine to PyTorch: right, if less precise
RELEASED = EncoderConfig(
    size=160,
    features=240,
    embedding=240,
    backbone="efficientnet_lite0",
    stages=("stage5", "stage7"),
    grids=(7, 3),
    pooling="tight",
    attention="none",
)


@dataclass(frozen=True)
class Subject:
    """One network in both worlds; `bundle` holds the variants."""

    encoder: Encoder
    bundle: Bundle
    weights: str

    @classmethod
    def random(cls, config: EncoderConfig = RELEASED) -> Subject:
        """`config` with random weights, quantised with ranges from noise."""
        encoder = build_encoder(config, seed=0).eval()
        model = export_model(encoder)
        noise = np.random.default_rng(0).normal(size=(8, 3, config.size, config.size)).astype(np.float32)
        quantiser = Quantiser.of(model, CalibrationSet(noise, tuple(f"noise/sketch/{index}" for index in range(len(noise)))))
        graphs = {"fp16": in_half(model)}
        for name, signed in (("int8", True), ("int8_cpu", False)):
            graphs[name], _ = quantiser.quantised(Scheme(signed=signed, left=()))
        variants = {name: Variant.of(name, serialised(graph)) for name, graph in graphs.items()}
        head = Head(np.eye(config.features, dtype=np.float32), np.zeros(config.features, np.float32), np.ones(1, np.float32))
        bundle = Bundle("random", InputSpec(size=config.size), serialised(halved(model)), head)
        return cls(encoder, replace(bundle, variants=dict(bundle.variants) | variants), "random")

    @classmethod
    def read(cls, bundle: Path, checkpoint: Path) -> Subject:
        """A bundle and the checkpoint it was exported from."""
        from training.checkpoint import load_model

        loaded = Bundle.load(bundle)
        return cls(load_model(checkpoint)[0], loaded, loaded.name)


@dataclass(frozen=True)
class Options:
    """`batches` by `threads` are timed; `compiled`: with torch.compile too, whose first calls take minutes."""

    rounds: int = 15
    turn_ms: float = 200.0
    compiled: bool = True
    batches: Sequence[int] = BATCHES
    threads: Sequence[int] = THREADS


def run(subject: Subject, options: Options) -> dict[str, Any]:
    """Figures of every batch and number of threads. Times are microseconds per image."""
    import torch

    report = Report()
    for threads in options.threads:
        torch.set_num_threads(threads)
        if options.compiled:
            torch._dynamo.reset()  # compiled code is made for a number of threads
        for batch in options.batches:
            _batch(report, subject, batch, threads, options)
    figures = {"weights": subject.weights, "input": subject.bundle.input.size, **report.figures()}
    figures["bytes"] = {name: variant.size for name, variant in subject.bundle.variants.items()}
    return {**figures, "libraries": libraries(("numpy", "onnxruntime", "torch"))}


def _batch(report: Report, subject: Subject, batch: int, threads: int, options: Options) -> None:
    group = f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}"
    size = subject.bundle.input.size
    pixels = np.random.default_rng(1).normal(size=(batch, 3, size, size)).astype(np.float32)
    calls = _torches(subject.encoder, pixels, options.compiled)
    expected, least = calls[EAGER](), dict.fromkeys(calls, 0.9999)
    for name in subject.bundle.variants:
        calls[f"ONNX Runtime {name}"] = partial(OnnxEncoder(subject.bundle, threads, name).encode, pixels)
        least[f"ONNX Runtime {name}"] = LEAST.get(name, min(LEAST.values()))
    competitors = [
        Competitor(name, partial(_ignoring, call), batch, partial(_judge, call, expected, least[name]), threads=threads)
        for name, call in calls.items()
    ]
    race(report, group, competitors, rounds=options.rounds, turn_ms=options.turn_ms)


def _torches(encoder: Encoder, pixels: Float32, compiled: bool) -> dict[str, Callable[[], Float32]]:
    """PyTorch's ways, channels last as it likes convolutions best on a CPU."""
    import torch

    network = encoder.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)

    def call(function: Callable[[torch.Tensor], torch.Tensor]) -> Float32:
        with torch.inference_mode():
            rows: Float32 = function(image).numpy()
            return rows

    ways: dict[str, Callable[[], Float32]] = {EAGER: partial(call, network)}
    if compiled:
        ways[COMPILED] = partial(call, torch.compile(network))
    return ways


def _ignoring(call: Callable[[], Float32], _: int) -> Float32:
    return call()


def _judge(call: Callable[[], Float32], expected: Float32, least: float) -> Verdict:
    cosine = float(np.min(np.sum(call() * expected, axis=1)))
    return Verdict(cosine >= least, f"cosine {cosine:.6f} to PyTorch")


def text(figures: Mapping[str, Any]) -> str:
    """The tables, and how many times as fast as eager PyTorch each is by medians."""
    parts = []
    for group in groups(figures):
        rows = {row["name"]: row["median"] for row in figures["rows"] if row["group"] == group}
        times = ", ".join(f"{name} {rows[EAGER] / median:.2f}" for name, median in rows.items() if EAGER in rows)
        parts.append(f"\n{group}\n\n{group_table(figures, group)}\nTimes as fast as eager: {times}\n")
    return "".join(parts)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encode", description=__doc__)
    parser.add_argument("--bundle", type=Path, help="with variants; goes with --checkpoint")
    parser.add_argument("--checkpoint", type=Path, help="that the bundle was exported from")
    parser.add_argument("--rounds", type=int, default=Options.rounds)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: its first calls take minutes")
    parser.add_argument("--quick", action="store_true", help="a small network, one round: whether everything runs")
    parser.add_argument("--out", type=Path, help="default: docs/results/encode.json; --quick writes nothing by default")
    arguments = parser.parse_args()
    if (arguments.bundle is None) != (arguments.checkpoint is None):
        parser.error("--bundle and --checkpoint go together")
    if arguments.bundle is not None:
        subject = Subject.read(arguments.bundle, arguments.checkpoint)
    else:
        subject = Subject.random(replace(RELEASED, size=96, grids=(3, 2)) if arguments.quick else RELEASED)
    options = Options(arguments.rounds, Options.turn_ms, not arguments.no_compile, arguments.batches, arguments.threads)
    figures = run(subject, replace(options, rounds=1, turn_ms=1.0) if arguments.quick else options)
    out = arguments.out or (None if arguments.quick else RESULT)
    if out is not None:
        write(out, figures)
    sys.stdout.write(text(figures))


if __name__ == "__main__":
    main()
