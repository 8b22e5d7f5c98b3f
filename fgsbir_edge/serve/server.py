"""Listening: one process, one event loop, until it is told to stop; requests under way are answered first."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import ServeError
from fgsbir_edge.serve.options import SHUTDOWN_SECONDS, ServeOptions

if TYPE_CHECKING:
    import uvicorn

    from fgsbir_edge.serve.gate import Gate

BACKLOG = 128


def listen(options: ServeOptions) -> socket.socket:
    """A listening socket. Raises ServeError."""
    made = None
    try:
        family = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0][0]
        # The protocol must be named: asyncio sends small packets at once (TCP_NODELAY) on such sockets alone, and an answer would
        # wait 40 ms for the client's acknowledgement of its headers.
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((options.host, options.port))
        made.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        if made is not None:
            made.close()
        reason = getattr(error, "strerror", None) or error
        raise ServeError(
            f"cannot listen on {options.host} port {options.port} ({reason}); take another --host or --port, or 0 for a free port"
        ) from error
    return made


def url_of(listening: socket.socket) -> str:
    """Where a page is found."""
    host, port = listening.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        return f"http://{socket.gethostname()}:{port}/"
    return f"http://[{host}]:{port}/" if address.version == 6 else f"http://{host}:{port}/"


def serve(open_engine: Callable[[], Engine], options: ServeOptions, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. ``ready`` is called with the address. Raises ServeError and what ``open_engine`` raises."""
    try:
        import uvicorn

        from fgsbir_edge.serve.app import create_app
    except ImportError as error:
        raise ServeError(f"the server's packages are missing ({error}); run pip install 'fgsbir-edge[serve]'") from error
    from fgsbir_edge.serve.service import Kiosk
    from fgsbir_edge.serve.worker import Worker

    with listen(options) as listening:
        kiosk = Kiosk(Worker(open_engine, options.workers))
        ready(url_of(listening))
        uvicorn.Server(configuration(create_app(kiosk, options))).run(sockets=[listening])


def configuration(app: Gate) -> uvicorn.Config:
    """How an application is served: quietly, and believing nobody about whom they ask for."""
    import uvicorn

    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # addresses may hold names
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
