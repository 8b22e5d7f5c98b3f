"""Regularisers of the outer loop: domain, category or intra-sample, semantic (METHODS C.2, C.3)."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgsbir_edge.errors import NonFiniteError
from training.episodic.gradient_reversal import Schedule, reverse_gradient, strength_at
from training.episodic.words import WordVectors
from training.losses.common import different, distances, mean_of, prefer_category
from training.losses.triplet import TripletOptions, hinge

log = logging.getLogger("training.episodic.regularisers")

LENGTH_TOLERANCE = 1e-2  # of a unit vector: bfloat16 rounds each component by up to 0.4 %

Setting = Literal["category", "person"]
Heads = Literal["paper", "category", "intra", "both"]
Negatives = Literal["all", "semi-hard", "batch-hard"]
_CHOICES = {"heads": Heads, "schedule": Schedule, "intra_negatives": Negatives}


@dataclass(frozen=True)
class RegulariserConfig:
    """Weights and shapes. The paper prints the formulas; weights, margin, widths and word vectors are not published.

    domain, category, intra, semantic   weights of L_D, L_C, L_ud and L_S beside L_T's 1; 0 leaves a term out, head and all
    heads            "paper": L_C and L_S in the setting "category" with two or more categories, else L_ud (METHODS C.2);
                     "category" and "intra" force the one or the other, "both" takes all: tasks of people may have categories too
    strength         of the reversal: how much the features unlearn of what D learns. 0 leaves D an observer, whose accuracy says
                     how far apart the two sides are
    schedule         "constant" (nothing else is printed), or "ramp" from 0 (gradient_reversal.strength_at)
    intra_margin     mu' of L_ud, in distance between unit vectors
    intra_negatives  "all": the mean over every other photo, what a negative drawn at random gives on average, without the draw;
                     "semi-hard" and "batch-hard" as in training.losses
    hidden           units between features and the output of D and G; 0: one linear layer. C is always one linear layer
    unit_variance    heads see features times sqrt(C), whose entries are about 1 as the heads' initial weights expect; from unit
                     vectors as they are (false) heads start with outputs near 0 and learn slowly
    words            file of word vectors; "" is the stand-in without meaning (words.WordVectors.stand_in), of words_width numbers
    aliases          words to look a category up by: {"car_(sedan)" = "sedan"}
    seed             of the heads' initial weights. A head starts the same whichever others there are

    Raises:
        ValueError: a field out of range; the message names it.
    """

    domain: float = 1.0
    category: float = 1.0
    intra: float = 1.0
    semantic: float = 1.0
    heads: Heads = "paper"
    strength: float = 1.0
    schedule: Schedule = "constant"
    intra_margin: float = 0.3
    intra_negatives: Negatives = "all"
    hidden: int = 256
    unit_variance: bool = True
    words: str = ""
    words_width: int = 300
    aliases: dict[str, str] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"regulariser {name} is {getattr(self, name)!r}, expected one of {', '.join(get_args(kind))}")
        for name in ("domain", "category", "intra", "semantic", "strength"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"regulariser {name} is {getattr(self, name)}, expected 0 (off) or more")
        if not 0.0 <= self.intra_margin <= 2.0:
            raise ValueError(f"regulariser intra_margin is {self.intra_margin}, expected 0 to 2, the distances of unit vectors")
        if self.hidden < 0 or self.words_width < 1 or self.seed < 0:
            raise ValueError(
                f"regulariser hidden is {self.hidden}, words_width {self.words_width}, seed {self.seed}, "
                "expected at least 0, 1 and 0"
            )

    def terms(self, categories: int, setting: Setting) -> dict[str, float]:
        """The terms that a model of so many categories has, with their weights.

        Raises:
            ValueError: heads that need two categories with fewer.
        """
        heads = self.heads
        if heads == "paper":
            heads = "category" if setting == "category" and categories > 1 else "intra"
        if heads != "intra" and categories < 2:
            raise ValueError(f"heads is {heads!r} with {categories} category, a classifier needs two; set heads to 'intra'")
        names = ["domain"]
        names += ["intra"] if heads in ("intra", "both") else []
        names += ["category", "semantic"] if heads in ("category", "both") else []
        return {name: getattr(self, name) for name in names if getattr(self, name) > 0.0}


@dataclass(frozen=True, eq=False)
class JointFeatures:
    """Features F(I) of n pairs, those of D_tr and D_val together (METHODS C.2).

    sketches     unit vectors [n,C]
    photos       unit vectors [n,C]; row i is the photo of sketch i, equal photos may occur more than once
    photo_index  int64 [n]; equal numbers are the same photo, across episodes too
    category     int64 [n], positions in the names that Regularisers was given

    Raises:
        ValueError: shapes that do not go together.
    """

    sketches: Tensor
    photos: Tensor
    photo_index: Tensor
    category: Tensor

    def __post_init__(self) -> None:
        rows = len(self.photo_index)
        shapes = {name: list(getattr(self, name).shape) for name in ("sketches", "photos", "photo_index", "category")}
        width = shapes["sketches"][-1]
        if rows < 1 or shapes != {"sketches": [rows, width], "photos": [rows, width], "photo_index": [rows], "category": [rows]}:
            raise ValueError(f"shapes are {shapes}, expected sketches and photos [n,C], photo_index and category [n], n > 0")

    @classmethod
    def joined(cls, parts: Sequence[JointFeatures]) -> JointFeatures:
        """The rows of all `parts`, in turn: support and query of an episode, or episodes of a batch."""
        names = ("sketches", "photos", "photo_index", "category")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


class Regularisers(nn.Module):
    """The heads D, C and G on features F(I), and the sum of what they and L_ud say.

    Its parameters belong to the outer loop's optimiser: D minimises its cross entropy while the features below get the reversed
    gradient, so one backward pass serves both. `words` (target vectors of G) are a buffer, in the state dict with the rest.

    Args:
        width: C of the features.
        categories: their names, each once; JointFeatures.category counts in this order.
        setting: "category" or "person".
        config: see there.
        words: vectors of exactly these names; None: those that `config` describes.

    Raises:
        ValueError: heads that do not fit the categories, or words of other names.
        WordVectorsError: `config.words` cannot be read.
    """

    words: Tensor

    def __init__(
        self,
        width: int,
        categories: Sequence[str],
        setting: Setting,
        config: RegulariserConfig,
        words: WordVectors | None = None,
    ) -> None:
        super().__init__()
        if setting not in get_args(Setting):
            raise ValueError(f"setting is {setting!r}, expected one of {', '.join(get_args(Setting))}")
        self.config, self.categories, self.width = config, tuple(categories), width
        if len(set(self.categories)) < max(len(self.categories), 1):
            raise ValueError(f"categories are {', '.join(self.categories) or 'none'}, expected each once and at least one")
        self.weights = config.terms(len(self.categories), setting)
        self.scale = math.sqrt(width) if config.unit_variance else 1.0
        self.word_facts: dict[str, object] | None = None
        if "domain" in self.weights:
            with _own_draws(config.seed, 0):
                self.discriminator = _head(width, config.hidden, 1)
        if "category" in self.weights:
            with _own_draws(config.seed, 1):
                self.classifier = _head(width, 0, len(self.categories))
        if "semantic" in self.weights:
            words = words_for(self.categories, config) if words is None else words
            if words.names != self.categories:
                raise ValueError("words are of other names than the categories; read them for these, in this order")
            if not words.meaning:
                log.warning("semantic term: stand-in vectors without meaning; name a file of word vectors to have its effect")
            self.word_facts = words.facts()
            self.register_buffer("words", torch.from_numpy(words.vectors.copy()))
            with _own_draws(config.seed, 2):
                self.decoder = _head(width, config.hidden, words.width)

    def facts(self) -> dict[str, object]:
        """For metadata and figures: the terms with their weights, and where the words come from (None without the term)."""
        return {"terms": dict(self.weights), "words": self.word_facts}

    def forward(self, features: JointFeatures, *, progress: float | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and for the log each term before its weight with what tells how it fares.

        Args:
            features: see there; half-precision features are widened, autocast is off.
            progress: share of training that is done, 0 to 1; needed by the schedule "ramp" alone.

        Returns:
            The sum, with gradient; 0 with gradient 0 where no term is on. Detached scalars: "domain", "category", "intra",
            "semantic" as far as they are on, and of these "domain/accuracy" (share of rows whose side D knows, 0.5 is what it has
            to come to), "domain/strength", "category/accuracy", "semantic/accuracy" (rows nearest to their own word) and
            "intra/violated" (share of triplets within the margin).

        Raises:
            NonFiniteError: NaN or infinity among the features.
            ValueError: features that are not of unit length or of another width, a category out of range, progress missing.
        """
        with torch.autocast(features.sketches.device.type, enabled=False):
            sketches, photos = (_widened(side) for side in (features.sketches, features.photos))
            self._check(sketches, photos, features.category)
            rows = torch.cat([sketches, photos]) * self.scale
            category = torch.cat([features.category, features.category])
            figures: dict[str, Tensor] = {}
            total = rows.sum() * 0.0
            for name, weight in self.weights.items():
                if name == "domain":
                    value, more = self._domain(rows, progress)
                elif name == "category":
                    value, more = self._category(rows, category)
                elif name == "semantic":
                    value, more = self._semantic(rows, category)
                else:
                    value, more = self._intra(sketches, photos, features)
                total = total + weight * value
                figures |= {name: value.detach()} | {f"{name}/{what}": figure.detach() for what, figure in more.items()}
        return total, figures

    def _domain(self, rows: Tensor, progress: float | None) -> tuple[Tensor, dict[str, Tensor]]:
        """``-mean[t log D + (1-t) log(1-D)]``, t = 1 for sketches; the features minimise its negative, L_D as printed."""
        strength = strength_at(self.config.strength, self.config.schedule, progress)
        logits = self.discriminator(reverse_gradient(rows, strength))[:, 0]
        sketch = torch.arange(len(rows), device=rows.device) < len(rows) // 2
        right = ((logits > 0.0) == sketch).to(logits.dtype)
        value = F.binary_cross_entropy_with_logits(logits, sketch.to(logits.dtype))
        return value, {"accuracy": right.mean(), "strength": logits.new_tensor(strength)}

    def _category(self, rows: Tensor, category: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.classifier(rows)
        return F.cross_entropy(logits, category), {"accuracy": (logits.argmax(1) == category).to(logits.dtype).mean()}

    def _semantic(self, rows: Tensor, category: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """``mean 1/2 (1 - cos(G(F(I)), S_w))``."""
        cosines = F.normalize(self.decoder(rows), dim=1) @ F.normalize(self.words, dim=1).T
        own = cosines.gather(1, category[:, None])[:, 0]
        return (0.5 * (1.0 - own)).mean(), {"accuracy": (cosines.argmax(1) == category).to(own.dtype).mean()}

    def _intra(self, sketches: Tensor, photos: Tensor, features: JointFeatures) -> tuple[Tensor, dict[str, Tensor]]:
        """``mean max(0, mu' + d(s, p) - d(s, n))``, n another photo, of the same category where there is one.

        Anchors without another photo are left out; with none left the term is 0 with gradient 0.
        """
        margin, negatives = self.config.intra_margin, self.config.intra_negatives
        allowed = prefer_category(different(features.photo_index), features.category)
        table = distances(sketches, photos)
        positive = table.diagonal()
        gaps = (margin + positive[:, None] - table).clamp(min=0.0)
        violated = mean_of((gaps > 0.0).to(gaps.dtype), allowed)
        if negatives == "all":
            each = torch.where(allowed, gaps, 0.0).sum(1) / allowed.sum(1).clamp(min=1)
            value = mean_of(each, allowed.any(dim=1))
        else:
            value = hinge(table, positive, allowed, TripletOptions(margin, negatives))
        return value, {"violated": violated}

    def _check(self, sketches: Tensor, photos: Tensor, category: Tensor) -> None:
        if sketches.shape[1] != self.width:
            raise ValueError(f"features have {sketches.shape[1]} numbers, expected {self.width}")
        for name, side in (("sketches", sketches), ("photos", photos)):
            far = (torch.linalg.vector_norm(side.detach(), dim=1) - 1.0).abs().max()
            if not torch.isfinite(far):
                raise NonFiniteError(f"features of the {name} hold NaN or infinity; lower the learning rate")
            if far > LENGTH_TOLERANCE:
                raise ValueError(f"features of the {name} are off unit length by up to {float(far):.3g}; normalise them first")
        low, high = int(category.min()), int(category.max())
        if low < 0 or high >= len(self.categories):
            raise ValueError(f"category numbers go from {low} to {high}, expected 0 to {len(self.categories) - 1}")


def words_for(categories: Sequence[str], config: RegulariserConfig) -> WordVectors:
    """The vectors that `config` describes: from its file, or the stand-in. Raises WordVectorsError."""
    if config.words:
        return WordVectors.read(config.words, categories, config.aliases)
    return WordVectors.stand_in(categories, config.words_width)


def _head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    if hidden == 0:
        return nn.Sequential(nn.Linear(inputs, outputs))
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


@contextlib.contextmanager
def _own_draws(seed: int, head: int) -> Iterator[None]:
    """Initial weights from `seed` alone; PyTorch's global generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1000 * seed + head)  # torch.manual_seed would reset a GPU's generator too
        yield


def _widened(side: Tensor) -> Tensor:
    return side.float() if side.dtype in (torch.bfloat16, torch.float16) else side
