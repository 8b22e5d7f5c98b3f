"""Batches: the same for a seed and a step however they are made; sources; what a pair of rows means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fgsbir_edge.errors import PairsFormatError, TruncatedImageError, UnreadableImageError
from fgsbir_edge.preprocess import InputSpec
from tests.training.downloads import picture, save
from tests.training.vectors import vector_folder
from training.data.augment import Augmentation
from training.data.batches import BatchStream, PairBatch
from training.data.edges import SCALES
from training.data.sources import Source, SourceConfig, open_sources

pytestmark = pytest.mark.torch

SPEC = InputSpec(size=48)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """A folder with `vectors/`, the shapes as `shapes/`, and unpaired photos in `loose/`."""
    root = tmp_path_factory.mktemp("data")
    vector_folder(root / "vectors")
    (root / "shapes").symlink_to(shapes)
    for number in range(5):
        save(picture(50 + number), root / "loose" / "photos" / f"{number}.png")
    return root


def opened(data: Path, *configs: SourceConfig, cache: Path | None = None) -> tuple[Source, ...]:
    return open_sources(configs or ALL, data, SPEC, cache)


VECTORS = SourceConfig("vectors", "vectors", split="all", sketches_per_photo=2)
SHAPES = SourceConfig("shapes", "shapes", split="all", share=2.0, by_category=True)
LOOSE = SourceConfig("loose", "loose", kind="edges")
ALL = (VECTORS, SHAPES, LOOSE)


def stream(data: Path, *configs: SourceConfig, seed: int = 0, cache: Path | None = None) -> BatchStream:
    return BatchStream(opened(data, *configs, cache=cache), SPEC, Augmentation(prefix=0.2), 6, seed)


def same(one: PairBatch, other: PairBatch) -> bool:
    tensors = ("sketches", "photos", "photo_index", "category_index")
    return one.pairs == other.pairs and all(torch.equal(getattr(one, name), getattr(other, name)) for name in tensors)


def test_a_batch_depends_on_seed_and_step_alone(data: Path, tmp_path: Path) -> None:
    forwards = [stream(data).batch(step) for step in range(6)]
    warm, cached = stream(data), stream(data, cache=tmp_path)
    for step in reversed(range(6)):
        assert same(warm.batch(step), forwards[step])
        assert same(cached.batch(step), forwards[step])
        assert same(stream(data, cache=tmp_path).batch(step), forwards[step])
    assert not same(forwards[0], forwards[1])
    assert not same(stream(data, seed=1).batch(0), forwards[0])
    assert all(same(a, b) for a, b in zip(warm.stream(2, 5), forwards[2:5], strict=True))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is one core alone
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same_batches_in_order(data: Path, workers: int) -> None:
    batches = stream(data)
    made = list(batches.stream(3, 9, workers))
    assert len(made) == 6
    assert all(same(one, batches.batch(3 + index)) for index, one in enumerate(made))
    assert made[0].sketches.is_contiguous(memory_format=torch.channels_last)


def test_leaving_the_loop_ends_the_workers(data: Path) -> None:
    import multiprocessing

    steps = stream(data).stream(0, 50, 1)
    next(steps)
    assert multiprocessing.active_children()
    steps.close()
    assert not multiprocessing.active_children()


def test_an_error_in_a_worker_reaches_the_caller(tmp_path: Path) -> None:
    vector_folder(tmp_path / "vectors", photos=3)
    photo = tmp_path / "vectors" / "photos" / "1.png"
    photo.write_bytes(photo.read_bytes()[:-30])
    batches = stream(tmp_path, VECTORS)
    for workers in (0, 1):
        with pytest.raises(TruncatedImageError, match=r"1\.png: image is truncated") as caught:
            list(batches.stream(0, 3, workers))
        assert "\n" not in str(caught.value)


def test_rows_belong_together(data: Path) -> None:
    batches = stream(data)
    for step in range(12):
        batch = batches.batch(step)
        count = len(batch.pairs)
        assert batch.sketches.shape == batch.photos.shape == (count, 3, 48, 48)
        assert torch.isfinite(batch.sketches).all()
        assert torch.isfinite(batch.photos).all()
        numbers = [(batch.source, pair.photo) for pair in batch.pairs]
        known = [(batches.sources[number].name, photo) for number, photo in batches.photos]
        assert [known[index] for index in batch.photo_index] == numbers
        assert [batches.categories[index] for index in batch.category_index] == [pair.category for pair in batch.pairs]
        assert batch.photo_index.dtype == batch.category_index.dtype == torch.int64
        if batch.source == "vectors":
            assert sorted(numbers.count(number) for number in set(numbers)) == [2, 2, 2]
            assert len({pair.sketch for pair in batch.pairs}) == count == 6
        else:
            assert len(set(numbers)) == count


def test_sources_take_turns_by_their_shares(data: Path) -> None:
    batches = stream(data, VECTORS, SHAPES)
    drawn = [batches.batch(step).source for step in range(90)]
    assert 48 <= drawn.count("shapes") <= 72  # two thirds; 3 sigma is 13


def test_batches_take_whole_categories(data: Path) -> None:
    (source,) = opened(data, SHAPES)
    for seed in range(8):
        pairs = source.sample(np.random.default_rng(seed), 6)
        assert len({pair.category for pair in pairs}) == 1  # six photos with sketches in each
        pairs = source.sample(np.random.default_rng(seed), 9)
        assert sorted([pair.category for pair in pairs].count(kind) for kind in ("box", "disc")) == [3, 6]
    assert len(source.sample(np.random.default_rng(0), 50)) == 12


def test_photos_alone_make_pairs(data: Path) -> None:
    (source,) = opened(data, LOOSE)
    photos = source.groups[""]
    assert len(photos) == 5
    assert all(len({pair.sketch for pair in pairs}) == len(SCALES) for pairs in photos.values())
    batch = stream(data, LOOSE).batch(0)
    light = SPEC.ink == "dark"
    assert all(0.01 < float(((image < 0) == light).float().mean()) < 0.5 for image in batch.sketches)
    (paired,) = opened(data, SourceConfig("both", "shapes", kind="edges", split="all", by_category=True))
    assert {kind: len(photos) for kind, photos in paired.groups.items()} == {"box": 7, "disc": 7}  # the distractors too


def test_a_second_table_adds_only_what_the_first_lacks(tmp_path: Path) -> None:
    root = vector_folder(tmp_path / "vectors", photos=4)
    (root / "few.csv").write_text("sketch,photo,category\n0_0,0.png,thing\n1_0,1.png,thing\n")
    (source,) = opened(tmp_path, SourceConfig("v", "vectors", pairs="few.csv+pairs.csv", split="all"))
    assert {photo: len(pairs) for photo, pairs in source.groups[""].items()} == {"0.png": 1, "1.png": 1, "2.png": 2, "3.png": 2}


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        (SourceConfig("v", "vectors", split="half"), PairsFormatError, "no split named 'half'"),
        (SourceConfig("v", "nowhere", split="all"), PairsFormatError, "cannot be read"),
        (SourceConfig("v", "nowhere", kind="edges"), UnreadableImageError, "nowhere"),
        (SourceConfig("v", "vectors", pairs="one.csv", split="all"), ValueError, "fewer than two photos"),
    ],
)
def test_wrong_sources_name_the_remedy(tmp_path: Path, config: SourceConfig, error: type[Exception], words: str) -> None:
    root = vector_folder(tmp_path / "vectors", photos=3)
    (root / "one.csv").write_text("sketch,photo\n0_0,0.png\n")
    with pytest.raises(error, match=words):
        opened(tmp_path, config)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"share": 0.0}, "share is 0.0"),
        ({"share": float("nan")}, "share is nan"),
        ({"kind": "photos"}, "kind is 'photos'"),
        ({"sketches_per_photo": 0}, "1 or more"),
    ],
)
def test_wrong_fields_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SourceConfig("v", "vectors", **changes)  # type: ignore[arg-type]


def test_streams_check_what_they_are_given(data: Path) -> None:
    sources = opened(data, VECTORS)
    with pytest.raises(ValueError, match="no sources"):
        BatchStream((), SPEC, Augmentation(), 6, 0)
    with pytest.raises(ValueError, match="open it again"):
        BatchStream(sources, InputSpec(size=64), Augmentation(), 6, 0)
    with pytest.raises(ValueError, match="at least 2"):
        BatchStream(sources, SPEC, Augmentation(), 1, 0)
    with pytest.raises(ValueError, match="a name of its own"):
        opened(data, VECTORS, VECTORS)
