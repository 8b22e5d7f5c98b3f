"""The commands: data to stdout, talk to stderr, JSON that says the same, files that are there afterwards."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fgsbir_edge import adapt_cli, cli, console, doctor
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import FgsbirError, PairsFormatError, UnreadableImageError
from fgsbir_edge.pairs import DataFolder, Pair, draw_support, parse_pair, read_pairs
from fgsbir_edge.ranking import accuracy, rank_of, summary
from fgsbir_edge.sheet import GREEN
from tests.toy import PHOTOS

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``fgsbir-edge`` in this process, in an empty folder, with the toy bundle where a bundle is taken."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str | Path) -> tuple[int, str, str]:
        line = [str(word) for word in words]
        if line[0] in ("index", "query", "adapt"):
            line += ["--bundle", str(bundle_path), "--threads", "1"]
        code = cli.main(line)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def test_index_list_remove(run: Run, data_path: Path, tmp_path: Path) -> None:
    code, out, err = run("index", data_path / "photos", "--gallery", "g")
    assert (code, out, err) == (0, f"g: {PHOTOS} added, 0 updated, 0 unchanged, 0 skipped; {PHOTOS} photos\n", "")
    facts = json.loads(run("index", data_path / "photos", "--gallery", "g", "--json")[1])
    counts = {"added": 0, "updated": 0, "unchanged": PHOTOS, "photos": PHOTOS}
    assert facts == {"gallery": "g", **counts, "skipped": [], "left_out": {}}
    code, out, err = run("list", "--gallery", "g")
    assert out.splitlines()[0] == "even/star00.png\teven"
    assert len(out.splitlines()) == PHOTOS
    assert len(run("list", "--gallery", "g", "--category", "odd")[1].splitlines()) == PHOTOS // 2
    assert run("remove", "even/star00.png", "odd/star01.png", "--gallery", "g")[0] == 0
    names = [photo["name"] for photo in json.loads(run("list", "--gallery", "g", "--json")[1])["photos"]]
    assert len(names) == PHOTOS - 2
    assert "even/star00.png" not in names
    assert sorted(os.listdir(tmp_path)) == ["g"]


def test_query_agrees_with_the_engine(run: Run, data_path: Path, bundle: Bundle) -> None:
    sketch, photos = data_path / "sketches" / "ann" / "4.png", data_path / "photos"
    with Engine.open(photos=photos, bundle=bundle, threads=1) as engine:
        expected = engine.search(sketch, 3)
        features = engine.encode_sketches([sketch])
        rank = engine.gallery.ranks(features, ["even/star04.png"], head=engine.head)[0]
    code, out, err = run("query", sketch, "--photos", photos, "--top", "3", "--true", "even/star04.png")
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert [row[2] for row in rows[:3]] == [hit.name for hit in expected]
    assert out.splitlines()[3] == f"true photo even/star04.png: rank {rank}"
    assert err.startswith("time in ms: ")
    facts = json.loads(run("query", sketch, "--photos", photos, "--top", "3", "--true", "even/star04.png", "--json")[1])
    assert [hit["name"] for hit in facts["hits"]] == [hit.name for hit in expected]
    assert facts["rank"] == rank
    assert {"load", "index", "encode", "search"} <= facts["millis"].keys()
    inside = json.loads(run("query", sketch, "--photos", photos, "--category", "odd", "--json")[1])["hits"]
    assert {hit["category"] for hit in inside} == {"odd"}


def adapt_json(run: Run, *words: str | Path) -> dict[str, Any]:
    code, out, err = run("adapt", *words, "--json")
    assert (code, err) == (0, "")
    facts: dict[str, Any] = json.loads(out)
    return facts


def test_adapt_on_a_data_folder_is_what_the_engine_does(run: Run, data_path: Path, bundle: Bundle) -> None:
    facts = adapt_json(
        run, "--data", data_path, "--user", "ann", "--seed", "3", "--output", "ann.safetensors", "--negatives", "support"
    )
    folder = DataFolder.open(data_path)
    support, queries = draw_support(folder.select("ann"), 5, 3)
    assert facts["support"] == [{"sketch": pair.sketch, "photo": pair.photo} for pair in support]
    assert (facts["pairs"], facts["queries"], facts["gallery"]) == (5, PHOTOS - 5, PHOTOS)
    with Engine.open(photos=folder.photos, bundle=bundle, threads=1) as engine:
        features = engine.encode_sketches([folder.sketch(pair.sketch) for pair in queries])
        true = [pair.photo for pair in queries]
        adapter = engine.load_adapter("ann.safetensors")
        assert facts["before"] == summary(engine.gallery.ranks(features, true, head=engine.head))
        assert facts["after"] == summary(engine.gallery.ranks(features, true, head=engine.head, adapter=adapter))
        result = engine.adapt([(folder.sketch(pair.sketch), pair.photo) for pair in support])
        assert (result.status, result.adapter.digest) == (facts["status"], adapter.digest)
    assert list(facts["millis"])[1:] == ["load", "index", "encode", "adapt", "guard", "search"]


def test_adapt_text_says_the_same(run: Run, data_path: Path) -> None:
    words = ("--data", data_path, "--user", "bob", "--output", "bob.safetensors", "--sheet", "bob.png")
    facts = adapt_json(run, *words)
    code, out, err = run("adapt", *words)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"person bob: 5 pairs to learn from, {PHOTOS - 5} queries, gallery of {PHOTOS} photos"
    for name, line in zip(("before", "after"), lines[2:4], strict=True):
        row = facts[name]
        assert line.split() == [
            name,
            f"{100 * row['acc@1']:.1f}",
            "%",
            f"{100 * row['acc@5']:.1f}",
            "%",
            f"{row['mean_rank']:.2f}",
        ]
    assert facts["explanation"] in lines
    assert lines[-2:] == ["adapter: bob.safetensors", "contact sheet: bob.png"]


def test_adapt_from_arguments_and_tables(run: Run, data_path: Path, tmp_path: Path) -> None:
    sketches = data_path / "sketches" / "ann"
    words = [f"{sketches / f'{i}.png'}={'odd' if i % 2 else 'even'}/star{i:02d}.png" for i in range(4)]
    by_words = adapt_json(run, *words, "--photos", data_path / "photos", "--output", "words.safetensors")
    assert (by_words["pairs"], by_words["before"]) == (4, None)
    rows = [("sketch", "photo"), *(word.split("=") for word in words)]
    with (tmp_path / "pairs.csv").open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream).writerows([(os.path.relpath(a, tmp_path) if i else a, b) for i, (a, b) in enumerate(rows)])
    by_table = adapt_json(
        run, "--pairs", "pairs.csv", "--queries", "pairs.csv", "--photos", data_path / "photos", "--output", "table.safetensors"
    )
    assert Path("table.safetensors").read_bytes() == Path("words.safetensors").read_bytes()
    assert by_table["queries"] == 4
    assert "give --queries" in run("adapt", *words, "--photos", data_path / "photos")[1]


def test_adapted_query(run: Run, data_path: Path) -> None:
    adapt_json(
        run, "--data", data_path, "--user", "ann", "--no-guard", "--steps", "20", "--gallery", "g", "--output", "a.safetensors"
    )
    sketch = data_path / "sketches" / "ann" / "4.png"
    base = json.loads(run("query", sketch, "--gallery", "g", "--json")[1])["hits"]
    adapted = json.loads(run("query", sketch, "--gallery", "g", "--adapter", "a.safetensors", "--json")[1])["hits"]
    assert base != adapted


@pytest.mark.parametrize(("words", "gallery"), [((), PHOTOS), (("--category", "odd"), PHOTOS // 2)])
def test_category_restricts_pairs_and_photos(run: Run, data_path: Path, words: tuple[str, ...], gallery: int) -> None:
    facts = adapt_json(run, "--data", data_path, "--shots", "3", *words)
    assert facts["guard"]["candidates"] == gallery
    assert facts["queries"] == 2 * (gallery - 3)


def test_options_reach_the_adaptation(run: Run, data_path: Path) -> None:
    words = ("--data", data_path, "--user", "ann", "--steps", "7", "--margin", "0.4", "--side", "both", "--negatives", "gallery")
    facts = adapt_json(run, *words, "--no-guard", "--shots", "4")
    assert (facts["steps"], facts["margin"], facts["side"], facts["negatives"], facts["pairs"]) == (7, 0.4, "both", "gallery", 4)
    assert len(facts["losses"]) == 8
    assert facts["guard"]["note"] == "not checked: switched off"


def test_demo_is_adapt_over_the_demo_folder(
    run: Run, data_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapt_cli, "DEMO_FOLDER", data_path)
    facts = json.loads(run("demo", "--bundle", bundle_path, "--json")[1])
    assert (facts["task"], facts["pairs"], facts["queries"]) == ("person ann", 5, PHOTOS - 5)
    assert json.loads(run("demo", "--bundle", bundle_path, "--user", "bob", "--json")[1])["task"] == "person bob"
    assert "the others: fgsbir-edge demo --user bob\n" in run("demo", "--bundle", bundle_path)[1]


def test_contact_sheets_frame_the_true_photo(run: Run, data_path: Path) -> None:
    def framed(path: str) -> int:
        with Image.open(path) as image:
            return int(np.all(np.asarray(image.convert("RGB")) == GREEN, axis=2).any(axis=0).sum())

    words = ("query", data_path / "sketches" / "ann" / "4.png", "--photos", data_path / "photos", "--sheet", "q.png")
    run(*words)
    assert framed("q.png") == 0
    run(*words, "--true", "even/star04.png")
    assert framed("q.png") == 112
    run(*words, "--true", "even/star04.png", "--top", "1")
    assert framed("q.png") == 112
    adapt_json(run, "--data", data_path, "--user", "ann", "--sheet", "a.png")
    with Image.open("a.png") as image:
        assert image.height > 2 * (PHOTOS - 5) * 112


def test_doctor(run: Run, bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgsbir_edge.bundle.DEFAULT_FOLDER", bundle_path)
    code, out, _ = run("doctor", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["healthy"]
    assert facts["default_bundle"]["name"] == "toy"
    assert facts["native"]["version"] == facts["fgsbir_edge"]
    assert "all is well" in run("doctor")[1]
    monkeypatch.setattr("fgsbir_edge.bundle.DEFAULT_FOLDER", bundle_path / "none")
    monkeypatch.setitem(sys.modules, "fgsbir_edge._native", None)
    monkeypatch.delattr("fgsbir_edge._native", raising=False)
    code, out, _ = run("doctor")
    assert code == 1
    assert out.count("ERROR") == 2
    assert doctor.examine()["healthy"] is False


def test_module_command_starts_without_a_warning(bundle_path: Path, data_path: Path, tmp_path: Path) -> None:
    words = ["--data", str(data_path), "--user", "ann", "--bundle", str(bundle_path), "--output", "a.safetensors", "--json"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "fgsbir_edge.adapt", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert 0 < json.loads(done.stdout)["millis"]["start"] < 60_000
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize(
    "words",
    [
        ["adapt", "a.png=b.png"],
        ["adapt", "--demo", "--data", "d"],
        ["adapt", "--demo", "--photos", "p"],
        ["adapt", "--demo", "--queries", "q"],
        ["adapt", "a=b", "--gallery", "g", "--user", "u"],
        ["adapt", "a=b", "--gallery", "g", "--sheet", "s"],
        ["adapt", "--demo", "--steps", "0"],
        ["adapt", "--demo", "--margin", "nan"],
        ["query", "a.png"],
        ["frobnicate"],
        [],
    ],
)
def test_wrong_usage_leaves_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_help_lists_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    for main in (cli.main, adapt_cli.main):
        with pytest.raises(SystemExit):
            main(["--help"])
        text = capsys.readouterr().out
        for kind in FgsbirError.__subclasses__():
            assert f"\n  {kind.exit_code} " in text
    codes = [kind.exit_code for kind in FgsbirError.__subclasses__()]
    assert len(set(codes)) == len(codes)


def test_console_turns_errors_into_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> Callable[[], int]:
        def command() -> int:
            raise error

        return command

    assert console.run(fail(UnreadableImageError("two\nlines"))) == 17
    assert capsys.readouterr().err == "error: two lines\n"
    assert console.run(fail(KeyboardInterrupt())) == 130
    with pytest.raises(ZeroDivisionError):
        console.run(fail(ZeroDivisionError()))


def test_parse_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_pair("a.png=b=c.jpg") == Pair("a.png", "b=c.jpg")
    (tmp_path / "a=b.png").touch()
    assert parse_pair("a=b.png=c.jpg") == Pair("a=b.png", "c.jpg")
    for text in ("a.png", "=b", "a=", "="):
        with pytest.raises(PairsFormatError, match="SKETCH=PHOTO"):
            parse_pair(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column 'sketch'"),
        (b"a,b\n1,2\n", "no column 'sketch'"),
        (b"sketch,category\nx,y\n", "no column 'photo'"),
        (b"sketch,photo\nx,y\nz\n", "line 3"),
        (b"sketch,photo\n\xff,\xfe\n", "UTF-8"),
        (b'sketch,photo\n"' + b"x" * 200_000, "CSV"),
    ],
)
def test_bad_tables(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "pairs.csv").write_bytes(content)
    with pytest.raises(PairsFormatError, match=message):
        read_pairs(tmp_path / "pairs.csv")


def some_pairs(photos: int, each: int) -> list[Pair]:
    return [Pair(f"{photo}-{i}.png", f"{photo}.jpg") for photo in range(photos) for i in range(each)]


@pytest.mark.parametrize(("photos", "each", "shots"), [(32, 1, 5), (10, 3, 5), (5, 5, 5), (3, 5, 5), (2, 4, 3)])
def test_draw_support_shows_no_photo_of_a_query(photos: int, each: int, shots: int) -> None:
    pairs = some_pairs(photos, each)
    support, queries = draw_support(pairs, shots, seed=1)
    assert len(support) == shots == len(set(support))
    assert queries
    assert not {pair.photo for pair in support} & {pair.photo for pair in queries}
    assert len(queries) == len(pairs) - each * len({pair.photo for pair in support})
    assert (support, queries) == draw_support(list(pairs), shots, seed=1)
    assert any(draw_support(pairs, shots, seed)[0] != support for seed in range(2, 6))


@pytest.mark.parametrize(("photos", "each", "shots"), [(1, 9, 5), (4, 1, 5), (5, 1, 5), (0, 0, 1)])
def test_draw_support_needs_enough(photos: int, each: int, shots: int) -> None:
    with pytest.raises(PairsFormatError, match="--shots"):
        draw_support(some_pairs(photos, each), shots, seed=0)


def test_data_folder_with_strokes(tmp_path: Path) -> None:
    points = np.array([[0, 0, 0], [10, 0, 1], [0, 0, 0], [5, 5, 0], [9, 1, 1]], np.float32)
    np.savez(tmp_path / "strokes.npz", keys=np.array(["a", "b"]), offsets=np.array([0, 2, 5]), points=points)
    (tmp_path / "pairs.csv").write_text("sketch,photo,category\na,1.jpg,x\nb,2.jpg,y\nc,2.jpg,y\n")
    folder = DataFolder.open(tmp_path)
    assert folder.sketch("b").num_points == 3
    assert folder.photo_categories == {"1.jpg": "x", "2.jpg": "y"}
    with pytest.raises(UnreadableImageError, match="neither"):
        folder.sketch("c")
    with pytest.raises(PairsFormatError, match="no pairs of user 'me'"):
        folder.select("me")


def test_rank_counts_ties_and_nan_against() -> None:
    similarities = np.array([0.9, 0.8, 0.8, 0.1, np.nan], np.float32)
    assert [rank_of(similarities, own) for own in range(5)] == [2, 4, 4, 5, 5]
    assert summary([1, 2, 6, 5]) == {"acc@1": 0.25, "acc@5": 0.75, "mean_rank": 3.5}
    with pytest.raises(ValueError, match="no ranks"):
        accuracy([], 1)
