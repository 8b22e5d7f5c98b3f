"""The commands ``fgsbir-edge feedback`` and ``fgsbir-edge people``: what people show, and what becomes of it."""

from __future__ import annotations

import argparse

from fgsbir_edge.console import Stages, counted, put, put_json

FEEDBACK = "Note which photo a person meant by a sketch, and learn from all that they have shown."
PEOPLE = "The people that a gallery knows: list, undo, forget, export, import."


def add_feedback_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``fgsbir-edge feedback``."""
    parser.add_argument("sketch", help="SVG, ndjson, npz, npy, pickle of QMUL coordinates, or an image of a drawing")
    parser.add_argument("photo", help="the photo that is meant, as 'list' prints it, or its file")
    parser.add_argument("--person", required=True, metavar="NAME", help="a new name is a new person")
    _add_common(parser)


def add_people_commands(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``fgsbir-edge people``."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, function, text in (
        ("list", _list, "everyone's name and number of pairs, tab-separated"),
        ("undo", _undo, "take back what a person has shown last"),
        ("forget", _forget, "delete a person; nothing of them stays in the file"),
        ("export", _export, "write what a person has shown to a file"),
        ("import", _import, "take over a person from such a file"),
    ):
        one = commands.add_parser(name, help=text, description=text)
        if name in ("undo", "forget", "export"):
            one.add_argument("person", metavar="NAME")
        if name in ("export", "import"):
            one.add_argument("file", metavar="FILE")
        if name == "import":
            one.add_argument("--skip-missing", action="store_true", help="leave out pairs whose photos are not in this gallery")
        _add_common(one)
        one.set_defaults(run=function)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gallery", metavar="FILE", required=True)
    parser.add_argument("--bundle", metavar="DIR", help="model folder (the one in the package)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def feedback_command(arguments: argparse.Namespace, _: Stages) -> int:
    """``fgsbir-edge feedback``."""
    from fgsbir_edge.engine import Engine

    with Engine.open(bundle=arguments.bundle, gallery=arguments.gallery) as engine:
        feedback = engine.feedback(arguments.sketch, arguments.photo, person=arguments.person)
    return _told(arguments, feedback.person, feedback.pairs, feedback.explanation)


def _undo(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.engine import Engine

    with Engine.open(bundle=arguments.bundle, gallery=arguments.gallery) as engine:
        feedback = engine.learner.undo(arguments.person)
    return _told(arguments, feedback.person, feedback.pairs, feedback.explanation)


def _import(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.engine import Engine

    with Engine.open(bundle=arguments.bundle, gallery=arguments.gallery) as engine:
        feedback = engine.learner.load(arguments.file, skip_missing=arguments.skip_missing)
    return _told(arguments, feedback.person, feedback.pairs, feedback.explanation)


def _list(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.gallery import Gallery

    with Gallery.open(arguments.gallery, None) as gallery:
        people = {name: len(gallery.people.shown(name)) for name in gallery.people.names()}
    if arguments.json:
        put_json({"people": people})
    else:
        for name, pairs in people.items():
            put(f"{name}\t{pairs}")
    return 0


def _forget(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.gallery import Gallery

    with Gallery.open(arguments.gallery, None) as gallery:
        gallery.people.forget(arguments.person)
    return _told(arguments, arguments.person, 0, "forgotten")


def _export(arguments: argparse.Namespace, _: Stages) -> int:
    from fgsbir_edge.gallery import Gallery

    with Gallery.open(arguments.gallery, None) as gallery:
        gallery.people.save(arguments.person, arguments.file)
        pairs = len(gallery.people.shown(arguments.person))
    return _told(arguments, arguments.person, pairs, f"written to {arguments.file}")


def _told(arguments: argparse.Namespace, person: str, pairs: int, explanation: str) -> int:
    if arguments.json:
        put_json({"person": person, "pairs": pairs, "explanation": explanation})
    else:
        put(f"{person}, {counted(pairs, 'pair')}: {explanation}")
    return 0
