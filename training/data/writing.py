"""Writes a dataset folder in the project's layout, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from fgsbir_edge.errors import OutputError
from fgsbir_edge.files import sync_folder, write_atomic
from fgsbir_edge.formats.qmul import write_strokes_npz
from fgsbir_edge.pairs import Pair
from fgsbir_edge.sketch import Sketch
from training.data.folder import PairsFolder


class FolderWriter:
    """Collects a dataset in a hidden folder beside `target`, and gives it its name once everything is there.

    Used as ``with FolderWriter(target) as writer: ...``; leaving the block by an error leaves nothing. `target` must not exist,
    or be an empty folder. Every method raises OutputError when it cannot write.
    """

    def __init__(self, target: str | Path) -> None:
        self.target = Path(os.path.abspath(target))
        self.folder = self.target.parent / f".{self.target.name}.{os.getpid()}.{secrets.token_hex(4)}.part"
        self._strokes: dict[str, Sketch] = {}
        self._pairs: list[Pair] = []

    def __enter__(self) -> FolderWriter:
        if self.target.exists() and (not self.target.is_dir() or any(self.target.iterdir())):
            raise OutputError(f"{self.target}: is there already and not empty; choose a new folder or remove this one")
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            (self.folder / "photos").mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"{self.target}: cannot write ({error.strerror or error}); choose a writable folder") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)  # renamed by now unless something failed

    def photo(self, name: str, content: Path | bytes) -> None:
        """A photo from a file, copied, or from the bytes of one."""
        self._put(Path("photos") / _inside(name), content)

    def drawing(self, name: str, content: Path) -> None:
        """A raster sketch, copied."""
        self._put(Path("sketches") / _inside(name), content)

    def strokes(self, key: str, sketch: Sketch) -> None:
        """A vector sketch; all of them end up in strokes.npz."""
        self._strokes[key] = sketch

    def pair(self, pair: Pair) -> None:
        """A line of pairs.csv."""
        self._pairs.append(pair)

    def note(self, facts: Mapping[str, object]) -> None:
        """Where the data came from and what was left out: source.json."""
        write_atomic(self.folder / "source.json", (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode())

    def _put(self, name: Path, content: Path | bytes) -> None:
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                shutil.copyfile(content, path)
        except OSError as error:
            raise OutputError(f"{self.target / name}: cannot write ({error.strerror or error}); nothing was kept") from error

    def _finish(self) -> None:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("sketch", "photo", "category", "user"))
        table.writerows((pair.sketch, pair.photo, pair.category, pair.user) for pair in self._pairs)
        write_atomic(self.folder / "pairs.csv", text.getvalue().encode())
        if self._strokes:
            write_strokes_npz(self.folder / "strokes.npz", self._strokes)
        PairsFolder.read(self.folder)  # what every other command will do
        try:
            if self.target.exists():
                self.target.rmdir()  # empty, or it would have been refused
            os.rename(self.folder, self.target)
        except OSError as error:
            raise OutputError(f"{self.target}: cannot write ({error.strerror or error}); nothing was kept") from error
        sync_folder(self.target.parent)


def _inside(name: str) -> Path:
    """A name that stays inside the folder; names can come from the data itself."""
    path = Path(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or re.search(r"[\\\0]", name):
        raise OutputError(f"name {name!r} leads out of the folder: rename the file in the source")
    return path
