"""The Sketchy database as downloaded: photos, PNG or SVG sketches, validity lists, test list, and the 104/21 category split.

    photo/tx_000000000000/CATEGORY/ID.jpg        in SOURCE, SOURCE/256x256 or SOURCE/rendered_256x256/256x256
    sketch/tx_000000000000/CATEGORY/ID-k.png     beside photo/; .svg is read there too
    sketches-06-04/sketches/CATEGORY/ID-k.svg    or SOURCE/sketches/...
    info-06-04/info/ or info/                    testset.txt, invalid-*.txt, stats.csv: each is used where it is there

The drawing canvas of an SVG has 640 x 480 units; photos were stretched to 256 x 256, and so are these sketches, by 256/640 and
256/480. That is exact for 4:3 photos; what the makers did for others is not published in numbers.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fgsbir_edge.errors import PairsFormatError
from fgsbir_edge.pairs import Pair
from fgsbir_edge.reading import readable
from fgsbir_edge.sketch import CANVAS, Sketch
from training.data.official import OfficialSet, files_by_stem, first_folder, read_lines, without_photo

WIDTH, HEIGHT = 640.0, 480.0  # units of the drawing canvas
PLAIN = "tx_000000000000"  # whole photos, stretched to 256 x 256; the other renderings crop to the object
UNSEEN = frozenset(  # the 21 categories of the usual zero-shot split; the other 104 train
    (
        *("bat", "cabin", "cow", "dolphin", "door", "giraffe", "helicopter", "mouse", "pear", "raccoon", "rhinoceros", "saw"),
        *("scissors", "seagull", "skyscraper", "songbird", "sword", "tree", "wheelchair", "windmill", "window"),
    )
)
INVALID = ("ambiguous", "context", "error", "pose")
_HEADINGS = {  # of the lists beside the SVG files
    "invalid/error": "error",
    "unidentifiable/ambiguous": "ambiguous",
    "context": "context",
    "perspective": "pose",
}

Categories = Literal["all", "seen", "unseen"]


@dataclass(frozen=True)
class SketchyOptions:
    """Which part of the database, and in which form.

    Args:
        categories: "seen" for the 104, "unseen" for the 21.
        sketches: "svg" or "png"; "auto": SVG where it is there and the rendering is the plain one, whose frame the SVG has.
        transform: name of the rendering.
        keep: kinds of invalid sketches that stay; all four kinds are left out by default.
    """

    categories: Categories = "all"
    sketches: Literal["auto", "svg", "png"] = "auto"
    transform: str = PLAIN
    keep: frozenset[str] = frozenset()


def read_sketchy(source: str | Path, options: SketchyOptions | None = None) -> dict[str, OfficialSet]:
    """The splits: "all", and where testset.txt is there "train" and "test".

    "train" has the photos that are not in the list, and their sketches. "test" has the sketches of the listed photos (ten of a
    hundred in each category); its gallery is every photo, as the papers search all photos of the category (METHODS A.4).

    Raises:
        UnreadableImageError: a folder is missing.
        PairsFormatError: a sketch without its photo, no photo or category left, or a list or table that is not one.
    """
    root, options = Path(source), options or SketchyOptions()
    photo_root = first_folder([base / "photo" / options.transform for base in _bases(root)], "Sketchy photos")
    sketch_root = _sketch_root(root, options)
    info = _info_files(root)
    photos = _photos(photo_root, options.categories)
    dropped, notes = _invalid(info, sketch_root, options.keep)
    users = _users(info.get("stats.csv"))
    pairs, files, left_out = [], {}, 0
    for category, names in photos.items():
        folder = sketch_root / category
        if not folder.is_dir():
            continue
        sketches = files_by_stem(folder, {_suffix(folder, options)})
        if missing := [stem for stem in sketches if stem.rpartition("-")[0] not in names]:
            raise without_photo(missing, photo_root / category)
        for stem, path in sketches.items():
            if stem in dropped:
                left_out += 1
                continue
            key = f"{category}/{stem if path.suffix.lower() == '.svg' else path.name}"
            photo = f"{category}/{names[stem.rpartition('-')[0]].name}"
            pairs.append(Pair(key, photo, category, users.get(stem, "")))
            files[key] = path
    if not pairs:
        raise PairsFormatError(f"{sketch_root}: no sketch of any photo in {photo_root}; check that both are of one download")
    notes += [f"{left_out} sketches marked invalid"] if left_out else []
    alone = [path.name for path in sorted(sketch_root.iterdir()) if path.is_dir() and not (photo_root / path.name).is_dir()]
    notes += [f"{len(alone)} categories with sketches but no photos ({alone[0]} ...)"] if alone else []
    whole = OfficialSet(
        root,
        tuple(pairs),
        {f"{category}/{path.name}": category for category, names in photos.items() for path in names.values()},
        photo_files={f"{category}/{path.name}": path for category, names in photos.items() for path in names.values()},
        sketch_files=dict(files),
        prepare=stretched,
        notes=tuple(notes),
    )
    return {"all": whole, **(_by_photo(whole, info["testset.txt"]) if "testset.txt" in info else {})}


def stretched(sketch: Sketch) -> Sketch:
    """From the 640 x 480 canvas to 256 x 256, each axis on its own, as the photos were."""
    return sketch.scaled(CANVAS / WIDTH, CANVAS / HEIGHT)


def _bases(root: Path) -> Iterator[Path]:
    yield from (root, root / "256x256", root / "rendered_256x256" / "256x256")


def _sketch_root(root: Path, options: SketchyOptions) -> Path:
    vectors = [root / "sketches-06-04" / "sketches", root / "sketches"]
    rendered = [base / "sketch" / options.transform for base in _bases(root)]
    if options.sketches == "svg" or (options.sketches == "auto" and options.transform == PLAIN):
        found = [path for path in vectors if path.is_dir()]
        return found[0] if found else first_folder([*rendered, *vectors], "Sketchy sketches")
    return first_folder(rendered, "Sketchy sketches")


def _suffix(folder: Path, options: SketchyOptions) -> str:
    """One kind of file in a category's folder: what was asked for, else SVG where there is any."""
    if options.sketches != "auto":
        return f".{options.sketches}"
    return ".svg" if any(path.suffix.lower() == ".svg" for path in folder.iterdir()) else ".png"


def _info_files(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in (root / "info-06-04" / "info", root / "info", root):
        for name in ("testset.txt", "stats.csv", *(f"invalid-{kind}.txt" for kind in INVALID)):
            if (folder / name).is_file():
                found.setdefault(name, folder / name)
    return found


def _photos(root: Path, categories: Categories) -> dict[str, dict[str, Path]]:
    """category -> photo ID -> file, of the chosen categories."""
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    chosen = [name for name in names if categories == "all" or (name.lower() in UNSEEN) == (categories == "unseen")]
    photos = {name: found for name in chosen if (found := files_by_stem(root / name))}
    if not photos:
        raise PairsFormatError(f"{root}: no photos of {categories} categories among {len(names)} folders; check --categories")
    return photos


def _bare(line: str) -> str:
    """The sketch or photo ID in a line of a list: no folder, no suffix; one list writes ID,k for ID-k."""
    return re.sub(r"\.(png|svg|jpe?g)$", "", line.replace(",", "-").rpartition("/")[2], flags=re.IGNORECASE)


def _invalid(info: dict[str, Path], sketch_root: Path, keep: Iterable[str]) -> tuple[set[str], list[str]]:
    """IDs of the sketches to leave out, from the lists in info/ and the invalid.txt beside SVG files."""
    wanted = set(INVALID) - set(keep)
    dropped: set[str] = set()
    lists = [(kind, info[f"invalid-{kind}.txt"]) for kind in INVALID if f"invalid-{kind}.txt" in info]
    for kind, path in lists:
        if kind in wanted:
            dropped.update(map(_bare, read_lines(path)))
    beside = sorted(sketch_root.glob("*/invalid.txt"))
    for path in beside:
        kind = "error"
        for line in read_lines(path):
            kind = _HEADINGS.get(line.lower(), kind)
            if line.lower() not in _HEADINGS and kind in wanted:
                dropped.add(_bare(line))
    return dropped, [] if lists or beside else ["no list of invalid sketches is there: all are kept"]


def _users(table: Path | None) -> dict[str, str]:
    """sketch ID -> who drew it, from the WorkerTag column of stats.csv where it has one."""
    if table is None:
        return {}
    try:
        with readable(table), table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if not {"ImageNetID", "SketchID", "WorkerTag"} <= set(reader.fieldnames or ()):
                return {}
            return {f"{row['ImageNetID']}-{row['SketchID']}": (row["WorkerTag"] or "").strip() for row in reader}
    except (csv.Error, UnicodeDecodeError) as error:
        raise PairsFormatError(f"{table}: not a CSV table in UTF-8 ({error})") from error


def _by_photo(whole: OfficialSet, path: Path) -> dict[str, OfficialSet]:
    listed = {_bare(line) for line in read_lines(path)}
    test = {name for name in whole.photo_category if _bare(name) in listed}
    if not test:
        raise PairsFormatError(
            f"{path}: none of its {len(listed)} photos is there; check that list and photos are of one download"
        )
    train = {name: category for name, category in whole.photo_category.items() if name not in test}
    return {
        "train": _part(whole, [pair for pair in whole.pairs if pair.photo not in test], train),
        "test": _part(whole, [pair for pair in whole.pairs if pair.photo in test], whole.photo_category),
    }


def _part(whole: OfficialSet, pairs: list[Pair], photos: dict[str, str]) -> OfficialSet:
    return OfficialSet(
        whole.root,
        tuple(pairs),
        dict(photos),
        photo_files={name: whole.photo_files[name] for name in photos},
        sketch_files={pair.sketch: whole.sketch_files[pair.sketch] for pair in pairs},
        prepare=whole.prepare,
        notes=whole.notes,
    )
