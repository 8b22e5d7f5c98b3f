"""What the readers of official downloads share: a dataset where it was unpacked, and the checks that name what is missing.

An :class:`OfficialSet` is a :class:`~training.data.folder.PairsFolder` whose photos and sketches lie wherever the download has
them; nothing is copied. Every reader returns one set for each official split, never a mixture. Order is by name everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fgsbir_edge.errors import PairsFormatError, SketchFormatError, UnreadableImageError
from fgsbir_edge.formats import read_sketch
from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.reading import open_binary, readable
from fgsbir_edge.sketch import Sketch
from training.data.folder import IMAGE_SUFFIXES, PairsFolder

SKETCH_SUFFIXES = frozenset({".svg", ".png"})


def unchanged(sketch: Sketch) -> Sketch:
    """Leave a sketch in the frame it has."""
    return sketch


@dataclass(frozen=True)
class OfficialSet(PairsFolder):
    """One split of an official download.

    Args:
        photo_files: where each name in `photo_category` lies; a name that is not here is looked for under root/photos.
        sketch_files: the file, or the sketch itself, of each sketch named in `pairs`.
        prepare: brings a vector sketch from the file's frame to the 256-unit canvas.
        notes: what the reader left out, a line each.
    """

    photo_files: dict[str, Path] = field(default_factory=dict)
    sketch_files: dict[str, Path | Sketch] = field(default_factory=dict)
    prepare: Callable[[Sketch], Sketch] = unchanged
    notes: tuple[str, ...] = ()

    def sketch(self, name: str) -> Sketch | Drawing:
        """A sketch by its name in `pairs`. Raises what the readers raise, naming the file."""
        source = self.sketch_files.get(name)
        if source is None:
            return super().sketch(name)
        item = source if isinstance(source, Sketch) else read_sketch(source)
        return self.prepare(item) if isinstance(item, Sketch) else item

    def photo_path(self, name: str) -> Path:
        return self.photo_files.get(name) or super().photo_path(name)


def need_folder(path: Path, what: str) -> Path:
    """The folder itself. Raises UnreadableImageError when it is not there; `what` says what it should hold."""
    if not path.is_dir():
        raise UnreadableImageError(f"{path}: no such folder, expected {what}: check the path, or unpack the download there")
    return path


def first_folder(candidates: Iterable[Path], what: str) -> Path:
    """The first of the folders that is there. Raises UnreadableImageError naming all of them."""
    tried = list(candidates)
    for path in tried:
        if path.is_dir():
            return path
    raise UnreadableImageError(f"no {what}: looked for {', '.join(map(str, tried))}; unpack the download so that one is there")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, stripped, empty ones left out. Raises UnreadableImageError; PairsFormatError if not UTF-8."""
    with open_binary(path) as stream, readable(path):
        data = stream.read()
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise PairsFormatError(f"{path}: not a text file in UTF-8 ({error}): save it again") from error
    return [line.strip() for line in lines if line.strip()]


def files_by_stem(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Files directly in a folder, by name without suffix, in order. Raises PairsFormatError if two differ in the suffix alone."""
    wanted = set(suffixes)
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in wanted or path.name.startswith("."):
            continue
        if path.stem in found:
            raise PairsFormatError(f"{folder}: {found[path.stem].name} and {path.name} have one name: keep one of them")
        found[path.stem] = path
    return found


def some_files(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """files_by_stem of a folder that must have some. Raises SketchFormatError naming what is there instead."""
    wanted = sorted(suffixes)
    if found := files_by_stem(folder, wanted):
        return found
    others = sorted({path.suffix or "no suffix" for path in folder.iterdir() if path.is_file()})
    raise SketchFormatError(f"{folder}: no file of {', '.join(wanted)}, only {', '.join(others) or 'nothing'}: convert the files")


def without_photo(keys: list[str], where: Path) -> PairsFormatError:
    """The error for sketches whose photo is not there."""
    others = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
    return PairsFormatError(
        f"{where}: no photo for sketch {keys[0]!r}{others}: the photo folder is incomplete, or belongs to another download"
    )
