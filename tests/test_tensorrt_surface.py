"""What the code asks of TensorRT exists, under the same name, in every release from 10.3 to 11.4."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from tests.fake_tensorrt_builder import SURFACE

ENCODER = Path(__file__).parents[1] / "fgsbir_edge" / "encoder"
FILES = sorted({*ENCODER.glob("trt_*.py"), *ENCODER.glob("tensorrt*.py")})
RTX_ALONE = {"ComputeCapability"}  # reached only with BuildOptions.targets, which only TensorRT-RTX takes
RTX_FUNCTION = "_aim"
# what a variable of this name is, in the files above
KINDS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "tensor": "ITensor",
    "cache": "ITimingCache",
    "failure": "ParserError",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
}
BUILT_IN = {"__init__", "__members__", "name", "Severity"}


def chain(node: ast.AST) -> list[str]:
    """["a", "b", "c"] of the expression a.b.c, or of self._a.b.c; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return []
    return [parts[0].removeprefix("_"), *parts[1:]] if parts and node.id == "self" else [node.id, *parts]


def after_module(parts: list[str]) -> list[str]:
    """What follows ``trt`` in a chain such as library.trt.Builder."""
    return parts[parts.index("trt") + 1 :] if "trt" in parts else []


def uses(source: str) -> tuple[set[tuple[str, ...]], set[tuple[str, str]]]:
    """Names asked of the module, and (class, member) asked of its objects, leaving out what is for TensorRT-RTX alone."""
    tree = ast.parse(source)
    names: set[tuple[str, ...]] = set()
    members: set[tuple[str, str]] = set()
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        if function.name == RTX_FUNCTION:
            continue
        short: dict[str, list[str]] = {}  # local = trt.Something
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and after_module(chain(node.value)):
                short[node.targets[0].id] = after_module(chain(node.value))
        for node in ast.walk(function):
            parts = chain(node)
            if not isinstance(node, ast.Attribute) or len(parts) < 2:
                continue
            asked = after_module(parts) or (short[parts[0]] + parts[1:] if parts[0] in short else [])
            if asked:
                names.add(tuple(asked))
            elif parts[0] in KINDS:
                members.add((KINDS[parts[0]], parts[1]))
    return names, members


def missing(names: set[tuple[str, ...]], members: set[tuple[str, str]], surface: dict[str, Any]) -> list[str]:
    """What of these a release lacks."""
    lacking = []
    for name in sorted(names):
        top, *rest = name
        if top.startswith("__"):
            continue
        known = surface["enums"].get(top) or surface["classes"].get(top)
        if known is None or any(one not in known for one in rest[:1] if one not in BUILT_IN):
            lacking.append(".".join(name))
    lacking += [f"{kind}.{member}" for kind, member in sorted(members) if member not in surface["classes"][kind]]
    return lacking


@pytest.mark.parametrize("version", SURFACE)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_name_is_in_every_release(path: Path, version: str) -> None:
    names, members = uses(path.read_text(encoding="utf-8"))
    assert not missing(names, members, SURFACE[version])


def test_the_builder_is_looked_at() -> None:
    """The search finds what is known to be there, or the test above would say nothing."""
    names, members = uses((ENCODER / "trt_build.py").read_text(encoding="utf-8"))
    assert ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") in names
    assert ("ProfilingVerbosity", "DETAILED") in names  # through a short local name
    assert {("OnnxParser", "supports_model_v2"), ("IBuilderConfig", "progress_monitor"), ("ParserError", "desc")} <= members
    assert {kind for kind, _ in members} >= {"Builder", "INetworkDefinition", "IOptimizationProfile", "ITensor"}


@pytest.mark.parametrize(
    ("source", "lacking"),
    [
        ("config.set_flag(trt.BuilderFlag.FP16)", {"11.4.0.106"}),
        ("flags = trt.BuilderFlag\n    flags.INT8", {"11.4.0.106"}),
        ("parser.supports_model(b'')", {"11.4.0.106"}),
        ("config.tiling_optimization_level = 1", {"10.3.0"}),
        ("self._engine.device_memory_size", {"11.4.0.106"}),
        ("library.trt.IInt8Calibrator", set(SURFACE)),
        ("trt.ComputeCapability.SM86", set(SURFACE)),
    ],
)
def test_names_of_some_releases_are_found_out(source: str, lacking: set[str]) -> None:
    names, members = uses(f"def build():\n    {source}\n")
    assert {version for version in SURFACE if missing(names, members, SURFACE[version])} == lacking


def test_rtx_names_are_in_their_function_alone() -> None:
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {id(node) for top in ast.walk(tree) if getattr(top, "name", "") == RTX_FUNCTION for node in ast.walk(top)}
        found = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in RTX_ALONE]
        assert all(id(node) in inside for node in found)


def test_no_enumeration_value_is_spelled_out() -> None:
    """No whole number is handed to a method of TensorRT's objects but an index, a size or an option."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and chain(node.func)[:1] and chain(node.func)[0] in KINDS:
                assert not any(isinstance(argument, ast.Constant) and type(argument.value) is int for argument in node.args)
