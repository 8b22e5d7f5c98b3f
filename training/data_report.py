"""Counts of datasets, and what their splits share: ``python -m training.data_report DIR [DIR ...]``.

A DIR is a dataset folder in the project's layout (``DIR#TABLE`` for another pairs table in it) or any folder of photos.
``--layout qmul-v2|sketchy SOURCE`` reports on the train and test splits of an official download where it lies. docs/data.md says
how photos and sketches are compared.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from fgsbir_edge.console import put, put_json, run
from training.data.split_report import DataSet, Thresholds, report
from training.import_data import add_layout_options, chosen, read_layout

_SHOWN = 5


def as_text(result: dict[str, Any], shown: int = _SHOWN) -> str:
    """The report in lines; lists are cut after `shown` entries."""
    lines = []
    for counts in result["sets"]:
        lines += _counts(counts)
    for overlap in result["overlaps"]:
        lines += _overlap(overlap, result["thresholds"], shown)
    return "\n".join(lines)


def _counts(counts: dict[str, Any]) -> list[str]:
    lines = [f"{counts['name']}: {counts['photos']} photos"]
    if counts["sketches"]:
        lines[0] += (
            f" ({counts['distractors']} without a sketch), {counts['sketches']} sketches ({counts['vector_sketches']} vector), "
            f"{counts['categories']} categories, {counts['users']} users"
        )
    spreads = ("sketches_per_photo", "sketches_per_user", "points_per_sketch", "strokes_per_sketch")
    lines += [f"  {what.replace('_', ' ')}: {_spread(counts[what])}" for what in spreads if counts[what]]
    return [*lines, *(f"  cannot be read: {problem}" for problem in counts["unreadable"])]


def _spread(values: dict[str, float]) -> str:
    return f"{values['min']:g} to {values['max']:g}, mean {values['mean']:g}, median {values['median']:g}, 95 % {values['p95']:g}"


def _overlap(overlap: dict[str, Any], thresholds: dict[str, Any], shown: int) -> list[str]:
    lines = [f"within {overlap['a']}" if overlap["within"] else f"{overlap['a']} and {overlap['b']}"]
    apart = f"hash distance at most {thresholds['distance']}"
    for what, count, entries in (
        ("same file", None, [_entry(entry) for entry in overlap["same_file"]]),
        (
            f"near-duplicate photos ({apart}, likeness at least {thresholds['likeness']:g})",
            None,
            [_entry(entry) for entry in overlap["near_duplicates"]],
        ),
        (f"look-alikes ({apart}, less alike)", overlap["look_alikes"], [_entry(e) for e in overlap["closest_look_alikes"]]),
        (f"equal sketches (likeness at least {thresholds['sketch']:g})", None, [_entry(e) for e in overlap["equal_sketches"]]),
        ("same photo name", None, overlap["same_photo_name"]),
        ("shared categories", None, overlap["shared_categories"]),
        ("shared users", None, overlap["shared_users"]),
    ):
        if entries:
            total = len(entries) if count is None else count
            lines.append(f"  {what}: {total}")
            lines += [f"    {entry}" for entry in entries[:shown]]
            lines += [f"    and {total - shown} more"] if total > shown else []
    return [*lines, "  nothing shared"] if len(lines) == 1 else lines


def _entry(entry: dict[str, Any]) -> str:
    text = f"{entry['a']} = {entry['b']}"
    text += f" ({' and '.join(entry['roles'])})" if "roles" in entry else ""
    text += f", hash distance {entry['distance']}" if "distance" in entry else ""
    return text + (f", likeness {entry['likeness']:.3f}" if "likeness" in entry else "")


def data_report(arguments: argparse.Namespace) -> int:
    """Read, compare, print."""
    if arguments.layout:
        arguments.source = Path(arguments.folders[0])
        splits = read_layout(arguments)
        sets = [DataSet.of_folder(split, chosen(splits, split, arguments.source)) for split in ("train", "test")]
        sets += [DataSet.read(text) for text in arguments.folders[1:]]
    else:
        sets = [DataSet.read(text) for text in arguments.folders]
    result = report(sets, Thresholds(arguments.distance, arguments.likeness, arguments.sketch_likeness))
    if arguments.json:
        put_json(result)
    else:
        put(as_text(result, arguments.show))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m training.data_report", description=__doc__)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="dataset folder, DIR#TABLE, or folder of photos")
    parser.add_argument("--layout", choices=("qmul-v2", "sketchy"), help="the first DIR is an official download")
    parser.add_argument("--distance", type=int, default=Thresholds.distance, help="bits of 64 (default %(default)s)")
    parser.add_argument("--likeness", type=float, default=Thresholds.likeness, help="of photos (default %(default)s)")
    parser.add_argument("--sketch-likeness", type=float, default=Thresholds.sketch, help="of sketches (default %(default)s)")
    parser.add_argument("--show", type=int, default=_SHOWN, help="entries of a list in the text (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object with every entry")
    add_layout_options(parser)
    arguments = parser.parse_args()
    return run(lambda: data_report(arguments))


if __name__ == "__main__":
    sys.exit(main())
