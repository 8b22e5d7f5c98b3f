"""A meta-training run small enough for a test: the drawn shapes of conftest.py, and a checkpoint to start from."""

from __future__ import annotations

from pathlib import Path

from fgsbir_edge.preprocess import InputSpec
from training import meta
from training.checkpoint import save_model
from training.config import read_config
from training.episodic.config import MetaConfig
from training.episodic.setup import prepare
from training.models.config import EncoderConfig
from training.models.encoder import EmbeddingHead, build_encoder

RECIPE = """
[[domains]]
name = "people"
folder = "shapes"
setting = "person"

[[domains]]
name = "kinds"
folder = "shapes"
setting = "category"
k = [1, 2]

[episodes]
k = [2]
tasks = 2
queries = 3

[outer]
loss = "triplet"
negatives = 1

[regularisers]
hidden = 4

[validation]
k = [2]
draws = 2

[run]
steps = 4
every = 2
threads = 1
"""
# Random weights of other backbones see nearly the same in all images
ENCODER = EncoderConfig(32, 12, 6, backbone="squeezenet1_1", stages=("fire3",), grids=(2,))
PIXELS = ("features.source='pixels'", "features.train='all'", "features.chunk=4", "episodes.augment='both'", "episodes.gallery=4")


def write_world(root: Path, shapes: Path) -> Path:
    """The shapes, a recipe, and a start whose projection are principal components: a random one sees all shapes as alike."""
    (root / "shapes").symlink_to(shapes)
    (root / "meta.toml").write_text(RECIPE)
    encoder = build_encoder(ENCODER, seed=0).eval()
    head = EmbeddingHead(12, 6)
    save_model(root / "raw.safetensors", encoder, head, {"input": InputSpec(size=32).to_manifest(), "step": 7})
    prepared = prepare(config_of(root, "features.projection='pca'"), root, root / "raw.safetensors", root / "cache")
    made = prepared.objective
    head.linear.load_state_dict(made.model.head.state_dict())
    save_model(root / "start.safetensors", made.trunk.encoder, head, prepared.meta)
    return root


def config_of(root: Path, *settings: str) -> MetaConfig:
    return read_config(root / "meta.toml", MetaConfig, settings)


def run(data: Path, out: Path, *settings: str) -> dict[str, float]:
    return meta.train(config_of(data, *settings), data, out, data / "start.safetensors", data / "cache")
