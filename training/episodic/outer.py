"""The outer loss of a batch of episodes, as one module, so that one call is one step's forward pass on however many devices."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.episodic.config import OuterConfig
from training.episodic.model import MetaModel, Trunk
from training.episodic.regularisers import JointFeatures, Regularisers
from training.episodic.stream import EpisodeBatch, Places
from training.inner_loop import DISTANCE_FLOOR, Support


class Objective(nn.Module):
    """Trunk, MetaModel and loss (METHODS C.4): mean over the episodes of the query loss under the adapted head, and regularisers.

    Args:
        regularisers: by setting; a batch of another setting has none.
        together: every trained parameter takes part in every step, if only with a gradient of zero, as processes that train
            together have to agree on them.
    """

    def __init__(
        self,
        trunk: Trunk,
        model: MetaModel,
        config: OuterConfig,
        regularisers: Mapping[str, Regularisers] | None = None,
        *,
        together: bool = False,
    ) -> None:
        super().__init__()
        self.trunk, self.model, self.config, self.together = trunk, model, config, together
        self.regularisers = nn.ModuleDict(dict(regularisers or {}))

    def features(self, inputs: Tensor) -> Tensor:
        """Unit features [n,C] of what the source gives."""
        return self.model.features(self.trunk(inputs))

    def forward(self, batch: EpisodeBatch, progress: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and detached values for the log.

        `progress` is the share of training that is done. Values: "loss/outer", "loss/TERM" of the regularisers and what they say
        of themselves ("domain/accuracy" and others), the margins' "margin/mean" and "margin/spread" over the batch's tasks.
        """
        sketches, photos = self.features(batch.sketches), self.features(batch.photos)
        with torch.autocast(sketches.device.type, enabled=False):
            support = support_sets(batch.episodes, sketches, photos)
            margin = self.model.margin(support)
            coefficients = self.model.adapt(support, self.model.inner.second_order, margin=margin)
            losses = []
            for index, places in enumerate(batch.episodes):
                own = Support(support.features[index : index + 1], support.mask[index : index + 1])
                losses += self._losses(places, (sketches, photos), own, coefficients[index : index + 1])
            outer = torch.stack(losses).sum() / len(batch.episodes)
        total = self.config.weight * outer
        values = {"loss/outer": outer, "margin/mean": margin.mean(), "margin/spread": margin.std(correction=0)}
        if batch.domain.setting in self.regularisers:
            joint = batch.joint
            pairs = JointFeatures(sketches[joint.sketches], photos[joint.photos], joint.photo_index, joint.category)
            more, terms = self.regularisers[batch.domain.setting](pairs, progress=progress)
            total = total + more
            values |= {name if "/" in name else f"loss/{name}": value for name, value in terms.items()}
        if self.together:
            total = total + 0.0 * sum(item.sum() for item in self.parameters() if item.requires_grad)
        return total, {name: value.detach() for name, value in values.items()}

    def _losses(self, places: Places, features: tuple[Tensor, Tensor], support: Support, coefficients: Tensor) -> list[Tensor]:
        """The weighted losses of one episode: adapted and base head, queries and shown photos."""
        config, (sketches, photos) = self.config, features
        share = config.shown_weight if len(places.shown) else 0.0
        every = places.negatives.new_zeros((len(places.shown), 0))
        asked = (
            (places.query, places.query_truth, places.negatives, 1.0 - share),
            (places.shown, places.shown_truth, every, share),
        )
        losses = []
        for learned, weight in ((coefficients, 1.0 - config.base_weight), (None, config.base_weight)):
            for rows, truth, negatives, part in asked:
                if weight * part > 0.0:
                    scores = self.model.scores(sketches[rows], photos[places.gallery], support, learned)
                    losses.append(weight * part * query_loss(scores, truth, negatives, config))
        return losses

    def trained_state(self) -> dict[str, Tensor]:
        """Tensors by name of all that trains, and of what else changes or belongs to it: not of the fixed part of the encoder."""
        fixed = {f"trunk.{name}" for name, item in self.trunk.named_parameters() if not item.requires_grad}
        fixed |= {f"trunk.{name}" for name, _ in self.trunk.named_buffers()}  # the trunk stays in evaluation mode
        return {name: tensor for name, tensor in self.state_dict().items() if name not in fixed}


def support_sets(episodes: tuple[Places, ...], sketches: Tensor, photos: Tensor) -> Support:
    """The support sets of E episodes, from the features [n,C] of their batch."""
    rows = [torch.cat([sketches[places.support], photos[places.photos]]) for places in episodes]
    return Support(torch.stack(rows), torch.stack([places.mask for places in episodes]))


def query_loss(scores: Tensor, truth: Tensor, negatives: Tensor, config: OuterConfig) -> Tensor:
    """The loss of queries by their cosines [Q,N] to a gallery, `truth` [Q] and drawn `negatives` [Q,c] positions in it."""
    if config.loss == "cross_entropy":
        return F.cross_entropy(scores / config.temperature, truth)
    distances = (2.0 - 2.0 * scores).clamp_min(DISTANCE_FLOOR).sqrt()
    positive = distances.gather(1, truth[:, None])
    if negatives.shape[1]:
        violation = config.margin + positive - distances.gather(1, negatives)
        kept = torch.ones_like(violation)
    else:
        violation = config.margin + positive - distances
        kept = torch.ones_like(violation).scatter(1, truth[:, None], 0.0)
    loss = F.softplus(violation, beta=config.sharpness) if config.sharpness > 0 else violation.clamp_min(0.0)
    return (loss * kept).sum() / kept.sum().clamp_min(1.0)
