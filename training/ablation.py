"""The ablation table of joint training (METHODS B.10): ``python -m training.ablation --config A.toml --data D --out O``.

A.toml names three configurations, relative to itself, and may leave arms out:

    retrieval = "semi_retrieval.toml"    # training.supervised
    generator = "semi_generator.toml"    # training.generator
    joint = "semi.toml"                  # training.semi_supervised

For every label fraction and seed the command trains a supervised network and generators, with 2D attention and without, on the
labelled photos alone, and from these every arm (training/semi/arms.py). What is finished is not run again, what was stopped goes
on. O/ablation.md, .json and .png hold the figures of each run's last validation: which arm is better is not to be read from steps
that were chosen by the same figures. Only the generator is that of the best validation loss, the same for all arms.
--classifier and --finder measure what each arm's generator draws of the validation photos.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fgsbir_edge.console import put_json, run
from training.config import ConfigError, read_config
from training.data.sources import SourceConfig
from training.generator import Places, PretrainConfig
from training.generator import train as train_generator
from training.journal import read_log
from training.semi.arms import ARMS, TABLE, as_many_updates
from training.semi.config import SemiConfig
from training.semi.fractions import cut
from training.semi.quality import FILE as QUALITY
from training.semi.quality import Judges, drawing_quality, measured
from training.semi.table import DRAWN, Key, percent, tabulate, write
from training.semi.trainer import GENERATOR
from training.semi_supervised import Start
from training.semi_supervised import train as train_joint
from training.supervised import SupervisedConfig, chosen_sets, find_weights
from training.supervised import train as train_retrieval
from training.trainer import BEST, LAST

log = logging.getLogger("training.ablation")

FRACTIONS = (0.2, 0.4, 0.6, 0.8, 1.0)
KINDS = ("retrieval", "generator", "joint")


@dataclass(frozen=True)
class AblationFile:
    """Configuration files of the three pipelines, and the arms of the table."""

    retrieval: str
    generator: str
    joint: str
    arms: tuple[str, ...] = TABLE


@dataclass(frozen=True)
class Given:
    """What every run is given: data, cache, pretrained weights (as the pipelines take them), generators to begin with, and what
    judges the drawings of each arm.
    """

    data: Path
    out: Path
    cache: Path | None = None
    weights: str | None = None
    generator_weights: str | None = None
    start: Path | None = None
    start_plain: Path | None = None
    judges: Judges = field(default_factory=Judges)


@dataclass(frozen=True)
class Plan:
    """All configurations of one label fraction and seed; `joint` by arm."""

    fraction: float
    seed: int
    retrieval: SupervisedConfig
    generator: PretrainConfig
    joint: dict[str, SemiConfig] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name."""
        return f"{percent(self.fraction)}-{self.seed}"


def plans(
    path: Path, arms: Sequence[str], fractions: Sequence[float], seeds: Sequence[int], settings: Sequence[str] = ()
) -> list[Plan]:
    """Every run that the table needs, all configurations read and checked.

    `settings` are "KIND.table.key=value" with one of KINDS before the key. Raises ConfigError.
    """
    file = read_config(path, AblationFile)
    if unknown := sorted(set(arms) - set(ARMS)):
        raise ConfigError(f"there is no arm {unknown[0]!r}; there are {', '.join(ARMS)}")
    own: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for setting in settings:
        kind, _, rest = setting.partition(".")
        if kind not in own:
            raise ConfigError(f"setting {setting!r}: expected one of {', '.join(KINDS)} first, as in joint.run.steps=500")
        own[kind].append(rest)
    folder, made = path.parent, []
    for fraction in fractions:
        for seed in seeds:
            seeded = f"run.seed={seed}"
            joint = [*own["joint"], seeded, f"unlabelled.fraction={float(fraction)}"]
            full = read_config(folder / file.joint, SemiConfig, joint)
            configs = {
                arm: as_many_updates(read_config(folder / file.joint, SemiConfig, [*joint, *ARMS[arm].settings]), full)
                for arm in arms
                if ARMS[arm].joint
            }
            retrieval = read_config(folder / file.retrieval, SupervisedConfig, [*own["retrieval"], seeded])
            generator = read_config(folder / file.generator, PretrainConfig, [*own["generator"], seeded])
            _check_sources(full.data.sources, {"retrieval": retrieval.data.sources, "generator": generator.data.sources})
            made.append(Plan(fraction, seed, retrieval, generator, configs))
    return made


def _check_sources(joint: Sequence[SourceConfig], others: Mapping[str, Sequence[SourceConfig]]) -> None:
    """Raises ConfigError where a pipeline reads other pairs of a folder than the joint one: other photos would be labelled."""
    wanted = {source.folder: (source.pairs, source.split) for source in joint}
    for kind, sources in others.items():
        for source in sources:
            found = (source.pairs, source.split)
            if source.kind == "pairs" and wanted.get(source.folder, found) != found:
                raise ConfigError(
                    f"{kind}: source {source.name} reads {found} of {source.folder}, the joint one {wanted[source.folder]}: "
                    "make them equal, or each would label other photos"
                )


def run_plan(plan: Plan, given: Given) -> None:
    """Train what of a plan is not finished. Raises what the pipelines raise."""
    out, cache = given.out / plan.name, given.cache
    retrieval, data = _cut(plan.retrieval, given, out / "data-retrieval", plan.fraction)
    if not _finished(out / "supervised", plan.retrieval.run.steps):
        log.info("%s: supervised network", plan.name)
        weights = find_weights(given.weights, retrieval.encoder.backbone)
        train_retrieval(retrieval, data, out / "supervised", weights, cache)
    for attention in (True, False):
        if any(ARMS[arm].attention == attention and config.draws for arm, config in plan.joint.items()):
            _train_generator(plan, given, attention)
    for arm, config in plan.joint.items():
        if not _finished(out / arm, config.run.steps):
            log.info("%s: %s", plan.name, ARMS[arm].title)
            drawn = _generator(out, ARMS[arm].attention or not config.draws)
            train_joint(config, given.data, out / arm, Start(out / "supervised" / LAST, drawn / BEST), cache)
        if config.draws and given.judges.any:
            sets = chosen_sets(config.data, given.data)
            drawing_quality(out / arm / GENERATOR, sets, given.judges, out / arm / QUALITY, config.run.threads)


def _train_generator(plan: Plan, given: Given, attention: bool) -> None:
    folder = _generator(given.out / plan.name, attention)
    if _finished(folder, plan.generator.run.steps):
        return
    log.info("%s: %s", plan.name, folder.name)
    config, data = _cut(plan.generator, given, given.out / plan.name / "data-generator", plan.fraction)
    config = replace(config, generator=replace(config.generator, use_attention=attention))
    start = given.start if attention else given.start_plain
    weights = None if start is not None else find_weights(given.generator_weights, config.generator.backbone)
    train_generator(config, Places(data, folder, given.cache), weights, start)


def _generator(out: Path, attention: bool) -> Path:
    return out / ("generator" if attention else "generator_plain")


def _cut(config: Any, given: Given, out: Path, fraction: float) -> tuple[Any, Path]:
    """The configuration with sources cut down to the labelled photos, and the data folder where these are."""
    sources = cut(config.data.sources, given.data, fraction, out)
    return replace(config, data=replace(config.data, sources=sources)), out


def _finished(folder: Path, steps: int) -> bool:
    rows = read_log(folder)
    return bool(rows) and rows[-1]["step"] >= steps


def collect(made: Sequence[Plan], arms: Sequence[str], out: Path) -> dict[Key, dict[str, float]]:
    """The last rows of the logs of all finished runs, with the figures of their drawings where these were measured."""
    found: dict[Key, dict[str, float]] = {}
    for plan in made:
        for arm in arms:
            steps = plan.joint[arm].run.steps if ARMS[arm].joint else plan.retrieval.run.steps
            if _finished(out / plan.name / arm, steps):
                row = dict(read_log(out / plan.name / arm)[-1])
                row |= {DRAWN + name: value for name, value in measured(out / plan.name / arm / QUALITY).items()}
                found[arm, plan.fraction, plan.seed] = row
    return found


def ablate(given: Given, made: Sequence[Plan], arms: Sequence[str], score: str, *, collect_only: bool = False) -> dict[str, Any]:
    """Run what is missing, write the table after every plan, and return it. Raises ConfigError where there is nothing to show."""
    given.out.mkdir(parents=True, exist_ok=True)
    table: dict[str, Any] = {}
    for plan in made:
        if not collect_only:
            run_plan(plan, given)
        found = collect(made, arms, given.out)
        if found:
            if missing := [key for key, row in found.items() if score not in row]:
                raise ConfigError(f"score {score!r} is not in the log of {missing[0][0]}; there are {', '.join(_scores(found))}")
            table = tabulate(found, score)
            write(table, given.out)
    if not table:
        raise ConfigError(f"{given.out}: no run is finished; leave out --collect to train them")
    return table


def _scores(found: dict[Key, dict[str, float]]) -> list[str]:
    return sorted({name for row in found.values() for name in row if name.endswith(("/acc@1", "/acc@5", "/acc@10", "/mrr"))})


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m training.ablation", description=__doc__)
    options.add_argument("--config", type=Path, required=True, help="TOML file, e.g. training/configs/semi_ablation.toml")
    options.add_argument("--data", type=Path, required=True, help="folder that holds the dataset folders the files name")
    options.add_argument("--out", type=Path, required=True, help="a folder for each label fraction and seed, and the table")
    options.add_argument("--fractions", type=float, nargs="+", default=list(FRACTIONS), help="label fractions (0.2 to 1)")
    options.add_argument("--seeds", type=int, nargs="+", default=[0])
    options.add_argument("--arms", nargs="+", metavar="ARM", help=f"of {', '.join(ARMS)} (default: the file's)")
    options.add_argument("--score", default="mean/acc@1", help="the figure of the table (mean/acc@1)")
    options.add_argument("--collect", action="store_true", help="train nothing: the table of what is finished")
    options.add_argument("--cache", type=Path, help="folder for decoded photos, traces and maps, shared by all runs")
    options.add_argument("--weights", help="of the retrieval backbone, as for training.supervised")
    options.add_argument("--generator-weights", help="of the generator's backbone, as for training.generator")
    options.add_argument("--start", type=Path, help="a generator to begin with, e.g. one trained on QuickDraw")
    options.add_argument("--start-plain", type=Path, help="the same without 2D attention")
    options.add_argument("--classifier", type=Path, help="to measure drawings: checkpoint of training.sketch_classifier")
    options.add_argument(
        "--finder", type=Path, help="to measure drawings: a retrieval bundle or checkpoint, the same for all arms"
    )
    options.add_argument(
        "--set", action="append", default=[], metavar="KIND.KEY=VALUE", help="e.g. joint.run.steps=500; repeatable"
    )
    arguments = options.parse_args()

    def start() -> int:
        arms = arguments.arms or list(read_config(arguments.config, AblationFile).arms)
        made = plans(arguments.config, arms, arguments.fractions, arguments.seeds, arguments.set)
        given = Given(
            arguments.data,
            arguments.out,
            arguments.cache,
            arguments.weights,
            arguments.generator_weights,
            arguments.start,
            arguments.start_plain,
            Judges(arguments.classifier, arguments.finder),
        )
        put_json(ablate(given, made, arms, arguments.score, collect_only=arguments.collect))
        return 0

    return run(start)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main())
