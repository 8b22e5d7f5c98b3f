"""Figures of ``end_to_end.py`` as Markdown and as a picture of the stages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.samples import ratio
from benchmarks.tables import notes, number, table

Figures = Mapping[str, Any]

OURS, RESEARCH, COMPILED = "ours", "research code", "research code, torch.compile"
RASTER, ENCODE, HEAD, SEARCH = "rasterise", "encode", "head alone", "head and search"
ADAPT_PAPERS, ADAPT, ADAPTED = "adapt as the papers do, 5 steps", "adapt as released, guard and all", "search, adapted"
WHOLE, WHOLE_WALL = "strokes to ten photos", "strokes to ten photos, by the clock"
WHOLE_ADAPT = "strokes of five pairs to the adapter in force"
START, FIRST_HIT = "start alone", "start to the first photos found"
WRITTEN, START_FILES = "start to the adapter written", "start to the adapter written, photos from files"
STAGES = (RASTER, ENCODE, HEAD, SEARCH, ADAPT_PAPERS, ADAPT, ADAPTED, WHOLE_ADAPT, WHOLE, WHOLE_WALL)
STARTS = (START, FIRST_HIT, WRITTEN, START_FILES)
_BAR = {RASTER: "#e0a030", ENCODE: "#4060c0", SEARCH: "#40a060"}  # the stages that make up the whole
_WIDTH, _LEFT, _ROW = 720, 190, 34  # of the picture, pixels


def stage_table(figures: Figures) -> str:
    """A line a stage and competitor: percentiles in milliseconds, how many times as long as ours, what the check found."""
    lines = []
    for group in STAGES:
        rows = _rows(figures, group)
        for row in rows:
            times = [number(row[name] / 1e3) for name in ("median", "p90", "p99")]
            lines.append([f"{group}: {row['name']}", *times, _times_ours(row, rows), row["agrees"] or "–"])
    return table(["ms", "p50", "p90", "p99", "times ours [95 %]", "answer"], lines)


def start_table(figures: Figures) -> str:
    """A line a kind of process: the clock to its first word, the processor to its end, and its highest memory."""
    lines = []
    for group in STARTS:
        for row in _rows(figures, group):
            wall = [number(row[name] / 1e3) for name in ("median", "min")]
            busy = [number(row[name] / 1e3) for name in ("processor", "processor_min")]
            lines.append([f"{group}: {row['name']}", *wall, *busy, f"{row['peak_mib']:.0f}"])
    return table(["process", "ms by the clock", "shortest", "ms of the processor", "shortest", "MiB at most"], lines)


def facts(figures: Figures) -> str:
    """What was searched and how often."""
    drawn, photos = figures["sketches"], figures["photos"]
    lines = ["**A smoke test: these figures mean nothing.**"] if figures["quick"] else []
    lines.append(
        f"{figures['rounds']} rounds. {photos['count']:,} photos ({photos['note']}); {drawn['count']} drawings ({drawn['set']}, "
        f"{drawn['note']}), {drawn['segments']:.0f} segments each on average. Model {figures['bundle']['name']}."
    )
    if figures["first_call_seconds"]:
        lines.append(f"First call of torch.compile, not counted: {figures['first_call_seconds']['network']:g} s for the network.")
    return "\n".join(lines) + "\n"


def text(figures: Figures) -> str:
    """All of it, as the command prints it."""
    return f"{facts(figures)}\n{stage_table(figures)}\n{start_table(figures)}\n{notes(figures)}"


def plot(figures: Figures) -> str:
    """The stages of a query as one bar for each pipeline, SVG; medians in milliseconds."""
    bars = {name: _parts(figures, name) for name in (OURS, RESEARCH, COMPILED)}
    bars = {name: parts for name, parts in bars.items() if parts}
    longest = max(sum(parts.values()) for parts in bars.values())
    height = _ROW * (len(bars) + 1) + 24
    shapes = [f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>']
    for place, (name, parts) in enumerate(bars.items()):
        top, left = 12 + place * _ROW, float(_LEFT)
        shapes.append(_label(_LEFT - 8, top + 17, name, "end"))
        for stage, millis in parts.items():
            width = (_WIDTH - _LEFT - 90) * millis / longest
            shapes.append(
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{_ROW - 10}" fill="{_BAR[stage]}">'
                f"<title>{stage}: {number(millis)} ms</title></rect>"
            )
            left += width
        shapes.append(_label(left + 6, top + 17, f"{number(sum(parts.values()))} ms"))
    left = float(_LEFT)
    for stage, colour in _BAR.items():
        top = 12 + len(bars) * _ROW
        shapes.append(f'<rect x="{left:.0f}" y="{top + 6}" width="12" height="12" fill="{colour}"/>')
        shapes.append(_label(left + 18, top + 17, stage))
        left += 40 + 7.5 * len(stage)
    body = "\n".join(shapes)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">\n{body}\n</svg>\n'


def write_plot(path: Path, figures: Figures) -> None:
    """``plot`` into a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(plot(figures), encoding="utf-8")


def _parts(figures: Figures, name: str) -> dict[str, float]:
    """Milliseconds of each stage; what torch.compile leaves as it is takes what research code takes. Empty: not measured."""
    found = {}
    for stage in _BAR:
        rows = {row["name"]: row["median"] / 1e3 for row in _rows(figures, stage)}
        if name == COMPILED and stage == ENCODE and name not in rows:
            return {}
        millis = rows.get(name, rows.get(RESEARCH) if name == COMPILED else None)
        if millis is None:
            return {}
        found[stage] = millis
    return found


def _label(x: float, y: float, said: str, anchor: str = "start") -> str:
    style = 'font-family="sans-serif" font-size="13" fill="#202020"'
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" {style}>{escape(said)}</text>'


def _rows(figures: Figures, group: str) -> list[Figures]:
    return [row for row in figures["rows"] if row["group"] == group]


def _times_ours(row: Figures, rows: list[Figures]) -> str:
    """Ratio of medians of rounds to the first row of ours, with its interval."""
    own = next((other for other in rows if other["name"].startswith(OURS)), None)
    if own is None or own is row:
        return "–"
    value, low, high = ratio(row["rounds"], own["rounds"], paired=len(row["rounds"]) == len(own["rounds"]))
    return f"{number(value)} [{number(low)}, {number(high)}]"
