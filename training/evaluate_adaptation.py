"""What adapting to a person or a category gains, through the device's own code, guard included (METHODS C.6)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from fgsbir_edge.adapt import AdaptOptions, adapt
from fgsbir_edge.errors import PairsFormatError
from fgsbir_edge.head import Head
from training.episodes import Task, category_tasks, draw, gives, person_tasks
from training.evaluate_table import Table
from training.metrics import accuracy, bootstrap_interval, gallery_ranks

Who = Literal["user", "category"]


@dataclass(frozen=True)
class Protocol:
    """Episodes: `k` support pairs of a task, drawn `draws` times; the sketches of all other photos are the queries."""

    k: int = 5
    draws: int = 10
    seed: int = 0
    options: AdaptOptions = field(default_factory=AdaptOptions)


def adaptation(sketches: np.ndarray, photos: np.ndarray, head: Head, tasks: list[Task], protocol: Protocol) -> dict[str, Any]:
    """Acc@1/5 before and after adapting on k pairs, mean over tasks of the mean over draws.

    "gain@1_interval" is a 95 % bootstrap interval over tasks (over the draws, where there is one task).
    `sketches` [S,C] and `photos` [P,C] are features. "shown" are further sketches of the photos in the support.
    Raises ValueError when a task is too small for k (see `protocol_tasks`).
    """
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number, task in enumerate(tasks):
        gallery = photos[task.gallery]
        base = head.embed(gallery)
        for turn in range(protocol.draws):
            episode = draw(task, protocol.k, np.random.default_rng([protocol.seed, number, turn]))
            truth = task.truth[episode.support]
            others = np.delete(gallery, np.unique(truth), axis=0)
            result = adapt(
                head,
                sketches[task.sketches[episode.support]],
                gallery[truth],
                negatives_features=others,
                candidates=gallery,
                options=protocol.options,
            )
            moved = result.adapter.embed(head, gallery, "photo")
            entry = {"adapted": 100.0 * (result.status == "adapted")}
            for what, positions in (("", episode.query), ("shown ", episode.shown)):
                if not len(positions):
                    continue
                queries, true = sketches[task.sketches[positions]], task.truth[positions]
                before = gallery_ranks(head.embed(queries), base, true)
                after = gallery_ranks(result.adapter.embed(head, queries, "sketch"), moved, true)
                entry |= {
                    f"{what}{when}@{at}": accuracy(r, at) for when, r in (("before", before), ("after", after)) for at in (1, 5)
                }
            rows[task.name].append(entry)
    tables = {name: _mean(entries) for name, entries in rows.items()}
    mean = {key: round(value, 2) for key, value in _mean(list(tables.values())).items()}
    units = tables.values() if len(tables) > 1 else next(iter(rows.values()))  # one task: its draws
    gains = np.array([table["after@1"] - table["before@1"] for table in units])
    interval = [round(value, 2) for value in bootstrap_interval(gains)]
    figures = {**mean, "gain@1_interval": interval, "by_task": tables}
    return {"tasks": len(tables), "k": protocol.k, "draws": protocol.draws, **figures}


def _mean(entries: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every figure over the entries that have it: where everything was drawn once, no photo shown is drawn anew."""
    keys = dict.fromkeys(key for entry in entries for key in entry)
    return {key: float(np.mean([entry[key] for entry in entries if key in entry])) for key in keys}


def protocol_tasks(table: Table, who: Who, k: int) -> list[Task]:
    """One task per person or per category: those that can give k pairs and a query however photos are drawn.

    A task's sketches are rows of `table.pairs`, its gallery rows of `table.photos`. Raises PairsFormatError when no task is
    large enough, or a category's photo is listed under another category too.
    """
    sketch_rows = {pair.sketch: row for row, pair in enumerate(table.pairs)}
    photo_rows = {name: row for row, name in enumerate(table.photos)}
    where = table.folder.root / table.name
    if who == "user":
        tasks = person_tasks(table.pairs, table.photos, sketch_rows, photo_rows)
    else:
        categories = table.photo_category
        for pair in table.pairs:
            if pair.category != categories[pair.photo]:
                raise PairsFormatError(f"{where}: photo {pair.photo!r} is listed under two categories; give it one")
        tasks = category_tasks(table.pairs, categories, sketch_rows, photo_rows)
    large = [task for task in tasks if gives(task, k)]
    if not large:
        raise PairsFormatError(f"{where}: no {who} has {k} sketches to adapt to and another photo to be asked for; lower --k")
    return large
