"""People in a gallery: what they show is kept, bounded, undone, forgotten; adapters follow; other people's photos stay found."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgsbir_edge.adapt import AdaptOptions
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.cli import main
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import (
    EmptySketchError,
    NoPairsError,
    OutputError,
    PersonFormatError,
    UnknownPersonError,
    UnknownPhotoError,
)
from fgsbir_edge.feedback import Learner
from fgsbir_edge.gallery import Gallery
from fgsbir_edge.gallery.people import HISTORY, OutdatedError
from fgsbir_edge.gallery.schema import VERSION
from fgsbir_edge.gallery.store import PhotoFile, Store
from fgsbir_edge.pairs import DataFolder

Pairs = list[tuple[Path, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "photos.gallery"


@pytest.fixture
def kiosk(bundle: Bundle, data_path: Path, path: Path) -> Iterator[Engine]:
    with Engine.open(bundle=bundle, gallery=path, photos=data_path / "photos", threads=1) as engine:
        yield engine


@pytest.fixture
def pairs(data_path: Path) -> Pairs:
    return [(data_path / "sketches" / pair.sketch, pair.photo) for pair in DataFolder.open(data_path).select("ann")]


def show(engine: Engine, pairs: Pairs, person: str = "ann") -> None:
    for sketch, photo in pairs:
        engine.feedback(sketch, photo, person=person)


def test_each_pair_is_learned_and_kept(kiosk: Engine, pairs: Pairs, bundle: Bundle, path: Path) -> None:
    for number, (sketch, photo) in enumerate(pairs[:5], start=1):
        feedback = kiosk.feedback(sketch, photo, person="ann")
        assert (feedback.version, feedback.pairs, feedback.person) == (number, number, "ann")
    together = kiosk.adapt(pairs[:5])
    np.testing.assert_array_equal(feedback.adapter.coefficients, together.adapter.coefficients)
    hits = kiosk.search(pairs[6][0], person="ann")
    assert hits == kiosk.search(pairs[6][0], adapter=together.adapter)
    kiosk.close()
    with Engine.open(bundle=bundle, gallery=path, threads=1) as again:
        assert again.gallery.people.names() == ["ann"]
        assert again.gallery.people.shown("ann").photos == tuple(photo for _, photo in pairs[:5])
        assert again.search(pairs[6][0], person="ann") == hits


def test_support_sets_are_bounded_and_the_oldest_goes(kiosk: Engine, pairs: Pairs) -> None:
    learner = Learner(kiosk, max_pairs=3)
    for sketch, photo in pairs[:5]:
        last = learner.show("ann", sketch, photo)
    assert last.pairs == 3
    assert kiosk.gallery.people.shown("ann").photos == tuple(photo for _, photo in pairs[2:5])


def test_undo_is_exact_down_to_nothing(kiosk: Engine, pairs: Pairs) -> None:
    learner = Learner(kiosk, max_pairs=3)
    states = []
    for sketch, photo in pairs[:5]:
        states.append((learner.show("ann", sketch, photo).adapter.digest, kiosk.gallery.people.shown("ann").photos))
    for digest, photos in states[-2::-1]:
        assert learner.undo("ann").adapter.digest == digest
        assert kiosk.gallery.people.shown("ann").photos == photos
        assert learner.adapter("ann").digest == digest
    last = learner.undo("ann")
    assert (last.pairs, last.result, last.adapter.rank) == (0, None, 0)
    with pytest.raises(UnknownPersonError, match="nothing left that could be undone"):
        learner.undo("ann")


def test_history_is_bounded(kiosk: Engine, pairs: Pairs) -> None:
    learner = Learner(kiosk, max_pairs=2)
    for turn in range(HISTORY + 6):
        learner.show("ann", *pairs[turn % 6])
    kept = kiosk.gallery._store.db.execute("SELECT count(*) FROM pairs").fetchone()[0]
    assert kept == HISTORY + 2, "two in force, and what the last HISTORY steps have taken out of it"
    for _ in range(HISTORY):
        learner.undo("ann")
    assert len(kiosk.gallery.people.shown("ann")) == 2
    with pytest.raises(UnknownPersonError, match="32 steps are kept"):
        learner.undo("ann")


def test_drift_keeps_the_base_head_and_the_pair(kiosk: Engine, pairs: Pairs) -> None:
    wild = AdaptOptions(guard=False, step_sizes=(50.0,), side="both")
    show(kiosk, pairs[6:12], person="bob")
    feedback = None
    for sketch, photo in pairs[:4]:
        feedback = Learner(kiosk, wild).show("ann", sketch, photo)
    assert feedback is not None
    assert feedback.drift.anchors == 6
    assert feedback.drift.worse
    assert feedback.result is not None
    assert feedback.result.status == "adapted"
    assert feedback.adapter.rank == 0
    assert "harder to find" in feedback.explanation
    assert feedback.pairs == 4
    alone = replace(feedback.drift, adapted_rank=feedback.drift.base_rank)
    assert not alone.worse
    kiosk.gallery.people.forget("bob")
    with_nobody = Learner(kiosk, wild).show("ann", *pairs[4])
    assert (with_nobody.drift.anchors, with_nobody.adapter.rank > 0) == (0, True)


def test_a_photo_that_goes_takes_its_pairs_along(kiosk: Engine, pairs: Pairs) -> None:
    show(kiosk, pairs[:4])
    kiosk.gallery.remove([pairs[1][1]])
    left = [pair for pair in pairs[:4] if pair[1] != pairs[1][1]]
    assert kiosk.gallery.people.shown("ann").photos == tuple(photo for _, photo in left)
    expected = kiosk.adapt(left).adapter
    np.testing.assert_array_equal(kiosk.learner.adapter("ann").coefficients, expected.coefficients)
    assert kiosk.gallery.people.adapter("ann", kiosk.head) is not None, "learned again and kept"
    assert kiosk.learner.undo("ann").pairs in (2, 3)


def test_another_head_learns_again(kiosk: Engine, pairs: Pairs, bundle: Bundle, path: Path) -> None:
    show(kiosk, pairs[:4])
    kiosk.close()
    other = replace(bundle.head, weight=2.0 * bundle.head.weight)
    with Engine.open(bundle=replace(bundle, head=other), gallery=path, threads=1) as engine:
        assert engine.gallery.people.adapter("ann", other) is None
        assert engine.learner.adapter("ann").head_digest == other.digest


def test_forgotten_means_gone_from_the_file(kiosk: Engine, pairs: Pairs, path: Path) -> None:
    show(kiosk, pairs[:3], person="Ann-Kathrin")
    show(kiosk, pairs[3:6], person="bob")
    traces = [b"Ann-Kathrin", *(row.tobytes() for row in kiosk.gallery.people.shown("Ann-Kathrin").sketches)]
    kiosk.gallery.people.forget("Ann-Kathrin")
    assert kiosk.gallery.people.names() == ["bob"]
    kiosk.close()
    content = path.read_bytes()
    assert [trace in content for trace in traces] == [False] * 4
    assert b"bob" in content
    assert not path.with_name(path.name + "-wal").exists()


def test_traces_can_be_seen_at_all(kiosk: Engine, pairs: Pairs, path: Path) -> None:
    """The test above looks where traces would lie."""
    show(kiosk, pairs[:3], person="Ann-Kathrin")
    traces = [b"Ann-Kathrin", *(row.tobytes() for row in kiosk.gallery.people.shown("Ann-Kathrin").sketches)]
    kiosk.close()
    assert [trace in path.read_bytes() for trace in traces] == [True] * 4


def test_writers_do_not_overwrite_each_other(kiosk: Engine, pairs: Pairs, bundle: Bundle, path: Path) -> None:
    show(kiosk, pairs[:2])
    before = kiosk.gallery.people.shown("ann")
    with Engine.open(bundle=bundle, gallery=path, threads=1) as other:
        assert other.feedback(*pairs[2], person="ann").version == 3
    after = before.with_pair(pairs[3][1], before.sketches[0], 20)
    with pytest.raises(OutdatedError):
        kiosk.gallery.people.replace(before, after, kiosk.learner.adapter("ann"))
    with pytest.raises(OutdatedError):
        kiosk.gallery.people.undo(before, kiosk.learner.adapter("ann"))
    assert kiosk.feedback(*pairs[3], person="ann").pairs == 4


@pytest.mark.parametrize("act", ["show", "undo", "look up", "load"])
def test_a_photo_that_changes_while_it_is_learned_is_learned_anew(
    kiosk: Engine, pairs: Pairs, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Another process puts a new file in the place of the first pair's photo, just when its features have been read."""
    show(kiosk, pairs[:4])
    if act == "look up":
        kiosk.gallery.remove([pairs[3][1]])  # an adapter is to be learned again
    if act == "load":
        kiosk.gallery.people.save("ann", tmp_path / "ann.person")
        kiosk.gallery.people.forget("ann")
    learn, changes = kiosk.adapt_features, []

    def changed_meanwhile(*arguments: Any, **options: Any) -> Any:
        result = learn(*arguments, **options)
        if not changes:
            changes.append(result)
            other, name = Store.open(str(path)), pairs[0][1]
            features = np.random.default_rng(0).standard_normal((1, other.features), np.float32)
            other.add([PhotoFile(name, None, f"/nowhere/{name}", 1, 1, "")], [b"x"], features)
            other.close()
        return result

    monkeypatch.setattr(kiosk, "adapt_features", changed_meanwhile)
    calls = {
        "show": lambda: kiosk.feedback(*pairs[4], person="ann"),
        "undo": lambda: kiosk.learner.undo("ann"),
        "look up": lambda: kiosk.learner.adapter("ann"),
        "load": lambda: kiosk.learner.load(tmp_path / "ann.person"),
    }
    calls[act]()
    shown = kiosk.gallery.people.shown("ann")
    expected = learn(shown.sketches, kiosk.gallery.features(shown.photos)).adapter
    assert changes
    assert kiosk.learner.adapter("ann").digest == expected.digest != changes[0].adapter.digest


def test_people_move_between_galleries(kiosk: Engine, pairs: Pairs, bundle: Bundle, data_path: Path, tmp_path: Path) -> None:
    show(kiosk, pairs[:4])
    kiosk.gallery.people.save("ann", tmp_path / "ann.person")
    with Engine.open(bundle=bundle, photos=data_path / "photos", threads=1) as other:
        taken = other.learner.load(tmp_path / "ann.person")
        assert (taken.pairs, taken.version) == (4, 1)
        assert taken.adapter.digest == kiosk.learner.adapter("ann").digest
        with pytest.raises(ValueError, match="known here already"):
            other.learner.load(tmp_path / "ann.person")
        other.gallery.people.forget("ann")
        other.gallery.remove([pairs[0][1]])
        with pytest.raises(UnknownPhotoError, match="1 photos are not here"):
            other.learner.load(tmp_path / "ann.person")
        assert other.learner.load(tmp_path / "ann.person", skip_missing=True).pairs == 3
        other.gallery.people.forget("ann")
        other.gallery.remove(list({photo for _, photo in pairs[1:4]}))
        with pytest.raises(NoPairsError, match="no pair"):
            other.learner.load(tmp_path / "ann.person", skip_missing=True)


def test_damaged_files_of_people_are_named(kiosk: Engine, pairs: Pairs, tmp_path: Path) -> None:
    show(kiosk, pairs[:2])
    file = tmp_path / "ann.person"
    kiosk.gallery.people.save("ann", file)
    whole = file.read_bytes()
    for damaged in (b"", whole[:50], whole[:-4], whole.replace(b"fgsbir-edge-person-1", b"fgsbir-edge-person-9")):
        file.write_bytes(damaged)
        with pytest.raises(PersonFormatError, match=r"ann\.person"):
            kiosk.learner.load(file)
    with pytest.raises(PersonFormatError, match="check the path"):
        kiosk.learner.load(tmp_path / "nobody.person")
    assert kiosk.gallery.people.names() == ["ann"]


def test_bad_input_changes_nothing(kiosk: Engine, pairs: Pairs) -> None:
    sketch, photo = pairs[0]
    with pytest.raises(UnknownPhotoError):
        kiosk.feedback(sketch, "nowhere.png", person="ann")
    with pytest.raises(EmptySketchError):
        kiosk.feedback(np.full((30, 30), 255, np.uint8), photo, person="ann")
    for name in ("", "  ", "a\nb", 201 * "a"):
        with pytest.raises(ValueError, match="no name for a person"):
            kiosk.feedback(sketch, photo, person=name)
    people, learner = kiosk.gallery.people, kiosk.learner
    calls = lambda: kiosk.search(sketch, person="ann"), lambda: learner.undo("ann"), lambda: people.forget("ann")
    for call in calls:
        with pytest.raises(UnknownPersonError, match="nobody yet"):
            call()
    assert kiosk.gallery.people.names() == []


def version_1(path: Path) -> None:
    """Make a gallery's file what it was before people."""
    connection = sqlite3.connect(path)
    connection.executescript(
        "DROP TABLE metadata; DROP TABLE adapters; DROP TABLE pairs; DROP TABLE people; PRAGMA user_version = 1;"
    )
    connection.close()


def test_galleries_without_people_are_brought_up_to_date(kiosk: Engine, pairs: Pairs, bundle: Bundle, path: Path) -> None:
    kiosk.close()
    version_1(path)
    with Gallery.open(path, bundle, readonly=True) as gallery:
        assert gallery.people.names() == []
        assert len(gallery) > 0
        with pytest.raises(UnknownPersonError):
            gallery.people.shown("ann")
    with Engine.open(bundle=bundle, gallery=path, threads=1) as engine:
        assert engine.feedback(*pairs[0], person="ann").pairs == 1
    store = Store.open(str(path))
    assert store.db.execute("PRAGMA user_version").fetchone() == (VERSION,)
    store.close()


def test_a_read_only_gallery_serves_people_and_takes_no_feedback(kiosk: Engine, pairs: Pairs, bundle: Bundle, path: Path) -> None:
    show(kiosk, pairs[:4])
    expected = kiosk.search(pairs[5][0], person="ann")
    kiosk.gallery._store.db.execute("DELETE FROM adapters")
    kiosk.close()
    gallery = Gallery.open(path, bundle, readonly=True)
    with Engine(bundle, kiosk._encoder, gallery) as engine:
        assert engine.search(pairs[5][0], person="ann") == expected
        with pytest.raises(OutputError, match="readonly"):
            engine.feedback(*pairs[4], person="ann")
        assert len(gallery.people.shown("ann")) == 4


def test_the_commands(
    kiosk: Engine, pairs: Pairs, bundle: Bundle, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kiosk.close()
    model = path.with_name("model")
    bundle.save(model)
    common = ["--gallery", str(path), "--bundle", str(model), "--json"]

    def run(*words: str, code: int = 0) -> dict[str, Any]:
        assert main([*words, *common]) == code
        out = capsys.readouterr().out
        return json.loads(out) if out else {}

    for number, (sketch, photo) in enumerate(pairs[:3], start=1):
        assert run("feedback", str(sketch), photo, "--person", "ann")["pairs"] == number
    assert run("people", "list") == {"people": {"ann": 3}}
    hits = run("query", str(pairs[4][0]), "--person", "ann")["hits"]
    with Engine.open(bundle=bundle, gallery=path, threads=1) as engine:
        assert [hit["name"] for hit in hits] == [hit.name for hit in engine.search(pairs[4][0], person="ann")]
    assert run("people", "undo", "ann")["pairs"] == 2
    file = str(path.with_name("ann.person"))
    assert run("people", "export", "ann", file)["pairs"] == 2
    assert run("people", "forget", "ann")["explanation"] == "forgotten"
    assert run("people", "import", file)["pairs"] == 2
    run("people", "forget", "bob", code=UnknownPersonError.exit_code)


def test_a_name_that_is_taken_while_an_import_learns(
    kiosk: Engine, pairs: Pairs, bundle: Bundle, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show(kiosk, pairs[:3])
    kiosk.gallery.people.save("ann", tmp_path / "ann.person")
    kiosk.gallery.people.forget("ann")
    learn = Learner._learn

    def slow(learner: Learner, shown: Any) -> Any:
        monkeypatch.setattr(Learner, "_learn", learn)
        with Engine.open(bundle=bundle, gallery=path, threads=1) as other:
            other.feedback(*pairs[5], person="ann")
        return learn(learner, shown)

    monkeypatch.setattr(Learner, "_learn", slow)
    with pytest.raises(ValueError, match="known here already"):
        kiosk.learner.load(tmp_path / "ann.person")
    assert kiosk.gallery.people.shown("ann").photos == (pairs[5][1],)
