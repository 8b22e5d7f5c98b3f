"""An engine behind threads: its gallery stays on one, as SQLite asks; sketches are encoded on others where the encoder allows it.

Encoding takes milliseconds and needs no gallery; the rest takes a tenth of one and does. So requests meet on the gallery's thread
only for that tenth, in the order in which their sketches are ready. A GPU's encoder belongs to the thread that opened it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fgsbir_edge.arrays import Float32
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.engine import Engine
from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.serve.options import WAITING
from fgsbir_edge.serve.problems import Problem
from fgsbir_edge.sketch import Sketch

T = TypeVar("T")


class Worker:
    """Runs functions on an engine for coroutines of one event loop. Close it in the end."""

    def __init__(self, open_engine: Callable[[], Engine], workers: int = 1, waiting: int = WAITING) -> None:
        """``open_engine`` is called on the gallery's thread. Raises what it raises."""
        self._gallery = ThreadPoolExecutor(1, "gallery")
        self._waiting, self._limit = 0, waiting
        try:
            self._engine = self._gallery.submit(open_engine).result()
        except BaseException:
            self._gallery.shutdown()
            raise
        self.parallel = type(self._engine.sketch_encoder) is OnnxEncoder
        self._encoders = ThreadPoolExecutor(workers, "encode") if self.parallel else self._gallery

    async def run(self, function: Callable[[Engine], T]) -> T:
        """``function(engine)`` on the gallery's thread. Raises what it raises, and a Problem where too many wait."""
        return await self._on(self._gallery, lambda: function(self._engine))

    async def encode(self, read: Callable[[], list[Sketch | Drawing]]) -> Float32:
        """Features [B, C] of the sketches that ``read`` gives. Raises what ``encode_sketches`` raises, and as ``run``."""
        return await self._on(self._encoders, lambda: self._engine.encode_sketches(read()))

    def now(self, function: Callable[[Engine], T]) -> T:
        """``run`` for a caller outside the event loop; waits for it."""
        return self._gallery.submit(function, self._engine).result()

    def close(self) -> None:
        """Let what is under way end, and close the engine."""
        if self.parallel:
            self._encoders.shutdown()
        self.now(Engine.close)
        self._gallery.shutdown()

    async def _on(self, pool: ThreadPoolExecutor, function: Callable[[], T]) -> T:
        if self._waiting >= self._limit:
            raise Problem(503, "Busy", f"{self._waiting} requests wait already", "try again in a second", {"Retry-After": "1"})
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, function)
        finally:
            self._waiting -= 1
