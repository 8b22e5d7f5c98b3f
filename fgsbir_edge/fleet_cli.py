"""The command ``fgsbir-edge fleet``: photos shared by many devices, in a collection of a Qdrant server."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fgsbir_edge.arguments import positive
from fgsbir_edge.console import Stages, put, put_json, say
from fgsbir_edge.errors import FleetUnavailableError
from fgsbir_edge.gallery_cli import add_filter_arguments

if TYPE_CHECKING:
    from fgsbir_edge.arrays import Float32
    from fgsbir_edge.bundle import Bundle
    from fgsbir_edge.engine import Engine
    from fgsbir_edge.gallery import Hit
    from fgsbir_edge.remote import Fleet, FleetOptions

FLEET = "Photos that many devices share, in a collection of a Qdrant server; adapters and re-ranking stay on each device."


def add_fleet_commands(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``fgsbir-edge fleet``."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    made = {}
    for name, function, text in (
        ("publish", _publish, "bring the collection up to date with a gallery; made where there is none"),
        ("search", _search, "find the photos nearest to a sketch; where the server is away, in --gallery"),
        ("info", _info, "how many photos the collection has"),
        ("remove", _remove, "remove photos from the collection"),
    ):
        one = made[name] = commands.add_parser(name, help=text, description=text, epilog="exit codes: see fgsbir-edge --help")
        one.add_argument(
            "--server", metavar="URL", required=True, help="its key: $QDRANT_API_KEY; or a folder of Qdrant's embedded form"
        )
        one.add_argument("--collection", default="photos", metavar="NAME", help="(photos)")
        one.add_argument("--timeout", type=positive, default=10, metavar="S", help="seconds for one request (10)")
        one.add_argument("--bundle", metavar="DIR", help="model folder (the one in the package)")
        one.add_argument("--json", action="store_true", help="print one JSON object")
        one.set_defaults(run=function)
    made["publish"].add_argument("--gallery", metavar="FILE", required=True, help="whose photos are published")
    made["publish"].add_argument("--prune", action="store_true", help="remove the collection's photos that the gallery lacks")
    made["remove"].add_argument("names", nargs="+", metavar="NAME")
    search = made["search"]
    search.add_argument("sketch", help="SVG, ndjson, npz, npy, pickle of QMUL coordinates, or an image of a drawing")
    search.add_argument("--gallery", metavar="FILE", help="this device's own: answers where the server does not")
    add_filter_arguments(search)
    learned = search.add_mutually_exclusive_group()
    learned.add_argument("--adapter", metavar="FILE", help="made by 'adapt'")
    learned.add_argument("--person", metavar="NAME", help="by what 'feedback' has learned of this person in --gallery")
    search.add_argument("--top", type=positive, default=10, help="how many photos (10)")
    search.add_argument("--shortlist", type=positive, default=1000, metavar="M", help="adapters of photos re-rank so many (1000)")
    search.add_argument("--approximate", action="store_true", help="let the server use its index, which may miss photos")


def _fleet(arguments: argparse.Namespace) -> Fleet:
    from fgsbir_edge.remote import Fleet

    return Fleet(arguments.server, _bundle(arguments), options=_options(arguments))


def _options(arguments: argparse.Namespace, **more: Any) -> FleetOptions:
    from fgsbir_edge.remote import FleetOptions

    return FleetOptions(collection=arguments.collection, timeout=arguments.timeout, **more)


def _bundle(arguments: argparse.Namespace) -> Bundle:
    from fgsbir_edge.bundle import Bundle

    return Bundle.default() if arguments.bundle is None else Bundle.load(arguments.bundle)


def _publish(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.gallery import Gallery

    with Gallery.open(arguments.gallery, _bundle(arguments)) as gallery, _fleet(arguments) as fleet:
        report = fleet.publish(gallery, prune=arguments.prune)
        total = len(fleet)
    if arguments.json:
        put_json({"collection": arguments.collection, **asdict(report), "photos": total})
    else:
        counts = f"{report.added} added, {report.updated} updated, {report.unchanged} unchanged, {report.removed} removed"
        put(f"{arguments.collection}: {counts}; {total} photos")
    return 0


def _info(arguments: argparse.Namespace, _: Stages) -> int:
    with _fleet(arguments) as fleet:
        total = len(fleet)
    if arguments.json:
        put_json({"server": arguments.server, "collection": arguments.collection, "photos": total})
    else:
        put(f"{arguments.collection}: {total} photos")
    return 0


def _remove(arguments: argparse.Namespace, _: Stages) -> int:
    with _fleet(arguments) as fleet:
        before = len(fleet)
        fleet.remove(arguments.names)
        total = len(fleet)
    if arguments.json:
        put_json({"collection": arguments.collection, "removed": before - total, "photos": total})
    else:
        put(f"{arguments.collection}: {before - total} removed; {total} photos")
    return 0


def _search(arguments: argparse.Namespace, stages: Stages) -> int:
    from fgsbir_edge.engine import Engine

    with stages.stage("load"):
        engine = Engine.open(bundle=arguments.bundle, gallery=arguments.gallery)
    with engine:
        adapter = None if arguments.adapter is None else engine.load_adapter(arguments.adapter)
        if arguments.person is not None:
            adapter = engine.learner.adapter(arguments.person)
        with stages.stage("encode"):
            features = engine.encode_sketches([arguments.sketch])
        chosen = {"adapter": adapter, "category": arguments.category, "where": arguments.where}
        with stages.stage("search"):
            hits, source = _answer(arguments, engine, features, chosen)
    if arguments.json:
        fields = ("rank", "name", "category", "distance")
        found = [{field: getattr(hit, field) for field in fields} for hit in hits]
        put_json({"sketch": arguments.sketch, "answered_by": source, "hits": found, "millis": stages.rounded()})
        return 0
    for hit in hits:
        put(f"{hit.rank}\t{hit.distance:.4f}\t{hit.name}\t{hit.category or ''}")
    say(f"answered by the {source}; time in ms: {stages}")
    return 0


def _answer(arguments: argparse.Namespace, engine: Engine, features: Float32, chosen: dict[str, Any]) -> tuple[list[Hit], str]:
    """The fleet's answer; the gallery's, where the server is away and there is one."""
    from fgsbir_edge.remote import Fleet

    gallery = None if arguments.gallery is None else engine.gallery
    options = _options(arguments, shortlist=arguments.shortlist, exact=not arguments.approximate)
    try:
        with Fleet(arguments.server, engine.bundle, gallery=gallery, options=options) as fleet:
            return fleet.search(features, arguments.top, **chosen)[0], "fleet"
    except FleetUnavailableError as error:
        if gallery is None:
            raise
        say(f"the fleet does not answer, this device's gallery does: {error}")
        return gallery.search(features, arguments.top, head=engine.head, **chosen)[0], "gallery"
