"""Writers of a gallery are killed at random moments: ``python -m attacks.kill [--kills 300]``.

A process applies the history of ``gallery_ops`` to a file and says after each change that it is done; after a random time it gets
SIGKILL. The file must then hold exactly what an undisturbed gallery holds after the changes that were reported, or after these
and the one that was under way; its check must find no fault; and the history goes on from there, to the next kill.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from attacks.gallery_ops import DIGEST, FEATURES, change, state
from fgsbir_edge.console import put_json
from fgsbir_edge.gallery.check import check
from fgsbir_edge.gallery.store import MEMORY, Store

LONGEST = 0.25  # seconds that a writer lives once it has begun


@dataclass
class Tally:
    """What came of it."""

    kills: int = 0
    changes: int = 0
    under_way: int = 0  # kills after which the change that was not reported yet was there


def writer(path: str, number: int) -> None:
    """Apply the history from a change on, for ever."""
    store = Store.open(path)
    while True:
        change(store, number)
        number += 1
        os.write(1, b".")


def attack(path: Path, kills: int, seed: int = 0) -> Tally:
    """Kill that many writers. Raises AssertionError naming the change where the file is not what it must be."""
    clock, tally = random.Random(seed), Tally()
    Store.create(str(path), DIGEST, FEATURES).close()
    beside = Store.create(MEMORY, DIGEST, FEATURES)
    for _ in range(kills):
        reported = _one_life(path, tally.changes, clock)
        for _ in range(reported):
            change(beside, tally.changes)
            tally.changes += 1
        report = check(path)
        assert report.healthy, f"after {tally.changes} changes: {report.faults}"
        store = Store.open(str(path))
        held = state(store)
        store.close()
        if held != state(beside):
            change(beside, tally.changes)
            tally.under_way += 1
            tally.changes += 1
            assert held == state(beside), f"the file holds neither what {tally.changes} changes make nor what one less does"
        tally.kills += 1
    return tally


def _one_life(path: Path, number: int, clock: random.Random) -> int:
    """Start a writer and kill it; how many changes it reported."""
    command = [sys.executable, "-m", "attacks.kill", "--writer", str(path), str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)  # it is at work
        time.sleep(clock.uniform(0.0, LONGEST))
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
    assert process.returncode == -signal.SIGKILL, f"the writer ended by itself at change {number + len(first + rest)}"
    return len(first + rest)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m attacks.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--writer", nargs=2, metavar=("FILE", "NUMBER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.writer:
        writer(arguments.writer[0], int(arguments.writer[1]))
    with tempfile.TemporaryDirectory() as folder:
        tally = attack(Path(folder) / "g.gallery", arguments.kills, arguments.seed)
    put_json({"kills": tally.kills, "changes": tally.changes, "under_way": tally.under_way, "faults": 0})


if __name__ == "__main__":
    main()
