"""Figures as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first and the last are right-aligned numbers."""
    marks = ["---", *["---:"] * (len(header) - 2), "---"]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (header, marks, *rows))


def number(value: float | None) -> str:
    """Three significant digits from 0.01 on; a dash for what was not measured."""
    if value is None:
        return "–"
    if 0 < abs(value) < 0.01:
        return "< 0.01"
    digits = 3 if abs(value) < 1 else max(0, 3 - len(str(int(abs(value)))))
    return f"{value:,.{digits}f}"


def groups(figures: Figures) -> list[str]:
    """Names of the groups of rows, in the order they were timed in."""
    return list(dict.fromkeys(row["group"] for row in figures["rows"]))


def group_table(figures: Figures, group: str) -> str:
    """All rows of a group: time per item, what was written at which rate, what share of the limit that is, the answer's check."""
    rows = [row for row in figures["rows"] if row["group"] == group]
    extra = [(title, show) for title, key, show in _EXTRA if any(row.get(key) for row in rows)]
    return table(
        ["µs per item", *_TIMES, *(title for title, _ in extra), "answer"],
        (
            [row["name"], *(number(row[name]) for name in _TIMES), *(show(row) for _, show in extra), row["agrees"] or "–"]
            for row in rows
        ),
    )


def _rate(row: Figures) -> str:
    return number(row["bytes"] / row["median"] / 1e3 if row["bytes"] else None)


def _share(row: Figures) -> str:
    return f"{row['limit_share']:.0%}" if "limit_share" in row else "–"


def _multiple(row: Figures) -> str:
    return number(row.get("floor_multiple"))


def _per_second(row: Figures) -> str:
    return number(row.get("per_second"))


_TIMES = ("median", "min", "p05", "p95", "p99")
_EXTRA: tuple[tuple[str, str, Callable[[Figures], str]], ...] = (  # shown where any row of the group has the key
    ("GB/s written", "bytes", _rate),
    ("of the limit", "limit_share", _share),
    ("× floor", "floor_multiple", _multiple),
    ("tasks a second", "per_second", _per_second),
)


def target_table(figures: Figures) -> str:
    """Every target, the ratio it got with its interval, the same at best and at the limit, and whether it is enough."""
    answers = {True: "reached", False: "**not reached**", None: "not measured"}
    rows = []
    for entry in figures["targets"]:
        low, high = entry.get("interval", (None, None))
        got = number(entry["got"]) + (f" [{number(low)}, {number(high)}]" if low is not None else "")
        wanted = f"{'≤' if entry['most'] else '≥'} {entry['wanted']:g}"
        more = number(entry.get("by_best")), number(entry.get("at_the_limit"))
        rows.append([entry["target"], wanted, got, *more, answers[entry["reached"]]])
    return table(["target", "wanted", "got [95 % interval]", "at best", "at the limit", ""], rows)


def fit_table(figures: Figures) -> str:
    """What the time of a sketch goes with."""
    fits = figures["fit"]
    names = list(next(iter(fits.values())))
    return table(["", *names, ""], ([style, *(number(found[name]) for name in names), ""] for style, found in fits.items()))


def notes(figures: Figures) -> str:
    """Who did not take part, and why."""
    lines = [f"- left out: {entry['name']}: {entry['reason']}\n" for entry in figures["skipped"]]
    lines += [f"- refused by its check: {entry['name']} ({entry['group']}): {entry['reason']}\n" for entry in figures["rejected"]]
    return "".join(lines)


def facts(figures: Figures) -> str:
    """What was drawn or adapted, how often, and what the machine can do; a line each."""
    lines = [f"{figures['rounds']} rounds."]
    if figures["quick"]:
        lines.append("**A smoke test: these figures mean nothing.**")
    if "sketches" in figures:
        drawn = figures["sketches"]
        lines.append(
            f"{drawn['count']} sketches ({drawn['set']}: {drawn['note']}), {drawn['segments']} segments each on average."
        )
    if "peak_gflops" in figures:
        peaks = ", ".join(f"{name} {value:g}" for name, value in figures["peak_gflops"].items())
        lines.append(f"Peak of one core, GFLOP/s in float32: {peaks}.")
    if figures.get("first_call_seconds"):
        calls = figures["first_call_seconds"].values()
        lines.append(f"First calls of torch.compile, not counted in any row: {min(calls):g} to {max(calls):g} s a graph.")
    return "\n".join(lines) + "\n"


def text(figures: Figures) -> str:
    """All of it, as the commands print it."""
    parts = [facts(figures)]
    parts += [f"\n{group}\n\n{group_table(figures, group)}" for group in groups(figures)]
    if "fit" in figures:
        parts.append(f"\nleast squares over the sketches\n\n{fit_table(figures)}")
    return "".join([*parts, "\n", target_table(figures), "\n", notes(figures)])
