"""A server on a free port of this machine, in a thread, and a client of it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import httpx
import uvicorn

from fgsbir_edge.serve.app import create_app
from fgsbir_edge.serve.options import ServeOptions
from fgsbir_edge.serve.server import configuration, listen, url_of
from fgsbir_edge.serve.service import Kiosk
from tests.toy import outline

SECONDS = 60.0  # for an answer, on a busy machine
QUIET = ServeOptions(port=0, rate=0)


@contextlib.contextmanager
def running(kiosk: Kiosk, options: ServeOptions = QUIET) -> Iterator[httpx.Client]:
    """A client of the kiosk's server; the kiosk is closed in the end, as a server that stops does."""
    with listen(options) as listening:
        server = uvicorn.Server(configuration(create_app(kiosk, options)))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            with httpx.Client(base_url=url_of(listening), timeout=SECONDS, trust_env=False) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


def drawn(number: int) -> list[list[list[float]]]:
    """The outline of a toy photo as one stroke."""
    return [[[x, y] for x, y in outline(number, 2.0)]]
