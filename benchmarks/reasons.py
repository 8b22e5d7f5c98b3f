"""Why a target was not reached, as far as measurement shows; docs/performance.md quotes what applies."""

from __future__ import annotations

_REASONS: tuple[tuple[str, str], ...] = ()  # (part of a target's text, reason), the first that fits


def reason_for(target: str) -> str:
    """The reason recorded for a target, by what its text contains; says so where none is."""
    return next((reason for part, reason in _REASONS if part in target), f"{target}: no reason established yet.")
