"""What a decoder's raw outputs mean: a mixture of bivariate normals for the offset, three pen states (METHODS B.1, B.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.generation.network import PEN

MAX_CORRELATION = 0.999  # float32 leaves no digits of 1 - rho^2 nearer to 1
LOG_TWO_PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Mixture:
    """Distributions of rows; every leading shape [...] is that of the raw outputs.

    Args:
        log_weights: [...,M], log pi.
        mean: [...,M,2], of dx and dy.
        log_deviation: [...,M,2], log sigma of dx and dy.
        correlation: [...,M], rho.
        log_pen: [...,3], log-probabilities of pen down, lifted, end.
    """

    log_weights: Tensor
    mean: Tensor
    log_deviation: Tensor
    correlation: Tensor
    log_pen: Tensor

    @classmethod
    def of(cls, raw: Tensor, least_deviation: float = 0.0) -> Mixture:
        """From raw outputs [...,6M+3]: 3 pen logits, then M each of weight logits, mu_x, mu_y, log sigma_x, log sigma_y, rho.

        `least_deviation` is GeneratorConfig's.
        """
        raw = raw.float()
        pen, rest = raw[..., :PEN], raw[..., PEN:]
        logits, mu_x, mu_y, log_x, log_y, rho = rest.chunk(6, dim=-1)
        log_deviation = torch.stack([log_x, log_y], dim=-1)
        if least_deviation > 0.0:
            log_deviation = torch.logaddexp(log_deviation, log_deviation.new_tensor(math.log(least_deviation)))
        return cls(
            logits.log_softmax(-1),
            torch.stack([mu_x, mu_y], dim=-1),
            log_deviation,
            MAX_CORRELATION * torch.tanh(rho),
            pen.log_softmax(-1),
        )

    def log_prob(self, offsets: Tensor) -> Tensor:
        """Log-density [...] of offsets [...,2], in units of their scale."""
        z = (offsets[..., None, :] - self.mean) * torch.exp(-self.log_deviation)
        rho, rest = self.correlation, 1.0 - self.correlation.square()
        distance = (z.square().sum(-1) - 2.0 * rho * z[..., 0] * z[..., 1]) / rest
        log_density = -0.5 * distance - LOG_TWO_PI - self.log_deviation.sum(-1) - 0.5 * rest.log()
        return torch.logsumexp(self.log_weights + log_density, dim=-1)

    def pen_log_prob(self, pens: Tensor) -> Tensor:
        """Log-probability [...] of one-hot pen states [...,3]."""
        return (self.log_pen * pens).sum(-1)

    def log_likelihood(self, rows: Tensor) -> Tensor:
        """log p(offset) + log p(pen) [...] of rows [...,5]: the policy gradient's term of one step (METHODS B.8)."""
        return self.log_prob(rows[..., :2]) + self.pen_log_prob(rows[..., 2:])

    @torch.no_grad()
    def sample(
        self, temperature: float = 1.0, generator: torch.Generator | None = None, pen_temperature: float | None = None
    ) -> Tensor:
        """Rows [...,5]: a component, a point of it, a pen state.

        `temperature` divides the logarithms of weights and pen states and multiplies the variances; 1 draws from the distribution
        itself. `pen_temperature` (None: the same) is that of pen states. Numbers come from `generator` (None: PyTorch's own), on
        that generator's device.
        """
        device = torch.device("cpu") if generator is None else generator.device
        shape = self.log_pen.shape[:-1]
        chance = torch.rand((*shape, 2), generator=generator, device=device).to(self.mean.device)
        normal = torch.randn((*shape, 2), generator=generator, device=device).to(self.mean.device)
        component = _choose(self.log_weights, chance[..., 0], temperature)
        pen = _choose(self.log_pen, chance[..., 1], pen_temperature or temperature)
        mean, deviation = _of(self.mean, component), _of(self.log_deviation, component).exp() * math.sqrt(temperature)
        rho = self.correlation.gather(-1, component[..., None])[..., 0]
        x = normal[..., 0]
        y = rho * x + (1.0 - rho.square()).sqrt() * normal[..., 1]
        offsets = mean + deviation * torch.stack([x, y], dim=-1)
        return torch.cat([offsets, _one_hot(pen, offsets)], dim=-1)

    @torch.no_grad()
    def mode(self) -> Tensor:
        """Rows [...,5] without chance: the heaviest component's mean, the likeliest pen state (METHODS B.3, evaluation)."""
        offsets = _of(self.mean, self.log_weights.argmax(-1))
        return torch.cat([offsets, _one_hot(self.log_pen.argmax(-1), offsets)], dim=-1)


def _choose(log_weights: Tensor, chance: Tensor, temperature: float) -> Tensor:
    """Index [...] of a category of [...,K], by where `chance` [...] in [0,1) falls."""
    steps = (log_weights / temperature).softmax(-1).cumsum(-1)
    last = log_weights.shape[-1] - 1
    return (chance[..., None] >= steps).sum(-1).clamp(max=last)  # the last sum may be below 1 by rounding


def _of(values: Tensor, component: Tensor) -> Tensor:
    """[...,M,2] at components [...] -> [...,2]."""
    return values.gather(-2, component[..., None, None].expand(*component.shape, 1, 2))[..., 0, :]


def _one_hot(pen: Tensor, like: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(pen, PEN).to(like.dtype)
