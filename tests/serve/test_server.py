"""The command ``fgsbir-edge serve``: it starts, answers, loses nothing when it is stopped, and says why it does not start."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fgsbir_edge.cli import main
from fgsbir_edge.errors import EmptyGalleryError, GalleryFormatError, ServeError
from fgsbir_edge.gallery import Gallery
from fgsbir_edge.serve.options import ServeOptions
from fgsbir_edge.serve.server import listen
from tests.serve.running import SECONDS, drawn

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "fgsbir_edge.cli", "serve", "--port", "0", "--rate", "0"]


class Server:
    """A process that serves."""

    def __init__(self, *arguments: object) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def stop(self, by: signal.Signals = signal.SIGTERM) -> str:
        """Its talk."""
        self.process.send_signal(by)
        return self.process.communicate(timeout=SECONDS)[1]


@pytest.fixture
def server(bundle_path: Path, gallery_path: Path) -> Iterator[Server]:
    made = Server("--gallery", gallery_path, "--model", bundle_path)
    yield made
    made.process.kill()
    made.process.communicate()


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_requests_under_way_are_answered_before_it_stops(server: Server, gallery_path: Path, by: signal.Signals) -> None:
    with httpx.Client(base_url=server.url, timeout=SECONDS, trust_env=False) as client:
        photo = client.get("/photos").json()["photos"][0]["id"]
        client.post("/people", json={"guest": True})
    body = json.dumps({"strokes": drawn(1), "photo": photo, "person": "ann"}).encode()
    host, port = re.findall(r"//(.*):(\d+)/", server.url)[0]
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(b"POST /feedback HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        raw.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body[:20]))
        assert httpx.get(server.url + "health", trust_env=False, timeout=SECONDS).status_code == 200  # the above has arrived
        stopped: list[str] = []
        stopping = threading.Thread(target=lambda: stopped.append(server.stop(by)))
        stopping.start()
        while _accepts(host, int(port)):
            pass
        raw.sendall(body[20:])
        answer = b""
        while part := raw.recv(65536):
            answer += part
        stopping.join()
    assert answer.startswith(b"HTTP/1.1 200")
    assert "Traceback" not in stopped[0]
    with Gallery.open(gallery_path, None) as gallery:
        assert gallery.people.names() == ["ann"]
    assert not gallery_path.with_name(gallery_path.name + "-wal").exists()


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def test_others_need_a_token_that_is_made_up(bundle_path: Path, data_path: Path) -> None:
    server = Server("--photos", data_path / "photos", "--bundle", bundle_path, "--host", "0.0.0.0")
    port = re.findall(r":(\d+)/", server.url)[0]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS, trust_env=False) as client:
        refused = client.post("/people", json={"person": "ann"})
        talk = server.stop()
    (token,) = set(re.findall(r"#token=(\S+)", talk))
    assert refused.status_code == 401
    assert len(token) >= 32
    assert f"needs the token {token}" in talk


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main(["serve", *map(str, arguments)])
    return code, capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str], bundle_path: Path, gallery_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, talk = fails(capsys, "--gallery", gallery_path, "--bundle", bundle_path, "--port", port)
    assert code == ServeError.exit_code
    assert f"port {port}" in talk
    code, talk = fails(capsys, "--gallery", gallery_path, "--bundle", bundle_path, "--host", "no.such.host.invalid")
    assert code == ServeError.exit_code


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """asyncio sets TCP_NODELAY where it sees TCP; without, each answer would take 40 ms more."""
    with (
        listen(ServeOptions(port=0)) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as one,
    ):
        assert one.proto == socket.IPPROTO_TCP


def test_missing_packages_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, gallery_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, talk = fails(capsys, "--gallery", gallery_path)
    assert code == ServeError.exit_code
    assert "pip install 'fgsbir-edge[serve]'" in talk


def test_galleries_that_hold_nothing(capsys: pytest.CaptureFixture[str], bundle_path: Path, tmp_path: Path) -> None:
    none = fails(capsys, "--gallery", tmp_path / "none", "--bundle", bundle_path, "--port", 0)
    assert none[0] == GalleryFormatError.exit_code
    (tmp_path / "photos").mkdir()
    empty = fails(capsys, "--photos", tmp_path / "photos", "--bundle", bundle_path, "--port", 0)
    assert empty[0] == EmptyGalleryError.exit_code


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--demo", "--gallery", "x"],
        ["--demo", "--token", "short"],
        ["--demo", "--token", "with blanks in it, many"],
        ["--demo", "--port", "65536"],
        ["--demo", "--idle", "-1"],
        ["--demo", "--rate", "nan"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["serve", *arguments])


def test_a_weak_token_of_the_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGSBIR_TOKEN", "short")
    code, talk = fails(capsys, "--demo")
    assert code == ServeError.exit_code
    assert "FGSBIR_TOKEN" in talk
