"""docs/models.md: its snippet runs, its table is what the command prints, its lists are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from training.models.__main__ import SIZES, row, table
from training.models.config import EncoderConfig, paper_configs
from training.models.registry import backbone_info, backbone_names
from training.models.timm_backbone import import_timm

pytestmark = pytest.mark.torch

TEXT = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def test_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (body,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(body, "docs/models.md", "exec"), {"__name__": "docs"})
    assert capsys.readouterr().out == "torch.Size([2, 128])\n"


def test_table_is_what_the_command_prints() -> None:
    try:
        import_timm()
        names = backbone_names()
    except ModuleNotFoundError:
        names = tuple(name for name in backbone_names() if not backbone_info(name).needs)
    printed = [line.split() for line in table([row(name, SIZES, 0) for name in names], SIZES, timed=False)]
    documented = [line.split() for line in TEXT.splitlines() if line.startswith("    ")]
    for line in printed:
        assert line in documented


def test_every_backbone_option_and_preset_is_named() -> None:
    for name in (*backbone_names(), *paper_configs()):
        assert f"`{name}`" in TEXT or name == "mobilenetv3_large"
    for field in ("stages", "grids", "pooling", "attention", "projection", "head", "branch", "norm", "transform_input"):
        assert field in EncoderConfig.__dataclass_fields__
        assert f"`{field}`" in TEXT
