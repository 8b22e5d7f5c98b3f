"""``fgsbir-edge engine`` and ``python -m export.tensorrt``, on the stand-in for TensorRT."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from fgsbir_edge import cli
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.trt_device import Gpu
from fgsbir_edge.errors import EngineBuildError, EngineCacheError, TensorrtMissingError
from tests.fake_tensorrt_builder import installed
from tests.test_tensorrt_build import model_of

pytest.importorskip("onnx", reason="onnx is not installed: the stand-in for TensorRT reads models with it")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """TensorRT 10.3's stand-in beside an Orin."""
    monkeypatch.setattr("fgsbir_edge.encoder.engine_cache.current_gpu", lambda: Gpu("Orin", "8.7"))
    with installed() as module:
        yield module


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """``fgsbir-edge engine`` in this process, with engines in a fresh folder."""
    monkeypatch.setenv("FGSBIR_ENGINES", str(tmp_path / "engines"))

    def command(*words: str | Path) -> tuple[int, str, str]:
        code = cli.main(["engine", *map(str, words)])
        return code, *capsys.readouterr()

    return command


def test_build_list_clear(trt: Any, run: Run, bundle_path: Path, tmp_path: Path) -> None:
    code, out, err = run("build", "--bundle", bundle_path)
    path, size, time = out.rstrip("\n").split("\t")
    assert code == 0
    assert Path(path).parent == tmp_path / "engines"
    assert size == "0.0 MiB"
    assert time.startswith("built in ")
    assert err.startswith("toy fp32: no engine has been built yet")
    assert run("build", "--bundle", bundle_path)[::2] == (0, "")
    facts = json.loads(run("build", "--bundle", bundle_path, "--json")[1])
    assert (facts["engine"], facts["name"], facts["for"]["gpu_name"]) == (path, "toy fp32", "Orin")
    assert trt._settings.builds == 1

    code, out, err = run("list")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    assert out.endswith("\ttoy fp32, batches 1/1/1 and 1/8/64, tensorrt 10.3.0, GPU Orin\n")
    listed = json.loads(run("list", "--json")[1])
    assert listed["folder"] == str(tmp_path / "engines")
    assert [(entry["file"], entry["problem"]) for entry in listed["engines"]] == [(path, "")]

    assert run("clear")[1] == f"{tmp_path / 'engines'}: engines removed: 1\n"
    assert json.loads(run("clear", "--json")[1])["removed"] == 0
    assert run("list")[1] == ""


def test_list_says_what_is_damaged(run: Run, tmp_path: Path) -> None:
    (tmp_path / "engines").mkdir(mode=0o700)
    (tmp_path / "engines" / "x.engine").write_bytes(b"plan")
    assert run("list")[1].endswith("\tit is no engine file of this version\n")


def test_every_option_reaches_the_build(trt: Any, run: Run, bundle_path: Path, tmp_path: Path) -> None:
    words = [
        "--batches",
        "1",
        "2",
        "3",
        "--batches",
        "4",
        "5",
        "6",
        "--memory",
        "256",
        "--level",
        "5",
        "--tf32",
        "--details",
        "-vv",
    ]
    code, out, err = run("build", "--bundle", bundle_path, "--folder", tmp_path / "own", "--json", *words)
    wanted = json.loads(out)["for"]
    assert code == 0
    assert wanted["profiles"] == [[1, 2, 3], [4, 5, 6]]
    assert wanted["memory"] == 256 * 2**20
    assert (wanted["level"], wanted["tf32"], wanted["details"]) == (5, True, True)
    assert "tensorrt: optimising" in err
    assert len(list((tmp_path / "own").glob("*.engine"))) == 1


def test_dry_run(trt: Any, run: Run, bundle_path: Path, tmp_path: Path) -> None:
    code, out, _ = run("build", "--bundle", bundle_path, "--dry-run")
    assert (code, out) == (0, "toy fp32: tensorrt 10.3.0 takes every node\n")
    assert json.loads(run("build", "--bundle", bundle_path, "--dry-run", "--json")[1])["unsupported"] == []
    toy = Bundle.load(bundle_path)
    Bundle("odd", toy.input, model_of([("Relu", ""), ("Foo", "layer7")], ["b", 3]), toy.head).save(tmp_path / "odd")
    code, out, _ = run("build", "--bundle", tmp_path / "odd", "--dry-run")
    assert code == EngineBuildError.exit_code
    assert out == "Foo 'layer7': INVALID_NODE: TensorRT has no such operator (no importer)\n"
    code, out, _ = run("build", "--bundle", tmp_path / "odd", "--dry-run", "--json")
    assert code == EngineBuildError.exit_code
    assert [(row["node"], row["operator"]) for row in json.loads(out)["unsupported"]] == [("layer7", "Foo")]
    assert trt._settings.builds == 0
    assert not (tmp_path / "engines").exists()


def test_errors_are_one_line_and_a_code(trt: Any, run: Run, bundle_path: Path, tmp_path: Path) -> None:
    code, out, err = run("build", "--bundle", bundle_path, "--batches", "3", "2", "1")
    assert (code, out) == (EngineBuildError.exit_code, "")
    assert err.startswith("error: profiles are ((3, 2, 1),)")
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines").chmod(0o755)
    code, _, err = run("build", "--bundle", bundle_path)
    assert code == EngineCacheError.exit_code
    assert err.count("\n") == 1


def test_without_tensorrt(run: Run, bundle_path: Path) -> None:
    with installed(), mock.patch.dict(sys.modules, {"tensorrt": None}):  # undone before the stand-in goes
        code, _, err = run("build", "--bundle", bundle_path)
    assert code == TensorrtMissingError.exit_code
    assert err.startswith("error: tensorrt cannot be imported")


def test_module_in_a_checkout() -> None:
    command = [sys.executable, "-m", "export.tensorrt", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout.startswith("usage: fgsbir-edge engine build")
    assert done.stderr == ""


def test_snippet_of_the_docs_runs(trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "tensorrt.md").read_text(encoding="utf-8")
    _, snippet, _ = text.replace("```python", "```").split("```")
    monkeypatch.setenv("FGSBIR_ENGINES", str(tmp_path / "engines"))
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert names["engine"]
    assert trt._settings.builds == 1
