"""Generator, retrieval network and discriminator at play: the three kinds of a joint step (METHODS B.5 to B.9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgsbir_edge.sketch import Sketch
from training.data.batches import PairBatch
from training.data.folder import Pair
from training.data.pixels import PixelStore
from training.generation.sampling import Drawn
from training.semi.clock import Clock
from training.semi.config import SemiConfig
from training.semi.discriminator import PatchDiscriminator, certainty, certainty_loss
from training.semi.drawing import DrawnStore, Illustrator, pair_sketches, plain_photos, sketches_of
from training.semi.generator import GeneratorObjective
from training.semi.pool import JointSource, Pool
from training.semi.retrieval import PairTensors, RetrievalObjective, Teacher, instance_weights, joined
from training.semi.reward import reward
from training.semi.sealed import Sealed

Figures = dict[str, float]


@dataclass(frozen=True)
class Chance:
    """Where a step's random draws come from: choices and augmentation from `numpy`, drawings from `torch`."""

    numpy: np.random.Generator
    torch: torch.Generator


@dataclass(frozen=True)
class Drawings:
    """Photos of the pool (`pairs` name them twice) and what the generator drew of them."""

    pairs: list[Pair]
    drawn: Drawn
    sketches: list[Sketch]

    def few(self, rows: slice) -> tuple[list[Pair], list[Sketch]]:
        """Photos and sketches of some."""
        return self.pairs[rows], self.sketches[rows]


@dataclass(frozen=True)
class Trained:
    """A module (sealed.Unsealing) and its optimiser as Fabric hands them out; the optimiser itself, for its rates and state."""

    model: Any
    wrapped: Any
    optimizer: torch.optim.Optimizer
    clip: float


@dataclass
class Players:
    """All that takes part in a step. `pairs` are photos as D_C sees them, `seen` photos and drawings as F sees them."""

    config: SemiConfig
    fabric: Any
    pool: Pool
    artist: Illustrator
    seen: DrawnStore
    pairs: PixelStore
    retrieval: RetrievalObjective
    generator: GeneratorObjective
    discriminator: PatchDiscriminator
    teacher: Teacher
    trained: dict[str, Trained]
    clock: Clock

    @property
    def device(self) -> torch.device:
        device: torch.device = self.fabric.device
        return device

    # the three kinds of steps

    def warmup(self, chance: Chance) -> Figures:
        """Train D_C alone."""
        source = self.pool.pick(chance.numpy)
        photos = source.draw_unlabelled(chance.numpy, self.config.unlabelled.photos)
        drawings, count = self._drawn_for_discriminator(source, photos, chance)
        return {**self._train_discriminator(source, drawings, count, chance), **drawing_figures(drawings.drawn)}

    def retrieve(self, batch: PairBatch, chance: Chance) -> Figures:
        """Train F on labelled and generated pairs, then D_C on the same drawings."""
        config = self.config
        if not config.draws:
            return self._train_retrieval(batch, None, torch.empty(0, device=self.device))
        source = next(source for source in self.pool.sources if source.name == batch.source)
        photos = source.draw_unlabelled(chance.numpy, config.unlabelled.photos)
        drawings, count = self._drawn_for_discriminator(source, photos, chance)
        pairs, sketches = drawings.few(slice(len(photos)))
        scores = self.certainties(pairs, sketches)
        weights = instance_weights(scores, config.retrieval.weights)
        figures = self._train_retrieval(batch, self._as_seen(pairs, sketches, chance.numpy), weights)
        figures |= {"weight/mean": float(weights.mean()), "weight/spread": float(weights.std())}
        figures |= {"weight/low": float((scores < 0.1).float().mean())}
        if config.judges:
            figures |= self._train_discriminator(source, drawings, count, chance)
        return {**figures, **drawing_figures(drawings.drawn)}

    def generate(self, chance: Chance, step: int) -> Figures:
        """Train G, for the step of its own count `step`: likelihood of labelled pairs, rewards of drawings of all photos."""
        config, source = self.config, self.pool.pick(chance.numpy)
        real = source.draw_real(chance.numpy, config.generator.pairs)
        labelled = [source.real.pairs[number].photo for number in real]
        drawings = self.draw([*labelled, *source.draw_unlabelled(chance.numpy, config.unlabelled.photos)], chance, policy=True)
        rewards, figures = self.rewards(drawings)
        with self.clock.part("generator"):
            artist, trained = self.artist, self.trained["generator"]
            photos = artist.pixels(labelled) if artist.generator.config.train_backbone else artist.features(labelled)
            rows, lengths = torch.from_numpy(source.real.rows[real]), torch.from_numpy(source.real.lengths[real])
            target = rows.to(self.device), lengths.to(self.device)
            self.generator.train()
            loss, terms = trained.model(Sealed(photos, target, drawings.drawn, rewards, step))
            self._step(trained, loss)
            self.generator.eval()
        figures |= {f"loss/{name}": value for name, value in terms.items()}
        return {**figures, "loss/G": float(loss.detach()), **drawing_figures(drawings.drawn)}

    # what they are made of

    def draw(self, names: Sequence[str], chance: Chance, *, policy: bool = False) -> Drawings:
        """Draw photos of the pool, at temperature 1 and with hidden states where it is for the policy gradient."""
        with self.clock.part("encode"), self.fabric.autocast():  # not drawing: its likelihood is computed in full precision
            photos = self.artist.encode(names)
        with self.clock.part("draw"):
            drawn = self.artist.draw(photos, chance.torch, policy=policy)
        with self.clock.part("rasterise"):
            return Drawings(self.pool.pairs(names), drawn, sketches_of(drawn, self.artist.scale))

    @torch.no_grad()
    def certainties(self, pairs: Sequence[Pair], sketches: Sequence[Sketch]) -> Tensor:
        """D_C(p, s) [B] as it is now."""
        photos, pixels = self._for_discriminator(pairs, sketches)
        with self.clock.part("discriminator"), self.fabric.autocast():
            return certainty(self.discriminator.eval()(photos, pixels))

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """Unit embeddings [B,D] of F as it is now."""
        network = self.retrieval.network.eval()
        with self.clock.part("retrieval"), self.fabric.autocast():
            return network.views(pixels.to(self.device).contiguous(memory_format=torch.channels_last)).embeddings

    def rewards(self, drawings: Drawings) -> tuple[Tensor, Figures]:
        """R [B] of drawings, and what it was made of."""
        count, config = len(drawings.pairs), self.config.reward
        scores = self.certainties(drawings.pairs, drawings.sketches)
        embedded = self.embed(torch.cat(self.plain(drawings.pairs, drawings.sketches)))
        index = _numbers([pair.photo for pair in drawings.pairs], self.device)
        values, triplet = reward(embedded[:count], embedded[count:], index, scores, config)
        figures = {"reward/mean": float(values.mean()), "reward/spread": float(values.std())}
        return values, {**figures, "reward/triplet": float(triplet.mean()), "reward/certainty": float(scores.mean())}

    def _drawn_for_discriminator(self, source: JointSource, photos: list[str], chance: Chance) -> tuple[Drawings, int]:
        """Drawings of unlabelled `photos`, behind them those of labelled ones where D_C is to have any, and how many of these."""
        fakes, labelled = self.config.discriminator.fakes, []
        if fakes != "unlabelled" and self.config.judges:
            labelled = [source.real.pairs[number].photo for number in source.draw_real(chance.numpy, len(photos))]
        return self.draw([*photos, *labelled], chance), len(labelled)

    def _train_discriminator(self, source: JointSource, drawings: Drawings, labelled: int, chance: Chance) -> Figures:
        config, trained = self.config.discriminator, self.trained["discriminator"]
        real = source.draw_real(chance.numpy, self.config.generator.pairs)
        first = len(drawings.pairs) - labelled if config.fakes == "labelled" else 0
        fake_pairs, fake_sketches = drawings.few(slice(first, None))
        real_pairs = self.pool.pairs([source.real.pairs[number].photo for number in real])
        real_sketches = [source.real.sketch(number) for number in real]
        if config.mismatched > 0:
            fake_pairs = fake_pairs + real_pairs
            fake_sketches = fake_sketches + real_sketches[1:] + real_sketches[:1]
        photos, sketches = self._for_discriminator([*real_pairs, *fake_pairs], [*real_sketches, *fake_sketches])
        flips = torch.from_numpy(chance.numpy.random(len(photos)) < config.flip).to(self.device)
        with self.clock.part("discriminator"):
            self.discriminator.train()
            logits = trained.model(Sealed(_mirrored(photos, flips), _mirrored(sketches, flips)))
            count, drawn = len(real_pairs), len(logits) - (len(real_pairs) if config.mismatched > 0 else 0)
            fake = certainty_loss(logits[count:drawn], 0.0, config.target)
            if config.mismatched > 0:  # a weighted mean: real and fake stay even, or D_C would doubt everything
                fake = fake + config.mismatched * certainty_loss(logits[drawn:], 0.0, config.target)
                fake = fake / (1.0 + config.mismatched)
            loss = certainty_loss(logits[:count], 1.0 - config.smoothing, config.target) + fake
            self._step(trained, loss)
            scores = certainty(logits.detach())
        figures = {"loss/D": float(loss.detach()), "discriminator/real": float((scores[:count] > 0.5).float().mean())}
        return {**figures, "discriminator/fake": float((scores[count:drawn] < 0.5).float().mean())}

    def _train_retrieval(self, batch: PairBatch, generated: PairTensors | None, weights: Tensor) -> Figures:
        trained = self.trained["retrieval"]
        labelled = PairTensors(batch.sketches, batch.photos, batch.photo_index, batch.category_index).to(self.device)
        if generated is None or self.config.retrieval.generated == 0:
            generated, weights = _none_of(labelled), weights[:0]
        teacher = None
        if self.config.retrieval.distillation > 0:
            with self.clock.part("teacher"), self.fabric.autocast():
                teacher = self.teacher(joined(labelled, generated))
        with self.clock.part("retrieval"):
            self.retrieval.train()
            loss, terms = trained.model(Sealed(labelled, generated, weights, teacher))
            self._step(trained, loss)
        return {"loss/F": float(loss.detach()), **{f"loss/{name}": float(value) for name, value in terms.items()}}

    def _step(self, trained: Trained, loss: Tensor) -> None:
        trained.wrapped.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.fabric.clip_gradients(trained.model, trained.wrapped, max_norm=trained.clip, error_if_nonfinite=True)
        trained.wrapped.step()

    def _as_seen(self, pairs: list[Pair], sketches: list[Sketch], rng: np.random.Generator) -> PairTensors:
        """Generated pairs as F sees them in training: augmented as the labelled ones are."""
        options = self.config.data.augmentation
        flips = rng.random(len(pairs)) < options.flip
        with self.clock.part("rasterise"):
            self.seen.drawn = {pair.sketch: sketch for pair, sketch in zip(pairs, sketches, strict=True)}
            pixels = self.seen.sketch_batch(pairs, rng, flips, options)
        with self.clock.part("photos"):
            photos = self.seen.photo_batch(pairs, rng, flips, options)
        index, category = _numbers([pair.photo for pair in pairs]), _numbers([pair.category for pair in pairs])
        return PairTensors(pixels, photos, index, category).to(self.device)

    def plain(self, pairs: Sequence[Pair], sketches: Sequence[Sketch]) -> tuple[Tensor, Tensor]:
        """Drawings and photos as F sees them in a gallery: two float32 [B,3,S,S]."""
        with self.clock.part("rasterise"):
            pixels = pair_sketches(sketches, self.seen.spec)
        with self.clock.part("photos"):
            return pixels, plain_photos(self.seen, pairs)

    def _for_discriminator(self, pairs: Sequence[Pair], sketches: Sequence[Sketch]) -> tuple[Tensor, Tensor]:
        with self.clock.part("rasterise"):
            pixels = pair_sketches(sketches, self.pairs.spec)
        with self.clock.part("photos"):
            photos = plain_photos(self.pairs, pairs)
        return photos.to(self.device), pixels.to(self.device)


def drawing_figures(drawn: Drawn) -> Figures:
    """Mean length in rows, and the share that never ends."""
    return {"drawn/length": float(drawn.lengths.float().mean()), "drawn/endless": float((~drawn.ended).float().mean())}


def _mirrored(pixels: Tensor, flips: Tensor) -> Tensor:
    return torch.where(flips[:, None, None, None], pixels.flip(3), pixels)


def _numbers(names: Sequence[str], device: torch.device | None = None) -> Tensor:
    """Equal names, equal numbers: int64 [B]."""
    found: dict[str, int] = {}
    return torch.tensor([found.setdefault(name, len(found)) for name in names], device=device)


def _none_of(pairs: PairTensors) -> PairTensors:
    return PairTensors(*(tensor[:0] for tensor in pairs))
