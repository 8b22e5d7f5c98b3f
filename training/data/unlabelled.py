"""Folders of photos without sketches: what semi-supervised training draws its unlabelled photos from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fgsbir_edge.errors import FgsbirError, UnreadableImageError
from fgsbir_edge.photo import open_image
from training.data.folder import IMAGE_SUFFIXES
from training.data.official import need_folder

_LOOK = 256  # pixels; large JPEGs are decoded smaller, which finds damage as well


@dataclass(frozen=True)
class UnlabelledPhotos:
    """Photos below `root`, named by their path there, in order; and the damaged ones that were left out, with the reason."""

    root: Path
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    def photo_path(self, name: str) -> Path:
        return self.root / name


def read_unlabelled(root: str | Path, *, skip_bad: bool = False, check: bool = True) -> UnlabelledPhotos:
    """All image files below a folder, however deep; hidden files and other kinds are passed over.

    Args:
        skip_bad: name damaged photos in `skipped` instead of refusing the folder.
        check: decode every photo once; without it damage is found only when a photo is used.

    Raises:
        UnreadableImageError: no such folder, or no photo in it.
        UnreadableImageError, TruncatedImageError, ImageTooLargeError: a damaged photo, unless `skip_bad`.
    """
    folder = need_folder(Path(root), "photos")
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    kept, skipped = [], []
    for name in names:
        problem = damage(folder / name) if check else None
        if problem is None:
            kept.append(name)
        elif skip_bad:
            skipped.append((name, str(problem)))
        else:
            raise problem
    if not kept:
        raise UnreadableImageError(
            f"{folder}: no photo that can be read ({len(skipped)} damaged); expected JPEG, PNG, WebP or BMP"
        )
    return UnlabelledPhotos(folder, tuple(kept), tuple(skipped))


def damage(photo: Path) -> FgsbirError | None:
    """What is wrong with a photo file, if anything: missing, not an image, truncated, or too large."""
    try:
        open_image(photo, wanted=_LOOK)
    except FgsbirError as error:
        return error
    return None
