"""One flat description of a loss, as it stands in a configuration file."""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.losses.common import MININGS
from training.losses.info_nce import COLDEST, SAME_PHOTO, WARMEST, InfoNCEOptions
from training.losses.relative import RELATIVES, RelativeOptions
from training.losses.triplet import TripletOptions

MAINS = ("triplet", "info_nce", "relative")
_CHOICES = {"main": MAINS, "mining": MININGS, "relative": RELATIVES, "same_photo": SAME_PHOTO}
_SWITCHES = ("both_directions", "within_category", "learn_temperature", "intra_negatives")
_COUNTS = {"memory": 0, "memory_warmup": 0, "patch_grid": 1, "patch_level": None, "categories": 0}  # least value
_NUMBERS = {  # range, both ends included
    "margin": (0.0, 2.0),
    "temperature": (COLDEST, WARMEST),
    "smoothing": (0.0, 0.99),
    "hardness": (0.0, 100.0),
    "patch_temperature": (COLDEST, WARMEST),
    "patch_weight": (0.0, math.inf),
    "intra_weight": (0.0, math.inf),
    "category_weight": (0.0, math.inf),
}


@dataclass(frozen=True)
class LossConfig:
    """A main loss on the embeddings and terms beside it.

    main               "info_nce", "triplet" (the papers' baseline: margin 0.3, mining "random") or "relative"
    margin             of triplet, relative and the intra-modal term, in distance between unit vectors
    mining             negatives of triplet and the intra-modal term: "random", "semi-hard", "batch-hard" (common.mine)
    both_directions    triplet: photos are anchors too
    within_category    triplet and relative: negatives from the anchor's category, where the batch has any
    relative           "weight" or "margin" (relative.py)
    temperature ... memory_warmup    of info_nce (info_nce.InfoNCEOptions); a memory needs photo numbers that never change
    patch_weight       of the cell-by-cell term, 0 for none; patch_grid cells a side, on the map of the encoder's stage number
                       patch_level (-1: the last), at patch_temperature
    intra_weight       of the triplets within each side, 0 for none; they need photos that occur more than once in a batch
    category_weight    of the category classifier, 0 for none; categories: how many there are. In the released multi-category
                       baseline triplet to classifier is 10 to 1 or 100 to 1 (METHODS A.2)

    Raises:
        ValueError: an unknown choice, or a number out of its range or of the wrong type; the message names the field.
    """

    main: str = "info_nce"
    margin: float = 0.3
    mining: str = "random"
    both_directions: bool = False
    within_category: bool = False
    relative: str = "weight"
    temperature: float = 0.07
    learn_temperature: bool = False
    same_photo: str = "mask"
    smoothing: float = 0.0
    hardness: float = 0.0
    intra_negatives: bool = False
    memory: int = 0
    memory_warmup: int = 0
    patch_weight: float = 0.0
    patch_grid: int = 3
    patch_level: int = -1
    patch_temperature: float = 0.1
    intra_weight: float = 0.0
    category_weight: float = 0.0
    categories: int = 0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(choices)}")
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected true or false")
        for name, least in _COUNTS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
                raise ValueError(
                    f"{name} is {value!r}, expected a whole number{'' if least is None else f' of at least {least}'}"
                )
        for name, (low, high) in _NUMBERS.items():
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not low <= value <= high:
                bounds = f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
                raise ValueError(f"{name} is {value!r}, expected a number {bounds}")
        if self.category_weight > 0.0 and self.categories < 2:
            raise ValueError(f"categories is {self.categories}, expected at least 2 where category_weight is above 0")

    @property
    def triplet_options(self) -> TripletOptions:
        return TripletOptions(self.margin, self.mining, self.both_directions, self.within_category)

    @property
    def relative_options(self) -> RelativeOptions:
        return RelativeOptions(self.margin, self.relative, self.within_category)

    @property
    def info_nce_options(self) -> InfoNCEOptions:
        return InfoNCEOptions(
            self.temperature,
            self.learn_temperature,
            self.same_photo,
            self.smoothing,
            self.hardness,
            self.intra_negatives,
            self.memory,
            self.memory_warmup,
        )
