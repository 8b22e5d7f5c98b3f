"""Which GPU, driver and CUDA runtime an engine would be built for, asked of the driver itself."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fgsbir_edge.errors import DeviceError

DRIVER = "libcuda.so.1"
RUNTIMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")
RELEASES = (Path("/sys/module/nvidia/version"), Path("/etc/nv_tegra_release"))
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76  # CUdevice_attribute: part of the driver's binary interface
_MAX_NAME = 256


@dataclass(frozen=True)
class Gpu:
    """What an engine depends on beside its model.

    Args:
        name: as the driver tells, "Orin" for instance.
        sm: compute capability, "8.7".
        multiprocessors: how many; modules of one name differ in it.
        driver: newest CUDA version that the driver serves, "12.6".
        runtime: version of the CUDA runtime that is installed; "" where none is found.
        release: the driver's own version, or L4T's on a Jetson; "" where the system does not say.
        machine: the processor's architecture.
    """

    name: str
    sm: str
    multiprocessors: int = 0
    driver: str = ""
    runtime: str = ""
    release: str = ""
    machine: str = platform.machine()

    def facts(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {f"gpu_{field}": value for field, value in asdict(self).items()}


def current_gpu(load: Callable[[str], Any] = ctypes.CDLL) -> Gpu:
    """The first GPU that this process may see (CUDA_VISIBLE_DEVICES chooses). Raises DeviceError: no driver, or no GPU."""
    try:
        cuda = load(DRIVER)
    except OSError as error:
        raise DeviceError(f"no NVIDIA driver: {error}; engines are built and run on a machine with an NVIDIA GPU") from error
    device, number = ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_MAX_NAME)
    _check(cuda, "cuInit", 0)
    _check(cuda, "cuDeviceGet", ctypes.byref(device), 0)
    _check(cuda, "cuDeviceGetName", name, _MAX_NAME, device)
    found = []
    for attribute in (_MAJOR, _MINOR, _MULTIPROCESSORS):
        _check(cuda, "cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
        found.append(number.value)
    _check(cuda, "cuDriverGetVersion", ctypes.byref(number))
    major, minor, multiprocessors = found
    text = name.value.decode(errors="replace")
    return Gpu(text, f"{major}.{minor}", multiprocessors, _version(number.value), _runtime(load), _release())


def _check(cuda: Any, function: str, *arguments: Any) -> None:
    code = getattr(cuda, function)(*arguments)
    if code != 0:
        raise DeviceError(f"no GPU can be used: {function} returned {code}; check the driver, and CUDA_VISIBLE_DEVICES")


def _runtime(load: Callable[[str], Any]) -> str:
    number = ctypes.c_int()
    for name in RUNTIMES:
        try:
            library = load(name)
        except OSError:
            continue
        if library.cudaRuntimeGetVersion(ctypes.byref(number)) == 0:
            return _version(number.value)
    return ""


def _release() -> str:
    path = next((path for path in RELEASES if path.is_file()), None)
    return "" if path is None else path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip("# ")


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
