"""A kiosk over the toy model and photos, and a client of its server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.engine import Engine
from fgsbir_edge.serve.service import Kiosk
from fgsbir_edge.serve.worker import Worker
from tests.serve.running import running


@pytest.fixture
def gallery_path(bundle: Bundle, data_path: Path, tmp_path: Path) -> Path:
    """A gallery's file over a copy of the toy photos."""
    photos = tmp_path / "photos"
    for source in sorted((data_path / "photos").rglob("*.png")):
        target = photos / source.relative_to(data_path / "photos")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    with Engine.open(bundle=bundle, gallery=tmp_path / "toy.gallery", photos=photos, threads=1):
        return tmp_path / "toy.gallery"


@pytest.fixture
def worker(bundle: Bundle, gallery_path: Path) -> Worker:
    """Its engine; whoever takes it closes it."""
    return Worker(lambda: Engine.open(bundle=bundle, gallery=gallery_path, threads=1), workers=4)


@pytest.fixture
def client(worker: Worker) -> Iterator[httpx.Client]:
    """Of a server without a limit of rate."""
    with running(Kiosk(worker)) as made:
        yield made
