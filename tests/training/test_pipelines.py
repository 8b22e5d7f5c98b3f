"""Every pipeline end to end on tiny drawn shapes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fgsbir_edge.adapt import AdaptOptions, adapt
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.preprocess import InputSpec
from training import meta, meta_data, supervised
from training.checkpoint import load_model
from training.data.folder import PairsFolder
from training.data.pixels import PixelStore
from training.data.sources import SourceConfig
from training.episodes import category_tasks, draw, person_tasks
from training.evaluation import encode_photos, encode_sketches, torch_encode
from training.features import FeatureTable, compute
from training.heads import runtime_head
from training.models.config import EncoderConfig
from training.trainer import LAST, RunConfig

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

SIZE = 96


def rows(names: list[str]) -> dict[str, int]:
    return {name: row for row, name in enumerate(names)}


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
def meta_checkpoint(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """Two outer steps over people and categories of the shapes."""
    root = tmp_path_factory.mktemp("meta")
    folder, spec = PairsFolder.read(shapes), InputSpec(size=SIZE)

    def open_domains(_data: Path, cache: Path, encoder: Any, _meta: Any) -> Any:
        names = sorted(folder.photo_category)
        table = compute(PixelStore(folder, spec), encoder, folder.pairs, names, versions=2, seed=0)
        table.save(cache / "shapes.npz")
        table = FeatureTable.load(cache / "shapes.npz")
        indices = rows(table.sketch_keys), rows(table.photo_names)
        people = meta_data.Domain(person_tasks(folder.pairs, names, *indices), 0.5, table.sketches, table.photos)
        kinds = meta_data.Domain(category_tasks(folder.pairs, folder.photo_category, *indices), 0.5, table.sketches, table.photos)
        return [people, kinds], {"people": (people, people.tasks)}

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(meta, "open_domains", open_domains)
        arguments = [
            "--data",
            str(shapes),
            "--checkpoint",
            str(checkpoint),
            "--cache",
            str(root / "cache"),
            "--out",
            str(root / "meta.safetensors"),
        ]
        meta.train(meta.parser().parse_args([*arguments, "--k", "3", "--steps", "2", "--every", "2", "--threads", "1"]))
    return root / "meta.safetensors"


def test_meta_training_moves_step_size_and_margin_network(meta_checkpoint: Path) -> None:
    head = runtime_head(meta_checkpoint)
    assert head.margin_net is not None
    assert head.step_sizes.tolist() != [0.5]
    assert head.side == "sketch"


def test_device_adapts_as_the_training_code_does(meta_checkpoint: Path, shapes: Path) -> None:
    """Same episode, same checkpoint: fgsbir_edge.adapt and training.meta give the same adapted similarities, hence ranks."""
    folder, spec = PairsFolder.read(shapes), InputSpec(size=SIZE)
    encoder, head_module, _ = load_model(meta_checkpoint)
    head = runtime_head(meta_checkpoint)
    names, keys = sorted(folder.photo_category), [pair.sketch for pair in folder.pairs]
    pooled = torch_encode(encoder, pooled=True)
    pooled_domain = meta_data.Domain(
        person_tasks(folder.pairs, names, rows(keys), rows(names)),
        1.0,
        encode_sketches(folder, keys, pooled, spec)[:, None],
        encode_photos(folder, names, pooled, spec)[:, None],
    )
    domain = meta.projected(pooled_domain, encoder)
    model = meta.MetaModel(head_module.linear, meta.MetaConfig(k=3))
    assert model.margin_net is not None
    assert head.margin_net is not None
    with torch.no_grad():
        model.rates.copy_(torch.from_numpy(np.array(head.step_sizes)))
        for name, parameter in model.margin_net.arrays().items():
            parameter.copy_(torch.from_numpy(np.array(getattr(head.margin_net, name))))
    task = domain.tasks[0]
    episode = draw(task, 3, np.random.default_rng(0))
    with torch.no_grad():
        support = meta.support_of(model, domain, [episode], 0, np.random.default_rng(0))
        learned = model.adapt(support, second_order=False)
        scores, _ = meta.episode_scores(model, domain, episode, support, learned, (episode.query, 0))
        sketches = model.features(domain.sketches[task.sketches, 0]).numpy()
        photos = model.features(domain.photos[task.gallery, 0]).numpy()
    result = adapt(head, sketches[episode.support], photos[task.truth[episode.support]], options=AdaptOptions(guard=False))
    assert result.status == "adapted"
    device = result.adapter.embed(head, sketches[episode.query], "sketch") @ result.adapter.embed(head, photos, "photo").T
    np.testing.assert_allclose(device, scores.numpy(), atol=2e-5)
    base = head.embed(sketches[episode.query]) @ head.embed(photos).T
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
