"""All adaptation methods under one protocol: ``python -m training.adaptation_table --config C --data D --checkpoint M --out O``.

From the supervised checkpoint M every row of the table (docs/adaptation.md) is trained where it has to be, in O/SETTING/ROW, and
measured on the setting's held-back tasks, all rows on the same episodes. What is finished is not run again, what was stopped goes
on. O/adaptation.json and adaptation.md are written anew after every row, four plots at the end.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fgsbir_edge.console import put_json, run
from training.config import ConfigError, read_config, to_table
from training.episodes import gives
from training.episodic.methods.bench import Bench, digest
from training.episodic.methods.config import TableConfig
from training.episodic.methods.learned import TERMS, MetaPlace
from training.episodic.methods.protocol import Measured, Method, measure
from training.episodic.methods.settings import SettingConfig, open_setting
from training.episodic.report import RESULTS, Found, draw, write_report
from training.episodic.table import ROWS

log = logging.getLogger("training.adaptation_table")


def rows_of(config: TableConfig, setting: SettingConfig) -> list[str]:
    """The rows of a setting's table, then those that only the plots show."""
    sweep = config.sweep
    further = [*(f"ours@{width}" for width in sweep.widths), *(f"ours+{steps}" for steps in sweep.trained_steps)]
    if sweep.regularisers:
        further += [f"ours-{term}" for term in (*TERMS[setting.kind], "all")]
    return [*config.methods, *(further if "ours" in config.methods else [])]


@dataclass(frozen=True, eq=False)
class Measuring:
    """Measures rows of one setting, each once: figures are kept beside a row's checkpoints."""

    bench: Bench

    @property
    def config(self) -> TableConfig:
        return self.bench.config

    def __call__(self, name: str) -> Found:
        """The figures of a row: trained, chosen and measured where they are not there. Raises what these raise."""
        bench, path = self.bench, self.bench.out / name / RESULTS
        paths = bench.trained(name)
        ks = self._possible(self.config.protocol.ks if name in self.config.methods else (self.config.sweep.k,))
        key = {**bench.options(name), **self.key(), "k": list(ks), "sweep": self._sweep(name)}
        key["checkpoints"] = [digest(path) for path in paths]
        found = Found.read(path)
        if found is not None and found.key == key:
            return found
        log.info("%s: measuring %s", bench.setting.name, name)
        by_k: dict[int, Measured] = {}
        chosen: dict[str, Any] = {}
        for k in ks:
            method, chosen[str(k)] = bench.method(name, k)
            by_k[k] = self._measure(method, k)
        found = Found(key, by_k, self._by_steps(name), {k: what for k, what in chosen.items() if what})
        found.write(path)
        return found

    def key(self) -> dict[str, Any]:
        """What all figures of a setting depend on."""
        own = next(item for item in self.config.settings if item.name == self.bench.setting.name)
        return {"protocol": to_table(self.config.protocol), "setting": to_table(own), "start": digest(self.bench.start)}

    def _sweep(self, name: str) -> dict[str, Any]:
        """What of the sweep a row's figures depend on."""
        steps = self._steps(name)
        return {"k": self.config.sweep.k, "steps": list(steps)} if steps else {}

    def _steps(self, name: str) -> tuple[int, ...]:
        """The numbers of inner steps a row is measured with; of rows that only the plots show, their head before adapting."""
        if name not in ROWS:
            return (0,)
        return self.config.sweep.steps if name in self.config.sweep.step_methods else ()

    def _measure(self, method: Method, k: int) -> Measured:
        setting = self.bench.setting
        return measure(method, setting, setting.measured, k, self.config.protocol)

    def _by_steps(self, name: str) -> dict[int, Measured]:
        k = self.config.sweep.k
        if not self._possible((k,)):
            return {}
        return {steps: self._measure(self.bench.swept(name, k, steps), k) for steps in self._steps(name)}

    def _possible(self, ks: Sequence[int]) -> tuple[int, ...]:
        """Those that any task can give."""
        return tuple(k for k in ks if any(gives(task, k) for task in self.bench.setting.measured))


def tabulate(config: TableConfig, benches: Sequence[Bench], *, collect: bool = False) -> dict[str, Any]:
    """Run what is missing; tables after every row, plots at the end. Returns the table.

    `collect`: only what is measured already. Raises ConfigError where that is nothing, and what training raises.
    """
    found: dict[str, dict[str, Found]] = {bench.setting.name: {} for bench in benches}
    table: dict[str, Any] = {}
    for bench, setting in zip(benches, config.settings, strict=True):
        measuring = Measuring(bench)
        for name in rows_of(config, setting):
            if collect:
                kept = Found.read(bench.out / name / RESULTS)
                wanted = measuring.key()
                if kept is None or any(kept.key.get(part) != wanted[part] for part in wanted):
                    continue
                found[setting.name][name] = kept
            else:
                found[setting.name][name] = measuring(name)
            table = write_report(config, found, benches[0].out.parent)
    if not table:
        raise ConfigError("nothing is measured with this protocol; leave out --collect to train and measure")
    draw(config, table["settings"], benches[0].out.parent)
    return table


@dataclass(frozen=True)
class Given:
    """What the command is given."""

    config: Path
    data: Path
    checkpoint: Path
    out: Path
    cache: Path | None = None
    settings: tuple[str, ...] = ()


def table_of(given: Given, *, collect: bool = False) -> dict[str, Any]:
    """The whole command. Raises ConfigError, and what reading, training and measuring raise."""
    config = read_config(given.config, TableConfig, given.settings)
    torch.set_num_threads(config.threads)
    if not given.checkpoint.is_file():
        raise ConfigError(f"{given.checkpoint}: there is no such checkpoint; train one with training.supervised")
    place = MetaPlace(given.config, given.data, given.checkpoint, given.cache or given.out / "features")
    benches = [Bench(config, open_setting(item, given.data), place, given.out / item.name) for item in config.settings]
    if not collect:
        for bench, item in zip(benches, config.settings, strict=True):
            bench.check(rows_of(config, item))
    given.out.mkdir(parents=True, exist_ok=True)
    return tabulate(config, benches, collect=collect)


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m training.adaptation_table", description=__doc__)
    add = options.add_argument
    add("--config", type=Path, required=True, help="TOML file, e.g. training/configs/adaptation_table.toml")
    add("--data", type=Path, required=True, help="folder that holds the dataset folders the file names")
    add("--checkpoint", type=Path, required=True, help="supervised checkpoint that every row starts from")
    add("--out", type=Path, required=True, help="a folder for each setting and row, the table and the plots")
    add("--cache", type=Path, help="folder for cached features of meta-training; default: in --out")
    add("--collect", action="store_true", help="train and measure nothing: the table of what is measured")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. protocol.draws=20; repeatable")
    arguments = options.parse_args()

    def start() -> int:
        given = Given(
            arguments.config, arguments.data, arguments.checkpoint, arguments.out, arguments.cache, tuple(arguments.set)
        )
        put_json(table_of(given, collect=arguments.collect))
        return 0

    return run(start)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main())
