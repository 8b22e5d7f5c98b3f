"""What `fgsbir-edge doctor` says of backends, GPU libraries, the choice and a Jetson."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from attacks.gallery_ops import DIGEST, FEATURES
from fgsbir_edge import doctor
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.cli import main
from fgsbir_edge.encoder.backends import Setting
from fgsbir_edge.encoder.choose import Choice, store
from fgsbir_edge.errors import TensorrtMissingError
from fgsbir_edge.gallery.store import Store


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions of packages, in the place of what is installed here."""
    versions = dict.fromkeys(doctor.REQUIRED, "1.0")
    monkeypatch.setattr(doctor, "_version", versions.get)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: "somewhere" if name == "onnxruntime" else None)
    return versions


def report() -> str:
    return doctor.report(doctor.examine())


def test_what_is_missing_is_named_with_its_remedy(installed: dict[str, str]) -> None:
    text = report()
    assert "backend       onnx-cpu: can be tried\n" in text
    assert "tensorrt      not installed (fastest on a Jetson; JetPack has it (apt install python3-libnvinfer)" in text
    assert "pip install cupy-cuda12x on JetPack 6" in text
    assert "in use        onnx-cpu fp32; fgsbir-edge bench finds" in text
    installed.update({"cupy-cuda13x": "14.2.0", "tensorrt": "10.3.0"})
    text = report()
    assert "cupy          14.2.0\n" in text
    assert "tensorrt      10.3.0\n" in text


@pytest.mark.usefixtures("core")
def test_backends_that_could_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise TensorrtMissingError("tensorrt is 8.5, 10.3 or newer is needed")

    monkeypatch.setattr("fgsbir_edge.encoder.trt_api.load", refuse)
    assert doctor.examine()["backends"]["tensorrt"] == "tensorrt is 8.5, 10.3 or newer is needed"
    monkeypatch.setattr("fgsbir_edge.encoder.trt_api.load", lambda: None)
    assert "backend       tensorrt: can be tried\n" in report()


def test_onnx_runtime_for_gpus_is_one_too(installed: dict[str, str]) -> None:
    del installed["onnxruntime"]
    assert not doctor.examine()["healthy"]
    installed["onnxruntime-gpu"] = "1.23.2"
    assert doctor.examine()["healthy"]
    assert "both installed" not in report()
    installed["onnxruntime"] = "1.23.2"
    assert "onnxruntime and onnxruntime-gpu are both installed: pip uninstall one of them" in report()


def test_what_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGSBIR_CHOICES", str(tmp_path))
    store(Bundle.default(), Choice(Setting("tensorrt", "fp16"), "2026-01-02"))
    assert "in use        tensorrt fp16, chosen by fgsbir-edge bench on 2026-01-02\n" in report()


def test_a_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"model": "Orin Nano", "l4t": "36.4.7", "power_mode": "15W", "clocks_mhz": {}, "clocks_pinned": False}
    monkeypatch.setattr("fgsbir_edge.jetson.state", lambda: state)
    assert "Jetson        Orin Nano, L4T 36.4.7, power mode 15W\n" in report()


def test_a_gallerys_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "g.gallery"
    Store.create(str(path), DIGEST, FEATURES).close()
    assert main(["doctor", "--gallery", str(path)]) == 0
    assert f"gallery       {path}: 0 photos, 0 people, no fault found\n" in capsys.readouterr().out
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO blocks (count, crc, data) VALUES (1, 2, x'00')")
        connection.commit()
    assert main(["doctor", "--gallery", str(path)]) == 1
    out = capsys.readouterr().out
    assert f"gallery       ERROR: block 1 has 1 bytes, expected {2 * FEATURES}\n" in out
    assert f"fgsbir-edge gallery repair {path} NEW" in out
    assert main(["doctor", "--json", "--gallery", str(tmp_path / "nothing")]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["healthy"]
    assert "no such gallery" in found["gallery"]["faults"][0]


def test_search_backends_say_what_they_lack(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = report()
    assert "search        native: can be used\n" in text
    assert "search        faiss: not installed (8-bit indexes); pip install 'fgsbir-edge[search]'\n" in text
    assert "search        cupy: CuPy is not installed, see below\n" in text
    installed["cupy-cuda12x"] = "14.2.0"
    monkeypatch.setattr(doctor, "_gpu", lambda: "no driver")
    assert doctor.examine()["search"]["cupy"] == "no driver"
    monkeypatch.setattr(doctor, "_gpu", list)
    assert doctor.examine()["search"]["cupy"] == ""
    monkeypatch.delattr("fgsbir_edge._native.top_products")
    assert "pip install . again" in doctor.examine()["search"]["native"]
