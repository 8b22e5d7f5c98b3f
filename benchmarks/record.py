"""What every benchmark records beside its figures, and how samples become figures."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def machine() -> dict[str, Any]:
    """Processor, cores, Python, commit and present load (of the last minute, 1.0 = one busy core) of this run."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    command = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    facts = {"processor": model, "cores": os.cpu_count(), "python": platform.python_version(), "commit": commit or None}
    return {**facts, "load": round(os.getloadavg()[0], 2)}


def libraries(names: Iterable[str]) -> dict[str, str]:
    """Installed versions of the distributions named; those that are not installed are left out."""
    return {name: found.version for name in names for found in metadata.distributions(name=name)}


def one_thread_a_library() -> None:
    """Start this process again with the thread pools of OpenMP, OpenBLAS and MKL set to one thread, unless they are.

    They read their variables once, when they are loaded, which importing NumPy has done by now.
    """
    if all(os.environ.get(name) == "1" for name in _POOLS):
        return
    os.execve(sys.executable, sys.orig_argv, {**os.environ, **dict.fromkeys(_POOLS, "1")})


def sample(function: Callable[[], object], *, repeats: int, warmup: int = 5) -> dict[str, float]:
    """Milliseconds of `function`: median, 5th, 95th and 99th percentile over `repeats` calls after `warmup` discarded ones."""
    times = []
    for turn in range(warmup + repeats):
        start = time.perf_counter()
        function()
        if turn >= warmup:
            times.append(1e3 * (time.perf_counter() - start))
    p05, median, p95, p99 = (round(float(value), 4) for value in np.percentile(times, (5, 50, 95, 99)))
    return {"median": median, "p05": p05, "p95": p95, "p99": p99}


def write(path: Path, figures: dict[str, Any]) -> None:
    """Write figures and machine as JSON that a later run can be compared with; figures may know more of the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**figures, "machine": machine() | figures.get("machine", {})}, indent=2) + "\n", encoding="utf-8")
