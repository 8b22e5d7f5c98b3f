"""Engines built on this machine, kept for the next start: built when one is missing, never taken from anywhere else.

To deserialise an engine is to run code from it, so nothing is used but what this user built here: the folder is private (mode
0700, checked each time), each file's header names the very model, GPU, driver, TensorRT and options that it was built for, and
its content's hash must fit. What does not fit is built again, with a message.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgsbir_edge.console import say as say_line
from fgsbir_edge.encoder.engine_file import EngineFileError, pack, unpack
from fgsbir_edge.encoder.engine_folder import EngineFolder
from fgsbir_edge.encoder.trt_api import Say, load
from fgsbir_edge.encoder.trt_build import BuildOptions, build_plan
from fgsbir_edge.encoder.trt_device import Gpu, current_gpu

if TYPE_CHECKING:
    from fgsbir_edge.bundle import Bundle

FORMAT = 1
_NAME = 100  # characters of a bundle's name that are kept


@dataclass(frozen=True)
class Request:
    """Which engine is wanted: a model's bytes, and all that an engine of it depends on.

    Args:
        onnx: the ONNX file.
        facts: plain JSON values; their hash is the engine's key.
        options: how to build it.
        name: of the model, for messages.
    """

    onnx: bytes = field(repr=False)
    facts: Mapping[str, Any]
    options: BuildOptions
    name: str

    @property
    def key(self) -> str:
        """SHA-256 over the facts, in hex."""
        return _digest(self.facts)

    @property
    def timing_key(self) -> str:
        """The same over what the timings of a GPU depend on: not the model, not the profile."""
        return _digest({"timing": True, **{name: v for name, v in self.facts.items() if name.startswith(("gpu_", "tensorrt"))}})


def request(bundle: Bundle, variant: str, options: BuildOptions, gpu: Gpu | None = None) -> Request:
    """The engine of a bundle's variant for a GPU (None: the one at hand).

    Raises:
        BundleMissingFileError, BundleHashError: no such variant, or its file is damaged.
        DeviceError: no GPU.
        TensorrtMissingError: no TensorRT.
    """
    onnx = bundle.encoder_bytes(variant)
    library = load(options.library)
    if gpu is None:  # with targets the builder does not look at the GPU at hand
        gpu = Gpu("any", ", ".join(options.targets)) if options.targets else current_gpu()
    shape = [3, bundle.input.size, bundle.input.size]
    facts = {
        "format": FORMAT,
        "onnx_sha256": hashlib.sha256(onnx).hexdigest(),
        "variant": variant,
        "shape": shape,
        "tensorrt": library.version,
        **gpu.facts(),
        **options.facts(),
    }
    return Request(onnx, facts, options, f"{bundle.name[:_NAME]} {variant}")


def cached_engine(
    bundle: Bundle,
    variant: str = "fp32",
    options: BuildOptions | None = None,
    gpu: Gpu | None = None,
    say: Say = say_line,
    folder: EngineFolder | None = None,
) -> Path:
    """The file of an engine, built first if there is none that fits. Use ``load_engine`` for its bytes: the file has a header.

    Args:
        options: None takes the engine of this model and device that was built last, however it was built, so that what
            ``fgsbir-edge engine build --memory 512`` made is what runs; where there is none, the defaults.

    Raises:
        EngineCacheError: the folder is not private to this user, or cannot be written.
        EngineBuildError: TensorRT does not build it.
        What ``request`` raises.
    """
    folder = folder or EngineFolder.default()
    wanted = _chosen(bundle, variant, options, gpu, folder)
    _engine(wanted, folder, say)
    return folder.engine(wanted.key)


def load_engine(
    bundle: Bundle,
    variant: str = "fp32",
    options: BuildOptions | None = None,
    gpu: Gpu | None = None,
    say: Say = say_line,
    folder: EngineFolder | None = None,
) -> bytes:
    """The serialised engine itself, for ``Runtime.deserialize_cuda_engine``: header and hash are checked.

    Takes and raises what ``cached_engine`` does.
    """
    folder = folder or EngineFolder.default()
    return _engine(_chosen(bundle, variant, options, gpu, folder), folder, say)


def _chosen(bundle: Bundle, variant: str, options: BuildOptions | None, gpu: Gpu | None, folder: EngineFolder) -> Request:
    """The engine with these options; without, the one built last among those that fit this model and device."""
    folder.check()
    wanted = request(bundle, variant, options or BuildOptions(), gpu)
    if options is not None:
        return wanted
    fixed = {name: value for name, value in wanted.facts.items() if name == "library" or name not in wanted.options.facts()}
    for entry in sorted(folder.entries(), key=lambda entry: -float(entry.facts.get("built", 0))):
        built = entry.facts.get("for", {})
        if not entry.problem and fixed.items() <= built.items():
            return replace(wanted, facts=built, options=BuildOptions.from_facts(built))
    return wanted


def _engine(wanted: Request, folder: EngineFolder, say: Say) -> bytes:
    engine = _stored(wanted, folder, say)
    if engine is not None:
        return engine
    with folder.building(say):  # one build at a time: another would disturb this one's timings
        engine = _stored(wanted, folder, lambda _: None)  # somebody else may have built it while we waited
        return _build(wanted, folder, say) if engine is None else engine


def _stored(wanted: Request, folder: EngineFolder, say: Say) -> bytes | None:
    """The engine that is kept, if it is whole and the one that is wanted."""
    try:
        return unpack(folder.read(folder.engine(wanted.key)), wanted.key)
    except FileNotFoundError:
        say(f"{wanted.name}: {_why_missing(wanted, folder)}; building it now")
    except (OSError, EngineFileError) as error:
        say(f"{wanted.name}: the engine that is kept is not used, {error}; building it again")
    return None


def _why_missing(wanted: Request, folder: EngineFolder) -> str:
    """In what the engine wanted differs from the newest one of the same variant."""
    for entry in sorted(folder.entries(), key=lambda entry: -entry.used):
        if entry.facts.get("name") == wanted.name and not entry.problem:
            built = entry.facts.get("for", {})
            changed = [name for name, value in wanted.facts.items() if built.get(name) != value]
            return "the engine built earlier was for another " + ", ".join(name.replace("_", " ") for name in changed)
    return "no engine has been built yet"


def _build(wanted: Request, folder: EngineFolder, say: Say) -> bytes:
    start = time.monotonic()
    try:
        timing = unpack(folder.read(folder.timing(wanted.timing_key)), wanted.timing_key)
    except (OSError, EngineFileError):
        timing = b""
    engine, timing = build_plan(wanted.onnx, wanted.options, say, timing)
    seconds = time.monotonic() - start
    facts = {"name": wanted.name, "seconds": round(seconds, 1), "built": round(time.time(), 3), "for": dict(wanted.facts)}
    folder.write(folder.engine(wanted.key), pack(wanted.key, engine, facts))
    if timing:
        folder.write(folder.timing(wanted.timing_key), pack(wanted.timing_key, timing, {"name": "timings"}))
    folder.prune(keep=wanted.key)
    say(f"{wanted.name}: built in {seconds:.1f} s, {len(engine) / 2**20:.1f} MiB")
    return engine


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()
