"""TensorRT's Python module, from 10.3 on: found, its version checked, and one logger for the whole process.

Two libraries have this interface: ``tensorrt``, which comes with JetPack, and ``tensorrt_rtx``, whose builder also runs on a
machine without a GPU. Neither this module nor those that use it spell out an enumeration's value: these change from one major
release to the next.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from fgsbir_edge.errors import TensorrtMissingError

TENSORRT, RTX = "tensorrt", "tensorrt_rtx"
OLDEST = {TENSORRT: (10, 3), RTX: (1, 0)}
REMEDIES = {
    TENSORRT: "JetPack brings it (apt-get install python3-libnvinfer; a virtual environment needs --system-site-packages), "
    "elsewhere: pip install tensorrt",
    RTX: "pip install tensorrt-rtx",
}

Say = Callable[[str], None]


class Messages:
    """What the library logged during a block: ``errors``, and everything down to ``verbosity`` goes to ``say`` at once."""

    def __init__(self, say: Say | None, verbosity: int) -> None:
        self.errors: list[str] = []
        self.say, self.verbosity = say, verbosity


class Library:
    """An imported TensorRT. ``trt`` is its module, ``logger`` goes to every Builder, OnnxParser and Runtime."""

    def __init__(self, name: str, trt: Any) -> None:
        self.name, self.trt, self.version = name, trt, str(trt.__version__)
        severity = trt.ILogger.Severity  # from the gravest on; a message's rank against a verbosity of 0 to 3
        self._ranks = {
            severity.INTERNAL_ERROR: -1,
            severity.ERROR: -1,
            severity.WARNING: 1,
            severity.INFO: 2,
            severity.VERBOSE: 3,
        }
        self._lock, self._listeners = threading.Lock(), list[Messages]()

        def start(this: Any) -> None:
            trt.ILogger.__init__(this)

        # made here: the class to derive from is known only now
        self.logger = type("Log", (trt.ILogger,), {"__init__": start, "log": lambda this, rank, text: self._log(rank, text)})()

    def _log(self, severity: Any, text: str) -> None:
        rank = self._ranks.get(severity, 3)
        with self._lock:
            listeners = list(self._listeners)
        for one in listeners:
            if rank < 0:
                one.errors.append(" ".join(text.split()))
            elif one.say is not None and rank <= one.verbosity:
                one.say(f"{self.name}: {' '.join(text.split())}")

    @contextmanager
    def messages(self, say: Say | None = None, verbosity: int = 0) -> Iterator[Messages]:
        """Collect what is logged meanwhile. Verbosity: 0 errors alone, 1 warnings too, 2 information, 3 everything."""
        mine = Messages(say, verbosity)
        with self._lock:
            self._listeners.append(mine)
        try:
            yield mine
        finally:
            with self._lock:
                self._listeners.remove(mine)


@cache
def load(name: str = TENSORRT) -> Library:
    """The library of this name. Raises TensorrtMissingError: not installed, not loadable, or older than 10.3."""
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: its shared libraries are missing
        raise TensorrtMissingError(f"{name} cannot be imported ({error}): {REMEDIES[name]}") from error
    library = str(getattr(module, "__version__", "0"))
    numbers = tuple(int(part) for part in re.findall(r"\d+", library)[:2])
    if numbers < OLDEST[name]:
        oldest = ".".join(map(str, OLDEST[name]))
        raise TensorrtMissingError(
            f"{name} is {library}, {oldest} or newer is needed: use JetPack 6.2 or newer, or {REMEDIES[name]}"
        )
    return Library(name, module)
