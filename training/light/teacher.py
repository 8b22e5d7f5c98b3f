"""The released encoder as a teacher: features of drawings by number, and of the photos that they are to be told apart by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.onnx import OnnxEncoder
from training.data.folder import PairsFolder
from training.data.splits import ordered
from training.evaluation import encode_photos
from training.light.stream import DrawingStream
from training.models.encoder import EmbeddingHead


@dataclass
class Teacher:
    """A bundle on ONNX Runtime. With `keep` targets are kept, as float16, so that a batch that comes again costs nothing."""

    bundle: Bundle
    stream: DrawingStream
    threads: int = 1
    keep: bool = True
    targets: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.encode = OnnxEncoder(self.bundle, self.threads).encode

    def features(self, number: int) -> Tensor:
        """Unit features float32 [B,C] of batch `number` of the stream."""
        found = self.targets.get(number)
        if found is None:
            pixels = self.stream.draw(self.stream.teacher, number)
            found = torch.from_numpy(self.encode(pixels.contiguous().numpy())).half()
            if self.keep:
                self.targets[number] = found
        return found.float()

    def head(self) -> EmbeddingHead:
        """The bundle's head, which does not train."""
        head = EmbeddingHead(self.bundle.head.features, self.bundle.head.embedding)
        with torch.no_grad():
            head.linear.weight.copy_(torch.from_numpy(np.array(self.bundle.head.weight)))
            head.linear.bias.copy_(torch.from_numpy(np.array(self.bundle.head.bias)))
        head.requires_grad_(False)
        return head.eval()

    def photos(self, most: int) -> Tensor:
        """Unit embeddings [N,D] of photos that the stream's sources train on, at most so many; the same ones every time."""
        found: dict[str, tuple[PairsFolder, str]] = {}
        for source in self.stream.teacher.sources:
            folder = source.store.folder
            for name in sorted({photo for group in source.groups.values() for photo in group}):
                found[str(folder.photo_path(name))] = folder, name
        chosen = [found[path] for path in ordered(found, "photos to be told apart")[:most]]
        spec = replace(self.bundle.input, photo_shift=0)
        rows = [encode_photos(folder, [name], self.encode, spec) for folder, name in chosen]
        return torch.from_numpy(self.bundle.head.embed(np.concatenate(rows)))
