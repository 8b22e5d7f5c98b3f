"""The command ``fgsbir-edge gallery recall``: what a shortlist misses in this gallery, and the length to take."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from fgsbir_edge.console import Stages, put, put_json, say

RECALL = "Measure what a shortlist misses of an exact search by adapters that move photos, and the length that reaches a recall."


def add_recall_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``fgsbir-edge gallery recall``."""
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--bundle", metavar="DIR", help="model folder (the one in the package)")
    parser.add_argument("--person", action="append", metavar="NAME", help="only this person's sketches; may be repeated (all)")
    parser.add_argument("--adapter", metavar="FILE", help="measure this adapter, made by 'adapt', with all sketches")
    parser.add_argument("--sketch", action="append", default=[], metavar="FILE", help="more sketches to search with")
    parser.add_argument("--recall", type=float, default=0.99, help="the recall that is wanted, above 0 and at most 1 (0.99)")
    parser.add_argument("--top", type=int, default=10, help="of so many nearest photos (10)")
    parser.add_argument("--shortlist", type=int, action="append", default=[], metavar="M", help="a length to report (a ladder)")
    parser.add_argument("--perturb", type=int, default=0, metavar="N", help="N noisy copies of each sketch besides (0)")
    parser.add_argument("--limit", type=int, default=500, help="stored sketches at most, each with an adapter of its own (500)")
    parser.add_argument("--keep", action="store_true", help="keep the length in the gallery, for shortlist='auto'")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=recall_command)


def recall_command(arguments: argparse.Namespace, _: Stages) -> int:
    """``fgsbir-edge gallery recall``."""
    from fgsbir_edge.engine import Engine
    from fgsbir_edge.recall import MIN_QUERIES, Query, RecallOptions, measure, sketches_of_people, stored_queries

    try:
        options = RecallOptions(arguments.top, arguments.recall, arguments.perturb, arguments.limit)
    except ValueError as error:
        say(f"error: {error}")
        return 2
    with Engine.open(bundle=arguments.bundle, gallery=arguments.file) as engine:
        given = engine.encode_sketches(arguments.sketch)
        if arguments.adapter is not None:
            adapter = engine.load_adapter(arguments.adapter)
            rows = [*given, *sketches_of_people(engine, arguments.person)][: options.limit]
            queries = [Query(row, adapter, arguments.adapter) for row in rows] if adapter.moves("photo") else []
        else:
            queries = stored_queries(engine, arguments.person, options.limit)
            names = engine.gallery.people.names() if arguments.person is None else arguments.person
            adapters = [(name, engine.learner.adapter(name)) for name in names] if len(given) else []
            queries += [Query(row, one, name) for name, one in adapters if one.moves("photo") for row in given]
        report = measure(engine.gallery.index, engine.head, queries, options, arguments.shortlist)
        if arguments.keep:
            engine.gallery.keep_shortlist(report.shortlist(engine.head))
    if arguments.json:
        put_json({"gallery": arguments.file, **asdict(report), "enough": report.enough, "kept": arguments.keep})
        return 0
    put(f"shortlist\trecall of {report.k}\t95 % interval")
    for point in (*report.points, report.chosen):
        last = f"\tthe shortest that reaches {report.wanted:g}" if point is report.chosen else ""
        put(f"{point.shortlist}\t{point.recall:.4f}\t{point.low:.4f} to {point.high:.4f}{last}")
    copies = f", {report.copies} noisy copies of each sketch" if report.copies else ""
    say(f"{report.queries} searches{copies}, {report.adapters} adapters, {report.photos} photos")
    if not report.enough:
        say(f"too few searches to rely on: {MIN_QUERIES} are needed to keep a length")
    elif arguments.keep:
        say(f"kept: searches with SearchOptions(shortlist='auto') now look at {report.chosen.shortlist} photos")
    return 0
