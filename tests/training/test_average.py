"""Averages of runs: the weights' mean, components set anew, and what has no mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.recipe import RECIPE
from training.average import AverageError, average
from training.checkpoint import load_model
from training.config import read_config
from training.supervised import SupervisedConfig, train
from training.trainer import LAST

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]


@pytest.fixture(scope="module")
def data(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "shapes").symlink_to(shapes)
    return root


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of one recipe by other seeds and one of a wider network."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "run.toml").write_text(RECIPE)
    settings = [["pca.refit=true"], ["pca.refit=true", "run.seed=1"], ["encoder.features=24"]]
    for number, values in enumerate(settings):
        train(read_config(folder / "run.toml", SupervisedConfig, values), data, folder / str(number), None)
    return [folder / str(number) / LAST for number in range(len(settings))]


def test_the_mean_has_the_backbones_mean_and_components_of_its_own(runs: list[Path], data: Path, tmp_path: Path) -> None:
    figures = average(runs[:2], data, tmp_path / "mean.safetensors")
    (first, _, meta), (second, _, _) = load_model(runs[0]), load_model(runs[1])
    mean, head, kept = load_model(tmp_path / "mean.safetensors")
    parts = zip(mean.backbone.parameters(), first.backbone.parameters(), second.backbone.parameters(), strict=True)
    assert all(torch.equal(ours, torch.stack([one, other]).mean(0)) for ours, one, other in parts)
    between = (first.projection.weight + second.projection.weight) / 2
    assert not torch.allclose(mean.projection.weight, between, atol=1e-3)
    torch.testing.assert_close(head.linear.weight, torch.eye(*head.linear.weight.shape))
    assert kept["validation"] == figures
    assert set(figures) == set(meta["validation"])
    assert kept["averaged"] == [{"step": 4, "seed": 0}, {"step": 4, "seed": 1}]


def test_what_has_no_mean_is_refused(runs: list[Path], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "mean.safetensors"
    with pytest.raises(AverageError, match="at least two"):
        average(runs[:1], data, out)
    with pytest.raises(AverageError, match="its config is not that of"):
        average([runs[0], runs[2]], data, out)
    with pytest.raises(AverageError, match="no such checkpoint"):
        average([runs[0], tmp_path / "none.safetensors"], data, out)
    assert not out.exists()
