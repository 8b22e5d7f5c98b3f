"""The command ``fgsbir-edge``: samples, index, query, feedback, people, adapt and more. Thin: the engine does the work."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from fgsbir_edge import adapt_cli, bench_cli, people_cli, samples, serve_cli, zero_sketch_cli
from fgsbir_edge.adapt_cli import add_gallery_arguments, index_photos, say_others
from fgsbir_edge.arguments import positive, share
from fgsbir_edge.console import Stages, exit_codes, put, put_json, run, say, whole_process
from fgsbir_edge.engine_cli import ENGINES, add_engine_commands
from fgsbir_edge.errors import EmptyGalleryError, UnreadableImageError
from fgsbir_edge.fleet_cli import FLEET, add_fleet_commands
from fgsbir_edge.gallery_cli import GALLERY, add_filter_arguments, add_gallery_commands, say_missing

if TYPE_CHECKING:
    from fgsbir_edge.confidence import Answer
    from fgsbir_edge.gallery import Hit

Command = Callable[[argparse.Namespace, Stages], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. Wrong usage exits with 2 through argparse."""
    stages = Stages()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["demo"]:  # everything that adapt takes, over the shipped person
        words = ["adapt", "--demo", *words[1:]]
    parser, adapt_parser = _parser()
    parsed = parser.parse_args(words)
    if parsed.command == "adapt":
        adapt_cli.check_usage(adapt_parser, parsed)
    elif parsed.command == "query" and parsed.gallery is None and parsed.photos is None:
        parser.error("say where the photos are: --gallery FILE or --photos DIR")
    command: Command = parsed.run
    return run(lambda: command(parsed, stages))


def _parser() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(
        prog="fgsbir-edge",
        description="Find the one photo that a hand-drawn sketch means.",
        epilog=exit_codes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, function: Command, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text, epilog="exit codes: see fgsbir-edge --help")
        one.set_defaults(run=function)
        return one

    samples.add_arguments(add("samples", samples.samples_command, samples.DESCRIPTION))
    index = add("index", _index, "Add a folder's photos to a gallery file; run again to resume or to bring it up to date.")
    index.add_argument("folder", help="folder of photos: JPEG, PNG, WebP, BMP")
    index.add_argument("--gallery", metavar="FILE", required=True, help="gallery file; made where there is none")
    index.add_argument("--bundle", metavar="DIR", help="model folder (the one in the package)")
    index.add_argument("--category", default="folder", help="'folder': the sub-folder's name (default); or one name for all")
    index.add_argument("--metadata", metavar="TABLE", help="what is known of the photos: .csv with a column 'name', or .jsonl")
    index.add_argument("--no-recursive", action="store_true", help="leave sub-folders out")
    index.add_argument("--threads", type=positive, help="processor threads (the cores there are, at most 4)")

    listing = add("list", _list, "List a gallery's photos: name and category, tab-separated.")
    listing.add_argument("--gallery", metavar="FILE", required=True)
    add_filter_arguments(listing)

    remove = add("remove", _remove, "Remove photos from a gallery; nothing of them stays in the file.")
    remove.add_argument("names", nargs="+", metavar="NAME", help="as 'list' prints them")
    remove.add_argument("--gallery", metavar="FILE", required=True)

    columns = "rank, distance, name, category and confidence, tab-separated"
    query = add("query", _query, f"Find the photos nearest to a sketch, and print them: {columns}.")
    query.add_argument("sketch", help="SVG, ndjson, npz, npy, pickle of QMUL coordinates, or an image of a drawing")
    add_gallery_arguments(query.add_argument_group("the photos"))
    add_filter_arguments(query)
    learned = query.add_mutually_exclusive_group()
    learned.add_argument("--adapter", metavar="FILE", help="made by 'adapt'")
    learned.add_argument("--person", metavar="NAME", help="by what 'feedback' has learned of this person")
    query.add_argument("--top", type=positive, default=10, help="how many photos (10)")
    query.add_argument("--none-below", type=share, metavar="P", help="'perhaps none of these' where less sure than P, 0 to 1")
    query.add_argument("--true", metavar="PHOTO", help="the photo that is meant: prints its rank, and frames it on the sheet")
    query.add_argument("--sheet", metavar="PNG", help="write a contact sheet")

    people_cli.add_feedback_arguments(add("feedback", people_cli.feedback_command, people_cli.FEEDBACK))
    people_cli.add_people_commands(commands.add_parser("people", help=people_cli.PEOPLE, description=people_cli.PEOPLE))
    add_gallery_commands(commands.add_parser("gallery", help=GALLERY, description=GALLERY))
    add_fleet_commands(commands.add_parser("fleet", help=FLEET, description=FLEET))
    adapt = add("adapt", adapt_cli.adapt_command, adapt_cli.DESCRIPTION)
    adapt_cli.add_arguments(adapt)
    commands.add_parser("demo", help="adapt over the person and the photos shipped with the package; takes what adapt takes")
    zero_sketch_cli.add_arguments(add("zero-sketch", zero_sketch_cli.zero_sketch_command, zero_sketch_cli.DESCRIPTION))
    add_engine_commands(commands.add_parser("engine", help=ENGINES, description=ENGINES))
    bench = add("bench", bench_cli.bench_command, bench_cli.DESCRIPTION)
    bench_cli.add_arguments(bench)
    serve_cli.add_arguments(commands.add_parser("serve", help=serve_cli.DESCRIPTION, description=serve_cli.DESCRIPTION))
    doctor = add("doctor", _doctor, "Say what is installed, what is missing and whether that matters.")
    deeper = doctor.add_mutually_exclusive_group()
    deeper.add_argument("--selftest", action="store_true", help="try all that is here against the processor's answers")
    deeper.add_argument("--gallery", metavar="FILE", help="look for faults in this gallery too")
    doctor.add_argument("--bundle", metavar="DIR", help="with --selftest: model folder (the one in the package)")
    for one in (index, listing, remove, query, doctor):
        one.add_argument("--json", action="store_true", help="print one JSON object")
    return parser, adapt


def _index(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.engine import Engine
    from fgsbir_edge.gallery.metadata_table import read_metadata_table

    table = {} if arguments.metadata is None else read_metadata_table(arguments.metadata)
    fresh = not os.path.exists(arguments.gallery) or os.path.getsize(arguments.gallery) == 0
    with Engine.open(bundle=arguments.bundle, gallery=arguments.gallery, threads=arguments.threads, create=True) as engine:
        try:
            report = engine.index(
                arguments.folder,
                recursive=not arguments.no_recursive,
                category=arguments.category,
                on_error=lambda _, error: say(f"skipped: {error}"),
            )
            say_others(report.others)
            say_missing(engine.gallery.set_metadata(table, skip_missing=True))
        finally:
            total = len(engine.gallery)
            if fresh and total == 0:  # nothing came of it: leave nothing behind
                engine.close()
                os.unlink(arguments.gallery)
    if total == 0:
        if report.failed:
            raise UnreadableImageError(f"{arguments.folder}: none of its {report.found} photos can be read; see the lines above")
        raise EmptyGalleryError(f"{arguments.folder}: no JPEG, PNG, WebP or BMP photos in it; give a folder that has some")
    facts = {"added": report.added, "updated": report.updated, "unchanged": report.unchanged, "photos": total}
    if arguments.json:
        skipped = [name for name, _ in report.failed]
        put_json({"gallery": arguments.gallery, **facts, "skipped": skipped, "left_out": report.others})
    else:
        counts = f"{report.added} added, {report.updated} updated, {report.unchanged} unchanged, {len(report.failed)} skipped"
        put(f"{arguments.gallery}: {counts}; {total} photos")
    return 0


def _list(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.gallery import Gallery

    with Gallery.open(arguments.gallery, None) as gallery:
        items = gallery.items(category=arguments.category, where=arguments.where)
    if arguments.json:
        fields = ("name", "category", "source", "size", "sha256", "added_at")
        put_json({"photos": [{field: getattr(item, field) for field in fields} for item in items]})
    else:
        for item in items:
            put(f"{item.name}\t{item.category or ''}")
    return 0


def _remove(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.gallery import Gallery

    with Gallery.open(arguments.gallery, None) as gallery:
        gallery.remove(arguments.names)
        total = len(gallery)
    if arguments.json:
        put_json({"removed": arguments.names, "photos": total})
    else:
        put(f"{arguments.gallery}: {len(arguments.names)} removed, {total} photos")
    return 0


def _query(arguments: argparse.Namespace, stages: Stages) -> int:
    from fgsbir_edge.confidence import answer, wanted
    from fgsbir_edge.engine import Engine
    from fgsbir_edge.preprocess import as_sketch

    with stages.stage("load"):
        sketch = as_sketch(arguments.sketch)
        create = arguments.photos is not None
        engine = Engine.open(bundle=arguments.bundle, gallery=arguments.gallery, threads=arguments.threads, create=create)
    with engine:
        adapter = None if arguments.adapter is None else engine.load_adapter(arguments.adapter)
        if arguments.photos is not None:
            with stages.stage("index"):
                index_photos(engine, arguments.photos)
        if arguments.person is not None:
            adapter = engine.learner.adapter(arguments.person)
        chosen = {"category": arguments.category, "where": arguments.where}
        search: dict[str, Any] = {"head": engine.head, "adapter": adapter, **chosen}
        engine.gallery.select(**chosen)
        with stages.stage("encode"):
            features = engine.encode_sketches([sketch])
        with stages.stage("search"):
            found = engine.gallery.search(features, wanted(arguments.top, engine.confidence), **search)[0]
            hits = answer(found, arguments.top, engine.confidence, adapter=adapter, none_below=arguments.none_below)
        true = None if arguments.true is None else engine.gallery.name_of(arguments.true) or arguments.true
        rank = None if true is None else engine.gallery.ranks(features, [true], **search)[0]
        if arguments.sheet is not None:
            from fgsbir_edge.sheet import TOP, Row, sketch_picture, write_sheet

            row = Row("query" if rank is None else f"query\nrank {rank}", sketch_picture(sketch), hits[:TOP], true, rank)
            write_sheet(arguments.sheet, os.path.basename(arguments.sketch), [row], engine.gallery)
    if arguments.json:
        facts = {"hits": [_hit(hit) for hit in hits], "true": true, "rank": rank, "millis": stages.rounded()}
        put_json({"sketch": arguments.sketch, **_belief(hits), **facts})
        return 0
    for hit in hits:
        sure = "" if hit.confidence is None else f"\t{hit.confidence:.3f}"
        put(f"{hit.rank}\t{hit.distance:.4f}\t{hit.name}\t{hit.category or ''}{sure}")
    if rank is not None:
        put(f"true photo {true}: rank {rank}")
    if hits.in_gallery is not None:
        belief = f"{100 * hits.in_gallery:.0f} %"
        sure = f"{belief} sure that the photo you mean is in the gallery"
        say(sure if hits.known else f"perhaps none of these: only {sure}")
    say(f"time in ms: {stages}")
    return 0


def _hit(hit: Hit) -> dict[str, Any]:
    numbers = {"distance": hit.distance, "score": hit.score, "confidence": hit.confidence}
    rounded = {name: None if value is None else round(value, 6) for name, value in numbers.items()}
    return {"rank": hit.rank, "name": hit.name, "category": hit.category, **rounded}


def _belief(hits: Answer) -> dict[str, Any]:
    in_gallery = None if hits.in_gallery is None else round(hits.in_gallery, 6)
    return {"in_gallery": in_gallery, "known": hits.known, "sure": hits.sure}


def _doctor(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.doctor import examine, report

    if arguments.selftest:
        return _selftest(arguments)
    facts = examine(arguments.gallery)
    if arguments.json:
        put_json(facts)
    else:
        put(report(facts))
    return 0 if facts["healthy"] else 1


def _selftest(arguments: argparse.Namespace) -> int:
    from fgsbir_edge.bundle import Bundle
    from fgsbir_edge.selftest import selftest, summary

    bundle = Bundle.default() if arguments.bundle is None else Bundle.load(arguments.bundle)
    outcomes = []
    for outcome in selftest(bundle, say):
        outcomes.append(outcome)
        if not arguments.json:
            put(str(outcome))
    facts = summary(outcomes)
    if arguments.json:
        put_json(facts)
    else:
        put(f"{facts['passed']} passed, {facts['failed']} failed, {facts['skipped']} skipped")
    return 1 if facts["failed"] else 0


def script() -> NoReturn:
    """``main`` as what its process is for."""
    whole_process(main)


if __name__ == "__main__":
    script()
