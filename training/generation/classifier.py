"""The sketch classifier that generated sketches are measured with (METHODS B.10): recognition, and features for FID.

The paper's is a ResNet-50 trained on TU-Berlin. This one is trained on whatever sketches are at hand
(training/sketch_classifier.py), so its figures compare with each other and not with the paper's. All it ever sees are vector
sketches, raster ones traced, thinned and drawn alike: a difference of pen or file between its categories would be recognised
in place of what was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import BundleFormatError, BundleMissingFileError
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.sketch import Sketch
from training.checkpoint import read_meta, save_tensors
from training.generation.pictures import is_dot, sketch_input
from training.generation.sequences import prepared
from training.models.config import EncoderConfig
from training.models.encoder import build_encoder

KIND = "sketch classifier"


class SketchClassifier(nn.Module):
    """Sketches [B,3,S,S] -> features [B,C] -> logits [B,K], a column for each of `categories`.

    The features are the encoder's projection, not brought to unit length: FID fits a Gaussian to them, which a sphere is not.
    """

    def __init__(self, config: EncoderConfig, categories: Sequence[str]) -> None:
        super().__init__()
        self.encoder = build_encoder(config)
        self.categories = tuple(categories)
        self.output = nn.Linear(config.features, len(self.categories))

    def features(self, x: Tensor) -> Tensor:
        """Float32 [B,3,S,S] -> [B,C]."""
        encoder = self.encoder
        projected: Tensor = encoder.projection(encoder.dropout(encoder.pool(x)))
        return projected

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(torch.relu(self.features(x)))
        return logits


@dataclass(frozen=True, eq=False)
class Classified:
    """`logits` [N,K] and `features` [N,C], float32."""

    logits: Float32
    features: Float32


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """A classifier with all that using it needs.

    Args:
        network: in evaluation mode.
        input: how sketches become pixels.
        epsilon: how much they are thinned first, canvas units.
        rename: categories of data that go by another name here.
        scale: what features are divided by, so that FID does not depend on how large the network makes them.
        validation: its own figures on sketches held back.
    """

    network: SketchClassifier
    input: InputSpec
    epsilon: float
    rename: dict[str, str]
    scale: float
    validation: dict[str, Any]

    @property
    def categories(self) -> tuple[str, ...]:
        return self.network.categories

    def category(self, name: str) -> str:
        """What a data set's category is called here. Raises BundleFormatError for one that the classifier does not know."""
        known = self.rename.get(name, name)
        if known not in self.categories:
            raise BundleFormatError(
                f"the sketch classifier knows no category {name!r}: train it on sketches of it, or rename it there; "
                f"it has {', '.join(self.categories[:5])} and {max(0, len(self.categories) - 5)} more"
            )
        return known

    @torch.no_grad()
    def classify(self, sketches: Sequence[Sketch], batch: int = 32) -> Classified:
        """Logits and features of sketches, real or generated, thinned and drawn alike; one without extent is the dot it is."""
        device = next(self.network.parameters()).device
        thin = [sketch if is_dot(sketch) else prepared(sketch, self.epsilon) for sketch in sketches]
        logits, features = [np.empty((0, len(self.categories)), np.float32)], [np.empty((0, self.width), np.float32)]
        for start in range(0, len(thin), batch):
            pixels = torch.from_numpy(sketch_input(thin[start : start + batch], self.input)).to(device)
            rows = self.network.features(pixels)
            features.append((rows / self.scale).cpu().numpy())
            logits.append(self.network.output(torch.relu(rows)).cpu().numpy())
        return Classified(np.concatenate(logits), np.concatenate(features))

    @property
    def width(self) -> int:
        """C."""
        return int(self.network.encoder.config.features)

    def save(self, path: Path, meta: dict[str, Any]) -> None:
        """Write it as safetensors, `meta` beside what loading needs."""
        own = {
            "kind": KIND,
            "config": self.network.encoder.config.to_json(),
            "categories": list(self.categories),
            "input": self.input.to_manifest(),
            "epsilon": self.epsilon,
            "rename": self.rename,
            "scale": self.scale,
            "validation": self.validation,
        }
        save_tensors(path, self.network.state_dict(), {**meta, **own})


def load_classifier(path: Path) -> TrainedClassifier:
    """A classifier as `TrainedClassifier.save` wrote it.

    Raises BundleMissingFileError where there is no such file, BundleFormatError where it is another kind of file or damaged.
    """
    if not path.is_file():
        raise BundleMissingFileError(f"{path}: no such file; train a classifier with python -m training.sketch_classifier")
    try:
        meta = read_meta(path)
        if meta.get("kind") != KIND:
            raise ValueError(f"it is a {meta.get('kind', 'checkpoint of another kind')}")
        network = SketchClassifier(EncoderConfig.from_json(meta["config"]), meta["categories"])
        network.load_state_dict(load_file(path))
        spec = InputSpec.from_manifest(meta["input"])
        numbers = float(meta["epsilon"]), dict(meta["rename"]), float(meta["scale"])
        return TrainedClassifier(network.eval(), spec, *numbers, dict(meta["validation"]))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise BundleFormatError(
            f"{path}: not a sketch classifier ({reason}); give a .safetensors of training.sketch_classifier"
        ) from error
