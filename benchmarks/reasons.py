"""Why targets were not reached, as far as measurement shows; docs/performance.md quotes what applies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNKNOWN = "No reason established yet."
_ARITHMETIC = (
    "Out of reach by this margin for anyone: the peer takes only `at the limit` times what the machine needs for the least "
    "arithmetic known to give the answer, or for writing the images alone."
)
_REASONS: tuple[tuple[str, str], ...] = ()  # (part of a target's text, reason), the first that fits


def reasons(targets: list[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Each reason with the targets that were missed for it; a target measured to be out of reach says so by itself."""
    found: dict[str, list[str]] = {}
    for entry in targets:
        if entry["reached"] is False:
            found.setdefault(_reason(entry), []).append(entry["target"])
    return found


def _reason(entry: Mapping[str, Any]) -> str:
    ceiling = entry.get("at_the_limit")
    if ceiling is not None and ceiling < entry["wanted"]:
        return _ARITHMETIC
    return next((reason for part, reason in _REASONS if part in entry["target"]), _UNKNOWN)
