"""Joint training end to end on drawn shapes: every phase, resuming, the same road for real and generated sketches."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.semi_recipe import SEMI, TINY, semi_config, write_generator, write_start
from training.checkpoint import load_model, read_meta
from training.config import ConfigError
from training.generation.checkpoint import load_generator
from training.journal import CURVES, read_log
from training.run_state import STATE, ResumeError, check_same
from training.semi.trainer import DISCRIMINATOR, GENERATOR
from training.semi_supervised import Start, train
from training.trainer import LAST

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]


@pytest.fixture(scope="module")
def data(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "shapes").symlink_to(shapes)
    return root


@pytest.fixture(scope="module")
def start(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Start:
    return write_start(data, tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def finished(data: Path, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """warm-up, retrieval, retrieval, generator, retrieval."""
    out = tmp_path_factory.mktemp("run")
    train(semi_config(out), data, out, start)
    return out


def test_a_run_logs_every_phase(finished: Path) -> None:
    rows = read_log(finished)
    assert [row["step"] for row in rows] == [0, 2, 4, 5]
    assert {"shapes/acc@1", "mean/mrr", "held/real", "held/swapped", "held/drawn", "held/ret@1"} <= set(rows[0])
    last = rows[-1]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    terms = {"loss/F", "loss/labelled", "loss/generated", "loss/distillation", "loss/D", "loss/offset", "loss/policy"}
    seen = {"weight/mean", "weight/spread", "discriminator/real", "discriminator/fake", "reward/mean", "reward/spread"}
    assert terms | seen | {"drawn/length", "drawn/endless", "held/agreement"} <= set(last)
    assert {"seconds/warmup", "seconds/retrieval"} <= set(rows[1])
    assert {"seconds/retrieval", "seconds/generator", "time/draw", "time/rasterise", "time/retrieval"} <= set(rows[2])
    parts = sum(value for name, value in rows[2].items() if name.startswith("time/"))
    whole = (rows[2]["seconds/retrieval"] + rows[2]["seconds/generator"]) / 2
    assert 0.5 * whole < parts <= whole
    assert 0 <= last["weight/mean"] <= 1
    assert 1 <= last["drawn/length"] <= TINY.max_length
    assert (finished / CURVES).stat().st_size > 10_000


def test_checkpoints_are_those_of_other_commands(finished: Path, start: Start) -> None:
    encoder, _, meta = load_model(finished / LAST)
    before = load_model(start.retrieval)
    assert encoder.config == before[0].config
    assert meta["input"] == before[2]["input"]
    assert meta["recipe"]["unlabelled"]["fraction"] == 0.5
    changed = [name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[0].state_dict()[name])]
    assert changed
    generator, drawn = load_generator(finished / GENERATOR)
    assert generator.config == TINY
    assert drawn["scale"] == 30.0
    assert read_meta(finished / DISCRIMINATOR)["config"]["width"] == 4


def test_going_on_gives_what_an_unbroken_run_gives(
    finished: Path, data: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the third step, between two checkpoints, and again in the fourth, which is the generator's."""
    from training.semi.players import Players

    retrieve, generate, calls = Players.retrieve, Players.generate, []

    def stopped(method: object, at: int) -> object:
        def call(self: Players, *given: object) -> object:
            calls.append(at)
            if len(calls) == at:
                os.kill(os.getpid(), signal.SIGINT)
            return method(self, *given)  # type: ignore[operator]

        return call

    with monkeypatch.context() as once:
        once.setattr(Players, "retrieve", stopped(retrieve, 2))
        once.setattr(Players, "generate", stopped(generate, 3))
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                train(semi_config(tmp_path), data, tmp_path, start)
    assert calls == [2, 2, 3]
    assert read_meta(tmp_path / STATE)["progress"]["step"] == 4
    train(semi_config(tmp_path), data, tmp_path, start)
    unbroken, again = load_file(finished / STATE), load_file(tmp_path / STATE)
    assert unbroken.keys() == again.keys()
    for name, tensor in unbroken.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    assert any(name.startswith("moments/generator/") for name in unbroken)
    rows, others = read_log(finished), read_log(tmp_path)
    for name in ("mean/mrr", "held/real", "held/percentile", "loss/F"):
        assert [row.get(name) for row in others] == pytest.approx([row.get(name) for row in rows]), name


def test_another_start_or_configuration_cannot_go_on(finished: Path, data: Path, start: Start, tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match=r"reward\.policy was 10\.0 and is 1\.0; give the old value or another --out"):
        train(semi_config(tmp_path, ("reward.policy=1.0",)), data, finished, start)
    other = Start(start.retrieval, write_generator(tmp_path / "other.safetensors"))
    weights = load_file(other.generator)
    assert read_meta(other.generator) == read_meta(start.generator)
    from training.checkpoint import save_tensors

    save_tensors(other.generator, {**weights, "output.bias": weights["output.bias"] + 1}, read_meta(other.generator))
    with pytest.raises(ResumeError, match=r"start\.generator was "):
        train(semi_config(tmp_path), data, finished, other)
    train(semi_config(tmp_path, ("run.every=3",)), data, finished, start)  # nothing that is computed


def test_folders_of_a_configuration_are_the_same_after_a_file(tmp_path: Path) -> None:
    """Tuples come back from JSON as lists, in tables within tables too."""
    config = {"unlabelled": {"folders": {"chairs": ("a", "b")}}, "arms": ("full",)}
    check_same(json.loads(json.dumps(config)), config, tmp_path)
    with pytest.raises(ResumeError, match=r"unlabelled\.folders\.chairs was \['a', 'b'\] and is \['a'\]"):
        check_same(json.loads(json.dumps(config)), {**config, "unlabelled": {"folders": {"chairs": ("a",)}}}, tmp_path)


def test_what_does_not_train_stays(finished: Path, start: Start) -> None:
    """The teacher is the supervised network, and a fixed backbone of the generator is as it was."""
    state = load_file(finished / STATE)
    encoder, head, _ = load_model(start.retrieval)
    for part, module in (("encoder", encoder), ("head", head)):
        for name, tensor in module.state_dict().items():
            assert torch.equal(state[f"teacher/{part}.{name}"], tensor), name
    before, after = load_file(start.generator), load_file(finished / GENERATOR)
    assert {name for name in before if name.startswith("backbone.") and not torch.equal(before[name], after[name])} == set()
    assert not torch.equal(before["output.weight"], after["output.weight"])
    assert not any(name.startswith("generator/backbone.") for name in state)


ARM_SETTINGS = [
    ("retrieval.weights='none'", "retrieval.distillation=0", "alternation.generator=0", "alternation.warmup=0"),
    ("retrieval.generated=0", "retrieval.distillation=0", "alternation.generator=0", "alternation.warmup=0"),
    ("discriminator.fakes='both'", "discriminator.mismatched=1", "discriminator.target='patch'", "discriminator.smoothing=0.1"),
    ("discriminator.fakes='labelled'", "reward.baseline='batch-mean'", "reward.per_row=true", "reward.negatives='mean'"),
    ("retrieval.weights='relative'", "generator.loss.mask='released'", "run.precision='bf16-mixed'", "pca.refit=true"),
]


@pytest.mark.parametrize("settings", ARM_SETTINGS)
def test_every_option_runs(settings: tuple[str, ...], data: Path, start: Start, tmp_path: Path) -> None:
    figures = train(semi_config(tmp_path, (*settings, "run.steps=4", "run.every=4", "pca.batches=2")), data, tmp_path, start)
    assert math.isfinite(figures["mean/mrr"])
    last = read_log(tmp_path)[-1]
    fixed, alone = "alternation.generator=0" in settings, "retrieval.generated=0" in settings
    assert ("loss/policy" in last) == (not fixed)
    assert ("loss/generated" in last) == (not alone)
    assert ("loss/D" in last) == (not fixed)
    assert ("loss/distillation" in last) == (not fixed)


def test_a_generator_whose_backbone_trains_and_that_knows_places_runs_too(data: Path, start: Start, tmp_path: Path) -> None:
    config = replace(TINY, train_backbone=True, positions=True)
    given = Start(start.retrieval, write_generator(tmp_path / "trained.safetensors", config))
    train(semi_config(tmp_path, ("run.steps=4", "run.every=4")), data, tmp_path, given)
    before, after = load_file(given.generator), load_file(tmp_path / GENERATOR)
    assert any(name.startswith("backbone.") and not torch.equal(before[name], after[name]) for name in before)


def test_what_is_wrong_is_named_before_training(data: Path, start: Start, tmp_path: Path) -> None:
    for settings, message in (
        (("unlabelled.folders={boxes=['x']}",), "unlabelled.folders names the source 'boxes'; there are shapes"),
        (("run.score='mean/map'",), r"run\.score is 'mean/map'; there are shapes/acc@1, "),
    ):
        with pytest.raises(ConfigError, match=message):
            train(semi_config(tmp_path, settings), data, tmp_path / "out", start)
    with pytest.raises(
        ConfigError, match=r"none\.safetensors: there is no such checkpoint; train it with training\.supervised or"
    ):
        train(semi_config(tmp_path), data, tmp_path / "out", Start(start.retrieval, tmp_path / "none.safetensors"))


@pytest.mark.slow
def test_the_command(data: Path, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "semi.toml"
    path.write_text(SEMI)
    command = [sys.executable, "-m", "training.semi_supervised", "--config", str(path), "--data", str(data)]
    command += ["--generator", str(start.generator), "--retrieval", str(start.retrieval), "--out", str(tmp_path / "run")]
    ran = subprocess.run([*command, "--set", "run.steps=2"], capture_output=True, text=True, check=True)
    assert "shapes/acc@1" in json.loads(ran.stdout)
    failed = subprocess.run([*command, "--set", "run.stepps=1"], capture_output=True, text=True, check=False)
    assert failed.returncode == ConfigError.exit_code
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no distributed package")
def test_two_processes_stop_together_and_go_on(data: Path, start: Start, tmp_path: Path) -> None:
    """The signal goes to the first process alone; what goes on comes to what a run without a stop comes to."""
    path = tmp_path / "semi.toml"
    path.write_text(SEMI)
    command = [sys.executable, "-m", "training.semi_supervised", "--config", str(path), "--data", str(data)]
    command += ["--generator", str(start.generator), "--retrieval", str(start.retrieval)]
    command += ["--set", "run.devices=2", "--set", "run.accelerator='cpu'"]
    out, whole = tmp_path / "stopped", tmp_path / "whole"
    with subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 240
        while len(read_log(out)) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=240)
    assert process.returncode != 0, errors.decode()
    assert 2 <= read_meta(out / STATE)["progress"]["step"] < 5
    for folder in (out, whole):
        ran = subprocess.run([*command, "--out", str(folder)], capture_output=True, text=True, check=True)
        assert "shapes/acc@1" in json.loads(ran.stdout)  # printed once
        assert [row["step"] for row in read_log(folder)] == [0, 2, 4, 5]
    again, unbroken = load_file(out / STATE), load_file(whole / STATE)
    assert again.keys() == unbroken.keys()
    for name, tensor in unbroken.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
