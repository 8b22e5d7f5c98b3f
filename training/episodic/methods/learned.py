"""Rows of the table that are meta-trained: each is a configuration of training.meta, changed in what makes the row."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training import meta
from training.checkpoint import read_meta
from training.config import ConfigError, read_config, to_table
from training.episodic.config import MetaConfig
from training.episodic.config import Setting as Kind
from training.episodic.methods.config import MetaFile
from training.trainer import LAST

TERMS: dict[Kind, tuple[str, ...]] = {"person": ("domain", "intra"), "category": ("domain", "semantic", "category")}
TITLES = {"domain": "L_D", "intra": "L_ud", "semantic": "L_S", "category": "L_C"}


def arm(name: str, config: MetaConfig) -> MetaConfig:
    """The configuration of a row, from that of "ours".

    "ours_pairs": no centring. "anil": no centring, no learned margin, no regularisers. "regularised": the outer loss sees the
    head before adaptation alone, so that nothing is learned about adapting. "ours@D": a head of width D. "ours+T": T inner steps,
    their rates starting at a T-th of what all of ours's make together. "ours-TERM", "ours-all": without one regulariser, or any.
    Raises ConfigError for another name, and where there are no regularisers to make a row of.
    """
    base, _, width = name.partition("@")
    term = name.partition("-")[2]
    fixed, pairs = replace(config.margin, design="fixed"), replace(config.inner, centre=math.inf)
    if name == "ours":
        return config
    if name == "anil":
        return replace(config, inner=pairs, margin=fixed, regularisers=None)
    if name == "ours_pairs":
        return replace(config, inner=pairs)
    if base == "ours" and width.isdigit():
        return replace(config, features=replace(config.features, embedding=int(width)))
    first, _, steps = name.partition("+")
    if first == "ours" and steps.isdigit():
        rate = config.inner.rate * config.inner.steps / int(steps)
        return replace(config, inner=replace(config.inner, steps=int(steps), rate=rate))
    if name != "regularised" and term not in (*TITLES, "all"):
        raise ConfigError(f"there is no meta-trained row {name!r}")
    if config.regularisers is None:
        raise ConfigError(f"{name}: the configuration has no regularisers; add [regularisers], or leave out the row or the sweep")
    if name == "regularised":
        return replace(config, inner=pairs, margin=fixed, outer=replace(config.outer, base_weight=1.0))
    off: dict[str, Any] = {term: 0.0}
    return replace(config, regularisers=None if term == "all" else replace(config.regularisers, **off))


@dataclass(frozen=True)
class MetaPlace:
    """Where meta-training finds and leaves things: the table's file, data, the checkpoint to start from, a cache of features."""

    file: Path
    data: Path
    start: Path
    cache: Path


def read_arm(name: str, given: MetaFile, place: MetaPlace) -> MetaConfig:
    """The configuration of a row. Raises ConfigError."""
    return arm(name, read_config(place.file.parent / given.config, MetaConfig, given.settings))


def train_arm(config: MetaConfig, place: MetaPlace, folder: Path) -> Path:
    """Train a row where it is not finished; returns its last checkpoint. Raises what training.meta raises."""
    if not arm_finished(config, folder):
        meta.train(config, place.data, folder, place.start, place.cache)
    return folder / LAST


def arm_finished(config: MetaConfig, folder: Path) -> bool:
    """Whether the folder holds all steps of this configuration."""
    path = folder / LAST
    kept = read_meta(path) if path.is_file() else {}
    return bool(kept.get("meta_recipe") == to_table(config) and int(kept["meta_steps"]) >= config.run.steps)
