"""A long call into TensorRT with a line every ten seconds on what it is doing, and a way out of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from fgsbir_edge.encoder.trt_api import Say

HEARTBEAT_SECONDS = 10.0
T = TypeVar("T")


class Progress:
    """The phases that TensorRT is in, as its progress monitor tells them, from any of its threads."""

    def __init__(self) -> None:
        self.cancelled = False
        self._lock = threading.Lock()
        self._phases: dict[str, tuple[int, int]] = {}  # those under way, outermost first: steps done, of how many

    def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._phases[phase] = (0, steps)

    def step_complete(self, phase: str, step: int) -> bool:
        """Whether to go on."""
        with self._lock:
            if phase in self._phases:
                self._phases[phase] = (step + 1, self._phases[phase][1])
        return not self.cancelled

    def phase_finish(self, phase: str) -> None:
        with self._lock:
            self._phases.pop(phase, None)

    def __str__(self) -> str:
        with self._lock:
            parts = [f"{phase} {done}/{steps}" for phase, (done, steps) in self._phases.items()]
        return " > ".join(parts) or "no phase reported"

    def monitor(self, trt: Any) -> Any:
        """A ``trt.IProgressMonitor`` that reports here; it must be kept as long as the builder's configuration."""

        def start(this: Any) -> None:
            trt.IProgressMonitor.__init__(this)

        members = {
            "__init__": start,
            "phase_start": lambda this, phase, parent, steps: self.phase_start(phase, parent, steps),
            "step_complete": lambda this, phase, step: self.step_complete(phase, step),
            "phase_finish": lambda this, phase: self.phase_finish(phase),
        }
        return type("Monitor", (trt.IProgressMonitor,), members)()


def with_heartbeat(work: Callable[[], T], progress: Progress, say: Say, seconds: float | None = None) -> T:
    """``work()``, done in a thread of its own, while this one says every few seconds how far it is.

    An interrupt (Ctrl-C) makes TensorRT stop after the step it is at; then KeyboardInterrupt is raised. A second one is raised
    at once.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # whatever it is, it is raised where the caller can see it
            failures.append(error)

    thread = threading.Thread(target=run, name="tensorrt-build", daemon=True)
    start = time.monotonic()
    thread.start()
    try:
        while thread.is_alive():
            thread.join(HEARTBEAT_SECONDS if seconds is None else seconds)
            if thread.is_alive():
                say(f"still building after {time.monotonic() - start:.0f} s: {progress}")
    except KeyboardInterrupt:
        progress.cancelled = True
        say("stopping after this step; once more to stop at once")
        thread.join()
        raise
    if failures:
        raise failures[0]
    return results[0]
