"""The decoder over whole drawings, with a gradient of its own.

Autograd adds the weights' gradients up step by step, which on a CPU moves megabytes for every row of a small batch. Here a
backward pass keeps what it needs of each step side by side and multiplies once at the end: 16 drawings at the paper's widths took
0.38 s of one core, forward and back, instead of 0.53 s. Which steps of which drawings there are is said by `counts`: step t runs
on the first counts[t] drawings, the longest first, so that what has ended costs nothing.

The equations are those of network.Generator.step, which drawing uses; a test holds both, and both gradients, together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Weights:
    """The decoder's weights, in PyTorch's gate order (input, forget, cell, output).

    Args:
        input: [4H,C+D] of glimpse and row; hidden: [4H,H]; bias: [4H].
        query: [A,H+E] of the state and the last E numbers of the row, query_bias: [A], score: [A]: the attention's; None without
            2D attention.
    """

    input: Tensor
    hidden: Tensor
    bias: Tensor
    query: Tensor | None = None
    query_bias: Tensor | None = None
    score: Tensor | None = None


def recur(
    weights: Weights, values: Tensor, keys: Tensor | None, state: tuple[Tensor, Tensor], rows: Tensor, counts: list[int]
) -> tuple[Tensor, Tensor | None]:
    """Hidden states [B,T,H] and attention weights [B,T,L] (no gradient; None without 2D attention), 0 where no step is.

    Args:
        values: [B,L,C]; keys: [B,L,A]; state: h and c [B,H] before the first step.
        rows: [B,T,D], what else the LSTM reads at each step; no gradient reaches it.
        counts: T numbers from B down, never rising.
    """
    kept = torch.is_grad_enabled()
    tensors = (weights.input, weights.hidden, weights.bias, weights.query, weights.query_bias, weights.score)
    hidden, looked = _Recurrence.apply(counts, kept, rows, values, keys, *state, *tensors)  # type: ignore[no-untyped-call]
    return hidden, looked if keys is not None else None


def _spans(counts: list[int]) -> Iterator[tuple[int, int, slice]]:
    """(step, drawings, where the step's rows lie side by side) of every step that has any."""
    start = 0
    for step, count in enumerate(counts):
        if count:
            yield step, count, slice(start, start + count)
        start += count


def _asking(h: Tensor, rows: Tensor, w_query: Tensor) -> Tensor:
    """What the query is made of: states [N,H] and the last numbers of rows [N,D], [N,H+E]."""
    extra = w_query.shape[1] - h.shape[1]
    return torch.cat([h, rows[:, rows.shape[1] - extra :]], dim=1) if extra else h


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, counts: list[int], kept: bool, rows: Tensor, values: Tensor, keys: Tensor | None, *rest: Tensor
    ) -> tuple[Tensor, Tensor]:
        h, c, w_input, w_hidden, bias, w_query, b_query, w_score = rest
        batch, length, width, cells = len(rows), len(counts), h.shape[1], values.shape[1]
        total, channels = sum(counts), values.shape[2]
        inputs, gates = values.new_empty(total, channels + rows.shape[2]), values.new_empty(total, 4 * width)
        before = values.new_empty(3, total, width)  # h and c before each step, tanh(c) after it
        hidden, looked = values.new_zeros(batch, length, width), values.new_zeros(batch, length, cells)
        activations: list[Tensor] = []  # tanh(keys + query) [n,L,A] of each step
        for step, count, span in _spans(counts):
            h, c = h[:count], c[:count]
            before[0, span], before[1, span] = h, c
            inputs[span, channels:] = rows[:count, step]
            if keys is None:
                inputs[span, :channels] = values[:count, 0]
            else:
                asking = _asking(h, rows[:count, step], w_query)
                activation = torch.add(keys[:count], torch.addmm(b_query, asking, w_query.T)[:, None]).tanh_()
                weights = (activation @ w_score).softmax(1)
                looked[:count, step] = weights
                inputs[span, :channels] = torch.bmm(weights[:, None], values[:count])[:, 0]
                if kept:
                    activations.append(activation)
            gate = gates[span]
            torch.addmm(bias, inputs[span], w_input.T, out=gate).addmm_(h, w_hidden.T)
            gate[:, : 2 * width].sigmoid_()
            gate[:, 2 * width : 3 * width].tanh_()
            gate[:, 3 * width :].sigmoid_()
            enter, forget, new, leave = gate.chunk(4, dim=1)
            c = torch.addcmul(forget * c, enter, new)
            tanh_c = torch.tanh(c)
            before[2, span] = tanh_c
            h = leave * tanh_c
            hidden[:count, step] = h
        if kept:
            ctx.counts, ctx.steps = counts, (inputs, gates, before, activations)
            ctx.save_for_backward(looked, values, keys, w_input, w_hidden, w_query, w_score)
        ctx.mark_non_differentiable(looked)
        return hidden, looked

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, gates, before, activations = ctx.steps
        looked, values, keys, w_input, w_hidden, w_query, w_score = ctx.saved_tensors
        d_hidden, (batch, cells, channels), width = gradients[0], values.shape, before.shape[2]
        d_gates, w_glimpse = torch.empty_like(gates), w_input[:, :channels].contiguous()
        dh, dc = d_hidden.new_zeros(batch, width), d_hidden.new_zeros(batch, width)
        d_glimpses = d_hidden.new_zeros(batch, len(ctx.counts), channels)
        attends = keys is not None
        d_keys = torch.zeros_like(keys) if attends else None
        d_queries = gates.new_empty(len(gates), keys.shape[2]) if attends else None
        d_score = torch.zeros_like(w_score) if attends else None
        for step, count, span in reversed(list(_spans(ctx.counts))):
            gate, (_, c, tanh_c) = d_gates[span], before[:, span]
            out = d_hidden[:count, step] + dh[:count]
            enter, forget, new, leave = gates[span].chunk(4, dim=1)
            cell = torch.addcmul(dc[:count], out * leave, 1 - tanh_c.square())
            gate[:, :width] = cell * new * enter * (1 - enter)
            gate[:, width : 2 * width] = cell * c * forget * (1 - forget)
            gate[:, 2 * width : 3 * width] = cell * enter * (1 - new.square())
            gate[:, 3 * width :] = out * tanh_c * leave * (1 - leave)
            dc[:count] = cell * forget
            torch.mm(gate, w_hidden, out=dh[:count])
            d_glimpse = gate @ w_glimpse
            d_glimpses[:count, step] = d_glimpse
            if d_keys is not None and d_queries is not None and d_score is not None:
                activation, weights = activations[step], looked[:count, step]
                d_weights = torch.bmm(values[:count], d_glimpse[:, :, None])[:, :, 0]
                d_logits = weights * (d_weights - (weights * d_weights).sum(1, keepdim=True))
                d_score += d_logits.flatten() @ activation.flatten(0, 1)
                inside = torch.ops.aten.tanh_backward(d_logits[:, :, None] * w_score, activation)
                d_keys[:count] += inside
                d_queries[span] = inside.sum(1)
                dh[:count].addmm_(d_queries[span], w_query[:, :width])
        d_values = None
        if ctx.needs_input_grad[3]:
            share = looked.transpose(1, 2) if attends else looked.new_ones(batch, cells, len(ctx.counts))
            d_values = torch.bmm(share, d_glimpses)
        d_attention: tuple[Tensor | None, ...] = (None, None, None)
        if d_queries is not None:
            d_attention = (d_queries.T @ _asking(before[0], inputs, w_query), d_queries.sum(0), d_score)
        d_lstm = (d_gates.T @ inputs, d_gates.T @ before[0], d_gates.sum(0))
        return None, None, None, d_values, d_keys, dh, dc, *d_lstm, *d_attention
