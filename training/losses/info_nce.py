"""InfoNCE over a batch of pairs, both ways (van den Oord et al. 2018, eq. 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.losses.common import different, full_precision
from training.losses.memory import Memory

COLDEST, WARMEST = 0.01, 1.0  # what a learned temperature is kept within
SAME_PHOTO = ("mask", "positive")


@dataclass(frozen=True)
class InfoNCEOptions:
    """How a row's softmax is made up.

    temperature        divides cosines; where it is learned, where it starts
    learn_temperature  its logarithm is a parameter (Radford et al. 2021, section 2.5), kept in [0.01, 1]
    same_photo         other rows of the row's own photo: left out ("mask"), or positives too, each with an equal share of the
                       target ("positive"; Khosla et al. 2020, eq. 2)
    smoothing          share of the target that is spread evenly over all of the row (Szegedy et al. 2016, section 7). Up to a
                       constant this is the divergence from a debiased target that Demic and Cehovin Zajc 2025 minimise, with 0.2
                       at temperature 0.07
    hardness           beta: negatives weigh ``exp(beta * cosine)``, 1 on average, without gradient (after Robinson et al. 2021)
    intra_negatives    rows of the same side and another photo are negatives too (the batch-wide softmax of Chen et al. 2020)
    memory             pairs of past batches that serve as negatives, 0 for none (memory.py)
    memory_warmup      batches before that begins
    """

    temperature: float = 0.07
    learn_temperature: bool = False
    same_photo: str = "mask"
    smoothing: float = 0.0
    hardness: float = 0.0
    intra_negatives: bool = False
    memory: int = 0
    memory_warmup: int = 0


def symmetric_info_nce(sketches: Tensor, photos: Tensor, temperature: float) -> Tensor:
    """Cross entropy over the batch in both directions (van den Oord et al. 2018, eq. 4, applied both ways).

    Args:
        sketches: unit embeddings [B,D]; row i belongs to photo row i.
        photos: unit embeddings [B,D] of B distinct photos.
        temperature: divides cosine similarities.
    """
    logits = sketches @ photos.T / temperature
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def cross_entropy(
    cosines: Tensor,
    positive: Tensor,
    negative: Tensor,
    temperature: Tensor | float,
    *,
    smoothing: float = 0.0,
    hardness: float = 0.0,
) -> Tensor:
    """Mean over rows of the cross entropy between a softmax of cosines and an even target over the positives.

    Args:
        cosines: [...,N,M].
        positive: bool, to be broadcast to that; every row needs one.
        negative: bool likewise. What is neither is left out of the softmax; a row with one positive and no negatives costs 0.
        temperature: divides cosines.
        smoothing: share of the target that goes evenly to positives and negatives together.
        hardness: beta of the weights of negatives (InfoNCEOptions).
    """
    positive, negative = positive.expand_as(cosines), negative.expand_as(cosines)
    allowed = positive | negative
    logits = cosines / temperature
    if hardness > 0.0:
        logits = logits + hard_weights(cosines.detach(), negative, hardness)
    logits = logits.masked_fill(~allowed, -torch.inf)
    log_share = (logits - logits.logsumexp(dim=-1, keepdim=True)).masked_fill(~allowed, 0.0)
    target = (1.0 - smoothing) * _even(positive, cosines) + smoothing * _even(allowed, cosines)
    return -(target * log_share).sum(dim=-1).mean()


def _even(where: Tensor, like: Tensor) -> Tensor:
    """1 shared evenly among the True of each row."""
    share = where.to(like.dtype)
    return share / share.sum(dim=-1, keepdim=True)


def hard_weights(cosines: Tensor, negative: Tensor, hardness: float) -> Tensor:
    """Logarithms of the weights of negatives, ``log(n exp(beta c_j) / sum_k exp(beta c_k))``; 0 for everything else."""
    scaled = (hardness * cosines).masked_fill(~negative, -torch.inf)
    count = negative.sum(dim=-1, keepdim=True).clamp(min=1)
    return (scaled - scaled.logsumexp(dim=-1, keepdim=True) + count.to(cosines.dtype).log()).masked_fill(~negative, 0.0)


class InfoNCE(nn.Module):
    """Symmetric InfoNCE with its options; its parameter is the temperature's logarithm, its state the memory.

    Args:
        options: see there.
        width: D of the embeddings, for the memory.
    """

    def __init__(self, options: InfoNCEOptions, width: int) -> None:
        super().__init__()
        self.options = options
        start = torch.tensor(math.log(options.temperature))
        self.log_temperature = nn.Parameter(start) if options.learn_temperature else None
        self.memory = Memory(options.memory, width, options.memory_warmup) if options.memory else None

    def temperature(self) -> Tensor | float:
        """What cosines are divided by now. A learned one that the last step took out of bounds is put back first.

        The parameter is, not its exponential: beyond a clamp there would be no gradient to bring it back.
        """
        if self.log_temperature is None:
            return self.options.temperature
        with torch.no_grad():
            self.log_temperature.clamp_(math.log(COLDEST), math.log(WARMEST))
        return self.log_temperature.exp()

    @full_precision
    def forward(self, sketches: Tensor, photos: Tensor, photo_index: Tensor) -> Tensor:
        """Unit embeddings [B,D], [B,D] and photo numbers [B] -> the loss. One photo alone, with an empty memory, costs 0.

        In training mode the batch goes into the memory afterwards.
        """
        negative = different(photo_index)
        options, eye = self.options, torch.eye(len(photo_index), dtype=torch.bool, device=photo_index.device)
        positive = ~negative if options.same_photo == "positive" else eye
        temperature, losses = self.temperature(), []
        for anchor, others, side in ((sketches, photos, "photos"), (photos, sketches, "sketches")):
            columns, negatives = [others], [negative]
            if options.intra_negatives:
                columns.append(anchor)
                negatives.append(negative)
            if self.memory is not None:
                columns.append(getattr(self.memory, side))
                negatives.append(self.memory.usable(photo_index))
            against = torch.cat(negatives, dim=1)
            wanted = F.pad(positive, (0, against.shape[1] - positive.shape[1]))
            cosines = anchor @ torch.cat(columns).T  # a copy: backward needs the memory as it was before the push
            losses.append(
                cross_entropy(cosines, wanted, against, temperature, smoothing=options.smoothing, hardness=options.hardness)
            )
        if self.memory is not None and self.training:
            self.memory.push(sketches.detach(), photos.detach(), photo_index)
        return 0.5 * (losses[0] + losses[1])
