"""The command ``fgsbir-edge gallery``: check, repair and back up a gallery's file; what is known of its photos."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from fgsbir_edge.console import Stages, counted, put, put_json, say
from fgsbir_edge.recall_cli import RECALL, add_recall_arguments
from fgsbir_edge.shards_cli import add_merge_command

GALLERY = "A gallery's file: check that it is whole, save what can be read of a damaged one, copy it while in use; metadata."
METADATA = "What is known of photos beside their looks, and what searches can filter by (--where)."
SHOWN = 20  # lost photos that are printed


def add_gallery_commands(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``fgsbir-edge gallery``."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, function, text in (
        ("check", _check, "read all of it and say what is wrong; exit code 1 where something is"),
        ("repair", _repair, "write what can be read to a new file"),
        ("backup", _backup, "copy it to a new file, as of one moment"),
    ):
        one = commands.add_parser(name, help=text, description=text)
        one.add_argument("file", metavar="FILE")
        if name != "check":
            one.add_argument("target", metavar="NEW")
        one.add_argument("--json", action="store_true", help="print one JSON object")
        one.set_defaults(run=function)
    add_recall_arguments(commands.add_parser("recall", help=RECALL, description=RECALL))
    add_merge_command(commands)
    _add_metadata_commands(commands.add_parser("metadata", help=METADATA, description=METADATA))


def add_filter_arguments(parser: argparse.ArgumentParser) -> None:
    """Which photos may answer: ``--category`` and ``--where``, both repeatable."""
    parser.add_argument("--category", action="append", help="only photos of this category; again for more of them")
    text = "only photos whose metadata fit, such as 'price<50 and brand=\"red oak\"'; given again, all must (docs/gallery.md)"
    parser.add_argument("--where", action="append", metavar="FILTER", help=text)


def _add_metadata_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="how", required=True, metavar="HOW")
    for name, function, text in (
        ("set", _set, "change photos' metadata by a table: CSV with a column 'name', or JSON lines"),
        ("show", _show, "a photo a line, as JSON that 'set' reads"),
        ("keys", _keys, "which keys there are, how many photos have them, and what kinds of values, tab-separated"),
    ):
        one = commands.add_parser(name, help=text, description=text)
        one.add_argument("file", metavar="FILE", help="gallery")
        if name == "set":
            one.add_argument("table", metavar="TABLE", help=".csv or .jsonl")
            one.add_argument("--replace", action="store_true", help="forget what the table's photos had before")
            one.add_argument("--skip-missing", action="store_true", help="leave out lines whose photos are not in this gallery")
        if name == "show":
            one.add_argument("names", nargs="*", metavar="NAME", help="only these photos")
        else:
            one.add_argument("--json", action="store_true", help="print one JSON object")
        one.set_defaults(run=function)


def _set(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.gallery import Gallery
    from fgsbir_edge.gallery.metadata_table import read_metadata_table

    table = read_metadata_table(arguments.table)
    with Gallery.open(arguments.file, None) as gallery:
        missing = gallery.set_metadata(table, replace=arguments.replace, skip_missing=arguments.skip_missing)
    if arguments.json:
        put_json({"gallery": arguments.file, "set": len(table) - len(missing), "missing": list(missing)})
    else:
        put(f"{arguments.file}: metadata of {len(table) - len(missing)} photos set")
        say_missing(missing)
    return 0


def say_missing(names: Sequence[str]) -> None:
    """A line of talk on photos that a table names and the gallery lacks."""
    if names:
        shown = ", ".join(names[:SHOWN])
        say(f"not in the gallery, {len(names)} of the table's photos: {shown}{' and more' if len(names) > SHOWN else ''}")


def _show(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.gallery import Gallery

    with Gallery.open(arguments.file, None) as gallery:
        for name in arguments.names or [item.name for item in gallery.items()]:
            facts = gallery.metadata(name)
            if facts or arguments.names:
                put(json.dumps({"name": name, **facts}, ensure_ascii=False))
    return 0


def _keys(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.gallery import Gallery

    with Gallery.open(arguments.file, None) as gallery:
        keys = gallery.columns.keys
    if arguments.json:
        put_json({"gallery": arguments.file, "keys": {key: asdict(facts) for key, facts in keys.items()}})
    else:
        for key, facts in keys.items():
            put(f"{key}\t{facts.photos}\t{', '.join(facts.kinds)}")
    return 0


def _check(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.gallery.check import check

    report = check(arguments.file)
    if arguments.json:
        put_json({**asdict(report), "healthy": report.healthy})
    else:
        held = f"{counted(report.photos, 'photo')} in {counted(report.blocks, 'block')}, "
        held += (
            f"{counted(report.people, 'person', 'people')} with {counted(report.pairs, 'pair')}, metadata of {report.described}"
        )
        put(f"{arguments.file}: {held}; {'no fault found' if report.healthy else counted(len(report.faults), 'fault')}")
        for fault in report.faults:
            put(f"- {fault}")
        if not report.healthy:
            put(f"restore a copy, or save what can be read: fgsbir-edge gallery repair {arguments.file} NEW")
    return 0 if report.healthy else 1


def _repair(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.gallery.repair import repair

    report = repair(arguments.file, arguments.target)
    if arguments.json:
        put_json({"target": arguments.target, **asdict(report)})
        return 0
    lost = f"{len(report.lost)} photos lost, {report.unreadable} rows unreadable"
    put(f"{arguments.target}: {report.photos} photos, {report.pairs} pairs, metadata of {report.described} saved; {lost}")
    for name in report.lost[:SHOWN]:
        put(f"- lost: {name}")
    if report.lost or report.unreadable:
        put("index their folder again to bring them back: fgsbir-edge index FOLDER --gallery " + arguments.target)
    return 0


def _backup(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.gallery.repair import backup

    backup(arguments.file, arguments.target)
    if arguments.json:
        put_json({"target": arguments.target})
    else:
        put(f"{arguments.target}: a copy of {arguments.file}")
    return 0
