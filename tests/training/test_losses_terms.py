"""The terms beside the main loss, distillation, the configuration and the whole of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.training import losses_plain as plain
from training.losses import LossConfig, Views, build_loss, distance_distillation, relational_distillation
from training.losses.auxiliary import CategoryLoss, intra_modal_loss, patch_loss
from training.losses.triplet import TripletOptions
from training.models.config import EncoderConfig

ENCODER = EncoderConfig(size=64, features=6, embedding=5, grids=(1, 1))
PHOTO = [0, 1, 2, 1, 3]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def unit(rows: int, width: int, seed: int) -> Tensor:
    return F.normalize(normal(rows, width, seed=seed), dim=1)


def views(rows: int, seed: int, *, dtype: torch.dtype = torch.float32) -> Views:
    """What an encoder with ENCODER's stages might have made of `rows` images."""
    maps = tuple(normal(rows, stage.channels, 4, 4, seed=seed).to(dtype) for stage in ENCODER.taps)
    pooled = normal(rows, ENCODER.pooled, seed=seed + 1).to(dtype)
    return Views(maps, pooled, unit(rows, 6, seed + 2).to(dtype), unit(rows, 5, seed + 3).to(dtype))


@pytest.mark.parametrize("grid", [1, 2, 3])
def test_patches_are_the_loop(grid: int) -> None:
    sketch_map, photo_map = normal(5, 3, 6, 6, seed=1), normal(5, 3, 6, 6, seed=2)
    value = patch_loss(sketch_map, photo_map, torch.tensor(PHOTO), grid=grid, temperature=0.1)
    expected = plain.patches(sketch_map.numpy(), photo_map.numpy(), PHOTO, grid, 0.1)
    assert value.item() == pytest.approx(expected, rel=1e-3)  # cells of this size are EMPTY_CELL^2 / 2 short of unit length
    inputs = (sketch_map.requires_grad_(True), photo_map.requires_grad_(True))
    index = torch.tensor(PHOTO)
    assert torch.autograd.gradcheck(lambda s, p: patch_loss(s, p, index, grid=grid, temperature=0.1), inputs, atol=1e-6)


def test_patches_see_where_things_are() -> None:
    photo_map = normal(4, 8, 4, 4, seed=3)
    index = torch.arange(4)
    here = patch_loss(photo_map, photo_map, index, grid=4, temperature=0.1)
    turned = patch_loss(photo_map.flip(3), photo_map, index, grid=4, temperature=0.1)
    whole = patch_loss(photo_map.flip(3), photo_map, index, grid=1, temperature=0.1)
    assert here < 0.1 < 1.0 < turned
    assert whole == pytest.approx(patch_loss(photo_map, photo_map, index, grid=1, temperature=0.1).item())


def test_empty_maps_have_finite_gradients_and_fine_grids_are_refused() -> None:
    empty = torch.zeros(3, 4, 4, 4, requires_grad=True)
    value = patch_loss(empty, empty.detach() + normal(3, 4, 4, 4).float(), torch.arange(3), grid=2, temperature=0.1)
    (gradient,) = torch.autograd.grad(value, empty)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0
    with pytest.raises(ValueError, match="patch_grid is 5, expected at most the map's side, 4"):
        patch_loss(empty, empty, torch.arange(3), grid=5, temperature=0.1)


@pytest.mark.parametrize("mining", ["semi-hard", "batch-hard"])
def test_intra_modal_is_the_loop(mining: str) -> None:
    rows, photo = unit(7, 4, 1), [0, 1, 2, 1, 3, 1, 0]
    values = []
    for a in range(7):
        for p in range(7):
            if a != p and photo[a] == photo[p]:
                row = [plain.distance(rows[a].numpy(), other.numpy()) for other in rows]
                others = [k for k in range(7) if photo[k] != photo[a]]
                values.append(max(0.0, 0.3 + row[p] - row[plain.pick(row, row[p], others, mining)]))
    assert len(values) == 8
    options, index = TripletOptions(0.3, mining), torch.tensor(photo)
    assert intra_modal_loss(rows, index, options).item() == pytest.approx(sum(values) / 8, rel=1e-12)
    assert torch.autograd.gradcheck(lambda x: intra_modal_loss(x, index, options), (rows.requires_grad_(True),), atol=1e-6)


@pytest.mark.parametrize("photo", [[0, 1, 2], [4], [5, 5]])
def test_intra_modal_without_pairs_or_without_negatives_is_zero(photo: list[int]) -> None:
    rows = unit(len(photo), 4, 1).requires_grad_(True)
    value = intra_modal_loss(rows, torch.tensor(photo), TripletOptions())
    assert value.item() == 0.0
    assert torch.equal(torch.autograd.grad(value, rows)[0], torch.zeros_like(rows))


def test_category_is_cross_entropy_of_both_sides_and_skips_what_is_not_known() -> None:
    torch.manual_seed(0)
    term = CategoryLoss(4, 3).double()
    sketches, photos = normal(4, 4, seed=1), normal(4, 4, seed=2)
    value = term(sketches, photos, torch.tensor([0, -1, 2, 1]))
    weight, bias = (each.detach().numpy() for each in term.classifier.parameters())
    total = 0.0
    for rows in (sketches.numpy(), photos.numpy()):
        for row, category in zip(rows[[0, 2, 3]], [0, 2, 1], strict=True):
            scores = weight @ row + bias
            total -= scores[category] - math.log(sum(math.exp(score) for score in scores))
    assert value.item() == pytest.approx(total / 6, rel=1e-12)
    assert term(sketches, photos, torch.full((4,), -1)).item() == 0.0
    with pytest.raises(ValueError, match="categories is 3, expected more than the batch's largest category number, 3"):
        term(sketches, photos, torch.tensor([0, 1, 2, 3]))


@pytest.mark.parametrize("own_row", [True, False])
def test_relational_distillation_is_the_loop(own_row: bool) -> None:
    rows, columns, t_rows, t_columns = unit(4, 3, 1), unit(4, 3, 2), unit(4, 6, 3), unit(4, 6, 4)
    value = relational_distillation(rows, columns, t_rows, t_columns, 0.2, own_row=own_row)
    expected = plain.divergence(*(x.numpy() for x in (rows, columns, t_rows, t_columns)), 0.2, own_row=own_row)
    assert value.item() == pytest.approx(expected, rel=1e-9)
    inputs = (rows.requires_grad_(True), columns.requires_grad_(True))
    assert torch.autograd.gradcheck(
        lambda r, c: relational_distillation(r, c, t_rows, t_columns, 0.2, own_row=own_row), inputs, atol=1e-6
    )


def test_a_student_that_agrees_pays_nothing_and_a_teacher_learns_nothing() -> None:
    teacher = unit(5, 8, 1).requires_grad_(True)
    turned = (teacher @ torch.linalg.qr(normal(8, 8))[0]).detach().requires_grad_(True)  # other embeddings, the same relations
    value = relational_distillation(turned, turned, teacher, teacher, 0.1, own_row=False) + distance_distillation(
        turned, turned.roll(1, 0), teacher, teacher.roll(1, 0)
    )
    assert value.item() == pytest.approx(0.0, abs=1e-12)
    assert torch.autograd.grad(value, teacher, allow_unused=True) == (None,)
    one = unit(1, 8, 1)
    assert relational_distillation(one, one, one, one, own_row=False).item() == 0.0


def test_distance_distillation_by_hand() -> None:
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])  # distances sqrt 2, 0
    teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])  # distances 0, 2
    assert distance_distillation(*student, *teacher).item() == pytest.approx((math.sqrt(2) + 2) / 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert distance_distillation(*(x.bfloat16() for x in (*student, *teacher))).dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"main": "arcface"}, "main is 'arcface', expected one of triplet, info_nce, relative"),
        ({"mining": "hard"}, "mining is 'hard', expected one of random, semi-hard, batch-hard"),
        ({"relative": "x"}, "relative is 'x', expected one of weight, margin"),
        ({"same_photo": "keep"}, "same_photo is 'keep', expected one of mask, positive"),
        ({"margin": -0.1}, "margin is -0.1, expected a number from 0 to 2"),
        ({"margin": "0.3"}, "margin is '0.3', expected a number from 0 to 2"),
        ({"temperature": 0.0}, "temperature is 0.0, expected a number from 0.01 to 1"),
        ({"temperature": math.nan}, "temperature is nan, expected a number from 0.01 to 1"),
        ({"smoothing": 1.0}, "smoothing is 1.0, expected a number from 0 to 0.99"),
        ({"patch_weight": -1.0}, "patch_weight is -1.0, expected a number of at least 0"),
        ({"intra_weight": math.inf}, "intra_weight is inf, expected a number of at least 0"),
        ({"memory": 1.5}, "memory is 1.5, expected a whole number of at least 0"),
        ({"patch_grid": 0}, "patch_grid is 0, expected a whole number of at least 1"),
        ({"patch_level": True}, "patch_level is True, expected a whole number"),
        ({"learn_temperature": 1}, "learn_temperature is 1, expected true or false"),
        ({"category_weight": 0.1}, "categories is 0, expected at least 2 where category_weight is above 0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        LossConfig(**settings)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_whole_numbers_may_stand_for_numbers() -> None:
    assert LossConfig(main="triplet", margin=1, patch_weight=2).margin == 1


def test_the_map_must_be_there_and_rows_must_match() -> None:
    with pytest.raises(ValueError, match="patch_level is 2, expected -2 to 1: there are 2 maps"):
        build_loss(LossConfig(patch_weight=1.0, patch_level=2), ENCODER)
    loss, index = build_loss(LossConfig(), ENCODER), torch.arange(3)
    with pytest.raises(ValueError, match="are 3, 2, 3 and 3, expected one number above 0"):
        loss(views(3, 1), views(2, 2), index, index)
    with pytest.raises(ValueError, match="are 0, 0, 0 and 0, expected one number above 0"):
        loss(views(0, 1), views(0, 2), index[:0], index[:0])


FULL = LossConfig(
    main="triplet",
    mining="batch-hard",
    patch_weight=0.5,
    patch_grid=2,
    intra_weight=0.25,
    category_weight=0.1,
    categories=4,
)


def test_total_is_the_weighted_sum_of_its_terms() -> None:
    torch.manual_seed(0)
    loss = build_loss(FULL, ENCODER)
    sketches, photos = views(5, 10), views(5, 20)
    category = torch.tensor([0, 1, 2, 1, 3])
    total, log = loss(sketches, photos, torch.tensor(PHOTO), category)
    assert list(log) == ["triplet", "patch", "intra", "category", "total"]
    assert log["total"] == pytest.approx(total.item())
    assert total.item() == pytest.approx(
        log["triplet"] + 0.5 * log["patch"] + 0.25 * log["intra"] + 0.1 * log["category"], rel=1e-6
    )
    s, p = sketches.embeddings.double().numpy(), photos.embeddings.double().numpy()
    assert log["triplet"] == pytest.approx(plain.triplet(s, p, PHOTO, None, 0.3, "batch-hard"), rel=1e-5)
    maps = sketches.maps[-1].double().numpy(), photos.maps[-1].double().numpy()
    assert log["patch"] == pytest.approx(plain.patches(*maps, PHOTO, 2, 0.1), rel=1e-3)
    first = build_loss(replace(FULL, patch_level=0), ENCODER)(sketches, photos, torch.tensor(PHOTO), category)[1]
    assert first["patch"] != log["patch"]


@pytest.mark.parametrize(
    "config", [LossConfig(), LossConfig(main="relative"), LossConfig(learn_temperature=True, memory=8), FULL]
)
@pytest.mark.parametrize("rows", [1, 5])
def test_bfloat16_views_under_autocast_give_finite_float32(config: LossConfig, rows: int) -> None:
    loss = build_loss(config, ENCODER)
    sketches, photos = views(rows, 1, dtype=torch.bfloat16), views(rows, 2, dtype=torch.bfloat16)
    for tensor in (*sketches.maps, *photos.maps, sketches.pooled, photos.pooled, sketches.embeddings, photos.embeddings):
        tensor.requires_grad_(True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, log = loss(sketches, photos, torch.arange(rows), torch.zeros(rows, dtype=torch.int64))
    total.backward()
    assert total.dtype == torch.float32
    assert all(math.isfinite(value) for value in log.values())
    assert torch.isfinite(sketches.embeddings.grad).all()  # type: ignore[arg-type]
    assert all(torch.isfinite(parameter.grad).all() for parameter in loss.parameters())  # type: ignore[arg-type]
    if rows == 1 and config.category_weight == 0.0:
        assert total.item() == 0.0
        assert sketches.embeddings.grad.abs().max() == 0.0  # type: ignore[union-attr]


def test_state_dict_holds_all_there_is_to_resume() -> None:
    config = LossConfig(learn_temperature=True, memory=8, category_weight=0.1, categories=4)

    def steps(loss: torch.nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> list[float]:
        values = []
        for seed in seeds:
            index = torch.arange(5 * seed, 5 * seed + 5)
            total, log = loss(views(5, seed), views(5, seed + 100), index, index % 4)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            values.append(log["total"])
        return values

    torch.manual_seed(0)
    loss = build_loss(config, ENCODER)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    steps(loss, optimizer, range(3))
    again = build_loss(config, ENCODER)
    again.load_state_dict(loss.state_dict())
    expected = steps(loss, optimizer, range(3, 6))
    assert steps(again, torch.optim.SGD(again.parameters(), lr=0.1), range(3, 6)) == expected
