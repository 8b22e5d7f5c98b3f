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
from lightning_fabric import Fabric
from training.processes import launch

fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
# registered first, so called last
atexit.register(lambda: print(fabric.global_rank, "still joined" if torch.distributed.is_initialized() else "has left"))
launch(fabric)
fabric.barrier()
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize("code", [0, 3])
def test_all_have_left_when_they_end(tmp_path: Path, code: int) -> None:
    script = tmp_path / "joined.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script), str(code)], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    assert "0 has left" in done.stdout
    assert "still joined" not in done.stdout
