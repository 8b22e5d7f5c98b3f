"""Rows of the table that are meta-trained: each is a configuration of training.meta, changed by a few settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training import meta
from training.checkpoint import read_meta
from training.config import ConfigError, read_config, to_table
from training.episodic.config import MetaConfig
from training.episodic.config import Setting as Kind
from training.episodic.methods.config import MetaFile
from training.trainer import LAST

TERMS: dict[Kind, tuple[str, ...]] = {"person": ("domain", "intra"), "category": ("domain", "semantic", "category")}
TITLES = {"domain": "L_D", "intra": "L_ud", "semantic": "L_S", "category": "L_C"}
PLAIN = tuple(f"regularisers.{name}=0" for name in TITLES)  # no regularisers
FIXED_MARGIN = "margin.design='fixed'"
UNADAPTED = "outer.base_weight=1.0"  # the outer loss sees the head before adaptation alone: nothing is learned about adapting


def arm_settings(name: str) -> tuple[str, ...]:
    """What a row changes in the configuration of "ours".

    "anil" (no learned margin, no regularisers), "regularised" (regularisers without adaptation), "ours@D" (head of width D),
    "ours-TERM" (without a regulariser), "ours-all" (without any). Raises ConfigError for another name.
    """
    base, width, term = (*name.partition("@")[::2], name.partition("-")[2])
    if name == "ours":
        return ()
    if name == "anil":
        return FIXED_MARGIN, *PLAIN
    if name == "regularised":
        return FIXED_MARGIN, UNADAPTED
    if base == "ours" and width.isdigit():
        return (f"features.embedding={width}",)
    if name == "ours-all":
        return PLAIN
    if name == f"ours-{term}" and term in TITLES:
        return (f"regularisers.{term}=0",)
    raise ConfigError(f"there is no meta-trained row {name!r}")


@dataclass(frozen=True)
class MetaPlace:
    """Where meta-training finds and leaves things: the table's file, data, the checkpoint to start from, a cache of features."""

    file: Path
    data: Path
    start: Path
    cache: Path


def read_arm(name: str, given: MetaFile, place: MetaPlace, further: Sequence[str] = ()) -> MetaConfig:
    """The configuration of a row. Raises ConfigError."""
    return read_config(place.file.parent / given.config, MetaConfig, [*given.settings, *arm_settings(name), *further])


def train_arm(config: MetaConfig, place: MetaPlace, folder: Path) -> Path:
    """Train a row where it is not finished; returns its last checkpoint. Raises what training.meta raises."""
    if not arm_finished(config, folder):
        meta.train(config, place.data, folder, place.start, place.cache)
    return folder / LAST


def arm_finished(config: MetaConfig, folder: Path) -> bool:
    """Whether the folder holds all steps of this configuration."""
    path = folder / LAST
    meta_data = read_meta(path) if path.is_file() else {}
    return meta_data.get("meta_recipe") == to_table(config) and int(meta_data["meta_steps"]) >= config.run.steps
