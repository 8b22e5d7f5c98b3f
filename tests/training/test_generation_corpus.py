"""Corpora, their batches, and the maps of a fixed backbone: kept, mirrored, found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fgsbir_edge.preprocess import InputSpec
from tests.training.generator_toys import TINY
from tests.training.vectors import vector_folder
from training.data.folder import PairsFolder
from training.data.pixels import PixelStore
from training.generation.corpus import Corpus, DrawingStream, StreamOptions, common_scale, of_photos, of_themselves, rescaled
from training.generation.dataset import sequence_set
from training.generation.network import Generator
from training.generation.sequences import SequenceOptions
from training.generation.sights import Sights, map_table

pytestmark = pytest.mark.torch

SPEC = InputSpec(size=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> PairsFolder:
    return PairsFolder.read(vector_folder(tmp_path_factory.mktemp("data") / "things", photos=5))


@pytest.fixture
def corpus(folder: PairsFolder) -> Corpus:
    sequences = sequence_set(folder, folder.pairs, SequenceOptions(epsilon=20.0, max_points=40, max_length=40))
    return of_photos("things", 1.0, sequences, PixelStore(folder, SPEC))


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(replace(TINY, stage="bottleneck5"))


def test_drawings_know_their_photos(corpus: Corpus) -> None:
    assert len(corpus.pictures) == 5
    names = [f"{number}.png" for number in range(5)]
    assert [names[number] for number in corpus.picture] == [pair.photo for pair in corpus.sequences.pairs]


def test_batches_are_functions_of_seed_and_step(corpus: Corpus) -> None:
    options = StreamOptions(batch=6, flip=True, stretch=0.2)
    first, again = DrawingStream([corpus], options, 3).batch(7), DrawingStream([corpus], options, 3).batch(7)
    assert np.array_equal(first.numbers, again.numbers)
    assert torch.equal(first.rows, again.rows)
    assert len(set(first.numbers.tolist())) == 6
    others = [DrawingStream([corpus], options, seed).batch(step).rows for seed, step in ((3, 8), (4, 7))]
    assert not any(torch.equal(first.rows, rows) for rows in others)
    assert len(DrawingStream([corpus], StreamOptions(batch=64), 0).batch(0).numbers) == len(corpus.sequences)


def test_mirrored_drawings_have_their_x_turned_and_all_are_stretched(corpus: Corpus) -> None:
    stream = DrawingStream([corpus], StreamOptions(batch=8, flip=True, stretch=0.2), 0)
    seen = set()
    for step in range(6):
        draws = stream.batch(step)
        for row, number in enumerate(draws.numbers):
            length = int(draws.lengths[row])
            plain = corpus.sequences.rows[number, :length, :2]
            x, y = (draws.rows[row, :length, axis].numpy() for axis in range(2))
            fx, fy = ((values @ plain[:, axis]) / (plain[:, axis] @ plain[:, axis]) for axis, values in enumerate((x, y)))
            np.testing.assert_allclose(x, fx * plain[:, 0], atol=1e-5)
            np.testing.assert_allclose(y, fy * plain[:, 1], atol=1e-5)
            assert (fx < 0) == draws.mirrored[row]
            assert 0.8 <= abs(fx) <= 1.2
            assert 0.8 <= fy <= 1.2
            seen.add(bool(draws.mirrored[row]))
        np.testing.assert_array_equal(draws.rows[..., 2:].numpy(), corpus.sequences.rows[draws.numbers][..., 2:])
    assert seen == {False, True}


def test_plain_options_change_nothing(corpus: Corpus) -> None:
    draws = DrawingStream([corpus], StreamOptions(batch=8), 0).batch(0)
    assert torch.equal(draws.rows, torch.from_numpy(corpus.sequences.rows[draws.numbers]))
    assert not draws.mirrored.any()


def test_corpora_take_turns_by_their_shares(corpus: Corpus) -> None:
    stream = DrawingStream([corpus, replace(corpus, share=3.0)], StreamOptions(batch=1), 0)
    assert np.mean([stream.batch(step).corpus for step in range(400)]) == pytest.approx(0.75, abs=0.07)


def test_a_common_scale_makes_offsets_of_deviation_one(corpus: Corpus) -> None:
    other = rescaled(corpus.sequences, 3.0)
    scale = common_scale([corpus.sequences, other])
    assert scale == pytest.approx(common_scale([corpus.sequences]), rel=1e-4)  # the same drawings twice
    for number in range(3):
        np.testing.assert_allclose(
            rescaled(other, scale).sketch(number).points, corpus.sequences.sketch(number).points, atol=0.01
        )


def test_kept_maps_are_the_backbones(corpus: Corpus, generator: Generator) -> None:
    sights = Sights(generator, [corpus], flips=True)
    numbers, mirrored = np.array([0, 3, 6]), np.array([False, True, False])
    pixels = torch.from_numpy(corpus.pictures.pixels(corpus.picture[numbers].tolist()))
    pixels[1] = pixels[1].flip(2)
    with torch.no_grad():
        expected = generator.eval().maps(pixels)
    torch.testing.assert_close(sights(0, numbers, mirrored), expected, rtol=2e-3, atol=2e-3)
    trained = Generator(replace(generator.config, train_backbone=True))
    torch.testing.assert_close(Sights(trained, [corpus], flips=True)(0, numbers, mirrored), pixels)


def test_maps_are_computed_once_for_one_backbone(
    corpus: Corpus, generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = map_table(generator, corpus.pictures, flips=False, cache=tmp_path)
    torch.manual_seed(9)
    other = Generator(generator.config)
    assert not np.array_equal(map_table(other, corpus.pictures, flips=False, cache=tmp_path), first)
    assert len(list(tmp_path.iterdir())) == 2

    def never(*_: object) -> None:
        raise AssertionError("the backbone ran again")

    monkeypatch.setattr(Generator, "maps", never)
    np.testing.assert_array_equal(map_table(generator, corpus.pictures, flips=False, cache=tmp_path), first)
    with pytest.raises(AssertionError, match="ran again"):
        map_table(generator, corpus.pictures, flips=True, cache=tmp_path)


def test_drawings_stand_for_their_own_photos(corpus: Corpus) -> None:
    own = of_themselves("own", 1.0, corpus.sequences, SPEC)
    pixels = own.pictures.pixels([0, 4])
    assert pixels.shape == (2, 3, 64, 64)
    grey = pixels[:, 0] * SPEC.std[0] + SPEC.mean[0]
    assert grey.max() == pytest.approx(1.0, abs=1e-5)  # white paper
    assert 0.01 < (grey < 0.5).mean() < 0.5  # dark lines
    assert own.picture.tolist() == list(range(len(corpus.sequences)))
    assert own.pictures.digest() != of_themselves("own", 1.0, rescaled(corpus.sequences, 2.0), SPEC).pictures.digest()
