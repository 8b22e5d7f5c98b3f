"""``fgsbir-edge samples``, and what other first steps meet: words instead of numbers, pictures of other kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fgsbir_edge import console
from fgsbir_edge.cli import main
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import OutputError, PairsFormatError
from fgsbir_edge.gallery.folder import picture_names
from fgsbir_edge.pairs import DEMO_FOLDER, DataFolder, draw_support, read_pair_files
from fgsbir_edge.samples import SHOTS, write_samples


def test_samples_have_what_the_pages_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "try"
    assert main(["samples", str(folder)]) == 0
    assert capsys.readouterr().out.endswith(f"next: cd {folder}\n")
    assert sorted(path.name for path in folder.iterdir()) == ["LICENSE", "data", "pairs.csv", "photos", "queries.csv", "sketches"]
    support, queries = read_pair_files(folder / "pairs.csv"), read_pair_files(folder / "queries.csv")
    assert len(support) == SHOTS
    assert len(support) + len(queries) == len(list((folder / "photos").iterdir())) == 32
    for pair in [*support, *queries]:
        assert Path(pair.sketch).is_file()
        assert (folder / "photos" / pair.photo).is_file()
    assert len(DataFolder.open(folder / "data" / "mine").users) == 3


def test_samples_learn_from_the_pairs_of_the_demo(tmp_path: Path) -> None:
    write_samples(tmp_path)
    demo = DataFolder.open(DEMO_FOLDER)
    drawn = draw_support(demo.select(demo.users[0]), SHOTS, 0)[0]
    assert [pair.photo for pair in read_pair_files(tmp_path / "pairs.csv")] == [pair.photo for pair in drawn]


def test_samples_leave_alone_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["samples", str(tmp_path)]) == OutputError.exit_code
    assert "is there already and not empty; choose a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert main(["samples", str(tmp_path / "mine.txt")]) == OutputError.exit_code


def test_pictures_of_other_kinds_are_not_left_out_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.HEIC", "b.heic", "c.gif", "notes.txt", ".hidden.heic"):
        (tmp_path / name).write_bytes(b"something")
    assert picture_names(tmp_path) == ([], {".gif": 1, ".heic": 2})
    assert main(["index", str(tmp_path), "--gallery", str(tmp_path / "g")]) != 0
    assert "left out: 1 .gif, 2 .heic; only JPEG, PNG, WebP and BMP are read: convert them" in capsys.readouterr().err
    Image.new("RGB", (8, 8)).save(tmp_path / "d.jfif", "JPEG")
    assert picture_names(tmp_path)[0] == ["d.jfif"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["query", "a.png", "--photos", ".", "--top", "ten"], "argument --top: 'ten' is no whole number"),
        (["query", "a.png", "--photos", ".", "--top", "0"], "argument --top: 0 is below 1"),
        (["query", "a.png", "--photos", ".", "--none-below", "half"], "argument --none-below: 'half' is no number"),
        (["query", "a.png", "--photos", ".", "--none-below", "2"], "2 is no probability from 0 to 1"),
        (["adapt", "--demo", "--margin", "inf"], "argument --margin: inf is not finite"),
        (["adapt", "--demo", "--centre", "-1"], "argument --centre: -1 is not 0 or more"),
        (["serve", "--demo", "--port", "80x"], "argument --port: '80x' is no whole number"),
        (["serve", "--demo", "--port", "70000"], "70000 is no port, expected 0 to 65535"),
        (["serve", "--demo", "--idle", "-1"], "-1 is out of range, expected 0 or more"),
    ],
)
def test_what_is_no_number_is_said_so(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_counts_and_reasons_in_words() -> None:
    assert [console.counted(n, "pair") for n in (0, 1, 2)] == ["0 pairs", "1 pair", "2 pairs"]
    assert console.counted(2, "person", "people") == "2 people"
    assert console.by_reason({"a": "x", "b": "", "c": "x"}) == [("a, c", "x"), ("b", "")]


def test_a_wrong_user_is_told_who_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--user", "nobody"]) == PairsFormatError.exit_code
    assert "no pairs of user 'nobody'; its pairs.csv has users u1593, u3230, u8033; categories car," in capsys.readouterr().err


def test_a_photo_may_be_named_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_samples(tmp_path)
    monkeypatch.chdir(tmp_path)
    with Engine.open(gallery="g", create=True, threads=1) as engine:
        engine.index("photos")
    assert main(["feedback", "sketches/pug.png", "photos/pug.jpg", "--person", "ann", "--gallery", "g"]) == 0
    assert main(["query", "sketches/pug.png", "--gallery", "g", "--true", "photos/pug.jpg"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ann, 1 pair: ")
    assert "true photo pug.jpg: rank " in out
