"""Shards hold what they were given, damaged ones are refused, and a gallery of them is the one that indexing would make."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from fgsbir_edge.cli import main
from fgsbir_edge.errors import GalleryMismatchError, OutputError, ShardFormatError
from fgsbir_edge.files import write_atomic
from fgsbir_edge.gallery import merge as merging
from fgsbir_edge.gallery.check import check
from fgsbir_edge.gallery.merge import merge
from fgsbir_edge.gallery.shards import Failed, Part, Shard, load_shard, parse_shard
from fgsbir_edge.gallery.store import PhotoFile, Store

DIGEST, FEATURES, OF = "d" * 64, 6, 3


def shard(number: int, photos: int = 40, **changes: object) -> Shard:
    """Part of a run: photos of one folder, one that could not be read."""
    rng = np.random.default_rng(number)
    names = [f"{number}/{i:02d}.jpg" for i in range(photos)]
    files = [PhotoFile(name, str(number), f"/away/{name}", 10 + i, i, f"{number:032x}{i:032x}") for i, name in enumerate(names)]
    thumbnails = tuple(b"\xff\xd8\xff" + rng.bytes(int(rng.integers(1, 90))) for _ in files)
    failed = (Failed(f"{number}/bad.jpg", "not an image", 7, 8),)
    part = Part(**{"features_digest": DIGEST, "features": FEATURES, "run": "r", "number": number, "of": OF, **changes})  # type: ignore[arg-type]
    return Shard(part, tuple(files), rng.normal(size=(photos, FEATURES)).astype(np.float16), thumbnails, failed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole run; its last shard has nothing but a photo that failed."""
    place = tmp_path / "shards"
    place.mkdir()
    for number in range(OF):
        one = shard(number, 40 if number < OF - 1 else 0)
        one.save(place / one.part.file)
    return place


def held(path: Path) -> list[dict[str, object]]:
    """All that a gallery knows of photos but when they came."""
    store = Store.open(str(path))
    entries, features = store.load()
    items = [{**asdict(item), "added_at": None, "thumbnail": store.thumbnail(item.name)} for item in store.items()]
    store.close()
    return [{**item, "row": row.tobytes()} for item, row, _ in zip(items, features, entries, strict=True)]


@pytest.mark.parametrize("photos", [0, 1, 40])
def test_a_shard_is_read_as_it_was_written(photos: int, tmp_path: Path) -> None:
    one = shard(1, photos)
    one.save(tmp_path / "a")
    other = load_shard(tmp_path / "a")
    assert (other.part, other.files, other.thumbnails, other.failed) == (one.part, one.files, one.thumbnails, one.failed)
    np.testing.assert_array_equal(other.features, one.features)
    one.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    """Bits of every byte; what is changed beyond the hash's sight would be the metadata's spelling, which JSON forgives."""
    shard(1, 2).save(tmp_path / "a")
    data = (tmp_path / "a").read_bytes()
    parse_shard(data)
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        with pytest.raises(ValueError, match=r".{10}"):
            parse_shard(changed)
    for end in range(0, len(data), 7):
        with pytest.raises(ValueError, match=r".{10}"):
            parse_shard(data[:end])


WRONG: dict[str, Callable[[Shard], Shard]] = {
    "features are": lambda one: replace(one, features=one.features[:-1]),
    "finite numbers": lambda one: replace(one, features=np.full_like(one.features, np.inf)),
    "thumbnails do not fit": lambda one: replace(one, thumbnails=one.thumbnails[:-1]),
    "no JPEG": lambda one: replace(one, thumbnails=(*one.thumbnails[:-1], b"GIF")),
    "a photo twice": lambda one: replace(one, files=(one.files[0],) * len(one.files)),
    "other types than a photo's": lambda one: replace(one, files=(replace(one.files[0], size=2**63), *one.files[1:])),
    "facts of other types": lambda one: replace(one, files=(replace(one.files[0], name="\ud800"), *one.files[1:])),
    "unreadable photos": lambda one: replace(one, failed=(Failed("a", "b", 1.5, None),)),  # type: ignore[arg-type]
    "out of range": lambda one: replace(one, part=replace(one.part, number=OF)),
    "its metadata": lambda one: replace(one, part=replace(one.part, of="3")),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_shard_says_is_checked(what: str, tmp_path: Path) -> None:
    WRONG[what](shard(1)).save(tmp_path / "a")
    with pytest.raises(ShardFormatError, match=what):
        load_shard(tmp_path / "a")


def test_a_merged_gallery_has_all_and_merging_again_changes_nothing(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "g.gallery"
    report = merge([folder], path)
    assert (report.added, report.updated, report.unchanged, report.failed) == (80, 0, 0, [])
    assert [name for name, _ in report.unread] == ["0/bad.jpg", "1/bad.jpg", "2/bad.jpg"]
    before = held(path)
    assert [photo["name"] for photo in before] == [file.name for n in range(2) for file in shard(n).files]
    assert [photo["row"] for photo in before] == [row.tobytes() for n in range(2) for row in shard(n).features]
    assert [photo["thumbnail"] for photo in before] == [one for n in range(2) for one in shard(n).thumbnails]
    assert merge([folder], path).unchanged == 80
    assert held(path) == before
    assert check(path).healthy


def test_the_order_of_files_given_does_not_matter(folder: Path, tmp_path: Path) -> None:
    merge([folder], tmp_path / "a")
    merge([*sorted(folder.iterdir(), reverse=True), folder], tmp_path / "b")
    assert held(tmp_path / "a") == held(tmp_path / "b")


def test_an_interrupted_merge_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merge([folder], tmp_path / "whole")
    path, add, calls = tmp_path / "g", Store.add, [0]

    def fails_at_the_second(store: Store, *arguments: object, **options: object) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise OutputError("full")
        add(store, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "add", fails_at_the_second)
    with pytest.raises(OutputError):
        merge([folder], path)
    monkeypatch.undo()
    assert len(held(path)) == merging.BATCH
    report = merge([folder], path)
    assert (report.added, report.unchanged) == (80 - merging.BATCH, merging.BATCH)
    assert held(path) == held(tmp_path / "whole")


def test_changed_and_moved_photos_follow(folder: Path, tmp_path: Path) -> None:
    path, first = tmp_path / "g", shard(0)
    merge([folder], path)
    files = list(first.files)
    files[3], files[5] = replace(files[3], sha256="f" * 64), replace(files[5], mtime_ns=99)
    replace(first, files=tuple(files)).save(folder / first.part.file)
    report = merge([folder], path, photos=tmp_path / "here")
    assert (report.added, report.updated, report.unchanged) == (0, 1, 79)
    there = {photo["name"]: photo for photo in held(path)}
    assert there["0/03.jpg"]["sha256"] == "f" * 64
    assert (there["0/05.jpg"]["mtime_ns"], there["0/05.jpg"]["source"]) == (99, str(tmp_path / "here" / "0/05.jpg"))


def test_missing_truncated_and_foreign_shards_are_refused(folder: Path, tmp_path: Path) -> None:
    path, names = tmp_path / "g", sorted(one.name for one in folder.iterdir())
    with pytest.raises(ShardFormatError, match="1 shards are missing, numbers 1;"):
        merge([folder / names[0], folder / names[2]], path)
    assert not path.exists()
    assert merge([folder / names[0], folder / names[2]], path, partial=True).added == 40
    (folder / names[1]).write_bytes((folder / names[1]).read_bytes()[:-1])
    with pytest.raises(ShardFormatError, match="copy it again"):
        merge([folder], path)
    foreign = shard(1, features_digest="e" * 64)
    foreign.save(folder / names[1])
    with pytest.raises(ShardFormatError, match="another encoder"):
        merge([folder], path)
    with pytest.raises(GalleryMismatchError, match="indexed with another encoder"):
        merge([folder / names[1]], path, partial=True)
    with pytest.raises(ShardFormatError, match="no shards in this folder"):
        merge([tmp_path], path)
    with pytest.raises(ShardFormatError, match="cannot be read"):
        merge([tmp_path / "nothing"], path)
    write_atomic(tmp_path / "text", b"text")
    with pytest.raises(ShardFormatError, match="not a shard"):
        merge([tmp_path / "text"], path)
    assert len(held(path)) == 40


def test_a_shard_of_a_billion_is_told_at_once(tmp_path: Path) -> None:
    shard(3, of=10**9).save(tmp_path / "a.shard")
    with pytest.raises(ShardFormatError, match="999999999 shards are missing, numbers 0, 1, 2, 4, 5, 6, 7, 8, 9, 10;"):
        merge([tmp_path], tmp_path / "g")


def test_one_name_from_two_places_is_told(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    one = shard(0, run="another", of=1)
    one.save(other / one.part.file)
    report = merge([folder, other], tmp_path / "g")
    assert (report.added, len(report.failed)) == (80, 40)
    assert "another run has a photo of that name" in str(report.failed[0][1])


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["gallery", "merge", str(folder), "--gallery", str(tmp_path / "g")]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'g'}: 80 added, 0 updated, 0 unchanged, 3 skipped\n"
    assert err.count("skipped: ") == 3
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] == 80
    sorted(folder.iterdir())[0].unlink()
    assert main(words) == ShardFormatError.exit_code
    assert main([*words, "--partial", "--photos", str(tmp_path)]) == 0
