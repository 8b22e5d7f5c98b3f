"""Drawing photos: rows one by one until the end token, and the likelihood of what was drawn (METHODS B.3, B.8)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.generation.mixture import Mixture
from training.generation.network import MOVE, PEN, Encoded, Generator, State, real_rows, shifted
from training.generation.sequences import END, START

SHRINK = 0.75  # of the drawings still going on: below it the others are dropped from the computation


@dataclass(frozen=True)
class DrawOptions:
    """How to draw.

    temperature  of components, pen states and variances (Mixture.sample). 1 is what the policy gradient needs: log_likelihood is
                 that of the sampler then, and only then
    pen_temperature  of the pen states alone, None: the same, as in METHODS B.3. Where the pen rises or stops once in many rows,
                 a low temperature keeps it from ever doing so: 1 with a low `temperature` gives steady lines that still end
    greedy       without chance: mean latent vector, the heaviest component's mean, the likeliest pen state, as the released code
                 evaluates
    max_length   rows at most; 0: the generator's own
    attention    keep the attention weights
    states       keep the hidden states, so that log_likelihood needs no second pass
    """

    temperature: float = 1.0
    greedy: bool = False
    max_length: int = 0
    attention: bool = False
    states: bool = False
    pen_temperature: float | None = None

    def __post_init__(self) -> None:
        if min(self.temperature, self.pen_temperature or 1.0) <= 0 or self.max_length < 0:
            raise ValueError("temperature and pen_temperature must be positive, max_length not negative")


@dataclass(frozen=True)
class Drawn:
    """B drawings.

    Args:
        rows: float32 [B,T,5], offsets in units of the scale; after the end row (0,0,0,0,1).
        lengths: int64 [B], rows up to and including the end row; T where no end token came.
        latent: float32 [B,Z], the latent vectors they were drawn from.
        attention: float32 [B,T,h,w], where each row looked, 0 after the end; None unless asked for, or without 2D attention.
        hidden: float32 [B,T,H], what the output layer saw, with `move` [B,T+1,H]; None unless asked for.
        move: float32 [B,2], with GeneratorConfig.positions: from the canvas' middle to the first point, drawn before the rows.
    """

    rows: Tensor
    lengths: Tensor
    latent: Tensor
    attention: Tensor | None = None
    hidden: Tensor | None = None
    move: Tensor | None = None

    @property
    def ended(self) -> Tensor:
        """bool [B]: whether the end token came."""
        return self.rows[torch.arange(len(self.rows), device=self.rows.device), self.lengths - 1, 4] > 0.5


def draw_latent(encoded: Encoded, rng: torch.Generator | None = None) -> Tensor:
    """z = m + sigma * eps [B,Z] (METHODS B.1), with its gradient; chance from `rng`, on that generator's device."""
    device = torch.device("cpu") if rng is None else rng.device
    noise = torch.randn(encoded.mean.shape, generator=rng, device=device).to(encoded.mean)
    return encoded.mean + torch.exp(0.5 * encoded.log_variance) * noise


@torch.no_grad()
def draw(
    generator: Generator, photos: Tensor | Encoded, options: DrawOptions = DrawOptions(), rng: torch.Generator | None = None
) -> Drawn:
    """Draw photos, float32 [B,3,S,S] or encoded already. The same `rng` state gives the same drawings.

    Call it in evaluation mode unless the backbone's own layers are meant to behave as in training.
    """
    config = generator.config
    encoded = photos if isinstance(photos, Encoded) else generator.encode(photos)
    latent = encoded.mean if options.greedy else draw_latent(encoded, rng)
    count, first = len(latent), int(config.positions)  # rows before those of the drawing: the move to its first point
    length = first + (options.max_length or config.max_length)
    rows = latent.new_tensor(END).repeat(count, length, 1)
    lengths = torch.full((count,), length, device=latent.device)
    kept = _Kept(generator, options, rows)
    going = torch.arange(count, device=latent.device)  # the drawings that are computed, some of which may have ended
    open_ = torch.ones(count, dtype=torch.bool, device=latent.device)  # among them, those that go on
    state, last = generator.begin(latent), latent.new_tensor(START).repeat(count, 1)
    for step in range(length):
        state, weights = generator.step(encoded, state, last)
        mixture = Mixture.of(generator.output(state.h), config.least_deviation)
        last = mixture.mode() if options.greedy else mixture.sample(options.temperature, rng, options.pen_temperature)
        if step < first:
            last[:, 2:] = last.new_tensor(MOVE)
        now = going[open_]
        rows[now, step] = last[open_]
        kept.add(step, now, state, weights, open_)
        ends = open_ & (last[:, 4] > 0.5)
        lengths[going[ends]] = step + 1
        open_ = open_ & ~ends
        left = int(open_.sum())
        if left == 0:
            break
        if left < SHRINK * len(going):
            index = open_.nonzero()[:, 0]
            going, state, encoded, last = going[index], state.rows(index), encoded.rows(index), last[index]
            open_ = open_[index]
    attention = None if kept.attention is None else kept.attention[:, first:]
    return Drawn(rows[:, first:], lengths - first, latent, attention, kept.hidden, rows[:, 0, :2] if first else None)


class _Kept:
    """Attention weights and hidden states of a drawing batch, where asked for."""

    def __init__(self, generator: Generator, options: DrawOptions, rows: Tensor) -> None:
        count, length, side = *rows.shape[:2], generator.side
        looks = options.attention and generator.config.use_attention
        self.attention = rows.new_zeros(count, length, side, side) if looks else None
        self.hidden = rows.new_zeros(count, length, generator.config.hidden) if options.states else None

    def add(self, step: int, now: Tensor, state: State, weights: Tensor | None, open_: Tensor) -> None:
        if self.attention is not None and weights is not None:
            self.attention[now, step] = weights[open_].view(-1, *self.attention.shape[2:])
        if self.hidden is not None:
            self.hidden[now, step] = state.h[open_]


def log_likelihood(generator: Generator, photos: Tensor | Encoded | None, drawn: Drawn) -> Tensor:
    """Sum over a drawing's rows of log p(offset) + log p(pen), [B]: what the policy gradient multiplies by the reward. With
    `positions` the move to the first point counts too, its pen state apart, which is no choice.

    The gradient reaches W_y and b_y alone (METHODS B.8): hidden states count as given. It is the log-probability that `draw` with
    temperature 1 drew by, given the latent vector.

    Args:
        photos: float32 [B,3,S,S] or encoded already, in the order of `drawn`; None takes `drawn.hidden`, which is right while the
            generator is as it was when it drew.

    Raises:
        ValueError: neither photos nor hidden states.
    """
    rows, lengths, first = drawn.rows, drawn.lengths, drawn.move is not None
    if drawn.move is not None:
        pen = rows.new_tensor(MOVE).expand(len(rows), PEN)
        rows, lengths = torch.cat([torch.cat([drawn.move, pen], 1)[:, None], rows], 1), lengths + 1
    if photos is None:
        if drawn.hidden is None:
            raise ValueError("neither photos nor hidden states: give photos, or draw with DrawOptions(states=True)")
        hidden = drawn.hidden
    else:
        with torch.no_grad():
            encoded = photos if isinstance(photos, Encoded) else generator.encode(photos)
            hidden, _ = generator.states(encoded, shifted(rows), drawn.latent, lengths)
    mixture = Mixture.of(generator.output(hidden.detach()), generator.config.least_deviation)
    real = real_rows(lengths, rows.shape[1])
    offsets, pens = mixture.log_prob(rows[..., :2]), mixture.pen_log_prob(rows[..., 2:])
    return torch.where(real, offsets, 0.0).sum(1) + torch.where(real, pens, 0.0)[:, first:].sum(1)
