"""Retrieval figures of a bundle or a checkpoint on any dataset folder: ``python -m training.evaluate --model M --data DIR``.

Without ``--protocol``: every sketch searched in the gallery (METHODS A.4; for folders with several categories the gallery of a
query is its own category's photos unless ``--gallery all``). With ``--protocol user|category``: k random pairs of each person
or category adapt the head through the device's own code, guard included; the sketches of all other photos are the queries
(METHODS C.6). One JSON object goes to stdout, a table for people to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fgsbir_edge.adapt import AdaptOptions
from fgsbir_edge.arguments import whole
from fgsbir_edge.console import put_json, run, say
from fgsbir_edge.encoder.onnx import default_threads
from fgsbir_edge.files import write_atomic
from fgsbir_edge.head import Head
from fgsbir_edge.preprocess import InputSpec
from training.contact_sheet import SheetOptions, write_sheet
from training.evaluate_adaptation import Protocol, adaptation, protocol_tasks
from training.evaluate_model import open_model, open_sketches
from training.evaluate_output import beside, ensure_parent, text_table, write_ranks
from training.evaluate_retrieval import Bootstrap, Search, retrieval
from training.evaluate_table import Table
from training.evaluation import BATCH, Encode, Reading, Rows, encode_rows, photo_encode, photo_input, sketch_input


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="python -m training.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = options.add_argument
    add("--model", type=Path, required=True, help="bundle folder, or checkpoint .safetensors")
    add("--data", type=Path, required=True, help="dataset folder: photos/, sketches/ or strokes.npz, pairs.csv")
    add("--pairs", action="append", metavar="NAME", help="pairs table in the folder (pairs.csv); may be given several times")
    add("--gallery", choices=("category", "all"), default="category", help="photos of the query's category (default), or all")
    add("--bootstrap", choices=("photo", "query"), default="photo", help="what intervals resample (default: photo)")
    add("--seed", type=int, default=0, help="of resamples and episodes")
    read = options.add_argument_group("reading")
    read.add_argument("--threads", type=_count, default=default_threads(), help="of the encoder and of decoding images")
    read.add_argument("--batch", type=_count, default=BATCH, help=f"images encoded at a time ({BATCH})")
    read.add_argument("--skip-unreadable", action="store_true", help="leave out damaged or missing images, and say which")
    out = options.add_argument_group("output")
    out.add_argument("--table", action="store_true", help="list every category and user on stderr")
    out.add_argument("--output", type=Path, metavar="FILE.json", help="write the JSON object to a file too")
    out.add_argument("--ranks", type=Path, metavar="FILE.csv", help="write one row a query")
    out.add_argument("--sheet", type=Path, metavar="FILE.png", help="draw the best and the worst queries")
    out.add_argument(
        "--sheet-rows", metavar="N", type=partial(_count, limit=100), default=12, help="best and worst queries, N each (12)"
    )
    out.add_argument("--sheet-top", metavar="K", type=partial(_count, limit=50), default=8, help="photos a row (8)")
    episodes = options.add_argument_group("adaptation")
    episodes.add_argument("--protocol", choices=("user", "category"), help="measure adaptation instead")
    episodes.add_argument("--k", type=_count, default=5, help="pairs to adapt to (5)")
    episodes.add_argument("--draws", type=_count, default=10, help="episodes of each person or category (10)")
    episodes.add_argument("--side", choices=("sketch", "both"))
    episodes.add_argument("--negatives", choices=("support", "gallery"))
    episodes.add_argument("--no-guard", action="store_true")
    return options


def _count(text: str, limit: int = 1000) -> int:
    """A number of things, from 1 to `limit`."""
    value = whole(text)
    if not 1 <= value <= limit:
        raise argparse.ArgumentTypeError(f"{value} is not between 1 and {limit}")
    return value


Side = tuple[Encode, InputSpec]


def _embedding(head: Head, side: Side) -> Side:
    encode, spec = side
    return lambda pixels: head.embed(encode(pixels)), spec


@dataclass(frozen=True, eq=False)
class Encoded:
    """Rows of all photos and sketches of some tables, by name."""

    photos: Rows
    sketches: Rows

    @classmethod
    def of(cls, tables: list[Table], large: Side, drawn: Side, reading: Reading) -> Encoded:
        """Read and encode every file once, however many tables name it: photos by `large`, sketches by `drawn`.

        Each photo is encoded once: `large` itself takes the mean over shifted copies. Raises what reading and encoding raise.
        """
        encode, spec = large
        folder = tables[0].folder
        names = sorted({name for table in tables for name in table.photos})
        keys = list(dict.fromkeys(key for table in tables for key in table.sketches))
        return cls(
            encode_rows(names, partial(photo_input, folder, spec=spec), encode, replace(reading, progress="photos")),
            encode_rows(keys, partial(sketch_input, folder, spec=drawn[1]), drawn[0], replace(reading, progress="sketches")),
        )

    def rows_of(self, table: Table) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the sketches in the order of the table's pairs, and of its photos."""
        photo = {name: row for row, name in enumerate(self.photos.names)}
        sketch = {name: row for row, name in enumerate(self.sketches.names)}
        sketches = self.sketches.rows[[sketch[pair.sketch] for pair in table.pairs]]
        return sketches, self.photos.rows[[photo[name] for name in table.photos]]


def evaluate(arguments: argparse.Namespace) -> int:
    """Measure, print one JSON object, and write the files asked for."""
    for path in (arguments.output, arguments.ranks, arguments.sheet):
        if path is not None:
            ensure_parent(path)
    gallery = {"user": "all", "category": "category", None: arguments.gallery}[arguments.protocol]
    names = list(dict.fromkeys(arguments.pairs or ["pairs.csv"]))
    tables = [Table.read(arguments.data, name, gallery) for name in names]
    for note in (note for table in tables for note in table.notes):
        say(f"note: {note}")
    encode, head, spec = open_model(arguments.model, arguments.threads)
    reading = Reading(arguments.batch, arguments.threads, arguments.skip_unreadable)
    sides = ((photo_encode(encode, spec), spec), open_sketches(arguments.model, arguments.threads, (encode, spec)))
    if arguments.protocol is None:  # only embeddings are needed, which are smaller than features
        sides = (_embedding(head, sides[0]), _embedding(head, sides[1]))
    encoded = Encoded.of(tables, *sides, reading)
    for reason in (*encoded.photos.skipped.values(), *encoded.sketches.skipped.values()):
        say(f"skipped: {reason}")
    tables = [table.without(encoded.photos.skipped, encoded.sketches.skipped) for table in tables]
    results, searches = {}, []
    for table in tables:
        sketches, photos = encoded.rows_of(table)
        if arguments.protocol is None:
            searches.append(Search(table, sketches, photos))
            results[table.name] = retrieval(searches[-1], Bootstrap(arguments.bootstrap, seed=arguments.seed))
        else:
            tasks = protocol_tasks(table, arguments.protocol, arguments.k)
            options = AdaptOptions(side=arguments.side, negatives=arguments.negatives, guard=not arguments.no_guard)
            protocol = Protocol(arguments.k, arguments.draws, arguments.seed, options)
            results[table.name] = adaptation(sketches, photos, head, tasks, protocol)
    result: dict[str, Any] = {
        "model": arguments.model.resolve().name,
        "data": arguments.data.resolve().name,
        "skipped": {"photos": sorted(encoded.photos.skipped), "sketches": sorted(encoded.sketches.skipped)},
    }
    result |= {"tables": results} if len(tables) > 1 else {"pairs": tables[0].name, **results[tables[0].name]}
    put_json(result)  # before any file: a disk that is full does not lose the figures
    if arguments.output is not None:
        write_atomic(arguments.output, (json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode())
    for search in searches:
        _present(search, results[search.table.name], spec, arguments, several=len(searches) > 1)
    return 0


def _present(search: Search, figures: dict[str, Any], spec: InputSpec, arguments: argparse.Namespace, *, several: bool) -> None:
    """The text, CSV and sheet of one table."""
    name = search.table.name
    title = f"{arguments.model.resolve().name} on {arguments.data.resolve().name}/{name}"
    say(text_table(title, figures, groups=arguments.table))
    if arguments.ranks is not None:
        write_ranks(beside(arguments.ranks, name, several), search.ranking)
    if arguments.sheet is not None:
        sheet = SheetOptions(arguments.sheet_rows, arguments.sheet_top)
        write_sheet(beside(arguments.sheet, name, several), title, search, spec, sheet)


def main() -> int:
    options = parser()
    arguments = options.parse_args()
    if arguments.protocol is not None and (arguments.ranks is not None or arguments.sheet is not None):
        options.error("--ranks and --sheet show a plain search; leave out --protocol")
    return run(lambda: evaluate(arguments))


if __name__ == "__main__":
    sys.exit(main())
