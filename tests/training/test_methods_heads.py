"""The protocol and the methods that change the last layer alone, against the device's evaluation and against brute force."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fgsbir_edge.adapt import AdaptOptions
from tests.training import methods_toys as toys
from training.config import ConfigError
from training.episodes import Task, gives
from training.episodic.methods.choose import ChoosingConfig, choose, choosing_tasks
from training.episodic.methods.closed import Centred, Prototype, Ridge
from training.episodic.methods.head import AdaptedHead, DescentConfig, Features, HeadMethod, Layer
from training.episodic.methods.protocol import ProtocolConfig, episodes, measure
from training.episodic.methods.settings import PEOPLE, Setting, open_setting
from training.evaluate_adaptation import Protocol, adaptation, protocol_tasks
from training.evaluate_table import Table

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    return toys.checkpoint(tmp_path_factory.mktemp("start") / "start.safetensors", shapes)


@pytest.fixture(scope="module")
def people(shapes: Path) -> Setting:
    return toys.setting(shapes, "person")


@pytest.fixture(scope="module")
def kinds(shapes: Path) -> Setting:
    return toys.setting(shapes, "category")


@pytest.fixture(scope="module")
def features(people: Setting, kinds: Setting, start: Path) -> dict[str, Features]:
    return {item.name: Features(item, start) for item in (people, kinds)}


@pytest.mark.parametrize("name", ["person", "category"])
def test_rows_are_what_the_device_evaluation_measures(
    name: str, people: Setting, kinds: Setting, features: dict[str, Features], start: Path, shapes: Path
) -> None:
    """Same draws, same figures as training.evaluate --protocol without its guard, task by task, before and after."""
    setting, layer, k = {"person": people, "category": kinds}[name], Layer.of(start), 3
    table = Table.read(shapes, "pairs.csv", "all" if name == "person" else "category")
    tasks = protocol_tasks(table, "user" if name == "person" else "category", k)
    own = features[name]
    own.prepare(setting.measured)
    sketch_row = {key: row for row, key in enumerate(setting.sketches)}
    photo_row = {key: row for row, key in enumerate(setting.photos)}
    sketches = own.sketches(np.array([sketch_row[pair.sketch] for pair in table.pairs])).numpy()
    photos = own.photos(np.array([photo_row[photo] for photo in table.photos])).numpy()
    head = DescentConfig(0.5, 3).head(layer)
    wanted = adaptation(sketches, photos, head, tasks, Protocol(k, 4, 0, AdaptOptions(guard=False)))
    protocol = ProtocolConfig((k,), 4, 0)
    before = measure(HeadMethod("none", layer, features), setting, setting.measured, k, protocol)
    after = measure(AdaptedHead("finetune_head", layer, features, head), setting, setting.measured, k, protocol)
    for found, when in ((before, "before"), (after, "after")):
        for at in (1, 5):
            by_task = dict(zip(found.tasks, (np.mean(row) for row in found.values[f"acc@{at}"]), strict=True))
            assert by_task == pytest.approx({task: figures[f"{when}@{at}"] for task, figures in wanted["by_task"].items()})
    assert before.values != after.values  # or the comparison would say little


def test_no_step_is_no_adaptation(people: Setting, features: dict[str, Features], start: Path) -> None:
    layer = Layer.of(start)
    method = AdaptedHead("finetune_head", layer, features, DescentConfig(0.5, 3).head(layer))
    protocol = ProtocolConfig((3,), 3)
    none = measure(HeadMethod("none", layer, features), people, people.measured, 3, protocol)
    assert measure(replace(method, steps=0), people, people.measured, 3, protocol) == none
    seven = measure(replace(method, steps=7), people, people.measured, 3, protocol)
    long = replace(method, head=DescentConfig(0.5, 7).head(layer))
    assert seven == measure(long, people, people.measured, 3, protocol) != none


def test_support_and_queries_share_no_photo_and_draws_repeat(kinds: Setting, features: dict[str, Features]) -> None:
    config = ProtocolConfig((3,), 5, 7)
    first, second = (list(episodes(kinds.measured, features["category"], 3, config)) for _ in range(2))
    assert len(first) == 10
    for (number, turn, one), (_, _, two) in zip(first, second, strict=True):
        truth = one.task.truth
        assert not set(truth[one.episode.support]) & set(truth[one.episode.query])
        assert one.episode.support.tolist() == two.episode.support.tolist()
        assert one.further.tolist() == two.further.tolist()
        assert set(one.further) | set(truth[one.episode.support]) == set(range(len(one.task.gallery)))
        assert one.further[0] == next(p for p in range(7) if p not in truth)  # the photo nobody drew comes first
        assert (number, turn) == (first.index((number, turn, one)) // 5, first.index((number, turn, one)) % 5)


def test_a_lone_pair_has_one_photo_to_be_told_from(kinds: Setting, features: dict[str, Features], start: Path) -> None:
    _, _, lone = next(episodes(kinds.measured, features["category"], 1, ProtocolConfig((1,), 1)))
    sketches, photos, places = lone.support(0)
    assert (len(sketches), len(photos), places.tolist()) == (1, 2, [0])
    _, _, more = next(episodes(kinds.measured, features["category"], 3, ProtocolConfig((3,), 1)))
    assert len(more.support(0)[1]) == len(np.unique(more.task.truth[more.episode.support]))
    layer = Layer.of(start)
    method = AdaptedHead("finetune_head", layer, features, DescentConfig(1.0, 5).head(layer))
    score = method.adapted(lone, np.random.default_rng(0))
    plain = HeadMethod("none", layer, features).adapted(lone, np.random.default_rng(0))
    query, gallery = lone.items.sketches(lone.task.sketches), lone.items.photos(lone.task.gallery)
    assert np.abs(score(query, gallery) - plain(query, gallery)).max() > 1e-3


def test_a_lone_pair_of_a_head_that_centres_takes_no_photo_and_no_step(
    kinds: Setting, features: dict[str, Features], start: Path
) -> None:
    layer, own = Layer.of(start), features["category"]
    head = replace(DescentConfig(0.5, 3).head(layer), centre=3.0)
    for _, turn, encoded in episodes(kinds.measured, own, 1, ProtocolConfig((1,), 1)):
        sketch, photos, _ = encoded.support(0)
        rows = own.sketches(encoded.task.sketches[encoded.episode.query])
        moved = F.normalize(layer.outputs(rows) - 0.25 * layer.outputs(sketch), dim=1)
        found = AdaptedHead("ours", layer, features, head).adapted(encoded, np.random.default_rng(turn))(rows, photos)
        np.testing.assert_allclose(found, moved @ F.normalize(layer.outputs(photos), dim=1).T, atol=1e-5)


def test_ridge_is_the_minimiser(people: Setting, features: dict[str, Features], start: Path) -> None:
    """The dual solution against normal equations for the whole D x (C+1) change in float64."""
    layer, strength = Layer.of(start), 0.7
    _, _, encoded = next(episodes(people.measured, features["person"], 5, ProtocolConfig((5,), 1)))
    sketches, photos, places = encoded.support(0)
    weight, bias = layer.weight.double(), layer.bias.double()
    x = torch.cat([sketches.double(), torch.ones(len(sketches), 1, dtype=torch.float64)], dim=1)
    outputs = sketches.double() @ weight.T + bias
    target = F.normalize(photos.double() @ weight.T + bias, dim=1)[torch.from_numpy(places)] * outputs.norm(dim=1, keepdim=True)
    gram = x.T @ x + strength * torch.eye(x.shape[1], dtype=torch.float64)
    change = torch.linalg.solve(gram, x.T @ (target - outputs))  # [C+1,D]
    task = encoded.task
    query, gallery = encoded.items.sketches(task.sketches), encoded.items.photos(task.gallery)
    q = torch.cat([query.double(), torch.ones(len(query), 1, dtype=torch.float64)], dim=1)
    moved = F.normalize(query.double() @ weight.T + bias + q @ change, dim=1)
    expected = moved @ F.normalize(gallery.double() @ weight.T + bias, dim=1).T
    rng = np.random.default_rng(0)
    found = Ridge("ridge", layer, features, strength).adapted(encoded, rng)(query, gallery)
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)
    none = HeadMethod("none", layer, features).adapted(encoded, rng)(query, gallery)
    weak = Ridge("ridge", layer, features, 1e9).adapted(encoded, rng)(query, gallery)
    np.testing.assert_allclose(weak, none, atol=1e-5)
    assert np.abs(found - none).max() > 1e-3


def test_ridge_without_regularisation_puts_the_support_on_its_photos(
    people: Setting, features: dict[str, Features], start: Path
) -> None:
    layer = Layer.of(start)
    _, _, encoded = next(episodes(people.measured, features["person"], 3, ProtocolConfig((3,), 1)))
    sketches, photos, places = encoded.support(0)
    score = Ridge("ridge", layer, features, 1e-6).adapted(encoded, np.random.default_rng(0))
    assert score(sketches, photos)[np.arange(3), places] == pytest.approx(np.ones(3), abs=5e-3)


def test_prototype_moves_sketches_by_the_support_mean(people: Setting, features: dict[str, Features], start: Path) -> None:
    layer = Layer.of(start)
    _, _, encoded = next(episodes(people.measured, features["person"], 3, ProtocolConfig((3,), 1)))
    sketches, photos, places = encoded.support(0)
    rng = np.random.default_rng(0)
    ours = F.normalize(layer.outputs(sketches), dim=1).numpy()
    theirs = F.normalize(layer.outputs(photos), dim=1).numpy()
    moved = ours + 0.5 * (theirs[places].mean(0) - ours.mean(0))
    expected = moved / np.linalg.norm(moved, axis=1, keepdims=True) @ theirs.T
    found = Prototype("prototype", layer, features, 0.5).adapted(encoded, rng)(sketches, photos)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    still = Prototype("prototype", layer, features, 0.0).adapted(encoded, rng)(sketches, photos)
    np.testing.assert_allclose(still, ours @ theirs.T, atol=1e-6)


def test_centred_sketches_lose_what_the_support_has_in_common(
    people: Setting, features: dict[str, Features], start: Path
) -> None:
    layer = Layer.of(start)
    _, _, encoded = next(episodes(people.measured, features["person"], 3, ProtocolConfig((3,), 1)))
    sketches, photos, _ = encoded.support(0)
    ours, theirs = (F.normalize(layer.outputs(side), dim=1).numpy() for side in (sketches, photos))
    for prior, share in ((0.0, 1.0), (3.0, 0.5), (1e9, 0.0)):
        moved = ours - share * ours.mean(0)
        expected = moved / np.linalg.norm(moved, axis=1, keepdims=True) @ theirs.T
        found = Centred("centred", layer, features, prior).adapted(encoded, np.random.default_rng(0))(sketches, photos)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_options_are_chosen_on_training_tasks(people: Setting, features: dict[str, Features], start: Path) -> None:
    layer, config = Layer.of(start), ChoosingConfig(2, 2, 1)
    shares = (0.0, 0.4, 0.8)
    asked: list[float] = []

    def build(share: float) -> Prototype:
        asked.append(share)
        return Prototype("prototype", layer, features, share)

    chosen, scores = choose(shares, build, people, 3, config)
    assert asked == list(shares)
    protocol = ProtocolConfig((3,), 2, 1)
    expected = [measure(build(share), people, people.choosing, 3, protocol).mean("acc@1") for share in shares]
    assert scores == pytest.approx(expected, abs=0.01)
    assert chosen == shares[int(np.argmax(expected))]
    assert choose((0.4,), build, people, 3, config) == (0.4, [])


def test_choosing_falls_back_on_tasks_that_are_large_enough(people: Setting) -> None:
    small = Task("few", np.arange(2), np.arange(2), np.arange(2))
    setting = replace(people, choosing=(small,))
    assert [task.name for task in choosing_tasks(setting, 1, ChoosingConfig())] == ["few"]
    assert {task.name for task in choosing_tasks(setting, 5, ChoosingConfig())} == {"ann", "bob"}
    assert not choosing_tasks(setting, 50, ChoosingConfig())


def test_tasks_too_small_for_k_are_left_out(people: Setting, features: dict[str, Features], start: Path) -> None:
    method, protocol = HeadMethod("none", Layer.of(start), features), ProtocolConfig((11,), 1)
    assert measure(method, people, people.measured, 11, protocol).tasks == ("ann", "bob")
    assert not gives(people.measured[0], 12)
    with pytest.raises(ValueError, match="no task can give 12 support pairs"):
        measure(method, people, people.measured, 12, protocol)


def test_a_known_split_keeps_what_is_measured_out_of_training(tmp_path: Path) -> None:
    """Made-up drawings32: 30 people, 4 kinds of 8 objects; no drawing needs to be there for tasks to be cut."""
    root = tmp_path / "drawings32"
    lines = ["sketch,photo,category,user"]
    for kind in ("bird", "car", "chair", "dog"):
        for number in range(8):
            (root / "photos").mkdir(parents=True, exist_ok=True)
            (root / "photos" / f"{kind}{number}.png").touch()
            lines += [f"u{user}/{kind}{number}.png,{kind}{number}.png,{kind},u{user}" for user in range(30)]
    (root / "pairs.csv").write_text("\n".join(lines))
    found = open_setting(PEOPLE, tmp_path)
    parts = {"measured": found.measured, "training": found.training, "choosing": found.choosing}
    photos = {part: {row for task in tasks for row in task.gallery} for part, tasks in parts.items()}
    people = {part: {task.name for task in tasks} for part, tasks in parts.items()}
    assert (len(photos["measured"]), len(photos["training"]), len(photos["choosing"])) == (16, 16, 8)
    assert not photos["measured"] & photos["training"]
    assert photos["choosing"] < photos["training"]
    assert len(people["measured"]) == 4
    assert not people["measured"] & people["training"]
    with pytest.raises(ConfigError, match="there is no set 'drawings'; there are drawings32_people"):
        open_setting(replace(PEOPLE, measured="drawings"), tmp_path)
