"""The command ``python -m fgsbir_edge.adapt``: pairs in, adapter out, and how much it helps on queries, before and after."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fgsbir_edge.arguments import finite, positive, prior, whole
from fgsbir_edge.console import Stages, counted, exit_codes, put, put_json, run, say
from fgsbir_edge.errors import NoPairsError
from fgsbir_edge.pairs import DEMO_FOLDER, DataFolder, Pair, draw_support, parse_pair, read_pair_files
from fgsbir_edge.ranking import summary

if TYPE_CHECKING:
    from fgsbir_edge.adapt import AdaptOptions, AdaptResult
    from fgsbir_edge.arrays import Float32
    from fgsbir_edge.engine import Engine
    from fgsbir_edge.formats.drawing import Drawing
    from fgsbir_edge.head import Adapter
    from fgsbir_edge.sketch import Sketch

SHEET_QUERIES = 8  # queries on a contact sheet, two rows each
DESCRIPTION = "Adapt to one person, or one category, from a few sketch-photo pairs; show retrieval before and after."
SOURCES = "--pairs, SKETCH=PHOTO, --data or --demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments, shared by ``python -m fgsbir_edge.adapt`` and ``fgsbir-edge adapt``."""
    pairs = parser.add_argument_group("the pairs to learn from")
    pairs.add_argument("pair", nargs="*", metavar="SKETCH=PHOTO", help="a drawing and the photo it means (gallery name or file)")
    pairs.add_argument("--pairs", metavar="CSV", help="table with columns sketch,photo; sketches are relative to the table")
    pairs.add_argument(
        "--data", metavar="DIR", help="data folder: photos/, sketches/ or strokes.npz, pairs.csv; draws support pairs"
    )
    pairs.add_argument("--demo", action="store_true", help="the person and the photos shipped with the package")
    pairs.add_argument("--user", help="with --data or --demo: one person's pairs (--demo: the first one's unless given)")
    pairs.add_argument("--shots", type=positive, default=5, help="with --data or --demo: pairs drawn to learn from (5)")
    pairs.add_argument("--seed", type=whole, default=0, help="with --data or --demo: which pairs are drawn (0)")
    photos = parser.add_argument_group("the photos")
    add_gallery_arguments(photos)
    photos.add_argument("--category", help="only photos (with --data: and pairs) of this category")
    learning = parser.add_argument_group("the adaptation")
    learning.add_argument("--steps", type=positive, help="gradient steps (as many as were learned)")
    learning.add_argument("--margin", type=finite, help="triplet margin (predicted from the pairs)")
    learning.add_argument("--side", choices=("sketch", "both"), help="which embeddings move (as the head was trained)")
    learning.add_argument("--negatives", choices=("support", "gallery"), help="photos pushed away (as the head was trained)")
    common = "sketches lose k/(k+P) of what the k shown have in common; inf: nothing (as the head was trained)"
    learning.add_argument("--centre", type=prior, metavar="P", help=common)
    learning.add_argument("--start", metavar="FILE", help="what 'zero-sketch' wrote for this category; fades as pairs come")
    learning.add_argument("--no-guard", action="store_true", help="use the adapter even where it is worse on left-out pairs")
    output = parser.add_argument_group("what comes out")
    output.add_argument("--queries", metavar="CSV", help="table with columns sketch,photo to evaluate on, before and after")
    output.add_argument("--output", metavar="FILE", help="write the adapter (safetensors)")
    output.add_argument("--sheet", metavar="PNG", help="write a contact sheet of queries, before and after")
    output.add_argument("--json", action="store_true", help="print one JSON object")


def add_gallery_arguments(group: argparse._ArgumentGroup) -> None:
    """Where the model and the photos are; shared with ``fgsbir-edge query``."""
    group.add_argument("--bundle", metavar="DIR", help="model folder (the one in the package)")
    group.add_argument("--gallery", metavar="FILE", help="gallery made by 'fgsbir-edge index'")
    group.add_argument("--photos", metavar="DIR", help="folder of photos; indexed in memory, or into --gallery where given too")
    group.add_argument("--threads", type=positive, help="processor threads (the cores there are, at most 4)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code. Wrong usage exits with 2 through argparse."""
    stages = Stages()
    parser = argparse.ArgumentParser(
        prog="python -m fgsbir_edge.adapt",
        description=DESCRIPTION,
        epilog=exit_codes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parsed = parser.parse_args(arguments)
    check_usage(parser, parsed)
    return run(lambda: adapt_command(parsed, stages))


def check_usage(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Combinations that mean nothing end with argparse's exit code 2 and the remedy."""
    chosen = sum((bool(arguments.pair or arguments.pairs), arguments.data is not None, arguments.demo))
    if chosen > 1:
        parser.error(f"give pairs in one way: {SOURCES}")
    from_folder = arguments.data is not None or arguments.demo
    if from_folder and arguments.photos is not None:
        parser.error("--data and --demo bring their own photos; drop --photos")
    if from_folder and arguments.queries is not None:
        parser.error("--data and --demo use the pairs that were not drawn as queries; drop --queries")
    if not from_folder and arguments.gallery is None and arguments.photos is None:
        parser.error("say where the photos are: --gallery FILE or --photos DIR")
    if not from_folder and arguments.user is not None:
        parser.error("--user goes with --data or --demo")
    if not from_folder and arguments.sheet is not None and arguments.queries is None:
        parser.error("--sheet shows queries; give --queries CSV")


@dataclass(frozen=True)
class Task:
    """Pairs to learn from and to be judged by, and where their sketches are."""

    title: str
    support: Sequence[Pair]
    queries: Sequence[Pair]
    folder: DataFolder | None
    others: Sequence[str] = ()  # people of the demo who were not asked for

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Task:
        """Read the pairs that the arguments name. Raises PairsFormatError, NoPairsError."""
        if arguments.data is None and not arguments.demo:
            support = [parse_pair(text) for text in arguments.pair]
            support += read_pair_files(arguments.pairs) if arguments.pairs else []
            if not support:
                raise NoPairsError(f"no sketch-photo pairs; give at least one with {SOURCES}")
            return cls("your pairs", support, read_pair_files(arguments.queries) if arguments.queries else [], None)
        folder = DataFolder.open(DEMO_FOLDER if arguments.demo else arguments.data)
        user = arguments.user
        if arguments.demo and user is None and folder.users:
            user = folder.users[0]
        pairs = folder.select(user, arguments.category)
        support, queries = draw_support(pairs, arguments.shots, arguments.seed)
        title = ", ".join(
            part for part in (user and f"person {user}", arguments.category and f"category {arguments.category}") if part
        )
        others = [other for other in folder.users if arguments.demo and other != user]
        return cls(title or "all pairs", support, queries, folder, others)

    def sketches(self, pairs: Sequence[Pair]) -> list[Sketch | Drawing]:
        """Read the sketches of pairs. Raises what the readers raise."""
        if self.folder is not None:
            return [self.folder.sketch(pair.sketch) for pair in pairs]
        from fgsbir_edge.preprocess import as_sketch

        return [as_sketch(pair.sketch) for pair in pairs]


@dataclass(frozen=True)
class Outcome:
    """Features of the queries, and their ranks under the base head and under the head in force."""

    sketches: Sequence[Sketch | Drawing]
    features: Float32
    before: Sequence[int]
    after: Sequence[int]


def adapt_command(arguments: argparse.Namespace, stages: Stages) -> int:
    """Load, index, encode, adapt, search; files are written only after everything else succeeded."""
    with stages.stage("load"):
        task = Task.of(arguments)
        engine = _open(arguments)
    with engine:
        with stages.stage("index"):
            _index(engine, arguments, task)
        result, outcome = _solve(engine, task, arguments, stages)
        if arguments.sheet is not None:
            with stages.stage("sheet"):
                _write_sheet(arguments.sheet, engine, task, outcome, result.adapter, arguments.category)
        if arguments.output is not None:
            result.adapter.save(arguments.output)
        facts = _facts(engine, task, result, outcome, stages)
    facts |= {"output": arguments.output, "sheet": arguments.sheet}
    if arguments.json:
        put_json(facts)
    else:
        put(_text(facts, stages, task.others))
    return 0


def _open(arguments: argparse.Namespace) -> Engine:
    from fgsbir_edge.engine import Engine

    create = bool(arguments.photos or arguments.data or arguments.demo)
    return Engine.open(bundle=arguments.bundle, gallery=arguments.gallery, threads=arguments.threads, create=create)


def _index(engine: Engine, arguments: argparse.Namespace, task: Task) -> None:
    if task.folder is not None:
        index_photos(engine, task.folder.photos, task.folder.photo_categories)
    elif arguments.photos is not None:
        index_photos(engine, arguments.photos)


def index_photos(engine: Engine, folder: str | os.PathLike[str], categories: dict[str, str] | None = None) -> None:
    """Bring the gallery up to date with a folder, and say what was left out."""
    report = engine.index(folder, category=categories or "folder", on_error=lambda _, error: say(f"skipped: {error}"))
    say_others(report.others)


def say_others(others: Mapping[str, int]) -> None:
    """A line of talk on pictures of kinds that are not read."""
    if others:
        counts = ", ".join(f"{count} {ending}" for ending, count in others.items())
        say(f"left out: {counts}; only JPEG, PNG, WebP and BMP are read: convert them")


def _options(arguments: argparse.Namespace) -> AdaptOptions:
    from fgsbir_edge.adapt import AdaptOptions

    return AdaptOptions(
        steps=arguments.steps,
        margin=arguments.margin,
        side=arguments.side,
        negatives=arguments.negatives,
        centre=arguments.centre,
        guard=not arguments.no_guard,
    )


def _solve(engine: Engine, task: Task, arguments: argparse.Namespace, stages: Stages) -> tuple[AdaptResult, Outcome]:
    """Adapt and evaluate. Names are looked up before anything is encoded, so that a misspelt one costs nothing."""
    gallery, head, category = engine.gallery, engine.head, arguments.category
    start = None if arguments.start is None else engine.load_adapter(arguments.start)
    true = [pair.photo for pair in task.queries]
    gallery.index.select(category)
    gallery.positions(true)
    with stages.stage("encode"):
        photos = engine.photo_features([pair.photo for pair in task.support])
        support = engine.encode_sketches(task.sketches(task.support))
        queries = task.sketches(task.queries)
        features = engine.encode_sketches(queries)
    result = engine.adapt_features(support, photos, options=_options(arguments), category=category, start=start)
    stages.millis |= {"adapt": result.millis, "guard": result.guard_millis}
    before: list[int] = []
    after: list[int] = []
    if queries:
        with stages.stage("search"):
            before = gallery.ranks(features, true, head=head, category=category)
            after = gallery.ranks(features, true, head=head, adapter=result.adapter, category=category)
    return result, Outcome(queries, features, before, after)


def _facts(engine: Engine, task: Task, result: AdaptResult, outcome: Outcome, stages: Stages) -> dict[str, Any]:
    guard, recipe = result.guard, result.recipe
    return {
        "task": task.title,
        "bundle": {"name": engine.bundle.name, "encoder": engine.bundle.encoder_sha256, "head": engine.head.digest},
        "pairs": len(task.support),
        "support": [{"sketch": pair.sketch, "photo": pair.photo} for pair in task.support],
        "queries": len(task.queries),
        "gallery": len(engine.gallery),
        "skipped": [name for name, _ in engine.skipped],
        "before": summary(outcome.before) if outcome.before else None,
        "after": summary(outcome.after) if outcome.after else None,
        "status": result.status,
        "reason": result.reason,
        "explanation": result.explanation,
        "side": recipe.side,
        "negatives": recipe.negatives,
        "centre": recipe.centre if math.isfinite(recipe.centre) else None,
        "steps": len(recipe.step_sizes),
        "margin": result.margin,
        "losses": [loss if math.isfinite(loss) else None for loss in result.losses],
        "guard": {
            "base_rank": guard.base_rank,
            "adapted_rank": guard.adapted_rank,
            "candidates": guard.candidates,
            "note": guard.note,
        },
        "adapter_rank": result.adapter.rank,
        "millis": stages.rounded(),
    }


def _text(facts: dict[str, Any], stages: Stages, others: Sequence[str]) -> str:
    margin = "" if facts["margin"] is None else f", margin {facts['margin']:.3f}"
    pairs, queries = counted(facts["pairs"], "pair"), counted(facts["queries"], "query", "queries")
    counts = f"{pairs} to learn from, {queries}, gallery of {counted(facts['gallery'], 'photo')}"
    lines = [f"{facts['task']}: {counts}"]
    if facts["before"] is None:
        lines.append("no queries: give --queries CSV to see retrieval before and after")
    else:
        lines.append("          Acc@1   Acc@5   mean rank")
        for name in ("before", "after"):
            row = facts[name]
            lines.append(f"{name:<8} {100 * row['acc@1']:5.1f} % {100 * row['acc@5']:5.1f} % {row['mean_rank']:8.2f}")
    lines.append(facts["explanation"])
    if facts["status"] == "adapted":
        centre = "" if facts["centre"] is None else f", centred: p {facts['centre']:.3g}"
        lines.append(f"moved: {facts['side']}{centre}, negatives: {facts['negatives']}, steps: {facts['steps']}{margin}")
    lines.append(f"time in ms: {stages}")
    if others:
        lines.append(f"one person says little; the others: {' and '.join(f'fgsbir-edge demo --user {user}' for user in others)}")
    lines += [f"{what}: {facts[key]}" for what, key in (("adapter", "output"), ("contact sheet", "sheet")) if facts[key]]
    return "\n".join(lines)


def _write_sheet(path: str, engine: Engine, task: Task, outcome: Outcome, adapter: Adapter, category: str | None) -> None:
    """Two rows a query, before and after; those whose rank changed most come first."""
    from fgsbir_edge.sheet import TOP, Row, sketch_picture, write_sheet

    order = sorted(range(len(outcome.before)), key=lambda i: -abs(outcome.before[i] - outcome.after[i]))[:SHEET_QUERIES]
    rows = []
    if order:
        features, head = outcome.features[order], engine.head
        before = engine.gallery.search(features, TOP, head=head, category=category)
        after = engine.gallery.search(features, TOP, head=head, adapter=adapter, category=category)
        for i, base, adapted in zip(order, before, after, strict=True):
            picture, true = sketch_picture(outcome.sketches[i]), task.queries[i].photo
            for name, hits, rank in (("before", base, outcome.before[i]), ("after", adapted, outcome.after[i])):
                rows.append(Row(f"{name}\nrank {rank}", picture, hits, true, rank))
    shown = f"{len(order)} of {len(outcome.before)} queries, those whose rank changed most first"
    write_sheet(path, f"{task.title}, {len(task.support)} pairs; {shown}", rows, engine.gallery)
