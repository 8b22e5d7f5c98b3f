"""A random network over the drawn shapes, and a setting of them, for tests of adaptation methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from fgsbir_edge.preprocess import InputSpec
from training.checkpoint import save_model
from training.data.augment import Augmentation
from training.data.folder import PairsFolder
from training.data.pixels import PixelStore
from training.episodic.config import Setting as Kind
from training.episodic.methods.settings import Setting, SettingConfig, open_setting
from training.models.config import EncoderConfig
from training.models.encoder import build_encoder, build_head, initialise_by_pca

SIZE, FEATURES, EMBEDDING = 64, 16, 8


def checkpoint(path: Path, shapes: Path) -> Path:
    """A network that nobody has trained, always the same one; batch norms and principal components tell the shapes apart."""
    config, spec = EncoderConfig(SIZE, FEATURES, EMBEDDING, grids=(2, 1), norm="fresh"), InputSpec(size=SIZE)
    encoder = build_encoder(config, seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        head = build_head(config).eval()
    folder = PairsFolder.read(shapes)
    pixels = torch.cat(PixelStore(folder, spec).batch(folder.pairs, np.random.default_rng(0), Augmentation.none()))
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of the one batch below
    with torch.no_grad():
        encoder.train().pool(pixels)
        initialise_by_pca(encoder.eval(), head, encoder.pool(pixels), 0.25)
    save_model(path, encoder, head, {"input": spec.to_manifest()})
    return path


def setting(shapes: Path, kind: Kind) -> Setting:
    """The shapes as people (two, twelve photos each) or as categories (two, six photos drawn twice and one distractor)."""
    return open_setting(SettingConfig(kind, kind, shapes.name), shapes.parent)
