"""The search benchmark on small galleries: every competitor's answer is right, and its figures become tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import search, search_store
from benchmarks.document import document
from benchmarks.rounds import Report, race
from benchmarks.search_tables import SEVERAL, search_tables


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    pytest.importorskip("faiss", reason="faiss is not installed: pip install 'fgsbir-edge[search]'")
    place, group, report = search.Place.random(1500, 16), "1,500 photos, D = 16", Report()
    race(report, group, list(search.competitors(place)), rounds=2, calls=2)
    race(report, group + SEVERAL, list(search.batches(place)), rounds=2, calls=2)
    assert report.rejected == []
    report.target("small, at most 1.2", 1.2, report.times(group, "faiss float32 alone", (group, "ours, float32")), most=True)
    folder = tmp_path_factory.mktemp("store")
    path = str(folder / "many.gallery")
    written = search_store.fill(path, "100")
    memory = [{**written, **search_store.load(path, name)} for name in search_store.SETTINGS]
    store = {"features": 512, "embedding": 64, "written_per_second": 5, "encoded_per_second": 3.5}
    machine = {"processor": "none", "cores": 1, "python": "3", "commit": "0", "load": 1.0}
    return {**report.figures(), "store": store, "memory": memory, "machine": machine}


def test_every_answer_was_right(figures: dict[str, object]) -> None:
    rows = figures["rows"]
    assert isinstance(rows, list)
    ours = [row for row in rows if row["name"].startswith("ours, ") and "adapter" not in row["name"]]
    assert len(ours) == 5 + 3
    assert {row["agrees"] for row in ours} == {"10 of 10"}


def test_tables(figures: dict[str, object]) -> None:
    text = search_tables(figures)
    assert "| ms a query, median (at best) | 1,500 × 16 |  |" in text
    assert "| queries a second, median (at best) | 1 at a time | 16 at a time | 256 at a time |  |" in text
    assert "5 photos a second" in text
    assert "| 100, int8, faiss |" in text
    page = document({"search": figures})
    assert "## Search\n" in page
    assert "small, at most 1.2" in page
    assert "## Search" not in document({})


def test_memory_grows_with_what_is_read(figures: dict[str, object]) -> None:
    memory = figures["memory"]
    assert isinstance(memory, list)
    assert all(row["photos"] == 100 and 0 < row["read_mib"] <= row["peak_mib"] for row in memory)


def test_writing_and_encoding_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_store, "WRITTEN", 64)
    monkeypatch.setattr(search_store, "ENCODED", 4)
    assert search_store.write(str(tmp_path))["written_per_second"] > 0
    assert search_store.encode()["encoded_per_second"] > 0
