"""The private folder that engines are kept in: who may use it, one builder at a time, and how large it may grow."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgsbir_edge.encoder.engine_file import EngineFileError, read_header, read_own
from fgsbir_edge.encoder.trt_api import Say
from fgsbir_edge.errors import EngineCacheError, OutputError
from fgsbir_edge.files import write_atomic

VARIABLE = "FGSBIR_ENGINES"
MAX_BYTES = 2 * 2**30
_WAIT_SECONDS, _HEARTBEAT_SECONDS = 0.2, 10.0
_OTHERS = 0o077


@dataclass(frozen=True)
class Entry:
    """One engine: its file, bytes, when it was last used (seconds since 1970), its header's facts, and what is wrong with it."""

    path: Path
    size: int
    used: float
    facts: dict[str, Any]
    problem: str = ""


@dataclass(frozen=True)
class EngineFolder:
    """A folder of engines of at most ``limit`` bytes together; the newest is kept even when it alone is larger."""

    path: Path
    limit: int = MAX_BYTES

    @classmethod
    def default(cls) -> EngineFolder:
        """$FGSBIR_ENGINES, or fgsbir-edge/engines in the user's cache folder ($XDG_CACHE_HOME, ~/.cache)."""
        if chosen := os.environ.get(VARIABLE):
            return cls(Path(chosen))
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        return cls(Path(cache) / "fgsbir-edge" / "engines")

    def engine(self, key: str) -> Path:
        """Where the engine of this key is, or would be."""
        return self.path / f"{key}.engine"

    def timing(self, key: str) -> Path:
        """Where the timing cache of this key is, or would be."""
        return self.path / f"{key}.timing"

    def check(self) -> None:
        """Make the folder if there is none. Raises EngineCacheError unless this user alone may list and change it."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = os.lstat(self.path)
        except OSError as error:
            raise EngineCacheError(f"{self.path}: cannot be made ({error.strerror}); choose a folder with {VARIABLE}") from error
        if not stat.S_ISDIR(found.st_mode):
            raise EngineCacheError(f"{self.path}: is a link or a file, expected a folder; choose another with {VARIABLE}")
        if found.st_uid != os.geteuid():
            raise EngineCacheError(
                f"{self.path}: belongs to user {found.st_uid}, not to {os.geteuid()}, who could run code here through an engine; "
                f"choose a folder of your own with {VARIABLE}"
            )
        if found.st_mode & _OTHERS:
            mode = stat.S_IMODE(found.st_mode)
            raise EngineCacheError(
                f"{self.path}: mode is {mode:04o}, others may use it; look that nothing in it is foreign, then chmod 700 it"
            )
        for parent in self.path.absolute().parents:
            mode = os.stat(parent).st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                raise EngineCacheError(
                    f"{parent}: everybody may replace folders in it (mode {stat.S_IMODE(mode):04o}); chmod o-w it"
                )

    def read(self, path: Path) -> bytes:
        """A file's bytes; marks it as used. Raises OSError and EngineFileError (not this user's own file)."""
        data = read_own(path)
        with contextlib.suppress(OSError):  # a folder that is mounted read-only serves as well
            os.utime(path)
        return data

    def write(self, path: Path, data: bytes) -> None:
        """Put a file there, whole or not at all. Raises EngineCacheError."""
        try:
            write_atomic(path, data)
            path.chmod(0o600)
        except (OSError, OutputError) as error:
            raise EngineCacheError(
                f"{path}: cannot be written ({error}); free some space, or choose a folder with {VARIABLE}"
            ) from error

    @contextlib.contextmanager
    def building(self, say: Say) -> Iterator[None]:
        """Wait until no other process builds here, then keep the others waiting. The system lets them go if we are killed."""
        try:
            handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EngineCacheError(
                f"{self.path}: cannot be locked ({error.strerror}); choose a folder with {VARIABLE}"
            ) from error
        try:
            start = said = time.monotonic()
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    now = time.monotonic()
                    if now - said >= _HEARTBEAT_SECONDS or said == start:
                        said = now
                        say(f"another process builds an engine in {self.path}: waiting, {now - start:.0f} s so far")
                    time.sleep(_WAIT_SECONDS)
            for leftover in self.path.glob(".*.part"):  # of a process killed while writing: only the lock's holder writes
                leftover.unlink(missing_ok=True)
            yield
        finally:
            os.close(handle)

    def entries(self) -> list[Entry]:
        """The engines, by file name; none where there is no folder. Nothing of them but the header is read."""
        found = []
        for path in sorted(self.path.glob("*.engine")):
            try:
                state = os.lstat(path)
            except OSError:  # removed meanwhile
                continue
            facts, problem = {}, ""
            try:
                header = read_header(path)
                facts = header.facts
                if f"{header.key}.engine" != path.name or header.length + header.size != state.st_size:
                    problem = "its header does not fit it"
            except (OSError, EngineFileError) as error:
                problem = str(error)
            found.append(Entry(path, state.st_size, state.st_mtime, facts, problem))
        return found

    def prune(self, keep: str = "") -> list[Path]:
        """Remove the engines that were used longest ago until the rest fits the limit; never that of the key ``keep``."""
        entries = sorted(self.entries(), key=lambda entry: -entry.used)
        room, removed = self.limit, []
        for entry in sorted(entries, key=lambda entry: entry.path != self.engine(keep)):
            room -= entry.size
            if room < 0 and entry.path != self.engine(keep):
                entry.path.unlink(missing_ok=True)
                removed.append(entry.path)
        return removed

    def clear(self, say: Say) -> int:
        """Remove every engine and timing cache; how many engines there were. Raises EngineCacheError."""
        self.check()
        with self.building(say):
            engines = list(self.path.glob("*.engine"))
            for path in [*engines, *self.path.glob("*.timing")]:
                path.unlink(missing_ok=True)
        return len(engines)
