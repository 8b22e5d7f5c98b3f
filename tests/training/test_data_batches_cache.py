"""The pixel cache: found again, never stale, never trusted when damaged; and edge drawings, which are worth caching."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fgsbir_edge.errors import OutputError, UnreadableImageError
from fgsbir_edge.preprocess import InputSpec
from tests.training.downloads import picture, save
from training.data.cache import PixelCache, packed, read_entry
from training.data.edges import SCALES, edge_drawing, edge_key, edge_name, edges
from training.data.folder import PairsFolder
from training.data.pixels import PixelStore

pytestmark = pytest.mark.torch

SPEC = InputSpec(size=48)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_pixels_are_made_once(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = PairsFolder.read(shapes), tmp_path / "cache"
    pair = folder.pairs[0]
    names = (pair.sketch, edge_key(pair.photo, 1))
    first = PixelStore(folder, SPEC, cache)
    made = [first.photo(pair.photo, 58), *(first.sketch(name, 58) for name in names)]
    assert len(files(cache)) == 3
    plain = PixelStore(folder, SPEC)
    for pixels, other in zip(made, [plain.photo(pair.photo, 58), *(plain.sketch(name, 58) for name in names)], strict=True):
        assert np.array_equal(pixels, other)
    for name in ("load_photo", "drawing_pixels", "edge_drawing"):
        monkeypatch.delattr(f"training.data.pixels.{name}")
    again = PixelStore(folder, SPEC, cache)
    for pixels, other in zip(made, [again.photo(pair.photo, 58), *(again.sketch(name, 58) for name in names)], strict=True):
        assert np.array_equal(pixels, other)


def test_every_setting_is_in_the_key(shapes: Path, tmp_path: Path) -> None:
    folder = PairsFolder.read(shapes)
    pair = folder.pairs[0]
    for spec in (SPEC, InputSpec(size=48, photo_fit="stretch"), InputSpec(size=48, line_width=3.0)):
        store = PixelStore(folder, spec, tmp_path)
        for side in (48, 58):
            store.photo(pair.photo, side)
            store.sketch(pair.sketch, side)
            for scale in range(len(SCALES)):
                store.sketch(edge_key(pair.photo, scale), side)
    assert len(files(tmp_path)) == 2 * 2 + 2 * 2 + 2 * 3 * len(SCALES)  # photos by fit, ink by width, edges by both


def test_a_changed_file_is_read_again_and_a_moved_one_is_not(tmp_path: Path) -> None:
    cache, calls = PixelCache(tmp_path / "cache"), []

    def pixels(path: Path) -> np.ndarray:
        def make() -> np.ndarray:
            calls.append(path.name)
            return np.asarray(Image.open(path).convert("L"))

        return cache.get(path, "photo", (64,), make)

    path = save(picture(0), tmp_path / "a.png")
    before = pixels(path)
    stat = path.stat()
    copy = Path(shutil.copy(path, tmp_path / "b.png"))
    assert np.array_equal(pixels(copy), before)
    assert calls == ["a.png"]
    save(picture(1), path)
    import os

    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not np.array_equal(pixels(path), before)
    assert calls == ["a.png", "a.png"]
    with pytest.raises(UnreadableImageError, match=r"gone\.png"):
        pixels(tmp_path / "gone.png")


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "foreign"])
def test_damaged_entries_are_replaced(tmp_path: Path, damage: str) -> None:
    cache, source = PixelCache(tmp_path / "cache"), save(picture(0), tmp_path / "a.png")
    good = np.arange(48 * 48, dtype=np.uint8).reshape(48, 48)
    cache.get(source, "ink", (48,), lambda: good)
    path = cache.path(source, "ink", (48,))
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[:-40],
            "empty": b"",
            "flipped": content[:300] + bytes([content[300] ^ 1]) + content[301:],
            "foreign": b"not an entry" * 20,
        }[damage]
    )
    assert read_entry(path) is None
    assert np.array_equal(cache.get(source, "ink", (48,), lambda: good.copy()), good)
    assert path.read_bytes() == content == packed(good)
    assert len(files(tmp_path / "cache")) == 1  # nothing half-written beside it


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    source = save(picture(0), tmp_path / "a.png")
    with pytest.raises(OutputError, match="choose another cache folder"):
        PixelCache(tmp_path / "file").get(source, "ink", (), lambda: np.zeros((2, 2), np.uint8))


def test_edge_names() -> None:
    assert edge_name(edge_key("a/b:c.png", 2)) == (2, "a/b:c.png")
    for name in ("a.png", "edges/1.png", "edges:9:a.png", "edges:x:a.png", "edges:"):
        assert edge_name(name) is None


def disc(colour: tuple[int, int, int], speckle: int = 0) -> np.ndarray:
    image = Image.new("RGB", (256, 256), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((60, 60, 196, 196), fill=colour)
    rng = np.random.default_rng(0)
    for x, y in rng.integers(10, 246, (speckle, 2)).tolist():
        draw.point((x, y), fill="black")
    return np.asarray(image)


@pytest.mark.parametrize("scale", range(len(SCALES)))
@pytest.mark.parametrize("colour", [(20, 20, 30), (200, 60, 60), (235, 235, 235)])
def test_an_outline_is_found_whole_and_thin(scale: int, colour: tuple[int, int, int]) -> None:
    lines = edges(disc(colour, speckle=40), SCALES[scale])
    y, x = np.nonzero(lines)
    radius = np.hypot(y - 128, x - 128)
    assert (np.abs(radius - 68) < 3).mean() > 0.97  # the circle, and next to no speckle
    angles = np.unique(np.round(np.degrees(np.arctan2(y - 128, x - 128)) / 4))
    assert len(angles) >= 88  # of 90: all around
    assert lines.sum() < 1.3 * 2 * np.pi * 68


def test_a_flat_photo_has_no_edges_and_a_meadow_not_too_many(tmp_path: Path) -> None:
    for value in (0, 128, 255):
        assert not edges(np.full((256, 256, 3), value, np.uint8), SCALES[0]).any()
    flat = save(Image.new("RGB", (64, 64), "grey"), tmp_path / "flat.png")
    assert not edge_drawing(flat, "trim", 0, 48, 2.0).any()
    meadow = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    for scale in SCALES:
        assert 0.005 < edges(meadow, scale).mean() <= 0.05


def test_edge_drawings_are_framed_as_sketches_are(tmp_path: Path) -> None:
    path = save(Image.fromarray(disc((90, 90, 200))), tmp_path / "disc.png")
    ink = edge_drawing(path, "pad", 1, 128, 2.0)
    y, x = np.nonzero(ink > 128)
    assert ink.shape == (128, 128)
    assert [y.min(), x.min()] == pytest.approx([16, 16], abs=2)  # (256 - 190) / 2 of 256, at half the size
    assert [y.max(), x.max()] == pytest.approx([112, 112], abs=2)
