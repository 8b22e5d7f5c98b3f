"""Bundles with an encoder of their own for sketches: the file, what runs where, and what must not be mixed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fgsbir_edge.bench import Plan, bench_encoders
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.bundle_files import MANIFEST
from fgsbir_edge.cli import main
from fgsbir_edge.confidence import Confidence
from fgsbir_edge.encoder.backends import CPU, Setting
from fgsbir_edge.encoder.choose import choice_path
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import (
    AdapterMismatchError,
    BundleFormatError,
    BundleHashError,
    BundleMissingFileError,
    FgsbirError,
    GalleryMismatchError,
    PersonFormatError,
)
from fgsbir_edge.gallery import Gallery
from fgsbir_edge.gallery.repair import repair
from fgsbir_edge.pairs import DEMO_FOLDER, DataFolder
from fgsbir_edge.preprocess import sketch_pixels
from fgsbir_edge.selftest_encoders import checks
from fgsbir_edge.sketch import Sketch
from fgsbir_edge.variant import SKETCH, Variant
from tests.toy import toy_encoder, toy_head

SIZE = 16  # of the sketch encoder; the toy's photos have 32


@pytest.fixture(scope="module")
def two(bundle: Bundle) -> Bundle:
    """The toy bundle with a second encoder: smaller, thinner lines."""
    spec = replace(bundle.input, size=SIZE, line_width=1.0)
    return bundle.with_sketch_encoder(toy_encoder(SIZE, seed=1), spec, {"how": "made up"})


@pytest.fixture
def two_path(two: Bundle, tmp_path: Path) -> Path:
    two.save(tmp_path / "two")
    return tmp_path / "two"


@pytest.fixture
def drawing() -> Sketch:
    return Sketch.from_strokes([np.array([[10.0, 10.0], [200.0, 60.0], [90.0, 220.0]])])


def test_round_trip(two: Bundle, two_path: Path) -> None:
    loaded = Bundle.load(two_path)
    assert loaded.sketch is not None
    assert two.sketch is not None
    assert (loaded.for_sketches.input, loaded.for_sketches.encoder) == (two.sketch.input, two.sketch.encoder)
    assert loaded.sketch.head is loaded.head
    assert loaded.sketch.provenance == {"how": "made up"}
    assert loaded.pairs_digest == two.pairs_digest
    assert loaded.sketch.encoder_path().name == SKETCH
    manifest = json.loads((two_path / MANIFEST).read_text())
    assert manifest["version"] == 2
    assert set(manifest["files"]) == {"encoder.onnx", "head.safetensors", SKETCH}


def test_one_encoder_is_written_as_before(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path / "one")
    manifest = json.loads((tmp_path / "one" / MANIFEST).read_text())
    assert manifest["version"] == 1
    assert "sketch_encoder" not in manifest
    assert bundle.for_sketches is bundle
    assert bundle.pairs_digest == bundle.features_digest


def test_photos_do_not_depend_on_it(bundle: Bundle, two: Bundle) -> None:
    assert two.features_digest == bundle.features_digest
    other = two.with_sketch_encoder(toy_encoder(SIZE, seed=2), two.for_sketches.input, {})
    thicker = two.with_sketch_encoder(two.for_sketches.encoder, replace(two.for_sketches.input, line_width=1.5), {})
    assert len({one.pairs_digest for one in (bundle, two, other, thicker)}) == 4


def test_another_head_is_that_of_both(two: Bundle) -> None:
    head = toy_head(seed=3)
    changed = replace(two, head=head)
    assert changed.for_sketches.head is head


def _edit(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        change(manifest["sketch_encoder"])
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return damage


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda folder: (folder / SKETCH).unlink(), BundleMissingFileError, "sketch.onnx: cannot read"),
        (lambda folder: (folder / SKETCH).write_bytes(b"another"), BundleHashError, "sketch.onnx: sha256 is"),
        (_edit(lambda entry: entry.pop("input")), BundleFormatError, "'input' is missing"),
        (_edit(lambda entry: entry["variants"].clear()), BundleFormatError, "sketch encoder has no variant 'fp32'"),
        (_edit(lambda entry: entry["variants"]["fp32"].update(file="../x.onnx")), BundleFormatError, "expected 'sketch.onnx'"),
        (_edit(lambda entry: entry["input"].update(size=4)), BundleFormatError, "input size is 4"),
    ],
)
def test_damage(two_path: Path, damage: Callable[[Path], object], error: type[FgsbirError], message: str) -> None:
    Bundle.load(two_path)
    damage(two_path)
    with pytest.raises(error, match=message):
        Bundle.load(two_path)


def test_variants_are_of_either_side(two: Bundle, tmp_path: Path) -> None:
    side = two.for_sketches
    content = toy_encoder(SIZE, seed=4)
    varied = replace(two, sketch=replace(side, variants={**side.variants, "int8": Variant.of("int8", content, SKETCH)}))
    varied.save(tmp_path / "varied")
    loaded = Bundle.load(tmp_path / "varied")
    assert loaded.for_sketches.encoder_bytes("int8") == content
    assert (loaded.nearest("int8"), loaded.nearest("int8", loaded.for_sketches)) == ("fp32", "int8")
    with pytest.raises(BundleMissingFileError, match="no variant 'fp16'"):
        loaded.nearest("fp16")
    with Engine.open(bundle=loaded, create=True, gallery=tmp_path / "g.db", backend=CPU, variant="int8") as engine:
        assert (engine.encoder.name, engine.sketch_encoder.name) == ("onnx-cpu fp32", "onnx-cpu int8")


def test_sketches_and_photos_go_their_own_ways(two: Bundle, data_path: Path, drawing: Sketch) -> None:
    with Engine.open(bundle=two, photos=data_path / "photos", threads=1) as engine:
        assert (engine.input.size, engine.sketch_input.size) == (32, SIZE)
        expected = OnnxEncoder(two.for_sketches, 1).encode(sketch_pixels([drawing], two.for_sketches.input))
        np.testing.assert_array_equal(engine.encode_sketches([drawing]), expected)
        photo = next((data_path / "photos").rglob("*.png"))
        plain = Engine(replace(two, sketch=None), engine.encoder, engine.gallery)
        np.testing.assert_array_equal(engine.encode_photos([photo]), plain.encode_photos([photo]))
        assert not np.array_equal(plain.encode_sketches([drawing]), expected)
        assert len(engine.search(drawing, 3)) == 3


def test_an_engine_opens_it_by_itself(two: Bundle, bundle: Bundle, engine: Engine, drawing: Sketch) -> None:
    own = Engine(two, OnnxEncoder(bundle, 1), engine.gallery)
    assert own.sketch_encoder.size == SIZE
    assert own.encoder.size == 32
    assert own.encode_sketches([drawing]).shape == (1, bundle.head.features)


def test_each_side_has_a_choice_of_its_own(two: Bundle, bundle: Bundle) -> None:
    assert choice_path(two) == choice_path(bundle) != choice_path(two.for_sketches)


def test_galleries_of_photos_serve_both(two: Bundle, bundle: Bundle, tmp_path: Path, data_path: Path, drawing: Sketch) -> None:
    path = tmp_path / "g.db"
    Engine.open(bundle=bundle, photos=data_path / "photos", gallery=path).close()
    with Engine.open(bundle=two, gallery=path) as engine:
        assert len(engine.search(drawing)) == 10


def test_adapters_are_not_mixed(two: Bundle, bundle: Bundle, tmp_path: Path, data_path: Path, drawing: Sketch) -> None:
    name = "even/star00.png"
    with Engine.open(bundle=two, photos=data_path / "photos") as engine:
        engine.adapt([(drawing, name)]).adapter.save(tmp_path / "new")
        engine.load_adapter(tmp_path / "new")
    with Engine.open(bundle=bundle, photos=data_path / "photos") as engine:
        engine.adapt([(drawing, name)]).adapter.save(tmp_path / "old")
        with pytest.raises(AdapterMismatchError, match="made with another encoder"):
            engine.load_adapter(tmp_path / "new")
    with Engine.open(bundle=two, photos=data_path / "photos") as engine, pytest.raises(AdapterMismatchError):
        engine.load_adapter(tmp_path / "old")


@pytest.fixture
def shown(bundle: Bundle, tmp_path: Path, data_path: Path, drawing: Sketch) -> Path:
    """A gallery in which ann has shown a pair through the one encoder."""
    path = tmp_path / "shown.db"
    with Engine.open(bundle=bundle, photos=data_path / "photos", gallery=path) as engine:
        engine.feedback(drawing, "even/star00.png", person="ann")
        engine.gallery.people.save("ann", tmp_path / "ann.person")
    return path


def test_what_people_have_shown_is_not_mixed(shown: Path, two: Bundle, bundle: Bundle, drawing: Sketch) -> None:
    with Engine.open(bundle=two, gallery=shown) as engine:
        assert engine.gallery.people.names() == ["ann"]
        assert len(engine.search(drawing)) == 10
        for use in (
            lambda: engine.search(drawing, person="ann"),
            lambda: engine.feedback(drawing, "odd/star01.png", person="ann"),
            lambda: engine.feedback(drawing, "odd/star01.png", person="bob"),
            lambda: engine.learner.undo("ann"),
        ):
            with pytest.raises(GalleryMismatchError, match="another sketch encoder"):
                use()
        engine.gallery.people.forget("ann")
        engine.feedback(drawing, "odd/star01.png", person="bob")
        assert engine.gallery.people.names() == ["bob"]
    with Engine.open(bundle=two, gallery=shown) as engine:
        assert len(engine.search(drawing, person="bob")) == 10
    with Engine.open(bundle=bundle, gallery=shown) as engine, pytest.raises(GalleryMismatchError):
        engine.search(drawing, person="bob")


def test_people_in_files_are_not_mixed(shown: Path, two: Bundle, tmp_path: Path, data_path: Path, drawing: Sketch) -> None:
    with Engine.open(bundle=two, photos=data_path / "photos") as engine:
        with pytest.raises(PersonFormatError, match="another encoder"):
            engine.learner.load(tmp_path / "ann.person")
        engine.feedback(drawing, "odd/star01.png", person="bob")
        engine.gallery.people.save("bob", tmp_path / "bob.person")
        engine.gallery.people.forget("bob")
        assert engine.learner.load(tmp_path / "bob.person").pairs == 1


def test_a_repaired_gallery_knows_it(two: Bundle, bundle: Bundle, tmp_path: Path, data_path: Path, drawing: Sketch) -> None:
    with Engine.open(bundle=two, photos=data_path / "photos", gallery=tmp_path / "g.db") as engine:
        engine.feedback(drawing, "even/star00.png", person="ann")
    repair(tmp_path / "g.db", tmp_path / "mended.db")
    with Gallery.open(tmp_path / "mended.db", two) as gallery:
        assert len(gallery.people.shown("ann")) == 1
    with Gallery.open(tmp_path / "mended.db", bundle) as gallery, pytest.raises(GalleryMismatchError):
        gallery.people.shown("ann")


def test_bench_and_selftest_know_it(two: Bundle) -> None:
    report = bench_encoders(two.for_sketches, [Setting(CPU, threads=1)], Plan(3, 1, 1), lambda _: None)
    assert report.fastest is not None
    assert set(report.fastest.stages) == {"raster", "encode", "query"}
    names = [check.name for check in checks(two, lambda _: None)]
    assert any(name.startswith("sketch encoder, onnx-cpu fp32") for name in names)
    for check in checks(two, lambda _: None):
        if "onnx-cpu" in check.name:
            assert "cosine" in check.run()


def test_bench_command(two_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["bench", "--bundle", str(two_path), "--runs", "2", "--threads", "1", "--backends", CPU, "--no-store", "--json"]
    for which, name in (("sketches", "toy sketches"), ("photos", "toy")):
        assert main([*common, "--encode", which]) == 0
        assert json.loads(capsys.readouterr().out)["bundle"] == name


def test_a_newer_version_is_told_so(two_path: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(two_path, tmp_path / "newer")
    manifest = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**manifest, "version": 3}))
    with pytest.raises(BundleFormatError, match=r"version 3, this release reads 1 and 2; .*update"):
        Bundle.load(copy)


def test_by_itself_over_the_bundle_in_the_package(
    two: Bundle, bundle: Bundle, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgsbir_edge.bundle.DEFAULT_FOLDER", bundle_path)
    monkeypatch.setattr("fgsbir_edge.bundle.LIGHT_FOLDER", tmp_path / "own")
    side = two.for_sketches
    int8 = Variant.of("int8", toy_encoder(SIZE, seed=4), SKETCH)
    replace(two, sketch=replace(side, variants={**side.variants, "int8": int8})).save_sketch_encoder(tmp_path / "own")
    assert {path.name for path in (tmp_path / "own").iterdir()} == {MANIFEST, SKETCH, "sketch.int8.onnx"}
    monkeypatch.chdir(tmp_path)
    for place in ("light", tmp_path / "own"):
        loaded = Bundle.load(place)
        assert (loaded.name, loaded.encoder, loaded.for_sketches.encoder) == ("toy-light", bundle.encoder, side.encoder)
        assert (loaded.features_digest, loaded.pairs_digest) == (bundle.features_digest, two.pairs_digest)
        assert loaded.for_sketches.encoder_bytes("int8") == int8.content
        assert loaded.confidence is None  # the package's bundle may have one: of its own sketches
    loaded.save(tmp_path / "light")  # now a folder of that name, which goes first, and is whole by itself
    assert Bundle.load("light").path == Path("light")
    with pytest.raises(BundleMissingFileError, match="has no sketch encoder"):
        bundle.save_sketch_encoder(tmp_path / "none")
    other = replace(two, input=replace(two.input, photo_fit="trim"))
    with pytest.raises(BundleFormatError, match="not the encoder of bundle 'toy'"):
        other.save_sketch_encoder(tmp_path / "none")
    replace(bundle, name="another", input=other.input).save(tmp_path / "another")
    monkeypatch.setattr("fgsbir_edge.bundle.DEFAULT_FOLDER", tmp_path / "another")
    with pytest.raises(BundleFormatError, match="for bundle 'toy', this release has 'another'; export it again"):
        Bundle.load(tmp_path / "own")


def test_the_network_for_photos_is_loaded_when_it_is_needed(two: Bundle, tmp_path: Path, drawing: Sketch) -> None:
    """Those who only search do without; a gallery is not made by a bundle that cannot fill it."""
    Gallery.create(tmp_path / "empty.gallery", two).close()
    broken = replace(two, encoder=b"no network", variants={})
    with Engine.open(bundle=two, gallery=tmp_path / "empty.gallery", threads=1, backend=CPU) as engine:
        photo = np.full((40, 40, 3), 200, np.uint8)
        with ThreadPoolExecutor(4) as pool:
            rows = list(pool.map(lambda _: engine.encode_photos([photo]), range(8)))
        assert len({row.tobytes() for row in rows}) == 1
    Gallery.create(tmp_path / "broken.gallery", broken).close()
    with Engine.open(bundle=broken, gallery=tmp_path / "broken.gallery", threads=1, backend=CPU) as engine:
        assert engine.encode_sketches([drawing]).shape == (1, two.head.features)
        with pytest.raises(BundleFormatError, match="cannot be loaded"):
            engine.encode_photos([photo])
    with pytest.raises(BundleFormatError, match="cannot be loaded"):
        Engine.open(bundle=broken, gallery=tmp_path / "new.gallery", threads=1, backend=CPU, create=True)
    assert not (tmp_path / "new.gallery").exists()


def test_a_sketch_encoder_by_itself_brings_its_own_confidence(
    two: Bundle, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Confidence((9.0, 0.5, 0.1), (0.2, 0.1), (0.0, 0.1, 0.1, 0.0, 0.0), 0.3, 0.8, provenance={"sketches": 7})
    replace(bundle, confidence=replace(theirs, none_below=0.1)).save(tmp_path / "default")
    monkeypatch.setattr("fgsbir_edge.bundle.DEFAULT_FOLDER", tmp_path / "default")
    for found in (theirs, None):
        replace(two, confidence=found).save_sketch_encoder(tmp_path / "own")
        assert Bundle.load(tmp_path / "own").confidence == found
    manifest = tmp_path / "own" / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"confidence": {**theirs.to_manifest(), "slope": [1.0]}}))
    with pytest.raises(BundleFormatError, match="slope has 1 constants"):
        Bundle.load(tmp_path / "own")


def test_the_shipped_light_encoder_finds_the_demo() -> None:
    """Near the large one's embeddings on the shipped drawings, of people that neither has seen, and their photos are found."""
    folder = DataFolder.open(DEMO_FOLDER)
    pairs = folder.select(folder.users[0], None)
    drawings, photos = [folder.sketch(pair.sketch) for pair in pairs], [pair.photo for pair in pairs]
    with Engine.open(bundle="light", photos=folder.photos, threads=1, backend=CPU) as engine:
        rows = engine.encode_sketches(drawings)
        ranks = np.array(engine.gallery.ranks(rows, photos, head=engine.head))
        large = Engine(Bundle.default(), engine.encoder, engine.gallery).encode_sketches(drawings)
        reduced = OnnxEncoder(engine.bundle.for_sketches, 1, "int8_cpu").encode(
            np.concatenate([sketch_pixels([one], engine.sketch_input) for one in drawings])
        )
        named = engine.bundle.name
    assert np.mean(ranks <= 5) > 0.7
    assert np.sum(rows * large, axis=1).mean() > 0.8
    assert np.sum(rows * reduced, axis=1).min() > 0.99
    assert named == f"{Bundle.default().name}-light"
