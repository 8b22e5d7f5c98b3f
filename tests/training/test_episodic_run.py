"""Meta-training end to end on drawn shapes: the command, exact resuming, checkpoints, both sources, every design."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fgsbir_edge.preprocess import InputSpec
from tests.training.episodic_toys import VALIDATION, objective, stream, world
from training import meta
from training.checkpoint import load_model, read_meta, save_model
from training.config import ConfigError, read_config
from training.data.augment import Augmentation
from training.episodic import trainer as trainer_module
from training.episodic.config import MetaConfig
from training.episodic.setup import prepare, sized
from training.episodic.sources import Ask
from training.episodic.validation import MetaValidator
from training.heads import runtime_head
from training.journal import CURVES, read_log
from training.models.config import EncoderConfig
from training.models.encoder import EmbeddingHead, build_encoder
from training.run_state import STATE, ResumeError
from training.trainer import BEST, LAST

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

RECIPE = """
[[domains]]
name = "people"
folder = "shapes"
setting = "person"

[[domains]]
name = "kinds"
folder = "shapes"
setting = "category"
k = [1, 2]

[episodes]
k = [2]
tasks = 2
queries = 3

[outer]
loss = "triplet"
negatives = 1

[regularisers]
hidden = 4

[validation]
k = [2]
draws = 2

[run]
steps = 4
every = 2
threads = 1
"""
# Random weights of other backbones see nearly the same in all images
ENCODER = EncoderConfig(32, 12, 6, backbone="squeezenet1_1", stages=("fire3",), grids=(2,))
PIXELS = ("features.source='pixels'", "features.train='all'", "features.chunk=4", "episodes.augment='both'", "episodes.gallery=4")


@pytest.fixture(scope="module")
def data(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shapes, a recipe, and a start whose projection are principal components: a random one sees all shapes as alike."""
    root = tmp_path_factory.mktemp("episodic")
    (root / "shapes").symlink_to(shapes)
    (root / "meta.toml").write_text(RECIPE)
    encoder = build_encoder(ENCODER, seed=0).eval()
    head = EmbeddingHead(12, 6)
    save_model(root / "raw.safetensors", encoder, head, {"input": InputSpec(size=32).to_manifest(), "step": 7})
    prepared = prepare(config_of(root, "features.projection='pca'"), root, root / "raw.safetensors", root / "cache")
    made = prepared.objective
    head.linear.load_state_dict(made.model.head.state_dict())
    save_model(root / "start.safetensors", made.trunk.encoder, head, prepared.meta)
    return root


def config_of(root: Path, *settings: str) -> MetaConfig:
    return read_config(root / "meta.toml", MetaConfig, settings)


def run(data: Path, out: Path, *settings: str) -> dict[str, float]:
    return meta.train(config_of(data, *settings), data, out, data / "start.safetensors", data / "cache")


@pytest.fixture(scope="module")
def finished(data: Path) -> Path:
    out = data / "out"
    run(data, out)
    return out


def test_the_log_says_what_there_is_to_know(finished: Path) -> None:
    rows = read_log(finished)
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert "loss" not in rows[0]
    sets = {f"{name}/k2/{what}" for name in ("people_people", "kinds") for what in ("before@1", "after@1", "gain@1", "margin")}
    assert sets | {"mean/before@1", "mean/after@1", "mean/gain@1"} <= set(rows[0])
    last = rows[-1]
    assert {"loss", "loss/outer", "loss/domain", "domain/accuracy", "margin/mean", "margin/spread", "rate/0"} <= set(last)
    for what in ("margin", "rates", "gains", "head", "regularisers"):
        assert last[f"gradient/{what}"] > 0
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert (finished / CURVES).stat().st_size > 10_000


def test_checkpoints_are_those_of_other_commands(finished: Path, data: Path) -> None:
    encoder, head, facts = load_model(finished / LAST)
    start, _, before = load_model(data / "start.safetensors")
    assert encoder.config == start.config
    assert facts["input"] == before["input"]
    assert facts["step"] == 7  # of supervised training; the outer loop's are apart
    assert facts["meta_steps"] == 4
    assert facts["meta_validation"]["mean/after@1"] >= 0
    assert facts["adaptation"]["regularisers"]["hidden"] == 4
    assert set(facts["adaptation"]["regularisers"]["of"]) == {"person", "category"}
    device = runtime_head(finished / LAST)
    assert device.margin_net is not None
    np.testing.assert_array_equal(device.weight, head.linear.weight.detach().numpy())
    assert device.step_sizes.tolist() != [0.5]
    changed = {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, start.state_dict()[name])}
    assert changed == {"projection.weight", "projection.bias"}  # the gains are in it
    assert (finished / BEST).is_file()


@pytest.mark.parametrize("settings", [(), PIXELS], ids=["cached", "pixels"])
def test_a_stopped_run_goes_on_exactly(
    data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    whole = finished
    if settings:
        whole = tmp_path / "whole"
        run(data, whole, *settings)
    stopped = tmp_path / "stopped"
    step = trainer_module.MetaTrainer._step

    def interrupted(self, *arguments) -> None:  # type: ignore[no-untyped-def]
        step(self, *arguments)
        if self.progress.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.MetaTrainer, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(data, stopped, *settings)
    run(data, stopped, *settings, "run.workers=2")
    ours, theirs = load_file(stopped / STATE), load_file(whole / STATE)
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    assert read_meta(stopped / LAST)["meta_validation"] == read_meta(whole / LAST)["meta_validation"]
    if settings:
        changed = load_file(stopped / LAST)
        start = load_file(data / "start.safetensors")
        moved = [name for name in start if name.startswith("encoder.") and not torch.equal(changed[name], start[name])]
        assert any(name.startswith("encoder.backbone") for name in moved)
        assert read_log(stopped)[-1]["gradient/encoder"] > 0


def test_another_configuration_or_start_does_not_go_on(data: Path, finished: Path) -> None:
    with pytest.raises(ResumeError, match=r"inner\.steps"):
        run(data, finished, "inner.steps=2")
    with pytest.raises(ResumeError, match="start"):
        meta.train(config_of(data), data, finished, data / "raw.safetensors", data / "cache")


def test_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"--config": data / "meta.toml", "--data": data, "--out": tmp_path, "--cache": data / "cache"}
    words = ["meta", *(word for option, path in places.items() for word in (option, str(path)))]
    monkeypatch.setattr(sys, "argv", [*words, "--checkpoint", str(data / "start.safetensors"), "--set", "run.steps=1"])
    assert meta.main() == 0
    assert "mean/after@1" in json.loads(capsys.readouterr().out)
    monkeypatch.setattr(sys, "argv", [*words, "--checkpoint", "nowhere"])
    assert meta.main() == ConfigError.exit_code
    assert "training.supervised" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*words, "--checkpoint", str(data / "start.safetensors"), "--set", "run.score=mean/mrr"])
    assert meta.main() == ConfigError.exit_code
    assert "people_people/k2/after@1" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no distributed package")
def test_two_processes(data: Path, tmp_path: Path) -> None:
    """Domains of both settings, so that in some steps a process has nothing for a regulariser to do."""
    places = {"--config": data / "meta.toml", "--data": data, "--out": tmp_path, "--cache": data / "cache"}
    words = [sys.executable, "-m", "training.meta", "--checkpoint", str(data / "start.safetensors")]
    words += [word for option, path in places.items() for word in (option, str(path))]
    settings = ["run.devices=2", "run.accelerator='cpu'", "inner.sharpness=0.0", "run.steps=6", "run.every=6"]
    words += [word for item in settings for word in ("--set", item)]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "mean/after@1" in json.loads(ran.stdout)
    assert read_log(tmp_path)[-1]["gradient/margin"] == 0.0


def test_cached_and_pixel_features_agree(data: Path) -> None:
    start = data / "start.safetensors"
    cached = prepare(config_of(data), data, start, data / "cache")
    pixels = prepare(config_of(data, *PIXELS), data, start, data / "cache")
    dataset = cached.domains[0].dataset
    rng = np.random.default_rng(0)
    for role, count in (("sketch", len(dataset.keys)), ("photo", len(dataset.photos))):
        rows = np.arange(count)[::3]
        ask = Ask(rows, np.zeros_like(rows))
        ours, theirs = (
            made.objective.features(made.source.inputs(made.domains[0].dataset, role, ask, rng))
            for made in (cached, pixels)  # type: ignore[arg-type]
        )
        cosines = (ours @ theirs.T).detach()
        assert float(cosines.diagonal().min()) > 0.9999  # cached rows are float16
        assert float(cosines.min()) < 0.9  # and images differ by more
        for made, features in ((cached, ours), (pixels, theirs)):
            still = made.source.still(made.domains[0].dataset, role, rows, made.objective.features)  # type: ignore[arg-type]
            torch.testing.assert_close(still, features.detach(), rtol=1e-4, atol=1e-5)
    augmented = pixels.source.inputs(dataset, "sketch", Ask(np.array([0, 0, 0]), np.array([0, 1, 1])), rng)
    assert not torch.equal(augmented[0], augmented[1])
    assert not torch.equal(augmented[1], augmented[2])
    still = replace(pixels.source, augmentation=Augmentation.none())  # type: ignore[type-var]
    same = still.inputs(dataset, "sketch", Ask(np.array([0, 0]), np.array([0, 1])), rng)
    torch.testing.assert_close(same[0], same[1])


@pytest.mark.parametrize("train", ["none", "projection"])
def test_a_trained_projection_starts_as_the_fixed_one(data: Path, train: str) -> None:
    prepared = prepare(config_of(data, f"features.train='{train}'"), data, data / "start.safetensors", data / "cache")
    assert prepared.source.kind == {"none": "projected", "projection": "pooled"}[train]
    loss, values = prepared.objective(prepared.stream.batch(0))
    loss.backward()
    reached = prepared.objective.trunk.encoder.projection.weight.grad
    assert (reached is not None) is (train == "projection")
    other = prepare(config_of(data), data, data / "start.safetensors", data / "cache")
    _, same = other.objective(other.stream.batch(0))
    assert float(values["loss/outer"]) == pytest.approx(float(same["loss/outer"]), rel=1e-4)


@pytest.mark.parametrize("design", ["gradient", "fixed"])
def test_a_device_gets_a_number_for_a_margin_that_it_cannot_predict(design: str, tmp_path: Path) -> None:
    domain, sets, source = world()
    text = f'domains = [{{name = "toys", folder = "toys", setting = "person"}}]\nmargin = {{design = "{design}", value = 0.25}}\n'
    (tmp_path / "toys.toml").write_text(text + "[inner]\nsharpness = 8.0\nside = 'both'\n[run]\nsteps = 1\nevery = 1\n")
    config = read_config(tmp_path / "toys.toml", MetaConfig)
    made = objective(config.inner, config.margin)
    validator = MetaValidator(sets, source, VALIDATION)
    figures = trainer_module.MetaTrainer(tmp_path, config, stream(domain, source), validator, {}, {}).fit(made)
    device = runtime_head(tmp_path / LAST)
    assert device.margin_net is None
    assert (device.sharpness, device.side, device.negatives) == (8.0, "both", "support")
    wanted = 0.25 if design == "fixed" else validator.mean_margin(figures)
    assert device.margin == pytest.approx(wanted, abs=1e-6)
    kept = [name for name in load_file(tmp_path / LAST) if name.startswith("adaptation.gradient_margin.")]
    assert bool(kept) is (design == "gradient")


def test_head_of_another_width() -> None:
    torch.manual_seed(0)
    head = EmbeddingHead(12, 6)
    encoder = build_encoder(EncoderConfig(32, 12, 6, grids=(2, 1)), seed=0)
    assert sized(encoder, head, 0)[1] is head
    rows = torch.randn(40, 12)

    def gaps(outputs: torch.Tensor) -> torch.Tensor:
        return torch.pdist(outputs.detach())

    before = gaps(head.linear(rows))
    _, wide = sized(encoder, head, 9)
    assert encoder.config.embedding == 9
    assert wide.linear.weight.shape == (9, 12)
    torch.testing.assert_close(gaps(wide.linear(rows)[:, :6]), before, rtol=1e-4, atol=1e-4)
    _, narrow = sized(encoder, head, 3)
    assert narrow.linear.weight.shape == (3, 12)
    assert float(gaps(narrow.linear(rows)).square().sum()) > float(gaps(head.linear(rows)[:, :3]).square().sum())


def test_the_shipped_configurations() -> None:
    folder = Path(meta.__file__).parent / "configs"
    release = read_config(folder / "meta_release.toml", MetaConfig)
    assert [(item.folder, item.setting, item.share) for item in release.domains] == [
        ("drawings32", "person", 0.5),
        ("sketchy", "category", 0.35),
        ("chairv2", "category", 0.15),
    ]
    episodes, features, inner, outer = release.episodes, release.features, release.inner, release.outer
    assert (episodes.k, episodes.tasks, episodes.queries, episodes.gallery, episodes.augment) == ((5,), 8, 16, 0, "sketches")
    assert (features.source, features.train, features.projection, features.gains) == ("cached", "none", "keep", False)
    assert (inner.steps, inner.rate, inner.side, inner.negatives, inner.sharpness) == (5, 0.2, "both", "support", 10.0)
    assert (release.margin.design, release.margin.hidden, release.regularisers) == ("distances", 16, None)
    assert (outer.loss, outer.temperature, outer.base_weight, outer.shown_weight) == ("cross_entropy", 0.07, 0.5, 0.1)
    optimiser, steps = release.optimiser, release.run
    assert (optimiser.head, optimiser.fast, optimiser.schedule, optimiser.average) == (1e-6, 1e-3, "cosine", 0.0)
    assert (optimiser.clip, optimiser.warmup, steps.steps, steps.seed) == (1.0, 0, 400, 0)
    for name in ("meta.toml", "meta_paper.toml"):
        config = read_config(folder / name, MetaConfig)
        assert config.features.train == "all"
        assert config.regularisers is not None
    paper = read_config(folder / "meta_paper.toml", MetaConfig)
    assert paper.inner.steps == 1
    assert (paper.outer.loss, paper.outer.sharpness, paper.outer.base_weight, paper.outer.shown_weight) == (
        "triplet",
        0.0,
        0.0,
        0.0,
    )
    assert (paper.inner.negatives, paper.episodes.tasks, paper.optimiser.head) == ("drawn", 8, 1e-4)


def test_every_option_is_in_the_manual() -> None:
    text = (Path(meta.__file__).parents[1] / "docs" / "meta.md").read_text(encoding="utf-8")
    config = read_config(Path(meta.__file__).parent / "configs" / "meta.toml", MetaConfig)
    parts = [config.domains[0], config.episodes, config.features, config.inner, config.margin, config.outer, config.optimiser]
    for part in (*parts, config.validation):
        for item in fields(part):
            assert f"`{item.name}`" in text, item.name


def test_regularisers_need_features_that_can_change(data: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to act on"):
        config_of(data, "features.gains=false")
