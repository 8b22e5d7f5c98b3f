"""The figures of ``search.py`` as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from benchmarks.tables import groups, number, table

Figures = Mapping[str, Any]
SMALL = (
    "faiss alone answers among 2,000 photos of 64 numbers in a hundredth of a millisecond. Ours spends as much in its core, and "
    "again in Python, on the way through the calls and on making ten hits with names. Where an index rounds, candidates are "
    "scored anew from stored features (26 photos with float16, 104 with int8); an adapter scores a thousand of them, about a "
    "millisecond, which only large galleries hide. For a miss among a million photos no reason is established: an earlier run "
    "had 0.79 for 512 float32 numbers."
)
SEVERAL = ", several queries"  # how groups end whose rows take more than one query a call


def search_tables(figures: Figures) -> str:
    """One query, several queries, what the file costs, memory."""
    return _single(figures) + _several(figures) + _store(figures)


def _single(figures: Figures) -> str:
    """Milliseconds a query, a column for each gallery."""
    wide = [group for group in groups(figures) if not group.endswith(SEVERAL)]
    names = list(dict.fromkeys(row["name"] for row in figures["rows"] if row["group"] in wide))
    cells = {(row["group"], row["name"]): row for row in figures["rows"]}
    titles = [group.replace(" photos, D = ", " × ") for group in wide]

    def shown(group: str, name: str) -> str:
        row = cells.get((group, name))
        return "–" if row is None else f"{number(row['median'] / 1e3)} ({number(row['best'] / 1e3)})"

    body = table(
        ["ms a query, median (at best)", *titles, ""], ([name, *(shown(group, name) for group in wide), ""] for name in names)
    )
    return f"\n### One query at a time\n\n{body}"


def _several(figures: Figures) -> str:
    """Queries a second."""
    text = ""
    for group in groups(figures):
        if not group.endswith(SEVERAL):
            continue
        rows: dict[str, dict[int, str]] = {}
        for row in figures["rows"]:
            found = re.fullmatch(r"(.*), (\d+) at a time", row["name"])
            if row["group"] == group and found:
                rows.setdefault(found[1], {})[int(found[2])] = f"{1e6 / row['median']:,.0f} ({1e6 / row['best']:,.0f})"
        sizes = sorted({size for found in rows.values() for size in found})
        header = ["queries a second, median (at best)", *(f"{size} at a time" for size in sizes), ""]
        lines = ([name, *(found.get(size, "–") for size in sizes), ""] for name, found in rows.items())
        text += f"\n### {group.removesuffix(SEVERAL)}: several queries at a time\n\n{table(header, lines)}"
    return text


def _store(figures: Figures) -> str:
    if "store" not in figures:
        return ""
    found = figures["store"]
    text = f"\n### A gallery's file: {found['features']} features, D = {found['embedding']}\n\n"
    text += (
        f"Written, features and thumbnails given, 32 photos a transaction: {found['written_per_second']:,} photos a second. "
        f"The released encoder makes features of {found['encoded_per_second']:,} photos from pixels in a second of one core. "
        "One process each, one index; thumbnails of 16 bytes. Seconds, and in brackets those of the processor: reading the file, "
        "and until the first answer. Resident MiB: of a process that has only started, with the file read, and answering.\n\n"
    )
    header = ["photos, index", "file, MiB", "read", "first answer", "MiB at the start", "read", "answering", "at most", ""]
    return text + table(header, (_memory(row) for row in figures["memory"]))


def _memory(row: Mapping[str, Any]) -> list[str]:
    times = [f"{row[name + '_s']:,.1f} ({number(row.get(name + '_cpu_s'))})" for name in ("open", "ready")]
    mib = [f"{row[name + '_mib']:,}" for name in ("start", "read", "searched", "peak")]
    return [f"{row['photos']:,}, {row['storage']}", f"{row['file_mib']:,}", *times, *mib, ""]
