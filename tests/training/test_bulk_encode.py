"""Folders encoded by several processes: the same features as a gallery's, shards that survive kills, everyone's share."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.engine import Engine
from fgsbir_edge.gallery.merge import merge
from fgsbir_edge.gallery.store import Store
from training import bulk_encode

pytestmark = [pytest.mark.torch]
PHOTOS, PER_SHARD = 70, 32
many = pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no distributed package")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """70 photos in two folders; the shards end amid them."""
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for number in range(PHOTOS):
        path = folder / ("chairs" if number < 40 else "shoes") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def words(photos: Path, bundle_path: Path, tmp_path: Path) -> list[str]:
    out = ["--out", str(tmp_path / "shards"), "--per-shard", str(PER_SHARD)]
    return ["training.bulk_encode", "--folder", str(photos), "--model", str(bundle_path), *out]


def ran(words: list[str], before: tuple[str, ...] = (), **variables: str) -> dict[str, Any]:
    """What a command printed."""
    done = subprocess.run(
        [sys.executable, *before, "-m", *words], capture_output=True, text=True, env={**os.environ, **variables}
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def held(path: Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    """All that a gallery knows of photos but when they came, and their features."""
    store = Store.open(str(path))
    items = [{**asdict(item), "added_at": "", "thumbnail": store.thumbnail(item.name)} for item in store.items()]
    features = store.load()[1]
    store.close()
    return items, features


def indexed(photos: Path, bundle: Bundle, path: Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The gallery that indexing makes."""
    with Engine.open(bundle=bundle, gallery=path, threads=1, create=True) as engine:
        engine.index(photos)
    return held(path)


def merged(tmp_path: Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The gallery of the shards."""
    path = tmp_path / f"merged{time.monotonic_ns()}.gallery"
    merge([tmp_path / "shards"], path)
    return held(path)


def run_here(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        assert bulk_encode.main() == 0
    return dict(json.loads(capsys.readouterr().out))


def test_one_process_makes_the_gallery_of_index_bit_for_bit(
    words: list[str], photos: Path, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run_here(words, capsys)
    assert (told["photos"], told["encoded"], told["shards"], told["kept"], told["processes"]) == (70, 70, 3, 0, 1)
    items, features = merged(tmp_path)
    wanted, rows = indexed(photos, bundle, tmp_path / "indexed.gallery")
    assert items == wanted
    np.testing.assert_array_equal(features.view(np.uint16), rows.view(np.uint16))


def test_shifted_copies_are_encoded_as_a_gallery_does(
    words: list[str], photos: Path, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    shifting = replace(bundle, input=replace(bundle.input, photo_shift=3), path=None)
    shifting.save(tmp_path / "shifting")
    words[words.index("--model") + 1] = str(tmp_path / "shifting")
    run_here(words, capsys)
    _, features = merged(tmp_path)
    _, rows = indexed(photos, shifting, tmp_path / "indexed.gallery")
    np.testing.assert_array_equal(features.view(np.uint16), rows.view(np.uint16))
    _, plain = indexed(photos, bundle, tmp_path / "plain.gallery")
    assert np.abs(plain.astype(np.float32) - rows).max() > 1e-3  # the shift is seen in features


def test_unreadable_photos_are_told_and_left_out(
    words: list[str], photos: Path, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one missing the batches of index are others; features may differ by float32's rounding."""
    (photos / "chairs" / "03.png").write_bytes(b"no image")
    (photos / "shoes" / "60.png").unlink()
    (photos / "shoes" / "60.png").symlink_to(tmp_path / "nowhere")
    assert run_here(words, capsys)["skipped"] == ["chairs/03.png", "shoes/60.png"]
    told = run_here(words, capsys)
    assert (told["encoded"], told["kept"], told["skipped"]) == (0, 3, ["chairs/03.png", "shoes/60.png"])
    items, features = merged(tmp_path)
    wanted, rows = indexed(photos, bundle, tmp_path / "indexed.gallery")
    for one in (*items, *wanted):
        del one["block"], one["slot"]
    assert items == wanted
    np.testing.assert_allclose(features.astype(np.float32), rows.astype(np.float32), rtol=2e-3, atol=1e-4)


def test_what_is_whole_is_kept_and_what_is_not_is_made_again(
    words: list[str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_here(words, capsys)
    before = merged(tmp_path)
    one, other, _ = sorted((tmp_path / "shards").iterdir())
    one.write_bytes(one.read_bytes()[:-5])
    stale = other.with_name(f".{other.name}.1.x.part")
    stale.write_bytes(b"half")
    os.utime(photos / "chairs" / "35.png", ns=(1, 1))  # in the second shard
    told = run_here(words, capsys)
    assert (told["encoded"], told["kept"]) == (64, 1)
    assert not stale.exists()
    items, features = merged(tmp_path)
    np.testing.assert_array_equal(features, before[1])
    assert [item["mtime_ns"] == old["mtime_ns"] for item, old in zip(items, before[0], strict=True)].count(False) == 1
    (photos / "shoes" / "new.png").write_bytes((photos / "shoes" / "50.png").read_bytes())
    assert run_here(words, capsys)["kept"] == 0  # another folder: all names go into what a run is
    assert run_here([*words, "--category", "all"], capsys)["kept"] == 0
    words[words.index("--per-shard") + 1] = "64"
    assert run_here(words, capsys)["shards"] == 2
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == ["00000-of-00002.shard", "00001-of-00002.shard"]


@many
@pytest.mark.slow
def test_two_processes_do_what_one_does(words: list[str], tmp_path: Path) -> None:
    told = ran([*words, "--devices", "2"])
    assert (told["photos"], told["encoded"], told["shards"], told["processes"]) == (70, 70, 3, 2)
    two = {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    shutil.rmtree(tmp_path / "shards")
    ran(words)
    assert {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()} == two


@many
@pytest.mark.slow
def test_under_torchrun(words: list[str], tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port()))
    told = ran(words, torchrun)
    assert (told["photos"], told["processes"]) == (70, 2)
    assert len(merged(tmp_path)[0]) == PHOTOS


@many
@pytest.mark.slow
def test_two_machines(words: list[str], tmp_path: Path) -> None:
    """As far as one machine can tell: a process each, which find one another."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", *words, "--num-nodes", "2"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **place, "NODE_RANK": str(rank)})
        for rank in range(2)
    ]
    first, second = (process.communicate(timeout=120)[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert json.loads(first)["photos"] == PHOTOS
    assert second == b""
    assert len(merged(tmp_path)[0]) == PHOTOS


@pytest.mark.slow
def test_a_killed_run_goes_on(words: list[str], tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "shards").glob("*.shard")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    told = ran(words)
    assert told["kept"] >= 1
    assert told["photos"] == PHOTOS
    assert len(merged(tmp_path)[0]) == PHOTOS


def test_bad_wishes_are_refused(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wish in (["--per-shard", "33"], ["--per-shard", "100000"], ["--devices", "0"]):
        monkeypatch.setattr(sys, "argv", [*words, *wish])
        with pytest.raises(SystemExit):
            bulk_encode.main()
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(sys, "argv", [*words, "--folder", str(tmp_path / "empty")])
    assert bulk_encode.main() == 10
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path / "file" / "x")])
    assert bulk_encode.main() == 30


def test_processes_take_the_gpus_in_turn(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(bulk_encode, "missing", lambda _: "")
    arguments = bulk_encode.parser().parse_args(words[1:])
    settings = [bulk_encode.chosen(arguments, rank) for rank in range(4)]
    assert [(setting.backend, setting.device) for setting in settings] == [("onnx-cuda", rank % 2) for rank in range(4)]
    monkeypatch.setattr(bulk_encode, "missing", lambda _: "no GPU")
    assert bulk_encode.chosen(arguments, 1).backend == "onnx-cpu"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
