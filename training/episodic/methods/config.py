"""What a configuration file of the adaptation table may hold (training/configs/adaptation_table.toml, docs/adaptation.md)."""

from __future__ import annotations

from dataclasses import dataclass, field

from fgsbir_edge.head import Side
from training.episodic.methods.choose import ChoosingConfig
from training.episodic.methods.network import InnerConfig
from training.episodic.methods.outer import OuterConfig
from training.episodic.methods.protocol import ProtocolConfig
from training.episodic.methods.settings import CATEGORIES, PEOPLE, SettingConfig
from training.episodic.methods.traits import TraitsConfig
from training.episodic.methods.upper import UpperConfig
from training.episodic.table import ROWS


@dataclass(frozen=True)
class MetaFile:
    """A configuration of training.meta for one setting, its path relative to this file, and settings it is changed by.

    Settings of the table with equal ones share their runs, in the folder of the first.
    """

    config: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grids:
    """What is tried on training tasks, every combination, for each setting and k."""

    head_rates: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    head_steps: tuple[int, ...] = (1, 5, 20)
    head_sides: tuple[Side, ...] = ("both",)
    network_rates: tuple[float, ...] = (1e-5, 1e-4, 1e-3)  # from 0.003 on one step undoes what the network knows
    network_steps: tuple[int, ...] = (1, 5)
    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 1.0)
    strengths: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    priors: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 32.0)

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if not values:
                raise ValueError(f"{name} is empty; give one value at least")


@dataclass(frozen=True)
class NetworkConfig:
    """Methods that change the network.

    modules    how many of the backbone's last modules their inner loops change, beside attention, projection and head; a number
               beyond what it has is all weights, as MAML and fine-tuning are published. Fewer let two cores run them: what stays
               is computed once for each image
    maml, sign_maml  their inner loops; some hundred outer steps do not mend a rate that harms the supervised network
    outer      how both are trained
    """

    modules: int = 2
    maml: InnerConfig = field(default_factory=lambda: InnerConfig(rate=1e-4))
    sign_maml: InnerConfig = field(default_factory=lambda: InnerConfig(rate=1e-5, order="sign"))
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        if self.modules < 0:
            raise ValueError(f"modules is {self.modules}, expected 0 (projection and head alone) or more")
        if self.maml.order == "sign" or self.sign_maml.order != "sign":
            raise ValueError('maml.order must be "first" or "second", sign_maml.order "sign"')


@dataclass(frozen=True)
class SweepConfig:
    """The plots beside the one against k, all at one `k`; empty lists leave a plot out.

    steps, step_methods  inner steps, and whose; beyond those trained for the last rate is repeated
    trained_steps        inner steps that ours is meta-trained for, each on its own, rates starting at their share of ours's
    widths               D of heads that are meta-trained each on its own
    regularisers         whether ours is trained without each of its regularisers, and without any
    """

    k: int = 5
    steps: tuple[int, ...] = (0, 1, 2, 3, 5, 10, 20)
    step_methods: tuple[str, ...] = ("finetune_head", "anil", "ours")
    trained_steps: tuple[int, ...] = (2, 5, 10, 20)
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    regularisers: bool = True

    def __post_init__(self) -> None:
        if self.k < 1 or min((0, *self.steps)) < 0 or min((1, *self.widths, *self.trained_steps)) < 1:
            raise ValueError("k, widths and trained_steps must be positive, steps not negative")
        if unknown := sorted(set(self.step_methods) - {"finetune_head", "anil", "ours"}):
            raise ValueError(f"step_methods has {unknown[0]!r}; steps are swept of finetune_head, anil and ours")


@dataclass(frozen=True)
class TableConfig:
    """A whole table.

    methods      rows, by their names in training.episodic.table
    threads      of measuring; training has its own
    checkpoints  "SETTING/ROW" -> a checkpoint to take instead of training one, relative to this file; for meta-trained rows
    meta         what these are trained by, by the name of the setting
    """

    methods: tuple[str, ...] = tuple(ROWS)
    threads: int = 2
    settings: tuple[SettingConfig, ...] = (PEOPLE, CATEGORIES)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    choosing: ChoosingConfig = field(default_factory=ChoosingConfig)
    grids: Grids = field(default_factory=Grids)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    ccdg: TraitsConfig = field(default_factory=TraitsConfig)
    upper: UpperConfig = field(default_factory=UpperConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    meta: dict[str, MetaFile] = field(default_factory=dict)
    checkpoints: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.methods) - set(ROWS)):
            raise ValueError(f"there is no method {unknown[0]!r}; there are {', '.join(ROWS)}")
        if not self.settings or len({item.name for item in self.settings}) < len(self.settings):
            raise ValueError("settings: expected at least one, each with a name of its own")
