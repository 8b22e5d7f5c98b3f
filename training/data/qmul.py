"""QMUL ShoeV2 and ChairV2 as they are downloaded or passed on: three layouts, the official split kept apart.

Coordinates (the authors' files, METHODS A.3)          SVG download                        converted to PNG
    SOURCE/ShoeV2_Coordinate     a pickle                  SOURCE/ShoeV2_photo/ID.png          SOURCE/trainA/ID_k.png   sketches
    SOURCE/photo/ID.png                                    SOURCE/ShoeV2_sketch/ID_k.svg       SOURCE/trainB/ID.png     photos
                                                           SOURCE/photo_train.txt, ...test     SOURCE/testA, testB
                                                           SOURCE/sketch_train.txt, ...test

Who drew what is not published: k numbers the sketches of a photo and is no person.
"""

from __future__ import annotations

import re
from pathlib import Path

from fgsbir_edge.errors import PairsFormatError, SketchFormatError, UnreadableImageError
from fgsbir_edge.formats.qmul import read_qmul
from fgsbir_edge.pairs import Pair
from fgsbir_edge.sketch import Sketch
from training.data.folder import IMAGE_SUFFIXES
from training.data.official import (
    SKETCH_SUFFIXES,
    OfficialSet,
    files_by_stem,
    first_folder,
    read_lines,
    some_files,
    unchanged,
    without_photo,
)

SPLITS = ("train", "test")
_KEY = re.compile(r"/?(train|test)/([^/]+)_([^_/]+)")


def read_qmul_v2(source: str | Path, photos: str | Path | None = None, category: str | None = None) -> dict[str, OfficialSet]:
    """Both splits, "train" and "test", of a download in any of the layouts above.

    Coordinates keep their frame; SVG sketches are centred into the same one (METHODS B.4). A split's gallery is the photos of its
    keys, of its list or of its folder.

    Args:
        source: the folder, or the coordinate file itself.
        photos: the photo folder, where it is not beside the rest.
        category: name for pairs.csv; None: "shoe" or "chair" if a file or folder is named so, else "".

    Raises:
        UnreadableImageError: nothing of these layouts is there, or a folder or list is missing.
        PairsFormatError: a sketch without its photo, or a list that names a file that is not there.
        SketchFormatError: the pickle is damaged, asks for more than arrays, or has keys of another form.
    """
    root = Path(source)
    coordinates = _coordinate_file(root)
    if coordinates is not None:
        return _from_coordinates(coordinates, photos, category)
    if not root.is_dir():
        raise UnreadableImageError(f"{root}: no such file or folder: check the path")
    if any((root / f"{split}A").is_dir() for split in SPLITS):
        return {split: _from_folders(root, split, category) for split in SPLITS}
    if (root / "sketch_train.txt").is_file():
        return {split: _from_lists(root, split, photos, category) for split in SPLITS}
    raise UnreadableImageError(
        f"{root}: neither a coordinate file (*_Coordinate, *.pkl), nor trainA/ and trainB/, nor sketch_train.txt: "
        "give the unpacked folder of ShoeV2 or ChairV2"
    )


def _coordinate_file(root: Path) -> Path | None:
    if root.is_file():
        if not _is_coordinates(root):
            raise SketchFormatError(f"{root}: expected a coordinate file (*_Coordinate, .pkl, .pickle) or a folder")
        return root
    found = [path for path in sorted(root.glob("*")) if path.is_file() and _is_coordinates(path)] if root.is_dir() else []
    if len(found) > 1:
        raise PairsFormatError(
            f"{root}: {found[0].name} and {found[1].name} are both coordinate files: give one of them as SOURCE"
        )
    return found[0] if found else None


def _is_coordinates(path: Path) -> bool:
    return path.name.lower().endswith(("_coordinate", ".pkl", ".pickle"))


def _category(given: str | None, *names: str) -> str:
    if given is not None:
        return given
    return next((word for word in ("shoe", "chair") if any(word in name.lower() for name in names)), "")


def _photo_folder(root: Path, given: str | Path | None) -> Path:
    if given is not None:
        return first_folder([Path(given)], "photo folder")
    named = sorted(path for path in root.glob("*_photo") if path.is_dir())
    return first_folder([root / "photo", *named, root / "photos"], "photo folder")


def _from_coordinates(path: Path, photos: str | Path | None, category: str | None) -> dict[str, OfficialSet]:
    sketches = read_qmul(path)
    folder = _photo_folder(path.parent, photos)
    files = some_files(folder)
    named: dict[str, dict[str, tuple[str, Sketch]]] = {split: {} for split in SPLITS}
    for key in sorted(sketches):
        match = _KEY.fullmatch(key)
        if match is None:
            raise SketchFormatError(f"{path}: key {key!r} is not /train/PHOTO_k or /test/PHOTO_k: this is another kind of pickle")
        split, photo, number = match.groups()
        named[split][f"{photo}_{number}"] = photo, sketches[key]
    if missing := [key for entries in named.values() for key, (photo, _) in entries.items() if photo not in files]:
        raise without_photo(missing, folder)
    kind = _category(category, path.name, path.absolute().parent.name)
    used = {photo for entries in named.values() for photo, _ in entries.values()}
    notes = (f"{len(files) - len(used)} photos without any key",) if len(used) < len(files) else ()
    return {
        split: _official(
            path.parent,
            {key: (photo, sketch) for key, (photo, sketch) in entries.items()},
            {photo: files[photo] for photo in sorted({photo for photo, _ in entries.values()})},
            kind,
            notes,
        )
        for split, entries in named.items()
    }


def _from_folders(root: Path, split: str, category: str | None) -> OfficialSet:
    sketches = some_files(first_folder([root / f"{split}A"], "folder of sketches"), SKETCH_SUFFIXES)
    folder = first_folder([root / f"{split}B"], "folder of photos")
    return _matched(root, sketches, some_files(folder), folder, category)


def _from_lists(root: Path, split: str, photos: str | Path | None, category: str | None) -> OfficialSet:
    photo_folder = _photo_folder(root, photos)
    sketch_folder = first_folder(
        [root / "sketch", *(path for path in sorted(root.glob("*_sketch*")) if path.is_dir())], "sketch folder"
    )
    photo_files, sketch_files = some_files(photo_folder), _vectors_first(sketch_folder)
    listed = {
        kind: _listed(root / f"{kind}_{split}.txt", files, folder)
        for kind, files, folder in (("photo", photo_files, photo_folder), ("sketch", sketch_files, sketch_folder))
    }
    return _matched(root, listed["sketch"], listed["photo"], photo_folder, category)


def _vectors_first(folder: Path) -> dict[str, Path]:
    """Sketches by name; where a name has both, the SVG counts: the PNG was made from it."""
    return files_by_stem(folder, {".png"}) | files_by_stem(folder, {".svg"}) or some_files(folder, SKETCH_SUFFIXES)


def _listed(path: Path, files: dict[str, Path], folder: Path) -> dict[str, Path]:
    known = IMAGE_SUFFIXES | SKETCH_SUFFIXES  # an ID may hold a dot of its own
    stems = sorted({Path(line).stem if Path(line).suffix.lower() in known else line for line in read_lines(path)})
    if missing := [stem for stem in stems if stem not in files]:
        raise PairsFormatError(f"{path}: {missing[0]!r} ({len(missing)} in all) is not in {folder}: the download is incomplete")
    return {stem: files[stem] for stem in stems}


def _matched(root: Path, sketches: dict[str, Path], photos: dict[str, Path], folder: Path, category: str | None) -> OfficialSet:
    entries = {
        name if path.suffix.lower() == ".svg" else path.name: (name.rpartition("_")[0], path) for name, path in sketches.items()
    }
    if missing := [key for key, (photo, _) in entries.items() if photo not in photos]:
        raise without_photo(missing, folder)
    return _official(root, entries, photos, _category(category, folder.name, root.absolute().name), ())


def _official(
    root: Path,
    sketches: dict[str, tuple[str, Path]] | dict[str, tuple[str, Sketch]],
    photos: dict[str, Path],
    category: str,
    notes: tuple[str, ...],
) -> OfficialSet:
    """Sketches as name -> (photo without suffix, where it is); photos by name without suffix."""
    in_frame = any(isinstance(source, Sketch) for _, source in sketches.values())
    return OfficialSet(
        root,
        tuple(Pair(key, photos[photo].name, category) for key, (photo, _) in sorted(sketches.items())),
        {path.name: category for path in photos.values()},
        photo_files={path.name: path for path in photos.values()},
        sketch_files={key: source for key, (_, source) in sketches.items()},
        prepare=unchanged if in_frame else Sketch.centred,
        notes=notes,
    )
