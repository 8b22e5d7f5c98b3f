"""Which room may know which: the runtime stands alone, and lower rooms never import higher ones."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUNTIME = sorted((ROOT / "fgsbir_edge").rglob("*.py"))
FORBIDDEN = {"torch", "training", "export", "benchmarks", "tests", "scipy", "onnx"}
# a module of the first name may not import one of the others
LOWER_THAN = {
    "errors": ("sketch", "formats", "photo", "raster", "head", "adapt", "gallery", "engine", "cli"),
    "sketch": ("formats", "photo", "raster", "head", "adapt", "encoder", "gallery", "engine", "cli"),
    "formats": ("raster", "head", "adapt", "encoder", "gallery", "engine", "cli"),
    "photo": ("formats", "raster", "head", "adapt", "encoder", "gallery", "engine", "cli"),
    "raster": ("head", "adapt", "encoder", "gallery", "engine", "cli"),
    "head": ("raster", "sketch", "photo", "encoder", "gallery", "engine", "cli"),
    "adapt": ("raster", "sketch", "photo", "encoder", "gallery", "engine"),
    "encoder": ("sketch", "raster", "adapt", "gallery", "engine", "cli"),
    "gallery": ("adapt", "engine", "cli"),
    "engine": ("cli", "adapt_cli"),
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", RUNTIME, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_runtime_imports_neither_torch_nor_training(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & FORBIDDEN


@pytest.mark.parametrize("room", sorted(LOWER_THAN))
def test_lower_rooms_do_not_import_higher_ones(room: str) -> None:
    own = [ROOT / "fgsbir_edge" / f"{room}.py", *(ROOT / "fgsbir_edge" / room).rglob("*.py")]
    files = [path for path in own if path.is_file()]
    assert files
    higher = {f"fgsbir_edge.{name}" for name in LOWER_THAN[room]}
    for path in files:
        used = {".".join(name.split(".")[:2]) for name in imports(path)}
        if room == "adapt":
            used.discard("fgsbir_edge.adapt_cli")  # `python -m fgsbir_edge.adapt` starts it, nothing else does
        assert not used & higher, path


def test_engine_imports_without_torch_scipy_or_onnx() -> None:
    script = (
        "import sys\n"
        f"for name in {sorted(FORBIDDEN)}: sys.modules[name] = None\n"
        "import fgsbir_edge.engine, fgsbir_edge.cli, fgsbir_edge.encoder.onnx\n"
        "from fgsbir_edge import Engine\n"
        "assert Engine.open\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_start_is_light() -> None:
    """`import fgsbir_edge` loads neither NumPy nor ONNX Runtime; what it offers is loaded when it is asked for."""
    script = "import sys, fgsbir_edge; sys.exit(bool({'numpy', 'onnxruntime', 'PIL'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_shipped_model_and_demo_are_small() -> None:
    shipped = [path for part in ("models", "demo") for path in (ROOT / "fgsbir_edge" / part).rglob("*") if path.is_file()]
    assert shipped
    assert sum(path.stat().st_size for path in shipped) <= 15e6
