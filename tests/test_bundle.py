"""Bundles: round trip, and every way in which one can be wrong has its own error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgsbir_edge.bundle import Bundle, write_bundle
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.errors import BundleFormatError, BundleHashError, BundleMissingFileError, FgsbirError, OutputError
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.variant import Variant
from tests.toy import FEATURES, SIZE, toy_encoder, toy_head


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle_path, tmp_path / "copy")


def with_variant(bundle: Bundle) -> Bundle:
    """The toy bundle with another encoder as its "fp16"."""
    other = Variant.of("fp16", toy_encoder(seed=7), accuracy={"acc@1": 50.0}, made={"method": "made up"})
    return replace(bundle, variants=dict(bundle.variants) | {"fp16": other})


@pytest.fixture
def varied(bundle: Bundle, tmp_path: Path) -> Path:
    with_variant(bundle).save(tmp_path / "varied")
    return tmp_path / "varied"


def test_round_trip(bundle_path: Path, bundle: Bundle) -> None:
    manifest = json.loads((bundle_path / "manifest.json").read_text())
    assert manifest["format"] == "fgsbir-edge-bundle"
    assert (manifest["features"], manifest["embedding"]) == (FEATURES, 16)
    assert bundle.head.digest == toy_head().digest
    assert bundle.encoder == toy_encoder()
    assert bundle.provenance == {"data": "made up"}
    assert InputSpec.from_manifest(manifest["input"]) == bundle.input


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return edit


def _flip(name: str) -> Callable[[Path], None]:
    def flip(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return flip


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), BundleMissingFileError, "manifest.json"),
        (lambda folder: (folder / "encoder.onnx").unlink(), BundleMissingFileError, "encoder.onnx"),
        (lambda folder: (folder / "head.safetensors").unlink(), BundleMissingFileError, "head.safetensors"),
        (_flip("encoder.onnx"), BundleHashError, "encoder.onnx"),
        (_flip("head.safetensors"), BundleHashError, "head.safetensors"),
        (lambda folder: (folder / "manifest.json").write_text("{"), BundleFormatError, "manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), BundleFormatError, "format"),
        (_edit(lambda manifest: manifest.update(format="other")), BundleFormatError, "format"),
        (_edit(lambda manifest: manifest.update(version=3)), BundleFormatError, "version 3"),
        (_edit(lambda manifest: manifest.update(features=FEATURES + 1)), BundleFormatError, "weight has shape"),
        (_edit(lambda manifest: manifest.pop("input")), BundleFormatError, "'input' is missing"),
        (_edit(lambda manifest: manifest["input"].update(size=10**6)), BundleFormatError, "size"),
        (_edit(lambda manifest: manifest["input"].update(mean=[0, 0])), BundleFormatError, "manifest.json"),
        (_edit(lambda manifest: manifest["input"]["sketch"].update(ink="blue")), BundleFormatError, "ink"),
        (_edit(lambda manifest: manifest["files"].pop("encoder.onnx")), BundleFormatError, "encoder.onnx"),
        (_edit(lambda manifest: manifest.update(variants=[])), BundleFormatError, "manifest.json"),
        (_edit(lambda manifest: manifest["variants"]["fp16"].pop("sha256")), BundleFormatError, "'sha256' is missing"),
        (_edit(lambda manifest: manifest["variants"]["fp16"].update(sha256="../..")), BundleFormatError, "no such thing"),
        (
            _edit(lambda manifest: manifest["variants"]["fp16"].update(file="../x.onnx")),
            BundleFormatError,
            "expected 'encoder.fp16",
        ),
        (_edit(lambda manifest: manifest["variants"].update({"../x": {}})), BundleFormatError, "'sha256' is missing"),
        (_edit(lambda manifest: manifest["variants"]["fp32"].update(sha256="0" * 64)), BundleFormatError, "different hashes"),
    ],
)
def test_damage(varied: Path, damage: Callable[[Path], object], error: type[FgsbirError], message: str) -> None:
    Bundle.load(varied)
    damage(varied)
    with pytest.raises(error, match=message) as caught:
        Bundle.load(varied)
    assert "\n" not in str(caught.value)


def test_unverified_load_skips_the_hashes_only(copy: Path) -> None:
    _edit(lambda manifest: manifest["files"]["encoder.onnx"].update(sha256="0" * 64))(copy)
    assert Bundle.load(copy, verify=False).name == "toy"
    (copy / "head.safetensors").write_bytes(b"nothing")
    with pytest.raises(BundleFormatError):
        Bundle.load(copy, verify=False)


def test_writing_replaces_a_bundle_whole(copy: Path) -> None:
    other = toy_head(seed=5)
    write_bundle(copy, name="other", encoder=toy_encoder(), head=other, input=InputSpec(size=32), provenance={})
    assert Bundle.load(copy).head.digest == other.digest
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_writing_does_not_replace_another_folder(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    with pytest.raises(OutputError, match="not a bundle"):
        bundle.save(tmp_path / "notes")
    assert (tmp_path / "notes" / "diary.txt").read_text() == "mine"


def test_features_depend_on_encoder_and_photo_input_only(bundle: Bundle) -> None:
    same = [replace(bundle, head=toy_head(seed=4)), replace(bundle, input=replace(bundle.input, line_width=3.0))]
    different = [
        replace(bundle, encoder=toy_encoder(seed=1)),
        replace(bundle, input=replace(bundle.input, photo_fit="stretch")),
        replace(bundle, input=replace(bundle.input, mean=(0.5, 0.5, 0.5))),
        replace(bundle, input=replace(bundle.input, photo_shift=1)),
    ]
    assert {other.features_digest for other in same} == {bundle.features_digest}
    assert bundle.features_digest not in {other.features_digest for other in different}


def test_variants_are_stored_and_checked_when_used(varied: Path, bundle: Bundle) -> None:
    loaded = Bundle.load(varied)
    assert list(loaded.variants) == ["fp32", "fp16"]
    assert loaded.variants["fp16"].accuracy == {"acc@1": 50.0}
    assert loaded.variants["fp16"].made == {"method": "made up"}
    assert loaded.encoder_bytes() == toy_encoder()
    assert loaded.encoder_bytes("fp16") == toy_encoder(seed=7)
    assert loaded.encoder_path() == varied / "encoder.onnx"
    assert loaded.encoder_path("fp16") == varied / "encoder.fp16.onnx"
    pixels = np.zeros((1, 3, SIZE, SIZE), np.float32) + np.linspace(0, 1, SIZE, dtype=np.float32)
    plain, other = (OnnxEncoder(loaded, threads=1, variant=name).encode(pixels) for name in ("fp32", "fp16"))
    np.testing.assert_array_equal(plain, OnnxEncoder(bundle, threads=1).encode(pixels))
    assert np.abs(plain - other).max() > 0.1
    assert loaded.features_digest == bundle.features_digest
    for name in ("encoder.fp16.onnx", "encoder.onnx"):
        _flip(name)(varied)
    for name in ("fp32", "fp16"):
        with pytest.raises(BundleHashError, match=r"encoder.*\.onnx"):
            loaded.encoder_path(name)
    with pytest.raises(BundleHashError, match="fp16"):
        loaded.encoder_bytes("fp16")
    (varied / "encoder.fp16.onnx").unlink()
    with pytest.raises(BundleMissingFileError, match="fp16"):
        loaded.encoder_path("fp16")


def test_an_unknown_variant_is_named_with_those_that_are_there(varied: Path) -> None:
    with pytest.raises(BundleMissingFileError, match="no variant 'int8', there are fp32, fp16"):
        Bundle.load(varied).encoder_path("int8")
    with pytest.raises(BundleMissingFileError, match="no variant 'int8'"):
        OnnxEncoder(Bundle.load(varied), threads=1, variant="int8")


def test_bundles_from_before_variants_have_fp32_alone(copy: Path) -> None:
    for key in ("variants", "head"):
        _edit(lambda manifest, key=key: manifest.pop(key))(copy)
    old = Bundle.load(copy)
    assert list(old.variants) == ["fp32"]
    assert old.encoder_path("fp32").read_bytes() == old.encoder
    assert Bundle.default().variants["fp32"].sha256 == Bundle.default().encoder_sha256


def test_a_bundle_in_memory_has_no_files(bundle: Bundle) -> None:
    made = replace(with_variant(bundle), path=None)
    assert made.encoder_bytes("fp16") == toy_encoder(seed=7)
    with pytest.raises(BundleMissingFileError, match="save it first"):
        made.encoder_path("fp32")


def test_variants_of_another_encoder_are_dropped(bundle: Bundle) -> None:
    assert list(replace(with_variant(bundle), head=toy_head(seed=2)).variants) == ["fp32", "fp16"]
    changed = replace(with_variant(bundle), encoder=toy_encoder(seed=1))
    assert list(changed.variants) == ["fp32"]
    assert changed.variants["fp32"].sha256 == changed.encoder_sha256


def test_manifest_tells_what_the_head_holds(bundle_path: Path) -> None:
    described = json.loads((bundle_path / "manifest.json").read_text())["head"]
    head = toy_head()
    assert described["digest"] == head.digest
    assert described["step_sizes"] == pytest.approx([0.2, 0.1, 0.05])
    assert (described["margin"], described["margin_network"], described["side"]) == (0.3, None, "sketch")
