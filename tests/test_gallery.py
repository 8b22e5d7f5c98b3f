"""The gallery: what goes in comes out after a crash, a removal or a move; search is exact; damage is named."""

from __future__ import annotations

import os
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import (
    EmptyGalleryError,
    GalleryFormatError,
    GalleryMismatchError,
    NonFiniteError,
    OutputError,
    UnknownPhotoError,
    UnreadableImageError,
)
from fgsbir_edge.gallery import Gallery
from fgsbir_edge.gallery import folder as folder_module
from fgsbir_edge.gallery.store import MEMORY, PhotoFile, Store
from fgsbir_edge.head import Adapter, Head
from tests.toy import EMBEDDING, FEATURES, PHOTOS, toy_encoder

FEATURE_ROWS = np.random.default_rng(0).normal(size=(300, FEATURES)).astype(np.float32)


@pytest.fixture
def photos(data_path: Path, tmp_path: Path) -> Path:
    return shutil.copytree(data_path / "photos", tmp_path / "photos")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "photos.gallery"


def opened(bundle: Bundle, path: Path) -> Engine:
    return Engine.open(bundle=bundle, gallery=path, threads=1, create=True)


def filled(bundle: Bundle, rows: np.ndarray = FEATURE_ROWS, path: str = MEMORY, batch: int = 100) -> Gallery:
    """A gallery of made-up features; every third photo is in category "c"."""
    store = Store.create(path, bundle.features_digest, FEATURES)
    for start in range(0, len(rows), batch):
        part = range(start, min(start + batch, len(rows)))
        files = [PhotoFile(f"{i:04d}.jpg", "c" if i % 3 == 0 else None, f"/nowhere/{i}", 1, 1, "") for i in part]
        store.add(files, [b"jpeg"] * len(part), rows[start : start + batch])
    return Gallery(store)


def stored(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.float16).astype(np.float32)


def test_index_list_and_reopen(bundle: Bundle, photos: Path, path: Path) -> None:
    with opened(bundle, path) as engine:
        report = engine.index(photos)
        assert (report.added, report.updated, report.unchanged, report.failed) == (PHOTOS, 0, 0, [])
        direct = engine.encode_photos(sorted(photos.rglob("*.png")))
    with Gallery.open(path, bundle) as gallery:
        names = [item.name for item in gallery.items()]
        assert names == sorted(photo.relative_to(photos).as_posix() for photo in photos.rglob("*.png"))
        assert {item.category for item in gallery.items()} == {"even", "odd"}
        np.testing.assert_array_equal(gallery.features(names), stored(direct))
        thumbnail = gallery.thumbnail(names[0])
    assert thumbnail.startswith(b"\xff\xd8")
    assert not path.with_name(path.name + "-wal").exists()


def test_indexing_again_encodes_only_what_changed(bundle: Bundle, photos: Path, path: Path) -> None:
    first, second = sorted(photos.rglob("*.png"))[:2]
    with opened(bundle, path) as engine:
        engine.index(photos)
        os.utime(first, ns=(1, 1))  # touched, same content
        Image.new("RGB", (80, 90), "red").save(second)
        Image.new("RGB", (30, 30), "blue").save(photos / "new.png")
        encoded: list[int] = []
        encode = engine.encode_pixels
        engine.encode_pixels = lambda images: (encoded.append(len(images)), encode(images))[1]  # type: ignore[method-assign]
        report = engine.index(photos)
        assert (report.added, report.updated, report.unchanged) == (1, 1, PHOTOS - 1)
        assert encoded == [2]
        changed = second.relative_to(photos).as_posix()
        np.testing.assert_array_equal(engine.gallery.features([changed]), stored(engine.encode_photos([second])))
        assert engine.index(photos).unchanged == PHOTOS + 1
        assert len(engine.gallery) == PHOTOS + 1


def test_indexing_resumes_after_a_crash(bundle: Bundle, photos: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "BATCH", 5)
    with opened(bundle, path) as engine:
        encode, calls = engine.encode_pixels, []

        def failing(images: list[np.ndarray]) -> np.ndarray:
            calls.append(len(images))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return encode(images)

        engine.encode_pixels = failing  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            engine.index(photos)
        assert len(engine.gallery) == 5
    with opened(bundle, path) as engine:
        report = engine.index(photos)
    assert (report.added, report.unchanged) == (PHOTOS - 5, 5)


def test_bad_files_are_reported_and_others_left_alone(bundle: Bundle, photos: Path, path: Path) -> None:
    (photos / "notes.txt").write_text("not a photo")
    (photos / ".hidden.png").write_bytes(b"x")
    (photos / "junk.jpg").write_bytes(b"junk")
    whole = (photos / "even" / "star00.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "gone.png").symlink_to(photos / "nowhere.png")
    (photos / "loop").symlink_to(photos, target_is_directory=True)
    heard: list[str] = []
    with opened(bundle, path) as engine:
        report = engine.index(photos, on_error=lambda name, _: heard.append(name))
        assert len(engine.gallery) == PHOTOS == report.added
        assert [name for name, _ in engine.skipped] == heard
    assert [(name, error.exit_code) for name, error in report.failed] == [("cut.png", 15), ("gone.png", 17), ("junk.jpg", 17)]
    assert heard == [name for name, _ in report.failed]
    assert all("\n" not in str(error) for _, error in report.failed)


def test_linked_folders_are_followed_once(bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").symlink_to(photos, target_is_directory=True)
    (root / "a" / "even" / "back").symlink_to(root, target_is_directory=True)
    with Engine.open(photos=root, bundle=bundle, threads=1) as engine:
        assert len(engine.gallery) == PHOTOS


def test_not_recursive(bundle: Bundle, photos: Path) -> None:
    Image.new("RGB", (9, 9)).save(photos / "top.png")
    with Engine.open(bundle=bundle, threads=1) as engine:
        engine.index(photos, recursive=False)
        assert [item.name for item in engine.gallery.items()] == ["top.png"]


@pytest.mark.parametrize(
    ("category", "expected"),
    [("folder", {"even", "odd"}), ("chair", {"chair"}), (None, {None}), ({"even/star00.png": "first"}, {"first", "even", "odd"})],
    ids=["folder", "one name", "none", "mapping"],
)
def test_categories(bundle: Bundle, photos: Path, category: object, expected: set[object]) -> None:
    with Engine.open(photos=photos, bundle=bundle, threads=1) as engine:
        engine.index(photos, category=category)  # type: ignore[arg-type]
        assert {item.category for item in engine.gallery.items()} == expected


def test_a_moved_folder_keeps_its_photos_but_two_photos_cannot_share_a_name(bundle: Bundle, photos: Path, path: Path) -> None:
    with opened(bundle, path) as engine:
        engine.index(photos)
        moved = photos.rename(photos.with_name("moved"))
        assert engine.index(moved).unchanged == PHOTOS
        assert all(item.source.startswith(str(moved)) for item in engine.gallery.items())
        (photos / "even").mkdir(parents=True)
        Image.new("RGB", (50, 50), "red").save(photos / "even" / "star00.png")
        report = engine.index(photos)
        assert [name for name, _ in report.failed] == ["even/star00.png"]
        assert "parent folder" in str(report.failed[0][1])
        assert len(engine.gallery) == PHOTOS


def test_missing_folder(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="no such folder"):
        Engine.open(photos=tmp_path / "none", bundle=bundle, threads=1)


def test_removal_leaves_nothing_in_the_file(bundle: Bundle, path: Path) -> None:
    gallery = filled(bundle, path=str(path))
    secret = FEATURE_ROWS[7].astype("<f2").tobytes()
    with gallery:
        assert secret in path.read_bytes() + path.with_name(path.name + "-wal").read_bytes()
        gallery.remove(["0007.jpg"])
        assert len(gallery) == 299
        assert secret not in path.read_bytes()
        np.testing.assert_array_equal(gallery.features(["0006.jpg", "0008.jpg"]), stored(FEATURE_ROWS[[6, 8]]))
        with pytest.raises(UnknownPhotoError):
            gallery.remove(["0001.jpg", "0007.jpg"])
        assert "0001.jpg" in gallery.index.positions
        gallery.remove([f"{i:04d}.jpg" for i in range(100) if i != 7])
        gallery.remove(["0150.jpg"])
    for leftover in path.parent.glob(path.name + "*"):
        assert secret not in leftover.read_bytes()
    with Gallery.open(path, bundle) as gallery:
        assert len(gallery) == 199
        names = [item.name for item in gallery.items()]
        np.testing.assert_array_equal(gallery.features(names), stored(FEATURE_ROWS[[int(name[:4]) for name in names]]))
    assert sqlite3.connect(path).execute("SELECT count(*) FROM blocks").fetchone() == (2,)


def brute_force(head: Head, sketches: np.ndarray, rows: np.ndarray, adapter: Adapter | None) -> np.ndarray:
    queries = head.embed(sketches) if adapter is None else adapter.embed(head, sketches, "sketch")
    photos = head.embed(rows) if adapter is None else adapter.embed(head, rows, "photo")
    return np.linalg.norm(queries[:, None].astype(np.float64) - photos[None], axis=2)


@pytest.mark.parametrize("side", [None, "sketch", "both"])
@pytest.mark.parametrize("k", [1, 10, 300, 1000])
def test_search_is_brute_force(bundle: Bundle, head: Head, side: str | None, k: int) -> None:
    rng = np.random.default_rng(1)
    sketches = rng.normal(size=(3, FEATURES)).astype(np.float32)
    adapter = None
    if side is not None:
        coefficients, support = 0.1 * rng.normal(size=(EMBEDDING, 4)), rng.normal(size=(4, FEATURES))
        adapter = Adapter(head.digest, coefficients, support, side)  # type: ignore[arg-type]
    with filled(bundle) as gallery:
        answers = gallery.search(sketches, k, head=head, adapter=adapter)
        ranks = gallery.ranks(sketches, ["0005.jpg"] * 3, head=head, adapter=adapter)
    distances = brute_force(head, sketches, stored(FEATURE_ROWS), adapter)
    for hits, row, rank in zip(answers, distances, ranks, strict=True):
        found = [int(hit.name[:4]) for hit in hits]
        nearest = np.sort(row)[:k]
        assert len(set(found)) == len(nearest)
        np.testing.assert_allclose(row[found], nearest, atol=1e-5)  # photos this close may change places
        np.testing.assert_allclose([hit.distance for hit in hits], nearest, atol=1e-4)
        assert [hit.rank for hit in hits] == list(range(1, len(found) + 1))
        assert rank == int(np.sum(row <= row[5]))


def test_search_within_a_category(bundle: Bundle, head: Head) -> None:
    with filled(bundle) as gallery:
        hits = gallery.search(FEATURE_ROWS[:1], 200, head=head, category="c")[0]
        assert len(hits) == 100
        assert {hit.category for hit in hits} == {"c"}
        assert (hits[0].name, hits[0].distance) == ("0000.jpg", pytest.approx(0, abs=2e-3))
        with pytest.raises(EmptyGalleryError, match="there are: c"):
            gallery.search(FEATURE_ROWS[:1], head=head, category="d")
        with pytest.raises(UnknownPhotoError, match="not in category"):
            gallery.ranks(FEATURE_ROWS[:1], ["0001.jpg"], head=head, category="c")


def test_ties_keep_gallery_order_and_count_against_rank(bundle: Bundle, head: Head) -> None:
    rows = np.repeat(FEATURE_ROWS[:2], [6, 1], axis=0)[[6, 0, 1, 2, 3, 4, 5]]
    with filled(bundle, rows) as gallery:
        hits = gallery.search(FEATURE_ROWS[:1], 3, head=head)[0]
        assert [hit.name for hit in hits] == ["0001.jpg", "0002.jpg", "0003.jpg"]
        assert gallery.ranks(FEATURE_ROWS[:1], ["0001.jpg"], head=head) == [6]


def test_adapted_photo_embeddings_are_kept_for_some_adapters(bundle: Bundle, head: Head) -> None:
    rng = np.random.default_rng(3)
    adapters = [Adapter(head.digest, rng.normal(size=(EMBEDDING, 2)), rng.normal(size=(2, FEATURES)), "both") for _ in range(10)]
    sketch_side = replace(adapters[0], side="sketch")
    with filled(bundle) as gallery:
        index = gallery.index
        assert index.embeddings(head, sketch_side) is index.embeddings(head)
        assert index.embeddings(head, adapters[0]) is index.embeddings(head, adapters[0])
        for adapter in adapters:
            np.testing.assert_allclose(
                index.embeddings(head, adapter), adapter.embed(head, stored(FEATURE_ROWS), "photo"), atol=1e-5
            )
        assert len(index._adapted) == 8


def test_empty_gallery_and_bad_k(bundle: Bundle, head: Head) -> None:
    with Gallery.create(MEMORY, bundle) as gallery:
        with pytest.raises(EmptyGalleryError, match="fgsbir-edge index"):
            gallery.search(FEATURE_ROWS[:1], head=head)
        with pytest.raises(ValueError, match="k is 0"):
            gallery.search(FEATURE_ROWS[:1], 0, head=head)


def test_changes_of_another_process_are_seen(bundle: Bundle, head: Head, path: Path) -> None:
    filled(bundle, path=str(path)).close()
    with Gallery.open(path, bundle, readonly=True) as reader:
        assert reader.search(FEATURE_ROWS[:1], head=head)[0][0].name == "0000.jpg"
        with Gallery.open(path, bundle) as writer:
            writer.remove(["0000.jpg"])
        assert reader.search(FEATURE_ROWS[:1], head=head)[0][0].name != "0000.jpg"


@pytest.mark.parametrize("look", [1, 2, 3])
def test_features_are_those_of_the_names_while_another_process_removes_photos(
    bundle: Bundle, path: Path, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    """The file changes just before the gallery looks for the first, second or third time whether it has."""
    filled(bundle, FEATURE_ROWS[:5], str(path)).close()
    wanted = stored(FEATURE_ROWS[[4]])
    with Gallery.open(path, bundle) as other, opened(bundle, path) as engine:
        assert len(engine.gallery.index.entries) == 5
        real, looks = Store.data_version, 0

        def changing(store: Store) -> int:
            nonlocal looks
            if store is not other._store:
                looks += 1
                if looks == look:
                    other.remove(["0000.jpg", "0001.jpg"])
            return real(store)

        monkeypatch.setattr(Store, "data_version", changing)
        np.testing.assert_array_equal(engine.gallery.features(["0004.jpg"]), wanted)
        np.testing.assert_array_equal(engine.photo_features(["0004.jpg"]), wanted)
        assert looks >= look


def test_read_only_gallery_answers_and_refuses_to_change(bundle: Bundle, head: Head, path: Path) -> None:
    filled(bundle, path=str(path)).close()
    before = path.read_bytes()
    with Gallery.open(path, bundle, readonly=True) as gallery:
        assert gallery.search(FEATURE_ROWS[3:4], head=head)[0][0].name == "0003.jpg"
        with pytest.raises(OutputError, match="readonly"):
            gallery.remove(["0003.jpg"])
    assert path.read_bytes() == before


def test_other_encoder_is_refused(bundle: Bundle, path: Path) -> None:
    filled(bundle, path=str(path)).close()
    with pytest.raises(GalleryMismatchError, match="another encoder"):
        Gallery.open(path, replace(bundle, encoder=toy_encoder(seed=1)))
    with pytest.raises(OutputError, match="exists already"):
        Gallery.create(path, bundle)


@pytest.mark.parametrize("damage", ["absent", "junk", "empty", "other database", "version", "cut", "block", "slot", "meta"])
def test_damaged_files(bundle: Bundle, head: Head, path: Path, damage: str) -> None:
    filled(bundle, path=str(path)).close()
    if damage in ("absent", "junk", "empty", "other database"):
        path.unlink()
    if damage in ("junk", "empty"):
        path.write_bytes(b"junk" * 1000 if damage == "junk" else b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:9000])
    elif damage != "absent":
        statements = {
            "other database": "CREATE TABLE t (x)",
            "version": "PRAGMA user_version = 99",
            "block": "UPDATE blocks SET data = zeroblob(length(data)) WHERE id = 2",
            "slot": "UPDATE items SET slot = 100 WHERE id = 1",
            "meta": "DELETE FROM meta",
        }
        connection = sqlite3.connect(path)
        connection.execute(statements[damage])
        connection.commit()
        connection.close()
    before = path.read_bytes() if path.exists() else b""
    with pytest.raises(GalleryFormatError) as caught, Gallery.open(path, bundle) as gallery:
        gallery.search(FEATURE_ROWS[:1], head=head)
    assert "\n" not in str(caught.value)
    assert "index" in str(caught.value)
    assert (path.read_bytes() if path.exists() else b"") == before


def test_failed_addition_changes_nothing(bundle: Bundle) -> None:
    with filled(bundle) as gallery:
        file = PhotoFile("0000.jpg", None, "/nowhere", 1, 1, "")
        with pytest.raises(NonFiniteError, match="float16"):
            gallery._store.add([file], [b""], np.full((1, FEATURES), 1e6, np.float32))
        with pytest.raises(ValueError, match="zip"):
            gallery._store.add([file, file], [b""], FEATURE_ROWS[:2])
        assert len(gallery) == 300
        np.testing.assert_array_equal(gallery.features(["0000.jpg"]), stored(FEATURE_ROWS[:1]))


def test_unknown_photo_names_the_nearest(engine: Engine) -> None:
    with pytest.raises(UnknownPhotoError, match=r"did you mean 'even/star00\.png'"):
        engine.gallery.thumbnail("star00.png")
    with pytest.raises(UnknownPhotoError, match=r"even/star02\.png"):
        engine.gallery.features(["even/star02.jpg"])
    with pytest.raises(UnknownPhotoError, match="fgsbir-edge list"):
        engine.gallery.features(["qqqqq"])
