"""What the generator learns from labelled pairs: reconstruction and KL divergence (METHODS B.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from training.generation.mixture import Mixture
from training.generation.network import Encoded, Generator, real_rows, shifted
from training.generation.sampling import draw_latent

Mask = Literal["end", "released"]
RELEASED_EPSILON = 1e-6  # inside the released code's logarithms


@dataclass(frozen=True)
class VaeLossConfig:
    """L_vae = L_R + weight * w_t * max(L_kl, free_bits), w_t = 1 - (1 - anneal_from) * anneal_rate^t (METHODS B.2).

    mask         "end": offset and pen of every row of a drawing, of its last one too, whose pen state is the first end token;
                 mean over these rows. A deviation: the code's mask leaves out all rows whose target is "end", so that nothing
                 ever raises the end token's probability and the model cannot learn to stop.
                 "released": that mask, 1e-6 inside the logarithms, mean over all positions, padding too
    weight       omega_kl, 1 in the paper
    free_bits    the divergence, a mean over batch and dimensions, counts at least this: below it nothing pushes
    anneal_from  share of the weight at step 0; 1 for no annealing
    anneal_rate  how fast the rest of it comes

    Raises:
        ValueError: a number out of range, or an unknown mask.
    """

    mask: Mask = "end"
    weight: float = 1.0
    free_bits: float = 0.2
    anneal_from: float = 0.01
    anneal_rate: float = 0.99995

    def __post_init__(self) -> None:
        if self.mask not in ("end", "released"):
            raise ValueError(f'mask is {self.mask!r}, expected "end" or "released"')
        if min(self.weight, self.free_bits) < 0 or not (0 <= self.anneal_from <= 1 and 0 <= self.anneal_rate <= 1):
            raise ValueError("weight and free_bits must not be negative, anneal_from and anneal_rate must lie in [0,1]")

    def kl_weight(self, step: int) -> float:
        """What the divergence is multiplied by at `step`, from 0."""
        return self.weight * (1.0 - (1.0 - self.anneal_from) * self.anneal_rate**step)


@dataclass(frozen=True)
class Reconstruction:
    """L_R and its two parts, scalars: negative log-density of the offsets, cross-entropy of the pen states."""

    offset: Tensor
    pen: Tensor

    @property
    def total(self) -> Tensor:
        return self.offset + self.pen


def reconstruction(mixture: Mixture, rows: Tensor, lengths: Tensor, mask: Mask = "end") -> Reconstruction:
    """Loss of predicting rows [B,T,5] of drawings of `lengths` int64 [B], the row with the end token included."""
    if mask == "released":
        shown = 1.0 - rows[..., 4]
        offset = -torch.log(mixture.log_prob(rows[..., :2]).exp() + RELEASED_EPSILON)
        pen = -(rows[..., 2:] * torch.log(mixture.log_pen.exp() + RELEASED_EPSILON)).sum(-1)
        return Reconstruction((offset * shown).mean(), (pen * shown).mean())
    real = real_rows(lengths, rows.shape[1])
    count = real.sum()
    offset, pen = -mixture.log_prob(rows[..., :2]), -mixture.pen_log_prob(rows[..., 2:])
    return Reconstruction(offset[real].sum() / count, pen[real].sum() / count)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(m, sigma^2) || N(0, 1)), mean over batch and dimensions of [B,Z]."""
    return -0.5 * (1.0 + log_variance - mean.square() - log_variance.exp()).mean()


def kl_loss(mean: Tensor, log_variance: Tensor, free_bits: float) -> Tensor:
    """The divergence, or `free_bits` without a gradient where it is less."""
    return kl_divergence(mean, log_variance).clamp(min=free_bits)


def vae_loss(
    generator: Generator, encoded: Encoded, target: tuple[Tensor, Tensor], config: VaeLossConfig, step: int
) -> tuple[Tensor, dict[str, float]]:
    """L_vae at `step` of photos encoded and people's drawings of them: rows [B,T,5] and lengths [B], as SequenceSet has them or
    cut to the longest. Chance comes from PyTorch's own generator.

    Returns the loss with its gradient, and the values of its terms: offset, pen, kl (before the floor).
    """
    rows, lengths = generator.targets(*target)
    raw, _ = generator.decode(encoded, shifted(rows), draw_latent(encoded), lengths)
    parts = reconstruction(Mixture.of(raw, generator.config.least_deviation), rows, lengths, config.mask)
    total = parts.total + config.kl_weight(step) * kl_loss(encoded.mean, encoded.log_variance, config.free_bits)
    divergence = kl_divergence(encoded.mean.detach(), encoded.log_variance.detach())
    return total, {"offset": parts.offset.item(), "pen": parts.pen.item(), "kl": divergence.item()}
