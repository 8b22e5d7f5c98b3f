"""The command ``fgsbir-edge gallery merge``: photos that were encoded elsewhere, into a gallery."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fgsbir_edge.console import Stages, put, put_json, say

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

MERGE = "write shards of 'python -m training.bulk_encode' into a gallery"


def add_merge_command(commands: Commands) -> None:
    """The sub-command of ``fgsbir-edge gallery``."""
    one = commands.add_parser("merge", help=MERGE, description=MERGE)
    one.add_argument("shards", nargs="+", metavar="SHARDS", help="shards, or folders of them")
    one.add_argument("--gallery", metavar="FILE", required=True, help="gallery file; made where there is none")
    one.add_argument("--photos", metavar="DIR", help="where the photos lie on this machine (where they lay when encoded)")
    one.add_argument("--partial", action="store_true", help="take what is there where shards are missing")
    one.add_argument("--json", action="store_true", help="print one JSON object")
    one.set_defaults(run=_merge)


def _merge(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.gallery.merge import merge

    report = merge(arguments.shards, arguments.gallery, photos=arguments.photos, partial=arguments.partial)
    for name, message in [*report.unread, *((name, str(error)) for name, error in report.failed)]:
        say(f"skipped: {name}: {message}")
    skipped = [name for name, _ in [*report.unread, *report.failed]]
    facts = {"added": report.added, "updated": report.updated, "unchanged": report.unchanged}
    if arguments.json:
        put_json({"gallery": arguments.gallery, **facts, "skipped": skipped})
    else:
        counts = f"{report.added} added, {report.updated} updated, {report.unchanged} unchanged, {len(skipped)} skipped"
        put(f"{arguments.gallery}: {counts}")
    return 0
