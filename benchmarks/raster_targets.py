"""What the rasteriser is meant to reach, judged on the rows of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.raster_field import ALL, BLOCK, GROUPS, OURS, Source, Style, named
from benchmarks.raster_peers import DILATED, OPENCV, PAPERS, SAME, SKIA, SMOOTH, THIN
from benchmarks.raster_prefixes import ALL as PREFIXES
from benchmarks.raster_prefixes import GROUP, ONE
from benchmarks.rounds import Report

BATCH = GROUPS["prepared", BLOCK]
STYLES: tuple[Style, ...] = ("bresenham", "antialias")


def judge(report: Report) -> None:
    """Add every target to the report, with the ratio it got."""
    own, smooth = OURS["bresenham"], OURS["antialias"]
    for peer in SAME:
        report.target(f"bresenham, times faster than {peer}", 10, report.times(BATCH, own, (BATCH, peer)))
    report.target(f"bresenham, times faster than {PAPERS}", 300, report.times(BATCH, own, (BATCH, PAPERS)))
    for group in (BATCH, ALL):
        floor = report.fastest(group, [row["name"] for row in report.rows if row["limit"] and row["threads"] == 1])
        if floor:
            text = f"bresenham, times as long as {floor} ({group})"
            report.target(text, 4, report.times(group, floor, (group, own)), most=True)
    for peer, wanted in ((OPENCV, 8), (SKIA, 20)):
        report.target(f"antialias width 2, times faster than {peer}", wanted, report.times(BATCH, smooth, (BATCH, peer)))
    for style in STYLES:
        for group in (BATCH, ALL):
            text = f"{style}, two threads, times faster than one ({group})"
            got = report.times(group, named(style, 2), (group, OURS[style]))
            report.target(text, 1.7, got and replace(got, ceiling=None))  # the limit of one thread is none of two
    _from_objects(report)
    report.target(
        "17 prefixes in one call, times as long as one image", 4, report.times(GROUP, ONE, (GROUP, PREFIXES)), most=True
    )


def _from_objects(report: Report) -> None:
    """Straight from Python objects, packing included, at least 5 times every peer that draws such lines."""
    sources: tuple[Source, ...] = ("tuples", "arrays")
    contests: tuple[tuple[Style, str, Sequence[str]], ...] = (
        ("bresenham", "lines of three pixels", DILATED),
        ("bresenham", "lines of one pixel", THIN),
        ("antialias", "smooth lines", SMOOTH),
    )
    for source in sources:
        for size in (BLOCK, 1):
            group = GROUPS[source, size]
            for style, what, names in contests:
                fastest = report.fastest(group, names)
                if fastest:
                    text = f"{style}, times faster than the fastest peer with {what}, {fastest} ({group})"
                    report.target(text, 5, report.times(group, OURS[style], (group, fastest)))
