"""A fleet's collection answers as the gallery that was published does: filters, adapters, ties; and its troubles are named."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.cli import main
from fgsbir_edge.errors import EmptyGalleryError, FilterError, FleetMismatchError, FleetUnavailableError, QdrantMissingError
from fgsbir_edge.gallery import Gallery, Hit
from fgsbir_edge.gallery.filter_text import parse_filter
from fgsbir_edge.gallery.store import PhotoFile
from fgsbir_edge.head import Adapter, Head
from fgsbir_edge.remote import Fleet, FleetOptions
from tests.described import NAMES, PHOTOS, ROWS, described, holds
from tests.fake_qdrant import FakeServer
from tests.toy import EMBEDDING, FEATURES, toy_encoder

pytest.importorskip("qdrant_client", reason="needs qdrant-client: pip install 'fgsbir-edge[qdrant]'")

WHERE = [
    None,
    "price<30",
    "price=7 or price>=90.5",
    "brand!=oak",
    'brand in ("red oak", ash) and not (sold=true or mixed=1)',
    "mixed=true",
    "mixed in (true, 1, 2.5, 'true')",
    "has sold",
    "category=chair and not has brand",
    'name="0007.jpg" or mixed<=2',
]
RNG = np.random.default_rng(1)
SKETCHES = RNG.normal(size=(2, FEATURES)).astype(np.float32)
COEFFICIENTS, SUPPORT = 0.1 * RNG.normal(size=(EMBEDDING, 4)), RNG.normal(size=(4, FEATURES))


@pytest.fixture
def gallery(bundle: Bundle) -> Iterator[Gallery]:
    with described(bundle) as opened:
        yield opened


@pytest.fixture
def fleet(bundle: Bundle, gallery: Gallery) -> Iterator[Fleet]:
    with Fleet(":memory:", bundle, options=FleetOptions(batch=50)) as opened:
        report = opened.publish(gallery)
        assert (report.added, report.updated, report.unchanged, report.removed) == (PHOTOS, 0, 0, 0)
        yield opened


def adapter_of(head: Head, side: str | None) -> Adapter | None:
    return None if side is None else Adapter(head.digest, COEFFICIENTS, SUPPORT, side)  # type: ignore[arg-type]


def names(answers: list[list[Hit]]) -> list[list[str]]:
    return [[hit.name for hit in hits] for hits in answers]


@pytest.fixture(scope="module")
def both(bundle: Bundle) -> Iterator[tuple[Fleet, Gallery]]:
    """For tests that only ask."""
    with described(bundle) as gallery, Fleet(":memory:", bundle) as fleet:
        fleet.publish(gallery)
        yield fleet, gallery


def same(fleet: Fleet, gallery: Gallery, head: Head, adapter: Adapter | None, where: str | None) -> None:
    """The fleet answers as the gallery does: photos, order, ranks; distances to float32's rounding."""
    for k, category in ((1, None), (5, "chair"), (PHOTOS, ("shoe", "chair")), (PHOTOS, None)):
        here = gallery.search(SKETCHES, k, head=head, adapter=adapter, category=category, where=where)
        there = fleet.search(SKETCHES, k, adapter=adapter, category=category, where=where)
        assert names(there) == names(here)
        for one, other in zip(here, there, strict=True):
            assert [(hit.id, hit.rank, hit.category) for hit in one] == [(hit.id, hit.rank, hit.category) for hit in other]
            np.testing.assert_allclose([hit.distance for hit in one], [hit.distance for hit in other], atol=2e-4)


@pytest.mark.parametrize("side", [None, "sketch", "both"])
@pytest.mark.parametrize("where", WHERE)
def test_answers_are_the_gallerys(both: tuple[Fleet, Gallery], head: Head, side: str | None, where: str | None) -> None:
    same(*both, head, adapter_of(head, side), where)


@pytest.mark.parametrize("where", WHERE[1:])
def test_filters_let_the_same_photos_through(both: tuple[Fleet, Gallery], where: str) -> None:
    found = {hit.name for hit in both[0].search(SKETCHES[:1], PHOTOS, where=where)[0]}
    assert found == {NAMES[i][0] for i in range(PHOTOS) if holds(parse_filter(where), i)}


def test_ties_at_the_end_are_asked_for(bundle: Bundle, head: Head) -> None:
    """Of 150 photos that look the same the first ones in the gallery answer, however the server orders them."""
    with Gallery.create(":memory:", bundle) as gallery, Fleet(":memory:", bundle) as fleet:
        rows = np.repeat(ROWS[:2], [150, 1], axis=0)[::-1]
        order = np.random.default_rng(0).permutation(151)
        files = [PhotoFile(f"{i}.jpg", None, "/nowhere", 1, 1, "") for i in order]
        gallery._store.add(files, [b""] * 151, rows)
        fleet.publish(gallery)
        for k in (1, 3, 140, 151):
            assert names(fleet.search(ROWS[:1], k)) == names(gallery.search(ROWS[:1], k, head=head))


def test_an_adapter_re_ranks_a_shortlist(bundle: Bundle, gallery: Gallery, head: Head) -> None:
    adapter = adapter_of(head, "both")
    with Fleet(":memory:", bundle, options=FleetOptions(shortlist=20)) as fleet:
        fleet.publish(gallery)
        found = fleet.search(SKETCHES, 5, adapter=adapter)
    for sketch, hits in zip(SKETCHES, found, strict=True):
        offered = {hit.name for hit in gallery.search(sketch[None], 20, head=head)[0]}
        ordered = gallery.search(sketch[None], PHOTOS, head=head, adapter=adapter)[0]
        assert [hit.name for hit in hits] == [hit.name for hit in ordered if hit.name in offered][:5]


def test_features_come_from_this_device_where_it_has_the_photo(
    bundle: Bundle, gallery: Gallery, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = adapter_of(head, "both")
    with Gallery.create(":memory:", bundle) as mine, Fleet(":memory:", bundle, gallery=mine) as fleet:
        mine._store.add(
            [PhotoFile("0000.jpg", None, "/", 1, 1, "0000.jpg"), PhotoFile("0001.jpg", None, "/", 1, 1, "another file")],
            [b""] * 2,
            ROWS[:2] + np.float32(0.5),
        )
        fleet.publish(gallery)
        fetched: list[str] = []
        retrieve = fleet._finder._fetched
        monkeypatch.setattr(fleet._finder, "_fetched", lambda ids: (fetched.extend(ids), retrieve(ids))[1])
        hits = fleet.search(SKETCHES[:1], PHOTOS, adapter=adapter)[0]
        assert len(set(fetched)) == PHOTOS - 1
        here = gallery.search(SKETCHES[:1], PHOTOS, head=head, adapter=adapter)[0]
        differ = {hit.name for hit in hits if abs(hit.distance - next(h.distance for h in here if h.name == hit.name)) > 1e-3}
        assert differ == {"0000.jpg"}  # its features here, on purpose, are others


def test_publishing_again_sends_what_changed(bundle: Bundle, gallery: Gallery, fleet: Fleet, head: Head) -> None:
    gallery.set_metadata({"0002.jpg": {"price": 12345}})
    gallery.remove(["0003.jpg", "0004.jpg"])
    gallery._store.add(
        [PhotoFile("0005.jpg", "new", "/", 1, 1, "x"), PhotoFile("new.jpg", None, "/", 1, 1, "y")], [b""] * 2, ROWS[:2]
    )
    gallery._index = None
    report = fleet.publish(gallery)
    assert (report.added, report.updated, report.unchanged, report.removed) == (1, 2, PHOTOS - 4, 0)
    assert len(fleet) == PHOTOS + 1
    assert fleet.publish(gallery, prune=True).removed == 2
    assert len(fleet) == PHOTOS - 1
    assert [hit.name for hit in fleet.search(SKETCHES[:1], where="price=12345")[0]] == ["0002.jpg"]
    assert names(fleet.search(SKETCHES, PHOTOS)) == names(gallery.search(SKETCHES, PHOTOS, head=head))
    fleet.remove(["0002.jpg", "not there"])
    assert len(fleet) == PHOTOS - 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the refused client leaves its lock's file open
def test_another_device_goes_on_where_one_was_interrupted(
    bundle: Bundle, gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "qdrant")
    with Fleet(place, bundle, options=FleetOptions(batch=50)) as fleet:
        upsert, sent = fleet._server.client.upsert, []

        def failing(*arguments: object, **options: object) -> object:
            sent.append(1)
            if len(sent) == 3:
                raise KeyboardInterrupt
            return upsert(*arguments, **options)

        monkeypatch.setattr(fleet._server.client, "upsert", failing)
        with pytest.raises(KeyboardInterrupt):
            fleet.publish(gallery)
    with Fleet(place, bundle) as fleet:
        report = fleet.publish(gallery)
        assert (report.added, report.unchanged) == (PHOTOS - 100, 100)
        with pytest.raises(FleetUnavailableError, match="already accessed"):
            Fleet(place, bundle)


def test_filters_are_checked_against_the_collection(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    assert len(fleet.search(SKETCHES[:1], PHOTOS, where="not prize<5")[0]) == PHOTOS
    assert "no photo of the fleet has the key 'prize'" in caplog.text
    for where, message in (("price=cheap", "holds numbers here"), ("brand=50", "holds text"), ("sold=1", "holds true or false")):
        with pytest.raises(FilterError, match=message):
            fleet.search(SKETCHES[:1], where=where)
    with pytest.raises(EmptyGalleryError, match="no photo matches price>1000; widen it"):
        fleet.search(SKETCHES[:1], where="price>1000")
    with pytest.raises(EmptyGalleryError, match="no photo matches category in"):
        fleet.search(SKETCHES[:1], category="sofa")
    with pytest.raises(ValueError, match="k is 0"):
        fleet.search(SKETCHES[:1], 0)


def test_other_models_are_refused(bundle: Bundle, gallery: Gallery, tmp_path: Path) -> None:
    place = str(tmp_path / "qdrant")
    with Fleet(place, bundle) as fleet:
        with pytest.raises(FleetMismatchError, match=r"does not exist; make it with 'fgsbir-edge fleet publish'.*own gallery"):
            fleet.search(SKETCHES)
        fleet.publish(gallery)
    other_head = replace(bundle, head=replace(bundle.head, bias=bundle.head.bias + 1))
    for other, what in ((replace(bundle, encoder=toy_encoder(seed=1)), "encoder"), (other_head, "head")):
        with Fleet(place, other) as fleet:
            for use in (lambda: fleet.search(SKETCHES), lambda: fleet.publish(gallery), lambda: fleet.remove(["0000.jpg"])):
                with pytest.raises(FleetMismatchError, match=f"published with another {what}"):
                    use()
    with Fleet(place, bundle, options=FleetOptions(collection="foreign")) as fleet:
        from qdrant_client import models

        fleet._server.client.create_collection("foreign", models.VectorParams(size=4, distance=models.Distance.DOT))
        with pytest.raises(FleetMismatchError, match="was not made by 'fgsbir-edge fleet publish'"):
            fleet.publish(gallery)


def test_points_of_others_and_damaged_ones_are_named(fleet: Fleet, gallery: Gallery, head: Head) -> None:
    client = fleet._server.client
    from fgsbir_edge.remote.points import point_id

    for damage, message in (
        ({"features": "AAA="}, r"got 1 numbers.*fleet remove 0009\.jpg"),
        ({"features": 5}, "are damaged"),
        ({"order": None}, "published by"),
    ):
        client.set_payload("photos", damage, points=[point_id("0009.jpg")])
        with pytest.raises(FleetMismatchError, match=message):
            fleet.search(SKETCHES, PHOTOS, adapter=adapter_of(head, "both"))
    assert fleet.publish(gallery).updated == 0  # its state says that it is whole
    fleet.remove(["0009.jpg"])
    assert fleet.publish(gallery).added == 1
    assert len(fleet.search(SKETCHES[:1], PHOTOS, adapter=adapter_of(head, "both"))[0]) == PHOTOS


def test_a_server_that_is_away(bundle: Bundle, gallery: Gallery) -> None:
    with Fleet("http://127.0.0.1:9", bundle, options=FleetOptions(timeout=2)) as fleet:
        for use in (lambda: fleet.search(SKETCHES), lambda: fleet.publish(gallery), lambda: len(fleet)):
            with pytest.raises(
                FleetUnavailableError, match=r"does not answer within 2 s .*refused.*fgsbir-edge query SKETCH --gallery"
            ):
                use()
    with pytest.raises(FleetUnavailableError, match="Unknown scheme"):
        Fleet("nonsense://x", bundle)
    with pytest.raises(FleetUnavailableError, match="write http://localhost:6333 or"):
        Fleet("localhost:6333", bundle)


def test_a_server_over_http_answers_alike(bundle: Bundle, gallery: Gallery, head: Head) -> None:
    with FakeServer() as server, Fleet(server.url, bundle, options=FleetOptions(batch=50, timeout=60)) as fleet:
        assert fleet.publish(gallery).added == PHOTOS
        assert fleet.publish(gallery).unchanged == PHOTOS
        indexed = {body["field_name"]: body["field_schema"] for path, body in server.requests if path.endswith("/index")}
        fields = {"category": "keyword", "name": "keyword", "meta.brand": "keyword", "meta.price": "float", "meta.sold": "bool"}
        assert indexed == fields
        for side in (None, "both"):
            for where in WHERE[3:5]:
                same(fleet, gallery, head, adapter_of(head, side), where)
        queries = [body for path, body in server.requests if path.endswith("/query")]
        assert all(body["params"]["exact"] is True for body in queries)
        fleet.remove(["0000.jpg"])
        assert len(fleet) == PHOTOS - 1
        with Fleet(server.url, bundle, options=FleetOptions(exact=False)) as second:
            second.search(SKETCHES)
        assert server.requests[-1][1]["params"]["exact"] is False
        missing = Fleet(server.url, bundle, options=FleetOptions(collection="other"))
        with missing, pytest.raises(FleetMismatchError, match="does not exist"):
            missing.search(SKETCHES)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (401, "refuses .HTTP 401.; set the environment variable QDRANT_API_KEY"),
        (404, "is not there"),
        (429, "answers HTTP 429"),
        (500, "answers HTTP 500"),
        ("hang", "does not answer within 1 s"),
        ("close", "does not answer"),
        ("junk", "is it a Qdrant server"),
    ],
)
def test_a_server_in_trouble(bundle: Bundle, gallery: Gallery, trouble: int | str, message: str) -> None:
    options = FleetOptions(timeout=1 if trouble == "hang" else 60)
    with FakeServer() as server, Fleet(server.url, bundle, options=FleetOptions(timeout=60)) as patient:
        patient.publish(gallery)
        server.trouble = trouble
        with Fleet(server.url, bundle, options=options) as fleet:
            for use in (lambda: fleet.search(SKETCHES), lambda: fleet.publish(gallery)):
                with pytest.raises(FleetUnavailableError, match=message) as caught:
                    use()
                assert "\n" not in str(caught.value)
        with pytest.raises(FleetUnavailableError, match="own gallery go on"):
            Fleet(server.url, bundle, options=options).remove(["0000.jpg"])
        server.trouble = None
        assert len(patient) == PHOTOS


def test_without_qdrant_client(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "qdrant_client", None)
    with pytest.raises(QdrantMissingError, match=r"pip install 'fgsbir-edge\[qdrant\]'"):
        Fleet(":memory:", bundle)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        FleetOptions(shortlist=0)


def test_the_commands(
    bundle_path: Path, data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = ["--bundle", str(bundle_path)]
    (tmp_path / "t.csv").write_text("name,price\neven/star00.png,10\nodd/star01.png,60\n")
    assert main(["index", str(data_path / "photos"), "--gallery", "g", "--metadata", "t.csv", *model]) == 0
    place = ["--server", "shared", "--collection", "stars", *model]
    sketch = str(data_path / "sketches" / "ann" / "0.png")
    capsys.readouterr()
    assert main(["fleet", "info", *place]) == 54
    assert "fleet publish" in capsys.readouterr().err
    assert main(["fleet", "publish", "--gallery", "g", *place]) == 0
    assert capsys.readouterr().out == "stars: 12 added, 0 updated, 0 unchanged, 0 removed; 12 photos\n"
    assert main(["query", sketch, "--gallery", "g", *model, "--json"]) == 0
    here = json.loads(capsys.readouterr().out)["hits"]
    assert main(["fleet", "search", sketch, *place, "--json"]) == 0
    there = json.loads(capsys.readouterr().out)
    assert there["answered_by"] == "fleet"
    assert [hit["name"] for hit in there["hits"]] == [hit["name"] for hit in here]
    assert main(["fleet", "search", sketch, *place, "--where", "price<50", "--category", "even"]) == 0
    assert [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()] == ["even/star00.png"]
    assert main(["fleet", "remove", "odd/star01.png", *place]) == 0
    assert main(["fleet", "publish", "--gallery", "g", "--prune", "--json", *place]) == 0
    assert main(["fleet", "info", "--json", *place]) == 0
    capsys.readouterr()
    away = ["--server", "http://127.0.0.1:9", "--timeout", "1", *model]
    assert main(["fleet", "search", sketch, *away]) == 53
    capsys.readouterr()
    assert main(["fleet", "search", sketch, *away, "--gallery", "g", "--json", "--where", "price<50"]) == 0
    out, err = capsys.readouterr()
    assert "this device's gallery does" in err
    assert json.loads(out)["answered_by"] == "gallery"
    assert [hit["name"] for hit in json.loads(out)["hits"]] == ["even/star00.png"]


@pytest.mark.slow
def test_the_example(tmp_path: Path) -> None:
    said: list[str] = []
    share = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "qdrant" / "share.py"))["share"]
    before, after = share(str(tmp_path / "shared"), said.append)
    assert said[0] == "first device: 32 photos published, 0 were there"
    assert 1 <= before < 8
    assert 1 <= after < 8
