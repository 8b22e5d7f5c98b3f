"""Who may ask for what, how often and how much; and what every answer forbids browsers."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from fgsbir_edge.errors import FgsbirError
from fgsbir_edge.serve import gate
from fgsbir_edge.serve.options import MAX_BODY, MAX_POINTS, MAX_STROKES, ServeOptions
from fgsbir_edge.serve.problems import problem_of, split_remedy
from fgsbir_edge.serve.rate import MAX_CLIENTS, Buckets
from fgsbir_edge.serve.service import Kiosk
from fgsbir_edge.serve.worker import Worker
from tests.serve.running import QUIET, drawn, running

TOKEN = "a-token-of-the-tests"


def refused(answer: httpx.Response, status: int, error: str) -> None:
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert set(answer.json()) == {"error", "message", "remedy"}
    assert all(answer.json().values())


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::1"]
)
def test_other_names_are_refused(client: httpx.Client, host: str) -> None:
    answer = client.get("/health", headers={"Host": host})
    assert answer.status_code in (400, 421)  # 400: the server itself finds it malformed


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1234", "LOCALHOST", "[::1]:80", "localhost."])
def test_own_names_are_known(client: httpx.Client, host: str) -> None:
    assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("options", "host", "known"),
    [
        (ServeOptions(host="0.0.0.0"), "192.168.7.9", True),
        (ServeOptions(host="0.0.0.0"), "kiosk.example", False),
        (ServeOptions(host="0.0.0.0", hosts=("Kiosk.example",)), "kiosk.example", True),
        (ServeOptions(host="0.0.0.0"), socket.gethostname(), True),
        (ServeOptions(host="127.0.0.1"), "192.168.7.9", False),
        (ServeOptions(host="127.0.0.2"), "127.0.0.2", True),
        (ServeOptions(host="::"), "[fe80::1]", True),
    ],
)
def test_addresses_cannot_be_rebound_and_names_can(options: ServeOptions, host: str, known: bool) -> None:
    assert options.addressed_as(host) is known


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_others_may_not_ask(client: httpx.Client, headers: dict[str, str]) -> None:
    for path, body in (("/search", {"strokes": drawn(1)}), ("/people", {"person": "ann"})):
        refused(client.post(path, json=body, headers=headers), 403, "ForeignOrigin")
    assert client.get("/people").json()["total"] == 0


def test_the_own_page_may_ask(client: httpx.Client) -> None:
    own = {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert client.post("/people", json={"person": "ann"}, headers=own).status_code == 201


def test_headers_that_come_twice_let_nothing_through(client: httpx.Client) -> None:
    own = str(client.base_url).rstrip("/")
    twice = [("Origin", own), ("Origin", "http://evil.example")]
    refused(client.post("/people", json={"person": "ann"}, headers=twice), 403, "ForeignOrigin")


@pytest.fixture
def guarded(worker: Worker) -> Iterator[httpx.Client]:
    with running(Kiosk(worker), replace(QUIET, token=TOKEN)) as client:
        yield client


@pytest.mark.parametrize(
    "shown", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer x{TOKEN}", "Bearer \xfc"]
)
def test_what_writes_needs_the_token(guarded: httpx.Client, shown: str | None) -> None:
    headers = {} if shown is None else {"Authorization": shown.encode("latin-1")}
    for path in ("/people", "/people/undo", "/people/forget", "/feedback", "/adapt", "/nothing"):
        answer = guarded.post(path, json={"person": "ann"}, headers=headers)
        refused(answer, 401, "TokenNeeded")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert guarded.get("/people").json()["total"] == 0


def test_the_token_opens_and_reading_needs_none(guarded: httpx.Client) -> None:
    assert guarded.get("/settings").json()["token_needed"] is True
    assert guarded.post("/search", json={"strokes": drawn(1)}).status_code == 200
    assert guarded.post("/people", json={"person": "ann"}, headers={"Authorization": f"bearer {TOKEN}"}).status_code == 201


def test_every_answer_keeps_browsers_in(client: httpx.Client) -> None:
    answers = [
        client.get("/"),
        client.get("/nothing"),
        client.post("/search", json={}),
        client.get("/health", headers={"Host": "x.y"}),
    ]
    for answer in answers:
        assert answer.headers["content-security-policy"] == gate.POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "cache-control" in answer.headers
        assert "access-control-allow-origin" not in answer.headers


def test_large_bodies_are_refused_before_they_are_read(client: httpx.Client) -> None:
    refused(client.post("/search", content=b"x" * (MAX_BODY + 1)), 413, "BodyTooLarge")


def test_large_bodies_without_a_length_are_refused(client: httpx.Client) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(9):
            yield b"x" * 2**20

    with contextlib.suppress(httpx.WriteError):  # it may hang up while the rest is on its way
        refused(client.post("/search", content=parts()), 413, "BodyTooLarge")
    assert client.get("/health").status_code == 200


def test_slow_bodies_are_given_up(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.3)
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as raw:
        raw.sendall(b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
        assert b" 408 " in raw.recv(4096).split(b"\r\n")[0]


WRONG = {
    "no JSON": b"strokes",
    "half": b'{"strokes": [',
    "no object": b"[]",
    "no drawing": b"{}",
    "both": b'{"strokes": [], "image": ""}',
    "unknown field": b'{"strokes": [[[0,0],[1,1]]], "path": "/etc/passwd"}',
    "NaN": b'{"strokes": [[[NaN, 0], [1, 1]]]}',
    "infinity": b'{"strokes": [[[1e999, 0], [1, 1]]]}',
    "far away": b'{"strokes": [[[1e8, 0], [1, 1]]]}',
    "text": b'{"strokes": [[["0", 0], [1, 1]]]}',
    "one coordinate": b'{"strokes": [[[0], [1]]]}',
    "nested": b'{"strokes": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "k 0": b'{"strokes": [[[0,0],[1,1]]], "k": 0}',
    "k large": b'{"strokes": [[[0,0],[1,1]]], "k": 101}',
    "k true": b'{"strokes": [[[0,0],[1,1]]], "k": true}',
    "blank name": b'{"strokes": [[[0,0],[1,1]]], "person": "  "}',
    "control name": b'{"strokes": [[[0,0],[1,1]]], "person": "a\\u0000"}',
    "half a character": b'{"strokes": [[[0,0],[1,1]]], "person": "\\ud800"}',
    "no text": b'{"strokes": [[[0,0],[1,1]]], "person": "\xff"}',
    "strokes": json.dumps({"strokes": [[[0, 0]]] * (MAX_STROKES + 1)}).encode(),
    "points": json.dumps({"strokes": [[[0, 0]] * (MAX_POINTS // 2 + 1)] * 2}).encode(),
    "no base64": b'{"image": "###"}',
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("path", ["/search", "/feedback"])
def test_malformed_requests_say_what_is_wrong(client: httpx.Client, path: str, name: str) -> None:
    answer = client.post(path, content=WRONG[name], headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert all(answer.json()[key] for key in ("error", "message", "remedy"))


@pytest.mark.parametrize(
    ("kind", "data", "status", "error"),
    [
        ("application/json", b'{"strokes": []}', 422, "EmptySketchError"),
        ("application/json", b'{"strokes": [[[5, 5], [5, 5]]]}', 422, "EmptySketchError"),
        ("application/json", b'{"strokes": [[[0, 0], [9, 9]]], "person": "nobody"}', 404, "UnknownPersonError"),
        ("application/json", b'{"strokes": [[[0, 0], [9, 9]]], "category": "none"}', 404, "EmptyGalleryError"),
        ("application/json", b'{"image": "R0lGODlhAQABAAAAACw="}', 415, "UnreadableImageError"),
        ("image/png", b"\x89PNG\r\n\x1a\n", 422, "TruncatedImageError"),
        ("image/png", b"", 415, "UnreadableImageError"),
        ("text/plain", b"{}", 415, "UnknownBody"),
    ],
)
def test_errors_of_the_engine_have_fitting_answers(client: httpx.Client, kind: str, data: bytes, status: int, error: str) -> None:
    refused(client.post("/search", content=data, headers={"Content-Type": kind}), status, error)


def test_unknown_paths_and_methods(client: httpx.Client) -> None:
    refused(client.get("/etc/passwd"), 404, "NotFound")
    refused(client.put("/search"), 401 if client.get("/settings").json()["token_needed"] else 405, "MethodNotAllowed")


def kinds(base: type[FgsbirError] = FgsbirError) -> list[type[FgsbirError]]:
    return [base, *(kind for direct in base.__subclasses__() for kind in kinds(direct))]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_error_has_an_answer_that_tells_no_path(kind: type[FgsbirError]) -> None:
    problem = problem_of(kind("/home/kiosk/g: broken (reason); mend it"), "/home/kiosk/g")
    assert 400 <= problem.status < 600
    assert "/home" not in str(problem.body)
    assert all(problem.body.values())


@pytest.mark.parametrize(
    ("text", "parts"),
    [("a (b); c", ("a (b)", "c")), ("a: b: c", ("a: b", "c")), ("a: b; c", ("a: b", "c")), ("a", ("a", ""))],
)
def test_remedies_are_what_messages_end_with(text: str, parts: tuple[str, str]) -> None:
    assert split_remedy(text) == parts


def test_buckets_fill_again() -> None:
    now = [0.0]
    buckets = Buckets(2.0, lambda: now[0])
    assert [buckets.take("1.2.3.4", 1) for _ in range(6)] == [0] * 6
    assert buckets.take("1.2.3.4", 1) == pytest.approx(0.5)
    assert buckets.take("1.2.3.5", 1) == 0
    now[0] = 0.5
    assert buckets.take("1.2.3.4", 1) == 0
    assert buckets.take("1.2.3.4", 1) > 0


def test_buckets_of_one_network_are_one_and_are_not_hoarded() -> None:
    buckets = Buckets(1.0, lambda: 0.0)
    for client in ("2001:db8::1", "2001:db8::2", "2001:db8::ffff"):
        assert buckets.take(client, 1) == 0
    assert buckets.take("2001:db8::3", 1) > 0
    assert buckets.take("2001:db8:0:1::3", 1) == 0
    for number in range(MAX_CLIENTS + 10):
        buckets.take(f"client {number}", 1)
    assert buckets.take("2001:db8::3", 1) == 0  # forgotten meanwhile


def test_who_asks_too_much_waits(worker: Worker) -> None:
    with running(Kiosk(worker), replace(QUIET, rate=0.01)) as client:
        assert client.get("/version").status_code == 200
        answer = client.get("/version")
        refused(answer, 429, "TooManyRequests")
        assert int(answer.headers["retry-after"]) > 1
        assert client.get("/health").status_code == 200  # asked by what watches the server
