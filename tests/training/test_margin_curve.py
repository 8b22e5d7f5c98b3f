"""Margin curves: what is measured, how it is summarised, and the command on toy data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgsbir_edge.adapt import AdaptOptions, adapt
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.head import Head
from fgsbir_edge.margin import MarginNet
from tests.toy import EMBEDDING, FEATURES, toy_head
from training.config import ConfigError, read_config
from training.episodes import Task, draw
from training.episodic.held_back import Features, TaskSource
from training.episodic.margin_curve import Curve, MarginCurveConfig, measure, summarise
from training.episodic.margin_report import markdown
from training.margin_curve import margin_curve
from training.metrics import accuracy, gallery_ranks

pytestmark = pytest.mark.torch

SOURCE = TaskSource("people", "stars", "person")


def network() -> MarginNet:
    rng = np.random.default_rng(3)
    shapes = {"w1": (8, 3), "b1": 8, "w2": (8, 16), "b2": 8, "w3": (1, 8), "b3": 1}
    return MarginNet(**{name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})


@pytest.fixture
def features() -> Features:
    """Two tasks of 20 photos, three sketches each."""
    rng = np.random.default_rng(0)
    photos = rng.normal(size=(20, FEATURES))
    truth = np.repeat(np.arange(20), 3)
    sketches = photos[truth] + 1.2 * rng.normal(size=(60, FEATURES))
    unit = [np.float32(rows / np.linalg.norm(rows, axis=1, keepdims=True)) for rows in (sketches, photos)]
    tasks = [Task(name, np.arange(first, 60, 2), truth[first::2], np.arange(20)) for first, name in enumerate(("even", "odd"))]
    return Features(tasks, *unit)


def test_a_curve_is_what_the_device_does(features: Features) -> None:
    head = toy_head(step_sizes=[2.0], margin_net=network())
    config = MarginCurveConfig((SOURCE,), k=4, draws=2, points=3)
    curve = measure(head, features, config)[1]
    task, turn = features.tasks[1], 1
    episode = draw(task, 4, np.random.default_rng([0, 1, turn]))
    gallery, truth = features.photos, task.truth[episode.support]
    queries, wanted = features.sketches[task.sketches[episode.query]], task.truth[episode.query]
    for row, margin in enumerate((0.0, 0.5, 1.0, None)):
        result = adapt(
            head,
            features.sketches[task.sketches[episode.support]],
            gallery[truth],
            options=AdaptOptions(margin=margin, guard=False),
        )
        moved = result.adapter.embed(head, queries, "sketch"), result.adapter.embed(head, gallery, "photo")
        expected = accuracy(gallery_ranks(*moved, wanted), 1)
        if margin is None:
            assert curve.predicted[turn] == expected
            assert curve.margins[turn] == pytest.approx(result.margin)
        else:
            assert curve.by_margin[row, turn] == expected
    assert curve.before[turn] == accuracy(gallery_ranks(head.embed(queries), head.embed(gallery), wanted), 1)
    assert len(np.unique(curve.by_margin)) > 1
    assert np.ptp(curve.margins) > 0  # another support, another margin


def test_without_a_network_nothing_is_predicted(features: Features) -> None:
    curves = measure(toy_head(), features, MarginCurveConfig((SOURCE,), k=4, draws=2, points=2))
    found = summarise(curves, np.linspace(0, 1, 2))
    assert "predicted" not in found["acc@1"]
    assert "predicted" not in found["by_task"]["odd"]
    assert found["rank_correlation"] is None


def curve(name: str, means: list[float], margin: float, predicted: float, noise: float = 0.0) -> Curve:
    wave = noise * np.array([1.0, -1.0, 1.0, -1.0])
    table = np.array(means)[:, None] + wave * np.arange(len(means))[:, None]
    return Curve(name, table, np.full(4, 10.0), np.full(4, predicted), np.full(4, margin))


def test_summary_of_known_curves() -> None:
    grid = np.linspace(0, 1, 5)
    curves = [
        curve("low", [30, 20, 20, 20, 20], 0.1, 28),
        curve("flat", [20, 25, 25, 25, 20], 0.3, 25),
        curve("high", [20, 20, 20, 20, 30], 0.9, 30),
        curve("middle", [20, 20, 31, 20, 20], 0.6, 31),
    ]
    found = summarise(curves, grid)
    assert [entry["searched"]["margin"] for entry in found["by_task"].values()] == [0.0, 0.5, 1.0, 0.5]
    assert found["by_task"]["flat"]["searched"]["as_good"] == [0.25, 0.75]
    assert found["fixed_margin"] == 0.5
    means = {name: cell["mean"] for name, cell in found["acc@1"].items()}
    assert means == {"before": 10, "fixed": 24, "searched": 29, "searched crossed": 29, "fixed crossed": 24, "predicted": 28.5}
    assert found["differences"]["predicted - fixed crossed"]["mean"] == 4.5
    assert found["differences"]["searched crossed - predicted"]["mean"] == 0.5
    assert found["rank_correlation"] == pytest.approx(0.949, abs=1e-3)
    json.dumps(found, allow_nan=False)


def test_a_margin_searched_on_noise_gains_nothing_on_other_draws() -> None:
    """The best of many equal margins is above their mean on the draws it was chosen on, and not on others."""
    rng = np.random.default_rng(0)
    curves = [Curve(str(n), 50 + 5 * rng.normal(size=(21, 10)), np.full(10, 50.0)) for n in range(40)]
    found = summarise(curves, np.linspace(0, 1, 21))["acc@1"]
    assert found["searched"]["mean"] > 52
    assert abs(found["searched crossed"]["mean"] - 50) < 1


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="name of its own"):
        MarginCurveConfig((SOURCE, SOURCE))
    with pytest.raises(ConfigError, match="draws 1"):
        MarginCurveConfig((SOURCE,), draws=1)
    with pytest.raises(ConfigError, match=r"no split 'valid'.*validation"):
        TaskSource("categories", "sketchy", "category", ("valid",))
    with pytest.raises(ConfigError, match="leave it empty"):
        TaskSource("chairs", "chairv2", "category", ("validation",))


def test_shipped_configuration() -> None:
    config = read_config("training/configs/margin_curve.toml", MarginCurveConfig)
    assert [(source.setting, source.splits) for source in config.sources] == [
        ("category", ("validation",)),
        ("person", ("validation",)),
    ]


@pytest.fixture
def config(data_path: Path) -> MarginCurveConfig:
    name = data_path.name
    sources = TaskSource("categories", name, "category"), TaskSource("people", name, "person")
    return MarginCurveConfig(sources, k=2, draws=2, points=4)


def test_the_command_writes_and_keeps_features(
    config: MarginCurveConfig, bundle_path: Path, data_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = margin_curve(config, data_path.parent, bundle_path, tmp_path / "out", tmp_path / "cache")
    assert json.loads((tmp_path / "out" / "margin.json").read_text(encoding="utf-8")) == found
    assert {name: list(part["by_task"]) for name, part in found["sets"].items()} == {
        "categories": ["even", "odd"],
        "people": ["ann", "bob"],
    }
    assert (tmp_path / "out" / "margin.md").read_text(encoding="utf-8") == markdown(found)
    assert (tmp_path / "out" / "margin.png").stat().st_size > 5000
    assert len(list((tmp_path / "cache").iterdir())) == 1  # the same images, whoever asks

    def refuse(*_: Any) -> Any:
        raise AssertionError("encoded again")

    monkeypatch.setattr("training.episodic.held_back.encode_sketches", refuse)
    assert margin_curve(config, data_path.parent, bundle_path, tmp_path / "out", tmp_path / "cache") == found


def test_a_task_too_small_is_refused(bundle: Bundle, config: MarginCurveConfig, data_path: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    assert bundle.path is not None
    with pytest.raises(ConfigError, match="lower k"):
        margin_curve(replace(config, k=50), data_path.parent, bundle.path, tmp_path, tmp_path)


def test_markdown_shows_what_was_predicted(features: Features) -> None:
    head: Head = toy_head(margin_net=network())
    config = MarginCurveConfig((SOURCE,), k=4, draws=2, points=3)
    sets = {"people": summarise(measure(head, features, config), config.grid)}
    page = markdown({"model": "toy", "k": 4, "draws": 2, "sets": sets})
    assert "margin predicted by the network" in page
    assert page.count("| even |") == 1
    assert head.embedding == EMBEDDING
