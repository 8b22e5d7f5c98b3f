"""Augmentation: what may never happen to a drawing, and that no augmentation is the runtime's own preprocessing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fgsbir_edge.photo import load_photo
from fgsbir_edge.preprocess import InputSpec, photo_batch, sketch_pixels
from fgsbir_edge.raster import RasterSpec, rasterize
from fgsbir_edge.sketch import CANVAS, Sketch
from tests.training.downloads import scribble
from tests.training.vectors import vector_folder
from training.data.augment import Affine, Augmentation, beginning, on_canvas, redrawn
from training.data.elastic import Waves
from training.data.folder import PairsFolder
from training.data.pixels import PixelStore
from training.data.warp import grown, recoloured, sampling_grid, shrunk, warp, worn

pytestmark = pytest.mark.torch

STILL = {field.name: 0.0 for field in dataclasses.fields(Augmentation)}


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vector_folder(tmp_path_factory.mktemp("vectors"))


def only(**changes: float) -> Augmentation:
    return Augmentation(**{**STILL, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"flip": 1.5}, "flip is 1.5, expected a probability"),
        ({"elastic": -1.0}, "elastic is -1.0"),
        ({"photo_scale": float("nan")}, "photo_scale is nan"),
        ({"grey": "often"}, "grey is 'often'"),
        ({"sketch_degrees": 200.0}, "from 0 to 180"),
        ({"width_min": 3.0, "width_max": 2.0}, "0 < min <= max"),
        ({"width_min": 0.0}, "both 0"),
        ({"thicken": 0.7, "thin": 0.6}, "at most 1 together"),
    ],
)
def test_ranges_are_checked(changes: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Augmentation(**changes)


@pytest.mark.parametrize("style", ["antialias", "bresenham"])
@pytest.mark.parametrize("ink", ["dark", "light"])
def test_none_is_the_preprocessing_of_the_runtime(vectors: Path, shapes: Path, style: str, ink: str) -> None:
    spec = InputSpec(size=96, style=style, ink=ink)  # type: ignore[arg-type]
    for root in (vectors, shapes):
        folder = PairsFolder.read(root)
        pairs = folder.pairs[:6]
        sketches, photos = PixelStore(folder, spec).batch(pairs, np.random.default_rng(0), Augmentation.none())
        clean = sketch_pixels([folder.sketch(pair.sketch) for pair in pairs], spec)
        np.testing.assert_allclose(sketches.numpy(), clean, atol=2e-6)
        clean = photo_batch([load_photo(folder.photo_path(pair.photo), 96, spec.photo_fit) for pair in pairs], spec)
        np.testing.assert_allclose(photos.numpy(), clean, atol=2e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_redrawn_sketch_is_still_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    options = only(stroke_dropout=0.9, prefix=0.5, prefix_least=0.05, stroke_jitter=3.0, stroke_scale=0.1)
    for number in range(40):
        sketch = scribble(number, strokes=1 + number % 7)
        drawn = redrawn(sketch, options, rng)
        assert np.isfinite(drawn.points).all()
        assert drawn.num_strokes >= min(2, sketch.num_strokes) or sketch.num_points > drawn.num_points
        assert rasterize(drawn, RasterSpec(64, 64, "antialias")).max() > 200


def test_every_stroke_may_go_but_not_all() -> None:
    sketch = scribble(0, strokes=8)
    assert redrawn(sketch, only(stroke_dropout=1.0), np.random.default_rng(0)).num_strokes == 8
    counts = {redrawn(sketch, only(stroke_dropout=0.5), np.random.default_rng(seed)).num_strokes for seed in range(60)}
    assert min(counts) >= 2
    assert len(counts) > 4
    few = scribble(0, strokes=3)
    assert all(redrawn(few, only(stroke_dropout=0.9), np.random.default_rng(seed)).num_strokes == 3 for seed in range(20))


def test_dropped_strokes_leave_the_others_in_place() -> None:
    sketch = scribble(3, strokes=9)
    drawn = redrawn(sketch, only(stroke_dropout=0.4), np.random.default_rng(1))
    originals = [stroke.tolist() for stroke in sketch.strokes]
    assert drawn.num_strokes < 9
    assert all(stroke.tolist() in originals for stroke in drawn.strokes)


def test_strokes_move_as_wholes() -> None:
    sketch = scribble(4, strokes=5)
    moved = redrawn(sketch, only(stroke_jitter=4.0), np.random.default_rng(2))
    for before, after in zip(sketch.strokes, moved.strokes, strict=True):
        np.testing.assert_allclose(after - before, np.broadcast_to((after - before)[0], after.shape), atol=1e-9)
    grown_ = redrawn(sketch, only(stroke_scale=0.2), np.random.default_rng(2))
    for before, after in zip(sketch.strokes, grown_.strokes, strict=True):
        np.testing.assert_allclose(after.mean(0), before.mean(0), atol=1e-9)
        np.testing.assert_allclose(*(np.ptp(stroke, axis=0)[0] / np.ptp(stroke, axis=0)[1] for stroke in (after, before)))


def test_a_beginning_is_framed_as_the_device_frames_it() -> None:
    sketch = scribble(5, strokes=6)
    part = beginning(sketch, 0.4)
    assert part.num_points == -(-sketch.num_points * 4 // 10)
    np.testing.assert_allclose(part.points, part.centred().points, atol=1e-9)
    dot = Sketch.from_strokes([[(50.0, 50.0)] * 4, [(60.0, 60.0), (250.0, 200.0)]])
    assert beginning(dot, 0.1) is dot


def test_affine_maps_mirror_and_stay_in_range() -> None:
    rng = np.random.default_rng(0)
    flips = np.arange(400) % 2 == 0
    maps = Affine(10.0, 0.1, 0.05, 0.1, 0.1).sample(rng, flips)
    determinants = np.linalg.det(maps[:, :, :2])
    assert np.array_equal(determinants < 0, flips)
    assert np.abs(determinants).min() > np.exp(-0.4 - 1e-9)
    assert np.abs(determinants).max() < np.exp(0.4 + 1e-9)
    assert np.abs(maps[:, :, 2]).max() <= 0.1
    still = Affine().sample(rng, np.array([False, True]))
    np.testing.assert_allclose(still[0], [[1, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(still[1], [[-1, 0, 0], [0, 1, 0]])


def test_elastic_fields_on_points_and_grid_are_one() -> None:
    waves = Waves.sample(np.random.default_rng(0), 3, 4.0)
    size = 32
    field = waves.on_grid(np.array([2, 0]), size).numpy()
    centres = (np.arange(size) + 0.5) * CANVAS / size
    x, y = np.meshgrid(centres, centres)
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    for index, row in enumerate((2, 0)):
        np.testing.assert_allclose(field[index].reshape(2, -1).T, waves.at(row, points), atol=1e-4)
    assert 1.0 < np.abs(field).max() < 40.0


def test_pixels_are_warped_as_strokes_are() -> None:
    """A drawing warped as pixels lies where the same drawing warped as strokes does."""
    rng = np.random.default_rng(3)
    size = 128
    sketches = [scribble(seed) for seed in range(4)]
    maps = Affine(12.0, 0.1, 0.04, 0.1, 0.1).sample(rng, np.array([False, True, False, True]))
    waves = Waves.sample(rng, 4, 2.0)
    spec = RasterSpec(size, size, "antialias", 4.0)
    source = torch.from_numpy(rasterize(sketches, spec))[:, None].float() / 255
    pixels = warp(source, sampling_grid(maps, size, waves.on_grid(np.arange(4), size)), border=False)[:, 0].numpy()
    before = source[:, 0].numpy()
    for row, sketch in enumerate(sketches):
        points = on_canvas(sketch.points, maps[row])
        strokes = rasterize(Sketch(points + waves.at(row, points), sketch.offsets), spec)[0] / 255.0
        overlap = np.minimum(pixels[row], strokes).sum() / np.maximum(pixels[row], strokes).sum()
        untouched = np.minimum(before[row], strokes).sum() / np.maximum(before[row], strokes).sum()
        assert overlap > 0.6 > 0.5 > untouched


def test_worn_ink_stays_a_drawing() -> None:
    ink = torch.from_numpy(rasterize([scribble(seed) for seed in range(30)], RasterSpec(64, 64, "antialias", 3.0)))[:, None] / 255
    before = ink.flatten(1).sum(1)
    after = worn(ink.clone(), only(erase=1.0), np.random.default_rng(0)).flatten(1).sum(1)
    assert (after < before).any()
    assert (after > 0.49 * before).all()
    for change, sign in ((only(thicken=1.0), 1), (only(thin=1.0), -1)):
        after = worn(ink.clone(), change, np.random.default_rng(0)).flatten(1).sum(1)
        assert (sign * (after - before) > 0).all()
    assert torch.equal(worn(ink.clone(), only(), np.random.default_rng(0)), ink)


def test_lines_grow_and_shrink_by_whole_pixels() -> None:
    ink = torch.zeros(1, 1, 9, 9)
    ink[..., 3:6, 4] = 1.0
    assert grown(ink)[0, 0].nonzero().min(0).values.tolist() == [2, 3]
    assert float(grown(ink).sum()) == 15.0
    assert float(shrunk(ink).sum()) == 0.0
    assert torch.equal(shrunk(grown(ink))[0, 0, 2:6, 3:5], torch.ones(4, 2))


def test_colours() -> None:
    photos = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    grey = recoloured(photos.clone(), only(grey=1.0), np.random.default_rng(0))
    assert torch.equal(grey[:, 0], grey[:, 1])
    torch.testing.assert_close(grey[:, 0], 0.299 * photos[:, 0] + 0.587 * photos[:, 1] + 0.114 * photos[:, 2])
    strong = recoloured(photos.clone(), only(brightness=0.9, contrast=0.9, gain=0.9), np.random.default_rng(0))
    assert 0.0 <= float(strong.min()) < float(strong.max()) <= 1.0
    torch.testing.assert_close(recoloured(photos.clone(), only(), np.random.default_rng(0)), photos)


def test_a_flip_is_shared_by_a_pair(vectors: Path) -> None:
    folder = PairsFolder.read(vectors)
    store = PixelStore(folder, InputSpec(size=64, photo_fit="stretch"))
    pairs = list(folder.pairs[:8])
    rng = np.random.default_rng(5)
    sketches, photos = store.batch(pairs, rng, only(flip=0.5))
    flips = np.random.default_rng(5).random(8) < 0.5
    assert 0 < flips.sum() < 8
    plain = store.batch(pairs, rng, Augmentation.none())
    for warped, clean in zip((sketches, photos), plain, strict=True):
        for row, flip in enumerate(flips):
            mirrored = clean[row].flip(-1)
            far = [float((warped[row] - other).abs().mean()) for other in (clean[row], mirrored)]
            assert (far[1] < far[0]) == flip
