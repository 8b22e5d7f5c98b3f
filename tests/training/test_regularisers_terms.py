"""The outer loop's regularisers against plain NumPy formulas, finite differences and hand-made cases."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.episodic.gradient_reversal import reverse_gradient, strength_at
from training.episodic.regularisers import JointFeatures, RegulariserConfig, Regularisers
from training.episodic.words import WordVectors

pytestmark = pytest.mark.torch

NAMES = ("bee", "cat", "owl")
WIDTH = 5
ONLY = {"domain": 0.0, "category": 0.0, "intra": 0.0, "semantic": 0.0, "heads": "both", "hidden": 4, "words_width": 6}

Rows = NDArray[np.float64]


def unit(*shape: int, seed: int = 0) -> Tensor:
    rows = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1)


def some(seed: int = 0) -> JointFeatures:
    """Seven pairs of five photos in three categories; the only photo of "owl" has two sketches."""
    photos = unit(5, WIDTH, seed=seed + 1)
    index, category = torch.tensor([0, 0, 1, 2, 3, 4, 4]), torch.tensor([0, 0, 0, 1, 1, 2, 2])
    return JointFeatures(unit(7, WIDTH, seed=seed).requires_grad_(), photos[index].requires_grad_(), index, category)


def model(**options: object) -> Regularisers:
    words = WordVectors.stand_in(NAMES, 6)
    return Regularisers(WIDTH, NAMES, "category", RegulariserConfig(**{**ONLY, **options}), words).double()  # type: ignore[arg-type]


def head(layers: torch.nn.Sequential, rows: Rows) -> Rows:
    """The head's output, from its weights."""
    weights = [parameter.detach().numpy() for parameter in layers.parameters()]
    for number in range(0, len(weights), 2):
        rows = rows @ weights[number].T + weights[number + 1]
        rows = np.maximum(rows, 0.0) if number + 2 < len(weights) else rows
    return rows


def both(features: JointFeatures, scale: float = math.sqrt(WIDTH)) -> Rows:
    return np.concatenate([features.sketches.detach().numpy(), features.photos.detach().numpy()]) * scale


def plain_domain(made: Regularisers, features: JointFeatures) -> float:
    certain = 1.0 / (1.0 + np.exp(-head(made.discriminator, both(features))[:, 0]))
    return float(-np.mean([math.log(p) if row < 7 else math.log(1.0 - p) for row, p in enumerate(certain)]))


def plain_category(made: Regularisers, features: JointFeatures) -> float:
    logits = head(made.classifier, both(features))
    truth = np.tile(features.category.numpy(), 2)
    return float(np.mean([np.log(np.exp(row).sum()) - row[c] for row, c in zip(logits, truth, strict=True)]))


def plain_semantic(made: Regularisers, features: JointFeatures) -> float:
    words = WordVectors.stand_in(NAMES, 6).vectors.astype(np.float64)
    values = []
    for row, c in zip(head(made.decoder, both(features)), np.tile(features.category.numpy(), 2), strict=True):
        cosine = row @ words[c] / (np.linalg.norm(row) * np.linalg.norm(words[c]))
        values.append(0.5 * (1.0 - cosine))
    return float(np.mean(values))


def triplets(features: JointFeatures) -> list[list[float]]:
    """For each anchor d(s,p) - d(s,n) over its negatives: other photos of its category, else any other."""
    s, p = features.sketches.detach().numpy(), features.photos.detach().numpy()
    photo, category = features.photo_index.tolist(), features.category.tolist()
    table = []
    for i in range(len(s)):
        others = [j for j in range(len(s)) if photo[j] != photo[i]]
        others = [j for j in others if category[j] == category[i]] or others
        table.append([float(np.linalg.norm(s[i] - p[i]) - np.linalg.norm(s[i] - p[j])) for j in others])
    return table


def plain_intra(made: Regularisers, features: JointFeatures) -> float:
    return float(np.mean([np.mean([max(0.0, 0.3 + gap) for gap in row]) for row in triplets(features)]))


PLAIN: dict[str, Callable[[Regularisers, JointFeatures], float]] = {
    "domain": plain_domain,
    "category": plain_category,
    "semantic": plain_semantic,
    "intra": plain_intra,
}


@pytest.mark.parametrize("name", sorted(PLAIN))
@pytest.mark.parametrize("hidden", [0, 4])
def test_each_term_is_its_formula(name: str, hidden: int) -> None:
    made, features = model(**{name: 1.0}, hidden=hidden), some()
    total, terms = made(features)
    expected = PLAIN[name](made, features)
    assert expected > 0.05
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert float(terms[name]) == pytest.approx(expected, rel=1e-12)
    assert {key.split("/")[0] for key in terms} == {name}
    assert not any(term.requires_grad for term in terms.values())


def test_the_sum_is_weighted() -> None:
    made, features = model(domain=0.5, category=2.0, intra=3.0, semantic=0.25), some()
    total, terms = made(features)
    weights = {"domain": 0.5, "category": 2.0, "intra": 3.0, "semantic": 0.25}
    assert total.item() == pytest.approx(sum(weights[name] * PLAIN[name](made, features) for name in weights), rel=1e-12)
    assert {name for name in terms if "/" not in name} == set(weights)
    assert made.facts()["terms"] == weights


@pytest.mark.parametrize(("name", "sign"), [("domain", -0.7), ("category", 1.0), ("semantic", 1.0), ("intra", 1.0)])
def test_gradients_are_finite_differences(name: str, sign: float) -> None:
    """Towards the heads always; towards the features reversed, times the strength, for the domain term alone."""
    made, features = model(**{name: 1.0}, strength=0.7), some()
    made(features)[0].backward()

    def difference(values: Tensor, position: tuple[int, ...]) -> float:
        ends = []
        with torch.no_grad():
            for step in (1e-6, -1e-6):
                values[position] += step
                ends.append(PLAIN[name](made, features))
                values[position] -= step
        return (ends[0] - ends[1]) / 2e-6

    moved = 0.0
    for side in (features.sketches, features.photos):
        assert side.grad is not None
        for position in ((0, 1), (2, 0), (6, 3)):
            expected = sign * difference(side, position)
            assert float(side.grad[position]) == pytest.approx(expected, abs=1e-8)
            moved += abs(expected)
    assert moved > 5e-3
    for parameter in made.parameters():
        assert parameter.grad is not None
        last = tuple(size - 1 for size in parameter.shape)
        assert float(parameter.grad[last]) == pytest.approx(difference(parameter, last), abs=1e-8)


def test_the_printed_domain_loss_is_what_the_features_minimise() -> None:
    """L_D = t log D + (1-t) log(1-D) as printed: its gradient towards the features is the one they get."""
    made, features = model(domain=1.0), some()
    made(features)[0].backward()
    s, p = (side.detach().clone().requires_grad_() for side in (features.sketches, features.photos))
    certain = torch.sigmoid(made.discriminator(torch.cat([s, p]) * math.sqrt(WIDTH))[:, 0])
    bit = torch.cat([torch.ones(7), torch.zeros(7)])
    (bit * certain.log() + (1 - bit) * (1 - certain).log()).mean().backward()
    torch.testing.assert_close(features.sketches.grad, s.grad)
    torch.testing.assert_close(features.photos.grad, p.grad)


def test_reversal_of_any_order() -> None:
    x = torch.tensor([0.3, -2.0], dtype=torch.float64, requires_grad=True)
    assert torch.equal(reverse_gradient(x, 0.5), x)
    (first,) = torch.autograd.grad(reverse_gradient(x, 0.5).pow(3).sum(), x, create_graph=True)
    torch.testing.assert_close(first, -1.5 * x**2)
    # the gradient is a function of x like any other; what it is made of passes the reversal once more
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, 0.25 * 6 * x)
    (none,) = torch.autograd.grad(reverse_gradient(x, 0.0).sum(), x)
    assert not none.any()


def test_the_ramp_is_ganins() -> None:
    for progress in (0.0, 0.1, 0.5, 1.0):
        assert strength_at(2.0, "ramp", progress) == pytest.approx(2.0 * (2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0))
        assert strength_at(2.0, "constant", progress) == 2.0
    assert strength_at(2.0, "constant", None) == 2.0
    made = model(domain=1.0, schedule="ramp")
    features = some()
    total, terms = made(features, progress=0.0)
    assert float(terms["domain/strength"]) == 0.0
    total.backward()
    assert not features.sketches.grad.any()  # type: ignore[union-attr]
    assert made.discriminator[0].weight.grad.any()
    for wrong in (None, -0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="expected 0 to 1: the schedule 'ramp'"):
            made(features, progress=wrong)


def test_d_learns_while_the_features_unlearn() -> None:
    """Twenty free points a side. Left alone they are told apart for good; reversed, D finds them first and loses them then."""
    sides = unit(40, WIDTH, seed=3) * 0.5
    sides[:20, 0] += 1.0
    sides[20:, 0] -= 1.0
    found, apart = {}, {}
    for strength in (0.0, 1.0):
        made = model(domain=1.0, strength=strength, hidden=0)
        raw = sides.clone().requires_grad_()
        optimizer = torch.optim.Adam([*made.parameters(), raw], lr=0.02)
        losses = []
        for _ in range(300):
            rows = torch.nn.functional.normalize(raw, dim=1)
            total, terms = made(JointFeatures(rows[:20], rows[20:], torch.arange(20), torch.zeros(20, dtype=torch.int64)))
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            losses.append(float(terms["domain"]))
        found[strength], apart[strength] = losses, (rows[:20].mean(0) - rows[20:].mean(0)).norm().item()
        assert torch.equal(raw.detach(), sides) == (strength == 0.0)
    assert found[0.0][0] > 0.4 > 0.1 > found[0.0][-1]
    assert min(found[1.0][:60]) < 0.2
    assert float(np.mean(found[1.0][-50:])) > 0.6  # ln 2 = 0.69 is what chance costs
    assert apart[1.0] < 0.3 * apart[0.0]


def test_diagnostics_by_hand() -> None:
    features = some()
    made = model(domain=1.0, category=1.0, intra=1.0, semantic=1.0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
        made.classifier[-1].bias[1] = 1.0  # everything is a cat
        made.discriminator[-1].bias.fill_(1.0)  # everything is a sketch
        made.decoder[-1].bias.copy_(made.words[0])  # everything is a bee
    _, terms = made(features)
    assert float(terms["category/accuracy"]) == pytest.approx(2 / 7)
    assert float(terms["domain/accuracy"]) == 0.5
    assert float(terms["semantic/accuracy"]) == pytest.approx(3 / 7)
    gaps = [gap for row in triplets(features) for gap in row]
    share = float(np.mean([0.3 + gap > 0 for gap in gaps]))
    assert 0 < share < 1
    assert float(terms["intra/violated"]) == pytest.approx(share)


@pytest.mark.parametrize("negatives", ["semi-hard", "batch-hard"])
def test_mined_negatives(negatives: str) -> None:
    features = some()
    values = []
    for row in triplets(features):
        farther = [gap for gap in row if gap < 0]
        hardest = max(row)
        values.append(max(0.0, 0.3 + ((max(farther) if farther else min(row)) if negatives == "semi-hard" else hardest)))
    total, _ = model(intra=1.0, intra_negatives=negatives)(features)
    assert total.item() == pytest.approx(float(np.mean(values)), rel=1e-12)


@pytest.mark.parametrize("negatives", ["all", "semi-hard", "batch-hard"])
def test_one_photo_has_no_intra_term(negatives: str) -> None:
    sketches = unit(3, WIDTH).requires_grad_()
    alone = JointFeatures(sketches, unit(1, WIDTH, seed=1).expand(3, -1), torch.zeros(3), torch.zeros(3, dtype=torch.int64))
    total, terms = model(intra=1.0, intra_negatives=negatives)(alone)
    total.backward()
    assert total.item() == float(terms["intra/violated"]) == 0.0
    assert not sketches.grad.any()  # type: ignore[union-attr]


def test_the_scale_of_what_heads_see() -> None:
    features = some()
    made = model(category=1.0, unit_variance=False)
    logits = head(made.classifier, both(features, 1.0))
    truth = np.tile(features.category.numpy(), 2)
    expected = np.mean([np.log(np.exp(row).sum()) - row[c] for row, c in zip(logits, truth, strict=True)])
    assert made(features)[0].item() == pytest.approx(float(expected), rel=1e-12)
