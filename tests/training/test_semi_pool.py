"""What a joint run draws from, and that people's sketches and generated ones come to D_C by the same road."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.sketch import Sketch
from fgsbir_edge.zero_sketch_artist import pair_spec
from tests.training.semi_recipe import SEQUENCES, TINY
from training.config import ConfigError
from training.data.folder import Pair, PairsFolder
from training.data.pixels import PixelStore
from training.data.recipes import validation_sets
from training.data.sources import SourceConfig
from training.generation.dataset import sequence_set
from training.generation.mixture import Mixture
from training.generation.network import Generator
from training.generation.sampling import Drawn, DrawOptions, draw, log_likelihood
from training.generation.sequences import SequenceSet, to_rows
from training.semi.config import GeneratorUpdateConfig, UnlabelledConfig
from training.semi.drawing import Illustrator, pair_sketches, sketches_of
from training.semi.generator import GeneratorObjective
from training.semi.pool import PhotoPool, Pool, open_pool
from training.semi.reward import RewardConfig
from training.semi.sealed import Sealed, Unsealing

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

SPEC = InputSpec(size=64)


def rows(folder: PairsFolder, pairs: Sequence[Pair]) -> SequenceSet:
    return sequence_set(folder, pairs, SEQUENCES, 30.0)


@pytest.fixture(scope="module")
def data(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shapes, and their photos of boxes as a folder without sketches."""
    root = tmp_path_factory.mktemp("data")
    (root / "shapes").symlink_to(shapes)
    shutil.copytree(shapes / "photos" / "box", root / "boxes" / "photos")
    return root


@pytest.fixture(scope="module")
def pool(data: Path) -> Pool:
    return open_pool([SourceConfig("shapes", "shapes")], UnlabelledConfig(fraction=0.5), data, SPEC, rows)


def test_the_rest_of_the_photos_has_no_sketches(pool: Pool, data: Path) -> None:
    """Fourteen photos: two validate, five are labelled, five lose their sketches, two never had one."""
    (source,) = pool.sources
    labelled = {f"shapes/{photo}" for group in source.labelled.groups.values() for photo in group}
    unlabelled = set(source.unlabelled[""])
    (held,) = validation_sets(data, ["shapes"])
    assert held.photos is not None or held.per_category
    held_photos = {f"shapes/{pair.photo}" for pair in held.pairs}
    assert (len(labelled), len(unlabelled), len(held_photos)) == (5, 7, 2)
    assert labelled.isdisjoint(unlabelled)
    assert held_photos.isdisjoint(labelled | unlabelled)
    assert set(pool.photos.photo_category) == labelled | unlabelled
    assert {pair.photo for pair in source.real.pairs} <= labelled
    assert all(path.is_file() for path in pool.photos.paths.values())
    assert pool.told().startswith("shapes: 5 labelled photos with 10 sketches, ")


def test_draws_are_distinct_and_repeat(pool: Pool) -> None:
    (source,) = pool.sources
    first, again = (source.draw_unlabelled(np.random.default_rng(3), 4) for _ in range(2))
    assert first == again
    assert len(set(first)) == 4
    assert first != source.draw_unlabelled(np.random.default_rng(4), 4)
    numbers = source.draw_real(np.random.default_rng(3), 4)
    assert len({source.real.pairs[number].photo for number in numbers}) == 4
    assert len(source.draw_real(np.random.default_rng(3), 99)) == len({pair.photo for pair in source.real.pairs}) >= 4
    assert len(source.draw_unlabelled(np.random.default_rng(3), 99)) == 7


def test_folders_and_categories(data: Path) -> None:
    config = UnlabelledConfig(fraction=0.5, folders={"shapes": ("boxes",)})
    pool = open_pool([SourceConfig("shapes", "shapes", by_category=True)], config, data, SPEC, rows)
    (source,) = pool.sources
    assert sum(map(len, source.unlabelled.values())) == 7 + 7
    assert set(source.unlabelled[""]) == {f"boxes/{number}.png" for number in range(7)}
    for seed in range(5):
        drawn = source.draw_unlabelled(np.random.default_rng(seed), 3)
        assert len({pool.photos.photo_category[name] for name in drawn}) == 1 or len(source.unlabelled["disc"]) < 3
    whole = open_pool([SourceConfig("shapes", "shapes")], UnlabelledConfig(folders={"shapes": ("shapes",)}), data, SPEC, rows)
    held = {pair.photo for item in validation_sets(data, ["shapes"]) for pair in item.pairs}
    assert held.isdisjoint({name.removeprefix("shapes/") for name in whole.sources[0].unlabelled[""]})


def test_what_cannot_be_drawn_from_is_named(data: Path, shapes: Path, tmp_path: Path) -> None:
    source = SourceConfig("shapes", "shapes")
    for sources, config, message in (
        ([], UnlabelledConfig(), "expected at least one, each with a name of its own"),
        ([source, source], UnlabelledConfig(), "expected at least one, each with a name of its own"),
        ([source], UnlabelledConfig(folders={"x": ("boxes",)}), "names the source 'x'; there are shapes"),
        ([SourceConfig("e", "shapes", kind="edges")], UnlabelledConfig(), "kind is 'edges'"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_pool(sources, config, data, SPEC, rows)
    shutil.copytree(shapes, tmp_path / "few")
    for kind in ("box", "disc"):
        (tmp_path / "few" / "photos" / kind / "6.png").unlink()
    with pytest.raises(ConfigError, match=r"source few: 0 photos without sketches; lower unlabelled\.fraction \(now 1\) or name"):
        open_pool([SourceConfig("few", "few")], UnlabelledConfig(), tmp_path, SPEC, rows)


def boxes(pixels: torch.Tensor) -> np.ndarray:
    """Where each picture [B,3,S,S] has ink: first and last row and column [B,4]. Paper is 1."""
    ink = (pixels[:, 0] < 0.9).numpy()
    return np.array([[np.flatnonzero(one.any(axis))[[0, -1]] for axis in (0, 1)] for one in ink]).reshape(-1, 4)


def test_real_and_generated_sketches_are_framed_alike(pool: Pool) -> None:
    """Neither box, place, line width, polarity nor rounding tells them apart; the same rows give the same pixels."""
    (source,) = pool.sources
    spec = pair_spec(InputSpec(size=160, line_width=2.0), 128)
    real = [source.real.sketch(number) for number in range(len(source.real))]
    torch.manual_seed(0)
    generator = Generator(TINY).eval()
    drawn = draw(generator, torch.randn(8, 3, 64, 64), DrawOptions(), torch.Generator().manual_seed(1))
    generated = sketches_of(drawn, 30.0)
    long_side = 190 / 256 * 128
    for sketches in (real, generated):
        pixels = pair_sketches(sketches, spec)
        assert pixels.shape == (len(sketches), 3, 128, 128)
        assert pixels.max() == 1.0
        assert pixels.min() == -1.0
        found = boxes(pixels)
        width, height = found[:, 1] - found[:, 0] + 1, found[:, 3] - found[:, 2] + 1
        np.testing.assert_allclose(np.maximum(width, height), long_side, atol=spec.line_width + 2)
        np.testing.assert_allclose((found[:, 0] + found[:, 1]) / 2, 64, atol=1.5)
        np.testing.assert_allclose((found[:, 2] + found[:, 3]) / 2, 64, atol=1.5)
    table, lengths = torch.from_numpy(source.real.rows[:, :-1]), torch.from_numpy(source.real.lengths)
    copied = sketches_of(Drawn(table, lengths, torch.zeros(len(table), 1)), source.real.scale)
    assert torch.equal(pair_sketches(copied, spec), pair_sketches(real, spec))


def test_a_sketch_comes_to_the_discriminator_in_whatever_frame_it_was_drawn(pool: Pool) -> None:
    spec = pair_spec(InputSpec(size=160), 96)
    strokes = [np.array([[0.0, 0.0], [30.0, 5.0], [12.0, 40.0]]), np.array([[3.0, 3.0], [20.0, 20.0]])]
    pictures = []
    for size, shift in ((1.0, 0.0), (5.0, -700.0)):
        sketch = Sketch.from_strokes([size * stroke + shift for stroke in strokes])
        table = torch.from_numpy(to_rows(sketch, 25.0))[None]
        pictures.append(pair_sketches(sketches_of(Drawn(table, torch.tensor([table.shape[1]]), torch.zeros(1, 1)), 25.0), spec))
    assert torch.equal(*pictures)


def test_lines_keep_their_share_of_the_picture() -> None:
    spec = InputSpec(size=160, line_width=3.0, ink="light", photo_shift=5)
    small = pair_spec(spec, 80)
    assert (small.size, small.line_width, small.ink, small.style) == (80, 1.5, "light", spec.style)
    assert pair_spec(spec, 32).line_width == 1.0


def test_the_reward_moves_the_output_layer_alone_and_the_likelihood_everything() -> None:
    torch.manual_seed(0)
    generator = Generator(TINY)
    target = torch.randn(2, 9, 5), torch.tensor([8, 5])
    target[0][..., 2:] = torch.tensor([1.0, 0.0, 0.0])
    photos = torch.randn(2, TINY.tap.channels, 2, 2)
    with torch.no_grad():
        rng = torch.Generator().manual_seed(1)
        drawn = draw(generator.eval(), generator.encode_maps(photos), DrawOptions(states=True), rng)
    gradients = []
    for rewards in (torch.zeros(2), torch.tensor([1.0, -2.0])):
        torch.manual_seed(5)
        generator.zero_grad()
        objective = GeneratorObjective(generator, GeneratorUpdateConfig().loss, RewardConfig())
        loss, terms = objective(photos, target, drawn, rewards, 0)
        loss.backward()
        found = {name: tensor.grad for name, tensor in generator.named_parameters()}
        gradients.append({name: gradient.clone() for name, gradient in found.items() if gradient is not None})
    assert "policy" in terms
    without, with_reward = gradients
    assert {"mean.weight", "start.weight", "key.weight", "score.weight", "output.weight"} <= set(without)
    moved = {name for name in without if not torch.equal(without[name], with_reward[name])}
    assert moved == {"output.weight", "output.bias"}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fabric_leaves_rewarded_drawings_as_they_were_drawn(precision: str) -> None:
    """What a module is given keeps its digits, and the likelihood in its forward pass is the one outside."""
    from lightning_fabric import Fabric

    class Likelihood(torch.nn.Module):
        def __init__(self, generator: Generator) -> None:
            super().__init__()
            self.generator = generator

        def forward(self, drawn: Drawn, rewards: torch.Tensor) -> torch.Tensor:
            seen.append((drawn.rows.dtype, rewards.dtype))
            with torch.autocast("cpu", enabled=False):
                return log_likelihood(self.generator, None, drawn)

    seen: list[tuple[torch.dtype, torch.dtype]] = []
    torch.manual_seed(0)
    generator = Generator(TINY).eval()
    store = PixelStore(PhotoPool(Path(), (), {}, {}), InputSpec(size=64))
    artist = Illustrator(generator, store, 30.0, temperature=0.1)
    encoded = generator.encode_maps(torch.randn(3, TINY.tap.channels, 2, 2))
    drawn = artist.draw(encoded, torch.Generator().manual_seed(1), policy=True)
    assert torch.equal(drawn.rows, draw(generator, encoded, DrawOptions(), torch.Generator().manual_seed(1)).rows)
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)  # type: ignore[arg-type]
    model = fabric.setup(Unsealing(Likelihood(generator)))
    found = model(Sealed(drawn, torch.tensor([0.123456789])))
    assert seen == [(torch.float32, torch.float32)]
    torch.testing.assert_close(found, log_likelihood(generator, encoded, drawn), rtol=1e-4, atol=1e-3)


def test_drawings_become_what_is_rewarded() -> None:
    """REINFORCE through the objective: drawings whose reward is their length grow, against a likelihood of short ones."""
    torch.manual_seed(0)
    generator = Generator(TINY)
    objective = GeneratorObjective(generator, GeneratorUpdateConfig().loss, RewardConfig(baseline="batch-mean"))
    optimizer = torch.optim.Adam(generator.output.parameters(), lr=0.04)
    maps = torch.randn(24, TINY.tap.channels, 2, 2)
    target = torch.zeros(24, 2, 5), torch.ones(24, dtype=torch.int64)
    target[0][..., 4] = 1.0
    lengths = []
    for step in range(16):
        rng = torch.Generator().manual_seed(step)
        drawn = draw(generator.eval(), generator.encode_maps(maps), DrawOptions(states=True), rng)
        lengths.append(float(drawn.lengths.float().mean()))
        loss = objective(maps, target, drawn, drawn.lengths.float(), 0)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(lengths[-3:]) > 1.5 * sum(lengths[:3])
    assert torch.isfinite(Mixture.of(generator.output.bias).log_weights).all()
