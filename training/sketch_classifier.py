"""The classifier of sketches that generated ones are measured with: ``python -m training.sketch_classifier``.

    --config training/configs/sketch_classifier.toml --data DATA --out OUT

Every category has the same share of the steps, however many sketches it has. Figures on the way, and in the checkpoint, are on
sketches of photos held back (training/generation/vectors.py). A run in --out that is not finished is taken up again, exactly.
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from fgsbir_edge.console import put_json, run
from fgsbir_edge.preprocess import InputSpec
from training.config import read_config, to_table
from training.data.augment import Augmentation
from training.data.pixels import PixelStore
from training.evaluate_retrieval import Bootstrap
from training.generation.classifier import SketchClassifier, TrainedClassifier, load_classifier
from training.generation.metrics import recognition_figures
from training.generation.vectors import SketchPool, SketchSource, read_pool
from training.journal import Journal
from training.memory import keep_freed_memory
from training.models.config import EncoderConfig
from training.models.registry import backbone_info
from training.models.weights import load_weights
from training.run_state import Progress, load_state, save_state
from training.schedule import MovingAverage, OptimiserConfig, freeze, grouped_optimizer, set_rate
from training.stopping import StopRequest
from training.supervised import find_weights
from training.trainer import LOG_EVERY, SMOOTHING, step_seed

log = logging.getLogger("training.sketch_classifier")

LAST = "classifier.safetensors"
STREAM = 3  # keeps these draws apart from others of the same seed


@dataclass(frozen=True)
class ClassifierRun:
    """How long and where. `every`: steps between validations. `precision` and `accelerator` are Fabric's."""

    steps: int = 2000
    every: int = 500
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: str = "auto"
    threads: int = 2

    def __post_init__(self) -> None:
        if min(self.steps, self.every, self.threads) < 1 or self.seed < 0:
            raise ValueError("steps, every and threads must be positive, seed not negative")


def small_encoder() -> EncoderConfig:
    """MobileNetV2 to its last bottleneck, pooled over 2 x 2 cells; 128 features, few enough for FID of some hundred sketches."""
    return EncoderConfig(128, 128, 128, (2,), dropout=0.2, stages=("bottleneck7",), attention="none", head="identity")


@dataclass(frozen=True)
class ClassifierConfig:
    """A whole run.

    sources    whose sketches are learned
    rename     categories that go by another name here: the same thing may have two names in two datasets
    epsilon    thinning of every sketch, canvas units; as the generator's sketches are thinned (METHODS B.1)
    batch      sketches a step
    smoothing  share of the label that goes to all categories alike
    ink        of the sketches drawn for the network
    """

    sources: tuple[SketchSource, ...]
    rename: dict[str, str] = field(default_factory=dict)
    encoder: EncoderConfig = field(default_factory=small_encoder)
    epsilon: float = 3.0
    batch: int = 48
    smoothing: float = 0.1
    ink: Literal["light", "dark"] = "dark"
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    run: ClassifierRun = field(default_factory=ClassifierRun)

    def __post_init__(self) -> None:
        if not self.sources or self.batch < 1 or not 0 <= self.smoothing < 1:
            raise ValueError("sources must not be empty, batch 1 or more, smoothing in [0,1)")

    @property
    def spec(self) -> InputSpec:
        """How sketches become pixels."""
        info = backbone_info(self.encoder.backbone)
        return InputSpec(self.encoder.size, info.mean, info.std, ink=self.ink)


@dataclass(frozen=True, eq=False)
class ClassStream:
    """Batches of sketches [B,3,S,S] and categories [B]: a pure function of the seed and the step."""

    pool: SketchPool
    config: ClassifierConfig

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step: a category at random, each with the same chance, then one of its sketches."""
        config, categories = self.config, self.pool.categories
        rng = np.random.default_rng([config.run.seed, STREAM, step])
        chosen = rng.integers(0, len(categories), config.batch)
        some = [self.pool.training[categories[index]] for index in chosen]
        pairs = [options[int(rng.integers(0, len(options)))] for options in some]
        flips = rng.random(len(pairs)) < config.augmentation.flip
        store = PixelStore(self.pool.folder, config.spec)
        return store.sketch_batch(pairs, rng, flips, config.augmentation), torch.from_numpy(chosen)


def build_classifier(config: ClassifierConfig, categories: tuple[str, ...], weights: Path | None) -> SketchClassifier:
    """The network, its backbone from a weight file, everything else random by the run's seed."""
    torch.manual_seed(config.run.seed)
    network = SketchClassifier(config.encoder, categories)
    if weights is not None:
        report = load_weights(network.encoder.backbone, weights)
        log.info("%s: %d arrays loaded, %d left out", weights.name, len(report.used), len(report.left_out))
    freeze(network.encoder, config.optimiser)
    return network


def averaged(network: SketchClassifier, average: MovingAverage) -> SketchClassifier:
    """A copy of the network with the moving average of its weights."""
    copied = copy.deepcopy(network)
    average.copy_to(copied)
    return copied


def trained(network: SketchClassifier, config: ClassifierConfig, pool: SketchPool) -> TrainedClassifier:
    """The network with its figures on the sketches held back."""
    network = network.cpu().eval()
    plain = TrainedClassifier(network, config.spec, config.epsilon, config.rename, 1.0, {})
    if not pool.held:
        return plain
    found = plain.classify([pool.folder.sketches[pair.sketch] for pair in pool.held])
    scale = float(np.sqrt(found.features.var(0).mean())) or 1.0  # a mean variance of 1 in each feature
    truth, photos = [pair.category for pair in pool.held], [f"{pair.sketch.split('/')[0]}/{pair.photo}" for pair in pool.held]
    figures = recognition_figures(found.logits, truth, pool.categories, photos, Bootstrap())
    return TrainedClassifier(network, config.spec, config.epsilon, config.rename, scale, figures)


def train(config: ClassifierConfig, data: Path, out: Path, weights: Path | None, cache: Path | None = None) -> dict[str, Any]:
    """Run `config` to its end (or go on with it) in `out`; returns the figures of the last validation.

    Raises ResumeError, WeightsError, KeyboardInterrupt after a stop with the state saved, and what reading the sketches raises.
    """
    from lightning_fabric import Fabric

    keep_freed_memory()
    torch.set_num_threads(config.run.threads)
    pool = read_pool(config.sources, data, config.rename, config.epsilon, cache)
    known = sum(map(len, pool.training.values()))
    log.info("%d sketches of %d categories, %d held back", known, len(pool.categories), len(pool.held))
    fabric = Fabric(accelerator=config.run.accelerator, devices=1, precision=config.run.precision)
    network = build_classifier(config, pool.categories, weights)
    optimizer = grouped_optimizer(network, network.encoder.backbone, config.optimiser)
    average, progress = MovingAverage(network.state_dict().items(), config.optimiser.average), Progress()
    table = to_table(config)
    if (found := load_state(out, optimizer, table)) is not None:
        kept, average.tensors, progress = found
        network.load_state_dict(kept)
        log.info("going on from step %d", progress.step)
    if progress.step >= config.run.steps:
        return load_classifier(out / LAST).validation
    journal = Journal(out, progress.step)
    model, optimizer = fabric.setup(network, optimizer)
    average.tensors = {name: tensor.to(fabric.device) for name, tensor in average.tensors.items()}
    stream, begun, first = ClassStream(pool, config), time.monotonic(), progress.step
    figures: dict[str, Any] = {}
    with StopRequest() as stop:
        steps = range(progress.step, config.run.steps)
        for step in tqdm(steps, initial=first, total=config.run.steps, disable=not sys.stderr.isatty(), unit="step"):
            loss = _step(fabric, model, optimizer, stream, step)
            average.update(network.state_dict().items(), step)
            progress.losses["loss"] = SMOOTHING * progress.losses.get("loss", loss) + (1 - SMOOTHING) * loss
            progress.step = step + 1
            validate = progress.step % config.run.every == 0 or progress.step == config.run.steps
            if validate:
                classifier = trained(averaged(network, average), config, pool)
                classifier.save(out / LAST, {"step": progress.step, "recipe": table, "weights": weights.name if weights else ""})
                figures = classifier.validation
            if validate or progress.step % LOG_EVERY == 0:
                row = {f"held/acc@{at}": figures[f"acc@{at}"] for at in (1, 10)} if validate and figures else {}
                seconds = (time.monotonic() - begun) / (progress.step - first)
                journal.add({"step": progress.step, **progress.losses, "seconds/step": seconds, **row})
                log.info("step %d loss %.3f %s", progress.step, progress.losses["loss"], row or "")
            if validate:
                journal.draw()
            if validate or stop.made:
                save_state(out, network.state_dict(), average.tensors, optimizer, progress, table)
            if stop.made:
                log.info("stopped at step %d; the same command goes on from there", progress.step)
                raise KeyboardInterrupt
    return figures


def _step(fabric: Any, model: Any, optimizer: Any, stream: ClassStream, step: int) -> float:
    config = stream.config
    torch.manual_seed(step_seed(config.run.seed, STREAM, step))
    set_rate(optimizer, config.optimiser.factor(step, config.run.steps))
    model.train()
    pixels, categories = (tensor.to(fabric.device) for tensor in stream.batch(step))
    loss = F.cross_entropy(model(pixels), categories, label_smoothing=config.smoothing)
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(loss)
    fabric.clip_gradients(model, optimizer, max_norm=config.optimiser.clip, error_if_nonfinite=True)
    optimizer.step()
    return float(loss.detach())


def main() -> int:
    options = argparse.ArgumentParser(
        prog="python -m training.sketch_classifier", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--config", type=Path, required=True, help="TOML file, e.g. training/configs/sketch_classifier.toml")
    options.add_argument("--data", type=Path, required=True, help="folder that holds the dataset folders the file names")
    options.add_argument("--out", type=Path, required=True, help=f"{LAST}, log.csv, curves.png; an unfinished run goes on")
    options.add_argument(
        "--weights", help="pretrained weights of the backbone: a file, or random; default: an installed package's"
    )
    options.add_argument("--cache", type=Path, help="folder that keeps the strokes of raster sketches for later runs")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. run.steps=500")
    arguments = options.parse_args()

    def start() -> int:
        config = read_config(arguments.config, ClassifierConfig, arguments.set)
        weights = find_weights(arguments.weights, config.encoder.backbone)
        put_json(train(config, arguments.data, arguments.out, weights, arguments.cache))
        return 0

    return run(start)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main())
