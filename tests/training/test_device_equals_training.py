"""The same episodes through the training code and through what a device runs: the same margins, embeddings and ranks."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fgsbir_edge.adapt import AdaptOptions, adapt
from fgsbir_edge.adapt_cli import main as command
from fgsbir_edge.bundle import Bundle, write_bundle
from fgsbir_edge.engine import Engine
from fgsbir_edge.head import Adapter, Head
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.ranking import summary
from tests.toy import EMBEDDING, FEATURES, SIZE, toy_encoder
from training import inner_loop
from training.checkpoint import save_tensors
from training.episodes import negative_mask
from training.episodic import fast_inner
from training.heads import runtime_head
from training.inner_loop import Support, adapted_outputs, centring, support_outputs, triplet_distances
from training.metrics import gallery_ranks
from training.models.margin import MarginNet

pytestmark = pytest.mark.torch

PAIRS, PHOTOS, QUERIES = 5, 12, 30


@dataclass(frozen=True)
class Learned:
    """What meta-training learned, as its checkpoint has it; `margin` None: predicted; `centre` inf: nothing centred."""

    side: str
    negatives: str
    steps: int
    margin: float | None
    centre: float = math.inf

    @property
    def rates(self) -> Tensor:
        return torch.tensor([0.8, 0.5, 0.4, 0.3, 0.2])[: self.steps]

    @property
    def network(self) -> MarginNet:
        torch.manual_seed(4)
        return MarginNet(8)

    @property
    def layer(self) -> tuple[Tensor, Tensor]:
        """W [D,C], b [D]."""
        source = torch.Generator().manual_seed(5)
        weight = torch.randn(EMBEDDING, FEATURES, generator=source) / FEATURES**0.5
        return weight, 0.05 * torch.randn(EMBEDDING, generator=source)

    def checkpoint(self, path: Path) -> Path:
        """The part of a checkpoint that heads are read from."""
        tensors = dict(zip(("head.linear.weight", "head.linear.bias"), self.layer, strict=True))
        tensors["adaptation.step_sizes"] = self.rates
        if self.margin is None:
            tensors |= {f"adaptation.margin.{name}": tensor for name, tensor in self.network.arrays().items()}
        settings = {"k": PAIRS, "steps": self.steps, "side": self.side, "sharpness": 10.0, "margin": self.margin}
        if math.isfinite(self.centre):
            settings["centre"] = self.centre
        save_tensors(path, tensors, {"adaptation": settings | {"negatives": 7 if self.negatives == "gallery" else 0}})
        return path


LEARNED = [Learned(*values) for values in product(("sketch", "both"), ("support", "gallery"), (1, 5), (0.4, None))]
CENTRED = [Learned(*values) for values in product(("sketch", "both"), ("support", "gallery"), (5,), (None,), (2.0,))]
LEARNED += [*CENTRED, Learned("sketch", "support", 1, 0.4, 0.0)]
FORMS = [pytest.param(inner_loop.adapt, id="span"), pytest.param(fast_inner.adapt, id="products")]


def name(learned: Learned) -> str:
    return f"{learned.side}-{learned.negatives}-{learned.steps}-{learned.margin}-{learned.centre}"


@dataclass(frozen=True)
class Trained:
    """What the training code makes of an episode: its margin, and embeddings of queries and gallery after adapting."""

    margin: float
    queries: np.ndarray
    gallery: np.ndarray


def by_training(
    learned: Learned, episode: tuple[np.ndarray, np.ndarray], features: tuple[np.ndarray, np.ndarray], form: Callable[..., Tensor]
) -> Trained:
    """`episode` are support sketches [k,C] and where in the gallery their photos are [k]; `features` queries and gallery."""
    sketches, truth = episode
    queries, gallery = (torch.from_numpy(rows)[None] for rows in features)
    further = np.setdiff1d(np.arange(len(features[1])), truth) if learned.negatives == "gallery" else truth[:0]
    photos = np.concatenate([truth, further])
    mask = torch.from_numpy(negative_mask(truth, photos))
    support = Support(torch.cat([torch.from_numpy(sketches), gallery[0, photos]])[None], mask[None])
    weight, bias = learned.layer
    if math.isfinite(learned.centre):
        support = replace(support, shift=centring(weight, bias, support, torch.tensor(learned.centre)))
    with torch.no_grad():
        if learned.margin is None:
            positive, distances = triplet_distances(support_outputs(weight, bias, support), support.pairs)
            margin = learned.network(positive.unsqueeze(-1).expand_as(distances), distances, support.mask)
        else:
            margin = torch.tensor([learned.margin])
    found = form(weight, bias, support, learned.rates, margin, side=learned.side, second_order=False).detach()
    moved = found if learned.side == "both" else torch.zeros_like(found)
    embedded = [
        F.normalize(adapted_outputs(weight, bias, support, learned_by, rows, sketches=rows is queries)[0], dim=-1)
        for learned_by, rows in ((found, queries), (moved, gallery))
    ]
    return Trained(float(margin), *(rows.numpy() for rows in embedded))


def check(learned: Learned, trained: Trained, device: tuple[np.ndarray, np.ndarray], truth: np.ndarray, base: np.ndarray) -> None:
    """Equal embeddings and ranks, which are not those of the head before (cosines `base` [Q,N])."""
    np.testing.assert_allclose(device[0], trained.queries, atol=2e-5)
    np.testing.assert_allclose(device[1], trained.gallery, atol=2e-5)
    assert gallery_ranks(*device, truth).tolist() == gallery_ranks(trained.queries, trained.gallery, truth).tolist()
    assert np.abs(device[0] @ device[1].T - base).max() > 0.02, name(learned)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("learned", LEARNED, ids=name)
def test_adapt_is_what_was_trained(learned: Learned, form: Callable[..., Tensor], tmp_path: Path) -> None:
    """From a checkpoint through head.safetensors to the native core; two of the five sketches mean the same photo."""
    rng = np.random.default_rng(1)
    gallery, noise = (F.normalize(torch.from_numpy(rng.normal(size=(n, FEATURES))), dim=1).numpy() for n in (PHOTOS, 100))
    truth = np.array([3, 7, 3, 0, 9])
    sought = rng.integers(PHOTOS, size=QUERIES)
    unit = lambda rows: np.float32(rows / np.linalg.norm(rows, axis=1, keepdims=True))  # noqa: E731
    gallery = np.float32(gallery)
    sketches, queries = unit(0.6 * gallery[truth] + noise[:PAIRS]), unit(0.6 * gallery[sought] + noise[50 : 50 + QUERIES])

    head = Head.from_bytes(runtime_head(learned.checkpoint(tmp_path / "meta.safetensors")).to_bytes())
    assert (head.side, head.negatives) == (learned.side, learned.negatives)
    others = np.delete(gallery, np.unique(truth), axis=0)
    result = adapt(head, sketches, gallery[truth], negatives_features=others, options=AdaptOptions(guard=False))
    trained = by_training(learned, (sketches, truth), (queries, gallery), form)
    assert result.status == "adapted"
    assert result.margin == pytest.approx(trained.margin, abs=1e-5)
    assert len(result.losses) == learned.steps + 1
    device = result.adapter.embed(head, queries, "sketch"), result.adapter.embed(head, gallery, "photo")
    check(learned, trained, device, sought, head.embed(queries) @ head.embed(gallery).T)


@pytest.mark.parametrize("learned", CENTRED, ids=name)
def test_a_lone_pair_is_centred_as_it_was_trained(learned: Learned, tmp_path: Path) -> None:
    """One photo has nothing to be told from: with negatives "support" no step is taken, but sketches lose their share."""
    rng = np.random.default_rng(2)
    rows = F.normalize(torch.from_numpy(rng.normal(size=(PHOTOS + QUERIES + 1, FEATURES)).astype(np.float32)), dim=1).numpy()
    gallery, sketch, queries = rows[:PHOTOS], rows[PHOTOS : PHOTOS + 1], rows[PHOTOS + 1 :]
    head, truth = runtime_head(learned.checkpoint(tmp_path / "meta.safetensors")), np.array([4])
    others = np.delete(gallery, truth, axis=0)
    result = adapt(head, sketch, gallery[truth], negatives_features=others, options=AdaptOptions(guard=False))
    trained = by_training(learned, (sketch, truth), (queries, gallery), inner_loop.adapt)
    assert bool(result.losses) is (learned.negatives == "gallery")
    device = result.adapter.embed(head, queries, "sketch"), result.adapter.embed(head, gallery, "photo")
    sought = rng.integers(PHOTOS, size=QUERIES)
    check(learned, trained, device, sought, head.embed(queries) @ head.embed(gallery).T)


@pytest.fixture
def bundle_of(tmp_path: Path) -> Callable[[Learned], Bundle]:
    def make(learned: Learned) -> Bundle:
        spec = InputSpec(size=SIZE, mean=(0.9, 0.9, 0.9), std=(0.3, 0.3, 0.3), photo_fit="pad")
        head = runtime_head(learned.checkpoint(tmp_path / "meta.safetensors"))
        return write_bundle(tmp_path / "toy", name="toy", encoder=toy_encoder(), head=head, input=spec, provenance={})

    return make


def check_command(learned: Learned, bundle: Bundle, data: Path, facts: dict[str, Any], adapter: Adapter) -> None:
    """The command's margin, ranks and adapter against the training code on the episode that the command drew."""
    with Engine.open(photos=data / "photos", bundle=bundle, threads=1) as engine:
        names = sorted(path.relative_to(data / "photos").as_posix() for path in (data / "photos").rglob("*.png"))
        gallery = engine.photo_features(names)
        place = {photo: position for position, photo in enumerate(names)}
        support = {entry["sketch"]: place[entry["photo"]] for entry in facts["support"]}
        rows = [line.split(",") for line in (data / "pairs.csv").read_text(encoding="utf-8").splitlines()[1:]]
        asked = {row[0]: place[row[1]] for row in rows if row[3] == "ann" and row[0] not in support}
        sketches, queries = (engine.encode_sketches([data / "sketches" / key for key in keys]) for keys in (support, asked))
    trained = by_training(learned, (sketches, np.array([*support.values()])), (queries, gallery), inner_loop.adapt)
    truth, head = np.array([*asked.values()]), bundle.head
    assert facts["margin"] == pytest.approx(trained.margin, abs=1e-5)
    assert facts["queries"] == len(asked)
    assert facts["after"] == summary(gallery_ranks(trained.queries, trained.gallery, truth).tolist())
    assert facts["before"] == summary(gallery_ranks(head.embed(queries), head.embed(gallery), truth).tolist())
    device = adapter.embed(head, queries, "sketch"), adapter.embed(head, gallery, "photo")
    check(learned, trained, device, truth, head.embed(queries) @ head.embed(gallery).T)


@pytest.mark.parametrize("learned", LEARNED, ids=name)
def test_the_command_adapts_as_it_was_trained(
    learned: Learned,
    bundle_of: Callable[[Learned], Bundle],
    data_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle, output = bundle_of(learned), tmp_path / "adapter.safetensors"
    arguments = ["--bundle", str(bundle.path), "--data", str(data_path), "--user", "ann", "--no-guard", "--json"]
    assert command([*arguments, "--output", str(output), "--threads", "1"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["status"], facts["steps"], facts["side"]) == ("adapted", learned.steps, learned.side)
    check_command(learned, bundle, data_path, facts, Adapter.load(output, bundle.head))


@pytest.mark.slow
def test_the_command_from_a_shell(bundle_of: Callable[[Learned], Bundle], data_path: Path, tmp_path: Path) -> None:
    learned = Learned("both", "support", 5, None)
    bundle, output = bundle_of(learned), tmp_path / "adapter.safetensors"
    call = [sys.executable, "-m", "fgsbir_edge.adapt", "--bundle", str(bundle.path), "--data", str(data_path), "--user", "ann"]
    call += ["--no-guard", "--json", "--output", str(output), "--threads", "1"]
    facts = json.loads(subprocess.run(call, capture_output=True, check=True, text=True).stdout)
    check_command(learned, bundle, data_path, facts, Adapter.load(output, bundle.head))
