"""Meta-training of the final embedding layer for adaptation from k pairs: ``python -m training.meta``.

The backbone of a supervised checkpoint is frozen and its pooled features cached. The projection is refitted to them as principal
components. The outer loop then trains a gain for each feature (which decides the metric the inner step works in), the head, the
per-step rates and the margin network, with gradients of second order through the inner loop, which touches the head alone
(METHODS C.4). The gains are folded into the projection at the end.

Departures from the paper: the outer loss is cross entropy over the episode's gallery instead of a triplet; the un-adapted head
shares it, because the guard falls back on that head; the encoder below the gains is not trained, because on the few people and
categories there are, the outer loop over the projection's 2.7 M weights learned the training photos by heart and lost 5 to 10
points on new ones.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgsbir_edge.console import run
from training.checkpoint import load_model, save_tensors
from training.episodes import Episode, Task, draw
from training.inner_loop import Support, adapt, adapted_outputs, triplet_distances
from training.meta_old_data import Domain, open_domains, training_rows
from training.metrics import accuracy, ranks_of
from training.models.encoder import Encoder, initialise_by_pca
from training.models.margin import MarginNet

log = logging.getLogger("training.meta")


@dataclass(frozen=True)
class MetaConfig:
    """What the inner loop does and how the outer loop trains it."""

    k: int = 5
    steps: int = 1
    side: str = "sketch"  # which embeddings move: "sketch" or "both"
    negatives: int = 0  # further gallery photos as inner negatives
    sharpness: float = 10.0
    margin: float | None = None  # None: predicted
    rate: float = 0.5  # initial inner step size
    temperature: float = 0.07
    base_weight: float = 0.5  # share of the un-adapted head in the outer loss
    shown_weight: float = 0.2  # share of the shown photos, drawn anew, in the outer loss
    tasks: int = 8


class MetaModel(nn.Module):
    """Feature gains, head, step sizes and margin network over projected features [.., C]."""

    def __init__(self, head: nn.Linear, config: MetaConfig) -> None:
        super().__init__()
        self.head, self.config = head, config
        self.log_gain = nn.Parameter(torch.zeros(head.in_features))
        self.rates = nn.Parameter(torch.full((config.steps,), config.rate))
        self.margin_net = MarginNet() if config.margin is None else None

    def features(self, projected: np.ndarray) -> Tensor:
        return F.normalize(torch.from_numpy(projected) * self.log_gain.exp(), dim=-1)

    def margin(self, support: Support) -> Tensor:
        """Margins [E]: predicted from the base head's distances, or the fixed one."""
        if self.margin_net is None:
            return torch.full((len(support.features),), float(self.config.margin or 0.0))
        outputs = support.features @ self.head.weight.T + self.head.bias
        positive, distances = triplet_distances(outputs, support.pairs)
        return self.margin_net(positive.unsqueeze(-1).expand_as(distances), distances, support.mask)  # type: ignore[no-any-return]

    def adapt(self, support: Support, *, second_order: bool = True) -> Tensor:
        return adapt(
            self.head.weight,
            self.head.bias,
            support,
            self.rates,
            self.margin(support),
            sharpness=self.config.sharpness,
            side=self.config.side,
            second_order=second_order,
        )


def support_of(model: MetaModel, domain: Domain, episodes: list[Episode], version: int, rng: np.random.Generator) -> Support:
    """Features and negative mask of the episodes' support sets."""
    rows, masks = [], []
    for episode in episodes:
        truth = episode.task.truth[episode.support]
        further = rng.permutation(np.setdiff1d(np.arange(len(episode.task.gallery)), truth))[: model.config.negatives]
        photos = np.concatenate([truth, further])
        sketches = domain.sketches[episode.task.sketches[episode.support], version]
        rows.append(np.concatenate([sketches, domain.photos[episode.task.gallery[photos], 0]]))
        masks.append(torch.from_numpy(truth[:, None] != photos[None, :]))
    return Support(model.features(np.stack(rows)), torch.stack(masks).float())


def episode_scores(
    model: MetaModel,
    domain: Domain,
    episode: Episode,
    support: Support,
    coefficients: Tensor | None,
    queries: tuple[np.ndarray, int],
) -> tuple[Tensor, Tensor]:
    """Cosine similarities [Q,N] of query sketches (positions, version) to the gallery, and the true positions [Q]."""
    positions, version = queries
    task = episode.task
    sketches = model.features(domain.sketches[task.sketches[positions], version]).unsqueeze(0)
    photos = model.features(domain.photos[task.gallery, 0]).unsqueeze(0)
    weight, bias = model.head.weight, model.head.bias

    def embed(features: Tensor, moved: bool) -> Tensor:
        if coefficients is None or not moved:
            outputs = features @ weight.T + bias
        else:
            outputs = adapted_outputs(weight, bias, support, coefficients, features)
        return F.normalize(outputs[0], dim=-1)

    scores = embed(sketches, True) @ embed(photos, model.config.side == "both").T
    return scores, torch.from_numpy(task.truth[positions])


def outer_loss(model: MetaModel, domain: Domain, episodes: list[Episode], rng: np.random.Generator) -> Tensor:
    config = model.config
    versions = domain.sketches.shape[1]
    support = support_of(model, domain, episodes, int(rng.integers(versions)), rng)
    coefficients = model.adapt(support)
    losses = []
    for index, episode in enumerate(episodes):
        own = Support(support.features[index : index + 1], support.mask[index : index + 1])
        queries = episode.query, int(rng.integers(versions))
        if len(episode.shown):
            shown = episode.shown, int(rng.integers(versions))
        else:
            shown = episode.support, int(rng.integers(1, versions))  # drawn once: the augmented drawing stands in
        for learned, weight in ((coefficients[index : index + 1], 1.0 - config.base_weight), (None, config.base_weight)):
            if weight == 0.0:
                continue
            for (positions, version), share in ((queries, 1.0 - config.shown_weight), (shown, config.shown_weight)):
                scores, truth = episode_scores(model, domain, episode, own, learned, (positions, version))
                losses.append(weight * share * F.cross_entropy(scores / config.temperature, truth))
    return torch.stack(losses).sum() / len(episodes)


def evaluate(model: MetaModel, domain: Domain, tasks: list[Task], k: int, draws: int, seed: int = 0) -> dict[str, float]:
    """Acc@1/5 before and after adaptation, mean over tasks and draws, without a guard.

    "shown" are further sketches of the photos in the support, where there are any.
    """
    figures: dict[str, list[float]] = defaultdict(list)
    for number, task in enumerate(tasks):
        for turn in range(draws):
            rng = np.random.default_rng([seed, number, turn])
            episode = draw(task, k, rng)
            with torch.no_grad():
                support = support_of(model, domain, [episode], 0, rng)
                learned = model.adapt(support, second_order=False)
                for when, coefficients in (("before", None), ("after", learned)):
                    for what, positions in (("", episode.query), ("shown ", episode.shown)):
                        if not len(positions):
                            continue
                        scores, truth = episode_scores(model, domain, episode, support, coefficients, (positions, 0))
                        found = ranks_of(scores.numpy(), truth.numpy())
                        for at in (1,) if what else (1, 5):
                            figures[f"{what}{when}@{at}"].append(accuracy(found, at))
    return {name: round(float(np.mean(values)), 2) for name, values in figures.items()}


def train(arguments: argparse.Namespace) -> int:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    config = MetaConfig(
        k=arguments.k,
        steps=arguments.inner_steps,
        side=arguments.side,
        negatives=arguments.negatives,
        margin=arguments.margin,
        rate=arguments.inner_rate,
        base_weight=arguments.base_weight,
        shown_weight=arguments.shown_weight,
    )
    encoder, head, meta = load_model(arguments.checkpoint)
    domains, validation = open_domains(arguments.data, arguments.cache, encoder, meta)
    if not arguments.keep_projection:
        initialise_by_pca(encoder, head, training_rows(domains))
    domains = [projected(domain, encoder) for domain in domains]
    validation = {name: (projected(domain, encoder), tasks) for name, (domain, tasks) in validation.items()}
    model = MetaModel(head.linear, config)
    model.log_gain.requires_grad_(not arguments.fixed_gains)
    fast = [model.log_gain, model.rates, *(model.margin_net.parameters() if model.margin_net is not None else [])]
    groups = [
        {"params": list(model.head.parameters()), "lr": arguments.rate},
        {"params": [item for item in fast if item.requires_grad], "lr": arguments.fast_rate},
    ]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(arguments.steps, 1))
    shares = np.array([item.share for item in domains]) / sum(item.share for item in domains)

    def report(step: int) -> dict[str, dict[str, float]]:
        figures = {name: evaluate(model, item, tasks, config.k, 10) for name, (item, tasks) in validation.items()}
        log.info("step %d rates %s", step, [round(rate, 4) for rate in model.rates.tolist()])
        for name, values in figures.items():
            log.info("  %s %s", name, json.dumps(values))
        return figures

    figures = report(0)
    started, running = time.monotonic(), 0.0
    for step in range(arguments.steps):
        rng = np.random.default_rng([arguments.seed, 2, step])
        domain = domains[int(rng.choice(len(domains), p=shares))]
        picks = rng.integers(len(domain.tasks), size=config.tasks)
        episodes = [draw(domain.tasks[int(pick)], config.k, rng, queries=16) for pick in picks]
        loss = outer_loss(model, domain, episodes, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        running = 0.98 * running + 0.02 * loss.item()
        if (step + 1) % arguments.every == 0 or step + 1 == arguments.steps:
            log.info("step %d loss %.3f, %.3f s/step", step + 1, running, (time.monotonic() - started) / (step + 1))
            figures = report(step + 1)
    fold_gain(encoder, model.log_gain)
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    tensors |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    tensors["adaptation.step_sizes"] = model.rates
    if model.margin_net is not None:
        tensors |= {f"adaptation.margin.{name}": tensor for name, tensor in model.margin_net.arrays().items()}
    settings = {name: getattr(config, name) for name in ("k", "steps", "side", "negatives", "sharpness", "margin")}
    save_tensors(
        arguments.out, tensors, {**meta, "adaptation": settings, "meta_validation": figures, "meta_steps": arguments.steps}
    )
    return 0


def projected(domain: Domain, encoder: Encoder) -> Domain:
    """The domain with its pooled rows [.., R] taken through the projection, float32 [.., C], before they are normalised."""

    @torch.no_grad()
    def project(rows: np.ndarray) -> np.ndarray:
        return np.stack([encoder.projection(torch.from_numpy(rows[:, v]).float()).numpy() for v in range(rows.shape[1])], axis=1)

    return replace(domain, sketches=project(domain.sketches), photos=project(domain.photos))


@torch.no_grad()
def fold_gain(encoder: Encoder, log_gain: Tensor) -> None:
    """Make the gains part of the projection, so that a device needs to know nothing of them."""
    encoder.projection.weight.mul_(log_gain.exp().unsqueeze(1))
    encoder.projection.bias.mul_(log_gain.exp())


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m training.meta", description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="folder that holds chairv2/, drawings32/ and sketchy/")
    options.add_argument("--checkpoint", type=Path, required=True, help="supervised checkpoint to start from")
    options.add_argument(
        "--cache", type=Path, required=True, help="folder for cached features; those of another backbone are kept apart"
    )
    options.add_argument("--out", type=Path, required=True, help="file to write, .safetensors")
    options.add_argument("--keep-projection", action="store_true", help="start from the checkpoint's own projection and head")
    options.add_argument("--fixed-gains", action="store_true", help="do not train the gains of the features")
    options.add_argument("--k", type=int, default=5)
    options.add_argument("--inner-steps", type=int, default=1)
    options.add_argument("--inner-rate", type=float, default=0.5)
    options.add_argument("--side", choices=("sketch", "both"), default="sketch")
    options.add_argument("--negatives", type=int, default=0, help="further gallery photos as inner negatives")
    options.add_argument("--margin", type=float, default=None, help="fixed margin; omitted: predicted by the margin network")
    options.add_argument("--base-weight", type=float, default=0.5)
    options.add_argument("--shown-weight", type=float, default=0.2, help="share of shown photos drawn anew in the outer loss")
    options.add_argument("--steps", type=int, default=1500)
    options.add_argument("--every", type=int, default=500)
    options.add_argument("--rate", type=float, default=1e-5, help="Adam rate of the head")
    options.add_argument("--fast-rate", type=float, default=2e-3, help="rate of gains, step sizes and margin network")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--seed", type=int, default=0)
    return options


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    given = parser().parse_args()
    sys.exit(run(lambda: train(given)))
