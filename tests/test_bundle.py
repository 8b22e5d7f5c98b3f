"""Bundles: round trip, and every way in which one can be wrong has its own error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fgsbir_edge.bundle import Bundle, write_bundle
from fgsbir_edge.errors import BundleFormatError, BundleHashError, BundleMissingFileError, FgsbirError, OutputError
from fgsbir_edge.preprocess import InputSpec
from tests.toy import FEATURES, toy_encoder, toy_head


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle_path, tmp_path / "copy")


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
        (_edit(lambda manifest: manifest.update(version=2)), BundleFormatError, "version 2"),
        (_edit(lambda manifest: manifest.update(features=FEATURES + 1)), BundleFormatError, "weight has shape"),
        (_edit(lambda manifest: manifest.pop("input")), BundleFormatError, "'input' is missing"),
        (_edit(lambda manifest: manifest["input"].update(size=10**6)), BundleFormatError, "size"),
        (_edit(lambda manifest: manifest["input"].update(mean=[0, 0])), BundleFormatError, "manifest.json"),
        (_edit(lambda manifest: manifest["input"]["sketch"].update(ink="blue")), BundleFormatError, "ink"),
        (_edit(lambda manifest: manifest["files"].pop("encoder.onnx")), BundleFormatError, "encoder.onnx"),
    ],
)
def test_damage(copy: Path, damage: Callable[[Path], object], error: type[FgsbirError], message: str) -> None:
    damage(copy)
    with pytest.raises(error, match=message) as caught:
        Bundle.load(copy)
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
