"""The Sketchy database in the trees that its archives unpack to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fgsbir_edge.errors import PairsFormatError, UnreadableImageError
from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.sketch import Sketch
from tests.training.downloads import drawn, picture, save, scribble, svg
from training.data.sketchy import UNSEEN, SketchyOptions, read_sketchy

PLAIN = "tx_000000000000"
PHOTOS = {"airplane": ("n02691156_58", "n02691156_359"), "bat": ("n02139199_91",), "car_(sedan)": ("n02958343_1", "n02958343_2")}
STROKE = np.array([[64.0, 48.0], [320.0, 240.0], [576.0, 48.0]])


def unpacked(root: Path, base: str = "", transform: str = PLAIN, suffix: str = ".png") -> Path:
    """Every photo with two sketches."""
    for category, names in PHOTOS.items():
        for number, name in enumerate(names):
            save(picture(number), root / base / "photo" / transform / category / f"{name}.jpg")
            for k in (1, 2):
                path = root / base / "sketch" / transform / category / f"{name}-{k}{suffix}"
                if suffix == ".png":
                    save(drawn(scribble(k)), path)
                else:
                    svg(path, [STROKE, STROKE * 0.5])
    return root


def lists(root: Path, folder: str = "info") -> None:
    """The lists of the info archive: three sketches are invalid, one photo of each of two categories is for testing."""
    info = root / folder
    info.mkdir(parents=True)
    (info / "invalid-ambiguous.txt").write_text("n02691156_58-1\n")
    (info / "invalid-context.txt").write_text("n02139199_91-2\n")
    (info / "invalid-error.txt").write_text("")
    (info / "invalid-pose.txt").write_text("n02958343_2-1\nn02958343_2-2\n")
    (info / "testset.txt").write_text("airplane/n02691156_359.jpg\ncar_(sedan)/n02958343_1.jpg\nzebra/n02391049_1.jpg\n")
    rows = ["CategoryID,Category,ImageNetID,SketchID,WorkerTag", "0,airplane,n02691156_58,2,w7", "0,car (sedan),n02958343_1,1,w9"]
    (info / "stats.csv").write_text("\n".join(rows))


def test_the_unseen_categories() -> None:
    assert len(UNSEEN) == 21
    assert {"bat", "wheelchair", "window"} < UNSEEN
    assert not UNSEEN & {"airplane", "chair", "shoe", "zebra"}


@pytest.mark.parametrize("base", ["", "256x256", "rendered_256x256/256x256"])
def test_photos_and_sketches_are_matched_wherever_they_were_unpacked(tmp_path: Path, base: str) -> None:
    splits = read_sketchy(unpacked(tmp_path, base))
    assert list(splits) == ["all"]
    whole = splits["all"]
    assert [(pair.sketch, pair.photo, pair.category) for pair in whole.pairs][:3] == [
        ("airplane/n02691156_359-1.png", "airplane/n02691156_359.jpg", "airplane"),
        ("airplane/n02691156_359-2.png", "airplane/n02691156_359.jpg", "airplane"),
        ("airplane/n02691156_58-1.png", "airplane/n02691156_58.jpg", "airplane"),
    ]
    assert len(whole.pairs) == 10
    assert whole.photo_category["car_(sedan)/n02958343_2.jpg"] == "car_(sedan)"
    assert whole.photo_path("bat/n02139199_91.jpg").is_file()
    assert isinstance(whole.sketch("bat/n02139199_91-1.png"), Drawing)
    assert whole.notes == ("no list of invalid sketches is there: all are kept",)


@pytest.mark.parametrize("folder", ["info", "info-06-04/info", "."])
def test_invalid_sketches_are_left_out(tmp_path: Path, folder: str) -> None:
    unpacked(tmp_path)
    if folder == ".":
        lists(tmp_path, "x")
        for path in (tmp_path / "x").iterdir():
            path.rename(tmp_path / path.name)
    else:
        lists(tmp_path, folder)
    whole = read_sketchy(tmp_path)["all"]
    assert len(whole.pairs) == 6
    assert whole.notes == ("4 sketches marked invalid",)
    kept = read_sketchy(tmp_path, SketchyOptions(keep=frozenset({"pose", "context"})))["all"]
    assert {pair.sketch for pair in kept.pairs} - {pair.sketch for pair in whole.pairs} == {
        "bat/n02139199_91-2.png",
        "car_(sedan)/n02958343_2-1.png",
        "car_(sedan)/n02958343_2-2.png",
    }
    assert "car_(sedan)/n02958343_2.jpg" in whole.photo_category  # a distractor now


def test_official_split_by_photo(tmp_path: Path) -> None:
    lists(unpacked(tmp_path))
    splits = read_sketchy(tmp_path)
    train, test = splits["train"], splits["test"]
    assert {pair.photo for pair in test.pairs} == {"airplane/n02691156_359.jpg", "car_(sedan)/n02958343_1.jpg"}
    assert {pair.photo for pair in train.pairs} == {"airplane/n02691156_58.jpg", "bat/n02139199_91.jpg"}
    assert len(train.pairs) + len(test.pairs) == len(splits["all"].pairs)
    assert set(test.photo_category) == set(splits["all"].photo_category)  # the gallery is every photo
    assert set(train.photo_category) == set(test.photo_category) - {pair.photo for pair in test.pairs}
    assert test.sketch("airplane/n02691156_359-1.png") is not None


def test_who_drew_is_taken_from_the_table(tmp_path: Path) -> None:
    lists(unpacked(tmp_path))
    users = {pair.sketch: pair.user for pair in read_sketchy(tmp_path)["all"].pairs}
    assert users["airplane/n02691156_58-2.png"] == "w7"
    assert users["car_(sedan)/n02958343_1-1.png"] == "w9"
    assert users["bat/n02139199_91-1.png"] == ""
    (tmp_path / "info" / "stats.csv").write_text("CategoryID,Category\n0,airplane\n")
    assert read_sketchy(tmp_path)["all"].users == []


@pytest.mark.parametrize(("categories", "names"), [("seen", {"airplane", "car_(sedan)"}), ("unseen", {"bat"})])
def test_zero_shot_split(tmp_path: Path, categories: str, names: set[str]) -> None:
    whole = read_sketchy(unpacked(tmp_path), SketchyOptions(categories=categories))["all"]  # type: ignore[arg-type]
    assert set(whole.photo_category.values()) == {pair.category for pair in whole.pairs} == names


def test_canvas_is_stretched_not_scaled(tmp_path: Path) -> None:
    whole = read_sketchy(unpacked(tmp_path, suffix=".svg"))["all"]
    sketch = whole.sketch("bat/n02139199_91-1")
    assert isinstance(sketch, Sketch)
    assert np.allclose(sketch.strokes[0], [[25.6, 25.6], [128.0, 128.0], [230.4, 25.6]])  # 640 x 480 to 256 x 256
    assert sketch.num_strokes == 2


def test_svg_archive_beside_the_rendered_one(tmp_path: Path) -> None:
    root = unpacked(tmp_path, "rendered_256x256/256x256")
    for category, names in PHOTOS.items():
        folder = root / "sketches-06-04" / "sketches" / category
        for name in names:
            svg(folder / f"{name}-1.svg", [STROKE])
        (folder / "checked.txt").write_text("")
        (folder / "invalid.txt").write_text("invalid/error\n\nContext\n" + f"{names[0]}-1\n" + "Perspective\n")
    auto = read_sketchy(root)["all"]
    assert [pair.sketch for pair in auto.pairs] == ["airplane/n02691156_359-1", "car_(sedan)/n02958343_2-1"]
    assert len(read_sketchy(root, SketchyOptions(keep=frozenset({"context"})))["all"].pairs) == 5
    png = read_sketchy(root, SketchyOptions(sketches="png"))["all"]
    assert len(png.pairs) == 10
    assert png.pairs[0].sketch.endswith(".png")


def test_other_renderings_take_their_own_drawings(tmp_path: Path) -> None:
    root = unpacked(tmp_path, "256x256", "tx_000100000000")
    svg(root / "sketches" / "bat" / "n02139199_91-1.svg", [STROKE])
    whole = read_sketchy(root, SketchyOptions(transform="tx_000100000000"))["all"]
    assert all(pair.sketch.endswith(".png") for pair in whole.pairs)
    with pytest.raises(UnreadableImageError, match=r"no Sketchy photos: looked for .*tx_000000000000"):
        read_sketchy(root)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    root = unpacked(tmp_path)
    lists(root)
    (root / "info" / "testset.txt").write_text("zebra/n02391049_1.jpg\n")
    with pytest.raises(PairsFormatError, match=r"testset\.txt: none of its 1 photos is there"):
        read_sketchy(root)
    (root / "info" / "testset.txt").unlink()
    (root / "photo" / PLAIN / "bat" / "n02139199_91.jpg").rename(root / "photo" / PLAIN / "bat" / "n02139199_92.jpg")
    with pytest.raises(PairsFormatError, match=r"no photo for sketch 'n02139199_91-1' \(and 1 more\)"):
        read_sketchy(root)
    assert len(read_sketchy(root, SketchyOptions(categories="seen"))["all"].pairs) == 5
    with pytest.raises(UnreadableImageError, match="no Sketchy photos"):
        read_sketchy(root / "photo")


def test_category_without_photos_is_noted(tmp_path: Path) -> None:
    root = unpacked(tmp_path)
    for path in sorted((root / "photo" / PLAIN / "bat").iterdir()):
        path.unlink()
    (root / "photo" / PLAIN / "bat").rmdir()
    assert "1 categories with sketches but no photos (bat ...)" in read_sketchy(root)["all"].notes
    with pytest.raises(PairsFormatError, match="no photos of unseen categories among 2 folders"):
        read_sketchy(root, SketchyOptions(categories="unseen"))
