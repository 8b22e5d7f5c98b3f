"""A toy model and toy photos, small enough that every test can run the whole path: pixels, features, head, gallery, commands."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from fgsbir_edge import device
from fgsbir_edge.bundle import Bundle, write_bundle
from fgsbir_edge.encoder.onnx import NO_TELEMETRY
from fgsbir_edge.engine import Engine
from fgsbir_edge.head import Head
from fgsbir_edge.preprocess import InputSpec
from tests import fake_cuda
from tests.fake_cuda import FakeCore
from tests.toy import PHOTOS, SIZE, USERS, outline, toy_encoder, toy_head

os.environ.setdefault(NO_TELEMETRY, "1")  # tests that import ONNX Runtime themselves send nothing either


@pytest.fixture(autouse=True)
def _no_choices(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `fgsbir-edge bench` has chosen on this machine is none of the tests' business."""
    monkeypatch.setenv("FGSBIR_CHOICES", str(tmp_path_factory.getbasetemp() / "choices"))


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCore]:
    """A GPU that does not exist: what the package finds where it looks for its own device code."""
    yield fake_cuda.install(monkeypatch)
    monkeypatch.undo()
    device.cuda.cache_clear()


@pytest.fixture
def head() -> Head:
    """A fresh toy head."""
    return toy_head()


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy bundle folder. Do not change it; copy it first."""
    path = tmp_path_factory.mktemp("models") / "toy"
    spec = InputSpec(size=SIZE, mean=(0.9, 0.9, 0.9), std=(0.3, 0.3, 0.3), photo_fit="pad")
    write_bundle(path, name="toy", encoder=toy_encoder(), head=toy_head(), input=spec, provenance={"data": "made up"})
    return path


@pytest.fixture(scope="session")
def bundle(bundle_path: Path) -> Bundle:
    """The toy bundle, loaded."""
    return Bundle.load(bundle_path)


@pytest.fixture(scope="session")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder: 12 photos of stars in two categories, each drawn by two people. Do not change it; copy it first."""
    root = tmp_path_factory.mktemp("data")
    rows = []
    for number in range(PHOTOS):
        category = "odd" if number % 2 else "even"
        name = f"{category}/star{number:02d}.png"
        (root / "photos" / category).mkdir(parents=True, exist_ok=True)
        photo = Image.new("RGB", (100, 100), "white")
        ImageDraw.Draw(photo).polygon(outline(number, 0.0), fill=(90 + 10 * number, 120, 60), outline="black")
        photo.save(root / "photos" / name)
        for user in USERS:
            (root / "sketches" / user).mkdir(parents=True, exist_ok=True)
            drawing = Image.new("L", (100, 100), 255)
            ImageDraw.Draw(drawing).line(outline(number, 3.0 if user == "ann" else -2.0), fill=0, width=2)
            drawing.save(root / "sketches" / user / f"{number}.png")
            rows.append((f"{user}/{number}.png", name, category, user))
    with (root / "pairs.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("sketch", "photo", "category", "user"), *rows])
    return root


@pytest.fixture
def engine(bundle: Bundle, data_path: Path) -> Iterator[Engine]:
    """The toy model over the toy photos, in memory."""
    with Engine.open(photos=data_path / "photos", bundle=bundle, threads=1) as opened:
        yield opened
