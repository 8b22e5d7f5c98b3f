"""The device's head from a checkpoint's tensors: final layer, step sizes, margin, centring."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from fgsbir_edge.errors import BundleFormatError
from fgsbir_edge.head import Head
from fgsbir_edge.margin import MarginNet
from training.checkpoint import read_meta

PLAIN_STEP_SIZE = 0.1  # for checkpoints that no outer loop has trained; adaptation then is plain gradient descent


def runtime_head(path: Path) -> Head:
    """Head of a supervised or meta-trained checkpoint; what the latter learned about adapting goes with it.

    Raises:
        BundleFormatError: step sizes that no device runs.
    """
    tensors, settings = load_file(path), read_meta(path).get("adaptation")
    weight, bias = tensors["head.linear.weight"], tensors["head.linear.bias"]
    if settings is None:
        return Head(weight, bias, np.array([PLAIN_STEP_SIZE], dtype=np.float32))
    if tensors["adaptation.step_sizes"].ndim > 1:
        raise BundleFormatError(f'{path}: each row of the head has step sizes of its own; train with inner.rates = "step"')
    prefix = "adaptation.margin."
    centre = settings.get("centre")  # None where nothing was centred, absent in checkpoints from before
    net = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return Head(
        weight,
        bias,
        tensors["adaptation.step_sizes"],
        margin_net=MarginNet(**net) if net else None,
        margin=float(settings["margin"] or 0.0) if net == {} else 0.3,
        sharpness=float(settings["sharpness"]),
        side=settings["side"],
        negatives="gallery" if settings["negatives"] else "support",
        centre=math.inf if centre is None else float(centre),
    )
