"""Changed files for every parser: ``python -m attacks.fuzz [TARGET ...] [--seconds 60]``.

Files that a parser accepts are cut, spliced, overwritten and spelt otherwise, again and again, from a fixed seed. What is neither
accepted nor refused with an error of this package is a fault: it is written to ``--faults`` and named, and the exit code is 1.
With ``--guided`` targets run under atheris (``pip install atheris``), which goes by what a file makes the parser do, each for as
long as ``--seconds`` says; files that reached something new are kept in attacks/corpus/TARGET, faults beside these folders.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from attacks.targets import TARGETS, Target, corpus
from fgsbir_edge.console import put_json, say

SLOW = 5.0  # seconds for one file
NUMBERS = [
    b"0",
    b"-1",
    b"1e999",
    b"NaN",
    b"99999999999999999999",
    b"0.0000001",
    b"1e308",
    b"\xff\xff\xff\xff",
    b"\x00" * 8,
    b"\x7f" * 8,
]
MOST = 1 << 16  # bytes of a changed file


@dataclass
class Tally:
    """What a parser did with its files."""

    files: int = 0
    refused: int = 0
    faults: int = 0
    slowest: float = 0.0  # seconds


def changed(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """A file that differs in one to four places."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        length = min(len(data) - at, int(chance.expovariate(1 / 16)) + 1)
        kind = chance.randrange(8)
        if kind == 0:
            data = data[:at]
        elif kind == 1:
            data = data[:at] + data[at + length :]
        elif kind == 2:
            data = data[:at] + chance.randbytes(length) + data[at + length :]
        elif kind == 3:
            data = data[:at] + chance.choice(NUMBERS) + data[at + (length if chance.random() < 0.5 else 0) :]
        elif kind == 4 and length:
            data = data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
        elif kind == 5:
            data = data[:at] + data[at : at + length] * chance.choice((2, 3, 50)) + data[at + length :]
        elif kind == 6:
            other = chance.choice(others)
            begin = chance.randrange(len(other) + 1)
            data = data[:at] + other[begin : begin + 4 * length] + data[at + length :]
        else:
            begin = chance.randrange(len(data) + 1)
            data = data[:at] + data[begin : begin + length] + data[at + length :]
    return data[:MOST]


def attack(name: str, files: int | None, seconds: float, faults: Path, seed: int = 0) -> Tally:
    """Hand a parser its corpus and then changed files, so many or for so long."""
    target, tally, chance = TARGETS[name], Tally(), random.Random(f"{name} {seed}")
    seeds = list(corpus(name))
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{target.suffix}"
        while time.monotonic() < end and (files is None or tally.files < files):
            data = seeds[tally.files] if tally.files < len(seeds) else changed(chance.choice(seeds), seeds, chance)
            path.write_bytes(data)
            _one(target, path, tally, faults / f"{name}-{seed}-{tally.files}{target.suffix}")
    return tally


def _one(target: Target, path: Path, tally: Tally, fault: Path) -> None:
    start = time.monotonic()
    faulthandler.dump_traceback_later(60, exit=True)  # a parser that hangs
    try:
        tally.refused += target.refuses(path)
    except Exception as error:  # whatever it is, it is what this looks for
        _keep(path, fault, f"{type(error).__name__}: {error}")
        tally.faults += 1
    finally:
        faulthandler.cancel_dump_traceback_later()
    took = time.monotonic() - start
    if took > SLOW:
        _keep(path, fault, f"took {took:.1f} s")
        tally.faults += 1
    tally.slowest = max(tally.slowest, round(took, 3))
    tally.files += 1


def _keep(path: Path, fault: Path, reason: str) -> None:
    fault.parent.mkdir(parents=True, exist_ok=True)
    fault.write_bytes(path.read_bytes())
    say(f"{fault}: {reason}")


def guided(names: Sequence[str], seconds: int) -> bool:
    """The same under atheris, each target in a process of its own; whether all went well."""
    import atheris

    atheris.instrument_all()  # once, since it takes longer than many a run
    outcomes = []
    for name in names:
        say(f"guided: {name}")
        child = os.fork()
        if child == 0:
            _guided(name, seconds)
        outcomes.append(os.waitpid(child, 0)[1])
    return not any(outcomes)


def _guided(name: str, seconds: int) -> None:
    """Fuzz one target; ends the process."""
    import atheris

    target = TARGETS[name]
    kept = Path(__file__).parent / "corpus" / name
    kept.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp())
    for number, data in enumerate(corpus(name)):
        (folder / f"seed{number}").write_bytes(data)
    path = folder / f"file{target.suffix}"

    def one(data: bytes) -> None:
        path.write_bytes(data)
        target.refuses(path)

    limits = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=3000", "-max_len=8192"]
    atheris.Setup([sys.argv[0], str(kept), str(folder), *limits, f"-artifact_prefix={kept.parent}/fault-{name}-"], one)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m attacks.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all of them")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (60)")
    parser.add_argument("--files", type=int, help="at most, for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=Path, default=Path("out/faults"))
    parser.add_argument("--guided", action="store_true")
    arguments = parser.parse_args()
    names = arguments.targets or list(TARGETS)
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        parser.error(f"unknown target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    if arguments.guided:
        return 0 if guided(names, int(arguments.seconds)) else 1
    tallies = {name: attack(name, arguments.files, arguments.seconds, arguments.faults, arguments.seed) for name in names}
    put_json({name: asdict(tally) for name, tally in tallies.items()})
    return 1 if any(tally.faults for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
