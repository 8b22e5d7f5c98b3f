"""The generator on ONNX Runtime: the same drawings as PyTorch's from the same random numbers, the same certainties, a start."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fgsbir_edge import cli
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import (
    AdapterMismatchError,
    BundleFormatError,
    BundleHashError,
    BundleMissingFileError,
    EmptyGalleryError,
    FgsbirError,
    NonFiniteError,
    NoStartError,
)
from fgsbir_edge.files import pack_tensors, unpack_tensors, write_atomic
from fgsbir_edge.head import Adapter
from fgsbir_edge.photo import load_photo
from fgsbir_edge.preprocess import InputSpec, photo_batch, sketch_pixels
from fgsbir_edge.start import Start
from fgsbir_edge.zero_sketch_artist import ARTIST, JUDGE, LOOK, STEP, OnnxArtist, Sampling, pair_spec, sampled, to_sketch
from fgsbir_edge.zero_sketch_drawings import drawn_start
from tests.toy import EMBEDDING
from tests.training.generator_toys import tiny
from training.generation.drawing import Artist
from training.generation.mixture import Mixture
from training.generation.sampling import DrawOptions, draw
from training.generation.sequences import to_sketch as as_trained
from training.semi.discriminator import DiscriminatorConfig, PatchDiscriminator
from training.zero_sketch import write_start
from training.zero_sketch_drawn import Judge

pytest.importorskip("onnxscript", reason="onnxscript is not installed")

from export.generator import export_generator

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

SPEC = InputSpec(size=64, photo_fit="pad")


class TorchChance:
    """PyTorch's random numbers for NumPy."""

    def __init__(self, seed: int) -> None:
        self.rng = torch.Generator().manual_seed(seed)

    def random(self, size: tuple[int, int]) -> np.ndarray:
        return torch.rand(size, generator=self.rng).numpy()

    def standard_normal(self, size: tuple[int, int]) -> np.ndarray:
        return torch.randn(size, generator=self.rng).numpy()


@pytest.fixture(scope="module")
def artist() -> Artist:
    """A generator with random weights that stops now and then."""
    generator = tiny(positions=True, max_length=20, least_deviation=0.01)
    with torch.no_grad():
        generator.output.bias[2] = 0.5
    return Artist(generator, 25.0, SPEC)


@pytest.fixture(scope="module")
def judge() -> PatchDiscriminator:
    torch.manual_seed(1)
    return PatchDiscriminator(DiscriminatorConfig(size=32, width=4)).eval()


@pytest.fixture(scope="module")
def folder(artist: Artist, judge: PatchDiscriminator, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artist")
    write_start(root / "start", Start(np.linspace(-0.1, 0.1, EMBEDDING), 0.5), bundle.head)
    for name, data in export_generator(artist, root / "start", judge).items():
        write_atomic(root / name, data)
    return root


def photos(data_path: Path, count: int = 5) -> list[Path]:
    return sorted((data_path / "photos").rglob("*.png"))[:count]


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_same_random_numbers_same_drawings(artist: Artist, folder: Path, data_path: Path, temperature: float) -> None:
    pixels = [load_photo(path, SPEC.size, SPEC.photo_fit) for path in photos(data_path)]
    found = OnnxArtist(folder).draw(pixels, Sampling(3, temperature, 1.0), TorchChance(4))
    with torch.no_grad():
        encoded = artist.generator.encode(torch.from_numpy(photo_batch(pixels, SPEC)))
    encoded = encoded.rows(torch.arange(len(pixels)).repeat_interleave(3))
    rng = torch.Generator().manual_seed(4)
    drawn = draw(artist.generator, encoded, DrawOptions(temperature, pen_temperature=1.0), rng)
    lengths = drawn.lengths.tolist()
    assert len(set(lengths)) > 2, "drawings end at several steps, so that some are dropped on the way"
    assert [len(sketches) for sketches in found] == [3] * 5
    for number, sketch in enumerate(sketch for sketches in found for sketch in sketches):
        expected = as_trained(drawn.rows[number, : lengths[number]].numpy(), artist.scale)
        assert sketch.offsets.tolist() == expected.offsets.tolist()
        np.testing.assert_allclose(sketch.points, expected.points, atol=0.05)


def test_a_row_is_sampled_as_in_training() -> None:
    raw = torch.randn(200, 6 * 4 + 3, generator=torch.Generator().manual_seed(0))
    expected = Mixture.of(raw, 0.05).sample(0.5, torch.Generator().manual_seed(7), 0.8).numpy()
    found = sampled(raw.numpy(), Sampling(1, 0.5, 0.8), TorchChance(7), 0.05)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    raw[3, 2] = torch.nan
    with pytest.raises(NonFiniteError, match="export it again"):
        sampled(raw.numpy(), Sampling(), TorchChance(7))


def test_nothing_drawn_is_a_dot() -> None:
    end = np.array([[0, 0, 0, 0, 1]], np.float32)
    assert to_sketch(end, 20.0).bounds == as_trained(end, 20.0).bounds


def test_certainties_are_those_of_training(folder: Path, judge: PatchDiscriminator, data_path: Path) -> None:
    artist, path = OnnxArtist(folder), photos(data_path, 1)[0]
    sketches = artist.draw([load_photo(path, 64, "pad")], Sampling(3, 1.0), np.random.default_rng(0))[0]
    seen = pair_spec(SPEC, artist.judge_size)
    photo = photo_batch([load_photo(path, seen.size, seen.photo_fit)], seen)
    found = artist.certainties(np.repeat(photo, 3, axis=0), sketch_pixels(sketches, seen))
    np.testing.assert_allclose(found, Judge(judge, SPEC).certainties(path, sketches), atol=1e-4)


def test_a_start_from_drawings(folder: Path, engine: Engine, data_path: Path) -> None:
    artist, paths = OnnxArtist(folder), photos(data_path, 10)
    start = drawn_start(engine, artist, paths, category="even", options=Sampling(2, 1.0), seed=3)
    chance, total, weight, count = np.random.default_rng(3), np.zeros(EMBEDDING), 0.0, 0
    for part in (paths[:8], paths[8:]):
        pixels = [load_photo(path, 64, "pad") for path in part]
        for path, sketches in zip(part, artist.draw(pixels, Sampling(2, 1.0), chance), strict=True):
            seen = pair_spec(engine.input, 32)
            photo = photo_batch([load_photo(path, 32, seen.photo_fit)], seen)
            own = artist.certainties(np.repeat(photo, 2, axis=0), sketch_pixels(sketches, seen))
            total += own @ engine.head.outputs(engine.encode_sketches(sketches))
            weight, count = weight + own.sum(), count + 2
    expected = -0.5 * (total / weight - np.linspace(-0.1, 0.1, EMBEDDING))
    np.testing.assert_allclose(start.sketch_shift, expected, atol=1e-4)
    facts = {"start": "certain", "photos": "10", "drawings": str(count), "share": "0.5", "category": "even"}
    assert facts.items() <= start.meta.items()
    with pytest.raises(EmptyGalleryError, match="got none"):
        drawn_start(engine, artist, [])


def test_a_start_is_bound_to_its_head(folder: Path, bundle: Bundle, data_path: Path, tmp_path: Path) -> None:
    other = replace(bundle, head=replace(bundle.head, bias=bundle.head.bias + 1))
    with Engine.open(photos=data_path / "photos", bundle=other, threads=1) as engine:
        with pytest.raises(AdapterMismatchError, match="another head"):
            drawn_start(engine, OnnxArtist(folder), photos(data_path, 1))
        plain = shutil.copytree(folder, tmp_path / "plain")
        tensors, meta = unpack_tensors((plain / ARTIST).read_bytes())
        del tensors["start.reference"]
        (plain / ARTIST).write_bytes(pack_tensors(tensors, meta))
        with pytest.raises(NoStartError, match="--start"):
            drawn_start(engine, OnnxArtist(plain), photos(data_path, 1))


def test_the_command_draws(
    folder: Path,
    bundle_path: Path,
    data_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = ["--bundle", str(bundle_path)]
    assert cli.main(["index", str(data_path / "photos"), "--gallery", "g", *bundle]) == 0
    capsys.readouterr()
    words = ["zero-sketch", "odd", "--gallery", "g", "--artist", str(folder), "--output", "a", "--json", *bundle]
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out)["starts"] == [{"category": "odd", "photos": 6, "file": "a"}]
    assert Adapter.load("a", Bundle.load(bundle_path).head).meta["start"] == "certain"


def _facts(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors, meta = unpack_tensors((folder / ARTIST).read_bytes())
        facts = json.loads(meta["facts"])
        change(facts)
        (folder / ARTIST).write_bytes(pack_tensors(tensors, {**meta, "facts": json.dumps(facts)}))

    return damage


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda path: (path / ARTIST).unlink(), BundleMissingFileError, "export.generator"),
        (lambda path: (path / LOOK).unlink(), BundleMissingFileError, "look.onnx"),
        (lambda path: (path / ARTIST).write_bytes(b"no"), BundleFormatError, "export the generator again"),
        (lambda path: (path / STEP).write_bytes(b"no"), BundleHashError, "step.onnx"),
        (_facts(lambda facts: facts.pop("max_length")), BundleFormatError, "max_length"),
        (_facts(lambda facts: facts.update(input={"size": 3})), BundleFormatError, "export the generator again"),
    ],
    ids=["no artist", "no graph", "other file", "other graph", "no length", "odd input"],
)
def test_damage(folder: Path, tmp_path: Path, damage: Callable[[Path], object], error: type[FgsbirError], message: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy)
    with pytest.raises(error, match=message):
        OnnxArtist(copy)


def test_what_cannot_be_exported(folder: Path) -> None:
    plain = Artist(tiny(use_attention=False), 25.0, SPEC)
    with pytest.raises(BundleFormatError, match="2D attention"):
        export_generator(plain)
    assert {path.name for path in folder.glob("*.onnx")} == {LOOK, STEP, JUDGE}
