"""Blocks of features shrink with what they hold: what is left stays what it was, and nothing is left of what is gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attacks.gallery_ops import DIGEST, FEATURES
from fgsbir_edge.errors import GalleryFormatError
from fgsbir_edge.gallery.check import check
from fgsbir_edge.gallery.store import PhotoFile, Store

PHOTOS = 32


def filled(path: Path) -> tuple[Store, np.ndarray]:
    store = Store.create(str(path), DIGEST, FEATURES)
    rows = np.random.default_rng(0).normal(size=(PHOTOS, FEATURES)).astype(np.float16)
    files = [PhotoFile(f"{i}.jpg", None, f"/nowhere/{i}.jpg", 1, 1, "") for i in range(PHOTOS)]
    store.add(files, [b"thumbnail"] * PHOTOS, rows.astype(np.float32))
    return store, rows


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_stays_and_blocks_shrink(seed: int, tmp_path: Path) -> None:
    store, rows = filled(tmp_path / "g.gallery")
    left = {f"{i}.jpg": row for i, row in enumerate(rows)}
    for name in np.random.default_rng(seed).permutation(list(left)):
        store.remove([str(name)])
        gone = left.pop(str(name))
        entries, features = store.load()
        assert [entry.name for entry in entries] == list(left)
        np.testing.assert_array_equal(features, np.array(list(left.values()), np.float16).reshape(-1, FEATURES))
        sizes = [len(data) // (2 * FEATURES) for (data,) in store.db.execute("SELECT data FROM blocks")]
        assert sum(sizes) <= 2 * len(left)
        assert check(store.path).healthy
        assert gone.tobytes() not in Path(store.path).read_bytes()
    store.close()


def test_an_item_outside_its_block_is_told(tmp_path: Path) -> None:
    store, _ = filled(tmp_path / "g.gallery")
    store.db.execute("UPDATE items SET slot = 99 WHERE name = '3.jpg'")
    with pytest.raises(GalleryFormatError, match="points outside block 1"):
        store.remove(["3.jpg"])
    with pytest.raises(GalleryFormatError, match="points outside block 1"):
        store.remove(["4.jpg"])
    assert len(store.items()) == PHOTOS
    store.close()
