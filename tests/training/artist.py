"""A generator small enough for a test, with random weights: it scribbles, but differently for every photo and seed."""

from __future__ import annotations

import torch

from fgsbir_edge.preprocess import InputSpec
from training.generation.config import GeneratorConfig
from training.generation.drawing import Artist
from training.generation.network import Generator

SIZE = 64


def scribbler(*, attention: bool = True) -> Artist:
    """An untrained generator of at most 12 rows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GeneratorConfig(
            backbone="squeezenet1_1",
            stage="fire5",
            size=SIZE,
            latent=4,
            hidden=8,
            attention=4,
            mixtures=2,
            use_attention=attention,
            max_length=12,
        )
        generator = Generator(config).eval()
    return Artist(generator, 20.0, InputSpec(size=SIZE, photo_fit="pad"))
