"""Which step does what: D_C alone first, then some steps for retrieval and D_C, some for the generator, in turn (METHODS B.9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Phase = Literal["warmup", "retrieval", "generator"]


@dataclass(frozen=True)
class AlternationConfig:
    """Lengths of the phases, in steps.

    warmup     steps that train D_C alone, generator and retrieval fixed, before its certainty weighs anything. The paper names
               none; an untrained D_C gives every pair about a half
    retrieval  steps in a row that train F and D_C: the paper's k_r = 5
    generator  steps in a row that train G: the paper's k_g = 5. 0 leaves the generator as it was ("no joint training")

    Raises:
        ValueError: a length out of range.
    """

    warmup: int = 300
    retrieval: int = 5
    generator: int = 5

    def __post_init__(self) -> None:
        if self.warmup < 0 or self.retrieval < 1 or self.generator < 0:
            raise ValueError(
                f"alternation warmup {self.warmup} and generator {self.generator} must not be negative, "
                f"retrieval {self.retrieval} positive"
            )

    def phase(self, step: int) -> Phase:
        """What step `step` (from 0) does."""
        if step < self.warmup:
            return "warmup"
        return "retrieval" if (step - self.warmup) % (self.retrieval + self.generator) < self.retrieval else "generator"

    def done(self, step: int) -> int:
        """How many retrieval steps there are before `step`."""
        rounds, rest = divmod(max(0, step - self.warmup), self.retrieval + self.generator)
        return rounds * self.retrieval + min(rest, self.retrieval)
