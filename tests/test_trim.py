"""Framing of photos on plain backgrounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fgsbir_edge.photo import load_photo, photo_pixels
from fgsbir_edge.trim import content_box, trimmed


def product(size: tuple[int, int], box: tuple[int, int, int, int], paper: tuple[int, int, int] = (240, 240, 240)) -> Image.Image:
    image = Image.new("RGB", size, paper)
    ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=(200, 30, 30))
    return image


def ink_box(pixels: np.ndarray, paper: int = 240) -> tuple[int, int, int, int]:
    marked = np.abs(pixels.astype(int) - paper).max(axis=2) > 60
    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@pytest.mark.parametrize(
    ("size", "box"),
    [((200, 200), (10, 20, 60, 120)), ((300, 120), (200, 30, 290, 90)), ((1000, 1400), (100, 100, 500, 300))],
)
def test_object_is_centred_with_its_longer_side_at_190_of_256(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = ink_box(photo_pixels(product(size, box), 256, "trim"))
    assert max(right - left, bottom - top) == pytest.approx(190, abs=5)
    assert (left + right) / 2 == pytest.approx(128, abs=3)
    assert (top + bottom) / 2 == pytest.approx(128, abs=3)
    aspect = (box[2] - box[0]) / (box[3] - box[1])
    assert (right - left) / (bottom - top) == pytest.approx(aspect, rel=0.08)


def test_background_colour_fills_the_frame() -> None:
    pixels = photo_pixels(product((200, 100), (150, 10, 190, 90), (20, 60, 120)), 64, "trim")
    assert pixels[0, 0].tolist() == [20, 60, 120]
    assert pixels[-1, -1].tolist() == [20, 60, 120]


def test_noise_on_the_background_is_tolerated() -> None:
    clean = product((200, 200), (50, 60, 150, 120))
    noisy = np.asarray(clean).astype(int) + np.random.default_rng(0).integers(-9, 10, (200, 200, 3))
    found = content_box(Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)))
    assert found is not None
    assert found[0] == (50, 60, 150, 120)


def test_scenes_empty_pictures_and_specks_are_left_alone() -> None:
    scene = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    assert trimmed(scene) is None
    assert trimmed(Image.new("RGB", (80, 80), "white")) is None
    assert trimmed(product((200, 200), (100, 100, 104, 104))) is None
    np.testing.assert_array_equal(photo_pixels(scene, 64, "trim"), photo_pixels(scene, 64, "pad"))


def test_file_and_image_agree(tmp_path: Path) -> None:
    image = product((900, 700), (200, 200, 420, 500))
    image.save(tmp_path / "photo.jpg", quality=95)
    difference = load_photo(tmp_path / "photo.jpg", 96, "trim").astype(int) - photo_pixels(image, 96, "trim")
    assert np.abs(difference).mean() < 3
