"""Bad input through the real commands: one line that names the remedy, an exit code of its own, nothing half-written."""

from __future__ import annotations

import json
import shutil
import struct
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgsbir_edge import cli
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.head import Adapter
from tests.toy import toy_encoder, toy_head


@dataclass(frozen=True)
class Place:
    """A working folder with a copy of the toy data and of the bundle, which a test may damage."""

    root: Path
    data: Path
    bundle: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def good_sketch(self) -> Path:
        return self.data / "sketches" / "ann" / "0.png"

    def fails(self, code: int, *words: str | Path, message: str) -> None:
        """The command must leave with ``code``, say one line holding ``message``, print nothing and write nothing."""
        before = self.files()
        line = [str(word) for word in words]
        got = cli.main([*line, *([] if line[0] in ("list", "remove") else ["--bundle", str(self.bundle)])])
        out, err = self.capsys.readouterr()
        assert (got, out) == (code, ""), err
        *talk, last = err.splitlines()
        assert all(line.startswith("skipped: ") for line in talk)
        assert last.startswith("error: ")
        assert message in last
        assert self.files() == before

    def files(self) -> dict[str, int]:
        return {str(path): path.stat().st_size for path in self.root.rglob("*") if path.is_file()}

    def query(self, sketch: Path, *words: str | Path) -> list[str | Path]:
        return ["query", sketch, "--photos", self.data / "photos", "--sheet", self.root / "sheet.png", *words]

    def adapt(self, *words: str | Path) -> list[str | Path]:
        outputs = ["--output", self.root / "me.safetensors", "--json"]
        return ["adapt", *words, "--photos", self.data / "photos", *outputs]


@pytest.fixture
def place(
    tmp_path: Path, data_path: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Place:
    monkeypatch.chdir(tmp_path)
    data = shutil.copytree(data_path, tmp_path / "data")
    return Place(tmp_path, data, shutil.copytree(bundle_path, tmp_path / "bundle"), capsys)


def svg(path: Path, *strokes: str) -> Path:
    lines = "".join(f'<polyline points="{points}" fill="none" stroke="black"/>' for points in strokes)
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="256" height="256">{lines}</svg>')
    return path


def ndjson(path: Path, x: str, y: str) -> Path:
    path.write_text('{"word": "cat", "key_id": "1", "recognized": true, "drawing": [[[%s], [%s]]]}\n' % (x, y))  # noqa: UP031
    return path


def bomb(path: Path, side: int = 60_000) -> Path:
    """A valid PNG header for side x side pixels, with next to no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    return path


def cut(path: Path, target: Path) -> Path:
    data = path.read_bytes()
    target.write_bytes(data[: len(data) // 2])
    return target


def test_empty_gallery(place: Place) -> None:
    (place.root / "empty").mkdir()
    place.fails(10, "query", place.good_sketch, "--photos", place.root / "empty", message="fgsbir-edge index")
    place.fails(10, "adapt", f"{place.good_sketch}=a.png", "--photos", place.root / "empty", message="fgsbir-edge index")
    place.fails(10, "index", place.root / "empty", "--gallery", place.root / "g", message="no JPEG, PNG")
    place.fails(10, *place.query(place.good_sketch, "--category", "cats"), message="there are: even, odd")


def test_zero_pairs(place: Place) -> None:
    place.fails(11, *place.adapt(), message="SKETCH=PHOTO")
    (place.root / "pairs.csv").write_text("sketch,photo\n")
    place.fails(11, *place.adapt("--pairs", place.root / "pairs.csv"), message="SKETCH=PHOTO")


def test_sketch_with_one_point_or_none(place: Place) -> None:
    for sketch in (svg(place.root / "one.svg", "10,10"), svg(place.root / "none.svg")):
        place.fails(12, *place.query(sketch), message=sketch.name)
        place.fails(12, *place.adapt(f"{sketch}=even/star00.png"), message=sketch.name)
    blank = place.root / "blank.png"
    Image.new("L", (50, 50), 255).save(blank)
    place.fails(12, *place.query(blank), message="no ink")


def test_nan_coordinates(place: Place) -> None:
    place.fails(13, *place.query(ndjson(place.root / "nan.ndjson", "0, NaN, 5", "0, 1, 2")), message="nan")


def test_sketch_of_a_million_points(place: Place) -> None:
    numbers = ",".join(str(i % 256) for i in range(10**6))
    place.fails(14, *place.query(ndjson(place.root / "huge.ndjson", numbers, numbers)), message="points")


def test_truncated_png(place: Place) -> None:
    sketch = cut(place.good_sketch, place.root / "cut.png")
    place.fails(15, *place.query(sketch), message="truncated")
    place.fails(15, *place.adapt(f"{sketch}=even/star00.png"), message="truncated")


def test_decompression_bomb(place: Place) -> None:
    sketch = bomb(place.root / "bomb.png")
    place.fails(16, *place.query(sketch), message="60000 x 60000")
    place.fails(16, *place.adapt(f"{place.good_sketch}={sketch}"), message="60000 x 60000")


def test_unreadable_photo_is_skipped_and_said(place: Place) -> None:
    (place.data / "photos" / "junk.jpg").write_bytes(b"junk")
    cut(place.data / "photos" / "even" / "star00.png", place.data / "photos" / "cut.png")
    bomb(place.data / "photos" / "bomb.png")
    words = ["index", str(place.data / "photos"), "--gallery", str(place.root / "g"), "--bundle", str(place.bundle), "--json"]
    assert cli.main(words) == 0
    out, err = place.capsys.readouterr()
    assert json.loads(out)["skipped"] == ["bomb.png", "cut.png", "junk.jpg"]
    assert json.loads(out)["added"] == 12
    assert [line.split(":")[0] for line in err.splitlines()] == ["skipped"] * 3


def test_unreadable_photo(place: Place) -> None:
    (place.root / "junk").mkdir()
    (place.root / "junk" / "junk.jpg").write_bytes(b"junk")
    place.fails(17, "index", place.root / "junk", "--gallery", place.root / "g", message="none of its 1 photos")
    place.fails(17, "index", place.root / "nowhere", "--gallery", place.root / "g", message="no such folder")
    place.fails(17, *place.query(place.root / "nowhere.png"), message="nowhere.png")
    place.fails(17, *place.adapt(f"{place.good_sketch}={place.root / 'junk' / 'junk.jpg'}"), message="junk.jpg")


def test_pair_naming_an_unknown_photo(place: Place) -> None:
    message = "did you mean 'even/star00.png'"
    place.fails(18, *place.adapt(f"{place.good_sketch}=star00.png"), message=message)
    (place.root / "pairs.csv").write_text(f"sketch,photo\n{place.good_sketch},even/star00.png\n")
    (place.root / "queries.csv").write_text(f"sketch,photo\n{place.good_sketch},star00.png\n")
    tables = ("--pairs", place.root / "pairs.csv", "--queries", place.root / "queries.csv", "--sheet", place.root / "sheet.png")
    place.fails(18, *place.adapt(*tables), message=message)
    place.fails(18, *place.query(place.good_sketch, "--true", "star00.png"), message=message)


@pytest.mark.parametrize("name", ["manifest.json", "encoder.onnx", "head.safetensors"])
def test_bundle_with_a_missing_file(place: Place, name: str) -> None:
    (place.bundle / name).unlink()
    place.fails(19, *place.query(place.good_sketch), message=name)
    place.fails(19, *place.adapt(f"{place.good_sketch}=even/star00.png"), message="check the path")
    place.fails(19, "index", place.data / "photos", "--gallery", place.root / "g", message=name)


@pytest.mark.parametrize("name", ["encoder.onnx", "head.safetensors"])
def test_bundle_with_a_wrong_hash(place: Place, name: str) -> None:
    with (place.bundle / name).open("r+b") as stream:
        stream.seek(-1, 2)
        last = stream.read(1)
        stream.seek(-1, 2)
        stream.write(bytes([last[0] ^ 1]))
    place.fails(20, *place.query(place.good_sketch), message="copy the bundle again")
    place.fails(20, *place.adapt(f"{place.good_sketch}=even/star00.png"), message=name)


def test_bundle_of_another_version(place: Place) -> None:
    manifest = json.loads((place.bundle / "manifest.json").read_text())
    (place.bundle / "manifest.json").write_text(json.dumps({**manifest, "version": 9}))
    place.fails(21, *place.query(place.good_sketch), message="version 9")


def test_adapter_of_another_head(place: Place) -> None:
    Adapter.identity(toy_head(seed=8)).save(place.root / "other.safetensors")
    place.fails(22, *place.query(place.good_sketch, "--adapter", place.root / "other.safetensors"), message="adapt again")


def test_damaged_adapter(place: Place) -> None:
    Adapter.identity(toy_head()).save(place.root / "whole.safetensors")
    cut(place.root / "whole.safetensors", place.root / "cut.safetensors")
    place.fails(23, *place.query(place.good_sketch, "--adapter", place.root / "cut.safetensors"), message="cut.safetensors")


def test_gallery_of_another_encoder(place: Place) -> None:
    words = ["index", str(place.data / "photos"), "--gallery", str(place.root / "g"), "--bundle", str(place.bundle)]
    assert cli.main(words) == 0
    place.capsys.readouterr()
    replace(Bundle.load(place.bundle), encoder=toy_encoder(seed=3)).save(place.bundle)
    place.fails(24, "query", place.good_sketch, "--gallery", place.root / "g", message="another encoder")


def test_damaged_gallery(place: Place) -> None:
    (place.root / "g").write_bytes(b"junk" * 500)
    place.fails(25, "query", place.good_sketch, "--gallery", place.root / "g", message="index the photos again")
    place.fails(25, "index", place.data / "photos", "--gallery", place.root / "g", message="not a gallery")
    place.fails(25, "list", "--gallery", place.root / "nowhere", message="fgsbir-edge index")


def test_sketch_of_an_unknown_format(place: Place) -> None:
    (place.root / "sketch.doc").write_text("x")
    place.fails(26, *place.query(place.root / "sketch.doc"), message=".svg")


def test_bad_pairs(place: Place) -> None:
    (place.root / "pairs.csv").write_text("drawing;picture\na;b\n")
    place.fails(27, *place.adapt("--pairs", place.root / "pairs.csv"), message="sketch,photo")
    place.fails(27, *place.adapt("--pairs", place.root / "nowhere.csv"), message="check the path")
    place.fails(27, *place.adapt("no-equals-sign"), message="SKETCH=PHOTO")
    place.fails(27, "adapt", "--data", place.data, "--user", "nobody", message="nobody")
    place.fails(27, "adapt", "--data", place.data, "--shots", "99", message="--shots")


def test_missing_native_core(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fgsbir_edge._native", None)
    monkeypatch.delattr("fgsbir_edge._native", raising=False)
    place.fails(29, "adapt", "--data", place.data, "--user", "ann", message="pip install")


def test_output_that_cannot_be_written(place: Place) -> None:
    outputs = ["--output", place.root / "nowhere" / "me.safetensors"]
    place.fails(30, "adapt", "--data", place.data, "--user", "ann", *outputs, message="writable folder")
    place.fails(30, "adapt", "--data", place.data, "--user", "ann", "--sheet", place.root / "data", message="writable folder")
    place.fails(30, "index", place.data / "photos", "--gallery", place.root / "nowhere" / "g", message="writable folder")


def test_old_outputs_survive_a_failure(place: Place) -> None:
    (place.root / "me.safetensors").write_bytes(b"the old adapter")
    place.fails(18, *place.adapt(f"{place.good_sketch}=star00.png"), message="did you mean")
    assert (place.root / "me.safetensors").read_bytes() == b"the old adapter"


def test_bundle_that_cannot_run_leaves_no_gallery(place: Place) -> None:
    replace(Bundle.load(place.bundle), encoder=b"not a graph").save(place.bundle)
    place.fails(21, "index", place.data / "photos", "--gallery", place.root / "g", message="cannot be loaded")


def test_features_that_are_not_finite_do_not_pass(place: Place) -> None:
    bundle = Bundle.load(place.bundle)
    broken = replace(bundle.input, std=(1e-42, 1e-42, 1e-42))  # pixels overflow float32
    replace(bundle, input=broken).save(place.bundle)
    with np.errstate(over="ignore"):
        place.fails(13, *place.query(place.good_sketch), message="NaN")
