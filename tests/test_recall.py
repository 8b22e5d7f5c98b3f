"""Recall of shortlists: against counting by hand, chosen and kept, on the command line, with too few sketches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fgsbir_edge.bundle import Bundle, write_bundle
from fgsbir_edge.cli import main
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import NoPairsError
from fgsbir_edge.gallery.flat import SearchOptions
from fgsbir_edge.gallery.search import PhotoIndex
from fgsbir_edge.gallery.shortlist import Shortlist
from fgsbir_edge.head import Adapter
from fgsbir_edge.pairs import DataFolder
from fgsbir_edge.recall import Query, RecallOptions, measure, stored_queries
from tests.toy import EMBEDDING, FEATURES, toy_encoder, toy_head

PHOTOS = 400


@pytest.fixture
def index() -> PhotoIndex:
    features = np.random.default_rng(0).normal(size=(PHOTOS, FEATURES)).astype(np.float16)
    items = [SimpleNamespace(name=f"{i}", id=i, category=None) for i in range(PHOTOS)]
    return PhotoIndex(items, features, SearchOptions(shortlist=1))  # type: ignore[arg-type]


@pytest.fixture
def queries() -> list[Query]:
    rng, head = np.random.default_rng(1), toy_head()
    adapters = [
        Adapter(head.digest, 0.05 * rng.normal(size=(EMBEDDING, 3)), rng.normal(size=(3, FEATURES)), "both") for _ in range(2)
    ]
    return [Query(rng.normal(size=FEATURES).astype(np.float32), adapters[i % 2], "ann") for i in range(30)]


def shares(index: PhotoIndex, queries: list[Query], length: int, k: int) -> list[float]:
    """What searches with such a shortlist find of what they find without, query by query."""
    head, found = toy_head(), []
    for query in queries:
        answers = []
        for chosen in (None, length):
            other = PhotoIndex(index.entries, index._features, SearchOptions(shortlist=chosen))
            hits = other.search(query.sketch[None], k, head=head, adapter=query.adapter)[0]
            answers.append({hit.id for hit in hits})
        found.append(len(answers[0] & answers[1]) / k)
    return found


def test_recall_is_what_searches_find(index: PhotoIndex, queries: list[Query]) -> None:
    head = toy_head()
    report = measure(index, head, queries, RecallOptions(k=5, wanted=0.9), lengths=(5, 20, 80, PHOTOS))
    assert [point.shortlist for point in report.points] == [5, 20, 80, PHOTOS]
    for point in report.points[:3]:
        assert point.recall == pytest.approx(np.mean(shares(index, queries, point.shortlist, 5)))
        assert point.low < point.recall < point.high
    assert report.points[-1].recall == 1.0
    assert report.points[-1].low < 1.0, "thirty searches do not prove that nothing is ever missed"
    assert (report.queries, report.adapters, report.photos) == (30, 2, PHOTOS)
    assert report.chosen.recall >= 0.9
    before = measure(index, head, queries, RecallOptions(k=5), lengths=(report.chosen.shortlist - 1,)).points[0]
    assert before.recall < 0.9
    assert report.points[0].recall < 0.9, "else nothing was chosen"


def test_intervals_count_sketches_not_their_copies(index: PhotoIndex, queries: list[Query]) -> None:
    head = toy_head()
    plain = measure(index, head, queries, RecallOptions(k=5), lengths=(40,))
    copied = measure(index, head, queries, RecallOptions(k=5, copies=4), lengths=(40,))
    assert copied.queries == plain.queries
    widths = [report.points[0].high - report.points[0].low for report in (plain, copied)]
    assert widths[1] == pytest.approx(widths[0], rel=0.2)
    assert plain.points[0].recall != copied.points[0].recall
    again = measure(index, head, queries, RecallOptions(k=5, copies=4), lengths=(40,))
    assert again == copied
    fewer = measure(index, head, queries[:8], RecallOptions(k=5), lengths=(40,)).points[0]
    assert fewer.high - fewer.low > 1.3 * widths[0]


def test_what_cannot_be_measured_is_said(index: PhotoIndex, queries: list[Query]) -> None:
    head = toy_head()
    with pytest.raises(NoPairsError, match="side 'both'"):
        measure(index, head, [], RecallOptions())
    report = measure(index, head, queries[:19], RecallOptions())
    with pytest.raises(NoPairsError, match="19 searches are too few"):
        report.shortlist(head)
    for wrong in ({"k": 0}, {"wanted": 0.0}, {"wanted": 1.1}, {"copies": -1}, {"limit": 0}):
        with pytest.raises(ValueError, match="expected at least"):
            RecallOptions(**wrong)


def test_a_kept_length_serves_its_head_and_grows_with_the_gallery() -> None:
    head, other = toy_head(), toy_head(3)
    kept = Shortlist(head.digest, 30, 400, 0.99, 10)
    assert kept.length(head, 400) == kept.length(head, 200) == 30
    assert kept.length(head, 1001) == 76
    assert kept.length(other, 400) is None


@pytest.fixture
def both(tmp_path: Path) -> Bundle:
    """The toy model, whose adapters move photos too."""
    spec = replace(Bundle.default().input, size=32)
    head = toy_head(side="both", step_sizes=[0.5] * 20)
    write_bundle(tmp_path / "both", name="both", encoder=toy_encoder(), head=head, input=spec, provenance={"data": "made up"})
    return Bundle.load(tmp_path / "both")


@pytest.fixture
def kiosk(both: Bundle, data_path: Path, tmp_path: Path) -> Iterator[Engine]:
    """A gallery to which two people have shown all their sketches."""
    with Engine.open(bundle=both, gallery=tmp_path / "photos.gallery", photos=data_path / "photos", threads=1) as engine:
        data = DataFolder.open(data_path)
        for person in ("ann", "bob"):
            for pair in data.select(person):
                engine.feedback(data_path / "sketches" / pair.sketch, pair.photo, person=person)
        yield engine


def test_stored_sketches_are_left_out_of_what_they_are_asked_with(kiosk: Engine) -> None:
    queries = stored_queries(kiosk)
    assert len(queries) == 24
    shown = kiosk.gallery.people.shown("ann")
    for query, sketch in zip(queries, shown.sketches, strict=False):
        np.testing.assert_array_equal(query.sketch, sketch)
        assert not (np.abs(query.adapter.support - sketch).max(axis=1) < 1e-6).any()
    assert len(stored_queries(kiosk, ["bob"])) == 12
    assert [query.whose for query in stored_queries(kiosk, limit=5)] == ["ann"] * 3 + ["bob"] * 2


def test_the_command_measures_keeps_and_searches_follow(
    kiosk: Engine, both: Bundle, tmp_path: Path, data_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = str(tmp_path / "photos.gallery")
    command = ["gallery", "recall", gallery, "--bundle", str(tmp_path / "both"), "--top", "3"]
    kiosk.gallery.search_options = SearchOptions(shortlist="auto")
    assert kiosk.gallery.index.shortlist(both.head) is None
    assert main([*command, "--recall", "0.9", "--keep", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["queries"], told["k"], told["kept"], told["enough"]) == (24, 3, True, True)
    assert told["chosen"]["recall"] >= 0.9
    assert kiosk.gallery.index.shortlist(both.head) == told["chosen"]["shortlist"]
    assert kiosk.gallery.index.shortlist(toy_head(9)) is None
    assert main(["gallery", "check", gallery]) == 0
    capsys.readouterr()

    assert main([*command, "--shortlist", "4", "--perturb", "1"]) == 0
    text = capsys.readouterr()
    assert text.out.splitlines()[1].startswith("4\t")
    assert "24 searches, 1 noisy copies of each sketch" in text.err
    adapter = tmp_path / "ann.safetensors"
    kiosk.learner.adapter("ann").save(adapter)
    sketch = str(data_path / "sketches" / "bob" / "1.png")
    assert main([*command, "--adapter", str(adapter), "--person", "bob", "--sketch", sketch, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["queries"] == 13
    assert main([*command, "--person", "ann", "--keep"]) == NoPairsError.exit_code
    assert "12 searches are too few" in capsys.readouterr().err
    assert main([*command, "--recall", "2"]) == 2
    assert main([*command, "--person", "eve"]) == 36


def test_adapters_that_move_sketches_alone_need_no_shortlist(
    engine: Engine, bundle_path: Path, data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = str(tmp_path / "photos.gallery")
    assert main(["index", str(data_path / "photos"), "--gallery", gallery, "--bundle", str(bundle_path)]) == 0
    assert main(["gallery", "recall", gallery, "--bundle", str(bundle_path)]) == NoPairsError.exit_code
    assert "where adapters move sketches alone" in capsys.readouterr().err


def test_a_damaged_note_is_no_shortlist(kiosk: Engine) -> None:
    store = kiosk.gallery._store
    for value in ("{", "3", '{"photos": 3}', json.dumps({"head": "x", "photos": 0, "total": 1, "recall": 0.9, "k": 1})):
        with store.writing():
            store.db.execute("INSERT OR REPLACE INTO meta VALUES ('shortlist', ?)", (value,))
        assert Shortlist.kept(store) is None
