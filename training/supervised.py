"""Supervised training of encoder and head on sketch-photo pairs: ``python -m training.supervised``.

Every step draws one domain (a dataset) and a batch of pairs with distinct photos from it, so that the negatives of a batch are
look-alikes. Loss: symmetric InfoNCE. The official test sets play no part: figures printed here are on validation photos, people
and categories cut from the training data (training/data/splits.py).
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fgsbir_edge.console import run
from fgsbir_edge.preprocess import InputSpec
from training.checkpoint import load_model, load_training_state, read_meta, save_model, save_training_state
from training.data.folder import Pair, PairsFolder
from training.data.pixels import PixelStore
from training.data.splits import CHAIRV2_VALIDATION_PHOTOS, select, split_categories, split_drawings, split_photos
from training.evaluation import folder_accuracy
from training.losses import symmetric_info_nce
from training.models.encoder import EmbeddingHead, Encoder, EncoderConfig, initialise_by_pca
from training.models.weights import load_weights

log = logging.getLogger("training.supervised")

PAIRS_PER_STEP = 24
PCA_BATCHES = 40  # 24 pairs each: about 1,900 images for 512 components
SHARES = {"chairv2": 0.45, "drawings32": 0.15, "sketchy": 0.4}


@dataclass(frozen=True)
class Domain:
    """Where a share of the batches comes from: `groups` of pairs (one list per photo), optionally several photos per category."""

    store: PixelStore
    share: float
    groups: dict[str, dict[str, list[Pair]]]  # category -> photo -> pairs

    def sample(self, rng: np.random.Generator, count: int) -> list[Pair]:
        """Up to `count` pairs with distinct photos; several categories give whole categories, so that negatives look alike."""
        pairs: list[Pair] = []
        for category in rng.permutation(sorted(self.groups)):
            photos = self.groups[str(category)]
            for photo in rng.permutation(sorted(photos))[: count - len(pairs)]:
                options = photos[str(photo)]
                pairs.append(options[int(rng.integers(len(options)))])
            if len(pairs) == count:
                break
        return pairs


def domain(store: PixelStore, pairs: tuple[Pair, ...], share: float, *, by_category: bool) -> Domain:
    groups: dict[str, dict[str, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for pair in pairs:
        groups[pair.category if by_category else ""][pair.photo].append(pair)
    return Domain(store, share, {name: dict(photos) for name, photos in groups.items()})


def open_domains(data: Path, spec: InputSpec) -> tuple[list[Domain], Callable[[Encoder, EmbeddingHead], dict[str, float]]]:
    """Training domains under `data` (chairv2, drawings32, sketchy) and the validation that goes with their splits."""
    chairs, drawings, sketchy = (PairsFolder.read(data / name) for name in SHARES)
    chair_train, chair_validation = split_photos(chairs, CHAIRV2_VALIDATION_PHOTOS, "chairv2-photos")
    people, categories = split_drawings(drawings), split_categories(sketchy)
    objects = people.seen - people.outer
    domains = [
        domain(PixelStore(chairs, spec), select(chairs.pairs, photos=chair_train), SHARES["chairv2"], by_category=False),
        domain(
            PixelStore(drawings, spec),
            select(drawings.pairs, photos=objects, users=people.train),
            SHARES["drawings32"],
            by_category=False,
        ),
        domain(
            PixelStore(sketchy, spec), select(sketchy.pairs, categories=categories.backbone), SHARES["sketchy"], by_category=True
        ),
    ]

    def validate(encoder: Encoder, head: EmbeddingHead) -> dict[str, float]:
        figures = {}
        for name, folder, pairs, photos, per_category in (
            ("chairv2", chairs, select(chairs.pairs, photos=chair_validation), chair_validation, False),
            ("drawings32", drawings, select(drawings.pairs, users=people.validation), None, False),
            (
                "drawings32_unseen",
                drawings,
                select(drawings.pairs, users=people.validation, photos=people.unseen),
                people.unseen,
                False,
            ),
            ("sketchy", sketchy, select(sketchy.pairs, categories=categories.validation), None, True),
        ):
            figures[name] = folder_accuracy(folder, pairs, encoder, head, spec, photos=photos, per_category=per_category)[0]
        return figures

    return domains, validate


def overall(figures: dict[str, float]) -> float:
    """What the kept step is chosen by: the mean over photos, objects and categories that training never saw."""
    return float(np.mean([figures["chairv2"], figures["drawings32_unseen"], figures["sketchy"]]))


def learning_rate(step: int, steps: int, warmup: int = 100) -> float:
    """Factor of the base rate: linear warm-up, then half a cosine to 2 %."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


@torch.no_grad()
def pooled_sample(encoder: Encoder, domains: list[Domain], rng: np.random.Generator) -> torch.Tensor:
    """Pooled features [N,R] of PCA_BATCHES augmented batches, sketches and photos alike."""
    rows = []
    for index in range(PCA_BATCHES):
        source = domains[index % len(domains)]
        rows += [encoder.pool(pixels) for pixels in source.store.batch(source.sample(rng, PAIRS_PER_STEP), rng)]
    return torch.cat(rows)


def train(arguments: argparse.Namespace) -> int:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    spec = InputSpec(size=arguments.size)
    domains, validate = open_domains(arguments.data, spec)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    encoder = Encoder(EncoderConfig(arguments.size, arguments.features, arguments.embedding, dropout=arguments.dropout))
    head = EmbeddingHead(arguments.features, arguments.embedding)
    if arguments.weights is not None:
        load_weights(encoder.backbone, arguments.weights)
    encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    initialise_by_pca(encoder, head, pooled_sample(encoder, domains, np.random.default_rng([arguments.seed, 0])))
    groups = [
        {"params": list(encoder.backbone.parameters()), "base": arguments.rate * arguments.backbone_rate},
        {
            "params": [*encoder.attention.parameters(), *encoder.projection.parameters(), *head.parameters()],
            "base": arguments.rate,
        },
    ]
    optimizer = torch.optim.AdamW(groups, lr=arguments.rate, weight_decay=0.02)
    first = 0
    if (out / "state.safetensors").is_file():
        saved_encoder, saved_head, _ = load_model(out / "last.safetensors")
        encoder.load_state_dict(saved_encoder.state_dict())
        head.load_state_dict(saved_head.state_dict())
        first = load_training_state(out / "state.safetensors", optimizer)
        log.info("going on from step %d", first)
    else:
        log.info("before training: %s", json.dumps(validate(encoder.eval(), head)))
    shares = np.array([item.share for item in domains]) / sum(item.share for item in domains)
    best = overall(read_meta(out / "best.safetensors")["validation"]) if first else -1.0
    started, running = time.monotonic(), 0.0
    with (out / "log.jsonl").open("a", encoding="utf-8") as journal:
        for step in range(first, arguments.steps):
            rng = np.random.default_rng([arguments.seed, 1, step])
            torch.manual_seed(int(rng.integers(2**62)))  # for dropout; a function of the step, so that resuming repeats it
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * learning_rate(step, arguments.steps)
            source = domains[int(rng.choice(len(domains), p=shares))]
            sketches, photos = source.store.batch(source.sample(rng, PAIRS_PER_STEP), rng)
            encoder.train()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=arguments.bf16):
                features = encoder(torch.cat([sketches, photos]).contiguous(memory_format=torch.channels_last))
            embeddings = head(features.float())
            loss = symmetric_info_nce(embeddings[: len(sketches)], embeddings[len(sketches) :], arguments.temperature)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_([*encoder.parameters(), *head.parameters()], 1.0)
            optimizer.step()
            running = 0.98 * running + 0.02 * loss.item()
            done = step + 1
            if done % 50 == 0:
                log.info("step %d loss %.3f (%.2f s/step)", done, running, (time.monotonic() - started) / (done - first))
            if done % arguments.every == 0 or done == arguments.steps:
                figures = validate(encoder.eval(), head)
                journal.write(
                    json.dumps({"step": done, "loss": running, "seconds": time.monotonic() - started, **figures}) + "\n"
                )
                journal.flush()
                log.info("step %d validation Acc@1 %s", done, json.dumps(figures))
                meta = {"step": done, "seed": arguments.seed, "validation": figures, "input": spec.to_manifest()}
                save_model(out / "last.safetensors", encoder, head, meta)
                if overall(figures) > best:
                    best = overall(figures)
                    save_model(out / "best.safetensors", encoder, head, meta)
                save_training_state(out / "state.safetensors", optimizer, done)  # last: it says that the others are there
    return 0


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m training.supervised", description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="folder that holds chairv2/, drawings32/ and sketchy/")
    options.add_argument("--weights", type=Path, help="ImageNet weights, mobilenetv2_nchw.npz; omitted: random (for trials only)")
    options.add_argument("--out", type=Path, required=True, help="checkpoints and log; an unfinished run there is taken up again")
    options.add_argument("--size", type=int, default=160, help="input side, pixels")
    options.add_argument("--features", type=int, default=512, help="feature width C")
    options.add_argument("--embedding", type=int, default=128, help="embedding width D")
    options.add_argument("--steps", type=int, default=2000)
    options.add_argument("--every", type=int, default=200, help="steps between validations and checkpoints")
    options.add_argument("--rate", type=float, default=4e-4, help="AdamW rate of the new layers")
    options.add_argument("--backbone-rate", type=float, default=0.25, help="the backbone's rate as a share of it")
    options.add_argument("--dropout", type=float, default=0.0, help="of pooled features")
    options.add_argument("--temperature", type=float, default=0.07)
    options.add_argument("--bf16", action="store_true", help="bfloat16 convolutions (fast on processors with AVX512-BF16)")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--seed", type=int, default=0)
    return options


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    given = parser().parse_args()
    sys.exit(run(lambda: train(given)))
