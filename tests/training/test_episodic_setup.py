"""What a run is made of: sources, margins and step sizes on a device, heads of other widths, configurations, the manual."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fgsbir_edge.errors import BundleFormatError
from tests.training.episodic_recipe import PIXELS, config_of, write_world
from tests.training.episodic_toys import VALIDATION, objective, stream, world
from training import meta
from training.config import ConfigError, read_config
from training.data.augment import Augmentation
from training.episodic.config import DomainConfig, InnerConfig, MetaConfig, MetaRun
from training.episodic.setup import prepare, sized
from training.episodic.sources import Ask
from training.episodic.trainer import MetaTrainer
from training.episodic.validation import MetaValidator
from training.heads import runtime_head
from training.journal import read_log
from training.models.config import EncoderConfig
from training.models.encoder import EmbeddingHead, build_encoder
from training.trainer import LAST

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]


@pytest.fixture(scope="module")
def data(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("episodic"), shapes)


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
    figures = MetaTrainer(tmp_path, config, stream(domain, source), validator, {}, {}).fit(made)
    device = runtime_head(tmp_path / LAST)
    assert device.margin_net is None
    assert (device.sharpness, device.side, device.negatives) == (8.0, "both", "support")
    wanted = 0.25 if design == "fixed" else validator.mean_margin(figures)
    assert device.margin == pytest.approx(wanted, abs=1e-6)
    kept = [name for name in load_file(tmp_path / LAST) if name.startswith("adaptation.gradient_margin.")]
    assert bool(kept) is (design == "gradient")


def test_no_device_gets_step_sizes_of_rows(tmp_path: Path) -> None:
    domain, sets, source = world()
    domains = (DomainConfig("toys", "toys", "person"),)
    config = MetaConfig(domains, inner=InnerConfig(2, rates="row"), run=MetaRun(steps=3, every=3))
    made = objective(config.inner)
    MetaTrainer(tmp_path, config, stream(domain, source), MetaValidator(sets, source, VALIDATION), {}, {}).fit(made)
    assert made.model.step_sizes.shape == (2, 6)
    assert len(made.model.step_sizes.unique()) > 6  # each learned on its own
    assert read_log(tmp_path)[-1]["rate/1"] == pytest.approx(float(made.model.step_sizes[1].mean().detach()), rel=1e-5)
    with pytest.raises(BundleFormatError, match=r"inner\.rates"):
        runtime_head(tmp_path / LAST)


def test_the_shipped_configurations() -> None:
    folder = Path(meta.__file__).parent / "configs"
    release = read_config(folder / "meta_release.toml", MetaConfig)
    assert [(item.folder, item.setting, item.share) for item in release.domains] == [
        ("drawings32", "person", 0.35),
        ("sketchy", "category", 0.65),
    ]
    episodes, features, inner, outer = release.episodes, release.features, release.inner, release.outer
    assert (episodes.k, episodes.tasks, episodes.queries, episodes.gallery, episodes.augment) == ((5,), 8, 12, 0, "sketches")
    assert (features.source, features.train, features.projection, features.gains) == ("cached", "none", "keep", False)
    assert (inner.steps, inner.rate, inner.side, inner.negatives, inner.centre) == (1, 0.3, "sketch", "support", 2.0)
    assert (release.margin.design, release.margin.value, release.regularisers) == ("fixed", 0.3, None)
    assert (outer.loss, outer.temperature, outer.base_weight, outer.shown_weight) == ("cross_entropy", 0.07, 0.5, 0.2)
    optimiser, steps = release.optimiser, release.run
    assert (optimiser.head, optimiser.fast, optimiser.schedule, optimiser.average) == (1e-4, 2e-3, "cosine", 0.0)
    assert (optimiser.clip, optimiser.warmup, steps.steps, steps.seed) == (1.0, 0, 200, 0)
    for name, train, centred in (("meta", "none", True), ("meta_network", "all", True), ("meta_paper", "all", False)):
        config = read_config(folder / f"{name}.toml", MetaConfig)
        assert (config.features.train, math.isfinite(config.inner.centre)) == (train, centred)
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


MANUAL = Path(meta.__file__).parents[1] / "docs" / "meta.md"


def test_the_example_of_the_manual(data: Path) -> None:
    lines = MANUAL.read_text(encoding="utf-8").split("In Python,")[1].splitlines()
    code = "\n".join(line[4:] for line in lines if line.startswith("    "))
    assert "prepare(" in code
    names = {"data": data, "checkpoint": data / "start.safetensors", "cache": data / "cache"}
    exec(code.replace("training/configs/meta.toml", str(data / "meta.toml")), names)
    assert set(names["run"].validator.names) <= set(names["figures"])  # type: ignore[attr-defined, call-overload]
    assert names["loss"].requires_grad  # type: ignore[attr-defined]


def test_every_option_is_in_the_manual() -> None:
    text = MANUAL.read_text(encoding="utf-8")
    config = read_config(Path(meta.__file__).parent / "configs" / "meta.toml", MetaConfig)
    parts = [config.domains[0], config.episodes, config.features, config.inner, config.margin, config.outer, config.optimiser]
    for part in (*parts, config.validation):
        for item in fields(part):
            assert f"`{item.name}`" in text, item.name


def test_regularisers_need_features_that_can_change(data: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to act on"):
        config_of(data, "features.gains=false")


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
