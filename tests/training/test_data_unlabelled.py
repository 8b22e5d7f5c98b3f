"""Folders of photos without sketches."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgsbir_edge.errors import TruncatedImageError, UnreadableImageError
from tests.training.downloads import picture, save
from training.data.unlabelled import read_unlabelled


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    for number, name in enumerate(("b/2.jpg", "a/deep/er/1.PNG", "3.webp", "a/4.bmp", ".hidden/5.png", "b/.6.png")):
        save(picture(number), tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("no photo")
    return tmp_path


def test_all_depths_in_order(catalogue: Path) -> None:
    photos = read_unlabelled(catalogue)
    assert photos.names == ("3.webp", "a/4.bmp", "a/deep/er/1.PNG", "b/2.jpg")
    assert photos.photo_path("b/2.jpg") == catalogue / "b" / "2.jpg"
    assert photos.skipped == ()


@pytest.mark.parametrize("content", [b"", b"no image at all", None])
def test_damaged_photos_are_refused_or_skipped(catalogue: Path, content: bytes | None) -> None:
    bad = catalogue / "b" / "2.jpg"
    bad.write_bytes(bad.read_bytes()[:-60] if content is None else content)
    error = TruncatedImageError if content is None else UnreadableImageError
    with pytest.raises(error, match=r"2\.jpg"):
        read_unlabelled(catalogue)
    photos = read_unlabelled(catalogue, skip_bad=True)
    assert photos.names == ("3.webp", "a/4.bmp", "a/deep/er/1.PNG")
    assert [name for name, _ in photos.skipped] == ["b/2.jpg"]
    assert "b/2.jpg" in read_unlabelled(catalogue, check=False).names


def test_folder_without_photos_is_refused(catalogue: Path) -> None:
    with pytest.raises(UnreadableImageError, match="no such folder, expected photos"):
        read_unlabelled(catalogue / "nowhere")
    for path in catalogue.rglob("*.*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(UnreadableImageError, match=r"no photo that can be read \(4 damaged\)"):
        read_unlabelled(catalogue, skip_bad=True)
