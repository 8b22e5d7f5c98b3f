"""Research code as a process of its own: ``python -m benchmarks.end_to_end_child query|adapt FOLDER DRAWING...``.

``FOLDER`` holds what ``end_to_end_starts`` has put there. It prints one line when the photos are found, or the head is written.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from benchmarks import adapt_torch
from benchmarks.adapt_task import EAGER, PAIRS, Task
from benchmarks.end_to_end_place import STEPS, TOP
from benchmarks.end_to_end_torch import image_input, network
from fgsbir_edge.preprocess import InputSpec


def main(job: str, folder: Path, drawings: list[str]) -> str:
    """Do one job; returns what is to be printed."""
    torch.set_num_threads(1)
    net = network(torch.load(folder / "network.pt", weights_only=True))
    with np.load(folder / "photos.npz") as stored:
        photos, weight, bias = (stored[name] for name in ("features", "weight", "bias"))
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    spec, names = InputSpec.from_manifest(facts["input"]), facts["names"]
    with torch.inference_mode():
        sketches = net(torch.cat([image_input(Image.open(drawing).convert("L"), spec) for drawing in drawings]))
    if job == "query":
        head = torch.from_numpy(weight), torch.from_numpy(bias)
        sketch, others = (functional.normalize(functional.linear(one, *head)) for one in (sketches, torch.from_numpy(photos)))
        found = functional.pairwise_distance(sketch, others).topk(TOP, largest=False).indices.tolist()
        return " ".join(names[place] for place in found)
    own = [names.index(f"{Path(drawing).stem}.jpg") for drawing in drawings[:PAIRS]]
    task = Task(photos.shape[1], len(weight), 0)
    task.__dict__.update(support=np.concatenate([sketches.numpy(), photos[own]]), weight=weight, bias=bias)
    adapted = adapt_torch.methods(task)[EAGER](STEPS)
    torch.save({"weight": torch.tensor(adapted[0]), "bias": torch.tensor(adapted[1])}, folder / "research.pt")
    return "written"


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]) + "\n")
