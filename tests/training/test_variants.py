"""Variants of a recipe: each is trained once, the table is that of the last validations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.recipe import RECIPE
from training import variants as module
from training.config import ConfigError, read_config
from training.journal import read_log
from training.supervised import SupervisedConfig
from training.variants import collect, markdown, read_variants, train_all

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

CONFIGS = Path(module.__file__).parent / "configs"
VARIANTS = """
[variants.recipe]
settings = []
[variants.triplet]
settings = ["loss.main='triplet'", "run.every=4"]
"""


@pytest.mark.parametrize("variants", ["release.toml", "losses.toml"])
@pytest.mark.parametrize("recipe", ["edge.toml", "edge_all.toml"])
def test_shipped_variants_fit_the_shipped_recipes(recipe: str, variants: str) -> None:
    for variant in read_variants(CONFIGS / variants).values():
        assert read_config(CONFIGS / recipe, SupervisedConfig, variant.settings).encoder.backbone == "efficientnet_lite0"


def test_variants_are_trained_once_and_compared(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shapes").symlink_to(shapes)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "variants.toml").write_text(VARIANTS)
    variants = read_variants(tmp_path / "variants.toml", ("run.steps=2",))
    assert list(variants) == ["recipe", "triplet"]
    runs: list[Path] = []
    real = module.train
    monkeypatch.setattr(module, "train", lambda *given: (runs.append(given[2]), real(*given)))
    for _ in range(2):  # the second time nothing is left to do
        train_all(tmp_path / "recipe.toml", variants, [0, 1], tmp_path / "data", tmp_path / "out", "random")
    assert [folder.name for folder in runs] == ["recipe-0", "recipe-1", "triplet-0", "triplet-1"]
    table = collect(variants, [0, 1], tmp_path / "out")
    last = [read_log(tmp_path / "out" / f"recipe-{seed}")[-1]["mean/mrr"] for seed in (0, 1)]
    assert table["recipe"]["mean"]["mean/mrr"] == pytest.approx(sum(last) / 2, abs=1e-3)
    assert table["recipe"]["deviation"]["mean/mrr"] == pytest.approx(abs(last[0] - last[1]) / 2**0.5, abs=1e-3)
    assert table["triplet"]["settings"] == ["run.steps=2", "loss.main='triplet'", "run.every=4"]
    json.dumps(table)
    lines = markdown(table).splitlines()
    assert lines[0] == "| variant | shapes/acc@1 | mean/acc@1 | mean/mrr |"
    assert lines[2].startswith("| recipe | ")
    assert " ± " in lines[2]


def test_slips_show_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    for text, message in (
        ("[variants]", "no variants"),
        ("[variants.a]\nsetting = []", "unknown key 'setting'"),
        ("[variants]\na = 3", r"variants\.a is 3, expected a table"),
        ("variants = 3", "variants is 3, expected a table"),
    ):
        (tmp_path / "variants.toml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_variants(tmp_path / "variants.toml")
    (tmp_path / "variants.toml").write_text("[variants.a]\nsettings = []\n[variants.b]\nsettings = ['run.stepps=3']")
    with pytest.raises(ConfigError, match="unknown key 'stepps'"):
        train_all(tmp_path / "recipe.toml", read_variants(tmp_path / "variants.toml"), [0], tmp_path, tmp_path / "out", "random")
    assert not (tmp_path / "out").exists()
