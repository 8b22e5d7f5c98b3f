"""Freed memory stays with the process: the same large block taken again brings no fresh pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import numpy as np
from training.memory import keep_freed_memory
assert keep_freed_memory() or not int(sys.argv[1])
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = np.ones(8_000_000)  # 64 MB: the C library would give it back to the system
    del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_large_block_is_kept_for_the_next() -> None:
    kept = int(subprocess.run([sys.executable, "-c", SCRIPT, "1"], capture_output=True, text=True, check=True).stdout)
    forgetful = SCRIPT.replace("assert keep_freed_memory() or not int(sys.argv[1])", "")
    fresh = int(subprocess.run([sys.executable, "-c", forgetful, "0"], capture_output=True, text=True, check=True).stdout)
    assert kept < 100 < fresh
