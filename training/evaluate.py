"""Retrieval figures of a bundle or a checkpoint on any dataset folder: ``python -m training.evaluate --model M --data DIR``.

Without ``--protocol``: every sketch searched in the gallery (METHODS A.4; for folders with several categories the gallery of a
query is its own category's photos unless ``--gallery all``). With ``--protocol user|category``: k random pairs of each person
or category adapt the head through the device's own code, guard included; the sketches of all other photos are the queries
(METHODS C.6).
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from fgsbir_edge.adapt import AdaptOptions, adapt
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.console import put_json, run
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.errors import BundleMissingFileError
from fgsbir_edge.head import Head
from fgsbir_edge.preprocess import InputSpec
from training.data.folder import PairsFolder
from training.episodes import Task, category_tasks, draw, person_tasks
from training.evaluation import Encode, encode_photos, encode_sketches, pair_ranks, torch_encode
from training.metrics import accuracy, bootstrap_interval, gallery_ranks


def open_model(path: Path, threads: int) -> tuple[Encode, Head, InputSpec]:
    """Features of a bundle (through ONNX Runtime) or of a checkpoint (through PyTorch), its head and its input."""
    if not path.exists():
        raise BundleMissingFileError(f"{path}: neither a bundle folder nor a checkpoint; check --model")
    if path.is_dir():
        bundle = Bundle.load(path)
        return OnnxEncoder(bundle, threads=threads).encode, bundle.head, bundle.input
    import torch

    from training.checkpoint import load_model
    from training.heads import runtime_head

    torch.set_num_threads(threads)
    encoder, _, meta = load_model(path)
    return torch_encode(encoder), runtime_head(path), InputSpec.from_manifest(meta["input"])


def figures_of(ranks: np.ndarray, gallery: np.ndarray | int) -> dict[str, Any]:
    """Acc@1/5/10 in percent with a 95 % bootstrap interval of Acc@1, and the mean percentile rank."""
    low, high = bootstrap_interval(100.0 * (ranks <= 1))
    percentile = 100.0 * float(np.mean((gallery - ranks) / np.maximum(np.asarray(gallery) - 1, 1)))
    return {
        "queries": len(ranks),
        **{f"acc@{at}": round(accuracy(ranks, at), 2) for at in (1, 5, 10)},
        "acc@1_interval": [round(low, 2), round(high, 2)],
        "mean_percentile": round(percentile, 2),
    }


def retrieval(folder: PairsFolder, encode: Encode, head: Head, spec: InputSpec, *, per_category: bool) -> dict[str, Any]:
    """Figures over all pairs, and by category and user where there are several."""
    names = sorted(folder.photo_category)
    rows = head.embed(encode_photos(folder, names, encode, spec))
    sketches = head.embed(encode_sketches(folder, [pair.sketch for pair in folder.pairs], encode, spec))
    ranks = pair_ranks(folder, folder.pairs, sketches, dict(zip(names, rows, strict=True)), per_category=per_category)
    count: dict[str, int] = defaultdict(int)
    for name in names:
        count[folder.photo_category[name] if per_category else ""] += 1
    gallery = np.array([count[pair.category if per_category else ""] for pair in folder.pairs])
    result: dict[str, Any] = {"gallery": len(names), **figures_of(ranks, gallery)}
    for key in ("category", "user"):
        values = np.array([getattr(pair, key) for pair in folder.pairs])
        if len(set(values)) > 1:
            result[f"by_{key}"] = {
                name: figures_of(ranks[values == name], gallery[values == name]) for name in sorted(set(values))
            }
    return result


def adaptation(
    sketches: np.ndarray,
    photos: np.ndarray,
    head: Head,
    tasks: list[Task],
    *,
    k: int,
    draws: int,
    options: AdaptOptions,
    seed: int,
) -> dict[str, Any]:
    """Acc@1/5 before and after adapting on k pairs, mean over tasks of the mean over draws.

    "gain@1_interval" is a 95 % bootstrap interval over tasks (over the draws, where there is one task).
    `sketches` [S,C] and `photos` [P,C] are features. "shown" are further sketches of the photos in the support.
    """
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number, task in enumerate(tasks):
        gallery = photos[task.gallery]
        base = head.embed(gallery)
        for turn in range(draws):
            episode = draw(task, k, np.random.default_rng([seed, number, turn]))
            truth = task.truth[episode.support]
            others = np.delete(gallery, np.unique(truth), axis=0)
            result = adapt(
                head,
                sketches[task.sketches[episode.support]],
                gallery[truth],
                negatives_features=others,
                candidates=gallery,
                options=options,
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
    return {"tasks": len(tables), "k": k, "draws": draws, **mean, "gain@1_interval": interval, "by_task": tables}


def _mean(entries: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every figure over the entries that have it: where everything was drawn once, no photo shown is drawn anew."""
    keys = dict.fromkeys(key for entry in entries for key in entry)
    return {key: float(np.mean([entry[key] for entry in entries if key in entry])) for key in keys}


def protocol_tasks(folder: PairsFolder, protocol: str, k: int) -> list[Task]:
    """One task per person or per category, those that can give k pairs and a query."""
    sketch_rows = {pair.sketch: row for row, pair in enumerate(folder.pairs)}
    photo_rows = {name: row for row, name in enumerate(sorted(folder.photo_category))}
    if protocol == "user":
        tasks = person_tasks(folder.pairs, sorted(folder.photo_category), sketch_rows, photo_rows)
    else:
        tasks = category_tasks(folder.pairs, folder.photo_category, sketch_rows, photo_rows)
    return [task for task in tasks if len(task.sketches) > k and len(np.unique(task.truth)) > 1]


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    options.add_argument("--model", type=Path, required=True, help="bundle folder, or checkpoint .safetensors")
    options.add_argument("--data", type=Path, required=True, help="dataset folder: photos/, sketches/ or strokes.npz, pairs.csv")
    options.add_argument("--pairs", default="pairs.csv", help="name of the pairs table inside the folder")
    options.add_argument("--gallery", choices=("category", "all"), default="category")
    options.add_argument("--protocol", choices=("user", "category"), help="measure adaptation")
    options.add_argument("--k", type=int, default=5)
    options.add_argument("--draws", type=int, default=10)
    options.add_argument("--side", choices=("sketch", "both"))
    options.add_argument("--negatives", choices=("support", "gallery"))
    options.add_argument("--no-guard", action="store_true")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--seed", type=int, default=0)
    arguments = options.parse_args()
    return run(lambda: evaluate(arguments))


def evaluate(arguments: argparse.Namespace) -> int:
    """Measure and print one JSON object."""
    folder = PairsFolder.read(arguments.data, arguments.pairs)
    encode, head, spec = open_model(arguments.model, arguments.threads)
    if arguments.protocol is None:
        result = retrieval(folder, encode, head, spec, per_category=arguments.gallery == "category")
    else:
        result = adaptation(
            encode_sketches(folder, [pair.sketch for pair in folder.pairs], encode, spec),
            encode_photos(folder, sorted(folder.photo_category), encode, spec),
            head,
            protocol_tasks(folder, arguments.protocol, arguments.k),
            k=arguments.k,
            draws=arguments.draws,
            options=AdaptOptions(side=arguments.side, negatives=arguments.negatives, guard=not arguments.no_guard),
            seed=arguments.seed,
        )
    put_json({"model": arguments.model.name, "data": arguments.data.name, **result})
    return 0


if __name__ == "__main__":
    sys.exit(main())
