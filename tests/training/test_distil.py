"""A light sketch encoder distilled on drawn shapes: where it starts, what it sees, resuming, and its way into a bundle."""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fgsbir_edge.bundle import Bundle, write_bundle
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import BundleFormatError
from fgsbir_edge.preprocess import InputSpec
from training.checkpoint import read_meta, save_model
from training.config import ConfigError, read_config
from training.data.augment import Augmentation
from training.data.folder import PairsFolder
from training.data.sources import SourceConfig
from training.distil import DistilConfig, train
from training.journal import read_log
from training.light.checkpoint import load_light
from training.light.network import LightLoss, LightNetwork
from training.light.start import fit, same_shape, take_over
from training.light.stream import DrawingStream, Side
from training.models.config import EncoderConfig
from training.models.encoder import Encoder, build_encoder, build_head, initialise_by_pca
from training.models.light import LightConfig, LightEncoder
from training.run_state import STATE, ResumeError
from training.trainer import BEST, LAST

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
LARGE = EncoderConfig(
    64, 16, 16, (2, 1), backbone="efficientnet_lite0", stages=("stage5", "stage7"), pooling="tight", attention="none"
)
SPEC = InputSpec(64, (0.5,) * 3, (0.5,) * 3)
TINY = LightConfig(64, (2, 2, 2, 2), squeeze=4, cells=2, features=16)
RECIPE = """
batches = 3
line_width = 1.6
[student]
size = 64
expansions = [2, 2, 2, 2]
squeeze = 4
cells = 2
features = 16
[start]
usage = 1
fit = 2
[loss]
photos = 6
[run]
steps = 4
every = 2
threads = 1
[data]
pairs = 4
[[data.sources]]
name = "shapes"
folder = "shapes"
by_category = true
"""


def drawings(count: int, size: int = 64) -> torch.Tensor:
    """Grey images, all channels alike."""
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 1, size, size, generator=generator).clamp(-1, 1).expand(-1, 3, -1, -1).contiguous()


@pytest.fixture(scope="module")
def large() -> Encoder:
    """A random encoder whose projection tells images apart."""
    encoder, head = build_encoder(LARGE, seed=1).eval(), build_head(LARGE)
    torch.manual_seed(0)
    for module in encoder.backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # PyTorch's own makes the last maps all but constant
    with torch.no_grad():
        initialise_by_pca(encoder, head, encoder.pool(drawings(24)))
    return encoder


@pytest.fixture(scope="module")
def teacher(large: Encoder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same as a bundle and as a checkpoint."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    from export.onnx_encoder import export_model, serialised
    from training.heads import runtime_head

    root, head = tmp_path_factory.mktemp("teacher"), build_head(LARGE)
    torch.nn.init.eye_(head.linear.weight)
    save_model(root / "large.safetensors", large, head, {"input": SPEC.to_manifest(), "step": 0})
    model, own = serialised(export_model(large)), runtime_head(root / "large.safetensors")
    write_bundle(root / "bundle", name="large", encoder=model, head=own, input=SPEC, provenance={})
    large.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return root / "bundle", root / "large.safetensors"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DistilConfig:
    path = tmp_path_factory.mktemp("config") / "light.toml"
    path.write_text(RECIPE)
    return read_config(path, DistilConfig)


@pytest.fixture(scope="module")
def data(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "shapes").symlink_to(shapes)
    return root


@pytest.fixture(scope="module")
def finished(config: DistilConfig, teacher: tuple[Path, Path], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    train(config, Bundle.load(teacher[0]), teacher[1], data, out)
    return out


def test_the_shipped_recipes_are_light() -> None:
    for name in ("light.toml", "light_all.toml"):
        config = read_config(CONFIGS / name, DistilConfig)
        assert sum(parameter.numel() for parameter in LightEncoder(config.student).parameters()) <= 1_000_000
        assert config.spec(SPEC).line_width == config.line_width


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expansions": (7, 4, 6, 6)}, "expected 4 numbers from 1 to 6"),
        ({"squeeze": 0}, "must be positive"),
        ({"cells": 8}, "has no 8x8 cells"),
    ],
)
def test_shapes_that_there_are_not(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(LightConfig(), **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="temperature positive"):
        LightLoss(temperature=0.0)


def test_nothing_thinned_is_the_large_encoders_map(large: Encoder) -> None:
    light = LightEncoder(replace(TINY, expansions=(6, 6, 6, 6))).eval()
    take_over(light, large, [drawings(2)])
    same_maps(light, large)


def test_channels_that_never_change_go_without_a_trace(large: Encoder) -> None:
    """Half of the hidden channels made constant: exactly those are taken out, and what they gave is in the bias."""
    source = copy.deepcopy(large)
    generator = np.random.default_rng(0)
    with torch.no_grad():
        for stage in list(source.backbone.stages)[1:5]:  # type: ignore[arg-type]
            for block in stage.children():
                hidden = block.project.in_channels
                still = torch.from_numpy(generator.permutation(hidden)[: hidden // 2])
                block.depthwise.weight[still] = 0.0
                block.depthwise.bias[still] = 1.5
    light = LightEncoder(replace(TINY, expansions=(3, 3, 3, 3))).eval()
    take_over(light, source, [drawings(3)])
    same_maps(light, source)


def same_maps(light: LightEncoder, large: Encoder) -> None:
    """In double precision: a random network makes rounding grow from layer to layer."""
    pixels, expected = drawings(3).double(), copy.deepcopy(large).double()
    with torch.no_grad():
        torch.testing.assert_close(light.double().cells(pixels), expected.maps(pixels)[0], rtol=1e-3, atol=1e-3)


def test_the_start_must_be_of_the_same_kind(large: Encoder) -> None:
    other = build_encoder(EncoderConfig(64, 16, 16, backbone="mobilenetv3_small", stages=("block3",), grids=(2,)), seed=0)
    with pytest.raises(ValueError, match="expected efficientnet_lite0"):
        take_over(LightEncoder(TINY), other, [])
    with pytest.raises(ValueError, match=r"expansions \(2, 2, 2, 2\), expected \(3, 2, 2, 2\)"):
        same_shape(LightEncoder(replace(TINY, expansions=(3, 2, 2, 2))), LightEncoder(TINY))
    light, again = LightEncoder(TINY), LightEncoder(TINY)
    same_shape(again, light)
    torch.testing.assert_close(again.cells(drawings(2)), light.cells(drawings(2)))


def test_the_fit_finds_what_is_there_to_find() -> None:
    """Targets that another light encoder of the same layers gives are met; the squeeze keeps what varies."""
    torch.manual_seed(0)
    light = LightEncoder(replace(TINY, squeeze=32)).eval()
    pixels = drawings(160)
    with torch.no_grad():
        wanted = light(pixels)
        for layer in (light.squeeze, light.projection):
            nn.init.normal_(layer.weight)
        assert float((light(pixels) * wanted).sum(1).mean()) < 0.5
        fit(light, [(pixels[:80], wanted[:80]), (pixels[80:], wanted[80:])])
        assert float((light(pixels) * wanted).sum(1).mean()) > 0.98


def test_both_sides_see_the_same_drawings(data: Path) -> None:
    sources = (SourceConfig("shapes", "shapes"),)
    augmentation = replace(Augmentation(), erase=0.0, thicken=0.0, thin=0.0, composite=1.0)
    small = replace(SPEC, size=32)
    sides = [Side.open(sources, data, spec, augmentation, None) for spec in (SPEC, small)]
    stream = DrawingStream(*sides, 6, 0)
    for number in range(3):
        first, second = stream.draw(stream.teacher, number), stream.draw(stream.light, number)
        assert first.shape == (6, 3, 64, 64)
        assert second.shape == (6, 3, 32, 32)
        assert torch.equal(first, stream.draw(stream.teacher, number))
        rows = [torch.nn.functional.avg_pool2d(level, level.shape[-1] // 8)[:, 0].flatten(1) for level in (first, second)]
        alike = np.corrcoef(np.concatenate([row.numpy() for row in rows]))[:6, 6:]
        assert (alike.argmax(axis=1) == np.arange(6)).all()
        assert alike.diagonal().min() > 0.9
    assert not torch.equal(stream.draw(stream.light, 0), stream.draw(stream.light, 1))
    with pytest.raises(ValueError, match="expected at least 2"):
        DrawingStream(*sides, 1, 0)


def test_a_student_that_agrees_pays_nothing() -> None:
    head = build_head(LARGE)
    photos = torch.nn.functional.normalize(torch.randn(5, 16), dim=1)
    network = LightNetwork(LightEncoder(TINY), head, photos, LightLoss())
    wanted = torch.nn.functional.normalize(torch.randn(3, 16), dim=1)
    assert float(network.compare(wanted, wanted)[0].detach()) == pytest.approx(0.0, abs=1e-5)
    total, terms = network.compare(-wanted, wanted)
    assert terms["features"] == pytest.approx(2.0, abs=1e-5)
    assert terms["relation"] > 0
    assert float(total.detach()) == pytest.approx(sum(terms.values()), rel=1e-5)


@pytest.mark.slow
def test_a_run_writes_what_it_found(finished: Path) -> None:
    rows = read_log(finished)
    assert [row["step"] for row in rows if "shapes/acc@1" in row] == [2, 4]
    encoder, meta = load_light(finished / LAST)
    assert encoder.config == TINY
    assert meta["step"] == 4
    assert meta["teacher"]["name"] == "large"
    assert "mean/acc@1" in meta["teacher"]["validation"]
    assert InputSpec.from_manifest(meta["input"]) == replace(SPEC, line_width=1.6)
    assert (finished / BEST).is_file()
    assert read_meta(finished / LAST)["validation"] == pytest.approx({name: rows[-1][name] for name in meta["validation"]})


@pytest.mark.slow
def test_going_on_gives_what_an_unbroken_run_gives(
    finished: Path, config: DistilConfig, teacher: tuple[Path, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    forward, calls, bundle = LightNetwork.forward, [], Bundle.load(teacher[0])

    def stop(self: LightNetwork, pixels: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, pixels)

    with monkeypatch.context() as once:
        once.setattr(LightNetwork, "forward", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config, bundle, teacher[1], data, tmp_path)
    assert len(calls) == 3
    train(config, bundle, teacher[1], data, tmp_path)
    unbroken, again = load_file(finished / STATE), load_file(tmp_path / STATE)
    assert unbroken.keys() == again.keys()
    for name, tensor in unbroken.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    with pytest.raises(ResumeError, match=r"batches was 3 and is 2"):
        train(replace(config, batches=2), bundle, teacher[1], data, tmp_path)


@pytest.mark.slow
def test_a_teacher_of_another_width(config: DistilConfig, teacher: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    wide = replace(config, student=replace(TINY, features=20))
    with pytest.raises(ConfigError, match=r"student.features is 20, the teacher's are 16"):
        train(wide, Bundle.load(teacher[0]), None, data, tmp_path)


@pytest.mark.slow
def test_into_a_bundle(finished: Path, teacher: tuple[Path, Path], shapes: Path, tmp_path: Path) -> None:
    from export.bundle import add_sketch_encoder
    from export.variants import Plan

    out, folder = tmp_path / "two", PairsFolder.read(shapes)
    plan = Plan(variants=("int8_cpu",), images=8, allow_loss=frozenset({"int8_cpu"}))
    found = add_sketch_encoder(teacher[0], finished / LAST, out, (folder, plan))
    assert {"PyTorch", "float32 weights", "fp32", "int8_cpu", "encoder of photos"} == set(found)
    assert found["fp32"]["parity"]["cosine_min"] > 0.999
    bundle = Bundle.load(out)
    side = bundle.for_sketches
    assert list(side.variants) == ["fp32", "int8_cpu"]
    assert list(bundle.variants) == ["fp32"]
    assert side.variants["int8_cpu"].made["calibration"]["photos"] == 0
    assert side.provenance["encoder of photos"]["queries"] == 24
    assert bundle.encoder == Bundle.load(teacher[0]).encoder
    with Engine.open(bundle=bundle, photos=shapes / "photos", threads=1) as engine:
        hits = engine.search(shapes / "sketches" / "ann" / "box3.png", 3)
        assert len(hits) == 3
    manifest = (out / "manifest.json").read_text()
    for place in (Path.cwd(), shapes.parent, finished.parent, Path(sys.prefix)):
        assert str(place) not in manifest
    replace(Bundle.load(teacher[0]), input=replace(SPEC, photo_fit="pad")).save(tmp_path / "other")
    with pytest.raises(BundleFormatError, match=r"distilled from 'large' .* give the bundle it was distilled from"):
        add_sketch_encoder(tmp_path / "other", finished / LAST, tmp_path / "no", (folder, plan))
    with pytest.raises(BundleFormatError, match="no light sketch encoder"):
        add_sketch_encoder(teacher[0], teacher[1], tmp_path / "no", (folder, plan))


@pytest.mark.parametrize(
    "words",
    [
        ["--bundle", "b", "--alone", "--check", "c", "--variants", "fp16"],
        ["--bundle", "b", "--alone", "--confidence", "f", "--check", "c"],
    ],
)
def test_alone_needs_a_sketch_encoder(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from export.bundle import main

    monkeypatch.setattr(sys, "argv", ["export.bundle", *words, "--out", "x"])
    with pytest.raises(SystemExit):
        main()
    assert "--alone goes with --sketch-encoder, or with --confidence" in capsys.readouterr().err


def test_confidence_goes_to_the_light_encoder_that_is_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from export.bundle import main

    default = Bundle.default().confidence
    assert default is not None
    theirs = replace(default, none_below=default.none_below / 2)
    (tmp_path / "fitted.json").write_text(json.dumps({"confidence": theirs.to_manifest()}))
    words = ["--bundle", "light", "--confidence", str(tmp_path / "fitted.json"), "--alone", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["export.bundle", *words])
    assert main() == 0
    light, found = Bundle.load("light"), Bundle.load(tmp_path / "out")
    assert found.confidence == theirs
    assert found.pairs_digest == light.pairs_digest
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in Path(str(light.for_sketches.path)).iterdir()
    )


@pytest.mark.slow
def test_figures_are_of_both_encoders(
    finished: Path, teacher: tuple[Path, Path], shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a second encoder evaluate gives the large one's figures, with one those of the export."""
    from export.bundle import add_sketch_encoder
    from export.variants import Plan
    from training.evaluate import main

    found = add_sketch_encoder(teacher[0], finished / LAST, tmp_path / "two", (PairsFolder.read(shapes), Plan()))
    for model, name in ((teacher[0], "encoder of photos"), (tmp_path / "two", "fp32")):
        sys.argv = ["evaluate", "--model", str(model), "--data", str(shapes), "--gallery", "category", "--threads", "1"]
        assert main() == 0
        assert json.loads(capsys.readouterr().out)["acc@1"] == pytest.approx(found[name]["accuracy"]["acc@1"], abs=0.01)
