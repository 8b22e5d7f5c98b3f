"""Centring: sketches start without the mean sketch of their support; how much of it is learned."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.training.episodic_toys import VALIDATION, objective, stream, world
from training import inner_loop
from training.episodic import fast_inner
from training.episodic.config import DomainConfig, InnerConfig, MarginConfig, MetaConfig, MetaOptimiser
from training.episodic.methods.learned import arm
from training.episodic.outer import support_sets
from training.episodic.stream import EpisodeBatch
from training.episodic.trainer import MetaTrainer, build_optimizer, exported, gradient_norms
from training.episodic.validation import MetaValidator
from training.inner_loop import Support, adapt, adapted_outputs, centring, triplet_distances

pytestmark = pytest.mark.torch

E, K, PHOTOS, C, D = 2, 4, 6, 10, 5


def leaves(pairs: int = K) -> tuple[list[Tensor], Tensor]:
    """W, b, support rows, rates, margins and p in float64, and a mask."""
    source = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    photos = max(pairs, PHOTOS)
    rows = F.normalize(normal(E, pairs + photos, C) + 0.5, dim=-1)
    mask = torch.ones(E, pairs, photos, dtype=torch.float64)
    mask[:, range(pairs), range(pairs)] = 0
    rates, margins = torch.tensor([0.6, 0.3], dtype=torch.float64), torch.tensor([0.3, 0.5], dtype=torch.float64)
    prior = torch.tensor(2.0, dtype=torch.float64)
    return [tensor.requires_grad_() for tensor in (normal(D, C), 0.1 * normal(D), rows, rates, margins, prior)], mask


def batch() -> EpisodeBatch:
    domain, _, source = world()
    found = stream(domain, source).batch(0)
    return EpisodeBatch(found.domain, found.sketches.double(), found.photos.double(), found.episodes, found.joint)


@pytest.mark.parametrize(("pairs", "prior", "share"), [(5, 2.0, 5 / 7), (1, 2.0, 1 / 3), (1, 0.0, 1.0), (10, 2.5, 0.8)])
def test_the_shift_is_a_share_of_the_mean_sketch(pairs: int, prior: float, share: float) -> None:
    (weight, bias, rows, *_), _ = leaves(pairs)
    support = Support(rows, torch.zeros(E, pairs, PHOTOS))
    shift = centring(weight, bias, support, torch.tensor(prior, dtype=torch.float64))
    for episode in range(E):
        outputs = torch.stack([weight @ rows[episode, pair] + bias for pair in range(pairs)])
        torch.testing.assert_close(shift[episode], -share * outputs.mean(0))


def test_steps_are_those_of_the_full_matrix_from_shifted_sketches() -> None:
    (weight, bias, rows, rates, margins, prior), mask = leaves()
    support = Support(rows, mask)
    shift = centring(weight, bias, support, prior)
    centred = replace(support, shift=shift)
    learned = adapt(weight, bias, centred, rates, margins)
    queries = rows[:, :3] + 0.2
    for episode in range(E):
        w, b = weight.clone(), bias.clone()  # the shift is of the first ones, which no step changes
        moved = torch.cat([shift[episode].expand(K, D), torch.zeros(PHOTOS, D, dtype=torch.float64)])
        own = Support(rows[episode : episode + 1], mask[episode : episode + 1])
        for rate in rates:
            loss = inner_loop.triplet_loss((rows[episode] @ w.T + b + moved)[None], own, margins[episode : episode + 1], 10.0)
            dw, db = torch.autograd.grad(loss.sum(), (w, b), create_graph=True)
            w, b = w - rate * dw, b - rate * db
        for sketches in (True, False):
            ours = adapted_outputs(weight, bias, centred, learned, queries, sketches=sketches)[episode]
            torch.testing.assert_close(ours, queries[episode] @ w.T + b + (shift[episode] if sketches else 0.0))


@pytest.mark.parametrize(("side", "second"), [*product(("sketch", "both"), (True, False))])
def test_both_forms_of_the_loop_agree_with_their_gradients(side: str, second: bool) -> None:
    given, mask = leaves()
    cotangent = torch.randn(E, K + PHOTOS, D, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    found = []
    for form in (inner_loop.adapt, fast_inner.adapt):
        weight, bias, rows, rates, margins, prior = given
        support = Support(rows, mask)
        centred = replace(support, shift=centring(weight, bias, support, prior))
        learned = form(weight, bias, centred, rates, margins, side=side, second_order=second)
        gradients = torch.autograd.grad((learned * cotangent).sum(), given, allow_unused=True, materialize_grads=True)
        plain = form(weight, bias, support, rates, margins, side=side, second_order=second)
        assert (learned - plain).abs().max() > 1e-3
        found.append((learned, *gradients))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=5e-9)
    assert bool(found[0][6]) is second  # the coefficients know p by gradients of second order alone


@pytest.mark.parametrize("side", ["sketch", "both"])
def test_the_gradient_for_p_is_that_of_finite_differences(side: str) -> None:
    """Of the whole outer loss: through the shift, the inner loop and the margin that the network predicts."""
    made, seen = objective(InnerConfig(steps=2, rate=0.8, side=side, centre=2.0)).double(), batch()  # type: ignore[arg-type]
    raw = made.model.log_centre
    assert raw is not None
    loss, _ = made(seen)
    (gradient,) = torch.autograd.grad(loss, raw)
    values = []
    for change in (1e-4, -1e-4):
        with torch.no_grad():
            raw += change
            values.append(made(seen)[0].item())
            raw -= change
    assert float(gradient) == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-4)
    assert abs(float(gradient)) > 1e-4


def test_off_is_what_was_before() -> None:
    """No parameter, the plain loop to the last bit; and a p without end is the same but for rounding."""
    seen = batch()
    off, far = objective(InnerConfig(rate=0.8)).double(), objective(InnerConfig(rate=0.8, centre=1e12)).double()
    assert off.model.centre is None
    assert set(far.trained_state()) - set(off.trained_state()) == {"model.log_centre"}
    assert "gradient/centre" not in gradient_norms(off)
    model = off.model
    sketches, photos = off.features(seen.sketches), off.features(seen.photos)
    support = support_sets(seen.episodes[:1], sketches, photos)
    weight, bias, margin = model.head.weight, model.head.bias, model.margin(support)
    learned = model.adapt(support)
    outputs = support.features @ weight.T + bias
    loss = inner_loop.triplet_loss(outputs, support, margin, 10.0).sum()
    moves = torch.zeros(1, support.features.shape[1], 1, dtype=torch.float64)
    moves[:, : support.pairs] = 1.0
    assert torch.equal(learned, -model.rates[0] * torch.autograd.grad(loss, outputs, retain_graph=True)[0] * moves)
    scores = model.scores(sketches, photos, support, learned)
    moved = F.normalize((sketches @ weight.T + bias) + (sketches @ support.features[0].T + 1.0) @ learned[0], dim=-1)
    torch.testing.assert_close(scores, moved @ F.normalize(photos @ weight.T + bias, dim=-1).T)
    torch.testing.assert_close(far(seen)[0], off(seen)[0])


@pytest.mark.parametrize("side", ["sketch", "both"])
def test_sketches_are_shifted_photos_are_not_and_the_base_head_stays(side: str) -> None:
    made, seen = objective(InnerConfig(side=side, rate=0.0, centre=1.0)).double(), batch()  # type: ignore[arg-type]
    model = made.model
    sketches, photos = made.features(seen.sketches), made.features(seen.photos)
    support = support_sets(seen.episodes[:1], sketches, photos)
    learned = model.adapt(support)
    assert not learned.any()
    base = F.normalize(model.head(photos), dim=-1)
    pairs = support.pairs
    mean = model.head(support.features[0, :pairs]).mean(0)
    shifted = F.normalize(model.head(sketches) - pairs / (pairs + 1.0) * mean, dim=-1)
    torch.testing.assert_close(model.scores(sketches, photos, support, learned), shifted @ base.T)
    unchanged = F.normalize(model.head(sketches), dim=-1) @ base.T
    torch.testing.assert_close(model.scores(sketches, photos, support, None), unchanged)
    assert (shifted @ base.T - unchanged).abs().max() > 0.05


def test_the_margin_is_predicted_from_shifted_sketches() -> None:
    made, seen = objective(InnerConfig(centre=1.0)).double(), batch()
    model = made.model
    support = support_sets(seen.episodes, made.features(seen.sketches), made.features(seen.photos))
    outputs, pairs = model.head(support.features), support.pairs
    common = pairs / (pairs + 1.0) * outputs[:, :pairs].mean(1, keepdim=True)
    outputs = torch.cat([outputs[:, :pairs] - common, outputs[:, pairs:]], 1)
    positive, distances = triplet_distances(outputs, pairs)
    expected = model.margin_design.net(positive.unsqueeze(-1).expand_as(distances), distances, support.mask)  # type: ignore[union-attr]
    torch.testing.assert_close(model.margin(support), expected)
    plain = objective().double().model.margin(support)
    assert (expected - plain).abs().max() > 1e-3


@pytest.mark.parametrize("margin", ["distances", "gradient"])
def test_a_lone_pair_is_centred_and_takes_no_step(margin: str) -> None:
    made = objective(InnerConfig(side="both", centre=3.0), MarginConfig(margin)).double()  # type: ignore[arg-type]
    model = made.model
    rows = F.normalize(torch.randn(1, 2, model.head.in_features, dtype=torch.float64), dim=-1)
    one = Support(rows, torch.zeros(1, 1, 1, dtype=torch.float64))
    learned = model.adapt(one)
    assert not learned.any()
    found = model.embed(rows[0], one, learned)
    torch.testing.assert_close(found, F.normalize(model.head(rows[0]) - 0.25 * model.head(rows[0, :1]), dim=-1))
    (gradient,) = torch.autograd.grad(found[1, 0], model.log_centre)
    assert torch.isfinite(gradient)
    assert gradient != 0


def config(inner: InnerConfig) -> MetaConfig:
    return MetaConfig((DomainConfig("toys", "toys", "person"),), inner=inner, optimiser=MetaOptimiser(fast=0.05))


@pytest.mark.parametrize("learn", [True, False])
def test_p_trains_is_logged_and_goes_into_the_checkpoint(learn: bool, tmp_path: Path) -> None:
    domain, sets, source = world()
    made = objective(InnerConfig(centre=2.0, learn_centre=learn))
    settings = config(made.model.inner)
    settings = replace(settings, run=replace(settings.run, steps=3, every=3, threads=1, workers=0))
    run = MetaTrainer(tmp_path, settings, stream(domain, source), MetaValidator(sets, source, VALIDATION), {"of": "a test"}, {})
    run.fit(made)
    assert made.model.centre is not None
    after = float(made.model.centre.detach())
    assert (abs(after - 2.0) > 0.05) is learn
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text(encoding="utf-8").splitlines()))
    assert [float(row["centre"]) for row in rows if row["step"] in ("0", "3")] == pytest.approx([2.0, after], rel=1e-3)
    assert ("gradient/centre" in rows[-1]) is learn
    assert exported(made, settings, 0.3)[1]["centre"] == pytest.approx(after)
    assert exported(objective(), config(InnerConfig()), 0.3)[1]["centre"] is None
    assert len(build_optimizer(made, MetaOptimiser()).param_groups) == 2


def test_no_such_p() -> None:
    for centre, learn in ((-1.0, False), (math.nan, False), (0.0, True)):
        with pytest.raises(ValueError, match="centre is"):
            InnerConfig(centre=centre, learn_centre=learn)
    made = objective(InnerConfig(centre=0.0, learn_centre=False))
    assert made.model.centre == 0.0


def test_rows_of_the_table_without_centring() -> None:
    ours = config(InnerConfig(centre=2.0))
    assert arm("ours", ours).inner.centre == 2.0
    for name in ("anil", "ours_pairs"):
        assert math.isinf(arm(name, ours).inner.centre)
    assert arm("ours_pairs", ours).margin == ours.margin
