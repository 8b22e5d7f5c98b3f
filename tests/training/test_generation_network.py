"""The generator's network: sizes of the paper, attention in plain loops, teacher forcing as step by step, what is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fgsbir_edge.sketch import CANVAS, LONG_SIDE
from tests.training.generator_toys import TINY, example_rows, tiny
from training.generation.config import GeneratorConfig
from training.generation.network import START, Encoded, Generator, places, shifted
from training.generation.sequences import to_sketch

pytestmark = pytest.mark.torch


def test_parameter_counts_are_the_papers() -> None:
    """METHODS B.1 lists what each part of the released network holds."""
    generator = Generator(GeneratorConfig())
    count = {name: sum(item.numel() for item in module.parameters()) for name, module in generator.named_children()}
    assert count["backbone"] == 14_714_688
    assert count["key"] + count["query"] + count["score"] == 1_311_489
    assert count["mean"] + count["log_variance"] == 131_328
    assert (count["start"], count["cell"], count["output"]) == (132_096, 2_111_488, 63_099)
    assert generator.side == 8


@pytest.mark.parametrize("positions", [False, True])
def test_attention_is_the_equations(positions: bool) -> None:
    """J_ij = tanh(W_B * B + W_S h), alpha = softmax(W_a J), g = sum alpha B: cell by cell, channel by channel."""
    generator, maps = tiny(positions=positions), torch.randn(2, 1280, 2, 3)
    encoded, h = generator.encode_maps(maps), torch.randn(2, TINY.hidden + 2 * positions)
    weights, glimpse = generator.attend(encoded, h)
    seen = torch.cat([maps, places(maps)], 1) if positions else maps
    around = torch.nn.functional.pad(seen, (1, 1, 1, 1))
    assert weights is not None
    for photo in range(2):
        logits = []
        for i in range(2):
            for j in range(3):
                window = around[photo, :, i : i + 3, j : j + 3]
                key = (generator.key.weight * window).sum((1, 2, 3)) + generator.key.bias
                logits.append((generator.score.weight[0] * torch.tanh(key + generator.query(h[photo]))).sum())
        alpha = torch.softmax(torch.stack(logits) + generator.score.bias, 0)
        torch.testing.assert_close(weights[photo], alpha, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(glimpse[photo], (seen[photo].flatten(1) * weights[photo]).sum(1), rtol=1e-4, atol=1e-5)


def test_places_are_the_centres_of_cells() -> None:
    grid = places(torch.zeros(1, 1, 2, 4))
    assert grid[0, 0].tolist() == [[-0.75, -0.25, 0.25, 0.75]] * 2
    assert grid[0, 1].tolist() == [[-0.5] * 4, [0.5] * 4]


def stepped(generator: Generator, encoded: Encoded, inputs: Tensor, latent: Tensor) -> Tensor:
    """Raw outputs by `step`, one row after the other."""
    state, found = generator.begin(latent), []
    for number in range(inputs.shape[1]):
        state, _ = generator.step(encoded, state, inputs[:, number])
        found.append(generator.output(state.h))
    return torch.stack(found, 1)


@pytest.mark.parametrize("changes", [{}, {"use_attention": False}, {"positions": True}])
def test_teacher_forcing_is_step_after_step(changes: dict[str, bool]) -> None:
    generator = tiny(**changes)
    maps, (rows, lengths) = torch.randn(3, 1280, 2, 2), generator.targets(*example_rows())
    latent = torch.randn(3, TINY.latent)
    encoded, inputs = generator.encode_maps(maps), shifted(rows)
    expected = stepped(generator, encoded, inputs, latent)
    raw, weights = generator.decode(encoded, inputs, latent)
    torch.testing.assert_close(raw, expected, rtol=1e-4, atol=1e-5)
    short, looked = generator.decode(encoded, inputs, latent, lengths)
    for number, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(short[number, :length], expected[number, :length], rtol=1e-4, atol=1e-5)
    if generator.config.use_attention:
        assert weights is not None
        assert looked is not None
        assert weights.shape == looked.shape == (3, rows.shape[1], 4)
        torch.testing.assert_close(weights.sum(2), torch.ones(3, rows.shape[1]))
        assert not looked[1, int(lengths[1]) :].any()
    else:
        assert weights is looked is None
        assert not hasattr(generator, "key")


@pytest.mark.parametrize("changes", [{}, {"use_attention": False}, {"positions": True}])
def test_the_gradient_is_autograds(changes: dict[str, bool]) -> None:
    """Of every weight, the latent vector and the map: the recurrence's own backward pass against step by step, in float64."""
    generator = tiny(**changes).double()
    rows, lengths = generator.targets(*example_rows())
    inputs, real = shifted(rows.double()), torch.arange(rows.shape[1]) < lengths[:, None]
    found = []
    for whole in (True, False):
        generator.zero_grad(set_to_none=True)
        torch.manual_seed(1)
        shapes = ((3, 1280, 2, 2), (3, TINY.latent))
        maps, latent = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
        encoded = generator.encode_maps(maps)
        raw = generator.decode(encoded, inputs, latent, lengths)[0] if whole else stepped(generator, encoded, inputs, latent)
        (raw[real] * torch.linspace(-1, 1, raw.shape[-1], dtype=torch.float64)).sum().backward()
        named = {name: item.grad for name, item in generator.named_parameters() if item.grad is not None}
        found.append({**named, "maps": maps.grad, "latent": latent.grad})
    assert found[0].keys() == found[1].keys() > {"cell.weight_hh", "output.weight", "start.bias"}
    for name, gradient in found[1].items():
        torch.testing.assert_close(found[0][name], gradient, rtol=1e-8, atol=1e-10, msg=name)


def test_lengths_change_no_gradient() -> None:
    """Rows behind the end that are left out have no part in the gradient, and the others all of theirs."""
    generator = tiny()
    maps, rows, lengths = torch.randn(3, 1280, 2, 2), *example_rows()
    latent, real = torch.randn(3, TINY.latent), torch.arange(rows.shape[1]) < lengths[:, None]
    gradients = []
    for given in (None, lengths):
        generator.zero_grad(set_to_none=True)
        raw, _ = generator.decode(generator.encode_maps(maps), shifted(rows), latent, given)
        (raw[real].square().sum()).backward()
        gradients.append({name: item.grad for name, item in generator.named_parameters() if item.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_the_latent_vector_enters_at_the_start_alone() -> None:
    generator = tiny()
    state = generator.begin(torch.zeros(1, TINY.latent))
    torch.testing.assert_close(torch.cat([state.h, state.c], 1)[0], torch.tanh(generator.start.bias))
    assert generator.cell.weight_ih.shape[1] == generator.config.channels + 5


def test_shifted_begins_with_the_start_token() -> None:
    rows, _ = example_rows()
    before = shifted(rows)
    assert before[:, 0].tolist() == [list(START)] * 3
    assert torch.equal(before[:, 1:], rows[:, :-1])


def test_positions_begin_with_the_move_to_the_first_point() -> None:
    """The move is to where the centred sketch has its first point; what is decoded must have it."""
    generator, (rows, lengths) = tiny(positions=True), example_rows()
    moved, longer = generator.targets(rows, lengths)
    assert torch.equal(moved[:, 1:], rows)
    assert torch.equal(longer, lengths + 1)
    for number, length in enumerate(lengths.tolist()):
        scale = 20.0
        sketch = to_sketch(rows[number, :length].numpy(), scale)
        path = np.concatenate([np.zeros((1, 2)), rows[number, :length, :2].numpy().cumsum(0)])
        side = (path.max(0) - path.min(0)).max()
        first = (sketch.points[0] - CANVAS / 2) / LONG_SIDE * side
        np.testing.assert_allclose(moved[number, 0, :2].numpy(), first, atol=1e-4)
        assert moved[number, 0, 2:].tolist() == [0, 1, 0]
    encoded, latent = generator.encode_maps(torch.randn(3, 1280, 2, 2)), torch.zeros(3, TINY.latent)
    with pytest.raises(ValueError, match=r"give decode shifted\(targets\(rows\)\)"):
        generator.decode(encoded, shifted(rows), latent)
    assert tiny().targets(rows, lengths)[0] is rows


def test_a_fixed_backbone_has_no_gradient_and_stays_in_evaluation() -> None:
    photos = torch.randn(1, 3, 64, 64)
    for trained in (False, True):
        generator = Generator(replace(TINY, backbone="resnet18", train_backbone=trained)).train()
        generator.encode(photos).mean.sum().backward()
        moved = [name for name, item in generator.backbone.named_parameters() if item.grad is not None]
        assert bool(moved) == trained
        names = {name for name, _ in generator.trained_state()}
        assert any(name.startswith("backbone.") for name in names) == trained
        before = generator.backbone.state_dict()["bn1.running_mean"].clone()
        generator.maps(photos)
        assert torch.equal(generator.backbone.state_dict()["bn1.running_mean"], before)  # maps do not depend on the batch


def test_pooling_is_what_it_says() -> None:
    maps = torch.randn(2, 1280, 2, 2)
    for pooling, pooled in (("avg", maps.mean((2, 3))), ("max", maps.amax((2, 3)))):
        generator = tiny(pooling=pooling, use_attention=False)
        encoded = generator.encode_maps(maps.half())
        torch.testing.assert_close(encoded.values[:, 0], pooled, rtol=1e-3, atol=2e-3)
        torch.testing.assert_close(encoded.mean, generator.mean(encoded.values[:, 0]))


def test_dropout_is_for_training_alone() -> None:
    generator, (rows, _) = tiny(dropout=0.5), example_rows()
    maps, latent = torch.randn(3, 1280, 2, 2), torch.zeros(3, TINY.latent)

    def outputs() -> Tensor:
        return generator.decode(generator.encode_maps(maps), shifted(rows), latent)[0]

    assert torch.equal(outputs(), outputs())
    generator.train()
    assert not torch.equal(outputs(), outputs())
    assert (generator.encode_maps(maps).values == 0).float().mean() > 0.3  # whole channels


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent": 0}, "must be positive"),
        ({"size": 16}, "size is 16 pixels, expansion of mobilenetv2 needs at least 32"),
        ({"stage": "pool5"}, "mobilenetv2 has no stage 'pool5'"),
        ({"pooling": "sum"}, "pooling is 'sum'"),
        ({"least_deviation": -0.1}, "least_deviation is -0.1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_a_wrong_configuration_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)  # type: ignore[arg-type]
