"""A pre-training small enough for a test: four steps, a checkpoint every two."""

from __future__ import annotations

import json

import numpy as np

RECIPE = """
[generator]
backbone = "mobilenetv2"
stage = "bottleneck5"
size = 64
latent = 4
hidden = 16
attention = 8
mixtures = 3
train_backbone = false
[sequences]
epsilon = 20
[stream]
batch = 4
flip = true
stretch = 0.1
[optimiser]
rate = 3e-3
average = 0.9
[run]
steps = 4
every = 2
threads = 1
[[data.sources]]
name = "things"
folder = "things"
"""


def drawing_line(number: int) -> str:
    """A drawing as QuickDraw's files have it, a line each."""
    strokes = [np.random.default_rng([number, stroke]).integers(0, 255, (2, 8)).tolist() for stroke in range(2)]
    return json.dumps({"word": "hot dog", "recognized": True, "key_id": str(4503600000000000 + number), "drawing": strokes})
