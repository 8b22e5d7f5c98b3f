"""What adapting gains on tasks held back, as the outer loop trains; the device's own code measures later (training.evaluate)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.config import ConfigError
from training.episodes import Episode, Task, draw, negative_mask
from training.episodic.config import ValidationConfig
from training.episodic.domains import Dataset, TaskSet, used_rows
from training.episodic.model import MetaModel
from training.episodic.outer import Objective
from training.episodic.sources import FeatureSource
from training.inner_loop import Support
from training.metrics import accuracy, ranks_of

PARTS = ("before@1", "before@5", "after@1", "after@5", "gain@1", "margin", "margin_spread")
MEANS = ("before@1", "after@1", "after@5", "gain@1")


@dataclass(frozen=True, eq=False)
class Bank:
    """Unit features of a dataset as a device sees it: sketches [S,C] and photos [P,C]; rows that nobody asks for are zero."""

    sketches: Tensor
    photos: Tensor

    @classmethod
    def of(cls, objective: Objective, source: FeatureSource, dataset: Dataset, sets: Sequence[TaskSet]) -> Bank:
        """The features that tasks of `sets`, all of `dataset`, need."""
        device = objective.model.head.weight.device

        def encode(inputs: Tensor) -> Tensor:
            return objective.features(inputs.to(device)).cpu()

        tables = []
        for role, rows, count in zip(("sketch", "photo"), used_rows(sets), (len(dataset.keys), len(dataset.photos)), strict=True):
            found = source.still(dataset, role, rows, encode)  # type: ignore[arg-type]
            table = torch.zeros(count, found.shape[1])
            table[torch.from_numpy(rows)] = found
            tables.append(table.to(device))
        return cls(*tables)


class MetaValidator:
    """Figures of an objective on the validation sets.

    Raises:
        ConfigError: a set named that is not there, or none that is large enough for any k.
    """

    def __init__(self, sets: Sequence[TaskSet], source: FeatureSource, config: ValidationConfig, seed: int = 0) -> None:
        there = {item.name: item for item in sets}
        if missing := sorted(set(config.sets) - set(there)):
            raise ConfigError(f"validation.sets names {missing[0]!r}; there are {', '.join(there) or 'none'}")
        chosen = [item for name, item in there.items() if not config.sets or name in config.sets]
        self.parts = [(item, k, tasks) for item in chosen for k in config.k if (tasks := item.large(k))]
        if not self.parts:
            raise ConfigError("no tasks are held back that are large enough to validate on; lower validation.k or split a domain")
        self.source, self.config, self.seed = source, config, seed

    @property
    def names(self) -> list[str]:
        """What the figures are called that every validation has."""
        own = [f"{item.name}/k{k}/{what}" for item, k, _ in self.parts for what in PARTS]
        return own + [f"mean/{what}" for what in MEANS]

    def __call__(self, objective: Objective) -> dict[str, float]:
        """Percentages by name: "SET/kK/before@1" and so on, and their means over sets and k.

        "margin" is the mean over tasks of the mean over draws, "margin_spread" the standard deviation over tasks (over draws,
        where there is one task); "shown before@1" and "shown after@1" are of further sketches of the support's photos.
        """
        banks: dict[int, Bank] = {}
        figures: dict[str, float] = {}
        for item, k, tasks in self.parts:
            dataset = item.dataset
            if dataset.number not in banks:
                sets = [other for other, _, _ in self.parts if other.dataset is dataset]
                with torch.no_grad():
                    banks[dataset.number] = Bank.of(objective, self.source, dataset, sets)
            found = evaluate(objective.model, banks[dataset.number], tasks, k, self.config.draws, self.seed)
            figures |= {f"{item.name}/k{k}/{name}": value for name, value in found.items()}
        for what in MEANS:
            every = [figures[f"{item.name}/k{k}/{what}"] for item, k, _ in self.parts]
            figures[f"mean/{what}"] = round(float(np.mean(every)), 3)
        return figures

    def mean_margin(self, figures: dict[str, float]) -> float:
        """The mean margin over sets and k, from this validation's `figures`."""
        return float(np.mean([figures[f"{item.name}/k{k}/margin"] for item, k, _ in self.parts]))


def evaluate(model: MetaModel, bank: Bank, tasks: Sequence[Task], k: int, draws: int, seed: int = 0) -> dict[str, float]:
    """Acc@1/5 before and after adaptation, mean over tasks and draws, without a guard; and the margins."""
    figures: dict[str, list[float]] = defaultdict(list)
    margins = np.zeros((len(tasks), draws))
    for number, task in enumerate(tasks):
        for turn in range(draws):
            rng = np.random.default_rng([seed, number, turn])
            episode = draw(task, k, rng)
            with torch.no_grad():
                support = support_of(model, bank, episode, rng)
                margin = model.margin(support)
                learned = model.adapt(support, second_order=False, margin=margin)
                margins[number, turn] = float(margin)
                for when, coefficients in (("before", None), ("after", learned)):
                    for what, positions in (("", episode.query), ("shown ", episode.shown)):
                        if not len(positions):
                            continue
                        photos = bank.photos[torch.from_numpy(task.gallery)]
                        sketches = bank.sketches[torch.from_numpy(task.sketches[positions])]
                        scores = model.scores(sketches, photos, support, coefficients)
                        found = ranks_of(scores.cpu().numpy(), task.truth[positions])
                        for at in (1,) if what else (1, 5):
                            figures[f"{what}{when}@{at}"].append(accuracy(found, at))
    means = {name: round(float(np.mean(values)), 3) for name, values in figures.items()}
    spread = margins.mean(axis=1).std() if len(tasks) > 1 else margins.std()
    gain = round(means["after@1"] - means["before@1"], 3)
    return {**means, "gain@1": gain, "margin": round(float(margins.mean()), 4), "margin_spread": round(float(spread), 4)}


def support_of(model: MetaModel, bank: Bank, episode: Episode, rng: np.random.Generator) -> Support:
    """The support set [1,m,C] of one episode, as a device is given it: with negatives "gallery" or "drawn" the `further` first of
    the other photos in a drawn order."""
    task, inner = episode.task, model.inner
    truth = task.truth[episode.support]
    others = rng.permutation(np.setdiff1d(np.arange(len(task.gallery)), truth))
    photos = np.concatenate([truth, others[: inner.further if inner.negatives != "support" else 0]])
    sketches = bank.sketches[torch.from_numpy(task.sketches[episode.support])]
    rows = torch.cat([sketches, bank.photos[torch.from_numpy(task.gallery[photos])]])
    mask = torch.from_numpy(negative_mask(truth, photos)).to(rows)
    return Support(rows.unsqueeze(0), mask.unsqueeze(0))
