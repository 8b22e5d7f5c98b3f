"""A dataset folder as training needs it: the runtime's ``DataFolder`` with every photo's category, distractors included.

DIR/photos/...            photo files, named by the `photo` column; files without a sketch are distractors
DIR/sketches/...          raster sketches named by the `sketch` column (further ones may lie in sketches_extra/), or
DIR/strokes.npz           vector sketches: keys [S] str, offsets [S+1] int64, points [P,3] float32 (x, y, end of stroke)
DIR/pairs.csv             sketch,photo,category[,user,...]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fgsbir_edge.errors import PairsFormatError
from fgsbir_edge.formats import read_sketch
from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.pairs import DataFolder, Pair, read_pairs
from fgsbir_edge.sketch import Sketch

__all__ = ["Pair", "PairsFolder"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})


@dataclass(frozen=True)
class PairsFolder(DataFolder):
    """A dataset folder in the layout above. `photo_category` names every file under photos/."""

    photo_category: dict[str, str]

    @classmethod
    def read(cls, root: str | Path, pairs_file: str = "pairs.csv") -> PairsFolder:
        """Read the table and list the photos. A photo without a pair takes its sub-folder's name, or the only category there is.

        Raises:
            PairsFormatError: the table is missing, lacks a column, is empty, or names a photo that is not there.
        """
        root = Path(root)
        table, photos = root / pairs_file, root / "photos"
        pairs = tuple(read_pairs(table))
        if not pairs:
            raise PairsFormatError(f"{table}: no rows; add at least one sketch,photo line")
        files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES) if photos.is_dir() else []
        names = [path.relative_to(photos).as_posix() for path in files]
        known = {pair.photo: pair.category for pair in pairs}
        if missing := sorted(set(known) - set(names)):
            raise PairsFormatError(f"{table}: photo {missing[0]!r} is not under {photos}; add the file or drop its rows")
        categories = set(known.values())
        only = next(iter(categories)) if len(categories) == 1 else ""
        return cls(root, pairs, {name: known.get(name, name.split("/")[0] if "/" in name else only) for name in names})

    def sketch(self, name: str) -> Sketch | Drawing:
        """A sketch by its name in the table. Raises UnreadableImageError when there is none, and what the readers raise."""
        extra = self.root / "sketches_extra" / name
        if extra.is_file() and not (self.root / "sketches" / name).is_file():
            return read_sketch(extra)
        return super().sketch(name)

    def photo_path(self, name: str) -> Path:
        return self.photos / name
