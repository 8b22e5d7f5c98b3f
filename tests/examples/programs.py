"""The programs under examples/, as tests need them: built C++, and Python files that are no package."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def load(path: Path) -> ModuleType:
    """A Python file of the examples, imported by its path under the name of its stem."""
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cmake() -> list[str]:
    """The command, or the test is skipped by name; that of the environment's own pip package comes first."""
    found = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None or not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
        pytest.skip("cmake or a C++ compiler is not installed: examples/cpp is not built")
    return [found]


def ran(words: list[str]) -> str:
    """What a command printed; a failure shows all of it."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_core(work: Path) -> Path:
    """The core, built and installed; its prefix. Objects of an earlier run are used again."""
    ran([*cmake(), "-S", str(ROOT), "-B", str(work / "core"), "-DFGSBIR_CUDA=OFF", "-DCMAKE_BUILD_TYPE=Release"])
    ran([*cmake(), "--build", str(work / "core")])
    ran([*cmake(), "--install", str(work / "core"), "--component", "core", "--prefix", str(work / "prefix")])
    return work / "prefix"


def build_robot(prefix: Path, folder: Path, *options: str) -> Path:
    """examples/cpp built against an installed core; the program."""
    ran([*cmake(), "-S", str(EXAMPLES / "cpp"), "-B", str(folder), f"-DCMAKE_PREFIX_PATH={prefix}", *options])
    ran([*cmake(), "--build", str(folder)])
    return folder / "fgsbir_robot"
