"""Engines really built, by TensorRT-RTX, whose builder needs neither a GPU nor a driver. Nothing is run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder import trt_progress
from fgsbir_edge.encoder.engine_cache import load_engine
from fgsbir_edge.encoder.engine_folder import EngineFolder
from fgsbir_edge.encoder.trt_build import BuildOptions, build_plan, check_onnx
from fgsbir_edge.errors import EngineBuildError
from tests.test_tensorrt_build import model_of, silent
from tests.toy import toy_encoder

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: make tensorrt")

MODELS = Path(__file__).parents[1] / "fgsbir_edge" / "models"
RELEASED = [
    (folder.name, variant)
    for folder in sorted(MODELS.iterdir())
    if (folder / "manifest.json").is_file()
    for variant in Bundle.load(folder).variants
]
RTX = BuildOptions(library="tensorrt_rtx", targets=("8.6",), level=0)
CPU_ONLY = "int8_cpu"  # made for ONNX Runtime: TensorRT reads no activations with a zero point


@pytest.mark.parametrize(("name", "variant"), RELEASED)
def test_released_bundles(name: str, variant: str, tmp_path: Path) -> None:
    bundle, folder = Bundle.load(MODELS / name), EngineFolder(tmp_path / "engines")
    if variant == CPU_ONLY:
        assert check_onnx(bundle.encoder_bytes(variant), RTX)
        return
    lines: list[str] = []
    engine = load_engine(bundle, variant, RTX, say=lines.append, folder=folder)
    assert len(engine) > 10**6
    assert "built in" in lines[-1]
    assert load_engine(bundle, variant, RTX, say=lines.append, folder=folder) == engine
    assert len(lines) == 2


def test_several_targets_in_one_engine() -> None:
    one, two = (
        len(build_plan(toy_encoder(), replace(RTX, targets=targets), silent)[0]) for targets in (("8.6",), ("8.6", "12.0"))
    )
    assert two > one


def test_target_that_there_is_none() -> None:
    with pytest.raises(EngineBuildError, match=r"does not build for SM87; choose among .*SM86"):
        build_plan(toy_encoder(), replace(RTX, targets=("8.7",)), silent)


def test_unsupported_nodes() -> None:
    data = model_of([("Relu", "fine"), ("Det", "first"), ("Relu", "")], ["b", 3, 3])
    (trouble,) = check_onnx(data, RTX)
    assert (trouble.node, trouble.operator) == ("first", "Det")
    assert trouble.reason.startswith("UNSUPPORTED_NODE: TensorRT has no such operator")
    with pytest.raises(EngineBuildError, match="Det 'first'"):
        build_plan(data, RTX, silent)


@pytest.mark.parametrize("length", [1, 50, 500, -1])
def test_truncated_files(length: int) -> None:
    data = toy_encoder()[:length]
    assert "MODEL_DESERIALIZE_FAILED" in str(check_onnx(data, RTX)[0])
    with pytest.raises(EngineBuildError, match="Failed to parse the ONNX model"):
        build_plan(data, RTX, silent)


def test_empty_file() -> None:
    assert check_onnx(b"", RTX)
    with pytest.raises(EngineBuildError, match="no inputs"):
        build_plan(b"", RTX, silent)


def test_refused_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BuildOptions, "__post_init__", lambda options: None)  # it would refuse these first
    with pytest.raises(EngineBuildError, match=r"refuses batches \(8, 1, 64\).*MIN<=OPT<=MAX"):
        build_plan(toy_encoder(), replace(RTX, profiles=((8, 1, 64),)), silent)


def test_memory_limit_that_is_too_small() -> None:
    with pytest.raises(EngineBuildError, match=r"memory ran out under a limit of .* MiB: allow more \(--memory\)"):
        build_plan(toy_encoder(), replace(RTX, memory=1024), silent)


def test_heartbeat_and_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The builder lets this process talk while it works, and its monitor tells where it is."""
    monkeypatch.setattr(trt_progress, "HEARTBEAT_SECONDS", 0.01)
    lines: list[str] = []
    build_plan(Bundle.default().encoder, replace(RTX, verbosity=2), lines.append)
    assert any(line.startswith("still building") and " > " in line for line in lines)
    assert any(line.startswith("tensorrt_rtx: ") for line in lines)


def test_builder_stops_when_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[Any] = []

    def stop(self: trt_progress.Progress, phase: str, step: int) -> bool:
        steps.append(phase)
        return False

    monkeypatch.setattr(trt_progress.Progress, "step_complete", stop)
    with pytest.raises(EngineBuildError, match="built no engine"):
        build_plan(toy_encoder(), RTX, silent)
    assert steps


def test_bfloat16() -> None:
    """A network whose file says bfloat16, float32 outside."""
    from onnx import TensorProto, helper, numpy_helper

    from tests.toy import FEATURES, SIZE

    wide = helper.make_tensor("w", TensorProto.FLOAT, [3, FEATURES], [0.01 * i for i in range(3 * FEATURES)])
    nodes = [
        helper.make_node("Cast", ["image"], ["half"], to=TensorProto.BFLOAT16),
        helper.make_node("GlobalAveragePool", ["half"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Cast", ["w"], ["weight"], to=TensorProto.BFLOAT16),
        helper.make_node("MatMul", ["flat", "weight"], ["product"]),
        helper.make_node("Cast", ["product"], ["features"], to=TensorProto.FLOAT),
    ]
    ends = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", FEATURES]),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(numpy_helper.to_array(wide), "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    assert build_plan(model.SerializeToString(), RTX, silent)[0]
