"""Metadata of photos: it is kept, changed and removed with them, tables say what they mean, and old galleries go on."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.cli import main
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import GalleryFormatError, MetadataError, OutputError, UnknownPhotoError
from fgsbir_edge.gallery import Gallery
from fgsbir_edge.gallery.check import check
from fgsbir_edge.gallery.metadata_table import read_metadata_table
from fgsbir_edge.gallery.repair import backup, repair
from fgsbir_edge.gallery.schema import VERSION
from fgsbir_edge.gallery.store import PhotoFile, Store
from fgsbir_edge.head import Head
from tests.toy import FEATURES

ROWS = np.random.default_rng(0).normal(size=(20, FEATURES)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path, bundle: Bundle) -> Path:
    """A gallery of 20 photos without metadata."""
    file = tmp_path / "g.gallery"
    store = Store.create(str(file), bundle.features_digest, FEATURES)
    store.add([PhotoFile(f"{i:02d}.jpg", None, "/nowhere", 1, 1, "") for i in range(20)], [b"jpeg"] * 20, ROWS)
    store.close()
    return file


def test_set_change_and_take_away(bundle: Bundle, path: Path) -> None:
    with Gallery.open(path, bundle) as gallery:
        assert gallery.metadata("00.jpg") == {}
        gallery.set_metadata(
            {"00.jpg": {"price": 5, "tags": ["a", "b"], "brand": "öak", "sold": False}, "01.jpg": {"price": 1.5}}
        )
        gallery.set_metadata({"00.jpg": {"price": None, "sold": True, "new": "x"}, "01.jpg": {"price": None}})
    with Gallery.open(path, bundle, readonly=True) as gallery:
        assert gallery.metadata("00.jpg") == {"tags": ("a", "b"), "brand": "öak", "sold": True, "new": "x"}
        assert gallery.metadata("01.jpg") == {}
    with Gallery.open(path, bundle) as gallery:
        gallery.set_metadata({"00.jpg": {"price": 7}}, replace=True)
        assert gallery.metadata("00.jpg") == {"price": 7}
        assert check(path).described == 1


def test_searches_see_changes_and_embeddings_stay(bundle: Bundle, path: Path, head: Head) -> None:
    with Gallery.open(path, bundle) as gallery, Gallery.open(path, bundle, readonly=True) as reader:
        gallery.set_metadata({"03.jpg": {"price": 5}})
        assert [hit.name for hit in reader.search(ROWS[:1], head=head, where="price=5")[0]] == ["03.jpg"]
        index = gallery.index
        assert [hit.name for hit in gallery.search(ROWS[:1], head=head, where="price=5")[0]] == ["03.jpg"]
        gallery.set_metadata({"03.jpg": {"price": 6}, "04.jpg": {"price": 5}})
        assert [hit.name for hit in gallery.search(ROWS[:1], head=head, where="price=5")[0]] == ["04.jpg"]
        assert gallery.index is index
        assert [hit.name for hit in reader.search(ROWS[:1], head=head, where="price=5")[0]] == ["04.jpg"]
        gallery.remove(["04.jpg"])
        assert [hit.name for hit in gallery.search(ROWS[:1], head=head, where="has price")[0]] == ["03.jpg"]


def test_unknown_photos_and_bad_values_change_nothing(bundle: Bundle, path: Path) -> None:
    good = {"00.jpg": {"price": 1}}
    with Gallery.open(path, bundle) as gallery:
        with pytest.raises(UnknownPhotoError, match=r"'zz\.jpg' is not in the gallery"):
            gallery.set_metadata({**good, "zz.jpg": {"price": 1}})
        assert gallery.set_metadata({"zz.jpg": {"price": 1}}, skip_missing=True) == ("zz.jpg",)
        for facts, message in (
            ({"price": float("nan")}, "no number that can be compared"),
            ({"price": 2**53 + 1}, "2.53"),
            ({"price": 10**400}, "2.53"),
            ({"a b": 1}, "is no key"),
            ({"x" * 65: 1}, "is no key"),
            ({"category": "chair"}, "a word that filters use"),
            ({"tags": []}, "1 to 100 texts"),
            ({"tags": ["a"] * 101}, "1 to 100 texts"),
            ({"tags": ["a", 5]}, "1 to 100 texts"),
            ({"nested": {"a": 1}}, "of type dict"),
            ({"long": "x" * 1001}, "1001 characters"),
            ({"text": "\ud800"}, "not valid Unicode"),
            ({f"k{i}": 1 for i in range(101)}, "101 keys"),
            ({f"k{i}": "x" * 1000 for i in range(20)}, "bytes of metadata"),
        ):
            with pytest.raises(MetadataError, match=message) as caught:
                gallery.set_metadata({**good, "01.jpg": facts})  # type: ignore[dict-item]
            assert "'01.jpg'" in str(caught.value)
            assert "\n" not in str(caught.value)
        gallery.set_metadata({"01.jpg": {f"a{i}": 1 for i in range(60)}})
        with pytest.raises(MetadataError, match="120 keys"):
            gallery.set_metadata({"01.jpg": {f"b{i}": 1 for i in range(60)}})
        assert gallery.metadata("00.jpg") == {}
        assert len(gallery.metadata("01.jpg")) == 60


def test_a_changed_photo_keeps_its_metadata_and_a_removed_one_leaves_nothing(
    bundle: Bundle, data_path: Path, tmp_path: Path
) -> None:
    photos = shutil.copytree(data_path / "photos", tmp_path / "photos")
    file = tmp_path / "g.gallery"
    with Engine.open(bundle=bundle, gallery=file, threads=1, create=True) as engine:
        engine.index(photos)
        first, second = (item.name for item in engine.gallery.items()[:2])
        engine.gallery.set_metadata({first: {"owner": "SecretAnn"}, second: {"owner": "bob"}})
        Image.new("RGB", (50, 50), "red").save(photos / first)
        assert engine.index(photos).updated == 1
        assert engine.gallery.metadata(first) == {"owner": "SecretAnn"}
        assert {item.name for item in engine.gallery.items(where="owner in (SecretAnn, bob)")} == {first, second}
        engine.gallery.remove([first])
        with pytest.raises(UnknownPhotoError):
            engine.gallery.metadata(first)
        for part in file.parent.glob(file.name + "*"):
            assert b"SecretAnn" not in part.read_bytes()
    assert check(file).healthy


def old(path: Path) -> None:
    """Make a gallery's file what it was before metadata."""
    connection = sqlite3.connect(path)
    connection.executescript("DROP TABLE metadata; PRAGMA user_version = 2; PRAGMA journal_mode = DELETE;")
    connection.close()


def test_old_galleries_are_read_as_they_are_and_written_with_metadata(
    bundle: Bundle, path: Path, head: Head, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old(path)
    before = path.read_bytes()
    with Gallery.open(path, bundle, readonly=True) as gallery:
        assert gallery.metadata("00.jpg") == {}
        assert len(gallery.search(ROWS[:1], 20, head=head, where="not has price")[0]) == 20
        assert "no photo has the key 'price'" in caplog.text
        with pytest.raises(OutputError, match="made before metadata and opened read-only"):
            gallery.set_metadata({"00.jpg": {"price": 1}})
    assert check(path).healthy
    backup(path, tmp_path / "copy")
    assert repair(path, tmp_path / "new").photos == 20
    assert path.read_bytes() == before
    with Gallery.open(path, bundle) as gallery, Gallery.open(path, bundle) as second:
        gallery.set_metadata({"00.jpg": {"price": 1}})
        assert second.metadata("00.jpg") == {"price": 1}
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_damaged_metadata_is_named(bundle: Bundle, path: Path, head: Head) -> None:
    with Gallery.open(path, bundle) as gallery:
        gallery.set_metadata({"00.jpg": {"price": 1}})
    connection = sqlite3.connect(path)
    connection.execute("UPDATE metadata SET data = '{\"price\":2}'")
    connection.commit()
    connection.close()
    with Gallery.open(path, bundle) as gallery:
        with pytest.raises(GalleryFormatError, match=r"metadata of '00\.jpg' is damaged \(its checksum is wrong\); run"):
            gallery.search(ROWS[:1], head=head, where="price=1")
        assert len(gallery.search(ROWS[:1], head=head)[0]) == 10


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_tables(tmp_path: Path) -> None:
    rows = [
        "name,price,sku,zip:text,sold,tags:list,note",
        'a.jpg,5,007,12345,TRUE,"new; for sale",',
        '"b,c.jpg", -2.5e1 ,x,,false,,"two ""words"", one line"',
        "d.jpg,,,,,,",
    ]
    table = read_metadata_table(write(tmp_path / "t.csv", "\ufeff" + "\r\n".join(rows) + "\r\n"))
    assert table == {
        "a.jpg": {"price": 5, "sku": "007", "zip": "12345", "sold": True, "tags": ("new", "for sale")},
        "b,c.jpg": {"price": -25.0, "sku": "x", "sold": False, "note": 'two "words", one line'},
        "d.jpg": {},
    }
    assert isinstance(table["a.jpg"]["price"], int)


def test_json_tables(tmp_path: Path) -> None:
    lines = '{"name": "a.jpg", "price": 5.0, "tags": ["x"], "sold": null}\n\n{"name": "b.jpg"}\n'
    assert read_metadata_table(write(tmp_path / "t.jsonl", lines)) == {
        "a.jpg": {"price": 5.0, "tags": ("x",), "sold": None},
        "b.jpg": {},
    }


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("t.txt", "name\n", r"\.csv or \.jsonl file"),
        ("t.csv", "photo,price\na.jpg,5\n", "needs a column 'name'"),
        ("t.csv", "", "needs a column 'name'"),
        ("t.csv", "name,price,price:text\na.jpg,5,6\n", "each column once"),
        ("t.csv", "name,price\na.jpg,5,6\n", "line 2 has 3 cells, the header 2"),
        ("t.csv", "name,price\n,5\n", "line 2 has no photo's name"),
        ("t.csv", "name,price\na.jpg,5\na.jpg,6\n", r"line 3 names 'a\.jpg' again"),
        ("t.csv", "name,price:number\na.jpg,cheap\n", "line 2: 'cheap' does not fit column 'price:number'"),
        ("t.csv", "name,sold:bool\na.jpg,yes\n", "'yes' does not fit"),
        ("t.csv", "name,price:money\na.jpg,5\n", "column kind 'money' is unknown"),
        ("t.csv", "name,price\na.jpg,1e999\n", "line 2: 'price' is no number"),
        ("t.csv", "name,category\na.jpg,chair\n", "line 2: 'category' is a word that filters use"),
        ("t.csv", "name,two words\na.jpg,5\n", "line 2: 'two words' is no key"),
        ("t.csv", 'name,price\n"a.jpg,5\n', "not a CSV table"),
        ("t.csv", "name,price\na\0.jpg,\0\n", "not a CSV table|NUL"),
        ("t.jsonl", "[1]\n", "line 1 is not one JSON object"),
        ("t.jsonl", '{"name": "a.jpg", "price": NaN}\n', "line 1: 'price' is no number"),
        ("t.jsonl", '{"name": "a.jpg", "x": 1, "x": 2}\n', "a key stands there twice"),
        ("t.jsonl", '{"name": 5}\n', "line 1 has no photo's name"),
        ("t.jsonl", '{"name": "a.jpg", "in": null}\n', "'in' is a word that filters use"),
        ("t.jsonl", "[" * 100_000 + "\n", "line 1 is not one JSON object"),
        ("t.jsonl", '{"name": "a.jpg", "x": {"y": 1}}\n', "of type dict"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, file: str, text: str, message: str) -> None:
    with pytest.raises(MetadataError, match=message) as caught:
        read_metadata_table(write(tmp_path / file, text))
    assert "\n" not in str(caught.value)


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match="No such file"):
        read_metadata_table(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"name\n\xff\n")
    with pytest.raises(MetadataError, match="UTF-8"):
        read_metadata_table(tmp_path / "latin.csv")


def test_the_commands(
    bundle_path: Path, data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", "name,price,brand\neven/star00.png,10,red oak\nodd/star01.png,60,ash\ngone.png,5,oak\n")
    index = ["index", str(data_path / "photos"), "--gallery", "g", "--bundle", str(bundle_path)]
    assert main([*index, "--metadata", "t.csv"]) == 0
    assert "not in the gallery, 1 of the table's photos: gone.png" in capsys.readouterr().err
    assert main(["gallery", "metadata", "keys", "g"]) == 0
    assert capsys.readouterr().out == "brand\t2\ttext\nprice\t2\tnumbers\n"
    assert main(["gallery", "metadata", "keys", "g", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["keys"]["price"] == {"photos": 2, "kinds": ["numbers"]}
    assert main(["gallery", "metadata", "show", "g"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown.splitlines()[0]) == {"name": "even/star00.png", "price": 10, "brand": "red oak"}
    write(tmp_path / "t.jsonl", shown)
    assert main(["gallery", "metadata", "set", "g", "t.csv"]) == 18
    assert main(["gallery", "metadata", "set", "g", "t.csv", "--skip-missing"]) == 0
    assert main(["gallery", "metadata", "set", "g", "t.jsonl", "--replace", "--json"]) == 0
    capsys.readouterr()
    assert main(["list", "--gallery", "g", "--where", 'price<50 and brand="red oak"']) == 0
    assert capsys.readouterr().out == "even/star00.png\teven\n"
    assert main(["list", "--gallery", "g", "--category", "odd", "--category", "even"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 12
    query = ["query", str(data_path / "sketches" / "ann" / "0.png"), "--gallery", "g", "--bundle", str(bundle_path), "--json"]
    assert main([*query, "--where", "has price", "--where", "price>20"]) == 0
    assert [hit["name"] for hit in json.loads(capsys.readouterr().out)["hits"]] == ["odd/star01.png"]
    assert main([*query, "--where", "price<"]) == 50
    assert main([*query, "--where", "prize<5"]) == 10
    assert "did you mean price?" in capsys.readouterr().err
    assert main([*query, "--where", "price=cheap"]) == 50
    write(tmp_path / "bad.csv", "name,price\neven/star00.png\n")
    assert main([*index, "--metadata", "bad.csv"]) == 51
