"""Margins, step sizes, the outer loss and what of the encoder trains: which gradients there are, and which not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.training.episodic_toys import EMBEDDING, WIDTH, objective, stream, tiny_encoder, world
from training.config import ConfigError
from training.episodic.config import EpisodeConfig, FeatureConfig, InnerConfig, MarginConfig, OuterConfig
from training.episodic.model import Trunk, fold_gain, select_trained
from training.episodic.outer import Objective, query_loss, support_sets
from training.episodic.regularisers import RegulariserConfig, Regularisers
from training.episodic.stream import EpisodeBatch
from training.episodic.trainer import gradient_norms
from training.inner_loop import Support

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def batch() -> EpisodeBatch:
    domain, _, source = world()
    return stream(domain, source).batch(0)


def norms(made: Objective, batch: EpisodeBatch) -> dict[str, float]:
    loss, _ = made(batch)
    loss.backward()
    return gradient_norms(made)


@pytest.mark.parametrize("design", ["distances", "gradient"])
def test_outer_gradient_reaches_margin_and_step_sizes(batch: EpisodeBatch, design: str) -> None:
    """METHODS C.5: by a smooth inner loss and second order alone."""
    margin = MarginConfig(design)  # type: ignore[arg-type]
    smooth = norms(objective(margin=margin), batch)
    assert smooth["gradient/margin"] > 1e-5
    assert smooth["gradient/rates"] > 1e-4
    hinge = norms(objective(InnerConfig(sharpness=0.0), margin), batch)
    assert hinge["gradient/margin"] == 0.0
    assert hinge["gradient/rates"] > 1e-4
    first = norms(objective(InnerConfig(second_order=False), margin), batch)
    assert first["gradient/margin"] == 0.0
    assert first["gradient/rates"] == pytest.approx(smooth["gradient/rates"], rel=1e-5)  # of one step it is the same


def test_the_margin_gradient_is_that_of_finite_differences(batch: EpisodeBatch) -> None:
    made = objective().double()
    doubled = EpisodeBatch(batch.domain, batch.sketches.double(), batch.photos.double(), batch.episodes, batch.joint)
    bias = made.model.margin_design.net.third.bias  # type: ignore[union-attr]
    loss, _ = made(doubled)
    (gradient,) = torch.autograd.grad(loss, bias)
    values = []
    for change in (1e-4, -1e-4):
        with torch.no_grad():
            bias += change
            values.append(made(doubled)[0].item())
            bias -= change
    assert float(gradient) == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-4)
    assert abs(float(gradient)) > 1e-6


@pytest.mark.parametrize("design", ["distances", "gradient"])
def test_margins_differ_between_tasks_and_lie_between_0_and_1(batch: EpisodeBatch, design: str) -> None:
    made = objective(margin=MarginConfig(design))  # type: ignore[arg-type]
    support = support_sets(batch.episodes, made.features(batch.sketches), made.features(batch.photos))
    margins = made.model.margin(support).detach()
    assert margins.shape == (3,)
    assert margins.std().item() > 0
    assert ((margins > 0) & (margins < 1)).all()
    order = torch.tensor([2, 0, 1, 5, 3, 4])  # a support set has no order
    turned = Support(support.features[:, order], support.mask[:, order[:3]][:, :, order[:3]])
    torch.testing.assert_close(made.model.margin(turned), margins)
    _, values = made(batch)
    assert float(values["margin/mean"]) == pytest.approx(margins.mean().item(), rel=1e-5)
    assert float(values["margin/spread"]) == pytest.approx(margins.std(correction=0).item(), rel=1e-4)


def test_a_fixed_margin_and_fixed_step_sizes(batch: EpisodeBatch) -> None:
    made = objective(InnerConfig(steps=3, rates="shared", learn_rates=False), MarginConfig("fixed", 0.4))
    assert made.model.rates.tolist() == [0.5] * 3
    assert set(norms(made, batch)) == {"gradient/gains", "gradient/head"}
    _, values = made(batch)
    assert (float(values["margin/mean"]), float(values["margin/spread"])) == (pytest.approx(0.4), 0.0)
    shared = objective(InnerConfig(steps=3, rates="shared"))
    assert len(shared.model.step_sizes) == 1
    assert norms(shared, batch)["gradient/rates"] > 0


@pytest.mark.parametrize("drawn", [0, 2])
@pytest.mark.parametrize("sharpness", [0.0, 5.0])
def test_triplet_loss_is_the_papers(drawn: int, sharpness: float) -> None:
    """Against a loop over triplets on distances; drawn negatives or all."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4 + 5, 3))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    sketches, photos, truth = z[:4], z[4:], np.array([0, 3, 3, 1])
    negatives = np.stack([rng.permutation([p for p in range(5) if p != t])[:drawn] for t in truth]).astype(np.int64)
    every = []
    for row, own in enumerate(truth):
        for other in negatives[row] if drawn else [p for p in range(5) if p != own]:
            gap = 0.3 + np.linalg.norm(sketches[row] - photos[own]) - np.linalg.norm(sketches[row] - photos[other])
            every.append(np.log1p(np.exp(sharpness * gap)) / sharpness if sharpness else max(0.0, gap))
    config = OuterConfig("triplet", margin=0.3, sharpness=sharpness)
    scores = torch.from_numpy(sketches @ photos.T)
    found = query_loss(scores, torch.from_numpy(truth), torch.from_numpy(negatives), config)
    assert found.item() == pytest.approx(np.mean(every), rel=1e-6)


def test_shares_of_base_head_and_shown_photos(batch: EpisodeBatch) -> None:
    """The loss is linear in both shares, and they are shares of what they say."""

    def loss(base: float, shown: float) -> float:
        return float(objective(outer=OuterConfig(base_weight=base, shown_weight=shown))(batch)[1]["loss/outer"])

    corners = {(base, shown): loss(base, shown) for base in (0.0, 1.0) for shown in (0.0, 1.0)}
    assert len(set(corners.values())) == 4
    mixed = sum(
        (base * 0.5 + (1 - base) * 0.5) * (shown * 0.2 + (1 - shown) * 0.8) * value for (base, shown), value in corners.items()
    )
    assert loss(0.5, 0.2) == pytest.approx(mixed, rel=1e-5)
    made = objective(outer=OuterConfig(base_weight=1.0, shown_weight=0.0))
    sketches, photos = made.features(batch.sketches), made.features(batch.photos)
    drawn, shown = (F.normalize(made.model.head(side), dim=1) for side in (sketches, photos))
    plain = [F.cross_entropy(drawn[item.query] @ shown[item.gallery].T / 0.07, item.query_truth) for item in batch.episodes]
    assert corners[1.0, 0.0] == pytest.approx(torch.stack(plain).mean().item(), rel=1e-5)


def test_where_nothing_is_shown_again_queries_have_the_whole_weight() -> None:
    domain, _, source = world()
    still = stream(domain, source, EpisodeConfig((3,), 2, 4, augment="none")).batch(0)
    assert not len(still.episodes[0].shown)
    with_share, without = (objective(outer=OuterConfig(shown_weight=share))(still)[0] for share in (0.7, 0.0))
    assert with_share.item() == pytest.approx(without.item())


def test_regularisers_act_on_features_in_the_outer_loop_alone(batch: EpisodeBatch) -> None:
    domain, _, source = world()
    names = stream(domain, source).categories["person"]
    made = objective()
    regularised = Objective(
        made.trunk, made.model, made.config, {"person": Regularisers(WIDTH, names, "person", RegulariserConfig(hidden=4))}
    )
    plain, values = made(batch)
    total, more = regularised(batch, 0.5)
    assert float(more["loss/outer"]) == float(values["loss/outer"]) == float(plain.detach())
    assert total.item() == pytest.approx(plain.item() + float(more["loss/domain"]) + float(more["loss/intra"]), rel=1e-5)
    assert "domain/accuracy" in more
    total.backward()
    assert gradient_norms(regularised)["gradient/regularisers"] > 0
    other = objective()
    other(batch)[0].backward()
    assert not torch.allclose(made.model.log_gain.grad, other.model.log_gain.grad)  # type: ignore[arg-type]
    torch.testing.assert_close(made.model.head.weight.grad, other.model.head.weight.grad)


def test_processes_that_train_together_agree_on_parameters(batch: EpisodeBatch) -> None:
    made = objective(InnerConfig(sharpness=0.0))
    made.together = True
    made(batch)[0].backward()
    assert all(item.grad is not None for item in made.parameters() if item.requires_grad)


def test_scores_move_the_side_that_they_should(batch: EpisodeBatch) -> None:
    for side, moved in (("sketch", False), ("both", True)):
        made = objective(InnerConfig(side=side, rate=2.0))  # type: ignore[arg-type]
        sketches, photos = made.features(batch.sketches), made.features(batch.photos)
        support = support_sets(batch.episodes[:1], sketches, photos)
        learned = made.model.adapt(support)
        base = made.model.embed(photos, support, None)
        scores = made.model.scores(sketches, photos, support, learned)
        with_base_photos = made.model.embed(sketches, support, learned) @ base.T
        assert torch.allclose(scores, with_base_photos) is not moved


@pytest.mark.parametrize(
    ("train", "backbone", "projection"),
    [("none", 0.0, False), ("projection", 0.0, True), ("last stage", 0.5, True), ("all", 1.0, True)],
)
def test_what_of_the_encoder_trains(train: str, backbone: float, projection: bool) -> None:
    encoder = tiny_encoder()
    stages = [stage for _, stage in encoder.backbone.steps if stage]
    select_trained(encoder, stages[-1] if train == "last stage" else train)
    trained = [item.requires_grad for item in encoder.backbone.parameters()]
    assert 0 < np.mean(trained) < 1 if backbone == 0.5 else np.mean(trained) == backbone
    assert all(item.requires_grad is projection for item in encoder.projection.parameters())
    if backbone == 0.5:
        assert trained == sorted(trained)  # from the stage on
        assert trained[-1]


def test_an_unknown_stage_is_named() -> None:
    with pytest.raises(ConfigError, match='expected "none", "projection", "all" or one of'):
        select_trained(tiny_encoder(), "block99")
    with pytest.raises(ValueError, match='source = "pixels"'):
        FeatureConfig(train="all")


def test_images_in_chunks_give_the_same_gradient() -> None:
    pixels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gradients = []
    for chunk in (0, 2):
        trunk = Trunk(tiny_encoder(), "pixels", "all", chunk).train()
        assert not trunk.encoder.training
        trunk(pixels).square().sum().backward()
        gradients.append([item.grad for item in trunk.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_gains_are_folded_into_the_projection() -> None:
    encoder = tiny_encoder()
    made = objective()
    with torch.no_grad():
        made.model.log_gain.copy_(torch.linspace(-1, 1, WIDTH))
        pooled = torch.randn(3, encoder.config.pooled)
        wanted = made.model.features(encoder.projection(pooled))
        fold_gain(encoder, made.model.log_gain)
        torch.testing.assert_close(encoder.project(pooled), wanted)


def test_model_is_of_the_head_it_was_given() -> None:
    made = objective()
    assert made.model.head.weight.shape == (EMBEDDING, WIDTH)
    assert set(made.trained_state()) == {
        "model.head.weight",
        "model.head.bias",
        "model.log_gain",
        "model.step_sizes",
        *(f"model.margin_design.net.{name}.{kind}" for name in ("first", "second", "third") for kind in ("weight", "bias")),
    }
