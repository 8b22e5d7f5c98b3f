"""Inner loops over the network's weights: against derivatives by hand, finite differences, plain copies and the span form."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.func import functional_call

from tests.training import methods_toys as toys
from training.checkpoint import load_model, read_meta
from training.episodic.methods.head import Features, HeadMethod, Layer
from training.episodic.methods.network import InnerConfig, NetworkMethod, descend, support_loss
from training.episodic.methods.outer import OuterConfig, TailTraining, gallery_of, query_loss
from training.episodic.methods.protocol import EncodedEpisode, ProtocolConfig, episodes, measure
from training.episodic.methods.run import LoopConfig, finished
from training.episodic.methods.settings import Setting
from training.episodic.methods.tail import Activations, Maps, Tail
from training.inner_loop import Support, adapt, adapted_outputs
from training.run_state import ResumeError

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    return toys.checkpoint(tmp_path_factory.mktemp("start") / "start.safetensors", shapes)


@pytest.fixture(scope="module")
def people(shapes: Path) -> Setting:
    return toys.setting(shapes, "person")


@pytest.fixture(scope="module")
def activations(people: Setting, start: Path) -> Activations:
    """What a tail of two modules takes of the shapes."""
    return Activations(people, *Tail.load(start, 2))


def an_episode(setting: Setting, activations: Activations, k: int = 3) -> EncodedEpisode:
    return next(episodes(setting.measured, activations, k, ProtocolConfig((k,), 1)))[2]


@pytest.mark.parametrize(("order", "value", "slope"), [("second", 2.0, 0.6), ("first", 2.0, 1.0), ("sign", 2.9, 1.0)])
def test_one_step_and_its_derivative_by_hand(order: str, value: float, slope: float) -> None:
    """L(w) = (2w-1)^2 / 2 at w = 3: gradient 10, curvature 4; w' = w - 0.1 * 10, dw'/dw = 1 - 0.1 * 4, or 1 to first order."""
    w = torch.tensor(3.0, requires_grad=True)
    found = descend({"w": w}, lambda at: 0.5 * (2.0 * at["w"] - 1.0) ** 2, InnerConfig(0.1, 1, order))["w"]  # type: ignore[arg-type]
    assert found.item() == pytest.approx(value)
    assert torch.autograd.grad(found, w)[0].item() == pytest.approx(slope)


def test_steps_follow_each_other_and_a_rate_learns() -> None:
    """w'' = w' - 0.1 * 6; its derivative for the rate is -6 of the second step and -10 * 0.6 of the first."""

    def loss(at: dict[str, torch.Tensor]) -> torch.Tensor:
        return 0.5 * (2.0 * at["w"] - 1.0) ** 2

    w, rate = torch.tensor(3.0, requires_grad=True), torch.tensor(0.1, requires_grad=True)
    weights = {"w": w, "other": torch.ones(2, requires_grad=True)}
    found = descend(weights, loss, InnerConfig(9.9, 2, "second"), rate)
    assert found["w"].item() == pytest.approx(1.4)
    slopes = torch.autograd.grad(found["w"], (w, rate))
    assert slopes[0].item() == pytest.approx(0.36)
    assert slopes[1].item() == pytest.approx(-10.0 - 6.0 + 0.1 * 4.0 * 10.0)
    assert found["other"].tolist() == [1.0, 1.0]
    assert descend(weights, loss, InnerConfig(steps=0))["w"] is w


@pytest.mark.parametrize("modules", [0, 1, 3, 1000])
def test_cut_in_two_the_network_computes_what_it_did(start: Path, modules: int) -> None:
    tail, spec = Tail.load(start, modules)
    encoder, head, _ = load_model(start)
    pixels = torch.randn(2, 3, spec.size, spec.size, generator=torch.Generator().manual_seed(0))
    maps = tail.before(pixels)
    with torch.no_grad():
        torch.testing.assert_close(tail(maps), head.linear(encoder(pixels)))
    assert tail.whole is (modules == 1000)
    assert not any(level.requires_grad for level in maps)
    learned = tail.learned()
    behind = [name for name in learned if name.startswith("encoder.backbone.")]
    assert bool(behind) is (modules > 0)
    assert {"encoder.projection.weight", "head.linear.weight"} <= set(learned)
    assert len({id(level) for level in maps}) == len(maps)


def test_activations_are_kept_and_versions_repeat(people: Setting, start: Path) -> None:
    rows = np.array([3, 0, 3])
    one, two = (Activations(people, *Tail.load(start, 2)) for _ in range(2))
    for first, second in zip(one.sketches(rows, 1), two.sketches(np.array([0, 3]), 1), strict=True):
        assert torch.equal(first[0], first[2])
        torch.testing.assert_close(first[:2].flip(0), second, rtol=1e-4, atol=1e-4)
    assert len(one.known) == 2
    clean, augmented = one.photos(rows[:1])[0], one.photos(rows[:1], 1)[0]
    assert not torch.allclose(clean, augmented, atol=1e-3)
    whole = Activations(people, *Tail.load(start, 1000))
    assert whole.photos(rows[:1])[-1].shape[1:] == (3, toys.SIZE, toys.SIZE)
    assert not whole.known


def test_with_the_head_alone_it_is_the_span_form(people: Setting, activations: Activations) -> None:
    """Steps on W and b alone through the whole tail, against training.inner_loop over its features, both outputs."""
    tail, encoded = copy.deepcopy(activations.tail).double(), an_episode(people, activations)
    episode = EncodedEpisode(encoded.episode, Doubled(activations), encoded.further)
    config = InnerConfig(0.4, 3, "first")
    names = ("head.linear.weight", "head.linear.bias")
    own = {name: tail.learned()[name].detach() for name in names}
    weights = descend(own, support_loss(tail, episode, config), config)
    sketches, photos, places = episode.support(0)
    features = [feature_rows(tail, maps) for maps in (sketches, photos)]
    rows = torch.cat([features[0], features[1][torch.from_numpy(places)]])[None]
    support = Support(rows, torch.from_numpy(places[:, None] != places[None, :]).double()[None])
    weight, bias = own.values()
    rates, margin = torch.full((3,), 0.4, dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    learned = adapt(weight, bias, support, rates, margin, second_order=False)
    query = episode.items.sketches(episode.task.sketches)
    expected = adapted_outputs(weight, bias, support, learned, feature_rows(tail, query)[None])[0]
    found = functional_call(tail, weights, (query,))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    assert (found - tail(query)).abs().max() > 1e-3


def feature_rows(tail: Tail, maps: Maps) -> torch.Tensor:
    """What the head of a tail sees."""
    seen: list[torch.Tensor] = []
    handle = tail.head.linear.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        tail(maps)
    handle.remove()
    return seen[0]


def test_a_sign_step_is_that_of_a_copy(people: Setting, activations: Activations) -> None:
    tail, episode = activations.tail, an_episode(people, activations)
    config = InnerConfig(1e-3, 1, "sign")
    own = {name: item.detach() for name, item in tail.learned().items()}
    found = descend(own, support_loss(tail, episode, config), config)
    twin = copy.deepcopy(tail)
    loss = support_loss(twin, episode, config)(dict(twin.named_parameters()))
    loss.backward()
    for name, parameter in twin.learned().items():
        assert parameter.grad is not None
        torch.testing.assert_close(found[name], parameter.detach() - 1e-3 * parameter.grad.sign())


def test_second_order_gradient_agrees_with_finite_differences(people: Setting, activations: Activations) -> None:
    """The derivative of the query loss after two inner steps, along one direction of all weights, in float64."""
    tail = copy.deepcopy(activations.tail).double()
    task = people.measured[0]
    encoded = an_episode(people, activations)
    doubled = EncodedEpisode(encoded.episode, Doubled(activations), encoded.further)
    query = encoded.episode.query[:4]
    gallery, truth = gallery_of(task, query, 3, np.random.default_rng(0))
    maps = doubled.items.sketches(task.sketches[query]), doubled.items.photos(task.gallery[gallery])
    generator = torch.Generator().manual_seed(1)
    base = {name: item.detach() for name, item in tail.learned().items()}
    along = {name: torch.randn(item.shape, generator=generator, dtype=torch.float64) for name, item in base.items()}
    length = torch.stack([item.norm() for item in along.values()]).norm()

    def value(amount: float | torch.Tensor, order: str) -> torch.Tensor:
        inner = InnerConfig(0.3, 2, order)  # type: ignore[arg-type]
        weights = {name: item + amount * along[name] / length for name, item in base.items()}
        learned = descend(weights, support_loss(tail, doubled, inner), inner)
        sketches, photos = (F.normalize(functional_call(tail, learned, (part,)), dim=1) for part in maps)
        return query_loss(sketches @ photos.T, truth, OuterConfig(temperature=0.2))

    slopes = {}
    for order in ("second", "first"):
        amount = torch.zeros((), dtype=torch.float64, requires_grad=True)
        slopes[order] = torch.autograd.grad(value(amount, order), amount)[0].item()
    step = 1e-5
    expected = (value(step, "second") - value(-step, "second")).item() / (2 * step)
    assert slopes["second"] == pytest.approx(expected, rel=1e-4)
    assert slopes["first"] != pytest.approx(expected, rel=1e-2)


class Doubled:
    """Items in float64."""

    def __init__(self, activations: Activations) -> None:
        self.activations = activations

    def sketches(self, rows: np.ndarray) -> Maps:
        return tuple(level.double() for level in self.activations.sketches(rows))

    def photos(self, rows: np.ndarray) -> Maps:
        return tuple(level.double() for level in self.activations.photos(rows))


def test_without_steps_it_is_no_adaptation(people: Setting, activations: Activations, start: Path) -> None:
    items = {"person": activations}
    still = NetworkMethod("finetune", activations.tail, items, InnerConfig(steps=0))
    moving = NetworkMethod("finetune", activations.tail, items, InnerConfig(0.5, 2, "second"))
    plain = HeadMethod("none", Layer.of(start), {"person": Features(people, start)})
    protocol, k = ProtocolConfig((3,), 2), 3
    assert measure(still, people, people.measured, k, protocol) == measure(plain, people, people.measured, k, protocol)
    episode, rng = an_episode(people, activations), np.random.default_rng(0)
    before = {name: item.clone() for name, item in activations.tail.learned().items()}
    query, gallery = activations.sketches(people.measured[0].sketches), activations.photos(people.measured[0].gallery)
    moved = moving.adapted(episode, rng)(query, gallery) - still.adapted(episode, rng)(query, gallery)
    assert np.abs(moved).max() > 1e-3
    assert all(torch.equal(item, before[name]) for name, item in activations.tail.learned().items())  # an episode leaves no trace


def test_triplet_query_loss_by_hand() -> None:
    """Distances 0 to the own photo, sqrt 2 and 2 to the others: 0.3 - sqrt 2 and 0.3 - 2 are no violation, margin 1.6 is one."""
    similarities, truth = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([0])
    assert query_loss(similarities, truth, OuterConfig(loss="triplet")).item() == pytest.approx(0.0, abs=1e-5)
    found = query_loss(similarities, truth, OuterConfig(loss="triplet", margin=1.6))
    assert found.item() == pytest.approx((1.6 - 2**0.5) / 2, abs=1e-4)


def test_training_goes_on_exactly_and_leaves_the_first_part(
    people: Setting, activations: Activations, start: Path, tmp_path: Path
) -> None:
    def train(folder: Path, steps: int, rate: float = 1e-3) -> Path:
        outer = OuterConfig(LoopConfig(steps, 2, threads=1), rate, tasks=1, k=3, queries=3, others=3, learn_rate=True)
        tail, _ = Tail.load(start, 2)
        training = TailTraining(tail, activations, people.training, InnerConfig(0.1, 1, "second"), outer)
        meta = {"input": read_meta(start)["input"]}
        return training.fit(folder, meta, {"rate": rate})

    whole, parts = train(tmp_path / "whole", 4), train(tmp_path / "parts", 2)
    assert finished(tmp_path / "parts", 2, {"rate": 1e-3})
    assert not finished(tmp_path / "parts", 4, {"rate": 1e-3})
    assert not finished(tmp_path / "parts", 2, {"rate": 1e-2})
    middle = load_file(parts)
    assert train(tmp_path / "parts", 4) == parts
    expected, found, first = load_file(whole), load_file(parts), load_file(start)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not torch.equal(middle["head.linear.weight"], found["head.linear.weight"])
    assert any(name.endswith("running_var") for name in first)
    kept = {name for name in first if torch.equal(first[name], found[name])}
    learned = set(Tail.load(start, 2)[0].learned())
    assert kept
    assert not kept & {name for name in learned if name.endswith("weight")}
    assert {name for name in first if name.startswith("encoder.backbone.")} - learned <= kept  # batch norm statistics too
    assert read_meta(whole)["inner_rate"] != pytest.approx(0.1, abs=1e-6)
    with pytest.raises(ResumeError, match="rate was 0"):
        train(tmp_path / "parts", 6, 1e-2)
