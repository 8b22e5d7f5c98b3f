"""The rasteriser on a GPU: kernel time by CUDA events, and its share of the write bandwidth.

``python -m benchmarks.raster_cuda [--data DIR] [--rounds 30] [--out FILE]``. B = 1 to 4096 sketches at 256x256 (ChairV2 where a
data folder is at hand, else traces of the bundled drawings, repeated to B), both styles, all formats. Answers are checked against
the CPU core before anything is timed. The limit is a memset of the same size, timed in turns with the kernel: nothing that writes
every byte once can be faster. Times are of one call among many back to back, so for small B they are what launching costs. Needs
a GPU and PyTorch that can use it; says so and exits with 3 without.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import RESULTS, libraries, write
from benchmarks.sketches import SIDE, SketchSet, load
from benchmarks.tables import number, table
from fgsbir_edge import _native
from fgsbir_edge.errors import DeviceError
from fgsbir_edge.raster import RasterSpec, rasterize
from fgsbir_edge.raster_cuda import rasterize_cuda
from fgsbir_edge.sketch import SketchBatch, pack

SIZES = (1, 4, 16, 64, 256, 1024, 4096)
TARGET = 0.5  # of the write bandwidth, lines as bytes, at the largest B
_NORMAL: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
FORMATS: dict[str, dict[str, Any]] = {"uint8": {}, "float16": {**_NORMAL, "dtype": "float16"}, "float32": _NORMAL}
_CALLS = 20  # between two events
_NO_GPU = 3


def gpu() -> Any:
    """PyTorch with a GPU that the kernels run on. Raises DeviceError that says what is missing."""
    found = _native.cuda_devices(probe=True)
    problem = found if isinstance(found, str) else found[0]["problem"]
    if problem:
        raise DeviceError(f"no GPU can be used: {problem}")
    try:
        import torch
    except ImportError as error:
        raise DeviceError("PyTorch is not installed: it holds the arrays and the events of this benchmark") from error
    if not torch.cuda.is_available():
        raise DeviceError(f"PyTorch {torch.__version__} cannot use the GPU: install a build for CUDA")
    return torch


def batch_of(sketches: SketchSet, count: int) -> SketchBatch:
    """``count`` sketches, rounded to pixels before the cast to float32: the set's own, over and over."""
    return pack([sketches.sketches[i % len(sketches)] for i in range(count)], round_points=True)


def race(torch: Any, contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds of one call: median, 5th and 95th percentile over rounds in which all take turns."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 2):
        for name, call in contestants.items():
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(_CALLS):
                call()
            stop.record()
            stop.synchronize()
            if turn >= 2:  # the first rounds warm up
                times[name].append(1e3 * start.elapsed_time(stop) / _CALLS)
    return {
        name: dict(zip(("p05", "median", "p95"), map(float, np.percentile(values, (5, 50, 95))), strict=True))
        for name, values in times.items()
    }


def rows_of(torch: Any, sketches: SketchSet, count: int, rounds: int) -> list[dict[str, Any]]:
    """Every style and format at one B."""
    batch = batch_of(sketches, count)
    points, strokes, ends = (torch.from_numpy(a).cuda() for a in (batch.points, batch.stroke_offsets, batch.sketch_offsets))
    rows = []
    for style in ("bresenham", "antialias"):
        for name, output in FORMATS.items():
            spec = RasterSpec(SIDE, SIDE, style=style, **output)
            shape, dtype = spec.output(count)
            out = torch.empty(shape, dtype=getattr(torch, np.dtype(dtype).name), device="cuda")
            agrees = check(rasterize_cuda(points, strokes, ends, spec, out), batch, spec)
            calls: dict[str, Callable[[], object]] = {
                "kernel": partial(rasterize_cuda, points, strokes, ends, spec, out),
                "memset": out.zero_,
            }
            times = race(torch, calls, rounds)
            rows.append(
                {
                    "style": style,
                    "format": name,
                    "count": count,
                    "bytes": out.numel() * out.element_size(),
                    "agrees": agrees,
                    **times,
                    "share": times["memset"]["median"] / times["kernel"]["median"],
                }
            )
    return rows


def check(drawn: Any, batch: SketchBatch, spec: RasterSpec) -> str:
    """How the images agree with the CPU core's. Raises SystemExit when they do not: times of wrong answers mean nothing."""
    got = drawn.cpu().numpy()
    expected = rasterize(batch, spec, scale=False)
    if spec.style == "bresenham":
        if not np.array_equal(got.view(np.uint8), expected.view(np.uint8)):
            raise SystemExit(f"wrong pixels: {spec}")
        return "same bytes"
    level = 1.0 if spec.mean is None or spec.std is None else 1 / (255 * min(spec.std)) + 2e-3
    apart = np.abs(got.astype(np.float32) - expected.astype(np.float32)).max(initial=0.0)
    if apart > level:
        raise SystemExit(f"wrong pixels, up to {apart} apart: {spec}")
    return "within one level"


def markdown(figures: dict[str, Any]) -> str:
    """The figures as a table."""
    header = ["style, format", "B", "kernel, us", "p95", "memset, us", "GB/s", "share of memset", "answer"]
    rows = (
        [
            f"{row['style']}, {row['format']}",
            str(row["count"]),
            number(row["kernel"]["median"]),
            number(row["kernel"]["p95"]),
            number(row["memset"]["median"]),
            number(row["bytes"] / row["kernel"]["median"] / 1e3),
            f"{row['share']:.0%}",
            row["agrees"],
        ]
        for row in figures["rows"]
    )
    return table(header, rows)


def run(data: str | None, rounds: int) -> dict[str, Any]:
    """Everything this benchmark finds, as it goes into JSON. Raises DeviceError without a GPU."""
    torch = gpu()
    sketches = load(data)
    rows = [row for count in SIZES for row in rows_of(torch, sketches, count, rounds)]
    reached = next(
        row["share"] for row in rows if (row["style"], row["format"], row["count"]) == ("bresenham", "uint8", SIZES[-1])
    )
    return {
        "question": "vector sketches to pixels on a GPU, 256x256",
        "gpu": torch.cuda.get_device_name(),
        "sketches": {"set": sketches.name, "note": sketches.note, "segments": round(sketches.segments, 1)},
        "rounds": rounds,
        "libraries": libraries(("numpy", "torch")),
        "build": _native.build_info(),
        "rows": rows,
        "target": {"text": f"lines as bytes at B = {SIZES[-1]}, share of memset", "wanted": TARGET, "reached": reached},
    }


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.raster_cuda", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="folder that holds chairv2/strokes.npz")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS / "raster_cuda.json")
    options = parser.parse_args(arguments)
    try:
        figures = run(options.data, options.rounds)
    except DeviceError as error:
        sys.stderr.write(f"benchmarks.raster_cuda: {error}\n")
        return _NO_GPU
    write(options.out, figures)
    sys.stdout.write(markdown(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
