"""The command ``fgsbir-edge serve``: the drawing page and the HTTP API."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from typing import TYPE_CHECKING

from fgsbir_edge.adapt_cli import index_photos
from fgsbir_edge.arguments import port, positive, seconds
from fgsbir_edge.console import Stages, put, say, stays

if TYPE_CHECKING:
    from fgsbir_edge.engine import Engine

DESCRIPTION = "A page to draw on that finds the photo one means and learns from it, and an HTTP API. For this machine alone."
TOKEN = "FGSBIR_TOKEN"
MIN_TOKEN = 16  # characters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.set_defaults(run=lambda arguments, stages: serve_command(_checked(parser, arguments), stages))
    photos = parser.add_argument_group("the photos (one of the first two, or both)")
    photos.add_argument("--gallery", metavar="FILE", help="gallery made by 'fgsbir-edge index'; keeps what people show")
    photos.add_argument("--photos", metavar="DIR", help="folder of photos; indexed in memory, or into --gallery where given too")
    photos.add_argument("--demo", action="store_true", help="the photos shipped with the package; keeps nothing")
    photos.add_argument("--bundle", "--model", metavar="DIR", help="model folder (the one in the package)")
    where = parser.add_argument_group("where it listens")
    where.add_argument("--host", default="127.0.0.1", help="address (127.0.0.1); 0.0.0.0: every network of this machine")
    where.add_argument("--port", type=port, default=8000, help="port (8000); 0: a free one")
    where.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a name it is addressed by; repeatable")
    limits = parser.add_argument_group("who may do what")
    text = f"what everything that writes must show; better in ${TOKEN}. Made up where others can reach the server"
    limits.add_argument("--token", type=_token, help=text)
    limits.add_argument("--rate", type=seconds, default=20.0, help="requests a second of one client (20); 0: any number")
    limits.add_argument("--idle", type=seconds, default=60.0, help="seconds until the page starts anew (60); 0: never")
    work = parser.add_argument_group("the work")
    work.add_argument("--threads", type=positive, help="processor threads for one drawing (the cores there are, at most 4)")
    work.add_argument("--workers", type=positive, default=2, help="drawings that are encoded at once (2)")


def serve_command(arguments: argparse.Namespace, _: Stages) -> int:
    """Serve until stopped. Prints the page's address when it can be asked."""
    from fgsbir_edge.serve.options import ServeOptions, is_loopback
    from fgsbir_edge.serve.server import serve

    stays()
    token = arguments.token or _token_of_environment()
    made_up = token is None and not is_loopback(arguments.host)
    options = ServeOptions(
        host=arguments.host,
        port=arguments.port,
        token=secrets.token_urlsafe(24) if made_up else token,
        hosts=tuple(arguments.allow_host),
        idle=arguments.idle,
        rate=arguments.rate,
        workers=arguments.workers,
    )

    def ready(url: str) -> None:
        put(url)
        if made_up:
            say(f"others can reach this server: what writes needs the token {options.token}")
            say(f"a page that may write: {url}#token={options.token}")
        say("stop with Ctrl+C")
        sys.stdout.flush()

    serve(lambda: _open(arguments), options, ready)
    return 0


def _open(arguments: argparse.Namespace) -> Engine:
    from fgsbir_edge.engine import Engine
    from fgsbir_edge.errors import EmptyGalleryError
    from fgsbir_edge.pairs import DEMO_FOLDER

    folder = DEMO_FOLDER / "photos" if arguments.demo else arguments.photos
    gallery = None if arguments.demo else arguments.gallery
    engine = Engine.open(bundle=arguments.bundle, gallery=gallery, threads=arguments.threads, create=folder is not None)
    try:
        if folder is not None:
            index_photos(engine, folder)
        if not len(engine.gallery):
            raise EmptyGalleryError("there is nothing to find; add photos with 'fgsbir-edge index FOLDER --gallery FILE'")
    except BaseException:
        engine.close()
        raise
    return engine


def _checked(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> argparse.Namespace:
    """Exit through argparse where there are no photos, or the demo's and others."""
    given = arguments.gallery is not None or arguments.photos is not None
    if given == arguments.demo:
        parser.error("say where the photos are: --gallery FILE, --photos DIR or both, or --demo alone")
    return arguments


def _token_of_environment() -> str | None:
    text = os.environ.get(TOKEN, "")
    if not text:
        return None
    try:
        return _token(text)
    except argparse.ArgumentTypeError as error:
        from fgsbir_edge.errors import ServeError

        raise ServeError(f"${TOKEN}: {error}; set another one") from None


def _token(text: str) -> str:
    if len(text) < MIN_TOKEN or not (text.isascii() and text.isprintable()) or " " in text:
        raise argparse.ArgumentTypeError(f"a token has at least {MIN_TOKEN} ASCII letters, digits or signs, and no blank")
    return text
