"""Which backend a machine runs a bundle on: measured by ``fgsbir-edge bench``, kept here, used by ``Engine.open``.

One JSON file for a bundle on one kind of machine, in the user's cache folder: {"format": 1, "backend": ..., "variant": ...,
"threads": ..., "chosen": date, "software": {...}, "measured": {...}}.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgsbir_edge.encoder import Encoder
from fgsbir_edge.encoder.backends import CPU, Say, Setting, open_encoder
from fgsbir_edge.errors import FgsbirError, OutputError
from fgsbir_edge.files import read_bounded, write_atomic
from fgsbir_edge.inner import native

if TYPE_CHECKING:
    from fgsbir_edge.bundle import Bundle

VARIABLE = "FGSBIR_CHOICES"
FORMAT = 1
_MAX_BYTES = 2**20
_PACKAGES = ("fgsbir-edge", "onnxruntime", "onnxruntime-gpu", "tensorrt")
_BOARD, _PROCESSOR = Path("/proc/device-tree/model"), Path("/proc/cpuinfo")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """What was chosen, when (ISO date), with which software, and the figures it rests on (plain JSON values)."""

    setting: Setting
    chosen: str
    software: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)


def hardware() -> dict[str, Any]:
    """The machine, as far as speed depends on it: processor, cores, GPUs."""
    try:
        found = native().cuda_devices()
    except FgsbirError as error:
        found = str(error)
    gpus = [] if isinstance(found, str) else [f"{gpu['name']} {gpu['compute_capability']}" for gpu in found]
    return {"machine": platform.machine(), "model": _model(), "cores": os.cpu_count(), "gpus": gpus}


def software() -> dict[str, str]:
    """Versions of what runs the encoder; what is not installed is left out."""
    from fgsbir_edge.jetson import release  # here, as most starts need neither this nor importlib.metadata, which is slow to load

    found = {package: _version(package) for package in _PACKAGES}
    versions = {package: version for package, version in found.items() if version}
    if number := release():
        versions["l4t"] = number
    return versions


def folder() -> Path:
    """$FGSBIR_CHOICES, or fgsbir-edge/choices in the user's cache folder ($XDG_CACHE_HOME, ~/.cache)."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "fgsbir-edge" / "choices"


def choice_path(bundle: Bundle) -> Path:
    """Where the choice for this bundle on this kind of machine is, or would be."""
    variants = {name: variant.sha256 for name, variant in bundle.variants.items()}
    facts = {"bundle": [bundle.features_digest, variants], **hardware()}
    return folder() / f"{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]}.json"


def store(bundle: Bundle, choice: Choice) -> Path:
    """Keep a choice for the next start; returns its file. Raises OutputError."""
    path, setting = choice_path(bundle), choice.setting
    kept = {
        "format": FORMAT,
        "backend": setting.backend,
        "variant": setting.variant,
        "threads": setting.threads,
        "chosen": choice.chosen,
        "bundle": bundle.name,
        "software": dict(choice.software),
        "measured": dict(choice.measured),
    }
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path.parent}: cannot be made ({error.strerror}); choose a folder with {VARIABLE}") from error
    write_atomic(path, (json.dumps(kept, indent=2) + "\n").encode())
    return path


def stored(bundle: Bundle) -> Choice | None:
    """The choice that was kept; None where there is none, or with a warning where its file is damaged."""
    if not folder().is_dir():
        return None
    path = choice_path(bundle)
    try:
        kept = json.loads(read_bounded(path, _MAX_BYTES))
        if kept["format"] != FORMAT:
            raise ValueError(f"format {kept['format']!r}")
        threads = None if kept["threads"] is None else max(1, int(kept["threads"]))
        setting = Setting(str(kept["backend"]), str(kept["variant"]), threads)
        return Choice(setting, str(kept["chosen"]), dict(kept["software"]), dict(kept["measured"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, FgsbirError) as error:
        _log.warning("%s is not a choice of this release (%s): left aside; run 'fgsbir-edge bench' again", path, error)
        return None


def open_chosen(bundle: Bundle, threads: int | None = None, *, say: Say | None = None, deferred: bool = False) -> Encoder:
    """The encoder on the backend that was measured to be the fastest here; onnx-cpu where nothing was, or it fails to open.

    What is used, and why something else is not, goes to the log. ``deferred`` as in ``open_encoder``. Raises what opening
    onnx-cpu raises.
    """
    plain = Setting(CPU, threads=threads)
    choice = stored(bundle)
    if choice is None:
        return open_encoder(bundle, plain, deferred=deferred)
    chosen = choice.setting
    setting = Setting(chosen.backend, chosen.variant, chosen.threads if threads is None else threads)
    try:
        encoder = open_encoder(bundle, setting, say=say, deferred=deferred)
    except FgsbirError as error:
        told = "%s was chosen by 'fgsbir-edge bench' and cannot be used now (%s): using %s; run it again"
        _log.warning(told, setting.name, error, plain.name)
        return open_encoder(bundle, plain, deferred=deferred)
    now = software()
    changed = [name for name in sorted({*now, *choice.software}) if now.get(name) != choice.software.get(name)]
    if changed:
        _log.warning("%s was chosen with another %s: run 'fgsbir-edge bench' again", setting.name, ", ".join(changed))
    _log.info("encoder: %s, chosen by 'fgsbir-edge bench' on %s", setting.name, choice.chosen)
    return encoder


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _model() -> str:
    """The board's name on a Jetson, the processor's elsewhere; "" where the system does not say."""
    if board := _text(_BOARD).strip("\0 \n"):
        return board
    names = [line.partition(":")[2].strip() for line in _text(_PROCESSOR).splitlines() if line.startswith("model name")]
    return names[0] if names else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
