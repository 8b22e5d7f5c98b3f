"""Backends by name, and the choice among them that is kept: what is used, what is said, what happens when it no longer works."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from fgsbir_edge import cli, device, gpu_stream
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder import backends, choose
from fgsbir_edge.encoder.backends import BACKENDS, Setting, open_encoder
from fgsbir_edge.encoder.choose import Choice, choice_path, open_chosen, store, stored
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.encoder.onnx_device import CUDA, TENSORRT, OnnxDeviceEncoder
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import BundleFormatError, DeviceError, FgsbirError, OutputError
from fgsbir_edge.gpu_stream import CoreStream
from fgsbir_edge.preprocess import sketch_pixels
from fgsbir_edge.sketch import Sketch
from tests import fake_tensorrt
from tests.fake_cuda import FakeCore, at
from tests.toy import FEATURES, SIZE, outline, toy_encoder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(choose.VARIABLE, str(tmp_path / "choices"))
    return tmp_path / "choices"


def chosen(backend: str = "onnx-cpu", **changes: Any) -> Choice:
    return Choice(Setting(backend, **changes), "2026-01-02", choose.software(), {"p50": 1.5})


def drawings(count: int) -> list[Sketch]:
    return [Sketch.from_strokes([outline(number, 2.0)]) for number in range(count)]


def test_a_choice_is_kept_for_its_bundle(bundle: Bundle, folder: Path) -> None:
    assert stored(bundle) is None
    assert not folder.exists()  # looking leaves nothing behind
    choice = chosen(threads=2)
    assert store(bundle, choice) == choice_path(bundle)
    assert stored(bundle) == choice
    assert stored(replace(bundle, encoder=toy_encoder(seed=1))) is None
    assert [path.suffix for path in folder.iterdir()] == [".json"]


def test_a_choice_is_kept_for_its_machine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    store(bundle, chosen())
    facts = choose.hardware()
    assert facts["machine"]
    monkeypatch.setattr(choose, "hardware", lambda: {**facts, "gpus": ["Orin 8.7"]})
    assert stored(bundle) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("junk", "not a choice"),
        ({"format": 2}, "format 2"),
        ({"backend": "rm -rf"}, "no backend"),
        ({"software": 3}, "not a choice"),
    ],
)
def test_a_damaged_choice_is_left_aside(bundle: Bundle, change: Any, message: str, caplog: pytest.LogCaptureFixture) -> None:
    path = store(bundle, chosen())
    path.write_text("junk" if change == "junk" else json.dumps({**json.loads(path.read_text()), **change}))
    assert stored(bundle) is None
    assert message in caplog.text
    assert isinstance(open_chosen(bundle, 1), OnnxEncoder)


def test_a_folder_that_cannot_be_made_is_named(bundle: Bundle, folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(OutputError, match="choose a folder with FGSBIR_CHOICES"):
        store(bundle, chosen())


def test_the_board_s_name_goes_before_the_processor_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "_BOARD", tmp_path / "model")
    monkeypatch.setattr(choose, "_PROCESSOR", tmp_path / "cpuinfo")
    assert choose.hardware()["model"] == ""
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some Processor\nprocessor\t: 1\n")
    assert choose.hardware()["model"] == "Some Processor"
    (tmp_path / "model").write_text("NVIDIA Jetson Orin Nano Developer Kit\0")
    assert choose.hardware()["model"] == "NVIDIA Jetson Orin Nano Developer Kit"


def test_what_is_used_is_said(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert open_chosen(bundle, 1).name == "onnx-cpu fp32"
    assert caplog.messages == []
    store(bundle, chosen())
    open_chosen(bundle, 1)
    assert caplog.messages == ["encoder: onnx-cpu fp32, chosen by 'fgsbir-edge bench' on 2026-01-02"]
    store(bundle, replace(chosen(), software={"onnxruntime": "0.1"}))
    open_chosen(bundle, 1)
    assert any("chosen with another" in message and "onnxruntime" in message for message in caplog.messages)


def test_a_choice_that_fails_falls_back_with_a_message(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise DeviceError("the driver is gone")

    monkeypatch.setattr(gpu_stream, "open_stream", refuse)
    store(bundle, chosen("tensorrt"))
    with Engine.open(bundle=bundle, threads=1) as engine:
        assert engine.encoder.name == "onnx-cpu fp32"
    assert "tensorrt fp32 was chosen by 'fgsbir-edge bench' and cannot be used now (the driver is gone)" in caplog.text
    store(bundle, chosen(variant="fp16"))  # the toy bundle has no such variant
    assert open_chosen(bundle, 1).name == "onnx-cpu fp32"
    with pytest.raises(DeviceError, match="the driver is gone"):
        Engine.open(bundle=bundle, backend="tensorrt")


def test_commands_say_what_they_use(
    bundle: Bundle, bundle_path: Path, data_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(bundle, chosen())
    sketch = str(data_path / "sketches" / "ann" / "1.png")
    assert cli.main(["query", sketch, "--photos", str(data_path / "photos"), "--bundle", str(bundle_path), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["hits"]
    assert err.count("encoder: onnx-cpu fp32, chosen by 'fgsbir-edge bench' on 2026-01-02") == 1


def test_an_engine_on_tensorrt_searches(bundle: Bundle, core: FakeCore, monkeypatch: pytest.MonkeyPatch, data_path: Path) -> None:
    engines = fake_tensorrt.install(monkeypatch, core)
    plan = fake_tensorrt.engine_bytes(toy_encoder(), SIZE, FEATURES, [(1, 8)])
    monkeypatch.setattr("fgsbir_edge.encoder.engine_cache.load_engine", lambda *_, **__: plan)
    store(bundle, chosen("tensorrt"))
    with Engine.open(bundle=bundle, photos=data_path / "photos", threads=1) as engine:
        assert engine.encoder.name == "tensorrt fp32"
        rows = engine.encode_sketches(drawings(3))
        drawing = data_path / "sketches" / "ann" / "1.png"  # an image: made into pixels by the host
        assert len(engine.search(drawing)) == 10
    wanted = OnnxEncoder(bundle, 1).encode(sketch_pixels(drawings(3), bundle.input))
    np.testing.assert_allclose(rows, wanted, atol=1e-5)
    assert core.counts()["raster"] == 2  # run, and recorded
    assert len(engines) == 1


def test_names_are_checked() -> None:
    with pytest.raises(BundleFormatError, match="choose one of auto, onnx-cpu, onnx-cuda"):
        Setting("cuda")
    with pytest.raises(BundleFormatError, match="choose one of core, cupy, pycuda"):
        Setting("tensorrt", library="torch")  # type: ignore[arg-type]


def test_what_is_missing_is_said_with_a_remedy() -> None:
    assert backends.missing("onnx-cpu") == ""
    if isinstance(device.native().cuda_devices(), str):
        for backend in BACKENDS:
            if backend != "onnx-cpu":
                assert "no GPU can be used" in backends.missing(backend)


class Session:
    """ONNX Runtime's session on a GPU that does not exist: runs on the processor, over addresses."""

    loaded = (CUDA, "CPUExecutionProvider")

    def __init__(self, graph: bytes, options: Any, providers: list[Any]) -> None:
        self.real = onnxruntime_session(graph, options, providers=["CPUExecutionProvider"])
        self.providers = providers
        self.get_inputs, self.get_outputs, self.run = self.real.get_inputs, self.real.get_outputs, self.real.run
        self.bindings = 0

    def get_providers(self) -> list[str]:
        return list(self.loaded)

    def disable_fallback(self) -> None: ...

    def io_binding(self) -> Any:
        self.bindings += 1
        return Binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        (image, features) = binding.given["image"], binding.given["features"]
        (rows,) = self.real.run(["features"], {"image": at(image[5], tuple(image[4]), image[3])})
        at(features[5], tuple(features[4]), features[3])[...] = rows


class Binding:
    def __init__(self) -> None:
        self.given: dict[str, tuple[Any, ...]] = {}

    def bind_input(self, *arguments: Any) -> None:
        self.given[arguments[0]] = arguments

    bind_output = bind_input


onnxruntime_session = onnxruntime.InferenceSession


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)


@pytest.mark.usefixtures("runtime")
def test_onnx_runtime_reads_and_writes_device_memory(bundle: Bundle, core: FakeCore) -> None:
    encoder = open_encoder(bundle, Setting("onnx-cuda"))
    batch = np.random.default_rng(0).normal(size=(40, 3, SIZE, SIZE)).astype(np.float32)
    np.testing.assert_allclose(encoder.encode(batch), OnnxEncoder(bundle, 1).encode(batch), atol=1e-5)
    assert isinstance(encoder, OnnxDeviceEncoder)
    assert not encoder.recordable
    session = encoder._session
    assert session.bindings == 2  # batches of 32 and 8
    (name, options), last = session.providers
    assert (name, last) == (CUDA, "CPUExecutionProvider")
    assert options["user_compute_stream"] == str(encoder.stream.handle)


@pytest.mark.usefixtures("runtime", "core")
def test_a_provider_that_did_not_load_is_not_taken_for_it(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "loaded", ("CPUExecutionProvider",))
    with pytest.raises(DeviceError, match=r"did not load its CUDAExecutionProvider and fell back to CPUExecutionProvider"):
        OnnxDeviceEncoder(bundle, CoreStream(), CUDA)
    monkeypatch.setattr(Session, "loaded", (CUDA, "CPUExecutionProvider"))
    with pytest.raises(DeviceError, match=r"fell back to CUDAExecutionProvider.*wheels for AArch64"):
        OnnxDeviceEncoder(bundle, CoreStream(), TENSORRT)


def test_a_runtime_without_the_provider(bundle: Bundle, core: FakeCore) -> None:
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    with pytest.raises(DeviceError, match=r"has no CUDAExecutionProvider .*onnxruntime-gpu"):
        open_encoder(bundle, Setting("onnx-cuda"))
    with pytest.raises(FgsbirError, match=r"has no TensorrtExecutionProvider"):
        open_encoder(bundle, Setting("onnx-tensorrt"))
