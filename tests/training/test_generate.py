"""Drawing photos: the pictures of a drawing, the command on folders as people have them, and what measuring makes of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from fgsbir_edge.console import run
from fgsbir_edge.errors import BundleFormatError, BundleMissingFileError, NoPairsError
from fgsbir_edge.formats import read_sketch
from fgsbir_edge.preprocess import InputSpec, sketch_pixels
from fgsbir_edge.sheet import CELL, GAP
from fgsbir_edge.sketch import Sketch
from tests.training.artist import SIZE, scribbler
from tests.training.generator_toys import write_classifier
from training import evaluate, evaluate_generator, generate
from training.data.folder import PairsFolder
from training.data.recipes import OWN
from training.data.writing import FolderWriter
from training.generation.checkpoint import save_generator
from training.generation.dataset import vector_sketch
from training.generation.drawing import ArtistOptions, draw_photos, drawing_seed, open_artist
from training.generation.pictures import animated_gif, animated_svg, attention_frames, is_dot, picture, png, sketch_input
from training.generation.sheet import HEADING, LABEL, SheetEntry, write_drawn_sheet

pytestmark = pytest.mark.torch

DOT = Sketch(np.full((2, 2), 128.0), np.array([0, 2]))
HOUSE = Sketch.from_strokes([[(33, 223), (33, 80), (128, 33), (223, 80.123), (223, 223)], [(100, 223), (100, 150), (150, 150)]])


def ink(picture: np.ndarray) -> int:
    return int((np.asarray(picture) < 128).sum())


def test_an_animated_svg_draws_stroke_after_stroke_and_reads_back(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_bytes(animated_svg(HOUSE, seconds=2.0))
    back = read_sketch(tmp_path / "a.svg")
    assert isinstance(back, Sketch)
    assert back.offsets.tolist() == HOUSE.offsets.tolist()
    np.testing.assert_allclose(back.points, HOUSE.points, atol=0.005)
    space = "{http://www.w3.org/2000/svg}"
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    grown = [line.find(f"{space}animate") for line in root.iter(f"{space}polyline")]
    times = [(float(g.get("begin", "")[:-1]), float(g.get("dur", "")[:-1])) for g in grown if g is not None]
    assert times[0][0] == 0.0
    assert times[1][0] == pytest.approx(times[0][1], abs=0.002)
    assert sum(times[1]) == pytest.approx(2.0, abs=0.002)
    lengths = [float(np.hypot(*np.diff(stroke, axis=0).T).sum()) for stroke in HOUSE.strokes]
    assert times[0][1] / times[1][1] == pytest.approx(lengths[0] / lengths[1], rel=0.01)
    (tmp_path / "dot.svg").write_bytes(animated_svg(DOT))
    assert len(read_sketch(tmp_path / "dot.svg").points) == 2  # type: ignore[union-attr]


def test_a_gif_ends_with_the_whole_drawing(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(animated_gif(HOUSE, side=64, frames=6))
    with Image.open(tmp_path / "a.gif") as shown:
        assert shown.n_frames == 6  # type: ignore[attr-defined]
        drawn = []
        for number in range(6):
            shown.seek(number)
            drawn.append(np.asarray(shown.convert("L")))
    assert [ink(frame) for frame in drawn] == sorted(ink(frame) for frame in drawn)
    steps = np.diff([0, *map(ink, drawn)])
    assert steps.min() > 0.5 * steps.mean()  # one speed, though the lines are of very different lengths
    np.testing.assert_array_equal(drawn[-1], picture(HOUSE, 64))
    assert animated_gif(HOUSE, 64, 6) == animated_gif(HOUSE, 64, 6)


def test_attention_frames_show_where_and_what_so_far() -> None:
    attention = np.zeros((6, 4, 4), np.float32)
    attention[:, 0, 3] = 1.0
    attention[5] = 1 / 16
    photo = np.full((SIZE, SIZE, 3), 200, np.uint8)
    frames = [np.asarray(frame).astype(int) for frame in attention_frames(photo, HOUSE, attention)]
    assert [frame.shape for frame in frames] == [(256, 512, 3)] * 6
    warm = frames[0][:, :256, 0] - frames[0][:, :256, 2]
    assert warm[20, 236] > 150 > 10 > warm[236, 20]
    assert np.ptp(frames[5][:, :256], axis=(0, 1)).max() <= 1  # looks everywhere alike
    so_far = [ink(frame[:, 256:, 0]) for frame in frames]
    assert so_far == sorted(so_far)
    np.testing.assert_array_equal(frames[1][:, 256:, 0], picture(HOUSE.prefix(3)))


def test_a_drawing_without_extent_is_a_dot_wherever_it_goes(tmp_path: Path) -> None:
    spec = InputSpec(size=SIZE)
    assert is_dot(DOT)
    assert not is_dot(HOUSE)
    batch = sketch_input([HOUSE, DOT], spec)
    np.testing.assert_array_equal(batch[:1], sketch_pixels([HOUSE], spec))
    assert len(np.unique(batch[1])) > 3
    assert 0 < ink(picture(DOT)) < 20
    write_drawn_sheet(tmp_path / "s.png", "dots", [SheetEntry("a", np.zeros((8, 8, 3), np.uint8), (DOT,))])
    with pytest.raises(NoPairsError, match="no contact sheet"):
        write_drawn_sheet(tmp_path / "s.png", "none", [])


Draw = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Draw:
    """Run the command with the scribbler: exit code, JSON, what it said."""
    monkeypatch.setattr(generate, "open_artist", lambda *_: scribbler())
    monkeypatch.setattr(evaluate_generator, "open_artist", lambda *_: scribbler())

    def go(photos: Path, out: Path, *extra: object) -> tuple[int, dict[str, Any], str]:
        words = ["--generator", "g.safetensors", "--photos", photos, "--out", out, "--threads", "1", *extra]
        arguments = generate.parser().parse_args([str(word) for word in words])
        code = run(lambda: generate.generate(arguments))
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if captured.out else {}, captured.err

    return go


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_folder_of_photos_becomes_a_dataset(drawing: Draw, shapes: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(shapes / "photos", photos)
    (photos / "disc" / "broken.png").write_bytes((photos / "disc" / "1.png").read_bytes()[:200])
    extra = ["--samples", 2, "--animate", "svg", "gif", "--sheet", 5, "--temperature", 1, "--limit", 9]
    code, found, said = drawing(photos, tmp_path / "new" / "out", *extra, "--limit", 15)
    assert code == 0, said
    out = tmp_path / "new" / "out"
    assert (found["photos"], found["sketches"]) == (14, 28)
    assert "disc/broken.png" in found["skipped"]
    assert "skipped disc/broken.png" in said
    folder = PairsFolder.read(out)
    assert len(folder.pairs) == 28 - len(found["empty"])
    assert {pair.category for pair in folder.pairs} == {"disc", "box"}
    assert {pair.user for pair in folder.pairs} == {"generator"}
    assert {path.stem for path in (out / "photos" / "disc").iterdir()} == set("0123456")
    for pair in folder.pairs:
        vector, drawn = folder.sketch(pair.sketch), read_sketch(out / "svg" / f"{pair.sketch}.svg")
        assert isinstance(vector, Sketch)
        assert isinstance(drawn, Sketch)
        assert vector.offsets.tolist() == drawn.offsets.tolist()
        np.testing.assert_allclose(vector.points, drawn.points, atol=1e-4)  # float32 there
        moving = read_sketch(out / "animation" / f"{pair.sketch}.svg")
        assert isinstance(moving, Sketch)
        np.testing.assert_allclose(moving.points, drawn.points, atol=0.0051)
        assert (out / "png" / f"{pair.sketch}.png").read_bytes() == png(picture(drawn))
        assert (out / "animation" / f"{pair.sketch}.gif").is_file()
    note = json.loads((out / "source.json").read_text())
    assert note["made_by"] == "training.generate"
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.height > HEADING + LABEL


def test_a_sheet_can_go_without_what_others_made(drawing: Draw, shapes: Path, tmp_path: Path) -> None:
    """Columns are those of the drawings alone, at the same places whatever the photos show."""
    extra = ["--samples", 2, "--temperature", 1, "--limit", 2, "--sheet", 2, "--split", "validation"]
    sheets = {}
    for name, more in (("whole", []), ("bare", ["--sheet-drawings-only"])):
        code, _, said = drawing(shapes, tmp_path / name, *extra, *more)
        assert code == 0, said
        with Image.open(tmp_path / name / "sheet.png") as sheet:
            sheets[name] = np.asarray(sheet.convert("L")).astype(int)
    step = CELL + GAP
    first = slice(HEADING + LABEL, HEADING + LABEL + CELL)
    for column in (0, 1):  # drawn 1 and drawn 2 lie a column further right on the whole sheet
        bare = sheets["bare"][first, GAP + column * step : GAP + column * step + CELL]
        whole = sheets["whole"][first, GAP + (column + 1) * step : GAP + (column + 1) * step + CELL]
        np.testing.assert_allclose(bare, whole, atol=24)  # of few colours each
    blocks = [sheet.shape[1] for sheet in sheets.values()]
    assert blocks[0] - blocks[1] == 2 * 2 * step  # two photos less, and two people's sketches


def test_equal_options_give_equal_files_and_photos_do_not_disturb_each_other(drawing: Draw, shapes: Path, tmp_path: Path) -> None:
    extra = ["--samples", 2, "--temperature", 1]
    drawing(shapes, tmp_path / "a", *extra, "--batch", 4)
    drawing(shapes, tmp_path / "b", *extra, "--batch", 4)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    drawing(shapes, tmp_path / "other", *extra, "--seed", 1)
    drawing(shapes, tmp_path / "few", *extra, "--limit", 3, "--batch", 1)
    whole, few, other = (PairsFolder.read(tmp_path / name) for name in ("a", "few", "other"))
    assert len(few.photo_category) == 3
    for pair in few.pairs:
        ours, theirs = few.sketch(pair.sketch), whole.sketch(pair.sketch)
        np.testing.assert_allclose(ours.points, theirs.points, atol=1e-2)  # type: ignore[union-attr]
    same = [np.array_equal(whole.sketch(key).points, other.sketch(key).points) for key in _shared(whole, other)]  # type: ignore[union-attr]
    assert not any(same)


def _shared(*folders: PairsFolder) -> list[str]:
    return sorted(set.intersection(*({pair.sketch for pair in folder.pairs} for folder in folders)))


def test_seeds_differ_by_run_photo_and_sample() -> None:
    seeds = {drawing_seed(seed, name, sample) for seed in (0, 1) for name in ("a", "b") for sample in (0, 1)}
    assert len(seeds) == 8
    assert drawing_seed(1, "a", 0) == drawing_seed(1, "a", 0)


def test_greedy_drawings_have_no_chance(drawing: Draw, shapes: Path, tmp_path: Path) -> None:
    drawing(shapes / "photos" / "disc", tmp_path / "a", "--greedy")
    drawing(shapes / "photos" / "disc", tmp_path / "b", "--greedy", "--seed", 5)
    assert files(tmp_path / "a")["strokes.npz"] == files(tmp_path / "b")["strokes.npz"]
    code, _, said = drawing(shapes / "photos" / "disc", tmp_path / "c", "--greedy", "--samples", 2)
    assert code == 1
    assert "all the same" in said


def test_one_photo_with_attention(drawing: Draw, shapes: Path, tmp_path: Path) -> None:
    code, found, said = drawing(shapes / "photos" / "box" / "3.png", tmp_path / "out", "--attention", "--temperature", 1)
    assert code == 0, said
    frames = sorted((tmp_path / "out" / "attention" / "3_1").iterdir())
    assert found["photos"] == 1
    assert [path.name for path in frames] == [f"{number:03d}.png" for number in range(len(frames))]
    folder = PairsFolder.read(tmp_path / "out")
    points = len(folder.sketch("3_1").points)  # type: ignore[union-attr]
    assert len(frames) in (points - 1, points)  # an end row that leads nowhere is no point
    with Image.open(frames[-1]) as last, Image.open(tmp_path / "out" / "png" / "3_1.png") as whole:
        shown = np.asarray(last.convert("RGB"))[:, 256:, 0].astype(int)
        assert np.abs(shown - np.asarray(whole.convert("L"))).max() <= 16  # fewer colours


def test_the_same_stem_twice_keeps_its_ending(drawing: Draw, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a.bmp", "b.png"):
        with Image.open(shapes / "photos" / "disc" / "2.png") as photo:
            photo.save(tmp_path / "in" / name)
    drawing(tmp_path / "in", tmp_path / "out", "--category", "ring")
    assert sorted(path.name for path in (tmp_path / "out" / "png").iterdir()) == ["a.bmp_1.png", "a.png_1.png", "b_1.png"]
    assert {pair.category for pair in PairsFolder.read(tmp_path / "out").pairs} == {"ring"}


def test_no_two_photos_share_a_key() -> None:
    assert generate.keys_of(["x/a.png", "a.png"]) == {"x/a.png": "x/a", "a.png": "a"}
    names = ["a.png", "a.bmp", "a.png.jpg"]
    assert generate.keys_of(names) == {name: name for name in names}


def test_held_back_photos_of_a_dataset(drawing: Draw, shapes: Path, tmp_path: Path) -> None:
    (chosen,) = OWN.validations(shapes.name, PairsFolder.read(shapes))
    code, _, said = drawing(shapes, tmp_path / "out", "--split", "validation", "--sheet", 40)
    assert code == 0, said
    assert set(PairsFolder.read(tmp_path / "out").photo_category) == {pair.photo for pair in chosen.pairs}
    code, _, said = drawing(shapes / "photos", tmp_path / "other", "--split", "validation")
    assert code == 27
    assert "no pairs.csv" in said


def test_what_cannot_be_drawn_leaves_nothing(drawing: Draw, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("hello")
    assert drawing(tmp_path / "bad", tmp_path / "out")[0] == 17
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"]
    assert drawing(tmp_path / "nowhere", tmp_path / "out")[0] == 17
    code, _, said = drawing(tmp_path / "bad", tmp_path / "bad")
    assert code == 30
    assert "not empty" in said


def test_a_generator_from_its_file_draws_the_same(tmp_path: Path) -> None:
    ours, path = scribbler(), tmp_path / "g.safetensors"
    save_generator(path, ours.generator, {"scale": ours.scale, "input": ours.input.to_manifest()})
    theirs = open_artist(path)
    assert (theirs.scale, theirs.input) == (ours.scale, ours.input)
    photo = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    first, second = (next(draw_photos(artist, ["a"], lambda _: photo, ArtistOptions())).sketches[0] for artist in (ours, theirs))
    np.testing.assert_array_equal(first.sketch.points, second.sketch.points)


def test_unreadable_generators(tmp_path: Path) -> None:
    with pytest.raises(BundleMissingFileError, match=r"training\.generator"):
        open_artist(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(BundleFormatError, match="not a generator"):
        open_artist(tmp_path / "text.safetensors")


def test_options_that_cannot_be() -> None:
    for wrong in ({"samples": 0}, {"temperature": 0.0}, {"pen_temperature": 0.0}, {"seed": -1}, {"greedy": True, "samples": 2}):
        with pytest.raises(ValueError, match=r"samples|greedy"):
            ArtistOptions(**wrong)  # type: ignore[arg-type]


def test_without_2d_attention_there_is_none_to_show() -> None:
    artist, photo = scribbler(attention=False), np.full((SIZE, SIZE, 3), 90, np.uint8)
    (found,) = draw_photos(artist, ["a"], lambda _: photo, ArtistOptions(attention=True, temperature=1.0))
    assert found.sketches[0].attention is None
    assert torch.is_grad_enabled()


def test_other_commands_read_the_drawings(
    drawing: Draw, shapes: Path, bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing(shapes, tmp_path / "out", "--temperature", 1)
    words = ["--model", str(bundle_path), "--data", str(tmp_path / "out"), "--threads", "1"]
    assert run(lambda: evaluate.evaluate(evaluate.parser().parse_args(words))) == 0
    assert json.loads(capsys.readouterr().out)["gallery"] == 14


@pytest.fixture
def measure(
    shapes: Path, drawing: Draw, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Run the evaluation on the shapes with the toy bundle."""

    def go(*extra: object, model: Path | None = bundle_path) -> tuple[int, dict[str, Any], str]:
        words = ["--data", shapes, "--threads", 1, *(["--model", model] if model else []), *extra]
        arguments = evaluate_generator.parser().parse_args([str(word) for word in words])
        code = run(lambda: evaluate_generator.evaluate(arguments))
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if captured.out else {}, captured.err

    return go


@pytest.fixture(scope="module")
def classifier(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier") / "c.safetensors")


def test_all_figures_of_a_generator(
    measure: Callable[..., Any],
    classifier: Path,
    shapes: Path,
    bundle_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "new" / "figures.json"
    extra = ["--generator", "g", "--classifier", classifier, "--split", "all", "--samples", 2, "--temperature", 1]
    code, found, said = measure(*extra, "--output", out)
    assert code == 0, said
    assert json.loads(out.read_text()) == found
    assert found["drawing"] == {"samples": 2, "temperature": 1.0, "pen_temperature": 0.6, "greedy": False, "seed": 0}
    (figures,) = found["sets"].values()
    assert figures["photos"] == 12  # distractors are not drawn
    assert figures["drawings"]["sketches"] == figures["recognition"]["drawn"]["sketches"] == 24
    assert figures["retrieval"]["drawn"]["queries"] == 24
    assert figures["recognition"]["real"]["sketches"] == figures["retrieval"]["real"]["queries"] == 24
    assert figures["recognition"]["classifier"] == {"acc@1": 50.0}
    assert figures["recognition"]["drawn"]["acc@1_interval"][0] <= figures["recognition"]["drawn"]["acc@1"]
    assert figures["fid"]["real"] == figures["fid"]["drawn"] == 24
    assert figures["fid"]["fid"] > 0
    # people's own sketches have the figures that evaluating the model gives
    words = ["--model", str(bundle_path), "--data", str(shapes), "--threads", "1"]
    assert run(lambda: evaluate.evaluate(evaluate.parser().parse_args(words))) == 0
    plain = json.loads(capsys.readouterr().out)
    real = figures["retrieval"]["real"]
    assert {name: plain[name] for name in real} == real


def test_people_measured_as_a_generator_reach_what_people_reach(
    measure: Callable[..., Any], classifier: Path, shapes: Path, tmp_path: Path
) -> None:
    folder = PairsFolder.read(shapes)
    with FolderWriter(tmp_path / "people") as writer:
        for pair in folder.pairs:
            writer.photo(pair.photo, folder.photo_path(pair.photo))
            writer.strokes(pair.sketch, vector_sketch(folder, pair.sketch)[0])
            writer.pair(pair)
    code, found, said = measure("--drawn", tmp_path / "people", "--classifier", classifier, "--split", "all")
    assert code == 0, said
    assert found["drawing"] is None
    (figures,) = found["sets"].values()
    assert figures["fid"]["fid"] == pytest.approx(0.0, abs=1e-3)
    drawn, real = (figures["recognition"][name] for name in ("drawn", "real"))
    assert {name: value for name, value in drawn.items() if "interval" not in name} == {
        name: value for name, value in real.items() if "interval" not in name
    }
    assert figures["drawings"]["ended"] is None


def test_held_back_photos_are_what_is_measured(measure: Callable[..., Any], shapes: Path) -> None:
    (chosen,) = OWN.validations(shapes.name, PairsFolder.read(shapes))
    code, found, said = measure("--generator", "g")
    assert code == 0, said
    (figures,) = found["sets"].values()
    assert figures["photos"] == len({pair.photo for pair in chosen.pairs})
    assert "recognition" not in figures
    assert measure("--generator", "g", "--limit", 1)[1]["sets"][chosen.name]["photos"] == 1


def test_measurements_that_cannot_be(measure: Callable[..., Any], classifier: Path, shapes: Path, tmp_path: Path) -> None:
    code, _, said = measure("--generator", "g", model=None)
    assert code == 1
    assert "nothing to measure with" in said
    code, _, said = measure("--drawn", shapes)
    assert code == 11
    assert "is a picture" in said
    shutil.copytree(shapes, tmp_path / "hats")
    table = (tmp_path / "hats" / "pairs.csv").read_text()
    (tmp_path / "hats" / "pairs.csv").write_text(table.replace(",disc,", ",hat,"))
    code, _, said = measure("--generator", "g", "--data", tmp_path / "hats", "--classifier", classifier, "--split", "all")
    assert code == 21
    assert "no category 'hat'" in said
