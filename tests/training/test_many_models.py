"""One model for K categories against K individual ones: batches, cuts, summary, and the command on toy data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training import many_models as command
from training.config import ConfigError, read_config
from training.episodic.held_back import TaskSource
from training.episodic.many_models import Category, Layers, ManyModelsConfig, chosen, judge, summarise, train
from training.many_models import many_models

pytestmark = pytest.mark.torch

C, D = 12, 6
SOURCE = TaskSource("stars", "stars", "category")
CONFIG = ManyModelsConfig(SOURCE, counts=(1, 2), repeats=2, steps=30, batch=8, negatives=4, rate=2e-2)


def category(number: int, photos: int = 10, shown: int = 8) -> Category:
    """`shown` of the photos have three sketches each; which directions tell photos apart differs by category."""
    rng = np.random.default_rng([7, number])
    signal = np.zeros(C)
    signal[6 * (number % 2) : 6 * (number % 2) + 6] = 1.0
    gallery = rng.normal(size=(photos, C))
    truth = np.repeat(np.arange(shown), 3)
    sketches = gallery[truth] * signal + rng.normal(size=(len(truth), C)) * (1.2 - signal)
    return Category.of(f"kind {number}", (sketches, gallery), truth)


@pytest.fixture
def start() -> Layers:
    torch.manual_seed(0)
    return Layers((torch.randn(D, C) / C**0.5, torch.zeros(D)))


def test_cut_holds_whole_photos_and_changes_with_the_repeat() -> None:
    cuts = [category(0).cut(0.3, repeat) for repeat in range(3)]
    for cut in cuts:
        assert set(cut.truth[cut.judged]).isdisjoint(cut.truth[~cut.judged])
        assert len(np.unique(cut.truth[cut.judged])) == 2
    assert len({tuple(cut.judged) for cut in cuts}) > 1
    with pytest.raises(ConfigError, match="'kind 0' has 2 photos with sketches"):
        category(0, shown=2).cut(0.3, 0)


def test_people_who_draw_other_photos_have_the_same_ones_held() -> None:
    """Or one model for all would train on what it is asked for."""
    everyone = category(0)
    few = replace(everyone, name="few", sketches=everyone.sketches[:18], truth=everyone.truth[:18])  # of photos 0 to 5
    for repeat in (0, 2, 3):
        all_held = np.unique(everyone.truth[everyone.cut(0.5, repeat, alike=True).judged])
        few_held = np.unique(few.truth[few.cut(0.5, repeat, alike=True).judged])
        assert 0 < len(few_held) < 5
        assert set(few_held) == {photo for photo in all_held if photo < 6}
    lone = replace(everyone, truth=everyone.truth * 0)
    with pytest.raises(ConfigError, match="has 1 photos with sketches"):
        lone.cut(0.3, 0, alike=True)


def test_nothing_held_trains(start: Layers) -> None:
    """Held sketches and photos are poisoned: training must not notice."""
    clean = category(0).cut(0.3, 0)
    sketches, photos = clean.sketches.clone(), clean.photos.clone()
    sketches[torch.from_numpy(clean.judged)] = torch.nan
    photos[torch.from_numpy(np.unique(clean.truth[clean.judged]))] = torch.nan
    poisoned = replace(clean, sketches=sketches, photos=photos)
    for ours, theirs in zip(
        train(start, [(0, poisoned)], CONFIG).tensors, train(start, [(0, clean)], CONFIG).tensors, strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_single_model_sees_the_batches_of_the_individual_ones(start: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    module = command.train.__globals__
    original = module["_batch"]

    def batch(*arguments: Any) -> Any:
        rows, support = original(*arguments)
        seen.append(float(rows.sum()))
        return rows, support

    monkeypatch.setitem(module, "_batch", batch)
    both = [(number, category(number).cut(0.3, 0)) for number in range(2)]
    train(start, both, CONFIG)
    together, seen[:] = sorted(seen), []
    for one in both:
        train(start, [one], CONFIG)
    assert len(seen) == 2 * CONFIG.steps
    assert sorted(seen) == together


def test_one_category_alone_is_the_same_model_either_way_and_beats_the_start(start: Layers) -> None:
    own = category(1).cut(0.3, 0)
    found = judge(train(start, [(1, own)], replace(CONFIG, steps=200)), own)
    assert found > judge(start, own) + 10
    assert start.tensors[0].grad is None


def test_projection_layers_normalise_between() -> None:
    torch.manual_seed(1)
    P, p, W, b = torch.randn(5, C), torch.randn(5), torch.randn(D, 5), torch.randn(D)
    rows = torch.randn(4, C)
    features = rows @ P.T + p
    expected = features / features.norm(dim=1, keepdim=True) @ W.T + b
    torch.testing.assert_close(Layers((P, p, W, b)).outputs(rows), expected)


def test_choices_are_nested() -> None:
    names = [str(n) for n in range(9)]
    for repeat in range(3):
        few, more = chosen(names, 3, repeat, 0), chosen(names, 7, repeat, 0)
        assert len(few) == 3
        assert set(few) < set(more)
    assert chosen(names, 3, 0, 0) != chosen(names, 3, 1, 0)


def test_summary_pairs_models_by_repeat() -> None:
    start = [{"a": 10.0, "b": 20.0}, {"a": 12.0, "b": 22.0}]
    individual = [{"a": 40.0}, {"a": 50.0, "b": 60.0}]
    found = summarise(start, individual, {1: [{"a": 30.0}, {"b": 45.0}]})["points"]["1"]
    assert found["categories"] == 2
    assert {what: found[what]["mean"] for what in ("start", "single", "individual", "individual - single")} == {
        "start": 16.0,
        "single": 37.5,
        "individual": 50.0,
        "individual - single": 12.5,
    }
    assert found["individual - single"]["interval"] == [10.0, 15.0]


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        ManyModelsConfig(SOURCE, held=1.0)
    shipped = read_config("training/configs/many_models.toml", ManyModelsConfig)
    assert shipped.source.splits == ("outer", "validation")


@pytest.fixture
def config(data_path: Path) -> ManyModelsConfig:
    return replace(CONFIG, source=TaskSource("stars", data_path.name, "category"), steps=3)


def test_the_command_resumes(
    config: ManyModelsConfig, bundle_path: Path, data_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = many_models(config, data_path.parent, bundle_path, tmp_path / "whole", tmp_path / "cache")
    assert json.loads((tmp_path / "whole" / "many_models.json").read_text(encoding="utf-8")) == whole
    assert (tmp_path / "whole" / "many_models.png").stat().st_size > 5000
    page = (tmp_path / "whole" / "many_models.md").read_text(encoding="utf-8")
    assert all(what in page for what in whole["differs"])
    assert whole["points"]["2"]["categories"] == 2
    assert whole["points"]["1"]["individual - single"]["mean"] == 0.0  # of one category both are the same model

    first = replace(config, counts=(1,))
    many_models(first, data_path.parent, bundle_path, tmp_path / "parts", tmp_path / "cache")
    trained: list[int] = []
    original = command.train
    monkeypatch.setattr(command, "train", lambda start, own, how: trained.append(len(own)) or original(start, own, how))
    assert many_models(config, data_path.parent, bundle_path, tmp_path / "parts", tmp_path / "cache") == whole
    assert sorted(trained) == [1, 1, 2, 2]  # what K = 1 had trained is not trained again
    many_models(replace(config, rate=1e-3), data_path.parent, bundle_path, tmp_path / "parts", tmp_path / "cache")
    assert len(trained) == 4 + 8  # another rate: all anew


def test_people_are_tasks_too(config: ManyModelsConfig, bundle_path: Path, data_path: Path, tmp_path: Path) -> None:
    people = replace(config, source=TaskSource("stars", data_path.name, "person"), held=0.5)
    figures = many_models(people, data_path.parent, bundle_path, tmp_path / "out", tmp_path / "cache")
    assert "people draw the same photos" in figures["differs"]
    assert "| K | people seen in all |" in (tmp_path / "out" / "many_models.md").read_text(encoding="utf-8")


def test_the_command_refuses(config: ManyModelsConfig, bundle_path: Path, data_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="3 tasks asked for, stars has 2"):
        many_models(replace(config, counts=(3,)), data_path.parent, bundle_path, tmp_path, tmp_path)
    with pytest.raises(ConfigError, match="give --model a checkpoint"):
        many_models(replace(config, layers="projection"), data_path.parent, bundle_path, tmp_path, tmp_path)
