"""Triplet, relative and InfoNCE against plain loops, their gradients, and the batches that have nothing to compare."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.training import losses_plain as plain
from training.losses import symmetric_info_nce
from training.losses.common import MININGS, different, distances, mine, own_distances
from training.losses.info_nce import InfoNCE, InfoNCEOptions
from training.losses.relative import FLOOR, RelativeOptions, relative_triplet_loss
from training.losses.triplet import TripletOptions, triplet_loss

PHOTO = [0, 1, 2, 1, 3, 4, 0]  # photos 0 and 1 twice
CATEGORY = [0, 0, 0, 0, 1, 1, 0]
ALONE = [0, 1, 2, 1, 3, 5, 0]  # row 4 is the only one of its category
WIDTH = 5


def unit(rows: int, seed: int, spread: float = 1.0) -> Tensor:
    """Unit rows [rows,WIDTH] in float64 around one direction: the smaller the spread the closer."""
    rng = np.random.default_rng(seed)
    return F.normalize(torch.from_numpy(np.eye(WIDTH)[0] + spread * rng.standard_normal((rows, WIDTH))), dim=1)


def batch(spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return unit(7, 1, spread), unit(7, 2, spread), torch.tensor(PHOTO), torch.tensor(CATEGORY)


@pytest.mark.parametrize("mining", ["semi-hard", "batch-hard"])
@pytest.mark.parametrize("spread", [0.3, 1.0])
@pytest.mark.parametrize("category", [None, CATEGORY, ALONE])
def test_triplet_is_the_loop(mining: str, spread: float, category: list[int] | None) -> None:
    sketches, photos, photo, _ = batch(spread)
    options = TripletOptions(0.3, mining, within_category=category is not None)
    value = triplet_loss(sketches, photos, photo, torch.tensor(category or CATEGORY), options)
    forward = plain.triplet(sketches.numpy(), photos.numpy(), PHOTO, category, 0.3, mining)
    assert value.item() == pytest.approx(forward, rel=1e-12)
    both = TripletOptions(0.3, mining, True, category is not None)
    back = plain.triplet(photos.numpy(), sketches.numpy(), PHOTO, category, 0.3, mining)
    value = triplet_loss(sketches, photos, photo, torch.tensor(category or CATEGORY), both)
    assert value.item() == pytest.approx((forward + back) / 2, rel=1e-12)
    assert forward > 0


def test_category_changes_the_negative_only_where_it_can() -> None:
    sketches, photos, photo, category = batch()
    free, own = (
        triplet_loss(sketches, photos, photo, category, TripletOptions(0.3, "batch-hard", within_category=own))
        for own in (False, True)
    )
    assert free > own  # the hardest of fewer is never harder; here it is easier for some row


def test_random_mining_repeats_with_the_seed_and_never_takes_the_same_photo() -> None:
    photo = torch.tensor(PHOTO)
    allowed = different(photo)
    draws = []
    for seed in range(300):
        torch.manual_seed(seed)
        draws.append(mine(torch.zeros(7, 7), torch.zeros(7), allowed, "random"))
        torch.manual_seed(seed)
        assert torch.equal(draws[-1], mine(torch.ones(7, 7), torch.zeros(7), allowed, "random"))
    columns = torch.stack(draws)
    assert allowed[torch.arange(7).expand(300, 7), columns].all()
    counts = torch.bincount(columns[:, 0], minlength=7)  # row 0: five candidates, 60 times each on average
    assert counts[[0, 6]].tolist() == [0, 0]
    assert counts[[1, 2, 3, 4, 5]].min() > 30


def test_random_triplet_is_a_function_of_the_global_seed() -> None:
    sketches, photos, photo, category = batch()
    values = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        values.append(triplet_loss(sketches, photos, photo, category, TripletOptions(1.0)).item())
    assert values[0] == values[1] != values[2]


def test_semi_hard_takes_the_farthest_where_all_are_nearer_than_the_positive() -> None:
    allowed = torch.tensor([[False, True, True], [True, False, True]])
    negative = torch.tensor([[0.9, 0.2, 0.4], [0.5, 0.1, 0.6]])
    assert mine(negative, torch.tensor([0.9, 0.4]), allowed, "semi-hard").tolist() == [2, 0]


def test_distances_keep_their_digits_and_a_finite_gradient_at_zero() -> None:
    a = torch.tensor([[0.6, 0.8, 0.0]]).repeat(30, 1).requires_grad_(True)  # from 26 rows on cdist prefers inner products
    table = distances(a, a.detach() + torch.tensor([0.0, 0.0, 1e-5]))
    assert torch.allclose(table, torch.tensor(1e-5))
    (gradient,) = torch.autograd.grad(distances(a, a.detach()).sum() + own_distances(a, a.detach()).sum(), a)
    assert torch.equal(gradient, torch.zeros(30, 3))


@pytest.mark.parametrize("kind", ["weight", "margin"])
def test_relative_is_the_loop(kind: str) -> None:
    sketches, photos, photo, category = batch()
    value = relative_triplet_loss(sketches, photos, photo, category, RelativeOptions(0.3, kind))
    assert value.item() == pytest.approx(plain.relative(sketches.numpy(), photos.numpy(), PHOTO, 0.3, kind, FLOOR), rel=1e-9)


def test_look_alike_photos_weigh_less() -> None:
    photos = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.02], [0.0, 1.0]]), dim=1).double()
    sketches, photo, zeros = photos.clone(), torch.arange(3), torch.zeros(3, dtype=torch.int64)
    drawn = sketches.clone().requires_grad_(True)
    plain_options, options = TripletOptions(0.3, "batch-hard"), RelativeOptions(0.3, "weight")
    triplet_pull = torch.autograd.grad(triplet_loss(drawn, photos, photo, zeros, plain_options), drawn)[0][0].norm()
    relative_pull = torch.autograd.grad(relative_triplet_loss(drawn, photos, photo, zeros, options), drawn)[0][0].norm()
    assert relative_pull < 0.1 * triplet_pull


INFO = [
    {},
    {"same_photo": "positive"},
    {"smoothing": 0.2},
    {"hardness": 3.0},
    {"intra_negatives": True},
    {"same_photo": "positive", "smoothing": 0.1, "hardness": 2.0, "intra_negatives": True},
]


@pytest.mark.parametrize("options", INFO)
def test_info_nce_is_the_loop(options: dict[str, object]) -> None:
    sketches, photos, photo, _ = batch()
    value = InfoNCE(InfoNCEOptions(0.2, **options), WIDTH)(sketches, photos, photo)  # type: ignore[arg-type]
    loop = {"intra" if name == "intra_negatives" else name: setting for name, setting in options.items()}
    assert value.item() == pytest.approx(plain.info_nce(sketches.numpy(), photos.numpy(), PHOTO, 0.2, **loop), rel=1e-6)


def test_info_nce_of_distinct_photos_is_the_plain_one() -> None:
    sketches, photos = unit(6, 1), unit(6, 2)
    value = InfoNCE(InfoNCEOptions(0.07), WIDTH)(sketches, photos, torch.arange(6))
    assert torch.allclose(value, symmetric_info_nce(sketches, photos, 0.07))
    expected = plain.info_nce(sketches.numpy(), photos.numpy(), list(range(6)), 0.07)
    assert symmetric_info_nce(sketches, photos, 0.07).item() == pytest.approx(expected, rel=1e-9)


def test_memory_adds_the_last_batches_of_other_photos_and_resumes_exactly() -> None:
    options = InfoNCEOptions(0.2, memory=5, memory_warmup=2)
    loss = InfoNCE(options, WIDTH)
    batches = [
        (unit(3, seed), unit(3, seed + 50), torch.tensor(photo)) for seed, photo in enumerate([[0, 1, 2], [3, 1, 4], [5, 0, 3]])
    ]
    for sketches, photos, photo in batches[:2]:  # stored, and not used yet
        expected = plain.info_nce(sketches.numpy(), photos.numpy(), photo.tolist(), 0.2)
        assert loss(sketches, photos, photo).item() == pytest.approx(expected, rel=1e-9)
    again = InfoNCE(options, WIDTH)
    again.load_state_dict(loss.state_dict())
    old_sketches, old_photos = (np.concatenate([batches[k][side].float().numpy() for k in (0, 1)])[1:] for side in (0, 1))
    stored = (old_sketches, old_photos, [1, 2, 3, 1, 4])  # the oldest of six has been overwritten
    sketches, photos, photo = batches[2]
    expected = plain.info_nce(sketches.numpy(), photos.numpy(), photo.tolist(), 0.2, stored=stored)
    assert loss(sketches.float(), photos.float(), photo).item() == pytest.approx(expected, rel=1e-5)
    assert again(sketches.float(), photos.float(), photo).item() == pytest.approx(expected, rel=1e-5)
    assert all(torch.equal(value, loss.state_dict()[name]) for name, value in again.state_dict().items())


def test_memory_is_only_read_outside_training_and_lets_gradients_through() -> None:
    loss = InfoNCE(InfoNCEOptions(0.2, memory=4), WIDTH)
    sketches, photos = unit(3, 1).float().requires_grad_(True), unit(3, 2).float()
    loss(sketches, photos, torch.arange(3)).backward()  # push has written into the memory by now
    assert torch.isfinite(sketches.grad).all()  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    loss.eval()(unit(3, 5).float(), photos, torch.arange(3, 6))
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())
    assert before["memory.photo_index"].tolist() == [0, 1, 2, -1]
    loss.train()(unit(6, 5).float(), unit(6, 6).float(), torch.arange(10, 16))
    assert sorted(loss.state_dict()["memory.photo_index"].tolist()) == [12, 13, 14, 15]


def test_temperature_learns_and_stays_within_its_bounds() -> None:
    sketches, photos, photo, _ = batch(0.3)
    loss = InfoNCE(InfoNCEOptions(0.5, learn_temperature=True), WIDTH)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.05)
    trail = []
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(photos, photos, torch.arange(7))
        value.backward()
        optimizer.step()
        trail.append(value.item())
    assert all(later < earlier for earlier, later in pairwise(trail))  # colder is better where every row is its own nearest
    with torch.no_grad():
        loss.log_temperature.fill_(9.0)  # type: ignore[union-attr]
    value = loss(sketches, photos, photo)
    assert loss.temperature().item() == pytest.approx(1.0)  # type: ignore[union-attr]
    assert torch.autograd.grad(value, loss.log_temperature)[0] != 0.0
    with torch.no_grad():
        loss.log_temperature.fill_(-9.0)  # type: ignore[union-attr]
    assert loss.temperature().item() == pytest.approx(0.01, rel=1e-5)  # type: ignore[union-attr]


def test_gradient_of_the_temperature_is_the_difference_quotient() -> None:
    sketches, photos, photo, _ = batch()
    loss = InfoNCE(InfoNCEOptions(0.2, learn_temperature=True), WIDTH).double()
    (gradient,) = torch.autograd.grad(loss(sketches, photos, photo), loss.log_temperature)
    values = [
        plain.info_nce(sketches.numpy(), photos.numpy(), PHOTO, math.exp(loss.log_temperature.item() + h))  # type: ignore[union-attr]
        for h in (-1e-5, 1e-5)
    ]
    assert gradient.item() == pytest.approx((values[1] - values[0]) / 2e-5, rel=1e-6)


Main = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def mains() -> dict[str, Main]:
    losses: dict[str, Main] = {}
    for mining in MININGS:
        for both in (False, True):
            options = TripletOptions(0.3, mining, both, within_category=both)

            def triplet(s: Tensor, p: Tensor, i: Tensor, c: Tensor, options: TripletOptions = options) -> Tensor:
                torch.manual_seed(0)
                return triplet_loss(s, p, i, c, options)

            losses[f"triplet {mining} {both}"] = triplet
    for kind in ("weight", "margin"):
        relative = RelativeOptions(0.3, kind)
        losses[f"relative {kind}"] = lambda s, p, i, c, options=relative: relative_triplet_loss(s, p, i, c, options)
    for number, settings in enumerate(INFO):
        module = InfoNCE(InfoNCEOptions(0.07, **settings), WIDTH)  # type: ignore[arg-type]
        losses[f"info_nce {number}"] = lambda s, p, i, c, module=module: module(s, p, i)
    return losses


DETACHED = ("relative weight", "relative margin", "info_nce 3", "info_nce 5")  # weights without gradient: checked below


@pytest.mark.parametrize("name", [name for name in mains() if name not in DETACHED])
def test_gradients_are_difference_quotients(name: str) -> None:
    sketches, photos, photo, category = batch()
    inputs = (sketches.requires_grad_(True), photos.requires_grad_(True))
    assert torch.autograd.gradcheck(lambda s, p: mains()[name](s, p, photo, category), inputs, atol=1e-6)


@pytest.mark.parametrize("kind", ["weight", "margin"])
def test_gradient_of_relative_is_that_of_the_loop_with_its_ratios_fixed(kind: str) -> None:
    sketches, photos, photo, category = batch()
    sketches.requires_grad_(True), photos.requires_grad_(True)
    terms = []
    for i in range(7):
        others = [j for j in range(7) if PHOTO[j] != PHOTO[i]]
        unlike = {j: (photos[i] - photos[j]).norm().item() + FLOOR for j in others}
        for j in others:
            r = unlike[j] * len(others) / sum(unlike.values())
            gap = (sketches[i] - photos[i]).norm() - (sketches[i] - photos[j]).norm()
            term = r * (0.3 + gap).relu() if kind == "weight" else (0.3 * r + gap).relu()
            terms.append(term)
    loop = torch.stack(terms)
    expected = torch.autograd.grad(loop.sum() / (loop > 0).sum(), (sketches, photos))
    value = relative_triplet_loss(sketches, photos, photo, category, RelativeOptions(0.3, kind))
    for got, wanted in zip(torch.autograd.grad(value, (sketches, photos)), expected, strict=True):
        assert torch.allclose(got, wanted, atol=1e-12)


def test_gradient_of_hard_negatives_is_that_of_the_loop_with_its_weights_fixed() -> None:
    sketches, photos, photo, _ = batch()
    sketches.requires_grad_(True), photos.requires_grad_(True)
    total = torch.zeros((), dtype=torch.float64)
    for anchors, others in ((sketches, photos), (photos, sketches)):
        for i in range(7):
            row = others @ anchors[i]
            among = [j for j in range(7) if PHOTO[j] != PHOTO[i]]
            heavy = torch.exp(3.0 * row[among].detach())
            share = torch.exp(row[among] / 0.07) * heavy / heavy.mean()
            total = total + torch.log(1.0 + share.sum() / torch.exp(row[i] / 0.07))
    expected = torch.autograd.grad(total / 14, (sketches, photos))
    value = InfoNCE(InfoNCEOptions(0.07, hardness=3.0), WIDTH)(sketches, photos, photo)
    for got, wanted in zip(torch.autograd.grad(value, (sketches, photos)), expected, strict=True):
        assert torch.allclose(got, wanted, atol=1e-10)


SHARED = ("info_nce 1", "info_nce 5")  # several sketches of one photo share a target there, which has a price of its own


@pytest.mark.parametrize(
    ("name", "rows"), [(name, rows) for name in mains() for rows in (1, 3) if rows == 1 or name not in SHARED]
)
def test_one_photo_alone_costs_nothing(name: str, rows: int) -> None:
    sketches, photos = unit(rows, 1).requires_grad_(True), unit(rows, 2).requires_grad_(True)
    one = torch.zeros(rows, dtype=torch.int64)
    value = mains()[name](sketches, photos, one, one)
    gradients = torch.autograd.grad(value, (sketches, photos))
    assert value.item() == 0.0
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


@pytest.mark.parametrize("name", mains())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_collapsed_embeddings_give_numbers(name: str, dtype: torch.dtype) -> None:
    same = unit(1, 1).expand(7, WIDTH).to(dtype)
    sketches, photos = same.clone().requires_grad_(True), same.clone().requires_grad_(True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = mains()[name](sketches, photos, torch.tensor(PHOTO), torch.tensor(CATEGORY))
    assert value.dtype == torch.float32
    assert value.item() > 0.0
    for gradient in torch.autograd.grad(value, (sketches, photos)):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", mains())
def test_autocast_changes_nothing(name: str) -> None:
    sketches, photos, photo, category = batch()
    sketches, photos = sketches.bfloat16(), photos.bfloat16()
    expected = mains()[name](sketches.double(), photos.double(), photo, category)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = mains()[name](sketches, photos, photo, category)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_unknown_mining_and_relative_are_named() -> None:
    with pytest.raises(ValueError, match=r"mining is 'hard', expected one of random, semi-hard, batch-hard"):
        triplet_loss(*batch(), TripletOptions(mining="hard"))
    with pytest.raises(ValueError, match="relative is 'both', expected one of weight, margin"):
        relative_triplet_loss(*batch(), RelativeOptions(relative="both"))
