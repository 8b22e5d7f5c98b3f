"""Parts of joint training: discriminator, weights, teacher, reward, policy gradient, alternation, label fractions."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.training.recipe import RECIPE
from training.config import ConfigError, read_config
from training.data.folder import PairsFolder
from training.data.recipes import validation_sets
from training.data.sources import SourceConfig, open_sources
from training.losses import LossConfig, build_loss, distance_distillation
from training.losses.triplet import TripletOptions, triplet_loss
from training.models.config import EncoderConfig
from training.models.encoder import build_encoder, build_head
from training.network import PairNetwork
from training.semi.clock import Clock
from training.semi.discriminator import DiscriminatorConfig, PatchDiscriminator, certainty, certainty_loss
from training.semi.fractions import cut, labelled_photos, training_pairs
from training.semi.retrieval import (
    PairTensors,
    RetrievalConfig,
    RetrievalObjective,
    Teacher,
    instance_weights,
    joined,
    triplet_terms,
)
from training.semi.reward import RewardConfig, policy_loss, reward
from training.semi.schedule import AlternationConfig
from training.supervised import SupervisedConfig

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_discriminator_is_pix2pix_patch_gan() -> None:
    torch.manual_seed(0)
    model = PatchDiscriminator(DiscriminatorConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_767_809
    with torch.no_grad():
        logits = model(torch.randn(1, 3, 256, 256), torch.randn(1, 3, 256, 256))
    assert logits.shape == (1, 30, 30)
    score = certainty(logits)
    assert score.shape == (1,)
    torch.testing.assert_close(score, torch.sigmoid(logits).mean((1, 2)))


@pytest.mark.parametrize(("layers", "side"), [(3, 70), (2, 34), (1, 16)])
def test_a_patch_sees_so_many_pixels(layers: int, side: int) -> None:
    """The gradient of one logit reaches a square of the receptive field's size."""
    torch.manual_seed(0)
    model = PatchDiscriminator(DiscriminatorConfig(width=2, layers=layers, norm="none", size=160))
    photo = torch.randn(1, 3, 160, 160, requires_grad=True)
    logits = model(photo, torch.randn(1, 3, 160, 160))
    logits[0, logits.shape[1] // 2, logits.shape[2] // 2].backward()
    assert photo.grad is not None
    reached = photo.grad[0].abs().sum(0) > 0
    assert int(reached.any(0).sum()) == int(reached.any(1).sum()) == side


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_the_smallest_input_works_and_less_is_refused(norm: str) -> None:
    config = DiscriminatorConfig(width=4, norm=norm, size=32)  # type: ignore[arg-type]
    assert PatchDiscriminator(config)(torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32)).shape == (2, 2, 2)
    with pytest.raises(ValueError, match="size is 31 pixels, 3 layers need at least 32"):
        replace(config, size=31)


def test_a_pair_has_the_certainty_it_has_alone() -> None:
    """Instance norm: neither neighbours nor training mode count."""
    torch.manual_seed(0)
    model = PatchDiscriminator(DiscriminatorConfig(size=32, width=4))
    photos, sketches = torch.randn(2, 5, 3, 32, 32)
    alone = torch.cat([model(photos[row : row + 1], sketches[row : row + 1]) for row in range(5)])
    torch.testing.assert_close(model.train()(photos, sketches), alone, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.eval()(photos, sketches), alone, rtol=1e-4, atol=1e-6)


def test_the_discriminators_loss_is_cross_entropy() -> None:
    logits = torch.randn(3, 4, 4, dtype=torch.float64)
    score = torch.sigmoid(logits).mean((1, 2))
    torch.testing.assert_close(certainty_loss(logits, 1.0), -score.log().mean())
    torch.testing.assert_close(certainty_loss(logits, 0.0), -(1 - score).log().mean())
    torch.testing.assert_close(certainty_loss(logits, 1.0, "patch"), torch.nn.functional.softplus(-logits).mean())
    sure = torch.full((2, 3, 3), 200.0, requires_grad=True)
    certainty_loss(sure, 0.0).backward()
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


def test_a_discriminator_learns_to_tell_lines_from_none() -> None:
    torch.manual_seed(0)
    model = PatchDiscriminator(DiscriminatorConfig(size=32, width=4))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    photos = torch.randn(8, 3, 32, 32)
    drawn, empty = torch.ones(8, 3, 32, 32), torch.ones(8, 3, 32, 32)
    drawn[:, :, 8:24, 15:17] = -1
    for _ in range(60):
        logits = model(torch.cat([photos, photos]), torch.cat([drawn, empty]))
        loss = certainty_loss(logits[:8], 1.0) + certainty_loss(logits[8:], 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert certainty(model(photos, drawn)).mean() > 0.6 > 0.4 > certainty(model(photos, empty)).mean()


def test_weights_are_constants() -> None:
    scores = torch.tensor([0.2, 0.6], requires_grad=True)
    for kind, wanted in (("certainty", [0.2, 0.6]), ("none", [1.0, 1.0]), ("relative", [0.5, 1.5])):
        weights = instance_weights(scores, kind)  # type: ignore[arg-type]
        torch.testing.assert_close(weights, torch.tensor(wanted))
        assert not weights.requires_grad
    assert torch.isfinite(instance_weights(torch.zeros(3), "relative")).all()


@pytest.mark.parametrize("mining", ["random", "semi-hard", "batch-hard"])
def test_triplet_terms_have_the_triplet_loss_as_mean(mining: str) -> None:
    sketches, photos = unit(6, 5), unit(6, 5, seed=1)
    index, category = torch.tensor([0, 1, 2, 3, 4, 4]), torch.tensor([0, 0, 1, 1, 0, 0])
    for options in (TripletOptions(mining=mining), TripletOptions(mining=mining, within_category=True)):
        torch.manual_seed(3)
        whole = triplet_loss(sketches, photos, index, category, options)
        torch.manual_seed(3)
        torch.testing.assert_close(triplet_terms(sketches, photos, index, category, options).mean(), whole)
    alone = triplet_terms(sketches, photos, torch.zeros(6, dtype=torch.int64), category, options)
    assert not alone.any()


@pytest.fixture(scope="module")
def network() -> PairNetwork:
    torch.manual_seed(0)
    config = EncoderConfig(size=64, features=16, embedding=8, grids=(2, 1), dropout=0.2)
    return PairNetwork(build_encoder(config), build_head(config), build_loss(LossConfig(main="triplet"), config))


def some_pairs(count: int, seed: int, first: int = 0) -> PairTensors:
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randn(2, count, 3, 64, 64, generator=rng)
    return PairTensors(pixels[0], pixels[1], torch.arange(first, first + count), torch.zeros(count, dtype=torch.int64))


def test_the_retrieval_loss_is_the_papers(network: PairNetwork) -> None:
    """L_trip(labelled) + mean of w_j L_trip(j) + 0.1 L_KD(both), from the network's own embeddings (METHODS B.7)."""
    config = RetrievalConfig()
    objective = RetrievalObjective(network, config).eval()
    labelled, generated = some_pairs(4, 1), some_pairs(3, 2)
    weights = torch.tensor([0.1, 0.7, 0.4])
    teacher = unit(14, 6, seed=5)
    torch.manual_seed(7)
    loss, terms = objective(labelled, generated, weights, teacher)
    torch.manual_seed(7)
    with torch.no_grad():
        embedded = network.views(joined(labelled, generated)).embeddings
        sketches, photos = embedded[:7], embedded[7:]
        options = config.loss.triplet_options
        first = triplet_loss(sketches[:4], photos[:4], labelled.photo_index, labelled.category_index, options)
        each = triplet_terms(sketches[4:], photos[4:], generated.photo_index, generated.category_index, options)
        kept = distance_distillation(sketches, photos, teacher[:7], teacher[7:])
    torch.testing.assert_close(loss.detach(), first + (weights * each).mean() + 0.1 * kept)
    assert float(terms["labelled"]) == pytest.approx(float(first))
    assert float(terms["generated"]) == pytest.approx(float(each.mean()))
    assert float(terms["distillation"]) == pytest.approx(float(kept))


def test_weight_nought_is_as_good_as_no_generated_pairs(network: PairNetwork) -> None:
    objective = RetrievalObjective(network, RetrievalConfig(distillation=0.0)).eval()
    labelled, generated = some_pairs(4, 1), some_pairs(3, 2)
    none = PairTensors(*(tensor[:0] for tensor in generated))
    gradients = []
    for some, weights in ((generated, torch.zeros(3)), (none, torch.zeros(0))):
        torch.manual_seed(7)
        network.zero_grad()
        objective(labelled, some, weights, None)[0].backward()
        gradients.append(network.encoder.projection.weight.grad.clone())  # type: ignore[union-attr,operator]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
    assert gradients[0].abs().max() > 0


def test_the_teacher_stays_as_it_was(network: PairNetwork) -> None:
    teacher = Teacher(network.encoder, network.head)
    pixels = some_pairs(3, 4).photos
    before = teacher(pixels)
    assert not before.requires_grad
    teacher.train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    torch.testing.assert_close(teacher(pixels), before)  # dropout of 0.2 would show
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_the_reward_is_certainty_less_triplet() -> None:
    """By hand: two photos at right angles, one sketch on its photo, one on the other's."""
    photos = torch.eye(2, 3)
    sketches = torch.stack([photos[0], photos[0]])
    scores = torch.tensor([0.9, 0.2])
    values, triplet = reward(sketches, photos, torch.arange(2), scores, RewardConfig(triplet=2.0, certainty=0.5))
    root = math.sqrt(2.0)
    torch.testing.assert_close(triplet, torch.tensor([0.0, 0.3 + root]))
    torch.testing.assert_close(values, torch.tensor([0.45, 0.1 - 2 * (0.3 + root)]))
    same, _ = reward(sketches, photos, torch.arange(2), scores, RewardConfig(2.0, 0.5, negatives="mean"))
    torch.testing.assert_close(same, values)  # of one other photo
    only, none = reward(sketches, photos, torch.zeros(2, dtype=torch.int64), scores, RewardConfig())
    torch.testing.assert_close(only, scores)
    assert not none.any()


def test_random_negatives_have_the_mean_of_all() -> None:
    sketches, photos = unit(8, 4), unit(8, 4, seed=1)
    torch.manual_seed(0)
    drawn = [reward(sketches, photos, torch.arange(8), torch.zeros(8), RewardConfig())[1] for _ in range(4000)]
    expected = reward(sketches, photos, torch.arange(8), torch.zeros(8), RewardConfig(negatives="mean"))[1]
    torch.testing.assert_close(torch.stack(drawn).mean(0), expected, rtol=0.05, atol=0.02)


def test_the_policy_gradient_follows_the_reward() -> None:
    likelihood = torch.tensor([-4.0, -6.0, -8.0], requires_grad=True)
    rewards, lengths = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2, 3, 4])
    policy_loss(likelihood, rewards, lengths, RewardConfig()).backward()
    torch.testing.assert_close(likelihood.grad, -10.0 * rewards / 3)
    likelihood.grad = None
    policy_loss(likelihood, rewards, lengths, RewardConfig(baseline="batch-mean", per_row=True)).backward()
    torch.testing.assert_close(likelihood.grad, -10.0 * torch.tensor([-1.0, 0.0, 1.0]) / 3 / lengths)


def test_phases_alternate_after_the_warm_up() -> None:
    plan = AlternationConfig(warmup=3, retrieval=2, generator=1)
    phases = [plan.phase(step) for step in range(9)]
    assert phases == ["warmup"] * 3 + ["retrieval", "retrieval", "generator"] * 2
    assert [plan.done(step) for step in range(10)] == [0, 0, 0, 0, 1, 2, 2, 3, 4, 4]
    for step in range(30):
        assert plan.done(step) == sum(plan.phase(before) == "retrieval" for before in range(step))
    fixed = AlternationConfig(warmup=0, generator=0)
    assert {fixed.phase(step) for step in range(20)} == {"retrieval"}


def test_parts_add_up_to_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr("training.semi.clock.time.perf_counter", lambda: float(next(now)))
    clock = Clock()
    for kind in ("warmup", "retrieval", "retrieval"):
        with clock.part(f"seconds/{kind}"), clock.part("draw"):
            pass
    assert clock.take(3) == {"seconds/warmup": 3.0, "seconds/retrieval": 3.0, "time/draw": 1.0}
    assert clock.take(1) == {}


def test_labelled_photos_are_nested() -> None:
    names = [f"{number}.png" for number in range(57)]
    kept = [labelled_photos(reversed(names), fraction, "chairs") for fraction in (0.01, 0.2, 0.4, 0.6, 0.8, 1.0)]
    assert [len(some) for some in kept] == [2, 11, 23, 34, 46, 57]
    assert all(small < large for small, large in pairwise(kept))
    assert kept[1] != labelled_photos(names, 0.2, "shoes")
    for wrong in (0.0, 1.2):
        with pytest.raises(ConfigError, match=rf"the label fraction is {wrong:g}, expected more than 0 and at most 1"):
            labelled_photos(names, wrong, "chairs")


def test_a_cut_folder_trains_on_the_labelled_and_validates_as_before(
    shapes: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("data")
    (data / "shapes").symlink_to(shapes)
    source = SourceConfig("shapes", "shapes")
    (new,) = cut([source], data, 0.5, tmp_path)
    again = cut([source], data, 0.5, tmp_path)
    assert again == (new,)
    whole = training_pairs(source, data)
    photos = {pair.photo for pair in whole.pairs}
    assert len(photos) == 10  # of twelve with sketches, two validate
    kept = {pair.photo for pair in training_pairs(new, tmp_path).pairs}
    assert len(kept) == 5
    assert kept == {pair.photo for pair in whole.labelled(0.5).pairs}
    with (tmp_path / "shapes" / new.pairs).open() as file:
        assert {row["photo"] for row in csv.DictReader(file)} == kept
    (before,), (after,) = validation_sets(data, ["shapes"]), validation_sets(tmp_path, ["shapes"])
    assert before.pairs == after.pairs
    assert before.photos == after.photos
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    config = read_config(recipe, SupervisedConfig)
    (opened,) = open_sources([new], tmp_path, config.input.spec(config.encoder))
    assert {photo for group in opened.groups.values() for photo in group} == kept
    assert set(PairsFolder.read(tmp_path / "shapes").photo_category) == set(whole.folder.photo_category)


def test_only_pairs_have_labels_to_take_away(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kind is 'edges'; only pairs of people have labels"):
        training_pairs(SourceConfig("drawn", "shoes", kind="edges"), tmp_path)
