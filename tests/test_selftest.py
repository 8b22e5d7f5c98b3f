"""`fgsbir-edge doctor --selftest` over stand-ins: everything passes when all is well, and each fault is found and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgsbir_edge import cli, selftest_kernels
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder import backends
from fgsbir_edge.errors import DeviceError
from fgsbir_edge.selftest import Check, CheckError, Outcome, SkipError, run_check, selftest
from tests import fake_gpu_libraries, fake_tensorrt
from tests.fake_cuda import FakeCore, at
from tests.toy import FEATURES, SIZE, toy_encoder


@pytest.fixture
def tensorrt(core: FakeCore, monkeypatch: pytest.MonkeyPatch) -> FakeCore:
    fake_tensorrt.install(monkeypatch, core)
    monkeypatch.setattr("fgsbir_edge.encoder.trt_api.load", lambda *_: None)  # what `missing` asks
    monkeypatch.setattr("fgsbir_edge.inner.native", lambda: core)
    monkeypatch.setattr(selftest_kernels, "adaptation", lambda: "left out: the stand-in has no such kernel")
    engine(monkeypatch, toy_encoder())
    return core


def engine(monkeypatch: pytest.MonkeyPatch, graph: bytes) -> None:
    """What the engine cache gives out."""
    plan = fake_tensorrt.engine_bytes(graph, SIZE, FEATURES, [(1, 1), (1, 64)])
    monkeypatch.setattr("fgsbir_edge.encoder.engine_cache.load_engine", lambda *_, **__: plan)


@pytest.fixture
def libraries(tensorrt: FakeCore, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu_libraries.install_cupy(monkeypatch, tensorrt)
    fake_gpu_libraries.install_pycuda(monkeypatch, tensorrt)


Run = Callable[[], dict[str, Outcome]]


@pytest.fixture
def run(bundle: Bundle) -> Run:
    return lambda: {one.name: one for one in selftest(bundle, lambda _: None)}


@pytest.mark.usefixtures("libraries")
def test_all_is_well(run: Run, tensorrt: FakeCore) -> None:
    outcomes = run()
    passed = {name for name, one in outcomes.items() if one.status == "passed"}
    assert {
        "driver, GPU and device code",
        "rasteriser on the GPU, bresenham",
        "rasteriser on the GPU, antialias",
        "rasteriser on the GPU, antialias, normalised half precision",
        "replayed CUDA graph of the rasteriser",
        "memory without copies, core",
        "memory without copies, cupy",
        "memory without copies, pycuda",
        "onnx-cpu fp32: features of the shipped drawings and photos",
        "tensorrt fp32: features of the shipped drawings and photos",
        "tensorrt fp32: strokes to features on the GPU",
        "tensorrt fp32: replayed CUDA graph",
        "tensorrt fp32: CuPy arrays in and out",
        "engine cache",
    } <= passed
    assert not [str(one) for one in outcomes.values() if one.status == "failed"]
    assert "no Jetson" in outcomes["tools of a Jetson"].note
    assert "onnxruntime-gpu" in outcomes["onnx-cuda fp32: features of the shipped drawings and photos"].note


def test_an_engine_of_another_network_fails(run: Run, tensorrt: FakeCore, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(monkeypatch, toy_encoder(seed=1))
    outcomes = run()
    for name in ("features of the shipped drawings and photos", "strokes to features on the GPU"):
        assert outcomes[f"tensorrt fp32: {name}"].status == "failed"
        assert "features are not those of onnx-cpu fp32: smallest cosine" in outcomes[f"tensorrt fp32: {name}"].note


def test_a_rasteriser_that_draws_other_pixels_fails(run: Run, tensorrt: FakeCore, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = tensorrt.rasterize_cuda

    def wrong(arrays: Any, out: int, *rest: Any) -> None:
        draw(arrays, out, *rest)
        tensorrt.put(rest[3][1], "spoil", lambda: at(out, (1,), np.uint8).__setitem__(0, 99))

    monkeypatch.setattr(tensorrt, "rasterize_cuda", wrong)
    outcomes = run()
    assert "pixels differ" in outcomes["rasteriser on the GPU, bresenham"].note
    assert "other pixels" in outcomes["memory without copies, core"].note
    assert outcomes["replayed CUDA graph of the rasteriser"].status == "passed"  # the same wrong ones


def test_streams_that_are_not_recorded_fail(run: Run, tensorrt: FakeCore) -> None:
    tensorrt._recordable = False
    outcomes = run()
    assert outcomes["replayed CUDA graph of the rasteriser"].status == "failed"
    assert "not recorded: operation not permitted" in outcomes["tensorrt fp32: replayed CUDA graph"].note
    assert outcomes["tensorrt fp32: strokes to features on the GPU"].status == "passed"


def test_a_backend_that_does_not_open_is_tried_once(run: Run, tensorrt: FakeCore, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def refuse(*_: Any) -> None:
        tried.append("tensorrt")
        raise DeviceError("the engine is not to be had")

    monkeypatch.setattr(backends, "_tensorrt", refuse)
    outcomes = [one for name, one in run().items() if name.startswith("tensorrt")]
    assert [one.status for one in outcomes] == ["failed", "skipped", "skipped", "skipped"]
    assert tried == ["tensorrt"]


def test_a_check_keeps_what_it_raises_to_itself() -> None:
    def raising(error: Exception) -> Callable[[], str]:
        def check() -> str:
            raise error

        return check

    assert run_check(Check("a", lambda: "seen")).status == "passed"
    assert run_check(Check("a", raising(SkipError("no GPU")))).status == "skipped"
    assert run_check(Check("a", raising(CheckError("by 3")))).status == "failed"
    assert run_check(Check("a", raising(ZeroDivisionError("by zero")))).note == "ZeroDivisionError: by zero"


def test_the_command(bundle_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["doctor", "--selftest", "--bundle", str(bundle_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["failed"] == 0
    assert facts["passed"] >= 1
    assert len(facts["checks"]) == facts["passed"] + facts["failed"] + facts["skipped"]
    assert all(check["note"] for check in facts["checks"])
    monkeypatch.setattr("fgsbir_edge.selftest_encoders.EXACT", 1.1)
    assert cli.main(["doctor", "--selftest", "--bundle", str(bundle_path)]) == 1
    out = capsys.readouterr().out
    assert "failed   onnx-cpu fp32: features" in out
    assert "passed, 1 failed" in out
