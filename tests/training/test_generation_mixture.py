"""Mixture and losses against SciPy, plain sums, autograd and many draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from tests.training.generator_toys import example_rows, tiny
from training.generation.losses import VaeLossConfig, kl_divergence, reconstruction, vae_loss
from training.generation.mixture import MAX_CORRELATION, Mixture

pytestmark = pytest.mark.torch

M = 4


def raw_outputs(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, 6 * M + 3, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("least", [0.0, 0.05])
def test_density_is_scipys(least: float) -> None:
    raw, offsets = raw_outputs(2, 5), torch.randn(2, 5, 2)
    found = Mixture.of(raw, least).log_prob(offsets)
    for index in np.ndindex(2, 5):
        values = raw[index].double().numpy()
        weights = np.exp(values[3 : 3 + M]) / np.exp(values[3 : 3 + M]).sum()
        density = 0.0
        for j in range(M):
            mean = values[[3 + M + j, 3 + 2 * M + j]]
            sx, sy = np.exp(values[[3 + 3 * M + j, 3 + 4 * M + j]]) + least
            cross = MAX_CORRELATION * np.tanh(values[3 + 5 * M + j]) * sx * sy
            density += weights[j] * multivariate_normal(mean, [[sx**2, cross], [cross, sy**2]]).pdf(offsets[index].numpy())
        assert float(found[index]) == pytest.approx(math.log(density), abs=1e-4)


def test_pen_states_are_a_softmax() -> None:
    raw = raw_outputs(3)
    mixture, pens = Mixture.of(raw), torch.eye(3)
    torch.testing.assert_close(mixture.pen_log_prob(pens), raw[:, :3].log_softmax(-1).diagonal())
    rows = torch.cat([torch.randn(3, 2), pens], 1)
    torch.testing.assert_close(mixture.log_likelihood(rows), mixture.log_prob(rows[:, :2]) + mixture.pen_log_prob(pens))


def test_extreme_outputs_stay_finite() -> None:
    """Collapsed, huge and perfectly correlated components: finite density and gradient."""
    raw = torch.zeros(1, 6 * M + 3)
    raw[0, 3 + 3 * M : 3 + 5 * M] = -40.0
    raw[0, 3 + 5 * M :] = 30.0
    raw.requires_grad_()
    value = Mixture.of(raw, 0.01).log_prob(torch.tensor([[0.0, 0.0]])).sum()
    value.backward()
    assert math.isfinite(value.item())
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()


def test_pens_may_have_a_temperature_of_their_own() -> None:
    raw = torch.zeros(1, 6 * M + 3).repeat(20000, 1)
    raw[:, 1] = 1.0
    for given, expected in (((0.1, None), 0.1), ((0.1, 1.0), 1.0)):
        pens = Mixture.of(raw).sample(given[0], torch.Generator().manual_seed(0), given[1])[:, 2:].mean(0)
        torch.testing.assert_close(pens, (raw[0, :3] / expected).softmax(0), atol=0.02, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_samples_follow_the_distribution(temperature: float) -> None:
    """Pen shares, mean and covariance of many draws are the mixture's, with the temperature in weights and variances."""
    raw = raw_outputs(1)
    mixture = Mixture.of(raw.expand(60_000, -1))
    rows = mixture.sample(temperature, torch.Generator().manual_seed(0))
    weights, pens = ((raw[0, part] / temperature).softmax(0) for part in (slice(3, 3 + M), slice(0, 3)))
    torch.testing.assert_close(rows[:, 2:].mean(0), pens, rtol=0, atol=0.01)
    means, deviations = mixture.mean[0], mixture.log_deviation[0].exp() * math.sqrt(temperature)
    mean = (weights[:, None] * means).sum(0)
    torch.testing.assert_close(rows[:, :2].mean(0), mean, rtol=0, atol=0.05)
    cross = mixture.correlation[0] * deviations.prod(1)
    within = torch.stack([torch.stack([deviations[:, 0] ** 2, cross], 1), torch.stack([cross, deviations[:, 1] ** 2], 1)], 1)
    away = means - mean
    expected = (weights[:, None, None] * (within + away[:, :, None] * away[:, None])).sum(0)
    torch.testing.assert_close(rows[:, :2].T.cov(), expected, rtol=0.06, atol=0.03)


def test_the_mode_is_the_heaviest_components_mean() -> None:
    raw = raw_outputs(6)
    rows = Mixture.of(raw).mode()
    for number in range(6):
        j = int(raw[number, 3 : 3 + M].argmax())
        assert rows[number, :2].tolist() == [float(raw[number, 3 + M + j]), float(raw[number, 3 + 2 * M + j])]
        assert int(rows[number, 2:].argmax()) == int(raw[number, :3].argmax())


def test_reconstruction_is_a_plain_sum_over_real_rows() -> None:
    rows, lengths = example_rows()
    mixture = Mixture.of(raw_outputs(3, 9))
    found = reconstruction(mixture, rows, lengths)
    offset = pen = 0.0
    for number, length in enumerate(lengths.tolist()):
        for step in range(length):
            offset -= float(mixture.log_prob(rows[..., :2])[number, step])
            pen -= float(mixture.log_pen[number, step, int(rows[number, step, 2:].argmax())])
    count = int(lengths.sum())
    assert found.offset.item() == pytest.approx(offset / count, rel=1e-5)
    assert float(found.pen) == pytest.approx(pen / count, rel=1e-5)
    assert float(found.total) == pytest.approx((offset + pen) / count, rel=1e-5)


def test_only_our_mask_teaches_the_end() -> None:
    """Gradient descent raises the end logit at the last row with ours; with the released mask nothing ever raises it."""
    rows, lengths = example_rows()
    last = lengths - 1
    for mask in ("end", "released"):
        raw = raw_outputs(3, 9).requires_grad_()
        reconstruction(Mixture.of(raw), rows, lengths, mask).total.backward()  # type: ignore[arg-type]
        assert raw.grad is not None
        end = raw.grad[..., 2]
        if mask == "end":
            assert (end[torch.arange(3), last] < 0).all()
        else:
            assert (end >= 0).all()


def test_the_released_loss_is_the_codes_formula() -> None:
    rows, lengths = example_rows()
    mixture = Mixture.of(raw_outputs(3, 9))
    found = reconstruction(mixture, rows, lengths, "released")
    offset = pen = 0.0
    for number in range(3):
        for step in range(9):
            shown = 1.0 - float(rows[number, step, 4])
            offset -= shown * math.log(float(mixture.log_prob(rows[..., :2])[number, step].exp()) + 1e-6)
            share = mixture.log_pen[number, step].exp() + 1e-6
            pen -= shown * float((rows[number, step, 2:] * share.log()).sum())
    assert found.offset.item() == pytest.approx(offset / 27, rel=1e-4)
    assert float(found.pen) == pytest.approx(pen / 27, rel=1e-4)


def test_divergence_against_torch_and_its_floor() -> None:
    mean, log_variance = torch.randn(4, 6), torch.randn(4, 6)
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).mean()
    assert float(kl_divergence(mean, log_variance)) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("free_bits", "weight"), [(0.0, 1.0), (50.0, 1.0), (0.0, 0.5)])
def test_the_whole_loss_is_its_terms_and_the_floor_stops_the_divergence(free_bits: float, weight: float) -> None:
    generator, (rows, lengths) = tiny(), example_rows()
    maps = torch.randn(3, 1280, 2, 2, generator=torch.Generator().manual_seed(4))
    gradients = []
    for config in (VaeLossConfig("end", weight, free_bits, 1.0), VaeLossConfig(weight=0.0)):
        generator.zero_grad(set_to_none=True)
        torch.manual_seed(2)
        loss, terms = vae_loss(generator, generator.encode_maps(maps), (rows, lengths), config, 0)
        expected = terms["offset"] + terms["pen"] + config.weight * max(terms["kl"], config.free_bits)
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        loss.backward()
        gradients.append(generator.mean.weight.grad)
    without = gradients[1]
    assert without is not None
    assert torch.equal(gradients[0], without) == (free_bits > 1.0)


def test_annealing_is_the_codes() -> None:
    config = VaeLossConfig()
    assert config.kl_weight(0) == pytest.approx(0.01)
    assert config.kl_weight(20_000) == pytest.approx(1.0 - 0.99 * 0.99995**20_000)
    assert VaeLossConfig(weight=2.0, anneal_from=1.0).kl_weight(0) == 2.0


@pytest.mark.parametrize("changes", [{"mask": "none"}, {"weight": -1.0}, {"anneal_rate": 1.5}])
def test_wrong_loss_options_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"mask is|must not be negative"):
        VaeLossConfig(**changes)  # type: ignore[arg-type]
