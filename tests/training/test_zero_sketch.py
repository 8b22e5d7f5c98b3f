"""The zero-sketch start in training: constants from training categories, drawings that stand in, the table, and the commands."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgsbir_edge.bundle import Bundle, write_bundle
from fgsbir_edge.errors import BundleFormatError, UnreadableImageError
from fgsbir_edge.head import Adapter, Head
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.start import Start
from fgsbir_edge.zero_sketch import start_adapter
from tests.toy import EMBEDDING, FEATURES, SIZE, toy_encoder, toy_head
from tests.training.semi_recipe import write_generator
from training import zero_sketch as command
from training.checkpoint import save_tensors
from training.config import read_config, to_table
from training.data.folder import PairsFolder
from training.episodes import Task
from training.episodic.methods.protocol import ProtocolConfig, episodes
from training.evaluate_model import open_model
from training.generation.drawing import ArtistOptions, open_artist
from training.semi.discriminator import DiscriminatorConfig, PatchDiscriminator
from training.zero_sketch_bench import Bench, Given
from training.zero_sketch_drawn import Photos, edge_drawings, generated, kept, open_judge
from training.zero_sketch_start import StandIns, asked, fit, left_out
from training.zero_sketch_table import ZeroSketch, ZeroSketchConfig

pytestmark = pytest.mark.torch

PROTOCOL = ProtocolConfig((1, 2), 3)
CATEGORIES, PHOTOS, SHOWN = 6, 8, 4


def world() -> tuple[Head, tuple[np.ndarray, np.ndarray], list[Task]]:
    """Categories whose sketches share what their photos share; of what makes a photo that one, half is in its sketches."""
    rng = np.random.default_rng(3)
    head = Head(np.eye(EMBEDDING), np.zeros(EMBEDDING), np.ones(1), centre=2.0)
    photos, sketches, tasks = [], [], []
    for number in range(CATEGORIES):
        common = 3.0 * rng.normal(size=EMBEDDING)
        own = rng.normal(size=(PHOTOS, EMBEDDING))
        truth = np.repeat(np.arange(SHOWN), 2)
        tasks.append(Task(f"kind {number}", np.arange(8) + 8 * number, truth, np.arange(PHOTOS) + PHOTOS * number))
        photos.append(1.0 + common + own)
        sketches.append(common + 0.5 * own[truth] + 0.2 * rng.normal(size=(8, EMBEDDING)))
    return head, (np.concatenate(sketches).astype(np.float32), np.concatenate(photos).astype(np.float32)), tasks


def test_the_share_that_helps_most_is_chosen() -> None:
    head, features, tasks = world()
    found = fit(head, features, tasks, StandIns.of_photos(features[1]), (0.25, 0.5, 1.0, 2.0), PROTOCOL)
    assert found.start.share == 0.5
    assert found.curve["0.5"] > found.curve["none"] + 10 > found.curve["2"] + 10
    means = np.stack([features[1][task.gallery].mean(axis=0) for task in tasks])
    np.testing.assert_allclose(found.start.reference, means.mean(axis=0), atol=1e-5)


def test_a_category_is_judged_by_the_others_reference() -> None:
    means = np.arange(12.0, dtype=np.float32).reshape(4, 3)
    np.testing.assert_allclose(left_out(means)[1], means[[0, 2, 3]].mean(axis=0))
    head, features, tasks = world()
    with pytest.raises(ValueError, match="1 training categories"):
        fit(head, features, tasks[:1], StandIns.of_photos(features[1]), (0.5,), PROTOCOL)


def test_asked_are_the_queries_of_the_protocol() -> None:
    _, _, tasks = world()
    counts = asked(tasks[0], 0, PROTOCOL)
    assert counts.sum() == pytest.approx(1.0)
    assert (counts >= 0).all()


def test_certain_drawings_weigh_more() -> None:
    head, features, _ = world()
    rows = features[1][:4]
    some = StandIns(rows, np.array([0, 0, 1, 9]), np.array([1.0, 3.0, 4.0, 100.0], np.float32))
    expected = (rows[0] + 3 * rows[1] + 4 * rows[2]) / 8
    np.testing.assert_allclose(some.mean(head, np.array([0, 1])), expected, atol=1e-5)
    with pytest.raises(ValueError, match="nothing stands in"):
        some.mean(head, np.array([5]))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A toy bundle that centres, a scribbling generator and a discriminator that nobody has trained."""
    root = tmp_path_factory.mktemp("models")
    spec = InputSpec(size=SIZE, mean=(0.9, 0.9, 0.9), std=(0.3, 0.3, 0.3), photo_fit="pad")
    write_bundle(root / "toy", name="toy", encoder=toy_encoder(), head=toy_head(centre=1.0), input=spec, provenance={})
    config = DiscriminatorConfig(size=32, width=4)
    save_tensors(root / "d.safetensors", PatchDiscriminator(config).state_dict(), {"config": to_table(config), "step": 0})
    return {"bundle": root / "toy", "generator": write_generator(root / "g.safetensors"), "judge": root / "d.safetensors"}


def photos_of(shapes: Path) -> Photos:
    folder = PairsFolder.read(shapes)
    return Photos(tuple(sorted(folder.photo_category))[:3], folder.photo_path)


def test_generated_drawings_are_weighed_by_the_judge(shapes: Path, models: dict[str, Path]) -> None:
    encode, _, spec = open_model(models["bundle"], 1)
    photos, options = photos_of(shapes), ArtistOptions(samples=2, temperature=1.0)
    artist, judge = open_artist(models["generator"]), open_judge(models["judge"], spec)
    plain = generated(artist, photos, options, (encode, spec), None)
    judged = generated(artist, photos, options, (encode, spec), judge)
    np.testing.assert_array_equal(plain.rows, judged.rows)
    assert plain.photos.tolist() == judged.photos.tolist()
    assert set(plain.photos.tolist()) <= {0, 1, 2}
    assert plain.rows.shape == (len(plain.photos), FEATURES)
    assert (plain.weights == 1).all()
    assert ((judged.weights > 0) & (judged.weights < 1)).all()
    assert len(np.unique(judged.weights)) > 1
    with pytest.raises(UnreadableImageError):
        generated(artist, replace(photos, names=("disc/none.png",)), options, (encode, spec), None)


def test_edges_of_a_photo_resemble_its_sketch(shapes: Path, models: dict[str, Path]) -> None:
    encode, _, spec = open_model(models["bundle"], 1)
    photos = photos_of(shapes)
    found = edge_drawings(photos, (1, 2), (encode, spec))
    assert found.photos.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.ptp(found.rows, axis=0).max() > 0


def test_kept_makes_once_and_asks_for_the_same(tmp_path: Path) -> None:
    calls = []

    def make() -> StandIns:
        calls.append(1)
        return StandIns.of(np.eye(3, dtype=np.float32), np.arange(3))

    first, second = kept(tmp_path / "c", ("a", 1), make), kept(tmp_path / "c", ("a", 1), make)
    np.testing.assert_array_equal(first.rows, second.rows)
    kept(tmp_path / "c", ("a", 2), make)
    assert len(calls) == 2


def test_other_files_are_no_discriminator(models: dict[str, Path]) -> None:
    with pytest.raises(BundleFormatError, match="not a discriminator"):
        open_judge(models["generator"], InputSpec(size=SIZE))


CONFIG = """
shares = [0.25, 0.5]
samples = 1
temperature = 1.0
[setting]
name = "category"
kind = "category"
folder = "{folder}"
[protocol]
ks = [1, 2]
draws = 2
"""


@pytest.fixture
def config(shapes: Path, tmp_path: Path) -> Path:
    path = tmp_path / "zero.toml"
    path.write_text(CONFIG.format(folder=shapes.name))
    return path


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, Any]:
    monkeypatch.setattr(sys, "argv", ["zero_sketch", *(str(word) for word in words)])
    code = command.main()
    out = capsys.readouterr()
    return code, json.loads(out.out) if code == 0 else out.err


def test_measure_fit_and_draw(
    shapes: Path,
    models: dict[str, Path],
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = ("--config", config, "--model", models["bundle"])
    where = (*common, "--data", shapes.parent, "--cache", tmp_path / "cache")
    judges = ("--generator", models["generator"], "--discriminator", models["judge"])
    code, figures = call(monkeypatch, capsys, "measure", *where, *judges, "--out", tmp_path / "out")
    assert code == 0, figures
    rows = {"none", "pairs", *(f"{beside}{name}" for name in figures["starts"] for beside in ("", "pairs + "))}
    assert set(figures["starts"]) == {"photos", "edges", "generated", "certain"}
    assert set(figures["measured"]) == set(figures["training"]) == rows
    assert figures["starts"]["generated"]["mean_weight"] == 1.0
    assert set(figures["measured"]["photos"]) == {"1", "2"}
    assert json.loads((tmp_path / "out" / "zero_sketch.json").read_text()) == figures
    assert "start from its photos" in (tmp_path / "out" / "zero_sketch.md").read_text()
    before = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert call(monkeypatch, capsys, "measure", *where, *judges, "--out", tmp_path / "again")[1] == figures
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == before, "nothing is encoded twice"

    code, told = call(monkeypatch, capsys, "fit", *where, "--out", tmp_path / "bundle")
    assert code == 0, told
    bundle, old = Bundle.load(tmp_path / "bundle"), Bundle.load(models["bundle"])
    assert bundle.head.start is not None
    assert bundle.head.start.share == told["share"] == figures["starts"]["photos"]["share"]
    assert bundle.provenance["zero_sketch"]["categories"] == 2
    assert (bundle.head.digest, bundle.features_digest) == (old.head.digest, old.features_digest)

    draw = ("draw", *common, *judges, "--photos", shapes / "photos" / "disc", "--out", tmp_path / "a")
    code, told = call(monkeypatch, capsys, *draw, "--start", tmp_path / "out" / "certain.safetensors")
    assert code == 0, told
    adapter = Adapter.load(tmp_path / "a", old.head)
    assert adapter.meta["start"] == "certain"
    assert (told["photos"], adapter.rank) == (7, 0)
    assert adapter.sketch_shift is not None
    code, told = call(monkeypatch, capsys, *draw, "--start", models["generator"])
    assert code == BundleFormatError.exit_code
    assert "training.zero_sketch measure" in told


def test_the_table_judges_what_a_device_makes(shapes: Path, models: dict[str, Path], config: Path, tmp_path: Path) -> None:
    bench = Bench.open(read_config(config, ZeroSketchConfig), Given(shapes.parent, models["bundle"], tmp_path / "cache"))
    start = Start(np.linspace(-0.5, 0.5, EMBEDDING), 0.5)
    head, rows = replace(bench.head, start=start), bench.rows
    tasks = bench.setting.measured
    stand_ins = StandIns.of_photos(rows.photo_rows)
    shifts = {task.name: start.shift(stand_ins.mean(head, task.gallery)) for task in tasks}
    row = ZeroSketch("photos", head, rows, shifts)
    for _, _, episode in episodes(tasks, rows, 2, ProtocolConfig((2,), 2)):
        task = episode.task
        sketches, photos = rows.sketches(task.sketches), rows.photos(task.gallery)
        device = start_adapter(head, [photos[:3], photos[3:]])
        expected = device.embed(head, sketches) @ head.embed(photos).T
        found = row.adapted(episode, np.random.default_rng(0))(sketches, photos)
        np.testing.assert_allclose(found, expected, atol=1e-5)
