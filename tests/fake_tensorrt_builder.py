"""A stand-in for TensorRT's builder and parser that offers exactly the names, and the enumeration values, of one release.

``fake_tensorrt(version)`` is a module. Whatever that release lacks by its recorded surface (tests/golden/trt_api_surface.json) is
an AttributeError here, to read or to set. It reads real ONNX files with the onnx package, and builds nothing: a plan is JSON.
"""

from __future__ import annotations

import contextlib
import enum
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from fgsbir_edge.encoder import trt_api

SURFACE: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "golden" / "trt_api_surface.json").read_text(encoding="utf-8")
)
UNSUPPORTED = {"Det": "UNSUPPORTED_NODE", "Foo": "INVALID_NODE"}  # operators that the stand-in refuses, and how
STEPS = 5


class Fake:
    """A class with only the members that a release has; ``_`` names are the stand-in's own."""

    _members: frozenset[str] = frozenset()

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name not in object.__getattribute__(self, "_members"):
            raise AttributeError(f"this release's {type(self).__name__} has no {name!r}")
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in self._members:
            raise AttributeError(f"this release's {type(self).__name__} has no {name!r}")
        object.__setattr__(self, name, value)


class ILogger(Fake):
    def __init__(self) -> None:
        self._ready = True


class IProgressMonitor(Fake):
    def __init__(self) -> None:
        self._ready = True


class IHostMemory(bytes):
    """What serialising returns; memoryview works on it."""


class ITensor(Fake):
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape = name, shape


class INetworkDefinition(Fake):
    def __init__(self, strongly_typed: bool) -> None:
        self._strongly_typed, self._inputs, self._weights = strongly_typed, list[ITensor](), 0

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]


class ParserError(Fake):
    def __init__(self, code: Any, name: str, operator: str, text: str) -> None:
        self._values = (code, name, operator, text)

    def code(self) -> Any:
        return self._values[0]

    def node_name(self) -> str:
        return str(self._values[1])

    def node_operator(self) -> str:
        return str(self._values[2])

    def desc(self) -> str:
        return str(self._values[3])


class OnnxParser(Fake):
    def __init__(self, network: INetworkDefinition, logger: Any) -> None:
        assert logger._ready
        self._network, self._errors, self._asked = network, list[ParserError](), False

    def _codes(self) -> Any:
        return object.__getattribute__(self, "_module").ErrorCode

    def _read(self, data: bytes) -> Any:
        import onnx
        from google.protobuf.message import DecodeError

        try:
            model = onnx.load_from_string(data)
        except DecodeError:
            code = self._codes().MODEL_DESERIALIZE_FAILED
            self._errors.append(self._module.ParserError(code, "", "", "Failed to parse the ONNX model."))
            return None
        for node in model.graph.node:
            if node.op_type in UNSUPPORTED:
                code = self._codes()[UNSUPPORTED[node.op_type]]
                self._errors.append(self._module.ParserError(code, node.name, node.op_type, "no importer"))
        return model

    def supports_model_v2(self, data: bytes) -> bool:
        self._asked = True
        return self._read(data) is not None and not self._errors

    def parse(self, data: bytes) -> bool:
        assert not self._asked, "a parser that was asked what it supports cannot be used any further"
        model = self._read(data)
        if model is None or self._errors:
            return False
        for one in model.graph.input:
            shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in one.type.tensor_type.shape.dim)
            self._network._inputs.append(self._module.ITensor(one.name, shape))
        self._network._weights = len(data)
        return True

    def supports_operator(self, name: str) -> bool:
        return name not in UNSUPPORTED

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


class IOptimizationProfile(Fake):
    def __init__(self) -> None:
        self._shapes = dict[str, Any]()

    def set_shape(self, name: str, smallest: Any, best: Any, largest: Any) -> None:
        self._shapes[name] = (smallest, best, largest)


class ITimingCache(Fake):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._data or b"timings")


class IBuilderConfig(Fake):
    def __init__(self) -> None:
        self._limits, self._flags, self._profiles = dict[Any, int](), {self._module.BuilderFlag.TF32}, list[Any]()
        self._cache: ITimingCache | None = None
        self.builder_optimization_level, self.progress_monitor, self.profiling_verbosity = 3, None, None

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self._limits[pool] = size

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if self._module._settings.refuse_profile:
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, data: bytes) -> ITimingCache | None:
        return None if data == b"broken" else self._module.ITimingCache(data)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache._data == b"of another GPU":
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class Builder(Fake):
    def __init__(self, logger: Any) -> None:
        assert logger._ready
        self._logger = logger

    def create_network(self, flags: int) -> INetworkDefinition:
        wanted = 1 << self._module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        assert flags == wanted, f"flags are {flags}, STRONGLY_TYPED is {wanted} in this release"
        return self._module.INetworkDefinition(True)

    def create_builder_config(self) -> IBuilderConfig:
        return self._module.IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return self._module.IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        settings, severity = self._module._settings, self._module.ILogger.Severity
        assert config._profiles
        assert threading.current_thread() is not threading.main_thread(), "the caller could say nothing meanwhile"
        settings.builds += 1
        settings.config = config
        self._logger.log(severity.INFO, "optimising")
        self._logger.log(severity.WARNING, "a warning\nin two lines")
        monitor = config.progress_monitor
        monitor.phase_start("Building engine", None, STEPS)
        monitor.phase_start("Timing tactics", "Building engine", 2)
        for step in range(STEPS):
            time.sleep(settings.seconds / STEPS)
            if not monitor.step_complete("Building engine", step):
                self._logger.log(severity.ERROR, "cancelled")
                return None
        monitor.phase_finish("Timing tactics")
        monitor.phase_finish("Building engine")
        limit = config._limits.get(self._module.MemoryPoolType.WORKSPACE, 2**40)
        if limit < network._weights:
            self._logger.log(severity.ERROR, f"Error Code 2: OutOfMemory (Requested size was {network._weights} bytes.)")
            return None
        if settings.fail:
            self._logger.log(severity.INTERNAL_ERROR, "Error Code 10: no implementation")
            return None
        return IHostMemory(json.dumps({"plan": network._weights, "shapes": [one._shapes for one in config._profiles]}).encode())


CLASSES = (
    ILogger,
    IProgressMonitor,
    ITensor,
    INetworkDefinition,
    ParserError,
    OnnxParser,
    IOptimizationProfile,
    ITimingCache,
    IBuilderConfig,
    Builder,
)


def fake_tensorrt(version: str = "10.3.0", seconds: float = 0.0) -> Any:
    """The stand-in's module for a release.

    Args:
        version: one of SURFACE's.
        seconds: how long a build takes.

    ``_settings`` of the module holds ``builds`` (a count), ``config`` (of the last build), ``seconds``, ``fail`` and
    ``refuse_profile``.
    """
    surface = SURFACE[version]
    settings = SimpleNamespace(builds=0, config=None, seconds=seconds, fail=False, refuse_profile=False)
    module = SimpleNamespace(__version__=version, _settings=settings)
    for name, values in surface["enums"].items():
        setattr(module, name, enum.IntEnum(name, values))
    for kind in CLASSES:
        members = frozenset(surface["classes"][kind.__name__])
        made = type(kind.__name__, (kind,), {"_members": members, "_module": module})
        setattr(module, kind.__name__, made)
    names = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
    module.ILogger.Severity = enum.IntEnum("Severity", [(name, value) for value, name in enumerate(names)])
    return module


@contextlib.contextmanager
def installed(version: str = "10.3.0") -> Iterator[Any]:
    """The stand-in where the code looks for ``tensorrt``; gives its module."""
    module = fake_tensorrt(version)
    with mock.patch.dict(sys.modules, {"tensorrt": module}):
        trt_api.load.cache_clear()
        yield module
    trt_api.load.cache_clear()
