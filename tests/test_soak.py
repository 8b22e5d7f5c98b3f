"""A short ``attacks.soak``, and what it must call a fault."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from attacks.kiosk import Place, Reader, Tally
from attacks.soak import Samples, judged, soak
from fgsbir_edge.errors import UnknownPhotoError


def samples(**columns: list[float]) -> Samples:
    flat = {name: [5.0] * 40 for name in ("rss_mib", "reader_rss_mib", "handles", "reader_handles", "threads", "log_mib")}
    return Samples({"seconds": [float(i) for i in range(40)], **flat, **columns})


def test_a_few_seconds_of_a_kiosk(bundle_path: Path, tmp_path: Path) -> None:
    """Memory is still finding its place in so short a time: only a great deal of it is a fault here."""
    place = Place(tmp_path / "g.gallery", tmp_path, photos=120, share=0.5, bundle=bundle_path)
    result = soak(place, minutes=0.07, every=0.2, bound=300.0)
    assert result["faults"] == []
    assert {name for name, one in result["operations"].items() if one["done"]} >= {"query", "feedback", "index", "reader query"}
    assert 60 < result["photos"] < 240
    assert len(result["samples"]["seconds"]) > 5


def test_growth_is_a_fault() -> None:
    rising = [float(i) for i in range(40)]
    assert judged(samples(), 1.0) == []
    assert judged(samples(rss_mib=[*rising[:8], *[8.0] * 32]), 1.0) == []  # while it warms up
    assert judged(samples(rss_mib=rising), 24.0)[0].startswith("rss_mib gains 29.0 MiB")
    assert judged(samples(reader_rss_mib=rising), 24.0)[0].startswith("reader_rss_mib gains")
    assert judged(samples(handles=rising), 1.0)[0].startswith("handles rise by 15")
    assert judged(samples(threads=[5.0] * 30 + [6.0] * 10), 1.0)[0].startswith("threads rise by 1")
    assert judged(samples(log_mib=[100.0] * 40), 1.0)[0].startswith("the write-ahead log grew")


def test_unforeseen_exceptions_are_faults_and_foreseen_ones_are_counted(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path / "g.gallery", tmp_path, photos=40, share=0.0, bundle=bundle_path)
    soak(place, minutes=0.01, every=0.1, bound=1000.0)

    def broken(_: Reader) -> None:
        raise RuntimeError("broken")

    def gone(_: Reader) -> None:
        raise UnknownPhotoError("gone")

    monkeypatch.setattr(Reader, "query", broken)
    monkeypatch.setattr(Reader, "query_category", gone)
    worker = Reader(place, 0)
    worker.run(threading.Event())  # ends after ten faults
    assert len(worker.faults) == 10
    assert "RuntimeError: broken" in worker.faults[0]
    assert worker.tallies["query_category"].refused == worker.tallies["query_category"].done


def test_times_are_counted() -> None:
    tally = Tally()
    for seconds in np.linspace(0.001, 0.1, 100):
        tally.add(float(seconds))
    found = tally.summary()
    assert 50 <= found["p50_ms"] <= 64
    assert 99 <= found["p99_ms"] <= 100
    assert found["max_ms"] == 100
