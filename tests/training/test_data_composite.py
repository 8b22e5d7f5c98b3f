"""Composites: regions change hands alike in sketches and photos, and nobody is their own partner."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.data.composite import composed, region

pytestmark = pytest.mark.torch


def numbered(count: int, side: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Sketch i is all i, photo i all i + 100."""
    values = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, side, side)
    return values.clone(), values + 100


@pytest.mark.parametrize("seed", range(6))
def test_each_pair_gives_to_one_and_takes_from_one_other(seed: int) -> None:
    sketches, photos = composed(*numbered(7), np.random.default_rng(seed))
    assert torch.equal(photos, sketches + 100)  # the same regions on both sides
    givers = []
    for row in range(7):
        found = set(sketches[row].unique().tolist())
        assert len(found) == 2
        assert row in found
        givers.append((found - {row}).pop())
    assert sorted(givers) == list(range(7))


def test_inputs_stay_as_they_are_and_one_pair_is_returned() -> None:
    sketches, photos = numbered(3)
    composed(sketches, photos, np.random.default_rng(0))
    assert torch.equal(sketches, numbered(3)[0])
    alone = numbered(1)
    assert composed(*alone, np.random.default_rng(0))[0] is alone[0]


def test_regions_leave_something_of_both() -> None:
    rng = np.random.default_rng(1)
    shapes = set()
    for _ in range(300):
        top, bottom, left, right = region(40, rng)
        assert 0 <= top < bottom <= 40
        assert 0 <= left < right <= 40
        area = (bottom - top) * (right - left) / 1600
        assert 0.1 < area < 0.75
        shapes.add((bottom - top == 40, right - left == 40))
    assert shapes == {(True, False), (False, True), (False, False)}
