"""Training on two processes of a CPU, and events for TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.training.recipe import RECIPE
from training.checkpoint import read_meta
from training.journal import Journal, read_log
from training.run_state import STATE

pytestmark = [pytest.mark.torch]
STEPS = 30


@pytest.fixture(scope="module")
def command(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("devices")
    (root / "shapes").symlink_to(shapes)
    (root / "run.toml").write_text(RECIPE)
    settings = [f"run.steps={STEPS}", "run.every=2", "run.devices=2", "run.accelerator='cpu'", "data.pairs=2"]
    words = [sys.executable, "-m", "training.supervised", "--config", str(root / "run.toml"), "--data", str(root)]
    return [*words, "--weights", "random", *(word for setting in settings for word in ("--set", setting))]


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no distributed package")
def test_two_processes_stop_together_and_go_on_as_if_they_had_not(command: list[str], tmp_path: Path) -> None:
    """The signal goes to the first process alone."""
    out = tmp_path / "stopped"
    with subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while not read_log(out) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode != 0, errors.decode()
    assert 0 < read_meta(out / STATE)["progress"]["step"] < STEPS
    for folder in (out, tmp_path / "whole"):
        ran = subprocess.run([*command, "--out", str(folder)], capture_output=True, text=True, check=True)
        assert "mean/mrr" in json.loads(ran.stdout)
    from safetensors.torch import load_file

    again, unbroken = load_file(out / STATE), load_file(tmp_path / "whole" / STATE)
    for name, tensor in unbroken.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_tensorboard_reads_what_the_journal_writes(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0, tensorboard=True)
    for step in (1, 2, 3):
        journal.add({"step": step, "loss": 1.0 / step})
    Journal(tmp_path, 2, tensorboard=True).add({"step": 3, "loss": 9.0})  # taken up again at step 2
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(item.step, round(item.value, 3)) for item in events.Scalars("loss")] == [(1, 1.0), (2, 0.5), (3, 9.0)]
