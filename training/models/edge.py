"""Edge maps inside the network, so that a device sends three channels whatever the encoder looks at."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgsbir_edge.preprocess import InputSpec

LUMINANCE = (0.299, 0.587, 0.114)
STEEPEST = 4.0  # the largest response of one Sobel kernel to luminance in [0,1]
FLOOR = 1e-6  # keeps the square root's gradient finite


class EdgeMap(nn.Module):
    """Normalised RGB [B,3,S,S] -> edges [B,channels,S,S], normalised likewise: black where luminance changes, white elsewhere.

    Sobel's gradient magnitude, 1 for the steepest step between black and white. The outermost pixels are white. A drawn line
    becomes its two sides.
    """

    def __init__(self, channels: int, spec: InputSpec | None = None) -> None:
        super().__init__()
        spec = spec or InputSpec()
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / STEEPEST
        grey = torch.tensor(LUMINANCE) * torch.tensor(spec.std)  # the mean drops out of a difference
        kernel = torch.stack([sobel, sobel.T])[:, None] * grey[None, :, None, None]  # [2,3,3,3]
        index = [min(channel, 2) for channel in range(channels)]
        self.kernel: Tensor
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("kernel", kernel, persistent=False)
        self.register_buffer("mean", torch.tensor(spec.mean)[index].view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std)[index].view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        gradient = F.pad(F.conv2d(x, self.kernel), (1, 1, 1, 1))
        magnitude = torch.sqrt((gradient * gradient).sum(1, keepdim=True) + FLOOR).clamp_max(1.0)
        return (1.0 - magnitude - self.mean) / self.std
