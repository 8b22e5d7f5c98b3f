"""How a server is set up, and what it takes from its clients at most."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

import fgsbir_edge

VERSION = str(fgsbir_edge.__version__)
MAX_STROKES = 2_000
MAX_POINTS = 20_000  # of one sketch; the longest human one of ChairV2 has 519
MAX_PIXELS = 16_000_000  # of an image that is sent
MAX_BODY = 8 * 2**20  # bytes
MAX_HITS = 100
MAX_FILTER = 10_000  # characters
MAX_PAGE = 200  # photos or people of one listing
MAX_PAIRS = 20  # of one request to adapt
MAX_ID = 2**63 - 1  # SQLite's largest row number
WAITING = 64  # requests that wait for the engine at once; more are turned away
BODY_SECONDS = 30.0  # for a body to arrive
SHUTDOWN_SECONDS = 30  # for requests under way when the server stops
GUEST_SECONDS = 3600.0  # after which a guest that was left behind is forgotten
NAMES_OF_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class ServeOptions:
    """One server.

    Args:
        host, port: where it listens; port 0 takes a free one.
        token: what everything that writes must show as ``Authorization: Bearer``; None: nothing, on loopback alone.
        hosts: further names by which it may be addressed.
        idle: seconds after which the page starts anew; 0 for never.
        rate: requests a second of one client, in the long run; 0 for any number.
        workers: sketches that are encoded at once.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    hosts: tuple[str, ...] = ()
    idle: float = 60.0
    rate: float = 20.0
    workers: int = 1

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    def addressed_as(self, host: str) -> bool:
        """Whether a request's Host, without its port, is this server's.

        A page of another site can make a browser send requests here under its own name (DNS rebinding), never under an address:
        so addresses are let through where the server is not on loopback, and names only where they are known.
        """
        name = host.strip("[]").rstrip(".").lower()
        if name in NAMES_OF_LOOPBACK or name in (known.lower() for known in self.hosts):
            return True
        if self.loopback:
            return name == self.host
        return _is_address(name) or name in (self.host.lower(), socket.gethostname().lower())


def is_loopback(host: str) -> bool:
    """Whether a host that is listened on can be reached from this machine alone."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
