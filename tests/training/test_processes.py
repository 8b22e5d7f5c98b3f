"""Processes that work together leave one another in order, however they end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no distributed package"),
]
SCRIPT = """
import atexit, sys, torch
from pathlib import Path
from lightning_fabric import Fabric
from training.processes import launch

fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")

def note():
    Path(sys.argv[2], str(fabric.global_rank)).write_text("still joined" if torch.distributed.is_initialized() else "has left")

atexit.register(note)  # registered first, so called last
launch(fabric)
fabric.barrier()
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize("code", [0, 3])
def test_all_have_left_when_they_end(tmp_path: Path, code: int) -> None:
    script = tmp_path / "joined.py"
    script.write_text(SCRIPT)
    notes = tmp_path / "notes"
    notes.mkdir()
    done = subprocess.run([sys.executable, str(script), str(code), str(notes)], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    assert (notes / "0").read_text() == "has left"
    assert {note.read_text() for note in notes.iterdir()} - {""} == {"has left"}  # the other may be stopped when the first fails
