"""A checkpoint through PyTorch and the bundle made of it through ONNX Runtime: the same pixels, similarities and figures."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.bundle import export
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.photo import load_photo
from fgsbir_edge.preprocess import InputSpec, photo_batch, sketch_pixels
from training import evaluate as command
from training.checkpoint import save_model
from training.data.folder import PairsFolder
from training.evaluation import encode_photos, encode_sketches
from training.models.encoder import EncoderConfig, build_encoder, build_head

pytest.importorskip("onnxscript", reason="onnxscript is not installed")

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

SPEC = InputSpec(size=64, photo_fit="pad", line_width=1.5)
CONFIG = EncoderConfig(
    size=64, features=24, embedding=12, backbone="mobilenetv3_small", stages=("block3",), grids=(8,), attention="none"
)


def all_photos(folder: PairsFolder) -> np.ndarray:
    """What a device makes of the photos: float32 [N,3,S,S], in the order of their names."""
    images = [load_photo(folder.photo_path(name), SPEC.size, SPEC.photo_fit) for name in sorted(folder.photo_category)]
    return photo_batch(images, SPEC)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> tuple[Path, Path]:
    """A checkpoint of a small random encoder, its features spread as training would spread them, and its bundle."""
    root = tmp_path_factory.mktemp("same")
    encoder = build_encoder(CONFIG, seed=1)
    torch.manual_seed(2)
    head = build_head(CONFIG)
    folder = PairsFolder.read(shapes)
    with torch.no_grad():
        pixels = np.concatenate(
            [photo_batch([load_photo(folder.photo_path(n), 64)], SPEC) for n in sorted(folder.photo_category)]
        )
        pooled = encoder.eval().pool(torch.from_numpy(pixels))
        encoder.projection.bias.copy_(-(encoder.projection.weight @ pooled.mean(0)))
    save_model(root / "last.safetensors", encoder, head, {"input": SPEC.to_manifest(), "step": 0})
    export(root / "last.safetensors", root / "bundle", "tiny", folder, {}, half_weights=False)
    return root / "last.safetensors", root / "bundle"


def measured(model: Path, data: Path, out: Path, *extra: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The JSON object of the command, and its rows of ranks."""
    files = ["--output", str(out / "out.json"), "--ranks", str(out / "ranks.csv")]
    words = ["--model", str(model), "--data", str(data), "--threads", "1", *files, *extra]
    assert command.evaluate(command.parser().parse_args(words)) == 0
    rows = list(csv.DictReader((out / "ranks.csv").read_text(encoding="utf-8").splitlines()))
    return json.loads((out / "out.json").read_text(encoding="utf-8")), rows


@pytest.mark.parametrize("gallery", ["category", "all"])
def test_figures_are_the_same(models: tuple[Path, Path], shapes: Path, tmp_path: Path, gallery: str) -> None:
    (torch_json, torch_rows), (onnx_json, onnx_rows) = (measured(m, shapes, tmp_path, "--gallery", gallery) for m in models)
    assert len(torch_rows) == 24
    assert len({row["rank"] for row in torch_rows}) > 3  # neither perfect nor collapsed
    for ours, theirs in zip(onnx_rows, torch_rows, strict=True):
        for column in ("sketch", "photo", "rank", "gallery", "percentile", "wrong_photo"):
            assert ours[column] == theirs[column]
        for column in ("similarity", "wrong_similarity"):
            assert float(ours[column]) == pytest.approx(float(theirs[column]), abs=1e-4)
    assert {**onnx_json, "model": ""} == {**torch_json, "model": ""}


def test_both_see_the_pixels_that_the_device_sees(
    models: tuple[Path, Path], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = command.open_model
    seen: list[list[np.ndarray]] = []

    def watched(path: Path, threads: int) -> Any:
        encode, head, spec = real(path, threads)
        assert spec == SPEC
        seen.append([])

        def note(pixels: np.ndarray) -> np.ndarray:
            seen[-1].append(pixels.copy())
            return encode(pixels)

        return note, head, spec

    monkeypatch.setattr(command, "open_model", watched)
    for model in models:
        measured(model, shapes, tmp_path)
    ours, theirs = (np.concatenate(batches) for batches in seen)
    np.testing.assert_array_equal(ours, theirs)
    folder = PairsFolder.read(shapes)
    sketches = sketch_pixels([folder.sketch(pair.sketch) for pair in folder.pairs], SPEC)
    np.testing.assert_array_equal(ours, np.concatenate([all_photos(folder), sketches]))


def test_the_engine_of_the_device_gives_these_features(models: tuple[Path, Path], shapes: Path) -> None:
    """What an application computes with the bundle is what was measured."""
    from fgsbir_edge.engine import Engine
    from training.evaluate_model import open_model

    encode, _, spec = open_model(models[0], 1)
    folder = PairsFolder.read(shapes)
    keys, names = [pair.sketch for pair in folder.pairs], sorted(folder.photo_category)
    with Engine.open(photos=folder.photos, bundle=Bundle.load(models[1]), threads=1) as engine:
        sketches = engine.encode_sketches([folder.root / "sketches" / key for key in keys])
        photos = engine.encode_photos([folder.photo_path(name) for name in names])
    np.testing.assert_allclose(encode_sketches(folder, keys, encode, spec), sketches, atol=1e-5)
    np.testing.assert_allclose(encode_photos(folder, names, encode, spec), photos, atol=1e-5)
