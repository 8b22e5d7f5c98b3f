"""A whole joint run as its configuration file describes it."""

from __future__ import annotations

from dataclasses import dataclass, field

from training.generation.losses import VaeLossConfig
from training.schedule import OptimiserConfig
from training.semi.discriminator import DiscriminatorConfig
from training.semi.retrieval import RetrievalConfig
from training.semi.reward import RewardConfig
from training.semi.schedule import AlternationConfig
from training.supervised import DataConfig, PcaConfig
from training.trainer import RunConfig


@dataclass(frozen=True)
class UnlabelledConfig:
    """Where photos without sketches come from.

    fraction  of the labelled photos that keep their sketches; the rest become unlabelled photos (fractions.py)
    photos    how many a step, for each of retrieval, D_C and generator; the paper's 1:1 means as many as data.pairs
    folders   further folders of photos for a source, by its name, relative to the data folder. Those of a dataset with a table
              give the photos of its training side alone. They should show what the source shows: D_C would tell others by the
              photo

    Raises:
        ValueError: a fraction outside (0,1], or fewer than two photos a step, which leaves no negative.
    """

    fraction: float = 1.0
    photos: int = 16
    folders: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"the label fraction is {self.fraction:g}, expected more than 0 and at most 1; write 0.2 for 20 %")
        if self.photos < 2:
            raise ValueError(f"unlabelled photos is {self.photos}, expected at least 2: a pair needs another one as a negative")


@dataclass(frozen=True)
class GeneratorUpdateConfig:
    """How G learns in a joint run (METHODS B.2, B.8). How people's sketches become rows is the generator's, from its checkpoint.

    rate         of Adam with momenta 0.5 and 0.999; clip: the largest norm of the gradient, likelihood and policy together
    pairs        labelled pairs a step, each of which gives a likelihood term and, drawn anew, a reward
    loss         L_vae; annealing goes on where pre-training ended
    temperature  of the drawings that F and D_C learn from. 1, the paper's, draws from the distribution itself; less draws what is
                 likelier, and cleaner, of a weak generator. Rewarded drawings always have 1: the likelihood is of that
    pen_temperature  of the pen states of these drawings; a low one would hardly ever let the pen rise or stop
    """

    rate: float = 1e-4
    clip: float = 1.0
    pairs: int = 16
    loss: VaeLossConfig = field(default_factory=VaeLossConfig)
    temperature: float = 1.0
    pen_temperature: float = 1.0

    def __post_init__(self) -> None:
        if min(self.rate, self.clip, self.temperature, self.pen_temperature) <= 0 or self.pairs < 2:
            raise ValueError("generator rate, clip and temperatures must be positive, pairs at least 2")


@dataclass(frozen=True)
class SemiConfig:
    """Joint training. Encoder, input and generator shapes are those of the checkpoints it starts from.

    `data` is the labelled side as in training.supervised; `optimiser` is F's; of `pca` only `refit` and what it
    needs play a part.
    """

    data: DataConfig
    unlabelled: UnlabelledConfig = field(default_factory=UnlabelledConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    generator: GeneratorUpdateConfig = field(default_factory=GeneratorUpdateConfig)
    alternation: AlternationConfig = field(default_factory=AlternationConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    pca: PcaConfig = field(default_factory=lambda: PcaConfig(start=False))
    run: RunConfig = field(default_factory=RunConfig)

    @property
    def draws(self) -> bool:
        """Whether generated sketches play any part."""
        return self.retrieval.generated > 0 or self.alternation.generator > 0

    @property
    def judges(self) -> bool:
        """Whether D_C's certainty plays any part."""
        weighs = self.retrieval.generated > 0 and self.retrieval.weights != "none"
        return weighs or (self.alternation.generator > 0 and self.reward.certainty > 0)
