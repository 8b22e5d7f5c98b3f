"""The facade: five lines that find a photo, and adapters that belong to their bundle."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fgsbir_edge
from fgsbir_edge.adapt import AdaptOptions
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.encoder.shifts import encode_shifted
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import (
    AdapterMismatchError,
    EmptyGalleryError,
    EmptySketchError,
    GalleryFormatError,
    NoPairsError,
    UnknownPhotoError,
)
from fgsbir_edge.head import Adapter
from fgsbir_edge.pairs import DataFolder
from fgsbir_edge.photo import load_photo
from fgsbir_edge.preprocess import photo_batch
from tests.toy import FEATURES, PHOTOS, SIZE, toy_encoder


def pairs_of(data_path: Path, user: str, count: int = 5) -> list[tuple[Path, str]]:
    return [(data_path / "sketches" / pair.sketch, pair.photo) for pair in DataFolder.open(data_path).select(user)[:count]]


def test_search_adapt_search(engine: Engine, data_path: Path, tmp_path: Path) -> None:
    pairs = pairs_of(data_path, "ann")
    hits = engine.search(pairs[0][0])
    assert len(hits) == 10
    assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
    result = engine.adapt(pairs)
    result.adapter.save(tmp_path / "ann.safetensors")
    adapter = engine.load_adapter(tmp_path / "ann.safetensors")
    adapted = engine.search(pairs[0][0], adapter=adapter)
    assert adapted == engine.search(pairs[0][0], adapter=result.adapter)
    assert (adapted != hits) == (result.status == "adapted")


def test_search_takes_whatever_holds_a_drawing(engine: Engine, data_path: Path) -> None:
    path = data_path / "sketches" / "ann" / "3.png"
    with Image.open(path) as image:
        image.load()
    expected = engine.search(path)
    assert engine.search(image) == expected
    assert engine.search(np.asarray(image)) == expected
    assert engine.search(str(path), k=3) == expected[:3]


def test_encoding_does_not_depend_on_the_batch(engine: Engine, data_path: Path) -> None:
    paths = sorted((data_path / "sketches").rglob("*.png")) * 2  # more than one batch
    together = engine.encode_sketches(paths)
    assert together.shape == (len(paths), FEATURES)
    np.testing.assert_allclose(together[37], engine.encode_sketches([paths[37]])[0], atol=1e-5)
    assert engine.encode_sketches([]).shape == (0, FEATURES)
    photo = data_path / "photos" / "even" / "star00.png"
    with Image.open(photo) as image:
        np.testing.assert_array_equal(engine.encode_photos([photo]), engine.encode_photos([np.asarray(image.convert("RGB"))]))


def test_photos_are_encoded_shifted_where_the_bundle_says_so(bundle: Bundle, data_path: Path) -> None:
    photos = sorted((data_path / "photos").rglob("*.png"))[:3]
    shifting = replace(bundle, input=replace(bundle.input, photo_shift=2))
    with Engine.open(bundle=bundle) as plain, Engine.open(bundle=shifting) as moved:
        pixels = photo_batch([load_photo(photo, SIZE, bundle.input.photo_fit) for photo in photos], bundle.input)
        expected = encode_shifted(OnnxEncoder(bundle, 1).encode, pixels, 2)
        np.testing.assert_allclose(moved.encode_photos(photos), expected, atol=1e-6)
        assert np.abs(moved.encode_photos(photos) - plain.encode_photos(photos)).max() > 1e-4


def test_pairs_may_name_gallery_photos_or_files(engine: Engine, data_path: Path, tmp_path: Path) -> None:
    sketch = data_path / "sketches" / "ann" / "0.png"
    inside = data_path / "photos" / "even" / "star00.png"
    by_name = engine.photo_features(["even/star00.png"])
    np.testing.assert_array_equal(engine.photo_features([inside]), by_name)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "mine.png")
    assert engine.adapt([(sketch, tmp_path / "mine.png"), (sketch, "odd/star01.png")]).losses
    with pytest.raises(UnknownPhotoError, match=r"did you mean 'even/star00\.png'"):
        engine.adapt([(sketch, "star00.png")])


def test_adapting_twice_gives_the_same_adapter(engine: Engine, data_path: Path) -> None:
    options = AdaptOptions(negatives="gallery", max_negatives=4, guard=False)
    first, second = (engine.adapt(pairs_of(data_path, "bob"), options=options) for _ in range(2))
    assert first.adapter.digest == second.adapter.digest
    assert first.guard.note


@pytest.mark.parametrize("limit", [0, 1, 4, 100])
def test_gallery_negatives_are_other_photos_up_to_a_limit(engine: Engine, data_path: Path, limit: int) -> None:
    options = AdaptOptions(side="both", negatives="gallery", max_negatives=limit, guard=False)
    rank = engine.adapt(pairs_of(data_path, "bob"), options=options).adapter.rank
    assert rank == 5 + 5 + min(limit, PHOTOS - 5)


def test_adaptation_within_a_category(engine: Engine, data_path: Path) -> None:
    pairs = [pair for pair in pairs_of(data_path, "ann", PHOTOS) if pair[1].startswith("odd/")][:4]
    assert engine.adapt(pairs, category="odd").guard.candidates == PHOTOS // 2
    assert engine.adapt(pairs).guard.candidates == PHOTOS


def test_errors_of_the_facade(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(NoPairsError):
        engine.adapt([])
    with pytest.raises(EmptySketchError):
        engine.search(np.full((30, 30), 255, np.uint8))
    with pytest.raises(GalleryFormatError, match="fgsbir-edge index"):
        Engine.open(gallery=tmp_path / "none", bundle=bundle, threads=1)
    with Engine.open(bundle=bundle, threads=1) as empty, pytest.raises(EmptyGalleryError):
        empty.search(np.pad(np.zeros((2, 20), np.uint8), 5, constant_values=255))


def test_adapter_of_the_same_head_over_another_encoder_is_refused(engine: Engine, data_path: Path, tmp_path: Path) -> None:
    engine.adapt(pairs_of(data_path, "ann")).adapter.save(tmp_path / "ann.safetensors")
    other = replace(engine.bundle, encoder=toy_encoder(seed=1))
    assert Adapter.load(tmp_path / "ann.safetensors", other.head)
    with Engine.open(bundle=other, threads=1) as elsewhere, pytest.raises(AdapterMismatchError, match="another encoder"):
        elsewhere.load_adapter(tmp_path / "ann.safetensors")


def test_photos_and_gallery_together_keep_the_file(bundle: Bundle, data_path: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with Engine.open(photos=data_path / "photos", gallery=tmp_path / "g", bundle=bundle, threads=1) as engine:
            assert len(engine.gallery) == PHOTOS
    with Engine.open(gallery=tmp_path / "g", bundle=bundle, threads=1) as engine:
        assert len(engine.gallery) == PHOTOS


def test_public_names_are_there_and_lazy() -> None:
    for name in fgsbir_edge.__all__:
        assert getattr(fgsbir_edge, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fgsbir_edge.nothing  # noqa: B018
    code = "import sys, fgsbir_edge; print(sorted({'numpy', 'onnxruntime', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_runtime_imports_no_training_code(data_path: Path, bundle_path: Path) -> None:
    code = (
        "import sys; from fgsbir_edge import Engine; from fgsbir_edge import cli, doctor, sheet\n"
        f"with Engine.open(photos={str(data_path / 'photos')!r}, bundle={str(bundle_path)!r}) as engine:\n"
        f"    engine.adapt([({str(data_path / 'sketches/ann/0.png')!r}, 'even/star00.png')])\n"
        "print(sorted({'torch', 'training', 'export', 'onnx', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
