"""The split report: what it counts, which copies it finds, and what it does not take for one."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.formats.qmul import write_strokes_npz
from fgsbir_edge.raster import RasterSpec, rasterize
from tests.training.downloads import coordinates, drawn, picture, save, scribble
from training.data.fingerprints import photo_print, sketch_print
from training.data.split_report import DataSet, Thresholds, report
from training.data_report import main

SIZE = (320, 240)


def folder(
    root: Path, photos: dict[str, Image.Image | Path], pairs: list[tuple[str, str, str, str]], name: str = "pairs.csv"
) -> Path:
    """A dataset folder; the sketch of a pair is scribble(N) where the pair's sketch is named N."""
    for photo, content in photos.items():
        path = root / "photos" / photo
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            path.write_bytes(content.read_bytes())
        else:
            content.save(path)
    with (root / name).open("w", newline="") as stream:
        csv.writer(stream).writerows([("sketch", "photo", "category", "user"), *pairs])
    write_strokes_npz(root / "strokes.npz", {sketch: scribble(int(sketch)) for sketch, *_ in pairs})
    return root


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


COPIES = {
    "saved again": lambda image: jpeg(image, 60),
    "half the size": lambda image: image.resize((160, 120), Image.Resampling.BICUBIC),
    "another frame": lambda image: ImageOps.expand(image, (90, 10, 0, 70), "white"),
    "another frame, saved again": lambda image: jpeg(ImageOps.expand(image, (5, 80, 60, 0), "white"), 75),
    "other proportions": lambda image: image.resize((200, 240), Image.Resampling.BICUBIC),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.85),
}


@pytest.mark.parametrize("how", COPIES)
def test_altered_copies_are_found(tmp_path: Path, how: str) -> None:
    images = {f"{number}.png": picture(number, SIZE) for number in range(12)}
    folder(tmp_path / "a", dict(images), [("1", "3.png", "thing", "")])
    folder(tmp_path / "b", {"x.png": COPIES[how](images["3.png"]), "y.png": picture(99, SIZE)}, [("2", "x.png", "thing", "")])
    found = report([DataSet.read(str(tmp_path / name)) for name in "ab"])["overlaps"][1]
    assert [(entry["a"], entry["b"], entry["roles"]) for entry in found["near_duplicates"]] == [
        ("3.png", "x.png", ["pair", "pair"])
    ]
    assert found["same_file"] == []


def test_different_things_are_not_copies() -> None:
    prints = [photo_print(picture(number, SIZE)) for number in range(60)]
    bits = np.stack([bits for bits, _ in prints])
    apart = (64 - bits @ bits.T) / 2
    assert apart[np.triu_indices(60, 1)].min() > 6


def test_another_colour_is_a_look_alike(tmp_path: Path) -> None:
    grey = picture(3, SIZE).convert("L")
    red, green = (ImageOps.colorize(grey, "black", "white", mid) for mid in ("#e02020", "#108010"))
    folder(tmp_path / "a", {"red.png": red, "green.png": green}, [("1", "red.png", "", "")])
    within = report([DataSet.read(str(tmp_path / "a"))])["overlaps"][0]
    assert within["near_duplicates"] == []
    assert within["look_alikes"] == 1
    assert within["closest_look_alikes"][0]["roles"] == ["distractor", "pair"]
    every = report([DataSet.read(str(tmp_path / "a"))], Thresholds(likeness=-1.0))["overlaps"][0]
    assert len(every["near_duplicates"]) == 1


def test_same_file_is_not_listed_again_as_near(tmp_path: Path) -> None:
    photo = save(picture(1, SIZE), tmp_path / "photo.png")
    folder(
        tmp_path / "a",
        {"cat/1.png": photo, "other.png": picture(2, SIZE)},
        [("1", "other.png", "cat", "ann"), ("2", "cat/1.png", "cat", "bob")],
    )
    folder(tmp_path / "b", {"cat/1.png": photo, "copy.png": photo}, [("3", "cat/1.png", "cat", "ann")])
    result = report([DataSet.read(str(tmp_path / name)) for name in "ab"])
    within_a, between, within_b = result["overlaps"]
    assert [(entry["a"], entry["b"], entry["roles"]) for entry in between["same_file"]] == [
        ("cat/1.png", "cat/1.png", ["pair", "pair"]),
        ("cat/1.png", "copy.png", ["pair", "distractor"]),
    ]
    assert between["near_duplicates"] == []
    assert between["same_photo_name"] == ["cat/1"]
    assert between["shared_users"] == ["ann"]
    assert between["shared_categories"] == ["cat"]
    assert [(entry["a"], entry["b"]) for entry in within_b["same_file"]] == [("cat/1.png", "copy.png")]
    assert within_a["same_file"] == within_a["shared_users"] == []


def test_counts(tmp_path: Path) -> None:
    pairs = [
        ("1", "a.png", "cat", "ann"),
        ("2", "a.png", "cat", "bob"),
        ("3", "b.png", "dog", "ann"),
        ("4", "a.png", "cat", "ann"),
    ]
    root = folder(tmp_path / "a", {"a.png": picture(1), "b.png": picture(2), "dog/c.png": picture(3)}, pairs)
    (counts,) = report([DataSet.read(str(root))])["sets"]
    points = [scribble(number).num_points for number in (1, 2, 3, 4)]
    assert (counts["photos"], counts["distractors"], counts["sketches"], counts["vector_sketches"]) == (3, 1, 4, 4)
    assert (counts["categories"], counts["users"]) == (2, 2)
    assert counts["sketches_per_photo"] == {"min": 1, "mean": 2, "median": 2, "p95": 2.9, "max": 3}
    assert counts["sketches_per_user"]["max"] == 3
    assert counts["points_per_sketch"]["max"] == max(points)
    assert counts["points_per_sketch"]["mean"] == pytest.approx(np.mean(points), abs=0.01)
    assert counts["strokes_per_sketch"] == {"min": 3, "mean": 3, "median": 3, "p95": 3, "max": 3}


def test_unreadable_files_are_named_and_left_out(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", {"a.png": picture(1), "b.png": picture(2)}, [("1", "a.png", "", "")])
    (root / "photos" / "b.png").write_bytes(b"")
    with (root / "pairs.csv").open("a") as stream:
        stream.write("gone.png,a.png,,\n")
    (counts,) = report([DataSet.read(str(root))])["sets"]
    assert len(counts["unreadable"]) == 2
    assert "b.png" in counts["unreadable"][0]
    assert "gone.png" in counts["unreadable"][1]
    assert (counts["photos"], counts["vector_sketches"]) == (2, 1)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other)


def test_a_sketch_equals_itself_in_any_form() -> None:
    for seed in range(20):
        sketch = scribble(seed, 6)
        print_ = sketch_print(sketch)
        moved = sketch.scaled(3.1, 3.1).transformed([[1, 0, 40], [0, 1, -900]])
        assert likeness(print_, sketch_print(moved)) > 0.999
        assert likeness(print_, sketch_print(sketch.simplified(2.0))) > 0.95
        for width in (1.0, 4.0):
            ink = rasterize(sketch.scaled(0.9, 0.9), RasterSpec(512, 512, "antialias", width))[0]
            assert likeness(print_, sketch_print(Drawing(ink / np.float32(255)))) > 0.95
        assert likeness(print_, sketch_print(Drawing.from_image(drawn(sketch, 200)))) > 0.95


def test_different_sketches_are_not_equal() -> None:
    prints = np.stack([sketch_print(scribble(seed, 6)) for seed in range(60)])
    products = (prints @ prints.T)[np.triu_indices(60, 1)]
    assert products.max() < 0.8


def test_equal_sketches_are_listed(tmp_path: Path) -> None:
    folder(tmp_path / "a", {"a.png": picture(1)}, [("1", "a.png", "", ""), ("2", "a.png", "", "")])
    root = folder(tmp_path / "b", {"b.png": picture(2)}, [("3", "b.png", "", "")])
    save(drawn(scribble(2)), root / "sketches" / "two.png")
    with (root / "pairs.csv").open("a") as stream:
        stream.write("two.png,b.png,,\n")
    found = report([DataSet.read(str(tmp_path / name)) for name in "ab"])["overlaps"]
    assert [(entry["a"], entry["b"]) for entry in found[1]["equal_sketches"]] == [("2", "two.png")]
    assert found[0]["equal_sketches"] == found[2]["equal_sketches"] == []


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["data_report", *map(str, arguments)])
    return main()


def test_tables_and_photo_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "a", {"a.png": picture(1, SIZE), "b.png": picture(2, SIZE)}, [("1", "a.png", "", "")])
    folder(root, {}, [("2", "b.png", "", "")], "other.csv")
    write_strokes_npz(root / "strokes.npz", {str(number): scribble(number) for number in (1, 2)})
    save(jpeg(picture(1, SIZE), 60), tmp_path / "loose" / "deep" / "z.jpg")
    assert run(monkeypatch, root, f"{root}#other.csv", tmp_path / "loose", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert [counts["photos"] for counts in result["sets"]] == [2, 2, 1]
    between = {(entry["a"].rpartition("/")[2], entry["b"].rpartition("/")[2]): entry for entry in result["overlaps"]}
    assert [entry["roles"] for entry in between["a", "a#other.csv"]["same_file"]] == [
        ["pair", "distractor"],
        ["distractor", "pair"],
    ]
    (near,) = between["a", "loose"]["near_duplicates"]
    assert (near["a"], near["b"], near["roles"]) == ("a.png", "deep/z.jpg", ["pair", "distractor"])


def test_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        folder(
            tmp_path / name, {f"{n}.png": picture(n, SIZE) for n in range(9)}, [(str(n), f"{n}.png", "", "") for n in range(8)]
        )
    folder(tmp_path / "c", {"other.png": picture(77, SIZE)}, [("90", "other.png", "", "")])
    assert run(monkeypatch, *(tmp_path / name for name in "abc"), "--show", 2) == 0
    text = capsys.readouterr().out
    assert "9 photos (1 without a sketch), 8 sketches (8 vector)" in text
    assert "  same file: 9\n    0.png = 0.png (pair and pair)\n    1.png = 1.png (pair and pair)\n    and 7 more\n" in text
    assert "  equal sketches (likeness at least 0.95): 8\n    0 = 0, likeness 1.000\n" in text
    assert f"{tmp_path}/a and {tmp_path}/c\n  nothing shared" in text


def test_a_download_is_reported_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        save(picture(number, SIZE), tmp_path / "ChairV2" / "photo" / f"{number}.png")
    save(picture(1, SIZE).resize((160, 120)), tmp_path / "ChairV2" / "photo" / "leak.png")
    keys = ["/train/0_1", "/train/1_1", "/test/2_1", "/test/leak_1"]
    coordinates(tmp_path / "ChairV2" / "ChairV2_Coordinate", {key: scribble(n) for n, key in enumerate(keys)})
    assert run(monkeypatch, tmp_path / "ChairV2", "--layout", "qmul-v2", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert [counts["name"] for counts in result["sets"]] == ["train", "test"]
    (near,) = result["overlaps"][1]["near_duplicates"]
    assert (near["a"], near["b"]) == ("1.png", "leak.png")


@pytest.mark.skipif("FGSBIR_DATA" not in os.environ, reason="FGSBIR_DATA names no folder with chairv1/ and chairv2/")
def test_the_photos_that_chairv1_and_chairv2_share() -> None:
    data = Path(os.environ["FGSBIR_DATA"])
    if not (data / "chairv1").is_dir():
        pytest.skip("FGSBIR_DATA holds no chairv1/")
    overlaps = report([DataSet.read(str(data / name)) for name in ("chairv1", "chairv2")])["overlaps"]
    near = {(entry["a"], entry["b"]) for entry in overlaps[1]["near_duplicates"]}
    assert near == {("68.jpg", "70288630_v1.png"), ("107.jpg", "10259485_v1.png"), ("172.jpg", "70087212_v1.png")}
    assert overlaps[0]["near_duplicates"] == overlaps[2]["near_duplicates"] == []
