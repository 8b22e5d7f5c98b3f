"""`fgsbir-edge bench`: what is measured, what is left out, what is chosen and kept. Nothing here looks at a time's size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fgsbir_edge import bench, cli, jetson_watch
from fgsbir_edge.bench import Plan, Times, bench_encoders, measure
from fgsbir_edge.bench_inputs import Demo, cosine, scribbles
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.backends import Setting
from fgsbir_edge.encoder.choose import VARIABLE, stored
from tests import fake_tensorrt
from tests.fake_cuda import FakeCore
from tests.toy import FEATURES, SIZE, toy_encoder

PLAN = Plan(runs=4, warmup=1, threads=1)
GOLDEN = Path(__file__).parent / "golden" / "jetson"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "choices"))
    return tmp_path / "choices"


@pytest.fixture
def tensorrt(core: FakeCore, monkeypatch: pytest.MonkeyPatch) -> FakeCore:
    fake_tensorrt.install(monkeypatch, core)
    engine(monkeypatch, toy_encoder())
    return core


def engine(monkeypatch: pytest.MonkeyPatch, graph: bytes) -> None:
    """What the engine cache gives out."""
    plan = fake_tensorrt.engine_bytes(graph, SIZE, FEATURES, [(1, 64)])
    monkeypatch.setattr("fgsbir_edge.encoder.engine_cache.load_engine", lambda *_, **__: plan)


def test_runs_are_counted_and_warm_up_is_not() -> None:
    seen: list[int] = []
    times = measure(seen.append, Plan(runs=5, warmup=2))
    assert seen == [0, 1, 0, 1, 2, 3, 4]
    assert times.runs == 5
    assert 0 < times.p50 <= times.p90 <= times.p99


def test_stages_of_the_processor(bundle: Bundle) -> None:
    report = bench_encoders(bundle, [Setting(threads=1)], PLAN, lambda _: None)
    (one,) = report.measured
    assert list(one.stages) == ["raster", "encode", "query"]
    assert one.agreement == pytest.approx(1, abs=1e-6)
    assert not one.replayed
    assert report.fastest is one
    assert report.left_out == {}


def test_stages_on_a_gpu(bundle: Bundle, tensorrt: FakeCore) -> None:
    said: list[str] = []
    report = bench_encoders(bundle, [Setting("tensorrt"), Setting("onnx-cuda")], PLAN, said.append)
    assert [one.setting.name for one in report.measured] == ["tensorrt fp32"]
    assert report.measured[0].replayed
    assert report.measured[0].agreement == pytest.approx(1, abs=1e-6)
    assert "has no CUDAExecutionProvider" in report.left_out["onnx-cuda fp32"]
    assert said == ["tensorrt fp32 ...", "onnx-cuda fp32 ..."]
    assert tensorrt.launches == PLAN.runs  # the warm-up run was recorded


@pytest.mark.usefixtures("tensorrt")
def test_the_fastest_that_disagrees_is_not_chosen(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(monkeypatch, toy_encoder(seed=1))  # fast, and another network
    times = iter([Times(9, 9, 9, 4)] * 3 + [Times(1, 1, 1, 4)] * 3)
    monkeypatch.setattr(bench, "measure", lambda *_: next(times))
    report = bench_encoders(bundle, [Setting(threads=1), Setting("tensorrt")], PLAN, lambda _: None)
    assert report.measured[1].agreement < 0.9
    assert report.fastest is report.measured[0]
    monkeypatch.setattr(bench, "measure", lambda *_: Times(1, 1, 1, 4))
    assert bench_encoders(bundle, [Setting("tensorrt")], PLAN, lambda _: None).fastest is None


@pytest.mark.usefixtures("tensorrt")
def test_the_command_keeps_its_choice(
    bundle: Bundle, bundle_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "--bundle", str(bundle_path), "--runs", "3", "--threads", "1", "--backends", "onnx-cpu,tensorrt"]
    assert cli.main([*words, "--json", "--no-store"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {one["backend"] for one in facts["encoders"]} == {"onnx-cpu", "tensorrt"}
    assert set(facts["rest_millis"]) == {"head", "search", "adapt"}
    assert set(facts["encoders"][0]["millis"]["query"]) == {"p50", "p90", "p99", "runs"}
    assert facts["photos"] == 32
    assert facts["stored"] is None
    assert not folder.exists()
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    choice = stored(bundle)
    assert choice is not None
    assert f"fastest: {choice.setting.name}, used from now on" in out
    assert choice.measured["fastest"] == choice.setting.name
    assert "replayed CUDA graph" in out


def test_figures_outlive_a_choice_that_cannot_be_kept(
    bundle_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write_text("a file")
    words = ["bench", "--bundle", str(bundle_path), "--runs", "2", "--threads", "1", "--backends", "onnx-cpu", "--json"]
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["stored"] is None
    assert "the choice is not kept" in err


def test_names_that_there_are_not(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--bundle", str(bundle_path), "--variants", "fp4"]) == 19
    assert "no variant 'fp4'" in capsys.readouterr().err
    assert cli.main(["bench", "--bundle", str(bundle_path), "--backends", "fast"]) == 21


def test_a_jetson_is_watched_and_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = tmp_path / "tegrastats"
    tool.write_text(f"#!/bin/sh\ncat {GOLDEN / 'tegrastats_jetpack6.txt'}\nexec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setattr(jetson_watch.shutil, "which", lambda _: str(tool))
    state = {
        "model": "Orin Nano",
        "l4t": "36.4.7",
        "power_mode": "15W",
        "clocks_pinned": False,
        "clocks_mhz": {"GPU": {"least": 306.0, "largest": 624.75, "current": 306.0}},
    }
    monkeypatch.setattr("fgsbir_edge.jetson.state", lambda: state)
    assert cli.main(["bench", "--bundle", str(bundle_path), "--runs", "2", "--backends", "onnx-cpu", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "L4T 36.4.7, power mode 15W, clocks not pinned: figures vary" in out
    assert "GPU 306 to 624.75 MHz" in out
    assert "while running: lines 2, watts_mean 5.04, gpu_percent_mean 68.0, gpu_mhz [624, 624], celsius_max 47.5" in out


def test_inputs_are_the_same_everywhere(bundle: Bundle) -> None:
    first, again = scribbles(2), scribbles(3)
    assert (first[1].points == again[1].points).all()
    assert first[0].num_strokes == 14
    demo = Demo.load(bundle, 3)
    assert demo.sketches.shape == demo.photos.shape == (3, 3, SIZE, SIZE)
    flat = demo.sketches.reshape(3, -1)
    assert cosine(flat, flat) == pytest.approx(1)
    assert cosine(flat, -flat) == pytest.approx(-1)
