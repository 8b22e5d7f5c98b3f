"""What the commands' options take: argparse types whose messages say what was expected."""

from __future__ import annotations

import argparse
import math
from typing import TypeVar

Number = TypeVar("Number", int, float)


def whole(text: str) -> int:
    """A whole number."""
    return _read(int, text, "no whole number")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def number(text: str) -> float:
    """Any number; infinity and NaN too."""
    return _read(float, text, "no number")


def finite(text: str) -> float:
    """A finite number."""
    value = number(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not finite")
    return value


def prior(text: str) -> float:
    """0 or more, or infinity."""
    value = number(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return value


def share(text: str) -> float:
    """A probability."""
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no probability from 0 to 1")
    return value


def seconds(text: str) -> float:
    """Seconds, or a rate: 0 or more, and below a thousand million."""
    value = number(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is out of range, expected 0 or more")
    return value


def port(text: str) -> int:
    """A TCP port, or 0 for a free one."""
    value = whole(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{value} is no port, expected 0 to 65535")
    return value


def _read(kind: type[Number], text: str, otherwise: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is {otherwise}") from None
