"""Meta-training end to end on drawn shapes: the command, exact resuming, checkpoints, both sources, every design."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training.episodic_recipe import PIXELS, config_of, run, write_world
from training import meta
from training.checkpoint import load_model, read_meta
from training.config import ConfigError
from training.episodic.trainer import MetaTrainer
from training.heads import runtime_head
from training.journal import CURVES, read_log
from training.run_state import STATE, ResumeError
from training.trainer import BEST, LAST

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]


@pytest.fixture(scope="module")
def data(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("episodic"), shapes)


@pytest.fixture(scope="module")
def finished(data: Path) -> Path:
    out = data / "out"
    run(data, out)
    return out


def test_the_log_says_what_there_is_to_know(finished: Path) -> None:
    rows = read_log(finished)
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert "loss" not in rows[0]
    sets = {f"{name}/k2/{what}" for name in ("people_people", "kinds") for what in ("before@1", "after@1", "gain@1", "margin")}
    assert sets | {"mean/before@1", "mean/after@1", "mean/gain@1"} <= set(rows[0])
    last = rows[-1]
    assert {"loss", "loss/outer", "loss/domain", "domain/accuracy", "margin/mean", "margin/spread", "rate/0"} <= set(last)
    for what in ("margin", "rates", "gains", "head", "regularisers"):
        assert last[f"gradient/{what}"] > 0
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert (finished / CURVES).stat().st_size > 10_000


def test_checkpoints_are_those_of_other_commands(finished: Path, data: Path) -> None:
    encoder, head, facts = load_model(finished / LAST)
    start, _, before = load_model(data / "start.safetensors")
    assert encoder.config == start.config
    assert facts["input"] == before["input"]
    assert facts["step"] == 7  # of supervised training; the outer loop's are apart
    assert facts["meta_steps"] == 4
    assert facts["meta_validation"]["mean/after@1"] >= 0
    assert facts["adaptation"]["regularisers"]["hidden"] == 4
    assert set(facts["adaptation"]["regularisers"]["of"]) == {"person", "category"}
    device = runtime_head(finished / LAST)
    assert device.margin_net is not None
    np.testing.assert_array_equal(device.weight, head.linear.weight.detach().numpy())
    assert device.step_sizes.tolist() != [0.5]
    changed = {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, start.state_dict()[name])}
    assert changed == {"projection.weight", "projection.bias"}  # the gains are in it
    assert (finished / BEST).is_file()


@pytest.mark.parametrize("settings", [(), PIXELS], ids=["cached", "pixels"])
def test_a_stopped_run_goes_on_exactly(
    data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    whole = finished
    if settings:
        whole = tmp_path / "whole"
        run(data, whole, *settings)
    stopped = tmp_path / "stopped"
    step = MetaTrainer._step

    def interrupted(self, *arguments) -> None:  # type: ignore[no-untyped-def]
        step(self, *arguments)
        if self.progress.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MetaTrainer, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(data, stopped, *settings)
    run(data, stopped, *settings, "run.workers=2")
    ours, theirs = load_file(stopped / STATE), load_file(whole / STATE)
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    assert read_meta(stopped / LAST)["meta_validation"] == read_meta(whole / LAST)["meta_validation"]
    if settings:
        changed = load_file(stopped / LAST)
        start = load_file(data / "start.safetensors")
        moved = [name for name in start if name.startswith("encoder.") and not torch.equal(changed[name], start[name])]
        assert any(name.startswith("encoder.backbone") for name in moved)
        assert read_log(stopped)[-1]["gradient/encoder"] > 0


def test_another_configuration_or_start_does_not_go_on(data: Path, finished: Path) -> None:
    with pytest.raises(ResumeError, match=r"inner\.steps"):
        run(data, finished, "inner.steps=2")
    with pytest.raises(ResumeError, match="start"):
        meta.train(config_of(data), data, finished, data / "raw.safetensors", data / "cache")


def test_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"--config": data / "meta.toml", "--data": data, "--out": tmp_path, "--cache": data / "cache"}
    words = ["meta", *(word for option, path in places.items() for word in (option, str(path)))]
    monkeypatch.setattr(sys, "argv", [*words, "--checkpoint", str(data / "start.safetensors"), "--set", "run.steps=1"])
    assert meta.main() == 0
    assert "mean/after@1" in json.loads(capsys.readouterr().out)
    monkeypatch.setattr(sys, "argv", [*words, "--checkpoint", "nowhere"])
    assert meta.main() == ConfigError.exit_code
    assert "training.supervised" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*words, "--checkpoint", str(data / "start.safetensors"), "--set", "run.score=mean/mrr"])
    assert meta.main() == ConfigError.exit_code
    assert "people_people/k2/after@1" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no distributed package")
def test_two_processes(data: Path, tmp_path: Path) -> None:
    """Domains of both settings, so that in some steps a process has nothing for a regulariser to do."""
    places = {"--config": data / "meta.toml", "--data": data, "--out": tmp_path, "--cache": data / "cache"}
    words = [sys.executable, "-m", "training.meta", "--checkpoint", str(data / "start.safetensors")]
    words += [word for option, path in places.items() for word in (option, str(path))]
    settings = ["run.devices=2", "run.accelerator='cpu'", "inner.sharpness=0.0", "run.steps=6", "run.every=6"]
    words += [word for item in settings for word in ("--set", item)]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "mean/after@1" in json.loads(ran.stdout)
    assert read_log(tmp_path)[-1]["gradient/margin"] == 0.0
