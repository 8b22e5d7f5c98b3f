"""A generator and a sketch classifier small enough for a test, and rows for the generator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgsbir_edge.preprocess import InputSpec
from training.generation.classifier import SketchClassifier, TrainedClassifier
from training.generation.config import GeneratorConfig
from training.generation.network import Generator
from training.models.config import EncoderConfig

TINY = GeneratorConfig(
    backbone="mobilenetv2", size=64, latent=6, hidden=12, attention=8, mixtures=3, max_length=12, train_backbone=False
)


def tiny(**changes: Any) -> Generator:
    """A generator with random weights, always the same ones, in evaluation mode."""
    torch.manual_seed(0)
    return Generator(replace(TINY, **changes)).eval()


def example_rows() -> tuple[Tensor, Tensor]:
    """Three drawings: rows float32 [3,9,5], the last of each with the end state, padded with end rows; lengths [3]."""
    lengths = torch.tensor([7, 3, 9])
    offsets = torch.randn(3, 9, 2, generator=torch.Generator().manual_seed(1))
    pens = torch.tensor([1.0, 0.0, 0.0]).repeat(3, 9, 1)
    pens[:, 2] = torch.tensor([0.0, 1.0, 0.0])
    for number, length in enumerate(lengths.tolist()):
        pens[number, length - 1 :] = torch.tensor([0.0, 0.0, 1.0])
        offsets[number, length:] = 0.0
    return torch.cat([offsets, pens], 2), lengths


def write_classifier(path: Path) -> Path:
    """A classifier of discs and boxes that never learned."""
    encoder = EncoderConfig(32, 8, 8, (2,), backbone="squeezenet1_1", stages=("fire3",), attention="none", head="identity")
    torch.manual_seed(0)
    network = SketchClassifier(encoder, ("box", "disc")).eval()
    TrainedClassifier(network, InputSpec(size=32), 3.0, {}, 1.0, {"acc@1": 50.0}).save(path, {})
    return path
