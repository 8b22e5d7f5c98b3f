"""``fgsbir-edge doctor --selftest``: every path of this installation, tried on this machine, each against the processor's answer.

What cannot be tried because something is not installed is skipped, with the reason; what is there and does not work has failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from fgsbir_edge.errors import FgsbirError

if TYPE_CHECKING:
    from fgsbir_edge.bundle import Bundle

Status = Literal["passed", "failed", "skipped"]


class SkipError(Exception):
    """A check that has nothing to check here; the message says what is missing."""


class CheckError(Exception):
    """A check that did not hold; the message says by how much."""


@dataclass(frozen=True)
class Check:
    """A name for people, and what is done: it returns what was seen, or raises SkipError, CheckError or anything else."""

    name: str
    run: Callable[[], str]


@dataclass(frozen=True)
class Outcome:
    """How a check went. ``note``: what was seen, why it failed, or why it was skipped."""

    name: str
    status: Status
    note: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.status:<8} {self.name}: {self.note}"


def run_check(check: Check) -> Outcome:
    """Try one; nothing it raises gets out but what ends the process."""
    start = time.perf_counter()
    status: Status
    try:
        status, note = "passed", check.run()
    except SkipError as error:
        status, note = "skipped", str(error)
    except (CheckError, FgsbirError) as error:
        status, note = "failed", str(error)
    except Exception as error:  # a check is there to find what nobody has thought of
        status, note = "failed", f"{type(error).__name__}: {error}"
    return Outcome(check.name, status, " ".join(note.split()), round(time.perf_counter() - start, 3))


def selftest(bundle: Bundle, say: Callable[[str], None]) -> Iterator[Outcome]:
    """Every check, one after the other. ``say`` hears of engines that are built, which can take minutes."""
    from fgsbir_edge import selftest_encoders, selftest_kernels

    for check in (*selftest_kernels.checks(), *selftest_encoders.checks(bundle, say)):
        yield run_check(check)


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """Plain JSON values."""
    counts = {status: sum(one.status == status for one in outcomes) for status in ("passed", "failed", "skipped")}
    return {**counts, "checks": [asdict(one) for one in outcomes]}
