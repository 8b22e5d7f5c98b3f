"""From a row's name to a method, trained where it has to be, for one setting."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from training.checkpoint import read_meta
from training.config import ConfigError, to_table
from training.episodic.config import MetaConfig
from training.episodic.methods.choose import choose
from training.episodic.methods.closed import Centred, Prototype, Ridge
from training.episodic.methods.config import TableConfig
from training.episodic.methods.head import AdaptedHead, DescentConfig, Features, HeadMethod, Layer, learned_head
from training.episodic.methods.learned import MetaPlace, read_arm, train_arm
from training.episodic.methods.network import InnerConfig, NetworkMethod
from training.episodic.methods.outer import TailTraining
from training.episodic.methods.protocol import Method
from training.episodic.methods.run import finished
from training.episodic.methods.settings import Setting
from training.episodic.methods.tail import Activations, Tail
from training.episodic.methods.traits import Traits, load_traits, train_traits
from training.episodic.methods.upper import Folded, Upper, fold_tasks
from training.episodic.table import ROWS
from training.trainer import LAST

CHOSEN = ("finetune_head", "prototype", "ridge", "centred", "finetune")  # rows whose options are chosen for every k
META_TRAINED = ("regularised", "anil", "ours_pairs", "ours")  # and all rows of the plots alone
FREE = ("every", "threads")  # of a loop: what may change when it goes on


@dataclass(eq=False)
class Bench:
    """All that rows of one setting share. Features are kept by checkpoint; the first part of the network is the same in all."""

    config: TableConfig
    setting: Setting
    place: MetaPlace
    out: Path
    _features: dict[Path, Features] = field(default_factory=dict)
    _methods: dict[tuple[str, int], tuple[Method, dict[str, Any]]] = field(default_factory=dict)

    @property
    def start(self) -> Path:
        """The supervised checkpoint."""
        return self.place.start

    def features(self, checkpoint: Path) -> dict[str, Features]:
        """Of this setting by its name, as methods take them."""
        if checkpoint not in self._features:
            self._features[checkpoint] = Features(self.setting, checkpoint)
        return {self.setting.name: self._features[checkpoint]}

    @cached_property
    def activations(self) -> Activations:
        """What the supervised network's tail takes, and every tail that was trained from it."""
        tail, spec = Tail.load(self.start, self.config.network.modules)
        return Activations(self.setting, tail, spec, self.config.network.outer.loop.seed)

    def tail(self, checkpoint: Path) -> Tail:
        """The tail of a checkpoint."""
        return Tail.load(checkpoint, self.config.network.modules)[0]

    def trained(self, name: str) -> list[Path]:
        """The checkpoints a row needs, trained where they are not there; the start alone for a row that trains nothing."""
        folder = self.out / name
        if name in META_TRAINED or name not in ROWS:
            return [self._meta(name)]
        if name in ("none", *CHOSEN):
            return [self.start]
        if name in ("maml", "sign_maml"):
            return [self._tail(folder, getattr(self.config.network, name))]
        if name == "upper":
            return [self._fold(folder / f"fold-{fold}", fold) for fold in range(self.config.upper.folds)]
        return [self._traits(folder)]

    def method(self, name: str, k: int) -> tuple[Method, dict[str, Any]]:
        """The method of a row for k pairs, and what was chosen for it; made once. Raises what training and choosing raise."""
        if (name, k) not in self._methods:
            self._methods[name, k] = self._make(name, k)
        return self._methods[name, k]

    def _make(self, name: str, k: int) -> tuple[Method, dict[str, Any]]:
        paths = self.trained(name)
        layer = Layer.of(paths[0]) if name != "ccdg" else Layer.of(self.start)
        features = self.features(paths[0] if name not in ("ccdg", "upper") else self.start)
        if name in CHOSEN:
            return self._chosen(name, k, layer, features)
        if name in ("none", "regularised"):
            return HeadMethod(name, layer, features), {}
        if name == "ccdg":
            return Traits(name, layer, features, load_traits(paths[0], layer)), {}
        if name == "upper":
            parts = [self.features(path)[self.setting.name] for path in paths]
            return Upper(name, {self.setting.name: Folded(self.setting, parts, [Layer.of(path) for path in paths])}), {}
        if name in ("maml", "sign_maml"):
            return self._maml(name, paths[0]), {}
        return learned_head(name, paths[0], features), {}

    def swept(self, name: str, k: int, steps: int) -> Method:
        """The method of a row with another number of inner steps."""
        method, _ = self.method(name, k)
        if not isinstance(method, AdaptedHead):
            raise ConfigError(f"steps of {name!r} are not swept; it has no inner loop on the head")
        return replace(method, steps=steps)

    def options(self, name: str) -> dict[str, Any]:
        """All settings a row's figures depend on, beside checkpoints and protocol."""
        config, table = self.config, to_table(self.config)
        network, outers = table["network"], [table[part]["outer"] for part in ("network", "ccdg", "upper")]
        for outer in outers:
            outer["loop"] = {key: value for key, value in outer["loop"].items() if key not in FREE}
        parts: dict[str, Any] = {"ccdg": table["ccdg"], "upper": table["upper"]}
        parts |= {each: [config.network.modules, network[each], network["outer"]] for each in ("maml", "sign_maml")}
        parts |= {each: [table["grids"], table["choosing"], config.network.modules] for each in CHOSEN}
        return {"row": name, "options": parts.get(name)}

    def _chosen(self, name: str, k: int, layer: Layer, features: dict[str, Features]) -> tuple[Method, dict[str, Any]]:
        grids, setting, choosing = self.config.grids, self.setting, self.config.choosing
        found: tuple[Any, list[float]]
        if name == "prototype":
            found = choose(grids.shares, lambda share: Prototype(name, layer, features, share), setting, k, choosing)
            return Prototype(name, layer, features, found[0]), _said("share", grids.shares, found)
        if name == "ridge":
            found = choose(grids.strengths, lambda strength: Ridge(name, layer, features, strength), setting, k, choosing)
            return Ridge(name, layer, features, found[0]), _said("strength", grids.strengths, found)
        if name == "centred":
            found = choose(grids.priors, lambda prior: Centred(name, layer, features, prior), setting, k, choosing)
            return Centred(name, layer, features, found[0]), _said("prior", grids.priors, found)
        if name == "finetune_head":
            product = itertools.product(grids.head_rates, grids.head_steps, grids.head_sides)
            heads = [DescentConfig(rate, steps, side=side) for rate, steps, side in product]
            found = choose(heads, lambda how: AdaptedHead(name, layer, features, how.head(layer)), setting, k, choosing)
            return AdaptedHead(name, layer, features, found[0].head(layer)), _said("descent", heads, found)
        tail, items = self.tail(self.start), {setting.name: self.activations}
        pairs = itertools.product(grids.network_rates, grids.network_steps)
        inners = [InnerConfig(rate, steps, "first") for rate, steps in pairs]
        found = choose(inners, lambda inner: NetworkMethod(name, tail, items, inner), setting, k, choosing)
        return NetworkMethod(name, tail, items, found[0]), _said("descent", inners, found)

    def _maml(self, name: str, checkpoint: Path) -> Method:
        inner = replace(getattr(self.config.network, name), rate=float(read_meta(checkpoint)["inner_rate"]))
        return NetworkMethod(name, self.tail(checkpoint), {self.setting.name: self.activations}, inner)

    def _tail(self, folder: Path, inner: InnerConfig) -> Path:
        outer = self.config.network.outer
        table = self._table(folder.name)
        if finished(folder, outer.loop.steps, table):
            return folder / LAST
        training = TailTraining(self.tail(self.start), self.activations, self.setting.training, inner, outer)
        return training.fit(folder, self._meta_of_start(), table)

    def _fold(self, folder: Path, fold: int) -> Path:
        config = self.config.upper
        table = {**self._table("upper"), "fold": fold}
        if finished(folder, config.outer.loop.steps, table):
            return folder / LAST
        tasks, none = fold_tasks(self.setting, fold, config), InnerConfig(steps=0, order="first")
        training = TailTraining(self.tail(self.start), self.activations, tasks, none, config.outer)
        return training.fit(folder, self._meta_of_start(), table)

    def _traits(self, folder: Path) -> Path:
        config = self.config.ccdg
        table = self._table("ccdg")
        if finished(folder, config.outer.loop.steps, table):
            return folder / LAST
        features = self.features(self.start)[self.setting.name]
        return train_traits(features, Layer.of(self.start), self.setting.training, config, folder, table)

    def _meta(self, name: str) -> Path:
        found = self.planned(name)
        if isinstance(found, Path):
            return found
        file = self.config.meta[self.setting.name]
        owner = next(item.name for item in self.config.settings if self.config.meta.get(item.name) == file)
        return train_arm(found, self.place, self.out.parent / owner / name)

    def check(self, names: Sequence[str]) -> None:
        """Read the configurations of meta-trained rows, so that a slip shows before anything is trained. Raises ConfigError."""
        for name in names:
            if name in META_TRAINED or name not in ROWS:
                self.planned(name)

    def planned(self, name: str) -> MetaConfig | Path:
        """How a meta-trained row is to be trained, or the checkpoint given for it. Raises ConfigError."""
        given = self.config.checkpoints.get(f"{self.setting.name}/{name}")
        if given is not None:
            path = self.place.file.parent / given
            if not path.is_file():
                raise ConfigError(f"{path}: there is no such checkpoint, named in checkpoints for {self.setting.name}/{name}")
            return path
        file = self.config.meta.get(self.setting.name)
        if file is None:
            where = f"[meta.{self.setting.name}]"
            raise ConfigError(f"{name} is meta-trained: name a configuration of training.meta in {where}, or leave it out")
        return read_arm(name, file, self.place)

    def _meta_of_start(self) -> dict[str, Any]:
        return {name: value for name, value in read_meta(self.start).items() if name in ("input", "recipe", "weights")}

    def _table(self, name: str) -> dict[str, Any]:
        """What a run must not change when it goes on."""
        return {**self.options(name), "setting": self.setting.name, "start": digest(self.start)}


def digest(path: Path) -> str:
    """SHA-256 of a file, its first 16 hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _said(name: str, candidates: Any, found: tuple[Any, list[float]]) -> dict[str, Any]:
    """What was chosen, and each candidate's Acc@1 on training tasks."""
    chosen, scores = found
    return {name: to_table(chosen), "tried": [[to_table(item), score] for item, score in zip(candidates, scores, strict=False)]}
