"""How many drawings a second a server answers, and how long one waits: 1, 4 and 16 clients that ask without a pause.

``python -m benchmarks.serve [--workers 1 2] [--threads 1] [--requests 400] [--teach] [--out FILE]``

Starts ``fgsbir-edge serve --demo`` for each number of workers, and asks it over the loopback. A client sends a drawing of average
length, reads the answer, and sends the next one, over one connection. The answers are checked against the engine's before
anything is timed. With ``--teach`` one request in ten is a piece of feedback.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.one_sketch import vector_sketch
from benchmarks.record import RESULTS, libraries, write
from fgsbir_edge.engine import Engine
from fgsbir_edge.pairs import DEMO_FOLDER

CLIENTS = (1, 4, 16)
WARMUP = 10  # requests of each client that are not counted
TEACH_EVERY = 10
PERSON = "benchmark"
HITS = 10


@contextlib.contextmanager
def server(workers: int, threads: int) -> Iterator[tuple[str, int]]:
    """The address and the process of a server over the shipped photos."""
    options = ["--demo", "--port", "0", "--rate", "0", "--workers", str(workers), "--threads", str(threads)]
    command = [sys.executable, "-m", "fgsbir_edge.cli", "serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


def processor_seconds(process: int) -> float:
    """What a process has used of the processor so far; unlike the times of requests, the same on a busy machine (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Client:
    """One connection that asks for one drawing again and again."""

    def __init__(self, url: str, teach: bool) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        strokes = [stroke.round(2).tolist() for stroke in vector_sketch().strokes]
        self._search = json.dumps({"strokes": strokes, "k": HITS})
        self._feedback = json.dumps({"strokes": strokes, "k": HITS, "photo": 1, "person": PERSON}) if teach else None
        self.millis: list[float] = []

    def ask(self, turn: int = 1) -> Any:
        """One answer; every TEACH_EVERY-th turn teaches, where that is wanted."""
        teaches = self._feedback is not None and turn % TEACH_EVERY == 0
        path, body = ("/feedback", self._feedback) if teaches else ("/search", self._search)
        self._connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        data = json.loads(answer.read())
        if answer.status != 200:
            raise SystemExit(f"{path} gave {answer.status}: {data}")
        return data

    def run(self, requests: int, start: threading.Barrier) -> None:
        """Ask so many times, and note how long each took."""
        for turn in range(1, WARMUP + 1):
            self.ask(turn)
        start.wait()
        for turn in range(1, requests + 1):
            began = time.perf_counter()
            self.ask(turn)
            self.millis.append(1e3 * (time.perf_counter() - began))

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def load(url: str, clients: int, requests: int, teach: bool) -> dict[str, float]:
    """Requests a second and percentiles of their times in ms, of ``requests`` shared by so many clients."""
    asking = [Client(url, teach) for _ in range(clients)]
    start = threading.Barrier(clients + 1)
    threads = [threading.Thread(target=client.run, args=(requests // clients, start)) for client in asking]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    for client in asking:
        client.close()
    times = np.concatenate([client.millis for client in asking])
    p50, p99 = np.percentile(times, (50, 99))
    figures = {"requests": len(times), "per second": len(times) / seconds, "p50": p50, "p99": p99, "max": times.max()}
    return {name: round(float(value), 2) for name, value in figures.items()}


def check(url: str) -> None:
    """The server must find what the engine finds."""
    with Engine.open(photos=DEMO_FOLDER / "photos", threads=1) as engine:
        expected = [hit.name for hit in engine.search(vector_sketch(), HITS)]
    client = Client(url, False)
    found = [hit["name"] for hit in client.ask()["hits"]]
    client.close()
    if found != expected:
        raise SystemExit(f"the server finds {found}, the engine {expected}; timings would mean nothing")


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="encoding threads of the server")
    options.add_argument("--threads", type=int, default=1, help="processor threads of one encoding")
    options.add_argument("--requests", type=int, default=400, help="of each measurement, shared by its clients")
    options.add_argument("--teach", action="store_true", help="one request in ten is a piece of feedback")
    options.add_argument("--out", type=Path, default=RESULTS / "serve.json")
    arguments = options.parse_args()
    rows = []
    for workers in arguments.workers:
        with server(workers, arguments.threads) as (url, process):
            check(url)
            for clients in CLIENTS:
                used = processor_seconds(process)
                row = {"workers": workers, "clients": clients, **load(url, clients, arguments.requests, arguments.teach)}
                used = processor_seconds(process) - used
                row["processor"] = round(1e3 * used / (row["requests"] + WARMUP * clients), 2)
                rows.append(row)
                sys.stdout.write(json.dumps(row) + "\n")
    figures = {
        "question": "searches a second and waiting times of a server",
        "unit": "ms; processor: of the server's processor time, for one request",
        "threads of an encoding": arguments.threads,
        "feedback, share of requests": 1 / TEACH_EVERY if arguments.teach else 0,
        "rows": rows,
        "libraries": libraries(["fastapi", "uvicorn", "starlette", "pydantic", "httptools", "uvloop", "onnxruntime"]),
    }
    write(arguments.out, figures)


if __name__ == "__main__":
    main()
