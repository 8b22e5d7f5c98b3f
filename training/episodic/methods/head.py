"""Methods that change the last layer alone, over features that a checkpoint's encoder gives once for all episodes.

No adaptation, plain fine-tuning of the head, and heads that were meta-trained to be adapted: ANIL (Raghu et al., ICLR 2020:
the inner loop on the last layer alone) and the method of METHODS C, which are one computation with other trained numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fgsbir_edge.adapt import AdaptOptions, adapt
from fgsbir_edge.head import Head, Side
from fgsbir_edge.preprocess import InputSpec
from training.checkpoint import load_model, read_meta
from training.episodes import Task
from training.episodic.methods.protocol import EncodedEpisode, Role, Scorer, cosine
from training.episodic.methods.settings import Setting
from training.evaluation import Reading, encode_rows, photo_input, sketch_input, torch_encode
from training.heads import runtime_head


@dataclass(eq=False)
class Features:
    """Unit features of a setting's items by a checkpoint's encoder, encoded when first asked for: clean images, once each.

    The mean over shifted copies of a photo that a device may take (InputSpec.photo_shift) is left out, for all methods alike:
    methods that change the encoder would have to encode every copy in every episode.
    """

    setting: Setting
    checkpoint: Path
    known: dict[Role, dict[int, np.ndarray]] = field(default_factory=lambda: {"sketch": {}, "photo": {}})

    def __post_init__(self) -> None:
        encoder, _, meta = load_model(self.checkpoint)
        self._encode = torch_encode(encoder)
        self._spec = replace(InputSpec.from_manifest(meta["input"]), photo_shift=0)

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Encode what these tasks need and is not known yet."""
        self._add("sketch", np.unique(np.concatenate([task.sketches for task in tasks])))
        self._add("photo", np.unique(np.concatenate([task.gallery for task in tasks])))

    def sketches(self, rows: np.ndarray) -> Tensor:
        """float32 [n,C]."""
        return self._rows("sketch", rows)

    def photos(self, rows: np.ndarray) -> Tensor:
        """float32 [n,C]."""
        return self._rows("photo", rows)

    def _rows(self, role: Role, rows: np.ndarray) -> Tensor:
        self._add(role, rows)
        return torch.from_numpy(np.stack([self.known[role][int(row)] for row in rows]))

    def _add(self, role: Role, rows: np.ndarray) -> None:
        known = self.known[role]
        missing = sorted({int(row) for row in rows} - set(known))
        if not missing:
            return
        folder, spec = self.setting.folder, self._spec
        names = self.setting.sketches if role == "sketch" else self.setting.photos
        load = sketch_input if role == "sketch" else photo_input
        encoded = encode_rows([names[row] for row in missing], lambda name: load(folder, name, spec), self._encode, Reading())
        known.update(zip(missing, encoded.rows, strict=True))


@dataclass(frozen=True, eq=False)
class Layer:
    """A head: weight [D,C], bias [D], both float32."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, checkpoint: Path) -> Layer:
        """The head of a checkpoint. Raises what loading it raises."""
        linear = load_model(checkpoint)[1].linear
        return cls(linear.weight.detach(), linear.bias.detach())

    def outputs(self, features: Tensor) -> Tensor:
        """[n,C] -> [n,D], before they are normalised."""
        return features @ self.weight.T + self.bias


@dataclass(frozen=True, eq=False)
class HeadMethod:
    """What head-level methods share: a checkpoint, its head, and features by setting (given, so that methods share them)."""

    name: str
    layer: Layer
    features: dict[str, Features]

    def items(self, setting: Setting, tasks: Sequence[Task]) -> Features:
        """The setting's features, with those of `tasks` there."""
        found = self.features[setting.name]
        found.prepare(tasks)
        return found

    def adapted(self, episode: EncodedEpisode, rng: np.random.Generator) -> Scorer:
        """No adaptation: the head as it is."""
        return cosine(lambda features, role: unit(self.layer.outputs(features)))


def unit(outputs: Tensor) -> np.ndarray:
    """Unit rows float32 of outputs [n,D]."""
    rows: np.ndarray = F.normalize(outputs.detach(), dim=-1).numpy()
    return rows


@dataclass(frozen=True)
class DescentConfig:
    """Plain gradient steps on the k pairs (METHODS C.9); rate and steps are chosen on training tasks.

    margin, sharpness  of the support's triplet loss; sharpness 0 is the hinge
    side               which embeddings the new head gives: "both", as in the paper, or "sketch"
    """

    rate: float = 0.1
    steps: int = 5
    margin: float = 0.3
    sharpness: float = 10.0
    side: Side = "both"

    def head(self, layer: Layer) -> Head:
        """The layer with these numbers in the place of learned ones."""
        rates = np.full(self.steps, self.rate, np.float32)
        return Head(layer.weight.numpy(), layer.bias.numpy(), rates, margin=self.margin, sharpness=self.sharpness, side=self.side)


@dataclass(frozen=True, eq=False)
class AdaptedHead(HeadMethod):
    """Gradient descent on W and b of the triplet loss of the support, by the device's own code, its guard switched off.

    What is in `head` makes the method: a supervised head with chosen rates (fine-tuning), or a meta-trained one with its rates
    and margin (ANIL, ours). `steps` None: as many as the head was trained to take; beyond these the last rate is repeated.
    """

    head: Head
    negatives: int = 0  # further photos in the inner loss
    steps: int | None = None

    def adapted(self, episode: EncodedEpisode, rng: np.random.Generator) -> Scorer:
        if self.steps == 0:
            return super().adapted(episode, rng)
        sketches, photos, places = (np.asarray(item) for item in episode.support(self.negatives))
        further = photos[int(places.max()) + 1 :]
        if math.isfinite(self.head.centre):
            further = further[: self.negatives]  # as on a device, where a lone pair is centred and takes no step
        options = AdaptOptions(self.steps, negatives="gallery" if len(further) else "support", guard=False)
        result = adapt(self.head, sketches, photos[places], negatives_features=further, options=options)

        def embed(features: Tensor, role: Role) -> np.ndarray:
            return result.adapter.embed(self.head, features.numpy(), role)

        return cosine(embed)


def learned_head(name: str, checkpoint: Path, features: dict[str, Features]) -> AdaptedHead:
    """A meta-trained checkpoint as it goes to a device. Raises what loading it raises."""
    negatives = int(read_meta(checkpoint)["adaptation"]["negatives"])
    return AdaptedHead(name, Layer.of(checkpoint), features, runtime_head(checkpoint), negatives)
