"""What a Jetson says of itself: release, power mode, clocks, load, temperatures and power. Needs no root.

The parsers take the text of ``tegrastats``, ``nvpmodel -q``, ``nvpmodel.conf`` and ``jetson_clocks --show`` of JetPack 5 to 7.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_RELEASE = re.compile(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)")
_MODE = re.compile(r"NV Power Mode:\s*(\S+)[ \t]*(?:\n\s*(\d+))?")
_MODEL = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=([^\s>]+)\s*>")
_PAIR = re.compile(r"(\w+)=(-?\d+)")
_MEMORY = re.compile(r"\b(RAM|SWAP) (\d+)/(\d+)MB")
_CPU = re.compile(r"\bCPU \[([^\]]*)\]")
_ENGINE = re.compile(r"\b([A-Z]\w*) (?:(\d+)%)?(?:@\[?(\d+(?:,\d+)*)\]?)?(?= |$)")
_TEMPERATURE = re.compile(r"\b([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C\b")
_POWER = re.compile(r"\b([A-Z]\w*) (\d+)(?:mW)?/(\d+)(?:mW)?(?= |$)")
_ABSENT = -200.0  # degrees; sensors of units that are switched off report -256
_MODES = ("etc/nvpmodel.conf", "var/lib/nvpmodel/status")
_SECONDS = 5.0  # no tool of these takes that long


@dataclass(frozen=True)
class Sample:
    """A line of ``tegrastats``.

    Args:
        ram, swap: MB in use and in all.
        cpus: (percent, MHz) of each core; None for one that is off.
        engines: (percent or None, MHz of each part) of EMC, GR3D (the GPU) and others.
        celsius: by sensor, as the line names it; sensors without a reading are left out.
        milliwatts: (now, average) of each rail.
    """

    ram: tuple[int, int] | None = None
    swap: tuple[int, int] | None = None
    cpus: tuple[tuple[int, int] | None, ...] = ()
    engines: dict[str, tuple[int | None, tuple[int, ...]]] = field(default_factory=dict)
    celsius: dict[str, float] = field(default_factory=dict)
    milliwatts: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def watts(self) -> float | None:
        """Of the whole module, where one rail says so: VDD_IN (Orin Nano and NX) or VIN (Thor)."""
        found = next((self.milliwatts[rail] for rail in ("VDD_IN", "VIN") if rail in self.milliwatts), None)
        return None if found is None else found[0] / 1000


def parse_tegrastats(line: str) -> Sample:
    """A line of ``tegrastats``; what it does not say stays empty."""
    memory = {name: (int(used), int(total)) for name, used, total in _MEMORY.findall(line)}
    cpus = _CPU.search(line)
    rest = _MEMORY.sub("", _CPU.sub("", line))
    engines = {
        name.removesuffix("_FREQ"): (int(load) if load else None, tuple(map(int, clocks.split(","))) if clocks else ())
        for name, load, clocks in _ENGINE.findall(rest)
        if load or clocks
    }
    celsius = {name: float(value) for name, value in _TEMPERATURE.findall(rest) if float(value) > _ABSENT}
    rails = {name: (int(now), int(average)) for name, now, average in _POWER.findall(rest)}
    cores = () if cpus is None else tuple(_core(text) for text in cpus[1].split(",") if text.strip())
    return Sample(memory.get("RAM"), memory.get("SWAP"), cores, engines, celsius, rails)


def _core(text: str) -> tuple[int, int] | None:
    load, _, clock = text.strip().partition("%")
    return (int(load), int(clock.lstrip("@") or 0)) if load.isdecimal() else None


def parse_mode(text: str) -> tuple[str, int | None] | None:
    """Name and number of the power mode in the output of ``nvpmodel -q``; None where it names none."""
    found = _MODE.search(text)
    return None if found is None else (found[1], int(found[2]) if found[2] else None)


def parse_modes(text: str) -> dict[int, str]:
    """The power modes that an ``nvpmodel.conf`` describes, by number."""
    return {int(number): name for number, name in _MODEL.findall(text)}


@dataclass(frozen=True)
class Clock:
    """Least, largest and present frequency of a core, the GPU or the memory, MHz."""

    least: float
    largest: float
    current: float

    @property
    def pinned(self) -> bool:
        """Whether it cannot change, as after ``jetson_clocks``."""
        return self.least == self.largest


def parse_clocks(text: str) -> dict[str, Clock]:
    """The clocks in the output of ``jetson_clocks --show``: cpu0 and on in kHz, GPU and EMC in Hz, as it prints them."""
    clocks = {}
    for line in text.splitlines():
        name = line.split(":")[0].split(" ")[0]
        values = dict(_PAIR.findall(line))
        if not {"MinFreq", "MaxFreq", "CurrentFreq"} <= set(values):
            continue
        scale = 1e3 if name.startswith("cpu") else 1e6
        clocks[name] = Clock(*(int(values[key]) / scale for key in ("MinFreq", "MaxFreq", "CurrentFreq")))
    return clocks


def read_clocks(root: Path = Path("/")) -> dict[str, Clock]:
    """The same from sysfs, which needs no root: cores, and the GPU where it is listed."""
    clocks = {}
    for folder in sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq")):
        values = [_number(folder / f"scaling_{name}_freq") for name in ("min", "max", "cur")]
        if None not in values:
            clocks[folder.parent.name] = Clock(*(value / 1e3 for value in values if value is not None))
    for folder in sorted(root.glob("sys/class/devfreq/*")):
        if not folder.name.endswith((".gpu", ".ga10b", ".gv11b", "gpc-0")):
            continue
        values = [_number(folder / f"{name}_freq") for name in ("min", "max", "cur")]
        if None not in values:
            clocks["GPU"] = Clock(*(value / 1e6 for value in values if value is not None))
    return clocks


def read_mode(root: Path = Path("/")) -> tuple[str, int | None] | None:
    """The power mode: from ``nvpmodel -q``, or inside a container from the files beneath it; None where nothing tells."""
    if root == Path("/") and (told := parse_mode(output_of("nvpmodel", "-q"))):
        return told
    names, status = (_text(root / name) for name in _MODES)
    found = re.search(r"pmode:(\d+)", status)
    if found is None:
        return None
    number = int(found[1])
    return parse_modes(names).get(number, str(number)), number


def release(root: Path = Path("/")) -> str | None:
    """L4T's release, "36.4.7"; None on a machine that is no Jetson."""
    found = _RELEASE.search(_text(root / "etc/nv_tegra_release"))
    return None if found is None else f"{found[1]}.{found[2]}"


def state(root: Path = Path("/")) -> dict[str, Any] | None:
    """Model, release, power mode and clocks as plain JSON values; None on a machine that is no Jetson."""
    number, model = release(root), _text(root / "proc/device-tree/model").strip("\0\n ")
    if number is None and "Jetson" not in model:
        return None
    mode, clocks = read_mode(root), read_clocks(root)
    return {
        "model": model,
        "l4t": number,
        "power_mode": None if mode is None else mode[0],
        "clocks_mhz": {name: asdict(clock) for name, clock in clocks.items()},
        "clocks_pinned": bool(clocks) and all(clock.pinned for clock in clocks.values()),
    }


def output_of(*command: str) -> str:
    """What a tool prints; "" where it is missing, fails or hangs."""
    path = shutil.which(command[0])
    if path is None:
        return ""
    try:
        return subprocess.run([path, *command[1:]], capture_output=True, text=True, timeout=_SECONDS, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None
