"""Every pipeline end to end on tiny drawn shapes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fgsbir_edge.adapt import AdaptOptions, adapt
from fgsbir_edge.bundle import Bundle
from training import meta, supervised
from training.data.folder import PairsFolder
from training.data.sources import SourceConfig
from training.episodes import draw
from training.episodic.config import DomainConfig, EpisodeConfig, MetaConfig, MetaRun, ValidationConfig
from training.episodic.setup import prepare
from training.episodic.validation import Bank, support_of
from training.heads import runtime_head
from training.models.config import EncoderConfig
from training.trainer import LAST, RunConfig

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

SIZE = 96


CONFIG = MetaConfig(
    (DomainConfig("people", "shapes", "person"), DomainConfig("kinds", "shapes", "category")),
    EpisodeConfig((3,), 2, 4),
    validation=ValidationConfig((3,), 2),
    run=MetaRun(steps=2, every=2, threads=1),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """Four steps of supervised training on the shapes."""
    root = tmp_path_factory.mktemp("run")
    (root / "shapes").symlink_to(shapes)
    config = supervised.SupervisedConfig(
        supervised.DataConfig((SourceConfig("shapes", "shapes", by_category=True),), pairs=12),
        EncoderConfig(SIZE, 16, 8),
        run=RunConfig(steps=4, every=4, threads=1),
        pca=supervised.PcaConfig(batches=2),
    )
    supervised.train(config, root, root / "out", None)
    return root / "out" / LAST


@pytest.fixture(scope="module")
def meta_checkpoint(checkpoint: Path) -> Path:
    """Two outer steps over people and categories of the shapes."""
    out = checkpoint.parent.parent / "meta"
    meta.train(CONFIG, checkpoint.parent.parent, out, checkpoint)
    return out / LAST


def test_meta_training_moves_step_size_and_margin_network(meta_checkpoint: Path) -> None:
    head = runtime_head(meta_checkpoint)
    assert head.margin_net is not None
    assert head.step_sizes.tolist() != [0.5]
    assert head.side == "sketch"


def test_device_adapts_as_the_training_code_does(meta_checkpoint: Path, tmp_path: Path) -> None:
    """Same episode, same checkpoint: fgsbir_edge.adapt and training.meta give the same adapted similarities, hence ranks."""
    head = runtime_head(meta_checkpoint)
    prepared = prepare(CONFIG, meta_checkpoint.parent.parent, meta_checkpoint, tmp_path)
    model, people = prepared.objective.model, prepared.validation[0]
    assert head.margin_net is not None
    with torch.no_grad():
        model.rates.copy_(torch.from_numpy(np.array(head.step_sizes)))
        for name, parameter in model.margin_design.arrays().items():
            parameter.copy_(torch.from_numpy(np.array(getattr(head.margin_net, name))))
        bank = Bank.of(prepared.objective, prepared.source, people.dataset, [people])
    task = people.tasks[0]
    episode = draw(task, 3, np.random.default_rng(0))
    photos, sketches = bank.photos[torch.from_numpy(task.gallery)], bank.sketches[torch.from_numpy(task.sketches)]
    with torch.no_grad():
        support = support_of(model, bank, episode, np.random.default_rng(0))
        learned = model.adapt(support, second_order=False)
        scores = model.scores(sketches[torch.from_numpy(episode.query)], photos, support, learned).numpy()
    drawn, shown = sketches.numpy(), photos.numpy()
    result = adapt(head, drawn[episode.support], shown[task.truth[episode.support]], options=AdaptOptions(guard=False))
    assert result.status == "adapted"
    device = result.adapter.embed(head, drawn[episode.query], "sketch") @ result.adapter.embed(head, shown, "photo").T
    np.testing.assert_allclose(device, scores, atol=2e-5)
    base = head.embed(drawn[episode.query]) @ head.embed(shown).T
    assert np.abs(device - base).max() > 1e-3  # something was learned, so the comparison means something


@pytest.mark.slow
def test_export_and_evaluate(meta_checkpoint: Path, shapes: Path, tmp_path: Path) -> None:
    """Checkpoint to bundle: parity holds, the bundle loads, and both evaluate to the same figures from the command line."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    from export.bundle import export

    report = export(
        meta_checkpoint, tmp_path / "bundle", "shapes", PairsFolder.read(shapes), {"data": "drawn shapes"}, half_weights=False
    )
    assert report["cosine_min"] > 0.9999
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.provenance["data"] == "drawn shapes"
    assert str(Path.cwd()).encode() not in bundle.encoder  # the exporter likes to record where it ran
    figures = []
    for model in (tmp_path / "bundle", meta_checkpoint):
        command = [sys.executable, "-m", "training.evaluate", "--model", str(model), "--data", str(shapes), "--threads", "1"]
        plain = subprocess.run(command, capture_output=True, check=True, text=True)
        people = subprocess.run(
            [*command, "--protocol", "user", "--k", "3", "--draws", "2"], capture_output=True, check=True, text=True
        )
        figures.append((json.loads(plain.stdout), json.loads(people.stdout)))
    (plain, people), (plain_torch, _) = figures
    assert plain["queries"] == 24
    assert set(plain["by_category"]) == {"disc", "box"}
    assert plain.keys() == plain_torch.keys()  # figures differ by near ties: an untrained network sees all shapes as alike
    assert people["tasks"] == 2
    assert set(people["by_task"]) == {"ann", "bob"}


@pytest.mark.slow
def test_half_weights_halve_the_file(tmp_path: Path) -> None:
    """float16 on disk, float32 in use: about half the size, nearly the same features."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    import onnxruntime

    from export.onnx_encoder import export_encoder
    from training.models.encoder import Encoder, EncoderConfig

    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(size=SIZE, features=16, embedding=8))
    for name, half in (("full.onnx", False), ("half.onnx", True)):
        export_encoder(encoder, tmp_path / name, half_weights=half)
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * (tmp_path / "full.onnx").stat().st_size
    pixels = np.random.default_rng(0).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)
    full, half_ = (
        onnxruntime.InferenceSession(tmp_path / name).run(None, {"image": pixels})[0] for name in ("full.onnx", "half.onnx")
    )
    np.testing.assert_allclose(half_, full, atol=5e-3)
    assert half_.dtype == np.float32
