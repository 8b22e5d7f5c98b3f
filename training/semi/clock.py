"""Where the time of a step goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Seconds by name, summed until they are taken. On a GPU a block ends when its kernels have, so that it counts them."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.counts: defaultdict[str, int] = defaultdict(int)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block."""
        begun = self._now()
        yield
        self.seconds[name] += self._now() - begun
        self.counts[name] += 1

    def take(self, steps: int) -> dict[str, float]:
        """Seconds of each name since the last call, then start anew.

        "seconds/KIND" is the mean of the blocks of that name, whole steps of a kind; every other NAME becomes "time/NAME", its
        mean over `steps` steps whether they have it or not, so that these add up to the mean step.
        """
        whole = {name: value / self.counts[name] for name, value in self.seconds.items() if name.startswith("seconds/")}
        parts = {f"time/{name}": value / steps for name, value in self.seconds.items() if name not in whole}
        self.seconds.clear()
        self.counts.clear()
        return {**whole, **parts}

    def _now(self) -> float:
        if self.device is not None and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
