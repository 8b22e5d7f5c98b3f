"""Methods that look at no support: traits of the query sketch (CC-DG), and the upper bound by folds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.training import methods_toys as toys
from training.episodes import Task
from training.episodic.methods.head import Features, HeadMethod, Layer
from training.episodic.methods.outer import OuterConfig
from training.episodic.methods.protocol import ProtocolConfig, episodes, measure
from training.episodic.methods.run import LoopConfig
from training.episodic.methods.settings import Setting
from training.episodic.methods.traits import TraitHead, Traits, TraitsConfig, find_traits, load_traits, train_traits
from training.episodic.methods.upper import Folded, Upper, UpperConfig, deal, fold_tasks, without

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    return toys.checkpoint(tmp_path_factory.mktemp("start") / "start.safetensors", shapes)


@pytest.fixture(scope="module")
def kinds(shapes: Path) -> Setting:
    return toys.setting(shapes, "category")


@pytest.fixture(scope="module")
def features(kinds: Setting, start: Path) -> Features:
    return Features(kinds, start)


def test_traits_are_the_centres_of_what_lies_together() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.eye(6)[:3]
    rows = F.normalize(directions.repeat_interleave(20, 0) + 0.05 * torch.randn(60, 6, generator=generator), dim=1)
    found = find_traits(rows, 3, 0)
    assert (found @ directions.T).amax(1).min() > 0.99
    assert sorted((found @ directions.T).argmax(1).tolist()) == [0, 1, 2]
    assert torch.equal(found, find_traits(rows, 3, 0))
    assert find_traits(rows[:2], 5, 0).shape == (2, 6)
    same = rows[:1].expand(4, 6)
    torch.testing.assert_close(find_traits(same, 2, 0), same[:2])


def test_traits_change_the_metric_for_each_query() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = Layer(torch.randn(4, 6, generator=generator), torch.zeros(4))
    sketches, photos = (F.normalize(torch.randn(n, 6, generator=generator), dim=1) for n in (2, 3))
    model = TraitHead(layer, F.normalize(torch.randn(5, 6, generator=generator), dim=1), 0.1)
    plain = F.normalize(layer.outputs(sketches), dim=1) @ F.normalize(layer.outputs(photos), dim=1).T
    torch.testing.assert_close(model(sketches, photos), plain)
    assert model.place(sketches).sum(1).tolist() == pytest.approx([1.0, 1.0])
    with torch.no_grad():
        model.gains.copy_(torch.randn(6, 5, generator=generator))
        found = model(sketches, photos)
        gains = 1.0 + model.place(sketches[:1]) @ model.gains.T
        own = F.normalize(layer.outputs(sketches[:1] * gains), dim=1) @ F.normalize(layer.outputs(photos * gains), dim=1).T
    torch.testing.assert_close(found[:1], own)
    assert (found - plain).abs().max() > 0.05


def test_traits_train_and_load(kinds: Setting, features: Features, start: Path, tmp_path: Path) -> None:
    layer = Layer.of(start)
    outer = OuterConfig(LoopConfig(3, 3, threads=1), 0.05, tasks=1, k=1, queries=4, versions=1)
    path = train_traits(features, layer, kinds.training, TraitsConfig(4, 0.1, outer), tmp_path / "ccdg", {"row": "ccdg"})
    model = load_traits(path, layer)
    assert model.gains.abs().max() > 0.01
    assert not torch.equal(model.weight, layer.weight)
    method = Traits("ccdg", layer, {"category": features}, model)
    _, _, encoded = next(episodes(kinds.measured, features, 3, ProtocolConfig((3,), 1)))
    query, gallery = features.sketches(encoded.task.sketches), features.photos(encoded.task.gallery)
    score = method.adapted(encoded, np.random.default_rng(0))
    np.testing.assert_allclose(score(query, gallery), model(query, gallery).detach().numpy(), atol=1e-6)


def test_no_fold_trains_on_its_photos(kinds: Setting) -> None:
    config = UpperConfig(3, 0.5)
    dealt = deal(kinds, 3)
    drawn = {int(row) for task in kinds.measured for row in task.gallery[task.truth]}
    assert set(dealt) == drawn
    categories = [kinds.folder.photo_category[kinds.photos[row]] for row in dealt]
    for category in set(categories):
        folds = [fold for fold, own in zip(dealt.values(), categories, strict=True) if own == category]
        assert sorted(folds) == [0, 0, 1, 1, 2, 2]
    for fold in range(3):
        held = {row for row, own in dealt.items() if own == fold}
        tasks = fold_tasks(kinds, fold, config)
        assert tasks
        for task in tasks:
            assert not held & set(task.gallery.tolist())
            names = [kinds.photos[row] for row in task.gallery[task.truth]]
            assert names == [kinds.pair_of[kinds.sketches[row]].photo for row in task.sketches]


def test_measured_tasks_have_their_share(kinds: Setting) -> None:
    training = tuple(replace(kinds.measured[0], name=f"training{number}") for number in range(6))
    names = [task.name for task in fold_tasks(replace(kinds, training=training), 0, UpperConfig(3, 0.5))]
    assert sum(name.startswith("training") for name in names) == 6
    assert len(names) == 12
    names = [task.name for task in fold_tasks(replace(kinds, training=training[:1]), 0, UpperConfig(3, 0.5))]
    assert sum(name.startswith("training") for name in names) == 2
    assert len(names) == 4


def test_a_task_of_one_photo_does_not_train() -> None:
    task = Task("few", np.array([4, 5, 6]), np.array([0, 1, 0]), np.array([10, 11, 12]))
    assert without(task, {10}) is None
    left = without(task, {12})
    assert left is not None
    assert (left.truth.tolist(), left.gallery.tolist()) == ([0, 1, 0], [10, 11])


def test_queries_are_answered_by_the_network_that_has_not_seen_their_photo(
    kinds: Setting, features: Features, start: Path
) -> None:
    layer = Layer.of(start)
    other = Layer(layer.weight.flip(1), layer.bias)
    folded = Folded(kinds, [features, features], [layer, other])
    method = Upper("upper", {"category": folded})
    dealt = deal(kinds, 2)
    task = kinds.measured[0]
    _, _, encoded = next(episodes(kinds.measured, method.items(kinds, kinds.measured), 3, ProtocolConfig((3,), 1)))
    score = method.adapted(encoded, np.random.default_rng(0))
    found = score(folded.sketches(task.sketches), folded.photos(task.gallery))
    assert {dealt[int(row)] for row in task.gallery[task.truth]} == {0, 1}
    for index, (row, true) in enumerate(zip(task.sketches, task.truth, strict=True)):
        own = (layer, other)[dealt[int(task.gallery[true])]]
        plain = HeadMethod("none", own, {"category": features}).adapted(encoded, np.random.default_rng(0))
        expected = plain(features.sketches(np.array([row])), features.photos(task.gallery))
        np.testing.assert_allclose(found[index], expected[0], atol=1e-5)
    figures = measure(method, kinds, kinds.measured, 3, ProtocolConfig((3,), 2))
    assert figures.tasks == ("box", "disc")
