"""What the driver tells of the GPU, from a stand-in of its library."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import pytest

from fgsbir_edge.encoder import trt_device
from fgsbir_edge.encoder.trt_device import Gpu, current_gpu
from fgsbir_edge.errors import DeviceError


class Driver:
    """libcuda of an Orin, and libcudart of CUDA 12.6; ``refuse`` names a function that fails."""

    def __init__(self, refuse: str = "") -> None:
        self.refuse = refuse

    def load(self, name: str) -> Any:
        if name not in ("libcuda.so.1", "libcudart.so.12"):
            raise OSError(f"{name}: no such file")
        return self

    def _end(self, name: str) -> int:
        return 100 if name == self.refuse else 0

    def cuInit(self, flags: int) -> int:  # noqa: N802 - the driver's names
        return self._end("cuInit")

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        device._obj.value = 7
        return self._end("cuDeviceGet")

    def cuDeviceGetName(self, name: Any, size: int, device: ctypes.c_int) -> int:  # noqa: N802
        assert device.value == 7
        assert len(name) == size
        name.value = b"Orin"
        return self._end("cuDeviceGetName")

    def cuDeviceGetAttribute(self, number: Any, attribute: int, device: ctypes.c_int) -> int:  # noqa: N802
        number._obj.value = {75: 8, 76: 7, 16: 16}[attribute]
        return self._end("cuDeviceGetAttribute")

    def cuDriverGetVersion(self, number: Any) -> int:  # noqa: N802
        number._obj.value = 12060
        return self._end("cuDriverGetVersion")

    def cudaRuntimeGetVersion(self, number: Any) -> int:  # noqa: N802
        number._obj.value = 12060
        return self._end("cudaRuntimeGetVersion")


def test_an_orin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.7, GCID: 1\n# more\n")
    monkeypatch.setattr(trt_device, "RELEASES", (tmp_path / "none", tmp_path / "nv_tegra_release"))
    gpu = current_gpu(Driver().load)
    assert gpu == Gpu("Orin", "8.7", 16, "12.6", "12.6", "R36 (release), REVISION: 4.7, GCID: 1")
    assert {"gpu_name", "gpu_sm", "gpu_driver", "gpu_runtime", "gpu_release", "gpu_multiprocessors", "gpu_machine"} == set(
        gpu.facts()
    )


def test_what_is_not_told_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_device, "RELEASES", ())
    monkeypatch.setattr(trt_device, "RUNTIMES", ("libcudart.so.11.0",))
    gpu = current_gpu(Driver().load)
    assert (gpu.runtime, gpu.release) == ("", "")


@pytest.mark.parametrize("function", ["cuInit", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute", "cuDriverGetVersion"])
def test_driver_that_refuses(function: str) -> None:
    with pytest.raises(DeviceError, match=f"{function} returned 100; check the driver"):
        current_gpu(Driver(function).load)


def test_no_driver() -> None:
    def load(name: str) -> Any:
        raise OSError(f"{name}: cannot open")

    with pytest.raises(DeviceError, match=re.escape("no NVIDIA driver: libcuda.so.1: cannot open")):
        current_gpu(load)
