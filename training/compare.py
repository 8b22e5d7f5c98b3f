"""Whether one model finds more than another: ``python -m training.compare BEFORE.csv AFTER.csv``.

Both files are what ``training.evaluate --ranks`` wrote of the same table, so that every query is its own control: differences
have intervals much narrower than the models' own figures. One JSON object goes to stdout, a table for people to stderr.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fgsbir_edge.console import put_json, run, say
from fgsbir_edge.errors import PairsFormatError
from fgsbir_edge.files import write_atomic
from training.evaluate_output import COLUMNS, PLURAL, ensure_parent
from training.evaluate_retrieval import AT
from training.metrics import LEVEL, bootstrap_intervals, percentile_ranks

Unit = Literal["photo", "query", "category", "user"]
Query = tuple[str, str, str, str]  # sketch, photo, category, user

_NEEDED = COLUMNS[:6]
_KEY: dict[str, Callable[[Query], object]] = {
    "photo": lambda query: query[1],
    "query": lambda query: query,
    "category": lambda query: query[2],
    "user": lambda query: query[3],
}


@dataclass(frozen=True, eq=False)
class Ranks:
    """Ranks [Q] int64 from 1 of queries in galleries of so many photos [Q] int64, in the order of the queries' names."""

    queries: tuple[Query, ...]
    ranks: np.ndarray
    galleries: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Ranks:
        """Raises PairsFormatError for a file that cannot be read, lacks a column or has no queries, or a rank out of range."""
        try:
            with path.open(encoding="utf-8", newline="") as stream:
                reader = csv.DictReader(stream)
                missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
                rows = [] if missing else [_row(row) for row in reader]
        except (OSError, ValueError, csv.Error) as error:
            raise PairsFormatError(f"{path}: cannot be read ({error}); write it with training.evaluate --ranks") from error
        if missing:
            raise PairsFormatError(f"{path}: no column {missing[0]!r}; write it with training.evaluate --ranks")
        if not rows:
            raise PairsFormatError(f"{path}: no queries in it; measure a table that has pairs")
        found = {query: (rank, gallery) for query, rank, gallery in rows}
        if len(found) < len(rows):
            raise PairsFormatError(f"{path}: the same query comes twice; write it anew with training.evaluate --ranks")
        order = sorted(found)
        numbers = np.array([found[query] for query in order], dtype=np.int64)
        return cls(tuple(order), numbers[:, 0], numbers[:, 1])


def _row(row: dict[str, Any]) -> tuple[Query, int, int]:
    if any(row[name] is None for name in _NEEDED):
        raise ValueError(f"the row of {row['sketch']!r} is cut short")
    rank, gallery = int(row["rank"]), int(row["gallery"])
    if not 1 <= rank <= gallery:
        raise ValueError(f"sketch {row['sketch']!r} has rank {rank} of {gallery}")
    return (row["sketch"], row["photo"], row["category"], row["user"]), rank, gallery


def compare(before: Ranks, after: Ranks, unit: Unit = "photo", *, draws: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Figures of both and the difference, after less before, with its 95 % percentile bootstrap interval over `unit`.

    acc@K and mean_percentile are in percent, mean_reciprocal_rank in 0..1. `gained` and `lost` count queries whose photo only the
    second, only the first has among its first K. An interval is None where there is one unit alone.

    Raises PairsFormatError for other queries or other galleries.
    """
    _same(before, after)
    units = np.unique([str(_KEY[unit](query)) for query in before.queries], return_inverse=True)[1]
    columns = [_columns(side) for side in (before, after)]
    change = {name: columns[1][name] - columns[0][name] for name in columns[0]}
    intervals = np.full((len(change), 2), np.nan)
    if units.max() > 0:
        intervals = bootstrap_intervals(np.stack(list(change.values()), 1), units, draws=draws, seed=seed)
    figures: dict[str, Any] = {}
    for (name, moved), (low, high) in zip(change.items(), intervals.tolist(), strict=True):
        places = 4 if name == "mean_reciprocal_rank" else 2
        values = {"before": columns[0][name], "after": columns[1][name], "difference": moved}
        figures[name] = {key: round(float(np.nanmean(value)), places) for key, value in values.items()}
        figures[name]["interval"] = [round(low, places), round(high, places)] if np.isfinite(low) else None
        if name.startswith("acc@"):
            figures[name] |= {"gained": int(np.sum(moved > 0)), "lost": int(np.sum(moved < 0))}
    bootstrap = {"resamples": unit, "units": int(units.max()) + 1, "draws": draws, "level": LEVEL, "seed": seed}
    return {"queries": len(before.queries), "bootstrap": bootstrap, **figures}


def _same(before: Ranks, after: Ranks) -> None:
    remedy = "measure both models on the same table with the same --gallery"
    if before.queries != after.queries:
        query = sorted(set(before.queries) ^ set(after.queries))[0]
        raise PairsFormatError(f"only one of the files has sketch {query[0]!r} of photo {query[1]!r}; {remedy}")
    if other := np.flatnonzero(before.galleries != after.galleries).tolist():
        sizes = before.galleries[other[0]], after.galleries[other[0]]
        sketch = before.queries[other[0]][0]
        raise PairsFormatError(f"sketch {sketch!r} was searched among {sizes[0]} and among {sizes[1]} photos; {remedy}")


def _columns(side: Ranks) -> dict[str, np.ndarray]:
    columns = {f"acc@{at}": 100.0 * (side.ranks <= at) for at in AT}
    if (side.galleries > 1).any():
        columns["mean_percentile"] = percentile_ranks(side.ranks, side.galleries)
    return columns | {"mean_reciprocal_rank": 1.0 / side.ranks}


def text(result: dict[str, Any]) -> str:
    """The comparison as lines for people."""
    kept = result["bootstrap"]
    lines = [
        f"{result['queries']} queries; [95 % intervals over {kept['units']} {PLURAL[kept['resamples']]}]",
        f"{'':21} {'before':>8} {'after':>8}  {'difference':<26} gained, lost",
    ]
    for name, figure in result.items():
        if not isinstance(figure, dict) or "difference" not in figure:
            continue
        places = 4 if name == "mean_reciprocal_rank" else 2
        moved = f"{figure['difference']:+.{places}f}"
        if figure["interval"] is not None:
            moved += " [{:+.{places}f}, {:+.{places}f}]".format(*figure["interval"], places=places)
        counts = f"{figure['gained']}, {figure['lost']}" if "gained" in figure else ""
        values = f"{figure['before']:8.{places}f} {figure['after']:8.{places}f}"
        lines.append(f"{name:21} {values}  {moved:<26} {counts}".rstrip())
    return "\n".join(lines)


def command(arguments: argparse.Namespace) -> int:
    """Compare, print one JSON object, and write it where asked."""
    if arguments.output is not None:
        ensure_parent(arguments.output)
    result = compare(Ranks.read(arguments.before), Ranks.read(arguments.after), arguments.over, seed=arguments.seed)
    put_json(result)
    say(text(result))
    if arguments.output is not None:
        write_atomic(arguments.output, (json.dumps(result, indent=2) + "\n").encode())
    return 0


def main() -> int:
    options = argparse.ArgumentParser(
        prog="python -m training.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("before", type=Path, metavar="BEFORE.csv", help="ranks of one model")
    options.add_argument("after", type=Path, metavar="AFTER.csv", help="ranks of the other")
    options.add_argument("--over", choices=tuple(_KEY), default="photo", help="what intervals resample (default: photo)")
    options.add_argument("--seed", type=int, default=0, help="of the resamples")
    options.add_argument("--output", type=Path, metavar="FILE.json", help="write the JSON object to a file too")
    arguments = options.parse_args()
    return run(lambda: command(arguments))


if __name__ == "__main__":
    sys.exit(main())
