"""Damage to a gallery's file is found, what can be read is saved, copies are whole, and killed writers leave no half changes."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from attacks.gallery_ops import DIGEST, FEATURES, change, state
from attacks.kill import attack
from fgsbir_edge.cli import main
from fgsbir_edge.errors import GalleryFormatError, OutputError
from fgsbir_edge.gallery.check import check
from fgsbir_edge.gallery.metadata import Metadata
from fgsbir_edge.gallery.people import People
from fgsbir_edge.gallery.repair import backup, repair
from fgsbir_edge.gallery.store import Store

CHANGES = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A gallery with a history."""
    file = tmp_path / "g.gallery"
    store = Store.create(str(file), DIGEST, FEATURES)
    for number in range(CHANGES):
        change(store, number)
    store.close()
    return file


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store.open(str(path))
    yield opened
    opened.close()


def spoil(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_whole_gallery_has_no_fault(path: Path, store: Store) -> None:
    report = check(path)
    assert report.healthy
    assert report.photos == len(store.items()) > 10
    assert report.people == len(People(store).names()) > 1
    assert report.pairs > report.people
    assert report.described == len(dict(Metadata(store).rows())) > 3


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE blocks SET data = zeroblob(length(data)) WHERE id = (SELECT max(block) FROM items)", "checksum is wrong"),
        ("UPDATE blocks SET data = x'00' WHERE id = (SELECT max(block) FROM items)", "has 1 bytes, expected"),
        ("UPDATE items SET slot = 99 WHERE id = (SELECT max(id) FROM items)", "points outside block"),
        ("UPDATE items SET slot = (SELECT max(slot) - 1 FROM items i WHERE i.block = items.block) WHERE slot > 0", "shares slot"),
        ("DELETE FROM blocks WHERE id = (SELECT max(block) FROM items)", "points to a row of blocks"),
        ("UPDATE pairs SET sketch = x'0000'", "bytes of features, expected"),
        ("UPDATE pairs SET photo = 'nowhere.jpg'", "'nowhere.jpg', which is not here"),
        ("DELETE FROM people", "points to a row of people"),
        ("UPDATE metadata SET data = replace(data, 'price', 'prize')", "checksum is wrong"),
        ("UPDATE metadata SET photo = 'nowhere' || id", "metadata names photo 'nowhere"),
        ("UPDATE adapters SET data = x'00112233'", "not a safetensors file"),
    ],
)
def test_every_fault_is_found(path: Path, statement: str, fault: str) -> None:
    spoil(path, statement)
    before = path.read_bytes()
    report = check(path)
    assert not report.healthy
    assert any(fault in line for line in report.faults), report.faults
    assert path.read_bytes() == before


def test_pages_are_looked_at(path: Path) -> None:
    """Pages overwritten anywhere past the first one: found, unless they hold a part of a thumbnail, which has no checksum."""
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(40):
        damaged = bytearray(whole)
        at = 4096 * int(rng.integers(1, len(whole) // 4096))
        damaged[at : at + 4096] = rng.bytes(4096)
        path.write_bytes(bytes(damaged))
        try:
            found += not check(path).healthy
        except GalleryFormatError:
            found += 1
    assert found >= 25


def test_repair_saves_what_is_whole(path: Path, tmp_path: Path, store: Store) -> None:
    block = store.items()[-1].block
    lost = {item.name for item in store.items() if item.block == block}
    before, features = store.load()
    kept_metadata = {photo: facts for photo, facts in Metadata(store).rows() if photo not in lost}
    kept_pairs = {
        (person, photo) for person in People(store).names() for photo in People(store).shown(person).photos if photo not in lost
    }
    store.close()
    spoil(path, f"UPDATE blocks SET data = zeroblob(length(data)) WHERE id = {block}")
    spoiled = path.read_bytes()
    report = repair(path, tmp_path / "new.gallery")
    assert path.read_bytes() == spoiled
    assert set(report.lost) == lost
    assert report.photos == len(before) - len(lost)
    assert check(tmp_path / "new.gallery").healthy
    new = Store.open(str(tmp_path / "new.gallery"))
    items, rows = new.load()
    wanted = [i for i, item in enumerate(before) if item.name not in lost]
    assert [item.name for item in items] == [before[i].name for i in wanted]
    np.testing.assert_array_equal(rows, features[wanted])
    people = People(new)
    assert {(person, photo) for person in people.names() for photo in people.shown(person).photos} == kept_pairs
    assert dict(Metadata(new).rows()) == kept_metadata != {}
    assert report.described == len(kept_metadata)
    new.close()


def test_repair_reads_past_damaged_pages(path: Path, tmp_path: Path) -> None:
    """Overwritten pages anywhere: either the file is beyond reading, which is said, or the new one is whole."""
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    saved = []
    for turn in range(25):
        damaged = bytearray(whole)
        page = int(rng.integers(1, len(whole) // 4096))
        damaged[4096 * page : 4096 * (page + 1)] = rng.bytes(4096)
        path.write_bytes(bytes(damaged))
        target = tmp_path / f"{turn}.gallery"
        try:
            report = repair(path, target)
        except GalleryFormatError:
            assert not target.exists()
            continue
        assert check(target).healthy
        saved.append(report.photos)
    assert len(saved) >= 15
    assert max(saved) >= 20
    assert not list(tmp_path.glob(".*.part*"))


def test_a_backup_is_a_moment_of_a_file_in_use(path: Path, tmp_path: Path) -> None:
    """While another thread goes on writing, every copy is a state that there was."""
    stop, known = threading.Event(), []

    def write() -> None:
        store = Store.open(str(path))
        number = CHANGES
        while not stop.is_set():
            change(store, number)
            number += 1
            known.append(state(store))
        store.close()

    start = Store.open(str(path))
    known.append(state(start))
    start.close()
    writer = threading.Thread(target=write)
    writer.start()
    copies = []
    for turn in range(6):
        backup(path, tmp_path / f"{turn}.copy")
        assert check(tmp_path / f"{turn}.copy").healthy
        copy = Store.open(str(tmp_path / f"{turn}.copy"), readonly=True)
        copies.append(state(copy))
        copy.close()
    stop.set()
    writer.join()
    assert all(copy in known for copy in copies)


def test_targets_are_not_overwritten(path: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"mine")
    for function in (backup, repair):
        with pytest.raises(OutputError, match="exists already"):
            function(path, tmp_path / "there")
        with pytest.raises(OutputError, match="nowhere"):
            function(path, tmp_path / "nowhere" / "new.gallery")
    assert (tmp_path / "there").read_bytes() == b"mine"
    with pytest.raises(GalleryFormatError, match="no such gallery"):
        check(tmp_path / "absent")


def test_a_full_disk_is_said_and_changes_nothing(path: Path, store: Store) -> None:
    before = state(store)
    pages = store.db.execute("PRAGMA page_count").fetchone()[0]
    store.db.execute(f"PRAGMA max_page_count = {pages}")

    def until_full() -> None:
        nonlocal before
        for number in range(CHANGES, CHANGES + 200):
            before = state(store)
            change(store, number)

    with pytest.raises(OutputError, match="full"):
        until_full()
    assert state(store) == before
    store.db.execute("PRAGMA max_page_count = 1000000")
    change(store, CHANGES)
    assert check(path).healthy


def test_readers_see_whole_states_while_a_writer_writes(path: Path) -> None:
    problems: list[Exception] = []
    stop = threading.Event()

    def read() -> None:
        reader = Store.open(str(path), readonly=True)
        try:
            while not stop.is_set():
                items, features = reader.load()
                assert len(items) == len(features)
        except Exception as error:  # handed to the test
            problems.append(error)
        reader.close()

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    writer = Store.open(str(path))
    for number in range(CHANGES, CHANGES + 60):
        change(writer, number)
    writer.close()
    stop.set()
    for reader in readers:
        reader.join()
    assert problems == []


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_writers_leave_no_half_changes(tmp_path: Path) -> None:
    tally = attack(tmp_path / "g.gallery", kills=12, seed=3)
    assert tally.kills == 12
    assert tally.changes > 12


def test_the_commands(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gallery", "check", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["healthy"] is True
    assert main(["gallery", "backup", str(path), str(tmp_path / "copy")]) == 0
    spoil(path, "UPDATE items SET slot = 99 WHERE id = (SELECT max(id) FROM items)")
    assert main(["gallery", "check", str(path)]) == 1
    out = capsys.readouterr().out
    assert "1 fault\n" in out
    assert "gallery repair" in out
    assert main(["gallery", "repair", str(path), str(tmp_path / "new")]) == 0
    assert "1 photos lost" in capsys.readouterr().out
    assert main(["gallery", "check", str(tmp_path / "new")]) == 0
