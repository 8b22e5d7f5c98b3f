"""Token buckets: how much one client may ask for."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

BURST_SECONDS = 3.0  # of its rate, that a client may ask for at once
MAX_CLIENTS = 10_000  # remembered, the latest ones
_SUBNET = 64  # bits of an IPv6 address that one client has for itself


class Buckets:
    """A bucket for each client that fills at ``rate`` a second; ``rate`` 0 lets everything through."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._size, self._clock = rate, max(1.0, rate * BURST_SECONDS), clock
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client: (tokens, when)

    def take(self, client: str, cost: float) -> float:
        """Take ``cost`` from a client's bucket; seconds to wait where it does not hold as much, 0 where it did."""
        if self._rate <= 0 or cost <= 0:
            return 0.0
        now, key = self._clock(), _key(client)
        tokens, when = self._held.pop(key, (self._size, now))
        tokens = min(self._size, tokens + (now - when) * self._rate)
        wait = 0.0 if tokens >= cost else (cost - tokens) / self._rate
        self._held[key] = (tokens if wait else tokens - cost), now
        while len(self._held) > MAX_CLIENTS:
            self._held.popitem(last=False)
        return wait


def _key(client: str) -> str:
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, _SUBNET), strict=False))
    return str(address)
