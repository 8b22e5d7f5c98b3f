"""A joint run small enough for a test: the drawn shapes of conftest.py, half of them labelled, and checkpoints to start from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from fgsbir_edge.preprocess import InputSpec
from tests.training.recipe import RECIPE
from training.config import read_config, to_table
from training.generation.checkpoint import save_generator
from training.generation.config import GeneratorConfig
from training.generation.network import Generator
from training.generation.sequences import SequenceOptions
from training.semi.config import SemiConfig
from training.semi_supervised import Start
from training.supervised import SupervisedConfig, train

SEMI = """
[data]
pairs = 3
[[data.sources]]
name = "shapes"
folder = "shapes"
[unlabelled]
fraction = 0.5
photos = 3
[retrieval.loss]
main = "triplet"
[discriminator]
size = 32
width = 4
[generator]
pairs = 3
[alternation]
warmup = 1
retrieval = 2
generator = 1
[run]
steps = 5
every = 2
threads = 1
"""
TINY = GeneratorConfig(
    backbone="mobilenetv2", size=64, latent=6, hidden=16, attention=8, mixtures=3, max_length=30, train_backbone=False
)
SEQUENCES = SequenceOptions(epsilon=2.0, max_points=31, max_length=30)


def write_generator(path: Path, config: GeneratorConfig = TINY) -> Path:
    """A generator with random weights, always the same ones."""
    torch.manual_seed(0)
    meta = {"scale": 30.0, "input": InputSpec(size=config.size).to_manifest(), "sequences": to_table(SEQUENCES), "step": 4}
    save_generator(path, Generator(config), meta)
    return path


def write_start(data: Path, out: Path) -> Start:
    """A retrieval network of two steps, and that generator."""
    recipe = out / "recipe.toml"
    recipe.write_text(RECIPE)
    config = read_config(recipe, SupervisedConfig)
    train(replace(config, run=replace(config.run, steps=2)), data, out / "retrieval", None)
    return Start(out / "retrieval" / "last.safetensors", write_generator(out / "generator.safetensors"))


def semi_config(folder: Path, settings: tuple[str, ...] = ()) -> SemiConfig:
    path = folder / "semi.toml"
    path.write_text(SEMI)
    return read_config(path, SemiConfig, settings)
