"""An hour of a kiosk's life, or as long as told: ``python -m attacks.soak [--minutes 60] [--out FILE.json]``.

Threads and another process do to one gallery what ``kiosk.py`` says, all at once, while the main thread notes memory, open files,
threads and the sizes of the gallery's files. Any exception that is not foreseen is a fault, and so is growth: a line is fitted to
the memory of each process after a warm-up, and what it gains until the end must stay below ``--bound``. Exit code 1 on a fault.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from attacks.kiosk import BLOCK, WORKERS, Place, Tally, Worker, add_made_up
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.console import put, put_json
from fgsbir_edge.files import write_atomic
from fgsbir_edge.gallery.check import check
from fgsbir_edge.gallery.store import Store

WARM_UP = 0.25  # of the time
MOST_LOG = 64.0  # MiB that the write-ahead log may grow to
MORE = {"handles": 4, "reader_handles": 4, "threads": 0}  # in the last half, beyond what the first half had at most


@dataclass
class Samples:
    """One row a moment; columns by name."""

    rows: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **values: float) -> None:
        """Note a moment."""
        for name, value in values.items():
            self.rows.setdefault(name, []).append(round(value, 3))

    def after_warm_up(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Times in seconds and values."""
        times, values = np.array(self.rows["seconds"]), np.array(self.rows[name])
        kept = times >= WARM_UP * times[-1]
        return times[kept], values[kept]

    def gain(self, name: str) -> float:
        """What the fitted line gains from warm-up to end."""
        times, values = self.after_warm_up(name)
        return float(np.polyfit(times, values, 1)[0] * (times[-1] - times[0])) if len(times) > 2 else 0.0

    def rise(self, name: str) -> float:
        """By how much the highest value of the last half exceeds that of the first, after warm-up."""
        values = self.after_warm_up(name)[1]
        half = len(values) // 2
        return float(values[half:].max() - values[:half].max()) if half else 0.0


def soak(place: Place, minutes: float, every: float, bound: float) -> dict[str, Any]:
    """Run it; what happened as plain JSON values, its "faults" first. ``every`` seconds, ``bound`` MiB."""
    _prepare(place)
    stop, samples = threading.Event(), Samples()
    workers: list[Worker] = []
    threads = [_started(name, place, seed, stop, workers) for seed, name in enumerate(("visitor", "visitor", "attendant"))]
    with _reader(place, 60 * minutes) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()  # it is at work
        try:
            begun = time.monotonic()
            while time.monotonic() < begun + 60 * minutes and all(thread.is_alive() for thread in threads):
                time.sleep(every)
                samples.add(seconds=time.monotonic() - begun, **_moment(place.gallery, reader.pid))
        finally:
            stop.set()
            reader.send_signal(signal.SIGTERM)
            for thread in threads:
                thread.join()
        there = json.loads(reader.communicate()[0] or "{}")
    told = [*(fault for worker in workers for fault in worker.faults), *there.get("faults", ["the reader ended with nothing"])]
    report = check(place.gallery)
    faults = [*told, *report.faults, *judged(samples, bound)]
    return {
        "faults": faults,
        "minutes": minutes,
        "photos": report.photos,
        "people": report.people,
        "pairs": report.pairs,
        "operations": {**_summed(workers), **{f"reader {name}": one for name, one in there.get("operations", {}).items()}},
        "gain_mib": {name: round(samples.gain(name), 2) for name in ("rss_mib", "reader_rss_mib", "gallery_mib")},
        "bound_mib": bound,
        "samples": samples.rows,
    }


def judged(samples: Samples, bound: float) -> list[str]:
    """What grew that must not."""
    gains = {name: samples.gain(name) for name in ("rss_mib", "reader_rss_mib")}
    faults = [
        f"{name} gains {gain:.1f} MiB after warm-up, at most {bound} are allowed" for name, gain in gains.items() if gain > bound
    ]
    rises = {name: samples.rise(name) for name in ("handles", "reader_handles", "threads")}
    told = "{} rise by {:.0f} in the last half, at most {} are allowed"
    faults += [told.format(name, rise, MORE[name]) for name, rise in rises.items() if rise > MORE[name]]
    if (log := max(samples.rows["log_mib"], default=0.0)) > MOST_LOG:
        faults.append(f"the write-ahead log grew to {log:.1f} MiB, at most {MOST_LOG} are allowed")
    return faults


def _prepare(place: Place) -> None:
    bundle = Bundle.default() if place.bundle is None else Bundle.load(place.bundle)
    (place.folder / "photos").mkdir()
    store = Store.create(str(place.gallery), bundle.features_digest, bundle.head.features)
    try:
        for number in range(-(-place.photos // BLOCK)):
            add_made_up(store, BLOCK, number)
    finally:
        store.close()


def _started(name: str, place: Place, seed: int, stop: threading.Event, workers: list[Worker]) -> threading.Thread:
    """A worker's thread; what SQLite opens belongs to the thread that opened it."""

    def work() -> None:
        worker = WORKERS[name](place, seed)
        workers.append(worker)
        worker.run(stop)

    thread = threading.Thread(target=work, name=name)
    thread.start()
    return thread


def _reader(place: Place, seconds: float) -> subprocess.Popen[bytes]:
    bundle = [] if place.bundle is None else ["--bundle", str(place.bundle)]
    words = [str(place.gallery), "--share", str(place.share), "--photos", str(place.photos), *bundle]
    command = [sys.executable, "-m", "attacks.soak", "--minutes", str(seconds / 60 + 5), "--reader", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def _read(place: Place, seconds: float) -> dict[str, Any]:
    """The other process; ends on SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    timer = threading.Timer(seconds, stop.set)  # should nobody ask it to end
    timer.daemon = True
    timer.start()
    worker = WORKERS["reader"](place, 100)
    put("")  # for whoever waits for it
    sys.stdout.flush()
    worker.run(stop)
    return {"faults": worker.faults, "operations": _summed([worker])}


def _summed(workers: Sequence[Worker]) -> dict[str, dict[str, float]]:
    sums: dict[str, Tally] = {}
    for worker in workers:
        for name, tally in worker.tallies.items():
            total = sums.setdefault(name, Tally())
            total.done += tally.done
            total.refused += tally.refused
            total.slowest = max(total.slowest, tally.slowest)
            total.times += tally.times
    return {name: tally.summary() for name, tally in sums.items()}


def _moment(gallery: Path, reader: int) -> dict[str, float]:
    rss, threads = _status("self")
    other, _ = _status(str(reader))
    sizes = [_size(Path(f"{gallery}{ending}")) for ending in ("", "-wal")]
    return {
        "rss_mib": rss,
        "reader_rss_mib": other,
        "objects": sys.getallocatedblocks(),
        "handles": _handles("self"),
        "reader_handles": _handles(str(reader)),
        "threads": threads,
        "gallery_mib": sizes[0],
        "log_mib": sizes[1],
    }


def _status(process: str) -> tuple[float, float]:
    """Resident memory in MiB, and threads; 0 where it has ended."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        return int(lines["VmRSS"].split()[0]) / 1024, int(lines["Threads"])
    except (OSError, KeyError):
        return 0.0, 0.0


def _handles(process: str) -> int:
    try:
        return len(os.listdir(f"/proc/{process}/fd"))
    except OSError:
        return 0


def _size(path: Path) -> float:
    try:
        return path.stat().st_size / 2**20
    except OSError:
        return 0.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m attacks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=15.0, help="seconds between samples (15)")
    parser.add_argument("--photos", type=int, default=3000)
    parser.add_argument("--share", type=float, default=0.1, help="of calls that the network itself answers (0.1)")
    parser.add_argument("--bound", type=float, default=24.0, help="MiB that memory may gain after warm-up (24)")
    parser.add_argument("--bundle", type=Path, help="model folder (the one in the package)")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    parser.add_argument("--reader", type=Path, metavar="GALLERY", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    place: Callable[[Path, Path], Place]
    place = lambda gallery, folder: Place(gallery, folder, arguments.photos, arguments.share, arguments.bundle)  # noqa: E731
    if arguments.reader is not None:
        put_json(_read(place(arguments.reader, arguments.reader.parent), 60 * arguments.minutes))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        result = soak(place(Path(folder) / "kiosk.gallery", Path(folder)), arguments.minutes, arguments.every, arguments.bound)
    if arguments.out is not None:
        write_atomic(arguments.out, (json.dumps(result, indent=1) + "\n").encode())
    put_json({name: value for name, value in result.items() if name != "samples"})
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
