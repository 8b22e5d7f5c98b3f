"""The rows of the ablation table (METHODS B.10), each as settings of a joint run."""

from __future__ import annotations

from dataclasses import dataclass, replace

from training.semi.config import SemiConfig

NO_WEIGHTS = "retrieval.weights='none'"
NO_TEACHER = "retrieval.distillation=0"
FIXED_GENERATOR = "alternation.generator=0"
NO_WARMUP = "alternation.warmup=0"  # where D_C weighs nothing it needs no warm-up


@dataclass(frozen=True)
class Arm:
    """One row: what it is called in print, the settings that make it, whether its generator has 2D attention.

    `joint` False: the supervised network itself, nothing more is trained.
    """

    title: str
    settings: tuple[str, ...] = ()
    attention: bool = True
    joint: bool = True


ARMS = {
    "supervised": Arm("supervised", joint=False),
    "continued": Arm("supervised, as many more steps", ("retrieval.generated=0", NO_TEACHER, FIXED_GENERATOR, NO_WARMUP)),
    "vanilla": Arm("vanilla semi-supervised", (NO_WEIGHTS, NO_TEACHER, FIXED_GENERATOR, NO_WARMUP), attention=False),
    "no_weights": Arm("full, no instance weights", (NO_WEIGHTS,)),
    "no_teacher": Arm("full, no teacher", (NO_TEACHER,)),
    "no_attention": Arm("full, no 2D attention", attention=False),
    "no_joint": Arm("full, generator fixed", (FIXED_GENERATOR,)),
    "full": Arm("full"),
    "no_reward": Arm("full, generator by likelihood alone", ("reward.policy=0",)),
    "triplet_reward": Arm("full, reward without D_C", ("reward.certainty=0",)),
    "certainty_reward": Arm("full, reward without triplet", ("reward.triplet=0",)),
}
TABLE = ("supervised", "continued", "vanilla", "no_weights", "no_teacher", "no_attention", "no_joint", "full")


def as_many_updates(config: SemiConfig, full: SemiConfig) -> SemiConfig:
    """`config` with as many retrieval updates as `full` has, and as many validations.

    An arm whose generator is fixed spends no steps on it; with as many steps it would train F twice as long.
    """
    steps, wanted = full.run.steps, full.alternation.done(full.run.steps)
    if config.alternation == full.alternation:
        return config
    total = config.alternation.warmup
    while config.alternation.done(total) < wanted:
        total += 1
    total = max(total, 1)
    every = max(1, -(-full.run.every * total // steps))
    return replace(config, run=replace(config.run, steps=total, every=every))
