"""What the commands share: data to stdout, talk to stderr, one line for an error, documented exit codes, stage times."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

from fgsbir_edge.errors import FgsbirError

INTERRUPTED = 130
_COLLECT_AFTER = 50_000  # new objects; loading modules makes tens of thousands that all stay
_USUAL = gc.get_threshold()


def say(text: str) -> None:
    """A line of talk, to stderr."""
    sys.stderr.write(text + "\n")


def put(text: str) -> None:
    """A line of data, to stdout."""
    sys.stdout.write(text + "\n")


def counted(number: int, one: str, many: str = "") -> str:
    """A count and what is counted: "1 pair", "2 pairs", "0 people"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def by_reason(reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    """Names that share a reason together, each reason once, in order."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [(", ".join(those), reason) for reason, those in names.items()]


def put_json(value: object) -> None:
    """One JSON object, to stdout."""
    put(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def whole_process(main: Callable[[], int]) -> NoReturn:
    """Run a command that is all that its process is for, and end the process with its exit code.

    Reference cycles are looked for less often than usual, and not at the end, when the system takes all memory back anyway:
    together a tenth of the time of a short command. One that runs for long calls ``stays``.
    """
    gc.set_threshold(_COLLECT_AFTER)
    code = main()
    gc.freeze()
    sys.exit(code)


def stays() -> None:
    """This command runs until it is stopped: look for reference cycles as often as usual."""
    gc.set_threshold(*_USUAL)


class _Talk(logging.Handler):
    """The package's log as lines of talk."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def run(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; errors raised on purpose, and the package's log, become lines on stderr."""
    log = logging.getLogger("fgsbir_edge")
    talk, level = _Talk(), log.level
    log.addHandler(talk)
    log.setLevel(logging.INFO)
    try:
        return _run(command)
    finally:
        log.removeHandler(talk)
        log.setLevel(level)


def _run(command: Callable[[], int]) -> int:
    try:
        code = command()
        sys.stdout.flush()
    except FgsbirError as error:
        say(f"error: {' '.join(str(error).split())}")
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted; what was reported as done is kept")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone (head, less); writing more, at exit too, would only complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def exit_codes() -> str:
    """The table of exit codes for --help."""
    rows = ["exit codes:", "  0   success", "  1   unexpected failure (with a traceback)", "  2   wrong usage"]
    kinds = sorted(FgsbirError.__subclasses__(), key=lambda kind: kind.exit_code)
    rows += [f"  {kind.exit_code:<3} {' '.join((kind.__doc__ or '').split())}" for kind in kinds]
    return "\n".join([*rows, f"  {INTERRUPTED} interrupted"])


class Stages:
    """Wall time of each stage in milliseconds, in order; the first is the process's start, where the system tells it."""

    def __init__(self) -> None:
        self.millis: dict[str, float] = {}
        age = _process_age()
        if age is not None:
            self.millis["start"] = age

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block; several blocks of one name add up."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.millis[name] = self.millis.get(name, 0.0) + 1e3 * (time.perf_counter() - start)

    def rounded(self) -> dict[str, float]:
        """For --json: microsecond precision."""
        return {name: round(value, 3) for name, value in self.millis.items()}

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.0f}" if value >= 10 else f"{name} {value:.2g}" for name, value in self.millis.items())


def _process_age() -> float | None:
    """Milliseconds since this process was started, to the kernel's clock tick (10 ms); None where /proc does not say."""
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as stream:
            started = int(stream.read().rpartition(")")[2].split()[19])  # field 22; the name before it may hold spaces
        return 1e3 * max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        return None
