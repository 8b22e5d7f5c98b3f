"""Engines that are kept: found again, built again when anything differs or is damaged, by one process at a time, in private."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.engine_cache import cached_engine, load_engine, request
from fgsbir_edge.encoder.engine_file import pack, unpack
from fgsbir_edge.encoder.engine_folder import EngineFolder
from fgsbir_edge.encoder.trt_build import BuildOptions
from fgsbir_edge.encoder.trt_device import Gpu
from fgsbir_edge.errors import BundleMissingFileError, DeviceError, EngineBuildError, EngineCacheError
from tests.fake_tensorrt_builder import installed

pytest.importorskip("onnx", reason="onnx is not installed: the stand-in for TensorRT reads models with it")

ROOT = Path(__file__).parents[1]
ORIN = Gpu("Orin", "8.7", 16, "12.6", "12.6", "R36 4.7", "aarch64")
# a process of its own that loads an engine with the stand-in, and prints its lines and the number of builds
PROCESS = """
import sys
from pathlib import Path
from tests.fake_tensorrt_builder import fake_tensorrt
sys.modules["tensorrt"] = trt = fake_tensorrt("10.3.0", seconds={seconds})
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.engine_cache import load_engine
from fgsbir_edge.encoder.engine_folder import EngineFolder
from tests.test_tensorrt_cache import ORIN
{prepare}
load_engine(Bundle.load(sys.argv[1]), gpu=ORIN, say=print, folder=EngineFolder(Path(sys.argv[2])))
print("builds", trt._settings.builds)
"""


@pytest.fixture
def trt() -> Iterator[Any]:
    """TensorRT 10.3's stand-in."""
    with installed() as module:
        yield module


class Cache:
    """A folder of engines, and the lines that were said."""

    def __init__(self, path: Path, bundle: Bundle) -> None:
        self.folder, self.bundle, self.lines = EngineFolder(path), bundle, list[str]()

    def load(self, options: BuildOptions | None = None, gpu: Gpu = ORIN, bundle: Bundle | None = None) -> bytes:
        self.lines.clear()
        return load_engine(bundle or self.bundle, "fp32", options, gpu, self.lines.append, self.folder)

    def file(self) -> Path:
        """The one engine."""
        (entry,) = self.folder.entries()
        return entry.path


@pytest.fixture
def cache(tmp_path: Path, bundle: Bundle) -> Cache:
    return Cache(tmp_path / "engines", bundle)


def start(cache: Cache, bundle_path: Path, seconds: float = 0.0, prepare: str = "") -> subprocess.Popen[str]:
    """A process that loads the engine."""
    script = PROCESS.format(seconds=seconds, prepare=prepare)
    command = [sys.executable, "-c", script, str(bundle_path), str(cache.folder.path)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_built_once(trt: Any, cache: Cache) -> None:
    first = cache.load()
    assert cache.lines == ["toy fp32: no engine has been built yet; building it now", cache.lines[1]]
    assert cache.lines[1].startswith("toy fp32: built in ")
    assert cache.load() == first
    assert cache.lines == []
    path = cached_engine(cache.bundle, "fp32", None, ORIN, cache.lines.append, cache.folder)
    assert path == cache.file()
    assert unpack(path.read_bytes(), path.stem) == first
    assert trt._settings.builds == 1
    assert cache.folder.path.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in cache.folder.path.iterdir()} == {0o600}
    assert not list(cache.folder.path.glob(".*"))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"options": BuildOptions(((1, 4, 64),))}, "profiles"),
        ({"options": BuildOptions(memory=2**30)}, "memory"),
        ({"options": BuildOptions(level=5)}, "level"),
        ({"options": BuildOptions(tf32=True)}, "tf32"),
        ({"options": BuildOptions(details=True)}, "details"),
        ({"gpu": replace(ORIN, name="Thor")}, "gpu name"),
        ({"gpu": replace(ORIN, sm="11.0")}, "gpu sm"),
        ({"gpu": replace(ORIN, multiprocessors=8)}, "gpu multiprocessors"),
        ({"gpu": replace(ORIN, driver="13.0")}, "gpu driver"),
        ({"gpu": replace(ORIN, runtime="13.0")}, "gpu runtime"),
        ({"gpu": replace(ORIN, release="R36 5.0")}, "gpu release"),
        ({"gpu": replace(ORIN, machine="x86_64")}, "gpu machine"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_whatever_differs_builds_another(trt: Any, cache: Cache, changed: dict[str, Any], named: str) -> None:
    cache.load()
    cache.load(**changed)
    assert cache.lines[0] == f"toy fp32: the engine built earlier was for another {named}; building it now"
    assert trt._settings.builds == len(cache.folder.entries()) == 2
    cache.load()
    assert trt._settings.builds == 2


def test_another_model_builds_another(trt: Any, cache: Cache) -> None:
    from tests.toy import toy_encoder

    cache.load()
    cache.load(bundle=replace(cache.bundle, encoder=toy_encoder(seed=1)))
    assert "for another onnx sha256; building" in cache.lines[0]


def test_another_tensorrt_builds_another(cache: Cache) -> None:
    with installed("10.3.0"):
        cache.load()
    with installed("11.4.0.106"):
        cache.load()
    assert "for another tensorrt; building" in cache.lines[0]


def test_what_was_built_by_hand_is_what_runs(trt: Any, cache: Cache) -> None:
    """Who loads an engine without options gets the one built last for this model and device, however it was built."""
    small, other = BuildOptions(((1, 1, 1),), memory=2**29), BuildOptions(level=5, details=True)
    cache.load(small)
    assert cache.load() == cache.load(small)
    large = cache.load(other)
    assert cache.load(small) != large
    assert cache.load() == large
    assert trt._settings.builds == 2
    damage(cache.folder.engine(request(cache.bundle, "fp32", other, ORIN).key), "content")
    assert cache.load() == large
    assert trt._settings.config.builder_optimization_level == 5, "built again with the same options"
    damage(cache.folder.engine(request(cache.bundle, "fp32", other, ORIN).key), "header")
    assert cache.load() == cache.load(small)
    cache.load(gpu=replace(ORIN, name="Thor"))
    assert trt._settings.config.builder_optimization_level == 3, "an engine of another GPU says nothing"


def test_options_survive_as_facts() -> None:
    for options in (BuildOptions(), BuildOptions(((2, 3, 4),), 5, 1, True, True, ("8.6", "8.9"), "tensorrt_rtx")):
        assert BuildOptions.from_facts({**options.facts(), "variant": "fp16"}) == options


def test_talk_is_no_reason_to_build(trt: Any, cache: Cache) -> None:
    cache.load()
    cache.load(BuildOptions(verbosity=3))
    assert trt._settings.builds == 1


def damage(path: Path, how: str) -> None:
    """Make an engine's file one that must not be used."""
    data = path.read_bytes()
    if how == "linked":
        path.rename(path.with_suffix(".moved"))
        path.symlink_to(path.with_suffix(".moved"))
    elif how == "writable":
        path.chmod(0o666)
    else:
        changed = {
            "empty": b"",
            "cut": data[:-1],
            "longer": data + b"\0",
            "header": data[:20] + b"\xff" + data[21:],
            "content": data[:-1] + bytes([data[-1] ^ 1]),
            "foreign": b"a serialised engine from elsewhere",
            "renamed": pack("ab" * 32, b"the engine of another GPU", {}),
        }
        path.write_bytes(changed[how])


@pytest.mark.parametrize("how", ["empty", "cut", "longer", "header", "content", "foreign", "renamed", "linked", "writable"])
def test_damaged_engines_are_built_again(trt: Any, cache: Cache, how: str) -> None:
    good = cache.load()
    damage(cache.file(), how)
    assert cache.load() == good
    assert cache.lines[0].startswith("toy fp32: the engine that is kept is not used, ")
    assert cache.lines[0].endswith("; building it again")
    assert trt._settings.builds == 2
    assert cache.load() == good
    assert trt._settings.builds == 2


def test_failed_build_leaves_nothing(trt: Any, cache: Cache) -> None:
    trt._settings.fail = True
    with pytest.raises(EngineBuildError):
        cache.load()
    assert cache.folder.entries() == []


def test_timings_are_kept_for_the_next_model(trt: Any, cache: Cache) -> None:
    cache.load()
    wanted = request(cache.bundle, "fp32", BuildOptions(), ORIN)
    kept = cache.folder.timing(wanted.timing_key)
    assert unpack(kept.read_bytes(), wanted.timing_key) == b"timings"
    kept.write_bytes(pack(wanted.timing_key, b"more", {}))
    cache.load(BuildOptions(level=4))
    assert trt._settings.config._cache._data == b"more"
    kept.write_bytes(b"damaged")
    cache.load(BuildOptions(level=5))
    assert trt._settings.config._cache._data == b""
    assert unpack(kept.read_bytes(), wanted.timing_key) == b"timings"


def test_variant_that_is_not_there(trt: Any, cache: Cache) -> None:
    with pytest.raises(BundleMissingFileError, match="no variant 'fp16'"):
        load_engine(cache.bundle, "fp16", None, ORIN, cache.lines.append, cache.folder)


def test_gpu_at_hand_is_asked_for(trt: Any, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Gpu:
        raise DeviceError("no GPU here")

    monkeypatch.setattr("fgsbir_edge.encoder.engine_cache.current_gpu", none)
    with pytest.raises(DeviceError):
        load_engine(cache.bundle, folder=cache.folder)


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o722, 0o755, 0o770, 0o777])
def test_folder_that_others_may_use(trt: Any, cache: Cache, mode: int) -> None:
    cache.load()
    cache.folder.path.chmod(mode)
    with pytest.raises(EngineCacheError, match=rf"mode is {mode:04o}.*chmod 700"):
        cache.load()
    with pytest.raises(EngineCacheError, match="chmod 700"):
        cache.folder.clear(cache.lines.append)
    cache.folder.path.chmod(0o700)
    cache.load()


def test_folder_in_a_place_that_everybody_may_change(trt: Any, tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(EngineCacheError, match="everybody may replace folders in it"):
        Cache(tmp_path / "open" / "engines", bundle).load()
    (tmp_path / "open").chmod(0o1777)  # as /tmp is
    Cache(tmp_path / "open" / "engines", bundle).load()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_folder_of_another_user(trt: Any, cache: Cache) -> None:
    cache.load()
    os.chown(cache.folder.path, 1234, -1)
    with pytest.raises(EngineCacheError, match=r"belongs to user 1234, not to \d+"):
        cache.load()


def test_folder_that_is_none(trt: Any, tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineCacheError, match="cannot be made"):
        Cache(tmp_path / "file" / "engines", bundle).load()
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(EngineCacheError, match="is a link or a file"):
        Cache(tmp_path / "link", bundle).load()


def test_where_engines_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGSBIR_ENGINES", "/chosen")
    assert EngineFolder.default().path == Path("/chosen")
    monkeypatch.delenv("FGSBIR_ENGINES")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert EngineFolder.default().path == Path("/cache/fgsbir-edge/engines")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert EngineFolder.default().path == Path("/home/me/.cache/fgsbir-edge/engines")


def test_oldest_engines_make_room(trt: Any, cache: Cache) -> None:
    for level in range(4):
        cache.load(BuildOptions(level=level))
        os.utime(cache.folder.engine(request(cache.bundle, "fp32", BuildOptions(level=level), ORIN).key), (level, level))
    sizes = [entry.size for entry in cache.folder.entries()]
    cache.folder = EngineFolder(cache.folder.path, limit=3 * max(sizes))
    cache.load(BuildOptions(level=0))  # used just now, and so no longer the oldest
    cache.load(BuildOptions(level=5))
    kept = {entry.facts["for"]["level"] for entry in cache.folder.entries()}
    assert kept == {0, 3, 5}
    cache.folder = EngineFolder(cache.folder.path, limit=1)
    cache.load(BuildOptions(level=4))  # the newest stays, even when it alone is too large
    assert [entry.facts["for"]["level"] for entry in cache.folder.entries()] == [4]


def test_entries_name_what_is_wrong(trt: Any, cache: Cache) -> None:
    assert cache.folder.entries() == []
    cache.load()
    assert [entry.problem for entry in cache.folder.entries()] == [""]
    path = cache.file()
    path.write_bytes(path.read_bytes()[:-1])
    assert [entry.problem for entry in cache.folder.entries()] == ["its header does not fit it"]
    path.write_bytes(b"")
    assert [entry.problem for entry in cache.folder.entries()] == ["it is no engine file of this version"]


def test_clear_leaves_nothing(trt: Any, cache: Cache) -> None:
    cache.load()
    cache.load(BuildOptions(level=1))
    assert cache.folder.clear(cache.lines.append) == 2
    assert [path.name for path in cache.folder.path.iterdir()] == ["lock"]


def test_concurrent_processes_build_once(cache: Cache, bundle_path: Path) -> None:
    processes = [start(cache, bundle_path, seconds=1.5) for _ in range(3)]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(text.count("builds 1") for text in said) == 1
    assert sum(text.count("builds 0") for text in said) == 2
    assert len(cache.folder.entries()) == 1


@pytest.mark.parametrize(
    "prepare",
    [
        "import os; os.fsync = lambda handle: os.kill(os.getpid(), 9)",  # all is written, nothing is renamed
        "import os; os.replace = lambda *names: os.kill(os.getpid(), 9)",
        "import os\nfrom fgsbir_edge.encoder import engine_cache\nengine_cache.pack = lambda *parts: os.kill(os.getpid(), 9)",
    ],
    ids=["before the bytes are safe", "before the rename", "before writing"],
)
def test_killed_while_writing(trt: Any, cache: Cache, bundle_path: Path, prepare: str) -> None:
    process = start(cache, bundle_path, prepare=prepare)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert cache.folder.entries() == []
    cache.load()
    assert cache.lines[0] == "toy fp32: no engine has been built yet; building it now"
    assert len(cache.folder.entries()) == 1
    assert not list(cache.folder.path.glob(".*")), "what the killed process had begun is gone"


def test_waiting_for_another_builder_is_said(trt: Any, cache: Cache) -> None:
    import fcntl

    cache.folder.check()
    with open(cache.folder.path / "lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        waiting: list[str] = []

        def free(line: str) -> None:
            waiting.append(line)
            fcntl.flock(stream, fcntl.LOCK_UN)

        with cache.folder.building(free):
            pass
    assert len(waiting) == 1
    assert waiting[0].startswith("another process builds an engine in ")


def test_disk_that_is_full(trt: Any, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EngineCacheError, match=r"cannot be written.*No space left.*free some space"):
        cache.load()
    assert cache.folder.entries() == []
    assert not list(cache.folder.path.glob(".*"))
