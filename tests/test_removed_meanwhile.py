"""A photo that another process removes between being looked up and being written of: nothing is left that names it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from attacks.gallery_ops import DIGEST, FEATURES, head
from fgsbir_edge.errors import UnknownPhotoError
from fgsbir_edge.gallery.check import check
from fgsbir_edge.gallery.metadata import Metadata
from fgsbir_edge.gallery.people import People
from fgsbir_edge.gallery.store import PhotoFile, Store
from fgsbir_edge.head import Adapter

SKETCH = np.ones(FEATURES, np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A gallery of two photos, one of which another process removes."""
    opened = Store.create(str(tmp_path / "g.gallery"), DIGEST, FEATURES)
    files = [PhotoFile(f"{i}.jpg", None, f"/nowhere/{i}.jpg", 1, 1, "") for i in range(2)]
    opened.add(files, [b"x", b"y"], np.ones((2, FEATURES), np.float32))
    other = Store.open(opened.path)
    other.remove(["1.jpg"])
    other.close()
    yield opened
    opened.close()


def test_feedback(store: Store) -> None:
    people = People(store)
    before = people.shown_or_nothing("ann")
    with pytest.raises(UnknownPhotoError, match="removed meanwhile"):
        people.replace(before, before.with_pair("1.jpg", SKETCH, 5), Adapter.identity(head()))
    assert people.names() == []
    people.replace(before, before.with_pair("0.jpg", SKETCH, 5), Adapter.identity(head()))
    assert check(store.path).healthy


def test_metadata(store: Store) -> None:
    with pytest.raises(UnknownPhotoError, match="removed meanwhile"):
        Metadata(store).set({"0.jpg": {"price": 1}, "1.jpg": {"price": 2}})
    assert list(Metadata(store).rows()) == []
    Metadata(store).set({"0.jpg": {"price": 1}})
    assert check(store.path).healthy


def test_a_reader_that_keeps_deleted_pages_is_told_of(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.db.execute("PRAGMA busy_timeout = 50")
    path, log = Path(store.path), Path(f"{store.path}-wal")
    store.clear_log()
    reader = Store.open(store.path, readonly=True)
    with reader.reading():
        reader.items()
        store.remove(["0.jpg"])
        assert b"/nowhere/0.jpg" in path.read_bytes()
    assert "a reader is at work" in caplog.text
    reader.close()
    store.clear_log()
    assert b"/nowhere/0.jpg" not in path.read_bytes() + log.read_bytes()
    assert len(caplog.records) == 1
