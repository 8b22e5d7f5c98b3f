"""The builder's way through TensorRT, on a stand-in that has exactly one release's interface: every release, every failure."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fgsbir_edge.encoder import trt_api, trt_build, trt_progress
from fgsbir_edge.encoder.trt_build import BuildOptions, build_engine, build_plan, check_onnx
from fgsbir_edge.errors import EngineBuildError, TensorrtMissingError
from tests.fake_tensorrt_builder import SURFACE, installed
from tests.toy import toy_encoder

pytest.importorskip("onnx", reason="onnx is not installed: the stand-in reads models with it")


@pytest.fixture
def trt(request: pytest.FixtureRequest) -> Iterator[Any]:
    """TensorRT's stand-in, 10.3 unless a test says otherwise."""
    with installed(getattr(request, "param", "10.3.0")) as module:
        yield module


def silent(_: str) -> None:
    """Says nothing."""


def model_of(nodes: list[tuple[str, str]], shape: list[Any]) -> bytes:
    """An ONNX file with a chain of one-input nodes (operator, name)."""
    from onnx import TensorProto, helper

    wires = ["image", *(f"t{index}" for index in range(len(nodes)))]
    made = [helper.make_node(op, [wires[i]], [wires[i + 1]], name=name) for i, (op, name) in enumerate(nodes)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in (wires[0], wires[-1])]
    graph = helper.make_graph(made, "g", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@pytest.mark.parametrize("trt", SURFACE, indirect=True)
@pytest.mark.parametrize(
    "options", [BuildOptions(), BuildOptions(((2, 4, 4),), 2**30, 5, True, True, verbosity=3)], ids=["plain", "all"]
)
def test_every_release_builds(trt: Any, options: BuildOptions, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(toy_encoder())
    lines: list[str] = []
    plan = json.loads(build_engine(tmp_path / "m.onnx", options, lines.append))
    config = trt._settings.config
    assert plan["shapes"] == [{"image": [[size, 3, 32, 32] for size in batches]} for batches in options.profiles]
    assert config.builder_optimization_level == options.level
    assert (trt.BuilderFlag.TF32 in config._flags) == options.tf32
    wanted = trt.ProfilingVerbosity.DETAILED if options.details else trt.ProfilingVerbosity.LAYER_NAMES_ONLY
    assert config.profiling_verbosity == wanted
    assert config._limits == ({} if options.memory is None else {trt.MemoryPoolType.WORKSPACE: options.memory})
    assert config._cache is None
    heard = ["tensorrt: optimising", "tensorrt: a warning in two lines"]
    assert lines == (heard if options.verbosity == 3 else [])


@pytest.mark.parametrize("trt", SURFACE, indirect=True)
def test_check_reports_every_node(trt: Any) -> None:
    data = model_of([("Relu", "fine"), ("Det", "first"), ("Relu", ""), ("Foo", "second")], ["b", 3])
    troubles = check_onnx(data, BuildOptions())
    assert [(one.node, one.operator) for one in troubles] == [("first", "Det"), ("second", "Foo")]
    assert str(troubles[1]) == "Foo 'second': INVALID_NODE: TensorRT has no such operator (no importer)"
    with pytest.raises(EngineBuildError, match=r"Det 'first'.*Foo 'second'.*dry-run"):
        build_plan(data, BuildOptions(), silent)
    assert trt._settings.builds == 0
    assert check_onnx(toy_encoder(), BuildOptions()) == []


def test_truncated_onnx(trt: Any) -> None:
    data = toy_encoder()[:500]
    (trouble,) = check_onnx(data, BuildOptions())
    assert "MODEL_DESERIALIZE_FAILED" in str(trouble)
    with pytest.raises(EngineBuildError, match=r"Failed to parse.*export the bundle again"):
        build_plan(data, BuildOptions(), silent)


def test_empty_onnx(trt: Any) -> None:
    assert str(check_onnx(b"", BuildOptions())[0]) == "the model has no inputs"
    with pytest.raises(EngineBuildError, match="no inputs"):
        build_plan(b"", BuildOptions(), silent)


def test_missing_file(trt: Any, tmp_path: Path) -> None:
    with pytest.raises(EngineBuildError, match=r"none\.onnx: cannot read"):
        build_engine(tmp_path / "none.onnx", BuildOptions(), silent)


@pytest.mark.parametrize(("shape", "said"), [([4, 3], r"\[4, 3\]"), (["b", "w"], r"\['\?', '\?'\]")])
def test_only_the_batch_may_vary(trt: Any, shape: list[Any], said: str) -> None:
    with pytest.raises(EngineBuildError, match=f"input 'image' is {said}, expected a free batch"):
        build_plan(model_of([("Relu", "")], shape), BuildOptions(), silent)


def test_refused_profile(trt: Any) -> None:
    trt._settings.refuse_profile = True
    with pytest.raises(EngineBuildError, match=r"refuses batches \(1, 1, 1\): it gave no reason"):
        build_plan(toy_encoder(), BuildOptions(), silent)


def test_memory_limit_that_is_too_small(trt: Any) -> None:
    with pytest.raises(
        EngineBuildError, match=r"OutOfMemory.*memory ran out under a limit of 0.000977 MiB: allow more \(--memory\)"
    ):
        build_plan(toy_encoder(), BuildOptions(memory=1024), silent)


def test_failure_for_another_reason(trt: Any) -> None:
    trt._settings.fail = True
    with pytest.raises(EngineBuildError, match=r"built no engine: Error Code 10: no implementation; look at its log"):
        build_plan(toy_encoder(), BuildOptions(), silent)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"profiles": ((1, 1, 1), (8, 1, 64))}, "smallest <= best <= largest"),
        ({"profiles": ((0, 1, 2),)}, "smallest <= best <= largest"),
        ({"profiles": ()}, "smallest <= best <= largest"),
        ({"memory": 0}, "memory limit is 0"),
        ({"level": 6}, "level is 6"),
        ({"library": "os"}, "library is 'os'"),
        ({"targets": ("8.7",)}, "only TensorRT-RTX"),
    ],
)
def test_options_that_make_no_sense(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(EngineBuildError, match=said):
        BuildOptions(**fields)


def test_timing_cache_is_used_and_returned(trt: Any) -> None:
    assert build_plan(toy_encoder(), BuildOptions(), silent)[1] == b""
    assert build_plan(toy_encoder(), BuildOptions(), silent, b"")[1] == b"timings"
    assert build_plan(toy_encoder(), BuildOptions(), silent, b"known")[1] == b"known"


@pytest.mark.parametrize("old", [b"broken", b"of another GPU"])
def test_timing_cache_that_does_not_fit(trt: Any, old: bytes) -> None:
    lines: list[str] = []
    assert build_plan(toy_encoder(), BuildOptions(), lines.append, old)[1] == b"timings"
    assert lines == ["timings of earlier builds do not fit this GPU and TensorRT: measuring anew"]


def test_heartbeat_says_what_is_tried(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_progress, "HEARTBEAT_SECONDS", 0.02)
    trt._settings.seconds = 1.0
    lines: list[str] = []
    build_plan(toy_encoder(), BuildOptions(), lines.append)
    assert lines
    assert all(line.startswith("still building after ") for line in lines)
    assert any(line.endswith(": Building engine 1/5 > Timing tactics 0/2") for line in lines)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as a terminal has it: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupt_stops_the_build() -> None:
    started = threading.Event()

    def interrupt_once(line: str) -> None:
        lines.append(line)
        if not started.is_set():
            started.set()
            signal.raise_signal(signal.SIGINT)

    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        trt_progress.with_heartbeat(
            lambda: started.wait(60) and None, progress := trt_progress.Progress(), interrupt_once, seconds=0.01
        )
    assert progress.cancelled
    assert lines[-1].startswith("stopping after this step")


def test_cancelled_build_ends_at_the_next_step(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[trt_progress.Progress] = []

    class Cancelled(trt_progress.Progress):
        def __init__(self) -> None:
            super().__init__()
            self.cancelled = True
            made.append(self)

    monkeypatch.setattr(trt_build, "Progress", Cancelled)
    with pytest.raises(EngineBuildError, match="cancelled"):
        build_plan(toy_encoder(), BuildOptions(), silent)
    assert str(made[0]) == "Building engine 1/5 > Timing tactics 0/2"


def test_exceptions_of_the_build_reach_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        trt_progress.with_heartbeat(lambda: 1 // 0, trt_progress.Progress(), silent)


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    trt_api.load.cache_clear()
    with pytest.raises(TensorrtMissingError, match=r"cannot be imported.*JetPack"):
        check_onnx(b"", BuildOptions())


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1", "10.2", ""])
def test_too_old(trt: Any, version: str) -> None:
    trt.__version__ = version
    trt_api.load.cache_clear()
    with pytest.raises(TensorrtMissingError, match=r"10\.3 or newer is needed"):
        trt_api.load()


def test_log_goes_to_those_who_listen(trt: Any) -> None:
    library, severity = trt_api.load(), trt.ILogger.Severity
    warnings: list[str] = []
    with library.messages() as outer, library.messages(warnings.append, 1) as inner:
        library.logger.log(severity.ERROR, "an\nerror")
        library.logger.log(severity.WARNING, "a warning")
        library.logger.log(severity.VERBOSE, "chatter")
    library.logger.log(severity.ERROR, "nobody hears")
    assert outer.errors == inner.errors == ["an error"]
    assert warnings == ["tensorrt: a warning"]
