"""A stand-in for the module ``tensorrt``: engines that run a bundle's ONNX graph on the CPU, over addresses.

It has what the runtime uses and nothing else, and refuses what TensorRT refuses: batches outside the profile, tensors without an
address, an engine that is not one.
"""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from fgsbir_edge.encoder import tensorrt
from fgsbir_edge.encoder.trt_api import Library
from tests.fake_cuda import FakeCore, at

MAGIC = b"stand-in engine\n"


def engine_bytes(graph: bytes, size: int, features: int, profiles: list[tuple[int, int]], **changes: Any) -> bytes:
    """A "serialised engine"; ``changes``: half (input in float16), names (of the tensors)."""
    facts = {"size": size, "features": features, "profiles": profiles, "half": False, "names": ["image", "features"], **changes}
    return MAGIC + json.dumps(facts).encode() + b"\n" + graph


class Engine:
    def __init__(self, core: FakeCore, data: bytes) -> None:
        head, graph = data[len(MAGIC) :].split(b"\n", 1)
        self.core, self.facts = core, json.loads(head)
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.contexts: list[Context] = []

    @property
    def num_io_tensors(self) -> int:
        return len(self.facts["names"])

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.facts["profiles"])

    def get_tensor_name(self, number: int) -> str:
        return str(self.facts["names"][number])

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "image" else "output"

    def get_tensor_dtype(self, name: str) -> str:
        return "half" if name == "image" and self.facts["half"] else "float"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        size = self.facts["size"]
        return (-1, 3, size, size) if name == "image" else (-1, self.facts["features"])

    def get_tensor_profile_shape(self, name: str, number: int) -> list[tuple[int, ...]]:
        low, high = self.facts["profiles"][number]
        return [(batch, *self.get_tensor_shape(name)[1:]) for batch in (low, high, high)]

    device_memory_size_v2 = 4096

    def create_execution_context(self, strategy: str) -> Context:
        assert strategy == "ours"
        self.contexts.append(Context(self))
        return self.contexts[-1]


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.profile, self.shape = engine, 0, (0,)
        self.addresses: dict[str, int] = {}
        self.scratch = 0

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self.engine.device_memory_size_v2
        self.scratch = address

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        self.engine.core.calls.append(f"profile {number}")
        self.profile = number
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, high = self.engine.facts["profiles"][self.profile]
        self.engine.core.calls.append(f"shape {shape[0]}")
        self.shape = shape
        return bool(low <= shape[0] <= high)

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.facts["names"] if name not in self.addresses]

    def execute_async_v3(self, stream: int) -> bool:
        assert self.shape[0] > 0
        assert self.scratch
        shape, dtype = self.shape, np.float16 if self.engine.facts["half"] else np.float32

        def work() -> None:
            pixels = at(self.addresses["image"], shape, dtype).astype(np.float32)
            (rows,) = self.engine.session.run(["features"], {"image": pixels})
            at(self.addresses["features"], rows.shape, np.float32)[...] = rows

        self.engine.core.put(stream, "execute", work)
        return True


def install(monkeypatch: pytest.MonkeyPatch, core: FakeCore) -> list[Engine]:
    """Let ``import tensorrt`` find the stand-in; returns the list that engines are added to."""
    engines: list[Engine] = []

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
            if not data.startswith(MAGIC):
                self.logger.log(1, "the engine was built by another release")
                return None
            engines.append(Engine(core, data))
            return engines[-1]

    module = ModuleType("tensorrt")
    vars(module).update(
        __version__="10.3.0",
        ILogger=type("ILogger", (), {"Severity": SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)}),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="ours"),
        Runtime=Runtime,
        TensorIOMode=SimpleNamespace(INPUT="input", OUTPUT="output"),
        DataType=SimpleNamespace(FLOAT="float", HALF="half"),
    )
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(tensorrt, "load", lambda name: Library(name, module))
    return engines
