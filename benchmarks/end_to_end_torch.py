"""The same pipeline as research code has it: the papers' Python rasteriser, PyTorch's network, autograd. Needs torch.

The network is the released one: its architecture from ``training.models``, its weights read from the bundle's ONNX file.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from benchmarks import adapt_torch
from benchmarks.adapt_task import EAGER, Answer, Task
from benchmarks.encode import RELEASED
from benchmarks.end_to_end_place import STEPS, TOP
from benchmarks.raster_peers import PAPERS, peers
from benchmarks.sketches import SIDE
from fgsbir_edge.arrays import Float32
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.sketch import Sketch
from training.models.config import EncoderConfig
from training.models.encoder import build_encoder

State = dict[str, Tensor]


def released_state(bundle: Bundle) -> State:
    """Weights of a bundle's network by the names that they had in PyTorch. Raises KeyError where the graph has other names."""
    from onnx import load_from_string, numpy_helper

    found = {one.name.removesuffix(".half"): one for one in load_from_string(bundle.encoder).graph.initializer}
    names = build_encoder(RELEASED, seed=0).state_dict()
    return {name: torch.from_numpy(numpy_helper.to_array(found[name]).astype(np.float32)) for name in names}


def network(state: State, config: EncoderConfig = RELEASED) -> torch.nn.Module:
    """The encoder, ready to be called, channels last as PyTorch likes convolutions best on a CPU."""
    encoder = build_encoder(config, seed=0).eval()
    encoder.load_state_dict(state)
    ready: torch.nn.Module = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return ready


def image_input(image: Image.Image, spec: InputSpec) -> Tensor:
    """A drawing, dark on light, as the network takes it: [1, 3, S, S]."""
    small = image.resize((spec.size, spec.size), Image.Resampling.BILINEAR)
    grey = torch.from_numpy(np.array(small, np.float32)).div_(255.0).expand(1, 3, -1, -1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    return ((grey - mean) / std).contiguous(memory_format=torch.channels_last)


class Research:
    """Stages on one thread, each from what the one before gives. ``compiled``: network and inner loop through torch.compile."""

    def __init__(self, bundle: Bundle, state: State, photos: Float32, *, compiled: bool = False) -> None:
        torch.set_num_threads(1)
        self._spec = bundle.input
        self._weight, self._bias = torch.tensor(bundle.head.weight), torch.tensor(bundle.head.bias)
        self.photos = torch.tensor(photos)
        self._embedded = self._embed(self.photos, self._weight, self._bias)
        net = network(state)
        self._network: Callable[[Tensor], Tensor] = torch.compile(net) if compiled else net
        self._compiled, self._image = compiled, np.empty((SIDE, SIDE), np.uint8)

    @cached_property
    def _draw(self) -> Callable[[Any, Any], object]:
        return next(peer for peer in peers()[0] if peer.name == PAPERS).draw

    def rasterise(self, sketch: Sketch) -> Tensor:
        """[1, 3, S, S] from strokes in a frame of 256 pixels: every pixel walked in Python, SciPy's dilation, Pillow's resize."""
        self._draw(list(sketch.strokes), self._image)
        return image_input(Image.fromarray(255 - self._image), self._spec)

    def encode(self, pixels: Tensor) -> Tensor:
        """[B, C]."""
        with torch.inference_mode():
            return self._network(pixels)

    def embed(self, features: Tensor) -> Tensor:
        """[B, D], unit rows."""
        with torch.inference_mode():
            return self._embed(features, self._weight, self._bias)

    def search(self, features: Tensor) -> list[int]:
        """The ten nearest photos of one sketch [1, C]."""
        with torch.inference_mode():
            return _nearest(self._embed(features, self._weight, self._bias), self._embedded)

    def adapt(self, task: Task) -> Callable[[], Answer]:
        """The inner loop over the task's pairs. Compiles here where it is to be compiled."""
        if self._compiled:
            solve = adapt_torch.compiled(task)
            return lambda: solve(STEPS)
        method = adapt_torch.methods(task)[EAGER]
        return lambda: method(STEPS)

    def search_adapted(self, features: Tensor, answer: Answer) -> list[int]:
        """The same with an adapted head, which moves photos as well: they are embedded anew."""
        with torch.inference_mode():
            weight, bias = (torch.from_numpy(np.asarray(part, np.float32)) for part in answer)
            return _nearest(self._embed(features, weight, bias), self._embed(self.photos, weight, bias))

    def query(self, sketch: Sketch) -> list[int]:
        """Strokes to the ten nearest photos."""
        return self.search(self.encode(self.rasterise(sketch)))

    @staticmethod
    def _embed(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.normalize(functional.linear(features, weight, bias), dim=1)


def _nearest(sketch: Tensor, photos: Tensor) -> list[int]:
    found: list[int] = functional.pairwise_distance(sketch, photos).topk(TOP, largest=False).indices.tolist()
    return found
