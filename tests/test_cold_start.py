"""What a short command leaves unloaded and undone, and that the shortcuts change no number."""

from __future__ import annotations

import ast
import gc
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fgsbir_edge import arrays, console
from fgsbir_edge import bundle as bundles
from fgsbir_edge.adapt import AdaptOptions, adapt
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.onnx import BATCH_OF_A_THREAD, NO_TELEMETRY, OnnxEncoder
from fgsbir_edge.engine import Engine
from fgsbir_edge.formats.drawing import Drawing
from tests.toy import toy_encoder

ROOT = Path(__file__).parents[1]
# none of them is needed to adapt by drawings in PNG over a gallery file
UNUSED = {
    *("numpy.ma", "numpy.random", "importlib.metadata", "email", "subprocess", "difflib", "tqdm", "faiss", "torch", "onnx"),
    *("PIL.JpegImagePlugin", "PIL.WebPImagePlugin", "PIL.BmpImagePlugin"),
    *(f"fgsbir_edge.{name}" for name in ("feedback", "zero_sketch", "jetson", "device", "gpu_stream", "sheet", "serve", "cli")),
    *(f"fgsbir_edge.gallery.{name}" for name in ("filters", "columns", "metadata", "check", "repair")),
}


def loaded(arguments: list[str], **environment: str) -> set[str]:
    """Modules that a command loads."""
    command = [sys.executable, "-X", "importtime", "-m", "fgsbir_edge.adapt", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ, **environment})
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_the_command_loads_what_it_needs_alone(bundle: Bundle, data_path: Path, tmp_path: Path) -> None:
    gallery, out = tmp_path / "photos.fgsbir", tmp_path / "me.safetensors"
    with Engine.open(photos=data_path / "photos", gallery=gallery, bundle=bundle, threads=1, create=True):
        pass
    pairs = [f"{data_path}/sketches/ann/{n}.png={'odd' if n % 2 else 'even'}/star{n:02d}.png" for n in range(5)]
    arguments = ["--bundle", str(bundle.path), "--gallery", str(gallery), "--threads", "1", "--output", str(out), *pairs]
    modules = loaded(arguments, FGSBIR_CHOICES=str(tmp_path / "none"))
    assert out.is_file()
    assert {"numpy", "onnxruntime", "fgsbir_edge.inner", "fgsbir_edge.gallery.store"} <= modules  # the list is one of modules
    assert not modules & UNUSED


def test_a_process_of_one_command_ends_with_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(gc, "set_threshold", lambda *numbers: done.append(numbers))  # pytest's own process goes on
    monkeypatch.setattr(gc, "freeze", lambda: done.append("frozen"))
    with pytest.raises(SystemExit) as ended:
        console.whole_process(lambda: 7)
    assert ended.value.code == 7
    (seldom,), frozen = done
    assert seldom > gc.get_threshold()[0]
    assert frozen == "frozen"
    console.stays()
    assert done[2:] == [gc.get_threshold()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int16])
@pytest.mark.parametrize("shape", [(1,), (2,), (7,), (1000,), (6, 3), (1001, 3)])
def test_median_is_numpys_to_the_bit(dtype: type, shape: tuple[int, ...]) -> None:
    values = (np.random.default_rng(len(shape)).normal(0.4, 0.3, shape) * 200).astype(dtype)
    kept = values.copy()
    ours, theirs = arrays.median(values), np.median(values, axis=0)
    assert np.asarray(ours).dtype == np.asarray(theirs).dtype
    assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    np.testing.assert_array_equal(values, kept)


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="NumPy 1 interpolates float32 in float64")
@pytest.mark.parametrize("count", [1, 2, 3, 10, 11, 1000, 4097])
@pytest.mark.parametrize("percent", [0, 10, 50, 90, 99.5])
def test_percentile_is_numpys_to_the_bit(count: int, percent: float) -> None:
    values = np.random.default_rng(count).random(count, dtype=np.float32)
    assert arrays.percentile(values, percent) == float(np.percentile(values, percent))


@pytest.mark.parametrize("mode", ["1", "L", "I;16"])
@pytest.mark.parametrize("lamp", [False, True])
def test_grey_drawings_are_read_as_their_colour_copies(mode: str, lamp: bool, data_path: Path) -> None:
    grey = np.asarray(Image.open(data_path / "sketches" / "ann" / "3.png").resize((1100, 1300)))
    if lamp:
        grey = (grey * np.linspace(0.5, 0.9, 1100)).astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
        colours = Image.fromarray(grey).convert("RGB")
    else:
        image = Image.fromarray(grey).convert(mode)
        colours = image.convert("RGB")
    assert image.mode == mode
    np.testing.assert_array_equal(Drawing.from_image(image).ink, Drawing.from_image(colours).ink)


def test_the_encoder_is_hashed_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    digest = bundles.digest
    monkeypatch.setattr(bundles, "digest", lambda data: asked.append(len(data)) or digest(data))
    assert bundle.path is not None
    again = Bundle.load(bundle.path)
    assert asked.count(len(bundle.encoder)) == 1
    assert again.encoder_sha256 == digest(bundle.encoder)
    other = toy_encoder(seed=5)
    assert replace(again, encoder=other).encoder_sha256 == digest(other)


def test_photos_that_push_nobody_away_are_not_handed_over(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [entry.name for entry in engine.gallery.index.entries][:4]
    photos = engine.photo_features(names)
    sketches = photos + np.float32(0.01)
    rest = engine.gallery.features([name for name in engine.gallery.index.positions if name not in names])
    found = engine.adapt_features(sketches, photos)
    every = engine.gallery.index.features(np.arange(len(engine.gallery)))
    alike = adapt(engine.head, sketches, photos, negatives_features=rest, candidates=every)
    assert (found.status, found.guard) == (alike.status, alike.guard)
    np.testing.assert_allclose(found.adapter.coefficients, alike.adapter.coefficients, rtol=1e-4, atol=1e-6)
    handed: list[object] = []
    monkeypatch.setattr("fgsbir_edge.engine.adapt", lambda *_, **given: handed.append(given["negatives_features"]) or found)
    engine.adapt_features(sketches, photos)
    engine.adapt_features(sketches, photos, options=AdaptOptions(negatives="gallery", max_negatives=5))
    assert handed[0] is None
    assert len(handed[1]) == 5


@pytest.mark.parametrize(("threads", "runs"), [(1, 3), (3, 1)])
def test_batches_of_more_threads_are_larger(bundle: Bundle, threads: int, runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, sizes = OnnxEncoder(bundle, threads), []
    run, size = encoder._session.run, bundle.input.size
    session = SimpleNamespace(run=lambda names, feed: sizes.append(len(feed["image"])) or run(names, feed))
    monkeypatch.setattr(encoder, "_session", session)
    encoder.encode(np.zeros((3 * BATCH_OF_A_THREAD, 3, size, size), np.float32))
    assert len(sizes) == runs


@pytest.mark.parametrize(("given", "kept"), [(None, "1"), ("0", "0")])
def test_onnx_runtime_is_told_to_be_silent_before_it_loads(given: str | None, kept: str, tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from fgsbir_edge.encoder.onnx import load_runtime\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "assert load_runtime() is sys.modules['onnxruntime']\n"
        f"assert os.environ[{NO_TELEMETRY!r}] == {kept!r}\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != NO_TELEMETRY} | {"HOME": str(tmp_path)}
    environment |= {"XDG_CACHE_HOME": str(tmp_path)} | ({} if given is None else {NO_TELEMETRY: given})
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, env=environment)
    if kept == "1":
        assert not list(tmp_path.rglob("*onnxruntime*"))


def test_nobody_loads_onnx_runtime_otherwise() -> None:
    for path in (ROOT / "fgsbir_edge").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found = [name for name in names if name.split(".")[0] == "onnxruntime"]
            assert not found or path.name == "onnx.py", path
