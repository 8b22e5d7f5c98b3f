"""The photo-to-sketch generator G (METHODS B.1): CNN map, latent vector, 2D attention, LSTM, mixture parameters.

    photos [B,3,S,S] ─backbone─▶ map [B,c,h,w] ─encode_maps─▶ values [B,L,C], keys [B,L,A], mean and log variance [B,Z]
    z [B,Z] ─start─▶ state h, c [B,H]
    each step: query from h ─▶ weights [B,L] ─▶ glimpse [B,C] ─▶ LSTM([glimpse; row before]) ─▶ h ─output─▶ y [B,6M+3]

Keys, the 3x3 convolution of the map, do not depend on the step: they are computed once for each photo.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from training.generation.config import GeneratorConfig
from training.generation.recurrence import Weights, recur
from training.generation.sequences import START
from training.models.registry import build_backbone

PEN = 3  # pen states: down, lifted, end
MOVE = (0.0, 1.0, 0.0)  # the pen's state after the move from the canvas' middle to the first point


@dataclass(frozen=True)
class Encoded:
    """Photos as the decoder sees them.

    Args:
        values: [B,L,C], what is glimpsed at: the map's L cells in rows; [B,1,C], the global vector, without 2D attention.
        keys: [B,L,A], their part of the attention's hidden layer; None without 2D attention.
        mean, log_variance: [B,Z], the distribution of the latent vector.
    """

    values: Tensor
    keys: Tensor | None
    mean: Tensor
    log_variance: Tensor

    def __len__(self) -> int:
        return len(self.mean)

    def rows(self, index: Tensor | slice) -> Encoded:
        """Some photos: a slice of them, or those of the numbers int64 [K]."""
        keys = None if self.keys is None else self.keys[index]
        return Encoded(self.values[index], keys, self.mean[index], self.log_variance[index])


@dataclass(frozen=True)
class State:
    """The decoder between two steps: h, c [B,H], and the pen's place [B,2], in units of the offsets' scale from the beginning."""

    h: Tensor
    c: Tensor
    pen: Tensor

    def rows(self, index: Tensor | slice) -> State:
        """Some rows: a slice of them, or those of the numbers int64 [K]."""
        return State(self.h[index], self.c[index], self.pen[index])


class Generator(nn.Module):
    """Pixels of photos to the parameters of the next row's distribution, step by step. Everything is float32 but the backbone,
    which autocast may compute in less.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone, config.options)
        self.backbone.requires_grad_(config.train_backbone)
        (self.side,) = self.backbone.side(config.size)
        channels = config.tap.channels
        self.mean = nn.Linear(channels, config.latent)
        self.log_variance = nn.Linear(channels, config.latent)
        self.start = nn.Linear(config.latent, 2 * config.hidden)
        if config.use_attention:
            self.key = nn.Conv2d(config.channels, config.attention, 3, padding=1)
            self.query = nn.Linear(config.hidden + 2 * config.positions, config.attention)
            self.score = nn.Linear(config.attention, 1)
            self.score.bias.requires_grad_(False)  # the softmax takes it out again
        glimpse = config.channels if config.use_attention else channels
        self.cell = nn.LSTMCell(glimpse + 2 + PEN + 2 * config.positions, config.hidden)
        self.output = nn.Linear(config.hidden, 6 * config.mixtures + PEN)

    def train(self, mode: bool = True) -> Generator:
        """As in PyTorch; a backbone that is not trained stays in evaluation."""
        super().train(mode)
        if not self.config.train_backbone:
            self.backbone.eval()
        return self

    def maps(self, photos: Tensor) -> Tensor:
        """[B,3,S,S], normalised as the backbone expects -> the tapped map [B,c,h,w]; no gradient where the backbone is fixed."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.train_backbone):
            (level,) = self.backbone(photos)
        found: Tensor = level
        return found

    def targets(self, rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What `decode` is to predict of drawings, rows [B,T,5] and lengths [B]: these, or with `positions` first the move to
        where the drawing begins, [B,T+1,5] and lengths + 1. Where that is follows from the rows, since drawings are centred.
        """
        return with_move(rows, lengths) if self.config.positions else (rows, lengths)

    def encode(self, photos: Tensor) -> Encoded:
        """float32 [B,3,S,S] -> what the decoder needs of the photos."""
        return self.encode_maps(self.maps(photos))

    def encode_maps(self, maps: Tensor) -> Encoded:
        """The same from maps [B,c,h,w] of any precision, for instance kept from an earlier run of the backbone."""
        with torch.autocast(maps.device.type, enabled=False):
            maps = nn.functional.dropout2d(maps.to(self.mean.weight.dtype), self.config.dropout, self.training)
            pooled = maps.mean((2, 3)) if self.config.pooling == "avg" else maps.amax((2, 3))
            mean, log_variance = self.mean(pooled), self.log_variance(pooled)
            if not self.config.use_attention:
                return Encoded(pooled[:, None], None, mean, log_variance)
            if self.config.positions:
                maps = torch.cat([maps, places(maps)], dim=1)
            keys = self.key(maps).flatten(2).transpose(1, 2).contiguous()
            return Encoded(maps.flatten(2).transpose(1, 2).contiguous(), keys, mean, log_variance)

    def begin(self, latent: Tensor) -> State:
        """The state before the first step: [h; c] = tanh(W_z z + b_z) of latent vectors [B,Z], the only place they enter."""
        h, c = torch.tanh(self.start(latent)).chunk(2, dim=1)
        return State(h, c, latent.new_zeros(len(latent), 2))

    def step(self, encoded: Encoded, state: State, row: Tensor) -> tuple[State, Tensor | None]:
        """One step: the row before [B,5] -> the new state, and the attention weights [B,L] (None without 2D attention).

        The attention looks with the state before the update.
        """
        pen = state.pen + row[:, :2]
        weights, glimpse = self.attend(encoded, torch.cat([state.h, pen], 1) if self.config.positions else state.h)
        seen = [glimpse, row, pen] if self.config.positions else [glimpse, row]
        h, c = self.cell(torch.cat(seen, dim=1), (state.h, state.c))
        return State(h, c, pen), weights

    def attend(self, encoded: Encoded, h: Tensor) -> tuple[Tensor | None, Tensor]:
        """Weights [B,L], softmax of W_a tanh(keys + W_S h), and the glimpse [B,C], their mean of the values.

        `h`: [B,H], with `positions` [B,H+2], the pen's place behind it.
        """
        if encoded.keys is None:
            return None, encoded.values[:, 0]
        hidden = torch.tanh(encoded.keys + self.query(h)[:, None])
        weights = self.score(hidden).squeeze(2).softmax(dim=1)
        return weights, torch.bmm(weights[:, None], encoded.values)[:, 0]

    def states(
        self, encoded: Encoded, inputs: Tensor, latent: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Hidden states [B,T,H] with the rows given (teacher forcing), and attention weights [B,T,L].

        Args:
            inputs: float32 [B,T,5], the row before each step, the first one START.
            latent: [B,Z].
            lengths: int64 [B], steps that count, 1 to T; later ones are left out and 0 in what is returned. None: all.
        """
        with torch.autocast(inputs.device.type, enabled=False):
            if lengths is None:
                return self._states(encoded, inputs, latent, [len(inputs)] * inputs.shape[1])
            order = lengths.argsort(descending=True, stable=True)  # rows that have ended lie behind those that go on
            counts = (lengths[:, None] > torch.arange(inputs.shape[1], device=lengths.device)).sum(0).tolist()
            hidden, weights = self._states(encoded.rows(order), inputs[order], latent[order], counts)
            back = order.argsort()
            return hidden[back], None if weights is None else weights[back]

    def _states(self, encoded: Encoded, inputs: Tensor, latent: Tensor, counts: list[int]) -> tuple[Tensor, Tensor | None]:
        """`states` where step t runs on the first counts[t] rows."""
        state, cell = self.begin(latent), self.cell
        rows = torch.cat([inputs, inputs[..., :2].cumsum(1)], dim=2) if self.config.positions else inputs
        weights = Weights(cell.weight_ih, cell.weight_hh, cell.bias_ih + cell.bias_hh)
        if self.config.use_attention:
            weights = replace(weights, query=self.query.weight, query_bias=self.query.bias, score=self.score.weight[0])
        return recur(weights, encoded.values, encoded.keys, (state.h, state.c), rows, counts)

    def decode(
        self, encoded: Encoded, inputs: Tensor, latent: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """`states`, and the output layer behind: raw outputs [B,T,6M+3] (mixture.Mixture reads them), weights [B,T,L].

        Raises ValueError for rows that lack the move that `targets` puts first.
        """
        if self.config.positions and inputs.shape[1] > 1 and not bool((inputs[:, 1, 3] == MOVE[1]).all()):
            raise ValueError(
                "with positions a drawing begins with the move to its first point: give decode shifted(targets(rows))"
            )
        hidden, weights = self.states(encoded, inputs, latent, lengths)
        with torch.autocast(inputs.device.type, enabled=False):
            return self.output(nn.functional.dropout(hidden, self.config.dropout, self.training)), weights

    def trained_state(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of all that training changes: without the backbone where that is fixed."""
        for name, tensor in self.state_dict().items():
            if self.config.train_backbone or not name.startswith("backbone."):
                yield name, tensor


def places(maps: Tensor) -> Tensor:
    """x and y of every cell's centre, from -1 to 1 between the map's borders: [B,c,h,w] -> [B,2,h,w]."""
    height, width = maps.shape[2:]
    y = (torch.arange(height, device=maps.device) + 0.5) / height * 2 - 1
    x = (torch.arange(width, device=maps.device) + 0.5) / width * 2 - 1
    grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
    return grid.to(maps.dtype).expand(maps.shape[0], 2, height, width)  # len() would fix the batch in an export


def with_move(rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [B,T,5] of centred drawings behind the move from the canvas' middle to their first point: [B,T+1,5], lengths + 1."""
    path = rows[..., :2].cumsum(1)
    beyond = ~real_rows(lengths, rows.shape[1])[..., None]
    high = path.masked_fill(beyond, -torch.inf).amax(1).clamp(min=0.0)  # the first point, at 0, counts too
    low = path.masked_fill(beyond, torch.inf).amin(1).clamp(max=0.0)
    move = torch.cat([-(high + low) / 2, rows.new_tensor(MOVE).expand(len(rows), PEN)], dim=1)
    return torch.cat([move[:, None], rows], dim=1), lengths + 1


def real_rows(lengths: Tensor, count: int) -> Tensor:
    """Which of `count` rows belong to drawings of `lengths` [B]: bool [B,count]."""
    return torch.arange(count, device=lengths.device) < lengths[:, None]


def shifted(rows: Tensor) -> Tensor:
    """The rows before each: START, then all but the last; [B,T,5] -> [B,T,5]."""
    start = rows.new_tensor(START).expand(len(rows), 1, 5)
    return torch.cat([start, rows[:, :-1]], dim=1)
