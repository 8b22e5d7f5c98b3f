"""The retrieval update (METHODS B.6, B.7): labelled pairs, generated pairs by their certainty, and a frozen relative teacher."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from training.losses import LossConfig, distance_distillation
from training.losses.common import different, distances, full_precision, mine, prefer_category
from training.losses.triplet import TripletOptions
from training.models.encoder import EmbeddingHead, Encoder
from training.network import PairNetwork, split

Weighting = Literal["certainty", "relative", "none"]


@dataclass(frozen=True)
class RetrievalConfig:
    """`L_F = L_trip(labelled) + generated * w_j L_trip(generated_j) + distillation * L_KD(both)`.

    loss          of the labelled pairs; the paper's is the triplet with margin 0.3 and random negatives. Margin and mining of the
                  generated pairs' triplets are its own
    generated     weight of the generated pairs beside the labelled ones: the paper's 1; 0 leaves them out ("continued": what more
                  steps on the labelled pairs alone would have given)
    weights       what w_j is. "certainty": D_C(p_j, s_j), the paper's; "none": 1, the paper's ablation; "relative": the certainty
                  divided by its mean over the batch, which still prefers the better pairs where a sure D_C gives all of them
                  nearly 0, and where the paper's weights switch the generated pairs off
    distillation  lambda_kd, the paper's 0.1; 0 for no teacher

    Raises:
        ValueError: a field out of range.
    """

    loss: LossConfig = field(default_factory=lambda: LossConfig(main="triplet"))
    generated: float = 1.0
    weights: Weighting = "certainty"
    distillation: float = 0.1

    def __post_init__(self) -> None:
        if self.weights not in get_args(Weighting):
            raise ValueError(f"retrieval weights is {self.weights!r}, expected one of {', '.join(get_args(Weighting))}")
        if self.generated < 0 or self.distillation < 0:
            raise ValueError(f"retrieval generated {self.generated} and distillation {self.distillation} must not be negative")


class PairTensors(NamedTuple):
    """B pairs as the retrieval network sees them: sketches, photos float32 [B,3,S,S]; photo_index, category_index int64 [B]."""

    sketches: Tensor
    photos: Tensor
    photo_index: Tensor
    category_index: Tensor

    def to(self, device: torch.device) -> PairTensors:
        return PairTensors(*(tensor.to(device, non_blocking=True) for tensor in self))


class Teacher(nn.Module):
    """F^T: encoder and head as they are when it is made; nothing trains it, nothing moves it (METHODS B.6)."""

    def __init__(self, encoder: Encoder, head: EmbeddingHead) -> None:
        super().__init__()
        self.encoder, self.head = copy.deepcopy(encoder), copy.deepcopy(head)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        """Stays in evaluation, whatever is asked of the module that holds it."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [B,3,S,S] -> unit embeddings [B,D], no gradient."""
        pooled = self.encoder.pool(pixels)
        with torch.autocast(pixels.device.type, enabled=False):
            embeddings: Tensor = self.head(self.encoder.project(pooled.float()))
        return embeddings


def instance_weights(certainty: Tensor, kind: Weighting) -> Tensor:
    """w_j [B] of generated pairs from D_C(p_j, s_j) [B]; constants: no gradient of F reaches D_C (METHODS B.5, F.2)."""
    certainty = certainty.detach()
    if kind == "none":
        return torch.ones_like(certainty)
    if kind == "relative":
        return certainty / certainty.mean().clamp(min=torch.finfo(certainty.dtype).tiny)
    return certainty


@full_precision
def triplet_terms(
    sketches: Tensor, photos: Tensor, photo_index: Tensor, category_index: Tensor, options: TripletOptions
) -> Tensor:
    """``max(0, mu + d(s_i, p_i) - d(s_i, n_i))`` of each sketch, [B]: training.losses.triplet before its mean.

    Arguments as there. A sketch without a photo of another in the batch has 0.
    """
    allowed = different(photo_index)
    if options.within_category:
        allowed = prefer_category(allowed, category_index)
    table = distances(sketches, photos)
    positive = table.diagonal()
    column = mine(table.detach(), positive.detach(), allowed, options.mining)
    terms = (options.margin + positive - table.gather(1, column[:, None])[:, 0]).clamp(min=0.0)
    return torch.where(allowed.any(dim=1), terms, 0.0)


class RetrievalObjective(nn.Module):
    """Network and loss as one module, so that one call is one step's forward pass, on however many devices."""

    def __init__(self, network: PairNetwork, config: RetrievalConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(
        self, labelled: PairTensors, generated: PairTensors, weights: Tensor, teacher: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its terms before their weights: "labelled", "generated", "distillation".

        Args:
            labelled: B pairs of people.
            generated: U pairs of the generator; U may be 0.
            weights: [U], w_j.
            teacher: the teacher's embeddings [2(B+U),D] of sketches, then photos, labelled before generated; None: no teacher.
        """
        config, network = self.config, self.network
        count, total = len(labelled.sketches), len(labelled.sketches) + len(generated.sketches)
        pixels = joined(labelled, generated)
        both = network.views(pixels)
        ours, theirs = split(both, slice(None, count)), split(both, slice(total, total + count))
        loss, _ = network.loss(ours, theirs, labelled.photo_index, labelled.category_index)
        terms: dict[str, Tensor] = {"labelled": loss.detach()}
        if total > count:
            options = config.loss.triplet_options
            sketches, photos = both.embeddings[count:total], both.embeddings[total + count :]
            each = triplet_terms(sketches, photos, generated.photo_index, generated.category_index, options)
            terms["generated"] = each.detach().mean()
            loss = loss + config.generated * (weights * each).mean()
        if teacher is not None and config.distillation > 0:
            kept = distance_distillation(both.embeddings[:total], both.embeddings[total:], teacher[:total], teacher[total:])
            terms["distillation"] = kept.detach()
            loss = loss + config.distillation * kept
        return loss, terms


def joined(labelled: PairTensors, generated: PairTensors) -> Tensor:
    """All pixels [2(B+U),3,S,S]: sketches, then photos, labelled before generated."""
    parts = [labelled.sketches, generated.sketches, labelled.photos, generated.photos]
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)
