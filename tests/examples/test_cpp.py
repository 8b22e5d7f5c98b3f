"""examples/cpp: built against the installed core, it draws, adapts and ranks as the Python package does."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from fgsbir_edge.adapt import AdaptResult
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.engine import Engine
from fgsbir_edge.head import Adapter, Head
from fgsbir_edge.margin import MarginNet
from fgsbir_edge.pairs import DEMO_FOLDER
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.raster import RasterSpec, rasterize
from fgsbir_edge.sketch import Sketch
from tests.examples.programs import EXAMPLES, ROOT, build_core, build_robot, load
from tests.toy import toy_encoder, toy_head

exporter = load(EXAMPLES / "cpp" / "export_gallery.py")
WORK = ROOT / "build" / "examples"
Table = dict[tuple[str, str], list[tuple[str, float]]]  # (when, sketch): photos and distances, nearest first


@pytest.fixture(scope="session")
def prefix() -> Path:
    """An installed core."""
    return build_core(WORK)


@pytest.fixture(scope="session")
def robot(prefix: Path) -> Path:
    """The program, without ONNX Runtime."""
    return build_robot(prefix, WORK / "cpp", "-DFGSBIR_ROBOT_ONNXRUNTIME=OFF")


@dataclass(frozen=True)
class Scene:
    """An engine, and the packs that were written of it."""

    engine: Engine
    pairs: list[tuple[str, str]]
    queries: list[str]
    folder: Path

    def find(self, robot: Path, *options: str) -> tuple[Table, str]:
        """The program's answers and its talk."""
        packs = [str(self.folder / "robot.pack"), "--sketches", str(self.folder / "sketches.pack")]
        pairs = [word for sketch, photo in self.pairs for word in ("--pair", f"{sketch}={photo}")]
        done = run(robot, "find", *packs, *pairs, "--top", "12", *options, *self.queries)
        assert done.returncode == 0, done.stderr
        table: Table = {}
        for line in done.stdout.splitlines():
            when, sketch, rank, photo, distance = line.split("\t")
            table.setdefault((when, sketch), []).append((photo, float(distance)))
            assert int(rank) == len(table[when, sketch])
        return table, done.stderr

    def same(self, found: Table, when: str, adapter: Adapter | None) -> None:
        """Assert that the program's answers are Python's."""
        for query in self.queries:
            hits = self.engine.search(query, 12, adapter=adapter)
            assert [photo for photo, _ in found[when, query]] == [hit.name for hit in hits]
            assert np.allclose([distance for _, distance in found[when, query]], [hit.distance for hit in hits], atol=2e-5)


def run(robot: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The program's exit code and what it printed."""
    return subprocess.run([str(robot), *words], capture_output=True, text=True, check=False)


def scene(engine: Engine, pairs: list[tuple[str, str]], queries: list[str], folder: Path) -> Scene:
    """Write the packs of an engine and of all sketches that are asked about."""
    (folder / "robot.pack").write_bytes(exporter.gallery_pack(engine))
    (folder / "sketches.pack").write_bytes(exporter.sketch_pack(engine, [*(sketch for sketch, _ in pairs), *queries]))
    return Scene(engine, pairs, queries, folder)


@pytest.fixture
def person() -> int:
    """Which of the demo's people: with the second one's first five pairs adapting holds up, with the first one's it does not."""
    return 1


@pytest.fixture
def demo(tmp_path: Path, person: int) -> Iterator[Scene]:
    """The shipped model, photos and drawings: five pairs, ten queries."""
    drawings = sorted(sorted((DEMO_FOLDER / "sketches").iterdir())[person].iterdir())
    pairs = [(str(drawing), f"{drawing.stem}.jpg") for drawing in drawings[:5]]
    with Engine.open(photos=DEMO_FOLDER / "photos", threads=1) as engine:
        yield scene(engine, pairs, [str(drawing) for drawing in drawings[5:15]], tmp_path)


@pytest.fixture
def toy(tmp_path: Path, bundle: Bundle, data_path: Path) -> Iterator[Callable[[Head], Scene]]:
    """The toy model with another head over the toy photos: four pairs of Ann's, eight of Bob's drawings as queries."""
    engines = []

    def made(head: Head) -> Scene:
        engines.append(Engine.open(photos=data_path / "photos", bundle=replace(bundle, head=head), threads=1))
        name = "{category}/star{number:02d}.png"
        pairs = [
            (str(data_path / "sketches" / "ann" / f"{n}.png"), name.format(category="odd" if n % 2 else "even", number=n))
            for n in range(4)
        ]
        return scene(engines[0], pairs, [str(data_path / "sketches" / "bob" / f"{n}.png") for n in range(8)], tmp_path)

    yield made
    for engine in engines:
        engine.close()


def learned(place: Scene) -> AdaptResult:
    """What Python makes of the pairs."""
    return place.engine.adapt(place.pairs)


def test_ranks_before_and_after_adapting_are_python_s(robot: Path, demo: Scene) -> None:
    found, talk = demo.find(robot)
    result = learned(demo)
    assert result.status == "adapted"
    assert talk.startswith("adapted: mean leave-one-out rank")
    assert f"{result.guard.base_rank:.2f} -> {result.guard.adapted_rank:.2f}" in talk
    demo.same(found, "before", None)
    demo.same(found, "after", result.adapter)
    assert any(found["before", query] != found["after", query] for query in demo.queries)


@pytest.mark.parametrize("person", [0])
def test_the_guard_keeps_the_base_head_where_python_s_does(robot: Path, demo: Scene) -> None:
    found, talk = demo.find(robot)
    result = learned(demo)
    assert result.reason == "worse-leave-one-out"
    assert talk.startswith(f"base head kept: mean leave-one-out rank {result.guard.base_rank:.2f}")
    demo.same(found, "after", None)


def test_the_shift_of_sketches_is_applied(robot: Path, demo: Scene) -> None:
    """The same adapter without its shift ranks otherwise, so that an example which forgot it would be found out."""
    found, _ = demo.find(robot)
    adapter = learned(demo).adapter
    assert adapter.sketch_shift is not None
    bare = replace(adapter, sketch_shift=None)
    assert any(
        [photo for photo, _ in found["after", query]] != [hit.name for hit in demo.engine.search(query, 12, adapter=bare)]
        for query in demo.queries
    )


def test_python_takes_the_adapter_that_the_program_wrote(robot: Path, demo: Scene) -> None:
    file = demo.folder / "me.safetensors"
    found, _ = demo.find(robot, "--adapter", str(file))
    adapter = demo.engine.load_adapter(file)
    expected = learned(demo).adapter
    assert np.allclose(adapter.coefficients, expected.coefficients, atol=1e-5)
    assert np.array_equal(adapter.support, expected.support)
    demo.same(found, "after", adapter)


NET = MarginNet(*(np.random.default_rng(5).normal(size=size) for size in [(4, 3), 4, (4, 8), 4, (1, 4), 1]))
HEADS = {
    "plain": toy_head(),
    "centred": toy_head(centre=2.0),
    "both": toy_head(side="both", centre=1.0),
    "gallery": toy_head(negatives="gallery", margin_net=NET),
    "both, gallery": toy_head(side="both", negatives="gallery", centre=0.5, sharpness=0.0),
}


@pytest.mark.parametrize("name", sorted(HEADS))
def test_every_kind_of_head_adapts_as_in_python(robot: Path, toy: Callable[[Head], Scene], name: str) -> None:
    place = toy(HEADS[name])
    found, talk = place.find(robot)
    result = learned(place)
    assert talk.startswith("adapted" if result.status == "adapted" else "base head kept")
    place.same(found, "before", None)
    place.same(found, "after", result.adapter)


def test_what_python_refuses_to_learn_the_program_refuses_too(robot: Path, toy: Callable[[Head], Scene]) -> None:
    wild = toy(toy_head(step_sizes=[1e20]))
    found, talk = wild.find(robot, "--adapter", str(wild.folder / "none.safetensors"))
    assert learned(wild).reason == "diverged"
    assert talk.startswith("base head kept")
    wild.same(found, "after", None)
    assert wild.engine.load_adapter(wild.folder / "none.safetensors").rank == 0


@pytest.mark.parametrize("centre", [math.inf, 2.0])
def test_one_photo_alone_teaches_the_shift_at_most(robot: Path, toy: Callable[[Head], Scene], centre: float) -> None:
    place = toy(toy_head(centre=centre))
    alone = replace(place, pairs=place.pairs[:1])
    found, talk = alone.find(robot)
    result = learned(alone)
    assert result.status == ("kept-base" if math.isinf(centre) else "adapted")
    assert talk.startswith("base head kept" if math.isinf(centre) else "adapted")
    alone.same(found, "after", result.adapter)


def test_equal_photos_come_in_the_gallery_s_order(robot: Path, bundle: Bundle, data_path: Path, tmp_path: Path) -> None:
    """More of them than are looked at first."""
    (tmp_path / "photos").mkdir()
    for number in range(40):
        shutil.copy(data_path / "photos" / "even" / "star04.png", tmp_path / "photos" / f"{90 - number}.png")
    for photo in (data_path / "photos" / "odd").iterdir():
        shutil.copy(photo, tmp_path / "photos")
    sketch = str(data_path / "sketches" / "ann" / "4.png")
    with Engine.open(photos=tmp_path / "photos", bundle=bundle, threads=1) as engine:
        place = scene(
            engine, [(sketch, "90.png"), (str(data_path / "sketches" / "ann" / "1.png"), "star01.png")], [sketch], tmp_path
        )
        found, _ = place.find(robot)
        place.same(found, "before", None)
        place.same(found, "after", learned(place).adapter)
    distances = [distance for _, distance in found["before", sketch]]
    assert max(distances) - min(distances) < 1e-5


@pytest.mark.parametrize("style", ["bresenham", "antialias"])
@pytest.mark.parametrize("ink", ["light", "dark"])
def test_pictures_are_python_s_to_the_byte(robot: Path, bundle: Bundle, tmp_path: Path, style: str, ink: str) -> None:
    spec = InputSpec(size=96, style=style, ink=ink, line_width=2.5)  # type: ignore[arg-type]
    drawing = [[[3, 40.5, 200, 17], [9, 77.25, 30, 150]], [[60, 61], [10, 99.125]], [[5], [7]]]
    (tmp_path / "drawing.ndjson").write_text(json.dumps({"drawing": drawing}) + "\n")
    assert exporter.main(["strokes", str(tmp_path / "drawing.ndjson"), str(tmp_path / "drawing.strokes")]) == 0
    with Engine.open(bundle=replace(bundle, input=spec, encoder=toy_encoder(96)), threads=1) as engine:
        (tmp_path / "robot.pack").write_bytes(exporter.gallery_pack(engine))
    done = run(robot, "draw", *(str(tmp_path / name) for name in ("robot.pack", "drawing.strokes", "picture.pgm")))
    assert done.returncode == 0, done.stderr
    header, pixels = b"P5\n96 96\n255\n", (tmp_path / "picture.pgm").read_bytes()
    sketch = Sketch.from_strokes([np.transpose(stroke) for stroke in drawing]).centred()
    expected = rasterize([sketch], RasterSpec(96, 96, spec.style, spec.line_width, spec.ink))
    assert pixels == header + expected.tobytes()
    assert np.ptp(expected) == 255


def damaged(pack: bytes) -> dict[str, tuple[bytes, str]]:
    """Packs that must be refused, and what the message says of them."""
    end = pack.index(b"\n\n") + 2
    text, data = pack[:end], pack[end:]
    return {
        "empty": (b"", "is not a pack"),
        "another version": (pack.replace(b"pack 1", b"pack 2", 1), "is not a pack of version 1"),
        "cut in the text": (pack[:300], "is cut short in its text"),
        "cut in an array": (pack[:-100], "is cut short in array photo_embeddings"),
        "twice": (pack.replace(b"array bias", b"array weight 1\narray bias", 1), "has the array weight twice"),
        "longer": (pack + b"\0", "does not end"),
        "no head": (pack.replace(b"array weight", b"array wait", 1), "lacks the array weight"),
        "huge": (pack.replace(b"array weight ", b"array weight 999", 1), "is cut short in array weight"),
        "overflow": (pack.replace(b"array weight ", b"array weight 99999999999 ", 1), "impossible size"),
        "another side": (pack.replace(b"set side sketch", b"set side neither", 1), "setting side is"),
        "no number": (pack.replace(b"set margin 0", b"set margin x", 1), "setting margin is"),
        "no size": (pack.replace(b"set size 32", b"set size nan", 1), "setting size is"),
        "huge size": (pack.replace(b"set size 32", b"set size 1e9", 1), "setting size is"),
        "no rows": (text.replace(b"array weight 16", b"array weight 0", 1) + data[4 * 16 * 40 :], "array weight is empty"),
        "half a margin network": (
            pack.replace(b"array bias", b"array margin_net 5\narray bias", 1) + bytes(20),
            "impossible size",
        ),
        "unknown line": (pack.replace(b"set side", b"put side", 1), "unknown kind"),
        "a photo less": (pack.replace(b"item even/star00.png\n", b"", 1), "array photo_features is"),
    }


def test_damaged_packs_are_refused_by_name(robot: Path, toy: Callable[[Head], Scene]) -> None:
    place = toy(toy_head())
    pack = (place.folder / "robot.pack").read_bytes()
    for name, (content, message) in damaged(pack).items():
        (place.folder / "bad.pack").write_bytes(content)
        done = run(robot, "find", str(place.folder / "bad.pack"), "--sketches", str(place.folder / "sketches.pack"), "x")
        assert done.returncode == 1, name
        assert message in done.stderr, name
        assert not done.stdout


def test_help_is_no_error(robot: Path) -> None:
    done = run(robot, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("fgsbir_robot draw PACK")


def test_bad_words_and_sketches_have_clear_errors(robot: Path, toy: Callable[[Head], Scene]) -> None:
    place = toy(toy_head())
    pack, sketches = (str(place.folder / name) for name in ("robot.pack", "sketches.pack"))
    cases = {
        (): (2, "expected draw or find"),
        ("find", pack, "q"): (2, "give either --sketches or --encoder"),
        ("find", pack, "--sketches", sketches): (2, "at least one sketch"),
        ("find", pack, "--sketches", sketches, "--top", "0", "q"): (2, "--top is 0"),
        ("find", pack, "--sketches", sketches, "--pair", "a", "q"): (2, "expected SKETCH=PHOTO"),
        ("find", pack, "--sketches", sketches, "--adapter", "f", "q"): (2, "give pairs"),
        ("find", pack, "--sketches", sketches, "--what", "f", "q"): (2, "unknown option --what"),
        ("find", pack, "--sketches", sketches, "nobody"): (1, 'sketch "nobody" is not in'),
        ("find", pack, "--sketches", sketches, "--pair", f"{place.queries[0]}=no.jpg", "q"): (1, 'photo "no.jpg" is not in'),
        ("find", pack, "--sketches", pack, "q"): (1, "lacks the array sketch_features"),
        ("find", pack, "--encoder", "encoder.onnx", "q"): (1, "built without ONNX Runtime"),
        ("find", "/nowhere", "--sketches", sketches, "q"): (1, "cannot be read"),
    }
    for words, (code, message) in cases.items():
        done = run(robot, *words)
        assert done.returncode == code, words
        assert message in done.stderr, words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "fewer than two points"),
        ("# nothing\n\n", "fewer than two points"),
        ("1,2 3,4 5\n", "line 1: has an x without a y"),
        ("1,2\n1,nan\n", 'line 2: "nan" is no coordinate'),
        ("1,2 1e99,3\n", '"1e99" is no coordinate'),
        ("1,2 x,3\n", '"x" is no coordinate'),
        ("1,2 1,2\n", "all points of a sketch coincide"),
        ("1,2 " * 100_001, "more than 100000 points"),
    ],
)
def test_bad_strokes_are_refused(robot: Path, engine: Engine, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "robot.pack").write_bytes(exporter.gallery_pack(engine))
    (tmp_path / "bad.strokes").write_text(text)
    done = run(robot, "draw", str(tmp_path / "robot.pack"), str(tmp_path / "bad.strokes"), str(tmp_path / "picture.pgm"))
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "picture.pgm").exists()


def test_the_exporter_s_commands(bundle_path: Path, data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, sketch = tmp_path / "photos.fgsbir", str(data_path / "sketches" / "ann" / "0.png")
    with Engine.open(photos=data_path / "photos", gallery=place, bundle=bundle_path) as engine:
        expected = exporter.gallery_pack(engine), exporter.sketch_pack(engine, [sketch])
    model = ["--bundle", str(bundle_path)]
    assert exporter.main(["gallery", str(place), str(tmp_path / "robot.pack"), *model]) == 0
    assert exporter.main(["sketches", sketch, str(tmp_path / "sketches.pack"), *model]) == 0
    assert ((tmp_path / "robot.pack").read_bytes(), (tmp_path / "sketches.pack").read_bytes()) == expected
    assert exporter.main(["strokes", sketch, str(tmp_path / "no.strokes")]) > 2
    assert "is a picture, not strokes" in capsys.readouterr().err
    with pytest.raises(exporter.OutputError, match="line break"):
        exporter.pack({}, ["a\nb"], {})


def test_strokes_to_hits_wholly_in_cpp(prefix: Path, tmp_path: Path) -> None:
    """The encoder by ONNX Runtime's C++ API, where ONNXRUNTIME_ROOT names a folder that holds its headers and library."""
    place = os.environ.get("ONNXRUNTIME_ROOT")
    if not place:
        pytest.skip("ONNXRUNTIME_ROOT is not set: the C++ encoder is not built")
    program = build_robot(prefix, WORK / "cpp-onnx", "-DFGSBIR_ROBOT_ONNXRUNTIME=ON", f"-DONNXRUNTIME_ROOT={place}")
    random = np.random.default_rng(3)
    files = []
    for number in range(8):
        strokes = [np.cumsum(random.normal(size=(20, 2)), axis=0) * 10 for _ in range(3)]
        lines = [" ".join(f"{x!r},{y!r}" for x, y in stroke.tolist()) for stroke in strokes]
        (tmp_path / f"{number}.strokes").write_text("\n".join(lines))
        files.append((str(tmp_path / f"{number}.strokes"), Sketch.from_strokes(strokes)))
    with Engine.open(photos=DEMO_FOLDER / "photos", threads=1) as engine:
        (tmp_path / "robot.pack").write_bytes(exporter.gallery_pack(engine))
        names = [item.name for item in engine.gallery.items()]
        pairs = [word for place, (file, _) in enumerate(files[:4]) for word in ("--pair", f"{file}={names[place]}")]
        encoder = str(engine.bundle.encoder_path())
        queries = [file for file, _ in files[4:]]
        done = run(program, "find", str(tmp_path / "robot.pack"), "--encoder", encoder, *pairs, *queries)
        assert done.returncode == 0, done.stderr
        adapter = engine.adapt([(sketch, names[place]) for place, (_, sketch) in enumerate(files[:4])]).adapter
        expected = [
            f"{when}\t{file}\t{hit.rank}\t{hit.name}"
            for when, chosen in (("before", None), ("after", adapter))
            for file, sketch in files[4:]
            for hit in engine.search(sketch, 10, adapter=chosen)
        ]
    assert [line.rpartition("\t")[0] for line in done.stdout.splitlines()] == expected
