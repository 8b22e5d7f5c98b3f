"""Processes that work together: started by Fabric, and leaving one another in order."""

from __future__ import annotations

import atexit
from typing import Any

import torch


def launch(fabric: Any) -> None:
    """Start a Fabric's processes; whatever ends them, they take leave of the others first.

    Fabric sees to that for NCCL alone. With Gloo a process that just ends now and then aborts ("terminate called without an
    active exception"): its threads are still running when they are destroyed.
    """
    fabric.launch()
    if fabric.world_size > 1:
        atexit.register(_leave)


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
