"""Downloads into the project's layout: what comes out is what the loaders gave, and nothing is left of a failure."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgsbir_edge.errors import OutputError, PairsFormatError, SketchFormatError, TruncatedImageError
from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.pairs import Pair
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.sketch import Sketch
from tests.training.downloads import coordinates, drawn, picture, save, scribble, sketch_rnn, svg
from tests.training.test_data_quickdraw import line, stroke3
from training.data.folder import PairsFolder
from training.data.official import OfficialSet
from training.data.pixels import PixelStore
from training.data.qmul import read_qmul_v2
from training.data.sketchy import read_sketchy
from training.data.writing import FolderWriter
from training.import_data import main

PLAIN = "tx_000000000000"


def imported(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The command's exit code."""
    monkeypatch.setattr(sys, "argv", ["import_data", *map(str, arguments)])
    return main()


@pytest.fixture
def shoes(tmp_path: Path) -> Path:
    """Coordinates of four photos, three for training."""
    root = tmp_path / "ShoeV2"
    for number in range(4):
        save(picture(number), root / "photo" / f"{number}.png")
    keys = [f"/{'test' if number == 3 else 'train'}/{number}_{k}" for number in range(4) for k in (1, 2)]
    coordinates(root / "ShoeV2_Coordinate", {key: scribble(number) for number, key in enumerate(keys)})
    return root


@pytest.fixture
def sketchy(tmp_path: Path) -> Path:
    root = tmp_path / "sketchy"
    for number, name in enumerate(("bat/n1_1", "bat/n1_2", "cat/n2_1")):
        save(picture(number), root / "photo" / PLAIN / f"{name}.jpg")
        save(drawn(scribble(number)), root / "sketch" / PLAIN / f"{name}-1.png")
    (root / "info").mkdir()
    (root / "info" / "testset.txt").write_text("bat/n1_2.jpg\ncat/n2_1.jpg\n")
    return root


def same(ours: PairsFolder, theirs: OfficialSet) -> None:
    """Both give the same pairs, photos and sketches."""
    assert ours.pairs == theirs.pairs
    assert ours.photo_category == dict(sorted(theirs.photo_category.items()))
    for name in ours.photo_category:
        assert ours.photo_path(name).read_bytes() == theirs.photo_path(name).read_bytes()
    for pair in ours.pairs:
        one, other = ours.sketch(pair.sketch), theirs.sketch(pair.sketch)
        if isinstance(one, Sketch):
            assert isinstance(other, Sketch)
            assert np.array_equal(one.points, other.points.astype(np.float32))
            assert np.array_equal(one.offsets, other.offsets)
        else:
            assert isinstance(other, Drawing)
            assert np.array_equal(one.ink, other.ink)


@pytest.mark.parametrize("split", ["train", "test"])
def test_coordinates_come_out_as_they_went_in(shoes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str) -> None:
    assert imported(monkeypatch, "--layout", "qmul-v2", shoes, tmp_path / "out" / split, "--split", split) == 0
    same(PairsFolder.read(tmp_path / "out" / split), read_qmul_v2(shoes)[split])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [split]


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_drawings_are_copied(sketchy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str) -> None:
    target = tmp_path / "out"
    assert imported(monkeypatch, "--layout", "sketchy", sketchy, target, "--split", split, "--categories", "all") == 0
    same(PairsFolder.read(target), read_sketchy(sketchy)[split])
    source = json.loads((target / "source.json").read_text())
    assert source["split"] == split
    assert source["sketches"] == len(PairsFolder.read(target).pairs)


def test_an_import_can_be_repeated_byte_for_byte(shoes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        assert imported(monkeypatch, "--layout", "qmul-v2", shoes, tmp_path / name) == 0
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 6
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_training_reads_an_official_set_where_it_lies(shoes: Path) -> None:
    train = read_qmul_v2(shoes)["train"]
    spec = InputSpec(size=64)
    sketches, photos = PixelStore(train, spec).batch(list(train.pairs), np.random.default_rng(0))
    assert sketches.shape == photos.shape == (6, 3, 64, 64)
    assert not np.allclose(sketches[0].numpy(), sketches[1].numpy())


def test_damage_is_refused_or_left_out(
    shoes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = shoes / "photo" / "1.png"
    photo.write_bytes(photo.read_bytes()[:-30])
    target = tmp_path / "out"
    assert imported(monkeypatch, "--layout", "qmul-v2", shoes, target) == TruncatedImageError.exit_code
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ShoeV2"]  # nothing half-written
    assert imported(monkeypatch, "--layout", "qmul-v2", shoes, target, "--bad", "skip", "--json") == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert (summary["photos"], summary["sketches"]) == (2, 4)
    assert "1.png" in summary["left_out"][0]
    assert "left out: 2 sketches of these photos" in err
    assert {pair.photo for pair in PairsFolder.read(target).pairs} == {"0.png", "2.png"}


def test_damaged_sketches_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "ChairV2_F"
    for number in range(2):
        save(picture(number), root / "trainB" / f"{number}.png")
        svg(root / "trainA" / f"{number}_1.svg", scribble(number).strokes)
        save(picture(number), root / "testB" / f"t{number}.png")
        svg(root / "testA" / f"t{number}_1.svg", scribble(number).strokes)
    broken = root / "trainA" / "1_1.svg"
    broken.write_text(broken.read_text().replace("</svg>", ""))  # as some files of Sketchy are
    assert imported(monkeypatch, "--layout", "qmul-v2", root, tmp_path / "out") == SketchFormatError.exit_code
    assert not (tmp_path / "out").exists()
    assert imported(monkeypatch, "--layout", "qmul-v2", root, tmp_path / "out", "--bad", "skip") == 0
    folder = PairsFolder.read(tmp_path / "out")
    assert [pair.sketch for pair in folder.pairs] == ["0_1"]
    assert sorted(folder.photo_category) == ["0.png", "1.png"]
    broken.unlink()
    (root / "trainA" / "0_1.svg").write_text("<svg/>")
    assert imported(monkeypatch, "--layout", "qmul-v2", root, tmp_path / "out2", "--bad", "skip") == PairsFormatError.exit_code
    assert not (tmp_path / "out2").exists()


def test_an_existing_folder_is_not_touched(shoes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("keep")
    assert imported(monkeypatch, "--layout", "qmul-v2", shoes, target) == OutputError.exit_code
    assert [path.name for path in target.iterdir()] == ["mine.txt"]
    (target / "mine.txt").unlink()
    assert imported(monkeypatch, "--layout", "qmul-v2", shoes, target) == 0  # an empty one will do
    assert imported(monkeypatch, "--layout", "qmul-v2", shoes, target / "photos" / "0.png") == OutputError.exit_code


@pytest.mark.parametrize("step", ["copyfile", "rename", "fsync"])
def test_a_full_disk_leaves_nothing(shoes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr({"copyfile": "shutil.copyfile", "rename": "os.rename", "fsync": "os.fsync"}[step], full)
    assert imported(monkeypatch, "--layout", "qmul-v2", shoes, tmp_path / "out") == OutputError.exit_code
    assert os.listdir(tmp_path) == ["ShoeV2"]


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with FolderWriter(tmp_path / "out") as writer:
            writer.photo("a.png", b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../up.png", "/etc/up.png", "a/../../up.png", "..\\up.png", "", "a\0b"])
def test_no_name_leads_out(tmp_path: Path, name: str) -> None:
    def write() -> None:
        with FolderWriter(tmp_path / "out") as writer:
            writer.photo(name, b"x")

    with pytest.raises(OutputError, match="leads out of the folder"):
        write()
    assert not list(tmp_path.iterdir())


def test_a_folder_must_hold_what_its_table_names(tmp_path: Path) -> None:
    def write() -> None:
        with FolderWriter(tmp_path / "out") as writer:
            writer.strokes("s", scribble(0))
            writer.pair(Pair("s", "gone.png"))

    with pytest.raises(PairsFormatError, match=r"'gone\.png' is not under"):
        write()
    assert not list(tmp_path.iterdir())


def test_quickdraw_gets_its_own_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shoe.ndjson").write_text("\n".join(line(number, "running shoe") for number in range(60)))
    assert imported(monkeypatch, "--layout", "quickdraw", tmp_path / "shoe.ndjson", tmp_path / "out", "--limit", 7) == 0
    folder = PairsFolder.read(tmp_path / "out")
    assert len(folder.pairs) == 7
    assert set(folder.photo_category.values()) == {"running_shoe"}
    pair = folder.pairs[0]
    assert pair.photo == f"{pair.sketch}.png"
    assert isinstance(folder.sketch(pair.sketch), Sketch)
    with Image.open(folder.photo_path(pair.photo)) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (256, 256)
    assert np.median(pixels) == 255  # black on white
    assert pixels.min() < 60
    rows, columns = np.flatnonzero((pixels < 128).any(axis=1)), np.flatnonzero((pixels < 128).any(axis=0))
    assert max(np.ptp(rows), np.ptp(columns)) == pytest.approx(190, abs=3)


def test_sketch_rnn_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sketch_rnn(
        tmp_path / "sketchrnn_cat.npz", {"train": [stroke3(1)], "valid": [stroke3(2), stroke3(3)], "test": [stroke3(4)[:5]]}
    )
    source = tmp_path / "sketchrnn_cat.npz"
    assert imported(monkeypatch, "--layout", "quickdraw", source, tmp_path / "valid", "--split", "valid") == 0
    assert [pair.sketch for pair in PairsFolder.read(tmp_path / "valid").pairs] == ["cat/valid_000000", "cat/valid_000001"]
    code = imported(monkeypatch, "--layout", "quickdraw", source, tmp_path / "test", "--split", "test")
    assert code == PairsFormatError.exit_code  # too short, all of them


@pytest.mark.parametrize(("layout", "split"), [("qmul-v2", "valid"), ("quickdraw", "all"), ("sketchy", "valid")])
def test_a_layout_has_its_own_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, split: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        imported(monkeypatch, "--layout", layout, tmp_path, tmp_path / "out", "--split", split)


def test_sketchy_without_its_list_has_no_test_split(
    sketchy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (sketchy / "info" / "testset.txt").unlink()
    assert imported(monkeypatch, "--layout", "sketchy", sketchy, tmp_path / "out") == PairsFormatError.exit_code
    assert "put testset.txt into info/" in capsys.readouterr().err
