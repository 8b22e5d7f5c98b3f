"""The sketch classifier: what it learns from, resuming, its file, and that it tells categories apart."""

from __future__ import annotations

import csv
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fgsbir_edge.errors import BundleFormatError, BundleMissingFileError, PairsFormatError
from fgsbir_edge.sketch import Sketch
from training import sketch_classifier
from training.checkpoint import save_tensors
from training.config import ConfigError, read_config
from training.data.folder import PairsFolder
from training.data.recipes import OWN
from training.generation.classifier import load_classifier
from training.generation.vectors import SketchSource, held_photos, read_pool
from training.journal import read_log
from training.sketch_classifier import LAST, ClassifierConfig, ClassStream, train

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

RECIPE = """
batch = 6
[[sources]]
folder = "shapes"
[rename]
disc = "circle"
[encoder]
backbone = "squeezenet1_1"
size = 32
stages = ["fire3"]
grids = [2]
attention = "none"
features = 8
embedding = 8
head = "identity"
[optimiser]
rate = 0.003
warmup = 2
average = 0.5
[run]
steps = 6
every = 3
threads = 1
"""


@pytest.fixture(scope="module")
def data(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "shapes").symlink_to(shapes)
    return root


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ClassifierConfig:
    path = tmp_path_factory.mktemp("config") / "run.toml"
    path.write_text(RECIPE)
    return read_config(path, ClassifierConfig)


@pytest.fixture(scope="module")
def finished(config: ClassifierConfig, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(config, data, out, None)
    return out


def test_all_sketches_become_strokes_and_whole_photos_are_held_back(data: Path) -> None:
    pool = read_pool([SketchSource("shapes")], data, {"disc": "circle"}, 3.0)
    assert pool.categories == ("box", "circle")
    held = {(pair.category, pair.photo) for pair in pool.held}
    assert [category for category, _ in sorted(held)] == ["box", "circle"]  # a fifth of six photos: one of each
    assert len(pool.held) == 4  # both people's sketches of it
    learned = {pair.photo for pairs in pool.training.values() for pair in pairs}
    assert learned.isdisjoint(photo for _, photo in held)
    assert sum(map(len, pool.training.values())) == 20
    for sketch in pool.folder.sketches.values():
        assert isinstance(sketch, Sketch)
        x0, y0, x1, y1 = sketch.bounds
        assert max(x1 - x0, y1 - y0) == pytest.approx(190, abs=1)


def test_a_folder_of_one_category_holds_back_what_retrieval_validates_on(shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes, tmp_path / "mine")
    rows = list(csv.DictReader((tmp_path / "mine" / "pairs.csv").read_text().splitlines()))
    for row in rows:
        row["category"] = "thing"
    with (tmp_path / "mine" / "pairs.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    folder = PairsFolder.read(tmp_path / "mine")
    (chosen,) = OWN.validations("mine", folder)
    assert {photo for photo in held_photos(folder) if photo in {pair.photo for pair in folder.pairs}} == chosen.photos


def test_sources_that_cannot_be(data: Path, tmp_path: Path) -> None:
    with pytest.raises(PairsFormatError, match="1 categories"):
        read_pool([SketchSource("shapes")], data, {"disc": "box"}, 3.0)
    shutil.copytree(data / "shapes", tmp_path / "shapes")
    table = (tmp_path / "shapes" / "pairs.csv").read_text()
    (tmp_path / "shapes" / "pairs.csv").write_text(table.replace(",disc,", ",,"))
    with pytest.raises(PairsFormatError, match="has no category"):
        read_pool([SketchSource("shapes")], tmp_path, {}, 3.0)
    with pytest.raises(ConfigError, match="sources"):
        read_config(_file(tmp_path, "sources = []"), ClassifierConfig)


def _file(folder: Path, text: str) -> Path:
    path = folder / "c.toml"
    path.write_text(text)
    return path


def test_every_category_has_the_same_share_of_the_steps(config: ClassifierConfig, data: Path) -> None:
    pool = read_pool(config.sources, data, config.rename, config.epsilon)
    few = {name: pairs if name == "box" else pairs[:1] for name, pairs in pool.training.items()}
    stream = ClassStream(type(pool)(pool.folder, few, pool.held), config)
    pixels, first = stream.batch(0)
    assert pixels.shape == (6, 3, 32, 32)
    assert torch.equal(stream.batch(0)[0], pixels)
    assert not torch.equal(stream.batch(1)[0], pixels)
    labels = torch.cat([stream.batch(step)[1] for step in range(40)])
    assert 0.35 < labels.float().mean() < 0.65
    assert set(first.tolist()) <= {0, 1}


def test_a_run_writes_its_classifier_with_its_own_figures(finished: Path, config: ClassifierConfig, data: Path) -> None:
    rows = read_log(finished)
    assert [row["step"] for row in rows] == [3, 6]
    classifier = load_classifier(finished / LAST)
    assert classifier.categories == ("box", "circle")
    assert classifier.validation["sketches"] == 4
    assert classifier.validation["acc@1"] == rows[-1]["held/acc@1"]
    assert classifier.category("disc") == "circle"
    with pytest.raises(BundleFormatError, match="no category 'hat'"):
        classifier.category("hat")
    pool = read_pool(config.sources, data, config.rename, config.epsilon)
    sketches = [pool.folder.sketches[pair.sketch] for pair in pool.held]
    found = classifier.classify(sketches, batch=3)
    assert found.logits.shape == (4, 2)
    assert found.features.shape == (4, 8)
    np.testing.assert_allclose(found.logits, classifier.classify(sketches, batch=4).logits, atol=1e-5)
    assert found.features.var(0).mean() == pytest.approx(1.0, rel=1e-4)  # whatever the network's own scale
    truth = [classifier.categories.index(pair.category) for pair in pool.held]
    hits = np.mean(found.logits.argmax(1) == truth)
    assert classifier.validation["acc@1"] == pytest.approx(100 * hits)
    moved = [sketch.scaled(0.5, 0.5) for sketch in sketches]  # drawings are centred as the device centres them
    np.testing.assert_allclose(classifier.classify(moved).logits, found.logits, atol=0.2)
    dot = Sketch(np.full((2, 2), 128.0), np.array([0, 2]))
    assert np.isfinite(classifier.classify([dot]).logits).all()
    assert classifier.classify([]).features.shape == (0, 8)


def test_going_on_gives_what_an_unbroken_run_gives(
    finished: Path, config: ClassifierConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = sketch_classifier._step, []

    def stopping(*arguments: object) -> float:
        calls.append(arguments[-1])
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sketch_classifier, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(config, data, tmp_path, None)
    assert calls == [0, 1, 2, 3]
    figures = train(config, data, tmp_path, None)
    assert calls[4:] == [4, 5]
    ours, theirs = load_classifier(tmp_path / LAST), load_classifier(finished / LAST)
    assert figures == theirs.validation
    for name, tensor in theirs.network.state_dict().items():
        torch.testing.assert_close(ours.network.state_dict()[name], tensor, rtol=0, atol=0)
    assert train(config, data, tmp_path, None) == figures  # finished: nothing is computed
    assert len(calls) == 6


def test_it_learns_to_tell_boxes_from_discs(config: ClassifierConfig, data: Path, tmp_path: Path) -> None:
    longer = replace(config, run=replace(config.run, steps=40, every=40))
    assert train(longer, data, tmp_path, None)["acc@1"] == 100.0


def test_files_that_are_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(BundleMissingFileError, match=r"training\.sketch_classifier"):
        load_classifier(tmp_path / "none.safetensors")
    save_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(2)}, {"kind": "generator"})
    with pytest.raises(BundleFormatError, match="it is a generator"):
        load_classifier(tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(BundleFormatError, match="not a sketch classifier"):
        load_classifier(tmp_path / "text.safetensors")
