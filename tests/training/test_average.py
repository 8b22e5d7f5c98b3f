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


OTHER = ["encoder.backbone='squeezenet1_1'", "encoder.stages=['fire7']", "encoder.grids=[2]", "pca.refit=true"]


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of one recipe by other seeds and grids, one whose projection is trained, and one of another network."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "run.toml").write_text(RECIPE)
    settings = [["pca.refit=true"], ["pca.refit=true", "run.seed=1", "encoder.grids=[1, 1]"], [], OTHER]
    for number, values in enumerate(settings):
        train(read_config(folder / "run.toml", SupervisedConfig, values), data, folder / str(number), None)
    return [folder / str(number) / LAST for number in range(len(settings))]


def test_the_mean_has_the_backbones_mean_and_components_of_its_own(runs: list[Path], data: Path, tmp_path: Path) -> None:
    figures = average(runs[:2], data, tmp_path / "mean.safetensors")
    (first, _, meta), (second, _, _) = load_model(runs[0]), load_model(runs[1])
    mean, head, kept = load_model(tmp_path / "mean.safetensors")
    parts = zip(mean.backbone.parameters(), first.backbone.parameters(), second.backbone.parameters(), strict=True)
    assert all(torch.equal(ours, torch.stack([one, other]).mean(0)) for ours, one, other in parts)
    assert mean.projection.weight.shape == first.projection.weight.shape
    assert not torch.allclose(mean.projection.weight, first.projection.weight, atol=1e-3)
    torch.testing.assert_close(head.linear.weight, torch.eye(*head.linear.weight.shape))
    assert kept["validation"] == figures
    assert set(figures) == set(meta["validation"])
    assert [(part["step"], part["seed"], part["recipe"]["encoder"]["grids"]) for part in kept["averaged"]] == [
        (4, 0, [2, 1]),
        (4, 1, [1, 1]),
    ]


def test_what_has_no_mean_is_refused(runs: list[Path], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "mean.safetensors"
    with pytest.raises(AverageError, match="at least two"):
        average(runs[:1], data, out)
    with pytest.raises(AverageError, match="its network or weights are not those of"):
        average([runs[0], runs[3]], data, out)
    with pytest.raises(AverageError, match=r"pca\.refit = false"):
        average([runs[2], runs[0]], data, out)
    average([runs[2], runs[0]], data, out, ["pca.refit=true", "encoder.pooling=tight"])
    assert load_model(out)[0].config.pooling == "tight"
    out.unlink()
    with pytest.raises(AverageError, match="no such checkpoint"):
        average([runs[0], tmp_path / "none.safetensors"], data, out)
    assert not out.exists()
