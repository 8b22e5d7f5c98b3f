"""What a gallery's file costs: photos written a second, time to open it, memory with one index, each in a process of its own.

``python -m benchmarks.search_store TASK ARGUMENTS`` is one such process; ``search.py`` starts them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fgsbir_edge.arrays import frozen
from fgsbir_edge.gallery import Gallery
from fgsbir_edge.gallery.flat import SearchOptions
from fgsbir_edge.gallery.store import PhotoFile, Store
from fgsbir_edge.head import Head

FEATURES, WIDTH = 512, 64
BATCH = 32  # photos a transaction, as when a folder is indexed
LARGE_BATCH = 4096  # where many photos are only to be there
WRITTEN = 4_096
THUMBNAIL = 2_500  # bytes, about what a photo's has
ENCODED = 64
SETTINGS = {
    "float32": SearchOptions(),
    "float16": SearchOptions(storage="float16"),
    "int8, faiss": SearchOptions(backend="faiss", storage="int8"),
}


def store_figures(sizes: list[int]) -> dict[str, Any]:
    """Everything, for galleries of so many photos."""
    with tempfile.TemporaryDirectory() as folder:
        figures, memory = {**child("write", folder), **child("encode")}, []
        for photos in sizes:
            path = str(Path(folder) / f"{photos}.gallery")
            filled = child("fill", path, str(photos))
            memory += [{**filled, **child("load", path, name)} for name in SETTINGS]
            Path(path).unlink()
    return {"store": {"features": FEATURES, "embedding": WIDTH, **figures}, "memory": memory}


def child(*words: str) -> dict[str, Any]:
    """What a process of its own prints."""
    command = [sys.executable, "-m", "benchmarks.search_store", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def write(folder: str) -> dict[str, Any]:
    """Photos a second into a new file, features and thumbnails given, every 32 synced to the disk."""
    seconds = _filled(Path(folder) / "written.gallery", WRITTEN, BATCH, THUMBNAIL)
    return {"written_per_second": round(WRITTEN / seconds)}


def encode() -> dict[str, Any]:
    """Photos a second of the processor's time through the released encoder on one thread, from pixels."""
    from fgsbir_edge.engine import Engine
    from fgsbir_edge.gallery.store import MEMORY

    with Engine.open(gallery=MEMORY, create=True, threads=1, backend="onnx-cpu") as engine:
        side = engine.input.size
        images = list(np.random.default_rng(0).integers(0, 255, (ENCODED, side, side, 3), np.uint8))
        engine.encode_pixels(images[:8])
        began = time.process_time()
        for first in range(0, ENCODED, BATCH):
            engine.encode_pixels(images[first : first + BATCH])
        return {"encoded_per_second": round(ENCODED / (time.process_time() - began), 1)}


def fill(path: str, photos: str) -> dict[str, Any]:
    """The file that is opened afterwards, with small thumbnails, and its size."""
    _filled(Path(path), int(photos), LARGE_BATCH, 16)
    return {"file_mib": round(Path(path).stat().st_size / 2**20)}


def load(path: str, name: str) -> dict[str, Any]:
    """Seconds to open and read the file, and to the first answer, which makes the index, and memory after each.

    Seconds of the processor besides: on a busy machine the others say more of it than of the gallery.
    """
    before = _resident()
    began, busy = time.perf_counter(), time.process_time()
    with Gallery.open(path, None, readonly=True) as gallery:
        gallery.search_options = SETTINGS[name]
        count = len(gallery.index.entries)
        opened, opened_busy, read = time.perf_counter() - began, time.process_time() - busy, _resident()
        gallery.search(np.ones((1, FEATURES), np.float32), 10, head=_head())
        ready, ready_busy, searched = time.perf_counter() - began, time.process_time() - busy, _resident()
    figures = {"storage": name, "photos": count, "open_s": round(opened, 2), "ready_s": round(ready, 2)}
    figures |= {"open_cpu_s": round(opened_busy, 2), "ready_cpu_s": round(ready_busy, 2)}
    return {**figures, "start_mib": before, "read_mib": read, "searched_mib": searched, "peak_mib": _resident("VmHWM")}


def _filled(path: Path, photos: int, batch: int, thumbnail: int) -> float:
    """Seconds to write a gallery of random features."""
    rng, seconds = np.random.default_rng(0), 0.0
    store = Store.create(str(path), "0" * 64, FEATURES)
    picture = rng.bytes(thumbnail)
    for first in range(0, photos, batch):
        numbers = range(first, min(first + batch, photos))
        features = rng.standard_normal((len(numbers), FEATURES), dtype=np.float32)
        files = [PhotoFile(f"{i:07d}.jpg", None, f"/photos/{i:07d}.jpg", 100_000, i, f"{i:064x}") for i in numbers]
        began = time.perf_counter()
        store.add(files, [picture] * len(files), features)
        seconds += time.perf_counter() - began
    store.close()
    return seconds


def _head() -> Head:
    rng = np.random.default_rng(1)
    return Head(frozen(rng.normal(size=(WIDTH, FEATURES)) / FEATURES**0.5), frozen(np.zeros(WIDTH)), frozen([0.2]))


def _resident(field: str = "VmRSS") -> int:
    """MiB of memory in use, or at its highest (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(field))


TASKS: dict[str, Callable[..., dict[str, Any]]] = {"write": write, "encode": encode, "fill": fill, "load": load}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(TASKS[sys.argv[1]](*sys.argv[2:])) + "\n")
