"""The generator's reward and its policy gradient (METHODS B.8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from training.losses.common import different, distances, full_precision, mine

Baseline = Literal["none", "batch-mean"]
Negatives = Literal["random", "mean"]


@dataclass(frozen=True)
class RewardConfig:
    """`R = -triplet * L_trip(p, s) + certainty * D_C(p, s)`, and how the generator follows it.

    triplet     lambda_r1, the paper's 1
    certainty   lambda_r2, the paper's 1
    policy      lambda_G, the paper's 10; 0 for no policy gradient
    margin      mu of L_trip, the paper's 0.3
    negatives   of L_trip: "random", one other photo of the batch, the paper's; "mean" over all others, which has the same mean
                and less of the spread that the paper's gradient suffers from
    baseline    what is taken from R. "none", the paper's; "batch-mean": the mean over the batch, which leaves the gradient's mean
                as it is but for a factor (B-1)/B and takes from its spread (Williams 1992): while R is positive for most, every
                drawing is made likelier without it, only some more than others
    per_row     divide a drawing's log-likelihood by its rows, as L_R is. The paper's sum over the rows makes the policy gradient
                as many times larger, so that clipping leaves little of the likelihood's, and weighs long drawings more

    Raises:
        ValueError: a field out of range.
    """

    triplet: float = 1.0
    certainty: float = 1.0
    policy: float = 10.0
    margin: float = 0.3
    negatives: Negatives = "random"
    baseline: Baseline = "none"
    per_row: bool = False

    def __post_init__(self) -> None:
        for name, kind in (("negatives", Negatives), ("baseline", Baseline)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"reward {name} is {getattr(self, name)!r}, expected one of {', '.join(get_args(kind))}")
        if min(self.triplet, self.certainty, self.policy, self.margin) < 0:
            raise ValueError("reward triplet, certainty, policy and margin must not be negative")


@torch.no_grad()
@full_precision
def reward(
    sketches: Tensor, photos: Tensor, photo_index: Tensor, certainty: Tensor, config: RewardConfig
) -> tuple[Tensor, Tensor]:
    """R [B] of generated sketches, and their L_trip [B].

    Args:
        sketches, photos: unit embeddings [B,D] of F.
        photo_index: int64 [B]; equal numbers are the same photo.
        certainty: D_C(p, s) [B].
    """
    allowed = different(photo_index)
    table = distances(sketches, photos)
    positive = table.diagonal()
    if config.negatives == "mean":
        hinges = (config.margin + positive[:, None] - table).clamp(min=0.0)
        triplet = torch.where(allowed, hinges, 0.0).sum(1) / allowed.sum(1).clamp(min=1)
    else:
        column = mine(table, positive, allowed, "random")
        triplet = (config.margin + positive - table.gather(1, column[:, None])[:, 0]).clamp(min=0.0)
        triplet = torch.where(allowed.any(1), triplet, 0.0)
    return config.certainty * certainty - config.triplet * triplet, triplet


def policy_loss(log_likelihood: Tensor, rewards: Tensor, lengths: Tensor, config: RewardConfig) -> Tensor:
    """What REINFORCE minimises: `-lambda_G E[(R - baseline) sum_i log p(row_i)]`, the mean over the batch (METHODS B.8).

    Args:
        log_likelihood: [B], of the very rows drawn, with gradient.
        rewards: [B], constants.
        lengths: int64 [B], rows of each drawing.
    """
    advantage = rewards - rewards.mean() if config.baseline == "batch-mean" else rewards
    if config.per_row:
        log_likelihood = log_likelihood / lengths.clamp(min=1)
    return -config.policy * (advantage.detach() * log_likelihood).mean()
