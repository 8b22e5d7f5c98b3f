"""The ONNX encoder and what it is fed: batches, shapes, both kinds of sketch, interface checks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.onnx import MAX_BATCH, OnnxEncoder
from fgsbir_edge.encoder.shifts import encode_shifted, shifted
from fgsbir_edge.errors import BundleFormatError, NonFiniteError, ShapeError, SketchFormatError
from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.preprocess import InputSpec, as_sketch, photo_batch, sketch_pixels
from fgsbir_edge.sketch import Sketch
from tests.toy import FEATURES, POOL, SIZE, toy_encoder


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> OnnxEncoder:
    return OnnxEncoder(bundle, threads=1)


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)


def test_any_batch_gives_what_single_images_give(encoder: OnnxEncoder) -> None:
    batch = pixels(2 * MAX_BATCH + 1)
    single = np.concatenate([encoder.encode(batch[i : i + 1]) for i in range(len(batch))])
    np.testing.assert_allclose(encoder.encode(batch), single, atol=1e-5)
    assert encoder.encode(batch[:0]).shape == (0, FEATURES)


def test_encoder_runs_the_graph(encoder: OnnxEncoder) -> None:
    from onnx import load_from_string, numpy_helper

    weight = numpy_helper.to_array(load_from_string(toy_encoder()).graph.initializer[0])
    batch = pixels(3)
    pooled = batch.reshape(3, 3, SIZE // POOL, POOL, SIZE // POOL, POOL).mean(axis=(3, 5))
    np.testing.assert_allclose(encoder.encode(batch), pooled.reshape(3, -1) @ weight, atol=1e-5)


@pytest.mark.parametrize(
    "bad", [np.zeros((1, 3, SIZE, SIZE)), np.zeros((1, 3, SIZE, 9), np.float32), np.zeros((3, SIZE, SIZE), np.float32)]
)
def test_wrong_input(encoder: OnnxEncoder, bad: np.ndarray) -> None:
    with pytest.raises(ShapeError, match="expected float32"):
        encoder.encode(bad)


def test_non_finite_output_is_refused(encoder: OnnxEncoder) -> None:
    batch = pixels(1)
    batch[0, 0, 0, 0] = np.inf
    with pytest.raises(NonFiniteError, match="encoder output"):
        encoder.encode(batch)


@pytest.mark.parametrize(
    ("model", "message"),
    [(b"junk", "cannot be loaded"), (toy_encoder(size=64), "input is"), (toy_encoder(features=8), "output is")],
    ids=["junk", "other input size", "other feature width"],
)
def test_graph_must_have_the_manifest_s_interface(bundle: Bundle, model: bytes, message: str) -> None:
    with pytest.raises(BundleFormatError, match=message):
        OnnxEncoder(replace(bundle, encoder=model), threads=1)


CROSS = Sketch.from_strokes([[(0, 0), (100, 100)], [(0, 100), (100, 0)]])


@pytest.mark.parametrize("ink", ["dark", "light"])
@pytest.mark.parametrize("style", ["antialias", "bresenham"])
def test_sketches_and_drawings_of_one_shape_agree(ink: str, style: str) -> None:
    spec = InputSpec(size=64, mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1), ink=ink, style=style)  # type: ignore[arg-type]
    vector = sketch_pixels([CROSS], spec)
    unit = vector * np.reshape(spec.std, (1, 3, 1, 1)) + np.reshape(spec.mean, (1, 3, 1, 1))
    assert unit.min() == pytest.approx(0, abs=1e-6)
    assert unit.max() == pytest.approx(1, abs=1e-6)
    paper = 1.0 if ink == "dark" else 0.0
    assert np.median(unit) == pytest.approx(paper, abs=1e-6)
    drawn = (255 * unit[0].transpose(1, 2, 0)).round().astype(np.uint8)
    raster = sketch_pixels([Drawing.from_image(Image.fromarray(drawn))], spec)
    assert np.corrcoef(vector.ravel(), raster.ravel())[0, 1] > 0.8  # line ends and width differ a little


def test_mixed_batch_keeps_its_order() -> None:
    spec = InputSpec(size=32)
    drawing = Drawing.from_image(Image.fromarray(np.pad(np.zeros((4, 40), np.uint8), 20, constant_values=255)))
    other = Sketch.from_strokes([[(0, 0), (0, 50)]])
    mixed = sketch_pixels([CROSS, drawing, other], spec)
    for row, item in enumerate([CROSS, drawing, other]):
        np.testing.assert_array_equal(mixed[row], sketch_pixels([item], spec)[0])


def test_photo_batch_is_the_formula() -> None:
    spec = InputSpec(size=8, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    images = [np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8) for seed in range(3)]
    expected = (np.stack(images).transpose(0, 3, 1, 2) / 255 - np.reshape(spec.mean, (1, 3, 1, 1))) / np.reshape(
        spec.std, (1, 3, 1, 1)
    )
    np.testing.assert_allclose(photo_batch(images, spec), expected, atol=1e-6)
    assert photo_batch([], spec).shape == (0, 3, 8, 8)
    with pytest.raises(ShapeError, match="photo_pixels"):
        photo_batch([images[0][:4]], spec)


def test_shifted_copies_move_and_repeat_their_edge() -> None:
    photo = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    same, left, right, up, down = shifted(photo, 1)
    np.testing.assert_array_equal(same, photo)
    np.testing.assert_array_equal(left[..., :3], photo[..., 1:])
    np.testing.assert_array_equal(left[..., 3], photo[..., 3])
    np.testing.assert_array_equal(right[..., 1:], photo[..., :3])
    np.testing.assert_array_equal(right[..., 0], photo[..., 0])
    np.testing.assert_array_equal(up[..., :3, :], photo[..., 1:, :])
    np.testing.assert_array_equal(down[..., 1:, :], photo[..., :3, :])


def test_shifted_features_are_the_mean_at_the_length_of_one() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3 * 8 * 8, 5)).astype(np.float32)
    photos = rng.normal(size=(7, 3, 8, 8)).astype(np.float32)  # more than are encoded at a time

    def encode(pixels: np.ndarray) -> np.ndarray:
        rows = pixels.reshape(-1, len(weight)) @ weight
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    found = encode_shifted(encode, photos, 2)
    mean = np.mean([encode(copy) for copy in shifted(photos, 2)], axis=0)
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(encode_shifted(encode, photos, 0), encode(photos))
    assert encode_shifted(encode, photos[:0], 2).shape == (0, 5)
    with pytest.raises(ValueError, match="photo_shift is 32"):
        InputSpec(size=32, photo_shift=32)


def test_as_sketch_takes_images_and_refuses_points() -> None:
    image = np.full((40, 40), 255, np.uint8)
    image[10:30, 20] = 0
    for source in (image, np.stack([image] * 3, axis=-1), Image.fromarray(image)):
        assert isinstance(as_sketch(source), Drawing)
    assert as_sketch(CROSS) is CROSS
    with pytest.raises(ShapeError, match="from_strokes"):
        as_sketch(np.zeros((5, 2)))
    with pytest.raises(SketchFormatError, match="got int"):
        as_sketch(3)


@pytest.mark.parametrize(
    "change", [{"size": 4}, {"std": (1.0, 0.0, 1.0)}, {"mean": (0.0, float("nan"), 0.0)}, {"line_width": 0.0}]
)
def test_input_spec_refuses_nonsense(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        InputSpec(**change)  # type: ignore[arg-type]
