"""What is installed, what is missing and whether that matters: ``fgsbir-edge doctor``."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import sys
from importlib import metadata
from typing import Any

from fgsbir_edge.errors import FgsbirError

REQUIRED = ("numpy", "onnxruntime", "pillow", "safetensors", "tqdm")
OPTIONAL = {
    "svgelements": "SVG files with curves or transforms; pip install 'fgsbir-edge[svg]'",
    "tensorrt": "not used by this release; comes with JetPack",
    "torch": "training and export only, from a checkout",
}


def examine() -> dict[str, Any]:
    """Facts about this installation as plain JSON values; ``healthy`` is whether a search would run."""
    import fgsbir_edge

    native, bundle = _native(), _bundle()
    packages = {name: _version(name) for name in REQUIRED}
    providers = _providers()
    return {
        "healthy": "error" not in native and "error" not in bundle and all(packages.values()) and bool(providers),
        "fgsbir_edge": getattr(fgsbir_edge, "__version__"),  # noqa: B009 - lazy attribute, unknown to type checkers
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": packages,
        "native": native,
        "gpu": _gpu(),
        "onnxruntime_providers": providers,
        "default_bundle": bundle,
        "optional": {name: {"version": _version(name), "for": purpose} for name, purpose in OPTIONAL.items()},
    }


def report(facts: dict[str, Any]) -> str:
    """The same for a person, a line each."""
    lines = [f"fgsbir-edge   {facts['fgsbir_edge']}, Python {facts['python']}, {facts['platform']}"]
    lines += [f"{name:<13} {version or 'MISSING; pip install ' + name}" for name, version in facts["packages"].items()]
    native, bundle = facts["native"], facts["default_bundle"]
    lines.append(
        f"native core   {native.get('error') or ', '.join(f'{key} {value}' for key, value in native.items() if value != '')}"
    )
    lines += [f"GPU           {line}" for line in _gpu_lines(facts["gpu"])]
    lines.append(f"providers     {', '.join(facts['onnxruntime_providers']) or 'NONE'}")
    lines.append(f"bundle        {bundle.get('error') or ', '.join(f'{key} {value}' for key, value in bundle.items())}")
    lines += [f"{name:<13} {entry['version'] or 'not installed'} ({entry['for']})" for name, entry in facts["optional"].items()]
    lines.append("all is well" if facts["healthy"] else "something is wrong: see the lines in capitals or with 'error' above")
    return "\n".join(lines)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _native() -> dict[str, Any]:
    from fgsbir_edge.inner import native

    try:
        return dict(native().build_info())
    except FgsbirError as error:
        return {"error": f"ERROR: {error}"}


def _gpu() -> list[dict[str, Any]] | str:
    """The GPUs, each with what keeps the kernels from running on it, or why there is none. A search does without."""
    from fgsbir_edge.inner import native

    try:
        found: list[dict[str, Any]] | str = native().cuda_devices(probe=True)
    except FgsbirError as error:
        return str(error)
    return found


def _gpu_lines(found: list[dict[str, Any]] | str) -> list[str]:
    if isinstance(found, str):
        return [f"not used: {found}"]
    return [
        f"{gpu['name']}, compute capability {gpu['compute_capability']}, {gpu['memory'] / 2**30:.1f} GiB, "
        f"{gpu['multiprocessors']} multiprocessors: {gpu['problem'] or 'kernels run'}"
        for gpu in found
    ]


def _bundle() -> dict[str, Any]:
    from fgsbir_edge.bundle import Bundle

    try:
        bundle = Bundle.default()
    except FgsbirError as error:
        return {"error": f"ERROR: {error}"}
    head = bundle.head
    return {
        "name": bundle.name,
        "size": bundle.input.size,
        "features": head.features,
        "embedding": head.embedding,
        "encoder": bundle.encoder_sha256[:12],
        "head": head.digest[:12],
    }


def _providers() -> list[str]:
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    return list(importlib.import_module("onnxruntime").get_available_providers())
