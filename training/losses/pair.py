"""The loss of a batch of pairs: a main term and those beside it, by their weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.losses.auxiliary import CategoryLoss, intra_modal_loss, patch_loss
from training.losses.config import LossConfig
from training.losses.info_nce import InfoNCE
from training.losses.relative import relative_triplet_loss
from training.losses.triplet import triplet_loss
from training.losses.views import Views
from training.models.config import EncoderConfig


class PairLoss(nn.Module):
    """Views of B sketches and of their B photos -> one number to minimise.

    What it may hold, and a checkpoint has to keep: the temperature's logarithm and the classifier (parameters, to be given to the
    optimiser; the first is best left without weight decay), the memory (buffers). Random mining draws from PyTorch's global CPU
    generator.
    """

    def __init__(self, config: LossConfig, encoder_config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        levels = len(encoder_config.stages)
        if config.patch_weight > 0.0 and not -levels <= config.patch_level < levels:
            raise ValueError(f"patch_level is {config.patch_level}, expected -{levels} to {levels - 1}: there are {levels} maps")
        self.info_nce = InfoNCE(config.info_nce_options, encoder_config.embedding) if config.main == "info_nce" else None
        self.category = CategoryLoss(encoder_config.pooled, config.categories) if config.category_weight > 0.0 else None

    def forward(
        self, sketches: Views, photos: Views, photo_index: Tensor, category_index: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Row i of `photos` is what row i of `sketches` means.

        Args:
            sketches: views of B sketches.
            photos: views of their photos; equal photos may occur more than once.
            photo_index: int64 [B], equal numbers for the same photo.
            category_index: int64 [B].

        Returns:
            The weighted sum, and for the log the value of every term before its weight, "total", and the temperature where it is
            learned. A batch with no negatives gives 0 with gradient 0 (a category classifier still learns from it).

        Raises:
            ValueError: rows do not go together, or what the terms raise.
        """
        rows = len(photo_index)
        if not len(sketches.embeddings) == len(photos.embeddings) == len(category_index) == rows > 0:
            raise ValueError(
                f"rows of sketches, photos, photo_index and category_index are {len(sketches.embeddings)}, "
                f"{len(photos.embeddings)}, {rows} and {len(category_index)}, expected one number above 0"
            )
        config = self.config
        terms = {config.main: self._main(sketches.embeddings, photos.embeddings, photo_index, category_index)}
        weights = {config.main: 1.0}
        if config.patch_weight > 0.0:
            level = config.patch_level
            terms["patch"] = patch_loss(
                sketches.maps[level],
                photos.maps[level],
                photo_index,
                grid=config.patch_grid,
                temperature=config.patch_temperature,
            )
            weights["patch"] = config.patch_weight
        if config.intra_weight > 0.0:
            sides = [intra_modal_loss(side.embeddings, photo_index, config.triplet_options) for side in (sketches, photos)]
            terms["intra"] = sides[0] + sides[1]
            weights["intra"] = config.intra_weight
        if self.category is not None:
            terms["category"] = self.category(sketches.pooled, photos.pooled, category_index)
            weights["category"] = config.category_weight
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        log = {**terms, "total": total}
        if self.info_nce is not None and self.info_nce.log_temperature is not None:
            log["temperature"] = self.info_nce.log_temperature.exp()
        values = torch.stack([value.detach() for value in log.values()]).tolist()  # one wait for the device, not one a term
        return total, dict(zip(log, values, strict=True))

    def _main(self, sketches: Tensor, photos: Tensor, photo_index: Tensor, category_index: Tensor) -> Tensor:
        config = self.config
        if self.info_nce is not None:
            value: Tensor = self.info_nce(sketches, photos, photo_index)
            return value
        if config.main == "triplet":
            return triplet_loss(sketches, photos, photo_index, category_index, config.triplet_options)
        return relative_triplet_loss(sketches, photos, photo_index, category_index, config.relative_options)


def build_loss(config: LossConfig, encoder_config: EncoderConfig) -> PairLoss:
    """The loss that `config` describes, for batches of that encoder. Raises ValueError where the two do not fit."""
    return PairLoss(config, encoder_config)
