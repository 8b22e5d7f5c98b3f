"""What stands before the application: who may ask, how often, how much; and what browsers may do with the answers."""

from __future__ import annotations

import asyncio
import hmac
import json
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from fgsbir_edge.serve.options import BODY_SECONDS, MAX_BODY, ServeOptions
from fgsbir_edge.serve.problems import Problem
from fgsbir_edge.serve.rate import Buckets

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

READING = frozenset({"GET", "HEAD", "OPTIONS"})
WRITES_NOTHING = frozenset({"/search"})  # of what is asked by POST
PICTURE_COST = 0.05  # a page shows dozens of them
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Gate:
    """ASGI middleware. Bodies are read whole here, within their limits, before the application sees a request."""

    def __init__(self, app: App, options: ServeOptions, buckets: Buckets | None = None) -> None:
        self._app, self._options = app, options
        self._buckets = buckets or Buckets(options.rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope, _Headers(scope))
            body = await _body(receive, _Headers(scope))
        except Problem as problem:
            await answer(problem, _guarded(send))
            return
        await self._app(scope, _replayed(body, receive), _guarded(send))

    def _check(self, scope: Scope, headers: _Headers) -> None:
        """Raise a Problem for what may not be asked."""
        host = _host_of(headers.get("host"))
        if host is None or not self._options.addressed_as(host):
            raise Problem(421, "UnknownHost", "this server has another name", "use its address, or start it with --allow-host")
        reading = scope["method"] in READING
        if not reading and not _same_origin(scope, headers):
            raise Problem(403, "ForeignOrigin", "a page of another site asks", "use this server's own page, or send no Origin")
        wait = self._buckets.take((scope.get("client") or ("",))[0], _cost(scope["path"]))
        if wait:
            after = {"Retry-After": str(math.ceil(wait))}
            raise Problem(429, "TooManyRequests", f"more than {self._options.rate:g} a second", "wait a little", after)
        if not reading and scope["path"] not in WRITES_NOTHING:
            self._check_token(headers)

    def _check_token(self, headers: _Headers) -> None:
        if self._options.token is None:
            return
        kind, _, shown = (headers.get("authorization") or "").partition(" ")
        known = hmac.compare_digest(shown.strip().encode(), self._options.token.encode())
        if kind.lower() != "bearer" or not known:
            ask = {"WWW-Authenticate": "Bearer"}
            what = "a wrong token" if shown else "no token"
            raise Problem(401, "TokenNeeded", f"{what} was shown", "send Authorization: Bearer and the server's token", ask)


class _Headers:
    """The headers of a request by their lower-case names; those that came twice are empty, which nothing lets through."""

    def __init__(self, scope: Scope) -> None:
        self._all: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            self._all[key] = "" if key in self._all else value.decode("latin-1")

    def get(self, name: str) -> str | None:
        """The value, None where there is none."""
        return self._all.get(name)


def _host_of(text: str | None) -> str | None:
    """The host in a Host header, without the port; None where it is malformed."""
    try:
        return urlsplit(f"//{text}").hostname if text else None
    except ValueError:
        return None


def _same_origin(scope: Scope, headers: _Headers) -> bool:
    """Whether a browser says that a page of this very server asks; programs that are no browsers say nothing."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if site not in (None, "same-origin", "none"):
        return False
    return origin is None or origin == f"{scope['scheme']}://{headers.get('host')}"


def _cost(path: str) -> float:
    if path.startswith("/photos/"):
        return PICTURE_COST
    return 0.0 if path == "/health" or path.startswith("/page/") else 1.0


async def _body(receive: Receive, headers: _Headers) -> bytes:
    """The whole body. Raises a Problem for too much of it, or too slow."""
    too_large = Problem(413, "BodyTooLarge", f"the body has more than {MAX_BODY} bytes", "send a smaller one")
    length = headers.get("content-length")
    if length is not None and length.isdecimal() and int(length) > MAX_BODY:
        raise too_large

    async def read() -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "Disconnected", "the body broke off", "send it again")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > MAX_BODY:
                raise too_large
            if not message.get("more_body", False):
                return b"".join(parts)

    try:
        return await asyncio.wait_for(read(), BODY_SECONDS)
    except asyncio.TimeoutError:
        raise Problem(408, "TooSlow", f"the body took more than {BODY_SECONDS:g} s", "send it again") from None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A receiver that gives the body once, and then what the client does."""
    held: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return held.pop() if held else await receive()

    return replay


def _guarded(send: Send) -> Send:
    """A sender that adds HEADERS, and forbids keeping what does not say how long it may be kept."""

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message.get("headers", [])}
            extra = {**HEADERS, "Cache-Control": "no-store"}
            added = [(name.lower().encode(), value.encode()) for name, value in extra.items()]
            message["headers"] = [*message.get("headers", []), *(pair for pair in added if pair[0] not in present)]
        await send(message)

    return guarded


async def answer(problem: Problem, send: Send) -> None:
    """Send a problem."""
    body = json.dumps(problem.body).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **problem.headers}
    start = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": start})
    await send({"type": "http.response.body", "body": body})
