"""A short run of ``attacks.fuzz`` over every parser, and of the fuzzer over parsers that it must find fault with."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from attacks import fuzz
from attacks.fuzz import attack, changed
from attacks.targets import TARGETS, Target, corpus
from fgsbir_edge.errors import SketchFormatError

FILES = 60


@pytest.mark.parametrize("name", TARGETS)
def test_changed_files_are_accepted_or_refused(name: str, tmp_path: Path) -> None:
    tally = attack(name, FILES, 30.0, tmp_path)
    assert tally.faults == 0, sorted(path.name for path in tmp_path.iterdir())
    assert tally.refused > 0


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_accepted(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    for number, seed in enumerate(target.seeds()):
        path = tmp_path / f"{number}{target.suffix}"
        path.write_bytes(seed)
        target.parse(path)


DEEP = {
    "manifest": b'{"input":' * 50_000,
    "quickdraw": b'{"drawing":' + b"[" * 100_000,
    "metadata_jsonl": b'{"name":"a","x":' + b"[" * 100_000,
    "filter": b"not " * 20_000 + b"a=1",
    "svg": b"<svg>" + b"<g>" * 50_000,
    "qmul": b"\x80\x04" + b"(" * 100_000,
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_nesting_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"deep{TARGETS[name].suffix}"
    path.write_bytes(DEEP[name])
    assert TARGETS[name].refuses(path)


def test_faults_are_found_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(path: Path) -> None:
        data = path.read_bytes()
        if not data.startswith(b"mark"):
            raise SketchFormatError("not marked")
        int(data[4:8])  # ValueError: nobody expected it

    monkeypatch.setitem(TARGETS, "careless", Target(".x", careless, lambda: [b"mark1234"]))
    tally = attack("careless", 50, 10.0, tmp_path)
    assert 0 < tally.faults < 50
    assert 0 < tally.refused < 50
    assert len(list(tmp_path.iterdir())) == tally.faults
    monkeypatch.setattr(fuzz, "SLOW", 0.0)
    assert attack("pairs", 3, 10.0, tmp_path).faults == 3


def test_changes_change_and_repeat() -> None:
    seeds = list(corpus("svg"))
    one, other = ([changed(seeds[0], seeds, random.Random(seed)) for seed in range(200)] for _ in range(2))
    assert one == other
    assert sum(data != seeds[0] for data in one) > 180
    assert len(set(one)) > 180
