"""Drawing: it stops, repeats itself, and its likelihood is the sampler's, with a gradient in the output layer alone."""

from __future__ import annotations

import pytest
import torch

from tests.training.generator_toys import TINY, tiny
from training.generation.mixture import Mixture
from training.generation.network import Generator, shifted
from training.generation.sampling import DrawOptions, draw, draw_latent, log_likelihood

pytestmark = pytest.mark.torch

STATES = DrawOptions(attention=True, states=True)


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def maps(count: int = 9) -> torch.Tensor:
    return torch.randn(count, 1280, 2, 2, generator=seeded(5))


def test_drawings_stop_at_their_end_and_are_padded() -> None:
    generator = tiny()
    drawn = draw(generator, generator.encode_maps(maps()), STATES, seeded())
    assert drawn.rows.shape == (9, 12, 5)
    assert len(set(drawn.lengths.tolist())) > 2  # drawings end at several steps, so that rows were dropped on the way
    assert torch.equal(drawn.rows[..., 2:].sum(2), torch.ones(9, 12))
    for number, length in enumerate(drawn.lengths.tolist()):
        assert (drawn.rows[number, : length - 1, 4] == 0).all()
        assert drawn.rows[number, length:].tolist() == [[0, 0, 0, 0, 1]] * (12 - length)
        assert drawn.attention is not None
        torch.testing.assert_close(drawn.attention[number, :length].sum((1, 2)), torch.ones(length))
        assert float(drawn.attention[number, length:].abs().sum()) == 0.0
    assert drawn.ended.tolist() == [bool(drawn.rows[n, length - 1, 4]) for n, length in enumerate(drawn.lengths.tolist())]


def test_a_network_that_never_ends_stops_at_the_limit() -> None:
    generator = tiny()
    with torch.no_grad():
        generator.output.bias[2] = -50.0
    for options, length in ((DrawOptions(), 12), (DrawOptions(greedy=True, max_length=5), 5)):
        drawn = draw(generator, generator.encode_maps(maps(3)), options, seeded())
        assert drawn.lengths.tolist() == [length] * 3
        assert not drawn.ended.any()


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    generator = tiny()
    encoded = generator.encode_maps(maps())
    first, again, other = (draw(generator, encoded, rng=seeded(number)) for number in (0, 0, 1))
    assert torch.equal(first.rows, again.rows)
    assert torch.equal(first.latent, again.latent)
    assert not torch.equal(first.rows, other.rows)
    greedy = [draw(generator, encoded, DrawOptions(greedy=True), seeded(number)) for number in (0, 1)]
    assert torch.equal(greedy[0].rows, greedy[1].rows)
    assert torch.equal(greedy[0].latent, encoded.mean)


def test_a_low_temperature_draws_almost_what_greedy_draws() -> None:
    generator = tiny()
    encoded = generator.encode_maps(maps())
    still = type(encoded)(encoded.values, encoded.keys, encoded.mean, torch.full_like(encoded.mean, -60.0))  # z = m
    cold, greedy = draw(generator, still, DrawOptions(1e-6), seeded()), draw(generator, still, DrawOptions(greedy=True))
    torch.testing.assert_close(cold.rows, greedy.rows, rtol=0, atol=0.05)


def test_photos_and_encoded_photos_draw_the_same() -> None:
    generator = tiny()
    photos = torch.randn(2, 3, 64, 64)
    assert torch.equal(draw(generator, photos, rng=seeded()).rows, draw(generator, generator.encode(photos), rng=seeded()).rows)


def test_the_move_to_the_first_point_is_no_row() -> None:
    """Rows are those of a drawing, as many as the limit allows; the move that was drawn before them is kept apart."""
    generator = tiny(positions=True)
    encoded = generator.encode_maps(maps())
    drawn = draw(generator, encoded, STATES, seeded())
    assert drawn.rows.shape == (9, 12, 5)
    assert drawn.move is not None
    assert drawn.attention is not None
    assert drawn.hidden is not None
    assert drawn.move.shape == (9, 2)
    assert drawn.attention.shape[:2] == (9, 12)
    assert drawn.hidden.shape[:2] == (9, 13)
    assert drawn.lengths.min() >= 1
    greedy = draw(generator, encoded, DrawOptions(greedy=True))
    first, _ = generator.decode(encoded, shifted(torch.zeros(9, 1, 5)), encoded.mean)
    torch.testing.assert_close(greedy.move, Mixture.of(first, TINY.least_deviation).mode()[:, 0, :2])


def by_hand(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> tuple[list[torch.Tensor], object]:
    """Log-probabilities that `draw` meets at each step, of the rows that it chose."""
    met: list[torch.Tensor] = []
    sample = Mixture.sample

    def noted(self: Mixture, *given: object) -> torch.Tensor:
        rows = sample(self, *given)
        met.append(self.log_prob(rows[:, :2]) if generator.config.positions and not met else self.log_likelihood(rows))
        return rows

    monkeypatch.setattr(Mixture, "sample", noted)
    return met, sample


@pytest.mark.parametrize("changes", [{}, {"use_attention": False}, {"positions": True}])
def test_likelihood_is_the_samplers(changes: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """One photo, so that no row is dropped: the sum of what the sampler met is the likelihood, both ways to compute it."""
    generator = tiny(**changes)
    encoded = generator.encode_maps(maps(1))
    met, _ = by_hand(generator, monkeypatch)
    for seed in range(5):
        met.clear()
        drawn = draw(generator, encoded, STATES, seeded(seed))
        assert len(met) == int(drawn.lengths) + generator.config.positions
        expected = torch.stack(met).sum(0)
        torch.testing.assert_close(log_likelihood(generator, encoded, drawn), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(log_likelihood(generator, None, drawn), expected, rtol=1e-4, atol=1e-4)


def test_likelihoods_of_a_batch_agree_with_each_alone() -> None:
    generator = tiny()
    encoded = generator.encode_maps(maps())
    drawn = draw(generator, encoded, STATES, seeded())
    together = log_likelihood(generator, encoded, drawn)
    torch.testing.assert_close(log_likelihood(generator, None, drawn), together, rtol=1e-4, atol=1e-4)
    for number in range(9):
        one = slice(number, number + 1)
        alone = type(drawn)(drawn.rows[one], drawn.lengths[one], drawn.latent[one])
        torch.testing.assert_close(log_likelihood(generator, encoded.rows(one), alone), together[one], rtol=1e-4, atol=1e-4)


def test_the_gradient_reaches_the_output_layer_alone_and_is_autograds() -> None:
    generator = tiny(train_backbone=True)
    photos, reward = torch.randn(3, 3, 64, 64), torch.tensor([1.0, -0.5, 2.0])
    drawn = draw(generator, photos, STATES, seeded())
    (log_likelihood(generator, photos, drawn) * reward).sum().backward()
    touched = {name for name, item in generator.named_parameters() if item.grad is not None}
    assert touched == {"output.weight", "output.bias"}

    with torch.no_grad():
        hidden, _ = generator.states(generator.encode(photos), shifted(drawn.rows), drawn.latent)
    weight, bias = (item.detach().clone().requires_grad_() for item in (generator.output.weight, generator.output.bias))
    total = torch.zeros(())
    for number, length in enumerate(drawn.lengths.tolist()):
        raw = hidden[number, :length] @ weight.T + bias
        terms = Mixture.of(raw, TINY.least_deviation).log_likelihood(drawn.rows[number, :length])
        total = total + reward[number] * terms.sum()
    expected = torch.autograd.grad(total, (weight, bias))
    for found, wanted in zip((generator.output.weight.grad, generator.output.bias.grad), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_drawing_leaves_no_graph() -> None:
    generator = tiny()
    drawn = draw(generator, torch.randn(1, 3, 64, 64), STATES, seeded())
    assert not any(item is not None and item.requires_grad for item in vars(drawn).values())
    assert draw_latent(generator.encode_maps(maps(1)), seeded()).requires_grad  # the latent vector of training keeps its own


def test_what_is_missing_is_named() -> None:
    generator = tiny()
    drawn = draw(generator, generator.encode_maps(maps(1)), rng=seeded())
    with pytest.raises(ValueError, match=r"give photos, or draw with DrawOptions\(states=True\)"):
        log_likelihood(generator, None, drawn)
    with pytest.raises(ValueError, match="temperature must be positive"):
        DrawOptions(temperature=0.0)
