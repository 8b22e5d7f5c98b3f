"""Filters: text and dicts mean what they say, masks are what a plain reading of each photo gives, and bad ones are refused."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.errors import EmptyGalleryError, FilterError, UnknownPhotoError
from fgsbir_edge.gallery import Gallery
from fgsbir_edge.gallery.columns import KEPT, Columns
from fgsbir_edge.gallery.filter_text import parse_filter
from fgsbir_edge.gallery.filters import All, Any, Compare, Filter, Has, Is, Not, OneOf, as_filter
from fgsbir_edge.gallery.flat import SearchOptions
from fgsbir_edge.head import Adapter, Head
from tests.described import BRANDS, FACTS, NAMES, PHOTOS, ROWS, described, holds
from tests.toy import EMBEDDING, FEATURES


@pytest.fixture(scope="module")
def columns() -> Columns:
    return Columns(NAMES, [(name, facts) for (name, _), facts in zip(NAMES, FACTS, strict=True) if facts])


@pytest.fixture
def gallery(bundle: Bundle) -> Iterator[Gallery]:
    with described(bundle) as opened:
        yield opened


SAME = [  # text, dict, filter
    ("price<50", {"price": {"<": 50}}, Compare("price", "<", 50)),
    (" price >= 2.5e1 ", {"price": {">=": 25.0}}, Compare("price", ">=", 25.0)),
    ("brand=oak", {"brand": "oak"}, Is("brand", "oak")),
    ('brand == "red oak"', {"brand": {"==": "red oak"}}, Is("brand", "red oak")),
    ("brand='50'", {"brand": "50"}, Is("brand", "50")),
    ("brand!=oak", {"brand": {"!=": "oak"}}, Not(Is("brand", "oak"))),
    ("sold=true", {"sold": True}, Is("sold", True)),
    ("mixed=1", {"mixed": 1}, Is("mixed", 1)),
    ("brand in (oak, 'red oak')", {"brand": ["oak", "red oak"]}, OneOf("brand", ("oak", "red oak"))),
    ("has sold", {"sold": {"has": True}}, Has("sold")),
    ("not has sold", {"sold": {"has": False}}, Not(Has("sold"))),
    ("category=chair", {"category": "chair"}, Is("category", "chair")),
    ('name in ("0001.jpg")', {"name": ["0001.jpg"]}, OneOf("name", ("0001.jpg",))),
    (
        "price>10 and price<=60 and not (brand=oak or sold=false)",
        {"price": {">": 10, "<=": 60}, "not": {"or": [{"brand": "oak"}, {"sold": False}]}},
        All((Compare("price", ">", 10), Compare("price", "<=", 60), Not(Any((Is("brand", "oak"), Is("sold", False)))))),
    ),
    (
        "brand=oak or brand=ash and has price",
        {"or": [{"brand": "oak"}, {"and": [{"brand": "ash"}, {"price": {"has": True}}]}]},
        Any((Is("brand", "oak"), All((Is("brand", "ash"), Has("price"))))),
    ),
]


@pytest.mark.parametrize(("text", "given_as", "wanted"), SAME, ids=[row[0] for row in SAME])
def test_text_dict_and_dataclass_say_the_same(columns: Columns, text: str, given_as: dict[str, object], wanted: Filter) -> None:
    assert str(as_filter(text)) == str(as_filter(given_as)) == str(as_filter(wanted)) == str(parse_filter(str(wanted)))
    assert parse_filter(text) == wanted
    expected = np.array([holds(wanted, place) for place in range(PHOTOS)])
    np.testing.assert_array_equal(columns.mask(wanted), expected)
    assert 0 < expected.sum() < PHOTOS


def test_true_and_1_are_told_apart_though_python_hashes_them_alike(columns: Columns) -> None:
    counts = [int(columns.mask(Is("mixed", value)).sum()) for value in (True, 1, "true", 1.0)]
    assert counts == [sum(holds(Is("mixed", value), i) for i in range(PHOTOS)) for value in (True, 1, "true", 1.0)]
    assert counts[0] != counts[1] or not np.array_equal(columns.mask(Is("mixed", True)), columns.mask(Is("mixed", 1)))


SCALARS = st.one_of(st.sampled_from([*BRANDS, "true", 'a"b\\c', "ä ö"]), st.booleans(), st.integers(-5, 100), st.floats(0, 100))
CONDITIONS = st.one_of(
    st.builds(Is, st.just("mixed"), SCALARS),
    st.builds(OneOf, st.just("mixed"), st.lists(SCALARS, min_size=1, max_size=4).map(tuple)),
    st.builds(Is, st.sampled_from(["brand", "category"]), st.sampled_from([*BRANDS, "chair", "shoe"])),
    st.builds(Compare, st.sampled_from(["price", "mixed"]), st.sampled_from(["<", "<=", ">", ">="]), st.floats(0, 100)),
    st.builds(Has, st.sampled_from(["price", "brand", "sold", "nowhere", "category"])),
)
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(All, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Any, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(FILTERS)
def test_masks_are_a_plain_reading_and_text_reads_back(columns: Columns, where: Filter) -> None:
    np.testing.assert_array_equal(columns.mask(where), [holds(where, place) for place in range(PHOTOS)])
    assert parse_filter(str(where)) == where
    assert as_filter(str(where)) == where


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from(list("ab1. <>=!()\"'\\,-andorti\u00e9\n")), max_size=40))
def test_any_text_is_a_filter_or_an_error(text: str) -> None:
    try:
        found = parse_filter(text)
    except FilterError:
        return
    assert parse_filter(str(found)) == found


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("", "after '' comes its end, expected a key"),
        ("price", "expected an operator: = !="),
        ("price ~ 5", "'~ 5' cannot be read"),
        ("price<", "expected a number, true, false, a word"),
        ("price<cheap", "only numbers can be compared so"),
        ("sold>true", "only numbers can be compared so"),
        ("size=50kg", "'50kg' cannot be read; put text that is not one word in quotes"),
        ("brand=red oak", "after 'brand=red' comes 'oak', expected 'and' or 'or'"),
        ('brand="red', "cannot be read"),
        ("brand in oak", r"expected '\('"),
        ("(price<5", r"expected '\)'"),
        ("and=5", "'and' is a word that filters use"),
        ("a.b=5", "is no key"),
        ("price<1e999", "finite"),
        ("price<99999999999999999", "2.53"),
        ("not " * 60 + "has price", "nested more than 50 deep"),
        (" or ".join(["price=1"] * 1001), "1001 conditions"),
        ({"price": {"~": 5}}, "operator '~' is unknown"),
        ({"price": float("nan")}, "finite"),
        ({"price": {"<": float("inf")}}, "finite"),
        ({"price": {"<": "5"}}, "only numbers"),
        ({"price": None}, "NoneType"),
        ({"price": [[1]]}, "list"),
        ({"price": []}, "in no values"),
        ({"price": {"has": 1}}, "operator 'has' is unknown"),
        ({}, "dict is empty"),
        ({"or": []}, "takes a list of dicts"),
        ({"not": "price<5"}, "take dicts"),
        ({"or": ["price<5"]}, "take dicts"),
        ({5: 5}, "is no key"),
        (5, "cannot be a int"),
    ],
)
def test_bad_filters_are_refused(where: object, message: str) -> None:
    with pytest.raises(FilterError, match=message) as caught:
        as_filter(where)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_deep_dicts_are_refused() -> None:
    deep: dict[str, object] = {"price": 5}
    for _ in range(5000):
        deep = {"not": deep}
    with pytest.raises(FilterError, match="nested more than 50 deep"):
        as_filter(deep)
    flat: Filter = Has("price")
    for _ in range(60):
        flat = Not(flat)
    with pytest.raises(FilterError, match="nested 50 deep"):
        as_filter(flat)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("price=cheap", "'price' holds numbers here"),
        ('price="50"', "text is quoted where it looks like a number"),
        ("brand=50", "'brand' holds text here"),
        ("sold=1", "'sold' holds true or false here"),
        ("has price and brand<5", "'brand' holds text here"),
        ("category=5", "'category' holds text here"),
    ],
)
def test_kinds_that_no_photo_has_are_an_error(columns: Columns, where: str, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        columns.mask(parse_filter(where))


def test_unknown_keys_match_nothing_and_are_named_once(columns: Columns, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fgsbir_edge"):
        assert not columns.mask(parse_filter("prize<50")).any()
        assert columns.mask(parse_filter("not prize<50 and not qqqq=1")).all()
        columns.mask(parse_filter("prize<50"))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert "no photo has the key 'prize'" in said[0]
    assert "did you mean price?" in said[0]
    assert "there are: brand, category, mixed, name, price, sold" in said[2]


def test_masks_are_kept_for_some_filters(columns: Columns) -> None:
    first = columns.mask(parse_filter("price<50"))
    assert columns.mask(as_filter({"price": {"<": 50}})) is first  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="read-only"):
        first[0] = True
    for number in range(KEPT):
        columns.mask(Compare("price", ">", number))
    assert columns.mask(parse_filter("price<50")) is not first


@pytest.mark.parametrize("backend", ["numpy", "faiss"])
@pytest.mark.parametrize("side", [None, "sketch", "both"])
@pytest.mark.parametrize(
    ("category", "where"), [(None, "price<30"), ("chair", "not brand=oak"), (("chair", "shoe"), "has price")]
)
def test_filtered_search_is_exact(
    gallery: Gallery, head: Head, backend: str, side: str | None, category: str | tuple[str, ...] | None, where: str
) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss")
    gallery.search_options = SearchOptions(backend=backend)  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    adapter = None
    if side is not None:
        adapter = Adapter(head.digest, 0.1 * rng.normal(size=(EMBEDDING, 4)), rng.normal(size=(4, FEATURES)), side)  # type: ignore[arg-type]
    sketches = rng.normal(size=(2, FEATURES)).astype(np.float32)
    all_hits = gallery.search(sketches, PHOTOS, head=head, adapter=adapter)
    categories = {category} if isinstance(category, str) else category
    for k in (1, 7, PHOTOS):
        answers = gallery.search(sketches, k, head=head, adapter=adapter, category=category, where=where)
        for hits, ordered in zip(answers, all_hits, strict=True):
            wanted = [
                hit.name
                for hit in ordered
                if holds(parse_filter(where), int(hit.name[:4])) and (categories is None or hit.category in categories)
            ][:k]
            assert [hit.name for hit in hits] == wanted
            assert [hit.rank for hit in hits] == list(range(1, len(wanted) + 1))
    own = wanted[3]
    ranks = gallery.ranks(sketches[1:], [own], head=head, adapter=adapter, category=category, where=where)
    assert ranks[0] in (4, 5)  # ties count against


def test_filters_that_leave_nothing_or_the_true_photo_out(gallery: Gallery, head: Head) -> None:
    with pytest.raises(EmptyGalleryError, match="no photo matches price>1000; widen it"):
        gallery.search(ROWS[:1], head=head, where="price>1000")
    with pytest.raises(EmptyGalleryError, match="'sofa' and 'bed' has no photos; there are: chair, shoe"):
        gallery.search(ROWS[:1], head=head, category=("sofa", "bed"))
    with pytest.raises(UnknownPhotoError, match="not in what has price lets through"):
        gallery.ranks(ROWS[:1], ["0000.jpg"], head=head, where="has price")
    both = gallery.search(ROWS[:1], PHOTOS, head=head, where=["price<50", {"brand": "oak"}])[0]
    assert {hit.name for hit in both} == {item.name for item in gallery.items(where="price<50 and brand=oak")}
    assert [item.category for item in gallery.items(category=["chair"], where="has price")].count("chair") == len(
        gallery.select("chair", "has price").as_places()
    )
