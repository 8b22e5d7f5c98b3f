"""From a checkpoint to a bundle with variants, and from a bundle to one with more of them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.preprocess import InputSpec, photo_batch
from training.checkpoint import save_model
from training.data.folder import PairsFolder
from training.models.encoder import EncoderConfig, build_encoder, build_head

pytest.importorskip("onnxscript", reason="onnxscript is not installed")

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

CONFIG = EncoderConfig(
    size=64, features=16, embedding=8, backbone="mobilenetv3_small", stages=("block3",), grids=(2,), attention="none"
)
SPEC = InputSpec(size=64)
Written = tuple[Path, dict[str, Any]]  # bundle folder, report of fp32


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder that tells shapes apart: norms have seen images, the head takes their mean away."""
    torch.manual_seed(0)  # or the head would be another one each time, and now and then as good with spoiled weights
    encoder, head = build_encoder(CONFIG, seed=1), build_head(CONFIG)
    pixels = torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        encoder.train()(pixels)
        encoder.eval()
        encoder.projection.bias.copy_(-(encoder.projection.weight @ encoder.pool(pixels).mean(0)))
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_model(path, encoder, head, {"input": SPEC.to_manifest(), "step": 0})
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A bundle with every variant, and the report of fp32."""
    from export.bundle import export
    from export.variants import NAMES, Plan

    out = tmp_path_factory.mktemp("exported") / "tiny"
    plan = Plan(variants=NAMES, images=16, allow_loss=frozenset(NAMES))
    return out, export(checkpoint, out, "tiny", PairsFolder.read(shapes), {"data": "drawn shapes"}, plan=plan)


def test_the_manifest_says_what_was_measured_and_made_from_what(exported: Written, checkpoint: Path, shapes: Path) -> None:
    from export.provenance import file_sha256, folder_sha256

    out, report = exported
    manifest = json.loads((out / "manifest.json").read_text())
    assert list(manifest["variants"]) == ["fp32", "fp16", "int8", "int8_cpu"]
    for name, entry in manifest["variants"].items():
        assert {"acc@1", "acc@5", "acc@10", "queries"} <= set(entry["accuracy"])
        assert entry["accuracy"]["queries"] == 24
        parity = entry["parity"]
        assert parity["reference"] == ("PyTorch" if name == "fp32" else "fp32")
        assert set(parity["adversarial"]["cosine"]) == {"all white", "all black", "noise", "single pixel"}
        assert parity["adversarial"]["largest_difference_between_batches"] < 0.05
    assert manifest["variants"]["fp32"]["parity"] == report
    assert report["cosine_min"] > 0.999
    for name in ("int8", "int8_cpu"):
        made = manifest["variants"][name]["made"]
        assert made["calibration"]["sketches"] == made["calibration"]["photos"] == 8
        assert len(made["calibration"]["sha256"]) == 64
    facts = manifest["provenance"]["export"]
    assert facts["checkpoint"] == file_sha256(checkpoint)
    assert facts["folders"] == {shapes.name: folder_sha256(shapes)}
    assert facts["check"]["queries"] == 24
    assert facts["opset"] == 18
    assert facts["graph"]["ranks_changed_beyond_ties"] == 0
    assert facts["graph"]["cosine_min"] > 0.99999
    assert {"torch", "onnx", "onnxruntime"} <= set(facts["packages"])
    assert manifest["provenance"]["data"] == "drawn shapes"


def test_no_file_says_where_it_was_made(exported: Written, shapes: Path, checkpoint: Path) -> None:
    for path in exported[0].iterdir():
        content = path.read_bytes()
        for place in (Path.cwd(), shapes.parent, checkpoint.parent, Path(sys.prefix)):
            assert str(place).encode() not in content, path.name


def test_every_variant_is_one_whole_file_that_runs(exported: Written) -> None:
    bundle = Bundle.load(exported[0])
    image = np.zeros((64, 64, 3), np.uint8)
    image[20:40, 10:50] = 200
    pixels = photo_batch([image], SPEC)
    expected = OnnxEncoder(bundle, threads=1).encode(pixels)
    for name in bundle.variants:
        model = onnx.load(bundle.encoder_path(name), load_external_data=False)
        assert not any(item.external_data for item in model.graph.initializer)
        assert [item.version for item in model.opset_import if item.domain == ""] == [18]
        assert {item.domain for item in model.opset_import} == {""}
        found = OnnxEncoder(bundle, threads=1, variant=name).encode(pixels)
        assert np.sum(found * expected) > 0.95
    sizes = {name: variant.size for name, variant in bundle.variants.items()}
    assert sizes["fp16"] < 1.1 * sizes["fp32"]  # fp32 keeps its weights in halves too


def test_variants_are_added_to_a_bundle_whose_encoder_stays(exported: Written, shapes: Path, tmp_path: Path) -> None:
    from export.bundle import add_variants
    from export.variants import Plan

    whole = Bundle.load(exported[0])
    plain = replace(whole, variants={})
    plain.save(tmp_path / "plain")
    measured = add_variants(tmp_path / "plain", tmp_path / "more", PairsFolder.read(shapes), Plan(("fp16",)))
    more = Bundle.load(tmp_path / "more")
    assert more.encoder == whole.encoder
    assert list(more.variants) == list(measured) == ["fp32", "fp16"]
    assert more.encoder_bytes("fp16") == whole.encoder_bytes("fp16")
    assert more.variants["fp16"].parity["reference"] == "fp32"
    assert more.variants["fp32"].accuracy["queries"] == 24
    assert more.provenance["data"] == "drawn shapes"
    assert more.provenance["export"]["checkpoint"] == whole.provenance["export"]["checkpoint"]


def test_nothing_is_written_when_a_variant_is_refused(
    exported: Written, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variant whose weights are spoiled loses accuracy for real."""
    import export.variants as variants
    from export.bundle import add_variants

    def spoiled(model: onnx.ModelProto) -> onnx.ModelProto:
        made = onnx.ModelProto()
        made.CopyFrom(model)
        for item in made.graph.initializer:
            if item.name.startswith("projection.weight"):
                array = onnx.numpy_helper.to_array(item)
                item.CopyFrom(onnx.numpy_helper.from_array(np.ones_like(array), item.name))
        return made

    monkeypatch.setattr(variants, "in_half", spoiled)
    plan = variants.Plan(("fp16",))
    with pytest.raises(variants.VariantRefusedError, match=r"fp16 loses .* points Acc@1 on shapes"):
        add_variants(exported[0], tmp_path / "out", PairsFolder.read(shapes), plan)
    assert not (tmp_path / "out").exists()
    add_variants(exported[0], tmp_path / "out", PairsFolder.read(shapes), replace(plan, allow_loss=frozenset({"fp16"})))
    kept = Bundle.load(tmp_path / "out")
    assert kept.variants["fp16"].accuracy["acc@1"] < kept.variants["fp32"].accuracy["acc@1"] - 0.5


def test_a_graph_that_is_not_the_checkpoint_is_not_written(
    checkpoint: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import export.bundle as bundle
    from export.agreement import ParityError
    from export.onnx_encoder import export_model

    other = export_model(build_encoder(CONFIG, seed=2))
    monkeypatch.setattr(bundle, "export_model", lambda encoder: other)
    with pytest.raises(ParityError, match=r"to PyTorch's, at least 0\.99999 is expected"):
        bundle.export(checkpoint, tmp_path / "out", "tiny", PairsFolder.read(shapes), {})
    assert not (tmp_path / "out").exists()


def test_sensitive_layers_stay_in_float(exported: Written, shapes: Path) -> None:
    """The layers that are left are the largest errors, and leaving them brings the features nearer."""
    from export.calibration import CalibrationSet
    from export.quantise import LEFT_SHARE, Quantiser, Scheme, run

    bundle = Bundle.load(exported[0])
    calibration = CalibrationSet.draw([PairsFolder.read(shapes)], SPEC, 16)
    quantiser = Quantiser.of(onnx.load_from_string(bundle.encoder), calibration)
    errors = quantiser.errors(Scheme())
    left = quantiser.sensitive(Scheme())
    assert left
    assert set(left) == {name for name, error in errors.items() if error > LEFT_SHARE * sum(errors.values())}
    assert list(left.values()) == sorted(left.values(), reverse=True)
    expected = run(quantiser.model, calibration.pixels)
    turned = []
    for names in ((), tuple(left)):
        graph, _ = quantiser.quantised(Scheme(left=names))
        floats = {node.name for node in graph.graph.node if node.op_type == "Conv" and "Dequantize" not in node.input[1]}
        assert floats == {name for name in names if name in {node.name for node in graph.graph.node if node.op_type == "Conv"}}
        turned.append(1 - np.sum(run(graph, calibration.pixels) * expected, axis=1).mean())
    assert turned[1] < 0.7 * turned[0]


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_every_method_gives_ranges_that_work(exported: Written, shapes: Path, method: str) -> None:
    from export.calibration import CalibrationSet
    from export.quantise import Quantiser, Scheme, run

    calibration = CalibrationSet.draw([PairsFolder.read(shapes)], SPEC, 8)
    quantiser = Quantiser.of(onnx.load_from_string(Bundle.load(exported[0]).encoder), calibration, (method,))  # type: ignore[arg-type]
    graph, made = quantiser.quantised(Scheme(method=method, left=()))  # type: ignore[arg-type]
    assert made["method"] == method
    cosines = np.sum(run(graph, calibration.pixels) * run(quantiser.model, calibration.pixels), axis=1)
    assert cosines.min() > 0.8


def test_commands(exported: Written, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table of a bundle, and what a wrong command line is told."""
    import export.bundle as bundle
    import export.parity_table as parity_table

    words = [str(exported[0]), "--check", str(shapes), "--json", str(tmp_path / "table.json"), "--threads", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["export.parity_table", *words])
        assert parity_table.main() == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1
    written = json.loads((tmp_path / "table.json").read_text())
    assert set(written["bundles"]["tiny"]["measured"]) == {"fp32", "fp16", "int8", "int8_cpu"}
    assert written["data"]["queries"] == 24
    words = ["--bundle", str(tmp_path / "none"), "--out", str(tmp_path / "out"), "--check", str(shapes), "--variants", "fp16"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["export.bundle", *words])
        assert bundle.main() != 0
    assert "none" in capsys.readouterr().err
