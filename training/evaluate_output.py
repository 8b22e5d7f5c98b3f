"""What a measurement leaves behind for people and spreadsheets: a text table, and one row a query as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fgsbir_edge.errors import OutputError
from fgsbir_edge.files import write_atomic
from training.evaluate_retrieval import AT, Ranking

COLUMNS = (
    "sketch",
    "photo",
    "category",
    "user",
    "rank",
    "gallery",
    "percentile",
    "similarity",
    "wrong_photo",
    "wrong_similarity",
)
PLURAL = {"photo": "photos", "query": "queries", "category": "categories", "user": "users"}
CELL_WIDTH = 20  # characters of a figure with its interval
NAME_WIDTH = 24  # characters of the first column


def ensure_parent(path: Path) -> None:
    """Make the folder that a file will be written to, before any work is done for it. Raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot make its folder ({error.strerror}); choose another place") from error


def beside(path: Path, table: str, several: bool) -> Path:
    """Where a table's own file goes: `path`, or with several tables ``NAME-TABLE.EXT`` for each of them."""
    mark = "-".join(Path(table).with_suffix("").parts)
    return path.with_name(f"{path.stem}-{mark}{path.suffix}") if several else path


def write_ranks(path: Path, ranking: Ranking) -> None:
    """One row a query as CSV in UTF-8, in the table's order; what is not defined is empty. Raises OutputError."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    percentiles = ranking.percentiles
    for index, pair in enumerate(ranking.pairs):
        alone = not ranking.wrong[index]
        writer.writerow(
            (
                pair.sketch,
                pair.photo,
                pair.category,
                pair.user,
                int(ranking.ranks[index]),
                int(ranking.galleries[index]),
                "" if alone else f"{percentiles[index]:.4f}",
                f"{ranking.similarity[index]:.6f}",
                ranking.wrong[index],
                "" if alone else f"{ranking.wrong_similarity[index]:.6f}",
            )
        )
    write_atomic(path, stream.getvalue().encode())


def text_table(title: str, result: dict[str, Any], *, groups: bool) -> str:
    """Figures of `retrieval` as lines of text, with every category and user where `groups` says so."""
    galleries = result["galleries"]
    sizes = sorted({galleries["smallest"], galleries["largest"]})
    units = PLURAL[result["bootstrap"]["resamples"]]
    accuracies = "  ".join(f"{f'Acc@{at}':<{CELL_WIDTH}}" for at in AT)
    lines = [
        f"{title}: {result['queries']} sketches of {result['photos_drawn']} photos among {result['gallery']}, "
        f"galleries of {' to '.join(map(str, sizes))}; [95 % intervals over {units}]",
        f"{'':{NAME_WIDTH}} {'queries':>7}  {accuracies}  {'percentile':<{CELL_WIDTH}}  median   MRR",
        _line("all queries", result),
    ]
    for key in ("category", "user"):
        if f"by_{key}" not in result:
            continue
        mean = result[f"mean_by_{key}"]
        lines.append(_line(f"mean of {mean['groups']} {PLURAL[key]}", mean))
        if groups:
            lines += [_line(f"  {name or '(none)'}", figures) for name, figures in result[f"by_{key}"].items()]
    return "\n".join(line.rstrip() for line in lines)


def _line(name: str, figures: dict[str, Any]) -> str:
    cells = list(_cells(figures))
    queries, median = figures.get("queries", ""), figures.get("median_rank", "")
    shown = name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 2]}.."
    return f"{shown:{NAME_WIDTH}} {queries:>7}  {'  '.join(cells)}  {median:>6}  {figures['mean_reciprocal_rank']:.3f}"


def _cells(figures: dict[str, Any]) -> Iterator[str]:
    for name in (*(f"acc@{at}" for at in AT), "mean_percentile"):
        value, interval = figures[name], figures.get(f"{name}_interval")
        text = "-" if value is None else f"{value:5.1f}"
        if interval is not None:
            text += f" [{interval[0]:.1f}, {interval[1]:.1f}]"
        yield f"{text:<{CELL_WIDTH}}"
