"""The command ``fgsbir-edge gallery``: check, repair and back up a gallery's file."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from fgsbir_edge.console import Stages, put, put_json

GALLERY = "A gallery's file: check that it is whole, save what can be read of a damaged one, copy it while it is in use."
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


def _check(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.gallery.check import check

    report = check(arguments.file)
    if arguments.json:
        put_json({**asdict(report), "healthy": report.healthy})
    else:
        held = f"{report.photos} photos in {report.blocks} blocks, {report.people} people with {report.pairs} pairs"
        put(f"{arguments.file}: {held}; {'no fault found' if report.healthy else f'{len(report.faults)} faults'}")
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
    put(f"{arguments.target}: {report.photos} photos and {report.pairs} pairs saved; {lost}")
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
