"""The command on folders as people have them: every kind of file works, or the error names the file and the remedy."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fgsbir_edge import Engine
from fgsbir_edge.console import run
from fgsbir_edge.formats.qmul import write_strokes_npz
from fgsbir_edge.sketch import Sketch
from tests.toy import outline
from training import evaluate as command
from training.data.folder import PairsFolder

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><polyline points="0,0 40,10 20,60" fill="none" stroke="black"/></svg>'


@dataclass
class Run:
    """What the command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.out)
        return result


Measure = Callable[..., Run]


@pytest.fixture
def measure(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> Measure:
    """Run the command on a folder with the toy bundle, in this process."""

    def go(data: Path, *extra: str | Path, model: Path = bundle_path) -> Run:
        words = ["--model", model, "--data", data, "--threads", "1", *extra]
        code = run(lambda: command.evaluate(command.parser().parse_args([str(word) for word in words])))
        captured = capsys.readouterr()
        return Run(code, captured.out, captured.err)

    return go


@pytest.fixture
def data(data_path: Path, tmp_path: Path) -> Path:
    """A copy of the toy folder to spoil: 12 photos in two categories, each drawn by ann and bob."""
    shutil.copytree(data_path, tmp_path / "data")
    return tmp_path / "data"


def photo(path: Path, number: int, *, mode: str = "RGB", size: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (100, 100), "white")
    ImageDraw.Draw(picture).polygon(outline(number, 0.0), fill=(90 + 10 * number, 120, 60))
    picture.resize((size, size + 7)).convert(mode).save(path)


def table(root: Path, *rows: str, name: str = "pairs.csv", header: str = "sketch,photo,category") -> Path:
    root.mkdir(exist_ok=True)
    (root / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return root


def test_the_whole_output(measure: Measure, data: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / "new" / name for name in ("out.json", "ranks.csv", "sheet.png")}
    extra = ["--output", files["out.json"], "--ranks", files["ranks.csv"], "--sheet", files["sheet.png"], "--table"]
    found = measure(data, *extra)
    assert found.code == 0
    assert json.loads(files["out.json"].read_text(encoding="utf-8")) == found.json
    assert {"model": "toy", "data": "data", "pairs": "pairs.csv", "queries": 24, "gallery": 12}.items() <= found.json.items()
    assert found.json["galleries"] == {"per": "category", "count": 2, "smallest": 6, "largest": 6}
    assert found.json["bootstrap"] == {"resamples": "photo", "draws": 2000, "level": 95.0, "seed": 0}
    rows = list(csv.DictReader(files["ranks.csv"].read_text(encoding="utf-8").splitlines()))
    ranks = np.array([int(row["rank"]) for row in rows])
    assert len(rows) == 24
    assert found.json["acc@1"] == round(100 * float(np.mean(ranks <= 1)), 2)
    assert found.json["mean_percentile"] == round(float(np.mean([float(row["percentile"]) for row in rows])), 2)
    for row in rows:
        assert row["wrong_photo"] != row["photo"]
        assert row["wrong_photo"].split("/")[0] == row["category"]
        assert (int(row["rank"]) == 1) == (float(row["similarity"]) > float(row["wrong_similarity"]))
    for words in ("all queries", "mean of 2 categories", "  even", "mean of 2 users", "  bob", "[95 % intervals over photos]"):
        assert words in found.err
    assert "  bob" not in measure(data).err
    assert "images/s" not in found.err  # no bar where there is no terminal
    assert measure(data, "--bootstrap", "query").json["bootstrap"]["resamples"] == "query"


def test_shifted_photos_are_embedded_as_the_device_embeds_them(
    measure: Measure, bundle_path: Path, data: Path, tmp_path: Path
) -> None:
    model = tmp_path / "shifting"
    shutil.copytree(bundle_path, model)
    manifest = json.loads((model / "manifest.json").read_text())
    manifest["input"]["photo_shift"] = 4
    (model / "manifest.json").write_text(json.dumps(manifest))
    assert measure(data, "--gallery", "all", "--ranks", tmp_path / "ranks.csv", model=model).code == 0
    rows = list(csv.DictReader((tmp_path / "ranks.csv").read_text(encoding="utf-8").splitlines()))
    folder = PairsFolder.read(data)
    with Engine.open(bundle=model, threads=1) as engine:
        for row in rows:
            sketch = engine.encode_sketches([folder.sketch(row["sketch"])])
            photo_rows = engine.encode_photos([folder.photo_path(row["photo"])])
            likeness = engine.head.embed(sketch) @ engine.head.embed(photo_rows).T
            np.testing.assert_allclose(float(row["similarity"]), likeness.item(), atol=2e-6)


def test_all_photos_as_the_gallery(measure: Measure, data: Path) -> None:
    alone, together = measure(data).json, measure(data, "--gallery", "all").json
    assert together["galleries"] == {"per": "all", "count": 1, "smallest": 12, "largest": 12}
    assert together["acc@1"] <= alone["acc@1"]
    assert set(together["by_category"]) == {"even", "odd"}


def test_photos_and_sketches_of_every_kind(measure: Measure, tmp_path: Path) -> None:
    root = table(
        tmp_path / "mix",
        "deep/a.svg,shelf/one.JPG,chair,3,x",
        "b.png,two.webp,chair,1,y",
        "c.png,shelf/low/three.png,chair,2,",
        "b.png,four.bmp,chair",  # a sketch a second time, and a short row
        name="test pairs.csv",
        header="sketch,photo,category,trial,remark",
    )
    photo(root / "photos" / "shelf" / "one.JPG", 1, size=300)
    photo(root / "photos" / "two.webp", 2, mode="RGBA", size=33)
    photo(root / "photos" / "shelf" / "low" / "three.png", 3, mode="P")
    photo(root / "photos" / "four.bmp", 4, mode="L", size=500)
    photo(root / "photos" / "elsewhere" / "distractor.png", 5, mode="1")
    (root / "photos" / "readme.txt").write_text("no photo")
    (root / "sketches" / "deep").mkdir(parents=True)
    (root / "sketches" / "deep" / "a.svg").write_text(SVG)
    for number, name in enumerate(("b.png", "c.png")):
        drawing = Image.new("L", (100, 100), 255)
        ImageDraw.Draw(drawing).line(outline(number, 0.0), fill=0, width=2)
        drawing.save(root / "sketches" / name)
    found = measure(root, "--pairs", "test pairs.csv")
    assert found.code == 0, found.err
    assert {"queries": 4, "gallery": 5, "pairs": "test pairs.csv"}.items() <= found.json.items()
    assert found.json["galleries"]["smallest"] == 5  # one category: sub-folders do not divide the gallery
    assert "1 sketches are listed with several photos" in found.err


def test_vector_sketches_and_photos_without_category(measure: Measure, tmp_path: Path) -> None:
    root = table(tmp_path / "vectors", "s0,0.png", "s1,x/1.png", header="sketch,photo")
    for name, number in (("0.png", 0), ("x/1.png", 1), ("y/2.png", 2)):
        photo(root / "photos" / name, number)
    write_strokes_npz(root / "strokes.npz", {f"s{n}": Sketch.from_strokes([np.array(outline(n, 0.0))]) for n in range(2)})
    found = measure(root)
    assert {"queries": 2, "gallery": 3}.items() <= found.json.items()
    assert "by_category" not in found.json


def test_repeated_rows_count_once(measure: Measure, data: Path) -> None:
    plain = measure(data).json
    with (data / "pairs.csv").open("a", encoding="utf-8") as stream:
        stream.write("ann/0.png,even/star00.png,even,ann\n" * 3)
    found = measure(data)
    assert found.json == plain
    assert "3 rows repeat another one and count once" in found.err


def test_photos_of_categories_without_a_sketch(measure: Measure, data: Path) -> None:
    rows = [line for line in (data / "pairs.csv").read_text(encoding="utf-8").splitlines() if ",even," in line]
    table(data, *rows, name="even.csv", header="sketch,photo,category,user")
    found = measure(data, "--pairs", "even.csv")
    assert found.json["galleries"] == {"per": "category", "count": 1, "smallest": 6, "largest": 6}
    assert "6 photos (odd/star01.png, ...) are of categories without a sketch and in no gallery" in found.err
    assert measure(data, "--pairs", "even.csv", "--gallery", "all").json["gallery"] == 12


def test_a_category_of_one_photo(measure: Measure, data: Path, tmp_path: Path) -> None:
    photo(data / "photos" / "single" / "only.png", 3)
    with (data / "pairs.csv").open("a", encoding="utf-8") as stream:
        stream.write("ann/3.png,single/only.png,single,ann\n")
    found = measure(data, "--ranks", tmp_path / "ranks.csv", "--sheet", tmp_path / "sheet.png")
    assert found.json["single_photo_queries"] == 1
    assert found.json["by_category"]["single"]["acc@1"] == 100.0
    assert found.json["by_category"]["single"]["mean_percentile"] is None
    assert (tmp_path / "ranks.csv").read_text(encoding="utf-8").splitlines()[-1].endswith(",,")


def test_several_tables_are_each_as_if_alone_and_photos_are_read_once(
    measure: Measure, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (data / "pairs.csv").read_text(encoding="utf-8").splitlines()
    table(data, *(row for row in rows if row.endswith("bob")), name="bob.csv", header=rows[0])
    alone = {name: measure(data, "--pairs", name).json for name in ("pairs.csv", "bob.csv")}
    real, seen = command.photo_input, []

    def counted(folder: Any, name: str, spec: Any) -> np.ndarray:
        seen.append(name)
        return real(folder, name, spec)

    monkeypatch.setattr(command, "photo_input", counted)
    found = measure(data, "--pairs", "pairs.csv", "--pairs", "bob.csv", "--ranks", tmp_path / "r.csv").json
    assert len(seen) == len(set(seen)) == 12
    assert set(found) == {"model", "data", "skipped", "tables"}
    for name, figures in found["tables"].items():
        assert figures.items() <= alone[name].items()
    assert len((tmp_path / "r-bob.csv").read_text(encoding="utf-8").splitlines()) == 13
    assert len((tmp_path / "r-pairs.csv").read_text(encoding="utf-8").splitlines()) == 25


def test_images_are_encoded_in_small_batches(measure: Measure, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, sizes = command.open_model, []

    def watched(path: Path, threads: int) -> Any:
        encode, head, spec = real(path, threads)

        def note(pixels: np.ndarray) -> np.ndarray:
            sizes.append(len(pixels))
            return encode(pixels)

        return note, head, spec

    plain = measure(data).json
    monkeypatch.setattr(command, "open_model", watched)
    assert measure(data, "--batch", "5", "--threads", "3").json == plain
    assert sizes == [5, 5, 2, 5, 5, 5, 5, 4]


def broken(data: Path, what: str) -> None:
    """Spoil a folder."""
    victim = data / "photos" / "odd" / "star03.png"
    if what == "truncated photo":
        victim.write_bytes(victim.read_bytes()[:300])
    elif what == "no image":
        victim.write_text("hello")
    elif what == "empty photo":
        victim.write_bytes(b"")
    elif what == "photo gone":
        victim.unlink()
    elif what == "no photos":
        shutil.rmtree(data / "photos")
    elif what == "sketch gone":
        (data / "sketches" / "ann" / "3.png").unlink()
    elif what == "blank sketch":
        Image.new("L", (50, 50), 255).save(data / "sketches" / "ann" / "3.png")
    elif what == "keys without strokes":
        table(data, "chair_1,odd/star03.png,odd")
    elif what == "dot in the strokes":
        table(data, "dot,odd/star03.png,odd")
        write_strokes_npz(data / "strokes.npz", {"dot": Sketch.from_strokes([np.zeros((2, 2))])})
    elif what == "empty table":
        table(data)
    elif what == "no table":
        (data / "pairs.csv").unlink()
    else:
        table(data, "a.png,x", header="drawing,photo")


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        ("truncated photo", 15, "star03.png: image is truncated or damaged"),
        ("no image", 17, "star03.png: not a JPEG, PNG, WebP or BMP image: convert it"),
        ("empty photo", 17, "star03.png: empty"),
        ("photo gone", 27, "photo 'odd/star03.png' is not under"),
        ("no photos", 27, "add the file or drop its rows"),
        ("sketch gone", 17, "sketches/ann/3.png: no such sketch, nor a strokes.npz; check the sketch column"),
        ("blank sketch", 12, "ann/3.png: drawing of 50 x 50 pixels has no ink"),
        ("keys without strokes", 17, "sketches/chair_1: no such sketch, nor a strokes.npz"),
        ("dot in the strokes", 12, "sketch 'dot': all 2 points of the sketch lie at (0, 0): draw at least one line"),
        ("empty table", 27, "pairs.csv: no rows; add at least one"),
        ("no table", 27, "pairs.csv: cannot be read (No such file or directory); check the path"),
        ("no column", 27, "no column 'sketch' in header"),
    ],
)
def test_errors_name_the_file_and_the_remedy(measure: Measure, data: Path, what: str, code: int, words: str) -> None:
    broken(data, what)
    found = measure(data)
    assert words in found.err
    assert found.code == code
    assert found.out == ""
    assert found.err.count("error:") == 1


def test_unreadable_files_can_be_left_out(measure: Measure, data: Path) -> None:
    broken(data, "truncated photo")
    broken(data, "blank sketch")
    (data / "sketches" / "bob" / "4.png").unlink()
    found = measure(data, "--skip-unreadable")
    assert found.code == 0
    assert found.json["skipped"] == {"photos": ["odd/star03.png"], "sketches": ["ann/3.png", "bob/4.png"]}
    assert found.json["queries"] == 24 - 2 - 1  # both sketches of the photo, one of the others
    assert found.json["by_category"]["odd"]["queries"] == 10
    assert found.json["galleries"]["smallest"] == 5
    assert found.err.count("skipped: ") == 3
    assert "star03.png: image is truncated" in found.err
    rows = ["ann/3.png,even/star00.png,even", "ann/0.png,odd/star03.png,odd"]
    found = measure(table(data, *rows), "--skip-unreadable")
    assert found.code == 11
    assert "not one row's sketch and photo can be read; check the files" in found.err


def test_models_that_are_none(measure: Measure, data: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    for model, code, words in (
        (tmp_path / "nowhere", 19, "neither a bundle folder nor a checkpoint; check --model"),
        (tmp_path / "junk.safetensors", 21, "junk.safetensors: not a checkpoint that this version reads"),
        (tmp_path, 19, f"give --model {tmp_path / 'junk.safetensors'}"),
        (data, 19, "a bundle is a folder with manifest.json"),
    ):
        found = measure(data, model=model)
        assert words in found.err
        assert found.code == code


def test_a_sheet_with_nothing_to_draw_does_not_lose_the_figures(measure: Measure, data: Path, tmp_path: Path) -> None:
    photo(data / "photos" / "single" / "only.png", 3)
    table(data, "ann/3.png,single/only.png,single", name="one.csv")
    found = measure(data, "--pairs", "one.csv", "--sheet", tmp_path / "sheet.png")
    assert found.code == 11
    assert found.json["acc@1_interval"] is None
    assert found.json["mean_percentile"] is None
    assert "every gallery is one photo, so nothing was searched; try --gallery all" in found.err


def test_outputs_that_cannot_be_written_fail_before_any_work(measure: Measure, data: Path) -> None:
    (data / "file").write_text("not a folder")
    found = measure(data / "nowhere", "--output", data / "file" / "out.json")
    assert found.code == 30
    assert "cannot make its folder" in found.err


def test_adaptation(measure: Measure, data: Path) -> None:
    people = measure(data, "--protocol", "user", "--k", "3", "--draws", "2").json
    assert {"tasks": 2, "k": 3, "draws": 2}.items() <= people.items()
    assert set(people["by_task"]) == {"ann", "bob"}
    kinds = measure(data, "--protocol", "category", "--k", "3", "--draws", "2", "--side", "both", "--no-guard").json
    assert set(kinds["by_task"]) == {"even", "odd"}
    assert kinds["adapted"] == 100.0
    for what in ("before@1", "after@1", "before@5", "after@5", "gain@1_interval"):
        assert what in kinds


def test_adaptation_that_cannot_be(measure: Measure, data: Path) -> None:
    found = measure(data, "--protocol", "user", "--k", "12")
    assert found.code == 27
    assert "no user has 12 sketches to adapt to and another photo to be asked for; lower --k" in found.err
    assert measure(data, "--protocol", "user", "--k", "11", "--draws", "1").code == 0
    with (data / "pairs.csv").open("a", encoding="utf-8") as stream:
        stream.write("ann/3.png,even/star00.png,odd,ann\n")
    found = measure(data, "--protocol", "category")
    assert found.code == 27
    assert "photo 'even/star00.png' is listed under two categories; give it one" in found.err
    assert measure(data).json["galleries"] == {"per": "category", "count": 2, "smallest": 6, "largest": 7}


def test_a_bundle_is_measured_without_pytorch(bundle_path: Path, data_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom training.evaluate import main\nsys.exit(main())"
    words = [sys.executable, "-c", code, "--model", str(bundle_path), "--data", str(data_path), "--threads", "1"]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["queries"] == 24
