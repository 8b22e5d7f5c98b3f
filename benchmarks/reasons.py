"""Why targets were not reached, as far as measurement shows; docs/performance.md quotes what applies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNKNOWN = "No reason established yet."
_ARITHMETIC = (
    "Out of reach by this margin for anyone: the peer takes only `at the limit` times what the machine needs for the least "
    "arithmetic known to give the answer, or for writing the images alone."
)
_NEARLY = (
    "Close to out of reach: so much faster would be less than twice the least arithmetic, or writing alone, with everything else "
    "that the answer needs in between."
)
_SEGMENTS = (
    "Writing is the smaller part of our time (row `ours, blank sketches`); the rest goes with the number of segments, a hundred "
    "a sketch, hardly with their length (see the fit): the beginning and the slope of each are work that no other shares."
)
_PREFIXES = (
    "Writing seventeen images takes most of it (row `writing alone, 17 images: memset`), however little is drawn on them, and at "
    "best one image takes less time than five of them take to be written."
)
_THREADS = (
    "Two threads share one memory: in one call the images go to it at the rate that one thread's streaming stores reach already. "
    "In blocks of 64 the call lasts an eighth of a millisecond, of which waking the second thread is a part; coverage, which "
    "computes more for each byte, gains more."
)
_REASONS: tuple[tuple[str, str], ...] = (  # (part of a target's text, reason), the first that fits
    (
        "lines of one pixel",
        "These peers draw lines of one pixel and dilate nothing, a fraction of the work asked of ours; they stand here because "
        "the target says every peer.",
    ),
    (
        "a sketch a call",
        "A call for each sketch spends a good part of its time on the way from Python and on reading Python's objects, which no "
        "drawing can save (row `ours, blank sketches`, and the same table with prepared input).",
    ),
    ("17 prefixes", _PREFIXES),
    ("two threads", _THREADS),
    ("memory shared", f"The peer relies on what Pillow does not document, and saves a copy of the image by it. {_SEGMENTS}"),
    ("bresenham, times faster than", _SEGMENTS),
    (
        "bresenham, times as long as writing",
        f"The images stay in the cache, where nothing is faster than to fill them. {_SEGMENTS}",
    ),
)


_BUSY = (
    "Medians and shortest rounds fall on different sides of the target: the machine was busy (see its load; a virtual one does "
    "not see who else is on its processor), which costs a peer of many small operations more than one call. A quieter run "
    "decides."
)


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
    if ceiling is not None and ceiling < 2 * entry["wanted"]:
        return _NEARLY
    best = entry.get("by_best")
    if best is not None and (entry["got"] < entry["wanted"]) != (best < entry["wanted"]):
        return _BUSY
    return next((reason for part, reason in _REASONS if part in entry["target"]), _UNKNOWN)
