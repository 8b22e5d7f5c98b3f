"""``tegrastats`` beside a measurement: power, temperatures and the GPU's clock while it ran."""

from __future__ import annotations

import shutil
import subprocess
from statistics import fmean
from types import TracebackType
from typing import Any

from fgsbir_edge.jetson import Sample, parse_tegrastats

INTERVAL = 200  # milliseconds between lines
_MAX_BYTES = 2**22  # an hour of lines; more is not kept
_SECONDS = 5.0


class Watch:
    """Use in a ``with`` block. Where there is no ``tegrastats``, as anywhere but on a Jetson, it sees nothing."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Watch:
        path = shutil.which("tegrastats")
        if path is not None:
            command = [path, "--interval", str(INTERVAL)]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            text, _ = self._process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            text, _ = self._process.communicate()
        self.samples = [parse_tegrastats(line) for line in text[:_MAX_BYTES].splitlines() if line.strip()]

    def summary(self) -> dict[str, Any] | None:
        """Plain JSON values; None where nothing was seen."""
        if not self.samples:
            return None
        watts = [sample.watts for sample in self.samples if sample.watts is not None]
        gpu = [sample.engines["GR3D"] for sample in self.samples if "GR3D" in sample.engines]
        loads = [load for load, _ in gpu if load is not None]
        clocks = [max(parts) for _, parts in gpu if parts]
        degrees = [max(sample.celsius.values()) for sample in self.samples if sample.celsius]
        return {
            "lines": len(self.samples),
            "watts_mean": round(fmean(watts), 2) if watts else None,
            "gpu_percent_mean": round(fmean(loads), 1) if loads else None,
            "gpu_mhz": [min(clocks), max(clocks)] if clocks else None,
            "celsius_max": max(degrees, default=None),
        }
