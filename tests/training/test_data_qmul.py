"""ShoeV2 and ChairV2 in the three layouts that people have them in."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from fgsbir_edge.errors import FgsbirError, PairsFormatError, SketchFormatError, UnreadableImageError
from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.sketch import Sketch
from tests.training.downloads import coordinates, drawn, picture, save, scribble, svg
from training.data.folder import PairsFolder
from training.data.qmul import read_qmul_v2

KEYS = ["/train/9910-02-carbon_1", "/train/9910-02-carbon_2", "/train/00140128_v1_1", "/test/4897-b4_11"]


@pytest.fixture
def chairs(tmp_path: Path) -> Path:
    """Coordinates of three photos, and a photo that no key names."""
    root = tmp_path / "ChairV2"
    for number, name in enumerate(("9910-02-carbon", "00140128_v1", "4897-b4", "unused")):
        save(picture(number), root / "photo" / f"{name}.png")
    coordinates(root / "ChairV2_Coordinate", {key: scribble(number) for number, key in enumerate(reversed(KEYS))})
    return root


def listed(root: Path, kind: str = "svg", suffix: str = ".svg") -> Path:
    """The SVG download: three photos, the first two for training, two sketches each."""
    for number, name in enumerate(("1001", "1002", "2003")):
        save(picture(number), root / "ShoeV2_photo" / f"{name}.png")
        for k in (1, 2):
            strokes = [stroke * 3 + 7 for stroke in scribble(10 * number + k).strokes]
            if kind == "svg":
                svg(root / "ShoeV2_sketch" / f"{name}_{k}.svg", strokes)
            else:
                save(drawn(scribble(10 * number + k)), root / "ShoeV2_sketch_png" / f"{name}_{k}.png")
    for split, names in (("train", ("1002", "1001")), ("test", ("2003",))):
        (root / f"photo_{split}.txt").write_text("".join(f"{name}.png\r\n" for name in names))
        (root / f"sketch_{split}.txt").write_text("".join(f"{name}_{k}{suffix}\n" for name in names for k in (2, 1)) + "\n")
    return root


def test_coordinates_keep_the_official_split_apart(chairs: Path) -> None:
    splits = read_qmul_v2(chairs)
    train, test = splits["train"], splits["test"]
    assert isinstance(train, PairsFolder)
    assert [(pair.sketch, pair.photo, pair.category, pair.user) for pair in train.pairs] == [
        ("00140128_v1_1", "00140128_v1.png", "chair", ""),
        ("9910-02-carbon_1", "9910-02-carbon.png", "chair", ""),
        ("9910-02-carbon_2", "9910-02-carbon.png", "chair", ""),
    ]
    assert [(pair.sketch, pair.photo) for pair in test.pairs] == [("4897-b4_11", "4897-b4.png")]
    assert test.photo_category == {"4897-b4.png": "chair"}
    assert train.photo_category == {"00140128_v1.png": "chair", "9910-02-carbon.png": "chair"}
    assert train.notes == ("1 photos without any key",)


def test_coordinates_keep_their_frame(chairs: Path) -> None:
    splits = read_qmul_v2(chairs / "ChairV2_Coordinate")
    sketch = splits["test"].sketch("4897-b4_11")
    assert isinstance(sketch, Sketch)
    assert np.array_equal(sketch.points, scribble(0).points)
    assert splits["test"].photo_path("4897-b4.png") == chairs / "photo" / "4897-b4.png"


def test_photo_folder_and_category_can_be_named(chairs: Path, tmp_path: Path) -> None:
    (chairs / "photo").rename(tmp_path / "elsewhere")
    with pytest.raises(UnreadableImageError, match=r"no photo folder: looked for .*photo"):
        read_qmul_v2(chairs)
    train = read_qmul_v2(chairs, photos=tmp_path / "elsewhere", category="seat")["train"]
    assert {pair.category for pair in train.pairs} == {"seat"}


def test_key_without_photo_is_named(chairs: Path) -> None:
    (chairs / "photo" / "9910-02-carbon.png").unlink()
    with pytest.raises(PairsFormatError, match=r"no photo for sketch '9910-02-carbon_1' \(and 1 more\)"):
        read_qmul_v2(chairs)


def test_keys_of_another_form_are_refused(chairs: Path) -> None:
    coordinates(chairs / "ChairV2_Coordinate", {"/val/4897-b4_1": scribble(0)})
    with pytest.raises(SketchFormatError, match="key '/val/4897-b4_1' is not"):
        read_qmul_v2(chairs)


@pytest.mark.parametrize("length", [0, 1, 40, 400])
def test_truncated_pickle_is_named(chairs: Path, length: int) -> None:
    path = chairs / "ChairV2_Coordinate"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(SketchFormatError, match="ChairV2_Coordinate"):
        read_qmul_v2(chairs)


class Hostile:
    """A pickle of this creates the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_not_run(chairs: Path, tmp_path: Path) -> None:
    data = pickle.dumps({"/train/4897-b4_1": Hostile(tmp_path / "ran")})
    pickle.loads(data)
    assert (tmp_path / "ran").exists()  # it would
    (tmp_path / "ran").unlink()
    (chairs / "ChairV2_Coordinate").write_bytes(data)
    with pytest.raises(SketchFormatError, match="refused"):
        read_qmul_v2(chairs)
    assert not (tmp_path / "ran").exists()


def test_svg_download_follows_its_lists(tmp_path: Path) -> None:
    splits = read_qmul_v2(listed(tmp_path / "ShoeV2_F"))
    assert [pair.sketch for pair in splits["train"].pairs] == ["1001_1", "1001_2", "1002_1", "1002_2"]
    assert [pair.photo for pair in splits["test"].pairs] == ["2003.png"] * 2
    assert {pair.category for pair in splits["test"].pairs} == {"shoe"}
    sketch = splits["train"].sketch("1002_2")
    assert isinstance(sketch, Sketch)
    assert np.allclose(sketch.points, scribble(12).points, atol=1e-9)  # back in the frame of the coordinates


def test_curves_are_read(tmp_path: Path) -> None:
    pytest.importorskip("svgelements", reason="svgelements is not installed")
    root = listed(tmp_path / "ShoeV2_F")
    strokes = scribble(5).strokes
    svg(root / "ShoeV2_sketch" / "1001_1.svg", strokes, curved=True)
    sketch = read_qmul_v2(root)["train"].sketch("1001_1")
    assert isinstance(sketch, Sketch)
    assert sketch.num_strokes == len(strokes)
    ends = np.concatenate([stroke[[0, -1]] for stroke in sketch.strokes])
    assert np.allclose(ends, np.concatenate([stroke[[0, -1]] for stroke in strokes]), atol=1e-6)


def test_lists_may_name_svg_where_png_lies(tmp_path: Path) -> None:
    train = read_qmul_v2(listed(tmp_path / "QUML_v2", "png"))["train"]
    assert [pair.sketch for pair in train.pairs][:2] == ["1001_1.png", "1001_2.png"]
    assert isinstance(train.sketch("1001_1.png"), Drawing)


def test_svg_comes_before_the_png_made_from_it(tmp_path: Path) -> None:
    root = listed(tmp_path / "ShoeV2_F")
    for path in sorted((root / "ShoeV2_sketch").glob("*.svg")):
        save(drawn(scribble(0)), path.with_suffix(".png"))
    assert all(not pair.sketch.endswith(".png") for pair in read_qmul_v2(root)["train"].pairs)


def test_list_and_folder_must_agree(tmp_path: Path) -> None:
    root = listed(tmp_path / "ShoeV2_F")
    (root / "ShoeV2_sketch" / "1002_1.svg").unlink()
    with pytest.raises(PairsFormatError, match=r"sketch_train.txt: '1002_1' \(1 in all\) is not in"):
        read_qmul_v2(root)
    (root / "sketch_train.txt").write_text("2003_1.svg\n")
    with pytest.raises(PairsFormatError, match="no photo for sketch '2003_1'"):
        read_qmul_v2(root)  # its photo is in the other split
    (root / "photo_test.txt").unlink()
    (root / "sketch_train.txt").write_text("1001_1.svg\n")
    with pytest.raises(UnreadableImageError, match=r"photo_test\.txt: no such file"):
        read_qmul_v2(root)


def test_converted_folders(tmp_path: Path) -> None:
    root = tmp_path / "shoes" / "v2"
    for split, names in (("train", ("1031000079", "distractor")), ("test", ("2429245009",))):
        for number, name in enumerate(names):
            save(picture(number), root / f"{split}B" / f"{name}.png")
        save(drawn(scribble(1), mode="RGBA"), root / f"{split}A" / f"{names[0]}_1.png")
    splits = read_qmul_v2(root)
    assert list(splits["train"].photo_category) == ["1031000079.png", "distractor.png"]
    assert [(pair.sketch, pair.photo) for pair in splits["test"].pairs] == [("2429245009_1.png", "2429245009.png")]
    assert isinstance(splits["train"].sketch("1031000079_1.png"), Drawing)  # black on nothing
    (root / "testA").rename(root / "testX")
    with pytest.raises(UnreadableImageError, match="testA"):
        read_qmul_v2(root)


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        ([], UnreadableImageError, "neither a coordinate file"),
        (["a.pkl", "b.pickle"], PairsFormatError, "a.pkl and b.pickle are both"),
        (["trainA/1_1.bmp", "trainB/1.png"], SketchFormatError, "no file of .png, .svg, only .bmp"),
        (["trainA/1_1.png", "trainA/1_1.svg", "trainB/1.png"], PairsFormatError, "1_1.png and 1_1.svg have one name"),
    ],
)
def test_other_folders_are_refused(tmp_path: Path, names: list[str], error: type[FgsbirError], words: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(error, match=words):
        read_qmul_v2(tmp_path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ShoeV2.zip").touch()
    with pytest.raises(SketchFormatError, match="expected a coordinate file"):
        read_qmul_v2(tmp_path / "ShoeV2.zip")
    with pytest.raises(UnreadableImageError, match="no such file or folder"):
        read_qmul_v2(tmp_path / "nowhere")
