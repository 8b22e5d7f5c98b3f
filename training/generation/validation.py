"""How well a generator predicts drawings that it never saw, while it trains; and whether what it draws ends by itself."""

from __future__ import annotations

import numpy as np
import torch

from training.generation.losses import reconstruction
from training.generation.mixture import Mixture
from training.generation.network import Generator, shifted
from training.generation.sampling import draw
from training.generation.sights import Sights, encode

BATCH = 64  # drawings at a time
SEED = 20210601  # of the drawings that are made, always the same
DRAWN = 128  # pictures of a corpus that are drawn, at most


class SequenceValidator:
    """Figures of a generator on the corpora of `sights`, percentages and means over their rows."""

    def __init__(self, sights: Sights) -> None:
        self.sights = sights

    @property
    def names(self) -> list[str]:
        """What the losses are called."""
        return [*(f"{item.name}/loss" for item in self.sights.corpora), "mean/loss"]

    @torch.no_grad()
    def __call__(self, generator: Generator) -> dict[str, float]:
        """By name: "SET/loss" (nats a row, with the mean latent vector), its parts "SET/offset" and "SET/pen", "mean/loss" over
        the sets; of drawings at temperature 1 "SET/length", their mean rows over those of people, and "SET/ended", the percentage
        that reached the end token.
        """
        figures: dict[str, float] = {}
        for number, corpus in enumerate(self.sights.corpora):
            offset, pen = self._losses(generator, number)
            length, ended = self._drawn(generator, number)
            people = float(corpus.sequences.lengths.mean())
            parts = {"loss": offset + pen, "offset": offset, "pen": pen, "length": length / people, "ended": ended}
            figures |= {f"{corpus.name}/{what}": value for what, value in parts.items()}
        figures["mean/loss"] = float(np.mean([figures[f"{item.name}/loss"] for item in self.sights.corpora]))
        return figures

    def _losses(self, generator: Generator, number: int) -> tuple[float, float]:
        """Offset and pen loss of a corpus, means over all rows."""
        sequences, device = self.sights.corpora[number].sequences, generator.output.weight.device
        total, seen = np.zeros(2), 0
        for start in range(0, len(sequences), BATCH):
            chosen = np.arange(start, min(start + BATCH, len(sequences)))
            lengths = torch.from_numpy(sequences.lengths[chosen]).to(device)
            rows = torch.from_numpy(sequences.rows[chosen, : int(lengths.max())]).to(device)
            rows, lengths = generator.targets(rows, lengths)
            encoded = encode(generator, self.sights(number, chosen).to(device))
            raw, _ = generator.decode(encoded, shifted(rows), encoded.mean, lengths)
            parts = reconstruction(Mixture.of(raw, generator.config.least_deviation), rows, lengths)
            total += np.array([parts.offset.item(), parts.pen.item()]) * int(lengths.sum())
            seen += int(lengths.sum())
        offset, pen = total / seen
        return float(offset), float(pen)

    def _drawn(self, generator: Generator, number: int) -> tuple[float, float]:
        """Mean length of drawings, and how many in a hundred end."""
        corpus, rng = self.sights.corpora[number], torch.Generator().manual_seed(SEED)
        first = np.unique(corpus.picture, return_index=True)[1][:DRAWN]  # a drawing of each picture
        lengths, ended = [], []
        for start in range(0, len(first), BATCH):
            seen = self.sights(number, first[start : start + BATCH]).to(generator.output.weight.device)
            drawn = draw(generator, encode(generator, seen), rng=rng)
            lengths.append(drawn.lengths.cpu())
            ended.append(drawn.ended.cpu())
        return float(torch.cat(lengths).float().mean()), 100.0 * float(torch.cat(ended).float().mean())
