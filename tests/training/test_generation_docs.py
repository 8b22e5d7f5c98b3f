"""docs/generator.md: its snippet runs, and it names every option of the network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from training.generation.config import GeneratorConfig

pytestmark = pytest.mark.torch

TEXT = (Path(__file__).parents[2] / "docs" / "generator.md").read_text(encoding="utf-8")


def test_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (body,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(body, "docs/generator.md", "exec"), {"__name__": "docs"})
    assert capsys.readouterr().out == "torch.Size([2]) True\n"


def test_every_option_of_the_network_is_named() -> None:
    for name in GeneratorConfig.__dataclass_fields__:
        assert f"`{name}`" in TEXT or f"`{name} =" in TEXT, name
