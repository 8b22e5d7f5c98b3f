"""Losses over batches of sketch-photo pairs.

A configuration names a main loss on the embeddings (triplet.py, info_nce.py, relative.py) and weighs terms beside it
(auxiliary.py); pair.py adds them up. distillation.py stands apart: it needs a teacher's embeddings.
"""

from training.losses.config import LossConfig
from training.losses.distillation import distance_distillation, relational_distillation
from training.losses.info_nce import symmetric_info_nce
from training.losses.pair import PairLoss, build_loss
from training.losses.views import Views

__all__ = [
    "LossConfig",
    "PairLoss",
    "Views",
    "build_loss",
    "distance_distillation",
    "relational_distillation",
    "symmetric_info_nce",
]
