"""What is installed, what is missing and whether that matters: ``fgsbir-edge doctor``."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import sys
from dataclasses import asdict
from importlib import metadata
from typing import Any

from fgsbir_edge import jetson
from fgsbir_edge.console import by_reason
from fgsbir_edge.errors import FgsbirError

REQUIRED = ("numpy", "onnxruntime", "pillow", "safetensors", "tqdm")
OPTIONAL = {
    "svgelements": "SVG files with curves or transforms; pip install 'fgsbir-edge[svg]'",
    "fastapi": "the drawing page and the HTTP API; pip install 'fgsbir-edge[serve]'",
    "uvicorn": "the same",
    "torch": "training and export only, from a checkout",
}
# Several packages have one module; each is asked for by what it is for.
GPU_LIBRARIES = {
    "tensorrt": (
        ("tensorrt",),
        "fastest on a Jetson; JetPack has it (apt install python3-libnvinfer), and a virtual environment sees it if made with "
        "--system-site-packages",
    ),
    "cupy": (
        ("cupy", "cupy-cuda12x", "cupy-cuda13x"),
        "arrays in and out on the GPU, TensorRT without device code of our own, search on the GPU; pip install cupy-cuda12x on "
        "JetPack 6, cupy-cuda13x on JetPack 7",
    ),
    "pycuda": (
        ("pycuda",),
        "applications that own a PyCUDA context; pip install pycuda, compiled on the spot with the CUDA toolkit",
    ),
}
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")  # packages of one module: the one installed last wins


def examine(gallery: str | None = None) -> dict[str, Any]:
    """Facts about this installation, and a gallery's file, as plain JSON values; ``healthy`` is whether a search would run."""
    import fgsbir_edge

    native, bundle = _native(), _bundle()
    packages = {name: _version(name) for name in REQUIRED}
    packages["onnxruntime"] = packages["onnxruntime"] or _version("onnxruntime-gpu")
    providers, checked = _providers(), {} if gallery is None else {"gallery": _gallery(gallery)}
    installed = "error" not in native and "error" not in bundle and all(packages.values()) and bool(providers)
    return {
        "healthy": installed and not any(found["faults"] for found in checked.values()),
        "fgsbir_edge": getattr(fgsbir_edge, "__version__"),  # noqa: B009 - lazy attribute, unknown to type checkers
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": packages,
        "native": native,
        "gpu": _gpu(),
        "onnxruntime_providers": providers,
        "onnxruntime_packages": [name for name in RUNTIMES if _version(name)],
        "backends": _backends() if providers else {},
        "search": _search(),
        "gpu_libraries": {name: _library(name) for name in GPU_LIBRARIES},
        "chosen": _chosen(),
        "jetson": jetson.state(),
        "default_bundle": bundle,
        "optional": {name: {"version": _version(name), "for": purpose} for name, purpose in OPTIONAL.items()},
        **checked,
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
    if len(facts["onnxruntime_packages"]) > 1:
        lines.append(f"              {' and '.join(facts['onnxruntime_packages'])} are both installed: pip uninstall one of them")
    lines += [f"backend       {name}: can be tried" for name, reason in facts["backends"].items() if not reason]
    lines += [f"backend       {names}: {reason}" for names, reason in by_reason(facts["backends"]) if reason]
    lines += [f"search        {name}: {reason or 'can be used'}" for name, reason in facts["search"].items()]
    lines += [f"{name:<13} {entry['problem'] or entry['version']}" for name, entry in facts["gpu_libraries"].items()]
    lines.append(f"in use        {facts['chosen'] or 'onnx-cpu fp32; fgsbir-edge bench finds the fastest backend and keeps it'}")
    if facts["jetson"] is not None:
        found = facts["jetson"]
        lines.append(f"Jetson        {found['model']}, L4T {found['l4t']}, power mode {found['power_mode']}")
    lines.append(f"bundle        {bundle.get('error') or ', '.join(f'{key} {value}' for key, value in bundle.items())}")
    lines += [f"{name:<13} {entry['version'] or 'not installed'} ({entry['for']})" for name, entry in facts["optional"].items()]
    lines += _gallery_lines(facts["gallery"]) if "gallery" in facts else []
    lines.append("all is well" if facts["healthy"] else "something is wrong: see the lines in capitals or with 'error' above")
    return "\n".join(lines)


def _backends() -> dict[str, str]:
    """Why each backend cannot be tried; empty: it can, and ``--selftest`` or ``bench`` does."""
    from fgsbir_edge.encoder.backends import BACKENDS, missing

    return {name: missing(name) for name in BACKENDS}


def _gallery(path: str) -> dict[str, Any]:
    """What ``fgsbir-edge gallery check`` finds; a file that is no gallery is one fault."""
    from fgsbir_edge.gallery.check import CheckReport, check

    try:
        return asdict(check(path))
    except FgsbirError as error:
        return asdict(CheckReport(path, faults=[str(error)]))


def _gallery_lines(found: dict[str, Any]) -> list[str]:
    if not found["faults"]:
        return [f"gallery       {found['path']}: {found['photos']} photos, {found['people']} people, no fault found"]
    remedy = f"fgsbir-edge gallery repair {found['path']} NEW saves what can be read"
    return [*(f"gallery       ERROR: {fault}" for fault in found["faults"]), f"              restore a copy, or {remedy}"]


def _search() -> dict[str, str]:
    """Why galleries cannot be searched by a backend; empty: they can. Neither faiss nor CuPy is imported."""
    from fgsbir_edge.inner import native

    problems = {"native": "", "numpy": "", "faiss": "", "cupy": ""}
    try:
        if not hasattr(native(), "top_products"):
            problems["native"] = "the compiled core is older than this package: pip install . again"
    except FgsbirError:
        problems["native"] = "no compiled core, see above"
    if importlib.util.find_spec("faiss") is None:
        problems["faiss"] = "not installed (8-bit indexes); pip install 'fgsbir-edge[search]'"
    gpu = _gpu()
    if _library("cupy")["problem"] is not None:
        problems["cupy"] = "CuPy is not installed, see below"
    elif isinstance(gpu, str):
        problems["cupy"] = gpu
    return problems


def _library(name: str) -> dict[str, str | None]:
    """Version of a library for GPUs, or what is missing and the remedy. Nothing is imported."""
    packages, use = GPU_LIBRARIES[name]
    version = next((found for found in map(_version, packages) if found), None)
    there = version is not None or importlib.util.find_spec(name) is not None  # JetPack's modules are no pip packages
    return {"version": version or ("installed" if there else None), "problem": None if there else f"not installed ({use})"}


def _chosen() -> str | None:
    """What ``fgsbir-edge bench`` chose for the bundle in the package."""
    from fgsbir_edge.bundle import Bundle
    from fgsbir_edge.encoder.choose import stored

    try:
        choice = stored(Bundle.default().for_sketches)
    except FgsbirError:
        return None
    return None if choice is None else f"{choice.setting.name}, chosen by fgsbir-edge bench on {choice.chosen}"


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
        "sketch encoder": "the same" if bundle.sketch is None else bundle.sketch.encoder_sha256[:12],
        "head": head.digest[:12],
    }


def _providers() -> list[str]:
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    return list(importlib.import_module("onnxruntime").get_available_providers())
