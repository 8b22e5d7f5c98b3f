"""Which photo each sketch means: pairs tables, ``SKETCH=PHOTO`` arguments, and data folders.

DIR/photos/...       photo files, named by the ``photo`` column
DIR/sketches/...     raster or vector sketch files, named by the ``sketch`` column, or
DIR/strokes.npz      vector sketches by key
DIR/pairs.csv        sketch,photo[,category][,user]
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fgsbir_edge.errors import PairsFormatError, UnreadableImageError

if TYPE_CHECKING:
    from fgsbir_edge.formats.drawing import Drawing
    from fgsbir_edge.sketch import Sketch

DEMO_FOLDER = Path(__file__).parent / "demo"
SHOWN = 10  # names in a message


@dataclass(frozen=True)
class Pair:
    """A sketch (path, or key in a data folder), the photo it means, its category and who drew it ("" where not known)."""

    sketch: str
    photo: str
    category: str = ""
    user: str = ""


def read_pairs(path: str | os.PathLike[str]) -> list[Pair]:
    """A CSV table with a header and columns sketch, photo and perhaps category, user; names as they stand there.

    Raises PairsFormatError naming the line that is wrong.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:  # -sig: spreadsheets write a byte order mark
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            for column in ("sketch", "photo"):
                if column not in columns:
                    raise PairsFormatError(f"{path}: no column {column!r} in header {','.join(columns)!r}; expected sketch,photo")
            pairs = []
            for row in reader:
                if not row["sketch"] or not row["photo"]:
                    raise PairsFormatError(f"{path}: line {reader.line_num} lacks a sketch or a photo; fill in or delete it")
                pairs.append(Pair(row["sketch"], row["photo"], row.get("category") or "", row.get("user") or ""))
            return pairs
    except OSError as error:
        raise PairsFormatError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise PairsFormatError(f"{path}: not a CSV table in UTF-8 ({error})") from error


def read_pair_files(path: str | os.PathLike[str]) -> list[Pair]:
    """``read_pairs`` of a table whose sketches are files, relative to the table's folder. Raises PairsFormatError."""
    folder = Path(path).parent
    return [replace(pair, sketch=str(folder / pair.sketch)) for pair in read_pairs(path)]


def parse_pair(text: str) -> Pair:
    """``SKETCH=PHOTO``. Where names hold "=" too, the first split whose left side is a file. Raises PairsFormatError."""
    splits = [(text[:i], text[i + 1 :]) for i, letter in enumerate(text) if letter == "="]
    splits = [(sketch, photo) for sketch, photo in splits if sketch and photo]
    if not splits:
        raise PairsFormatError(f"pair {text!r} is not SKETCH=PHOTO; write for example mine.png=chair1.jpg")
    sketch, photo = next((split for split in splits if os.path.isfile(split[0])), splits[0])
    return Pair(sketch, photo)


@dataclass(frozen=True)
class DataFolder:
    """A folder in the layout above."""

    root: Path
    pairs: tuple[Pair, ...]

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> DataFolder:
        """Read the pairs table. Raises PairsFormatError."""
        folder = Path(root)
        return cls(folder, tuple(read_pairs(folder / "pairs.csv")))

    @property
    def photos(self) -> Path:
        """The folder to index."""
        return self.root / "photos"

    @property
    def users(self) -> list[str]:
        """Who drew, in the table's order."""
        return list(dict.fromkeys(pair.user for pair in self.pairs if pair.user))

    @property
    def photo_categories(self) -> dict[str, str]:
        """Category of each photo that a pair names."""
        return {pair.photo: pair.category for pair in self.pairs if pair.category}

    def select(self, user: str | None = None, category: str | None = None) -> list[Pair]:
        """The pairs of a person and of a category. Raises PairsFormatError when there is none."""
        chosen = [pair for pair in self.pairs if user in (None, pair.user) and category in (None, pair.category)]
        if not chosen:
            raise PairsFormatError(f"{self.root}: {self._nothing_of(user, category)}")
        return chosen

    def _nothing_of(self, user: str | None, category: str | None) -> str:
        """What was asked for in vain, and what there is."""
        asked = {"user": user, "category": category}
        wanted = " and ".join(f"{name} {value!r}" for name, value in asked.items() if value is not None) or "anything"
        categories = list(dict.fromkeys(pair.category for pair in self.pairs if pair.category))
        names = (("users", self.users), ("categories", categories))
        there = "; ".join(f"{name} {', '.join(some[:SHOWN])}" for name, some in names if some)
        return f"no pairs of {wanted}; its pairs.csv has {there or 'neither users nor categories'}"

    def sketch(self, name: str) -> Sketch | Drawing:
        """A sketch by its name in the table. Raises UnreadableImageError when there is none, and what the readers raise."""
        if name in self._strokes:
            return self._strokes[name]
        from fgsbir_edge.formats import read_sketch

        path = self.root / "sketches" / name
        if self._strokes and not path.is_file():
            raise UnreadableImageError(
                f"{self.root}: sketch {name!r} is neither in strokes.npz nor in sketches/; check pairs.csv"
            )
        return read_sketch(path)

    @cached_property
    def _strokes(self) -> dict[str, Sketch]:
        if not (self.root / "strokes.npz").is_file():
            return {}
        from fgsbir_edge.formats.qmul import read_strokes_npz

        return read_strokes_npz(self.root / "strokes.npz")


def draw_support(pairs: Sequence[Pair], shots: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Draw ``shots`` support pairs; the queries are the pairs of all other photos, so that no query's photo was shown.

    One sketch of each photo where there are enough photos, else several of each, from at most half of them. Raises
    PairsFormatError when too few sketches or photos are there.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    photos = [str(photo) for photo in rng.permutation(sorted({pair.photo for pair in pairs}))]
    count = min(shots, max(1, len(photos) // 2)) if len(photos) <= shots else shots
    shown = photos[:count]
    piles = [[pairs[i] for i in rng.permutation(len(pairs)) if pairs[i].photo == photo] for photo in shown]
    turns = [pile[turn] for turn in range(len(pairs)) for pile in piles if turn < len(pile)]
    if len(turns) < shots or len(photos) < 2:
        raise PairsFormatError(
            f"got {len(pairs)} sketches of {len(photos)} photos, too few for {shots} support pairs and a query; lower --shots"
        )
    return turns[:shots], [pair for pair in pairs if pair.photo not in set(shown)]
