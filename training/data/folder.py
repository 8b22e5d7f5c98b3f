"""One layout for every dataset.

DIR/photos/...            photo files, named by the `photo` column; files without a sketch are distractors
DIR/sketches/...          raster sketches named by the `sketch` column, or
DIR/strokes.npz           vector sketches: keys [S] str, offsets [S+1] int64, points [P,3] float32 (x, y, end of stroke)
DIR/pairs.csv             sketch,photo,category[,user,...]
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

from fgsbir_edge.errors import PairsFormatError, UnreadableImageError
from fgsbir_edge.formats import read_sketch
from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.formats.qmul import read_strokes_npz
from fgsbir_edge.sketch import Sketch

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})


@dataclass(frozen=True)
class Pair:
    """One sketch, the photo it means, and who drew it ("" where the dataset does not say)."""

    sketch: str
    photo: str
    category: str
    user: str = ""


@dataclass(frozen=True)
class PairsFolder:
    """A dataset folder: its pairs, every photo's category, and where its sketches are."""

    root: Path
    pairs: tuple[Pair, ...]
    photo_category: dict[str, str]  # every file under photos/, distractors included
    strokes: dict[str, Sketch] = field(repr=False, default_factory=dict)

    @classmethod
    def open(cls, root: str | Path, pairs_file: str = "pairs.csv") -> PairsFolder:
        """Read a folder in the layout above.

        Raises:
            PairsFormatError: the table is missing, lacks a column, is empty, or names a photo that is not there.
        """
        root = Path(root)
        pairs = tuple(_read_pairs(root / pairs_file))
        photos = root / "photos"
        files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES) if photos.is_dir() else []
        names = [path.relative_to(photos).as_posix() for path in files]
        known = {pair.photo: pair.category for pair in pairs}
        if missing := sorted(set(known) - set(names)):
            raise PairsFormatError(
                f"{root / pairs_file}: photo {missing[0]!r} is not under {photos}; add the file or drop its rows"
            )
        only = next(iter(set(known.values()))) if len(set(known.values())) == 1 else ""
        category = {name: known.get(name, name.split("/")[0] if "/" in name else only) for name in names}
        strokes = read_strokes_npz(root / "strokes.npz") if (root / "strokes.npz").is_file() else {}
        return cls(root, pairs, category, strokes)

    @property
    def users(self) -> tuple[str, ...]:
        return tuple(sorted({pair.user for pair in self.pairs} - {""}))

    def sketch(self, key: str) -> Sketch | Drawing:
        """The vector sketch of that key where the folder has strokes, else the raster file under sketches/ (or sketches_extra/).

        Raises:
            UnreadableImageError: neither exists.
        """
        if key in self.strokes:
            return self.strokes[key]
        for folder in ("sketches", "sketches_extra"):
            path = self.root / folder / key
            if path.is_file():
                return read_sketch(path)
        raise UnreadableImageError(f"{self.root}: no sketch {key!r} under sketches/ nor in strokes.npz; check the pairs table")

    def photo_path(self, name: str) -> Path:
        return self.root / "photos" / name


def _read_pairs(path: Path) -> list[Pair]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = {"sketch", "photo"} - set(reader.fieldnames or ())
            if missing:
                raise PairsFormatError(
                    f"{path}: no column {sorted(missing)[0]!r}; the header must be sketch,photo,category[,user]"
                )
            pairs = [Pair(row["sketch"], row["photo"], row.get("category") or "", row.get("user") or "") for row in reader]
    except OSError as error:
        raise PairsFormatError(f"{path}: cannot be read ({error.strerror}); a dataset folder needs a pairs.csv") from error
    if not pairs:
        raise PairsFormatError(f"{path}: no rows; add at least one sketch,photo line")
    return pairs
