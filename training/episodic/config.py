"""Everything that a meta-training configuration file may hold (training/configs/meta.toml, docs/meta.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from fgsbir_edge.head import Side
from training.data.augment import Augmentation
from training.episodic.regularisers import RegulariserConfig
from training.trainer import RunConfig

Setting = Literal["person", "category"]
Split = Literal["train", "all", "none"]


@dataclass(frozen=True)
class DomainConfig:
    """A dataset as a set of tasks.

    name     in logs and figures
    folder   relative to where training is told the data lie; the splits of a known dataset go by this name (domains.py)
    setting  a task is a "person" (gallery: all photos) or a "category" (gallery: its photos)
    share    of the outer steps, 0 or more; 0 only validates
    pairs    table; several joined by "+": of a later one only the photos that those before it lack
    k        numbers of support pairs, one drawn each step; empty: those of [episodes]
    split    "train": what is held back validates; "all": everything trains; "none": nothing trains, everything validates
    """

    name: str
    folder: str
    setting: Setting
    share: float = 1.0
    pairs: str = "pairs.csv"
    k: tuple[int, ...] = ()
    split: Split = "train"

    def __post_init__(self) -> None:
        if not 0.0 <= self.share < math.inf:
            raise ValueError(f"domain {self.name}: share is {self.share}, expected 0 or more")
        if any(k < 1 for k in self.k):
            raise ValueError(f"domain {self.name}: k is {self.k}, expected numbers from 1")


@dataclass(frozen=True)
class EpisodeConfig:
    """What an outer step sees: `tasks` episodes of one domain, drawn with replacement (METHODS C.4: 8 tasks, 16 queries).

    k        numbers of support pairs, one drawn each step for all its tasks
    queries  of other photos than the support's, at most
    gallery  photos that a query is searched among, at most; 0: all. Fewer save time where photos go through the network
    augment  what may be an augmented version instead of what a device sees: "sketches", "both" or "none"
    """

    k: tuple[int, ...] = (5,)
    tasks: int = 8
    queries: int = 16
    gallery: int = 0
    augment: Literal["none", "sketches", "both"] = "sketches"

    def __post_init__(self) -> None:
        if not self.k or min(*self.k, self.tasks, self.queries) < 1 or self.gallery < 0:
            raise ValueError("k, tasks and queries must be positive, gallery not negative")


@dataclass(frozen=True)
class FeatureConfig:
    """Where features come from and what below the head trains.

    source        "cached": pooled features of the images, computed once; "pixels": images through the encoder in every step,
                  which stays in evaluation mode (batch norms keep their statistics: a batch of one task has others)
    train         "none"; "projection"; with pixels also "all", as the paper does, or the name of a stage: it and what follows
    projection    "keep" the checkpoint's projection and head, or set them anew to principal components ("pca", cached alone)
    whitening     of these components, which are divided by their singular values to this power
    embedding     width D of the head; 0 keeps the checkpoint's. Fewer rows: its principal outputs; more: random ones are added
    gains         whether a gain for each feature trains: the metric in which the inner step works. Folded into the projection
    versions      of each cached image: as a device sees it, and this many less one augmented
    augmentation  of images that go through the encoder; what is cached was augmented by the defaults
    chunk         images through the encoder at a time, forgotten and computed again for the backward pass; 0: all, remembered
    """

    source: Literal["cached", "pixels"] = "cached"
    train: str = "none"
    projection: Literal["keep", "pca"] = "keep"
    whitening: float = 0.25
    embedding: int = 0
    gains: bool = True
    versions: int = 2
    augmentation: Augmentation = field(default_factory=Augmentation)
    chunk: int = 0

    def __post_init__(self) -> None:
        if self.source == "cached" and self.train not in ("none", "projection"):
            raise ValueError(f'train is {self.train!r}: cached features hold the network still; use source = "pixels"')
        if self.source == "pixels" and self.projection == "pca":
            raise ValueError('projection = "pca" needs source = "cached"')
        if self.versions < 1 or min(self.chunk, self.embedding) < 0:
            raise ValueError("versions must be positive, chunk and embedding not negative")


@dataclass(frozen=True)
class InnerConfig:
    """The inner loop on the head alone (METHODS C.4: one step, learned rate), in the span of the support (inner_loop.py).

    steps         in training and in the exported head
    rate          initial step size; proxies of the paper's unpublished one are for unnormalised losses (METHODS C.4)
    rates         one "shared" by all steps, one for each "step", or one for each step and row of the head ("row"), which no
                  device runs
    learn_rates   whether the outer loop trains them
    side          embeddings that move: "both", as in the paper, or "sketch": no gallery is ever embedded again
    negatives     "support": photos of the other pairs; "gallery": `further` other photos of the gallery too, whatever they show;
                  "drawn": for each sketch one photo that is neither in the support nor asked for (METHODS C.6), and no other.
                  A device knows the first two; to it "drawn" is "gallery"
    sharpness     b of softplus_b (METHODS C.5); 0 is the paper's hinge, which gives no margin network a gradient
    second_order  whether the outer gradient goes through the inner one; without it no margin network learns
    centre        p of centring: before the first step every sketch's output loses k/(k+p) of the mean output of the support's k
                  sketches, what the task's sketches have in common. inf: off
    learn_centre  whether the outer loop trains p, from that start
    """

    steps: int = 1
    rate: float = 0.5
    rates: Literal["shared", "step", "row"] = "step"
    learn_rates: bool = True
    side: Side = "sketch"
    negatives: Literal["support", "gallery", "drawn"] = "support"
    further: int = 8
    sharpness: float = 10.0
    second_order: bool = True
    centre: float = math.inf
    learn_centre: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.further < 1 or self.sharpness < 0:
            raise ValueError("steps and further must be positive, sharpness not negative")
        if not self.centre >= 0.0 or (self.learn_centre and self.centre == 0.0):
            raise ValueError(f"centre is {self.centre}, expected a positive number, inf for none, or 0 with learn_centre = false")


@dataclass(frozen=True)
class MarginConfig:
    """The margin of the inner loss (METHODS C.5, margins.py).

    design  "distances": predicted from the support's triplet distances, on the device too; "gradient": from the gradient of the
            support loss, MetaHTR's way, trained here alone: a device gets the mean that validation saw; "fixed"
    value   of the fixed one; for "gradient", that of the loss whose gradient is looked at
    hidden  width of the network
    """

    design: Literal["distances", "gradient", "fixed"] = "distances"
    value: float = 0.3
    hidden: int = 16

    def __post_init__(self) -> None:
        if self.hidden < 1 or not 0.0 <= self.value <= 2.0:
            raise ValueError("hidden must be positive, value from 0 to 2: embeddings lie no farther apart")


@dataclass(frozen=True)
class OuterConfig:
    """The loss of the adapted head on the query set.

    loss          "triplet" with a constant margin, as the paper's figure reads (METHODS C.4), or "cross_entropy" over the
                  episode's gallery, a deviation: every photo of the gallery is a negative, the hard ones count most
    temperature   of the cross entropy
    margin        of the triplets (the paper's is not published)
    sharpness     of the triplets' softplus; 0: the paper's hinge
    negatives     drawn for each query, for the triplets; 0: all other photos of the gallery, their mean
    base_weight   share of the un-adapted head in the loss; 0 in the paper. The device's guard falls back on that head
    shown_weight  share of further drawings of the support's photos; 0 in the paper
    weight        of the whole beside the regularisers
    """

    loss: Literal["triplet", "cross_entropy"] = "cross_entropy"
    temperature: float = 0.07
    margin: float = 0.3
    sharpness: float = 0.0
    negatives: int = 0
    base_weight: float = 0.5
    shown_weight: float = 0.2
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (0.0 <= self.base_weight <= 1.0 and 0.0 <= self.shown_weight <= 1.0):
            raise ValueError("base_weight and shown_weight are shares, from 0 to 1")
        if self.temperature <= 0 or self.weight <= 0 or min(self.margin, self.sharpness, self.negatives) < 0:
            raise ValueError("temperature and weight must be positive, margin, sharpness and negatives not negative")


@dataclass(frozen=True)
class MetaOptimiser:
    """Adam (METHODS C.4: 1e-4) with a rate for each part.

    head          the embedding layer, where every inner loop starts
    fast          gains, step sizes, margin network and p of the centring (its logarithm)
    projection, encoder   what trains of them
    regularisers  the networks of the regularisers
    schedule      "cosine" to 0 at the last step, or "constant", as far as is known of the paper
    warmup        steps in which the rates rise
    clip          largest norm of the gradient
    average       decay of the moving average of weights that is validated and kept; 0 keeps the weights themselves
    """

    head: float = 1e-5
    fast: float = 2e-3
    projection: float = 1e-5
    encoder: float = 1e-5
    regularisers: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = 0
    clip: float = 1.0
    average: float = 0.0

    def __post_init__(self) -> None:
        if min(self.head, self.fast, self.projection, self.encoder, self.regularisers) < 0 or self.clip <= 0:
            raise ValueError("rates must not be negative, clip must be positive")
        if not 0 <= self.average < 1 or self.warmup < 0:
            raise ValueError("average must lie in [0,1), warmup must not be negative")

    def factor(self, step: int, steps: int) -> float:
        """What every rate is multiplied by at `step` (from 0) of `steps`."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * (step - self.warmup) / max(steps - self.warmup, 1)))


@dataclass(frozen=True)
class ValidationConfig:
    """Tasks held back: for each k the mean of `draws` episodes a task. `sets` names those to use; empty: all."""

    k: tuple[int, ...] = (5,)
    draws: int = 10
    sets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.k or min(*self.k, self.draws) < 1:
            raise ValueError("k and draws must be positive")


@dataclass(frozen=True)
class MetaRun(RunConfig):
    """As in training.trainer. `score` is a validation figure such as "mean/after@1"; `workers` are threads that prepare steps."""

    steps: int = 1500
    every: int = 500
    score: str = "mean/after@1"


@dataclass(frozen=True)
class MetaConfig:
    """A whole run; without the table [regularisers] there are none."""

    domains: tuple[DomainConfig, ...]
    episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    margin: MarginConfig = field(default_factory=MarginConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    regularisers: RegulariserConfig | None = None
    optimiser: MetaOptimiser = field(default_factory=MetaOptimiser)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    run: MetaRun = field(default_factory=MetaRun)

    def __post_init__(self) -> None:
        names = [domain.name for domain in self.domains]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"domains are {', '.join(names) or 'none'}; expected at least one, each with a name of its own")
        if self.regularisers is not None and self.features.train == "none" and not self.features.gains:
            raise ValueError("regularisers have nothing to act on: the features are fixed; set features.train, or gains = true")
