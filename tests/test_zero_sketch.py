"""The zero-sketch start: its constants in a bundle, the adapter it gives, how pairs take over, and the commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fgsbir_edge import cli
from fgsbir_edge.adapt import AdaptOptions, AdaptResult, adapt
from fgsbir_edge.arrays import normalised
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import (
    AdapterFormatError,
    AdapterMismatchError,
    BundleFormatError,
    EmptyGalleryError,
    NoStartError,
    ShapeError,
)
from fgsbir_edge.files import pack_tensors, unpack_tensors
from fgsbir_edge.head import Adapter, Head
from fgsbir_edge.start import REFERENCE, Start
from fgsbir_edge.zero_sketch import handed_over, shifted_start, start_adapter
from tests.toy import EMBEDDING, FEATURES, toy_head

PRIOR, SHARE = 1.5, 0.6


def rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, FEATURES)).astype(np.float32)


@pytest.fixture
def starting() -> Head:
    """A head that centres and has a start."""
    return toy_head(centre=PRIOR, start=Start(np.linspace(-0.2, 0.3, EMBEDDING), SHARE))


@pytest.fixture(scope="module")
def starting_path(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("starting") / "bundle"
    replace(bundle, head=replace(bundle.head, centre=PRIOR, start=Start(np.linspace(-0.2, 0.3, EMBEDDING), SHARE))).save(path)
    return path


@pytest.fixture
def started(starting_path: Path, data_path: Path) -> Iterator[Engine]:
    with Engine.open(photos=data_path / "photos", bundle=starting_path, threads=1) as opened:
        yield opened


def expected_shift(head: Head, photos: np.ndarray) -> np.ndarray:
    assert head.start is not None
    return -SHARE * ((photos.astype(np.float64) @ head.weight.T + head.bias).mean(axis=0) - head.start.reference)


def test_photos_give_the_shift_of_sketches_alone(starting: Head) -> None:
    photos, sketches = rows(9), rows(4, seed=1)
    adapter = start_adapter(starting, [photos[:4], photos[4:4], photos[4:]], "stars")
    shift = expected_shift(starting, photos)
    assert adapter.sketch_shift is not None
    np.testing.assert_allclose(adapter.sketch_shift, shift, atol=1e-6)
    np.testing.assert_allclose(
        adapter.embed(starting, sketches), normalised((starting.outputs(sketches) + shift).astype(np.float32)), atol=1e-6
    )
    assert (adapter.rank, adapter.moves("photo")) == (0, False)
    assert adapter.meta == {"start": "photos", "photos": "9", "share": "0.6", "category": "stars"}


def test_a_start_needs_constants_and_photos(starting: Head) -> None:
    with pytest.raises(NoStartError, match=r"training\.zero_sketch fit"):
        start_adapter(toy_head(), [rows(3)])
    with pytest.raises(EmptyGalleryError, match="got none"):
        start_adapter(starting, [])
    with pytest.raises(ShapeError):
        start_adapter(starting, [rows(3)[:, 1:]])


@pytest.mark.parametrize(
    ("reference", "share", "message"),
    [
        (np.zeros((2, EMBEDDING)), 0.5, "expected \\[D\\]"),
        (np.full(EMBEDDING, np.nan), 0.5, "finite numbers"),
        (np.zeros(EMBEDDING), -0.1, "start_share is -0.1"),
        (np.zeros(EMBEDDING), np.inf, "start_share is inf"),
    ],
)
def test_constants_are_checked(reference: np.ndarray, share: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Start(reference, share)


def test_constants_must_fit_the_head() -> None:
    with pytest.raises(ValueError, match=f"{REFERENCE} has 3 entries"):
        toy_head(start=Start(np.zeros(3), 0.5))


def test_head_file_keeps_the_start_and_older_files_have_none(starting: Head) -> None:
    again = Head.from_bytes(starting.to_bytes())
    assert again.start is not None
    assert starting.start is not None
    np.testing.assert_array_equal(again.start.reference, starting.start.reference)
    assert again.start.share == SHARE
    assert again.digest == starting.digest == toy_head().digest, "adapters and galleries stay valid"
    assert Head.from_bytes(toy_head().to_bytes()).start is None


@pytest.mark.parametrize("damage", ["no share", "wrong share", "another width"])
def test_damaged_constants_are_refused(starting: Head, damage: str) -> None:
    tensors, meta = unpack_tensors(starting.to_bytes())
    if damage == "no share":
        del meta["start_share"]
    elif damage == "wrong share":
        meta["start_share"] = "nan"
    else:
        tensors[REFERENCE] = tensors[REFERENCE][:-1].copy()
    with pytest.raises(BundleFormatError, match="start"):
        Head.from_bytes(pack_tensors(tensors, meta))


def learned(head: Head, k: int, **options: object) -> AdaptResult:
    photos = rows(k, seed=5)
    chosen = AdaptOptions(**{"guard": False, **options})  # type: ignore[arg-type]
    return adapt(head, photos + 0.1 * rows(k, seed=6) + 0.5, photos, options=chosen)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_pairs_take_over(starting: Head, k: int) -> None:
    start = start_adapter(starting, [rows(9)])
    alone = learned(starting, k)
    both = handed_over(starting, start, alone)
    assert start.sketch_shift is not None
    assert alone.adapter.sketch_shift is not None
    mean = starting.outputs(rows(k, seed=5) + 0.1 * rows(k, seed=6) + 0.5).mean(axis=0)
    expected = (-k * mean + PRIOR * start.sketch_shift) / (k + PRIOR)
    np.testing.assert_allclose(both.adapter.sketch_shift, expected, atol=1e-5)
    np.testing.assert_array_equal(both.adapter.coefficients, alone.adapter.coefficients)
    assert both.adapter.meta["start_weight"] == f"{PRIOR / (k + PRIOR):.6g}"


def test_where_the_guard_keeps_the_base_head_the_start_stays(starting: Head) -> None:
    start = start_adapter(starting, [rows(9)])
    kept = replace(learned(starting, 3), status="kept-base", adapter=Adapter.identity(starting), explanation="base head kept")
    both = handed_over(starting, start, kept)
    assert both.adapter.digest == start.digest
    assert both.explanation == "base head kept; the zero-sketch start stays in force"


def test_without_centring_pairs_replace_the_start(starting: Head) -> None:
    start = start_adapter(starting, [rows(9)])
    alone = learned(starting, 3, centre=np.inf)
    assert handed_over(starting, start, alone) is alone
    exact = learned(starting, 3, centre=0.0)
    np.testing.assert_allclose(handed_over(starting, start, exact).adapter.sketch_shift, exact.adapter.sketch_shift)


def test_other_adapters_are_no_start(starting: Head) -> None:
    result = learned(starting, 3)
    with pytest.raises(AdapterFormatError, match="no zero-sketch start"):
        handed_over(starting, result.adapter, result)
    both = handed_over(starting, start_adapter(starting, [rows(9)]), result)
    with pytest.raises(AdapterFormatError, match="no zero-sketch start"):
        handed_over(starting, both.adapter, result)
    other = toy_head(seed=4, centre=PRIOR)
    with pytest.raises(AdapterMismatchError, match="zero-sketch start"):
        handed_over(starting, shifted_start(other, np.zeros(EMBEDDING, np.float32)), result)


def test_engine_starts_a_category_and_hands_over(started: Engine, data_path: Path) -> None:
    index = started.gallery.index
    photos = index.features(index.select("odd"))
    start = started.start_category("odd")
    np.testing.assert_allclose(start.sketch_shift, expected_shift(started.head, photos), atol=1e-5)
    assert start.meta["features_digest"] == started.bundle.features_digest
    sketch = data_path / "sketches" / "ann" / "3.png"
    found = started.search(sketch, adapter=start, category="odd")
    by_hand = start.embed(started.head, started.encode_sketches([sketch])) @ started.head.embed(photos).T
    order = np.argsort(-by_hand[0], kind="stable")
    assert [hit.name for hit in found] == [index.entries[index.select("odd")[place]].name for place in order]
    pairs = [(data_path / "sketches" / "ann" / f"{n}.png", f"odd/star{n:02d}.png") for n in (1, 3, 5, 7)]
    options = AdaptOptions(guard=False)
    plain, both = (started.adapt(pairs, options=options, category="odd", start=one).adapter for one in (None, start))
    assert plain.sketch_shift is not None
    assert start.sketch_shift is not None
    np.testing.assert_allclose(both.sketch_shift, plain.sketch_shift + PRIOR / (4 + PRIOR) * start.sketch_shift, atol=1e-6)
    with pytest.raises(EmptyGalleryError, match="'nothing' has no photos"):
        started.start_category("nothing")


def test_a_start_follows_the_gallery(started: Engine) -> None:
    before = started.start_category("odd").sketch_shift
    started.gallery.remove(["odd/star01.png"])
    after = started.start_category("odd")
    assert after.meta["photos"] == "5"
    assert not np.allclose(before, after.sketch_shift)


def test_commands(
    starting_path: Path, data_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = ["--bundle", str(starting_path)]
    assert cli.main(["index", str(data_path / "photos"), "--gallery", "g", *bundle]) == 0
    capsys.readouterr()
    assert cli.main(["zero-sketch", "odd", "--gallery", "g", "--output", "odd.safetensors", *bundle]) == 0
    assert capsys.readouterr().out == "odd\t6 photos\todd.safetensors\n"
    assert cli.main(["zero-sketch", "--all", "--gallery", "g", "--output", "starts", "--json", *bundle]) == 0
    told = json.loads(capsys.readouterr().out)["starts"]
    assert [one["category"] for one in told] == ["even", "odd"]
    assert Path("starts/odd.safetensors").read_bytes() == Path("odd.safetensors").read_bytes()
    sketch = str(data_path / "sketches" / "ann" / "3.png")
    ask = ["query", sketch, "--gallery", "g", "--category", "odd", "--json", *bundle]
    assert cli.main(ask) == 0
    plain = json.loads(capsys.readouterr().out)
    assert cli.main([*ask, "--adapter", "odd.safetensors"]) == 0
    assert json.loads(capsys.readouterr().out) != plain
    pairs = [f"{data_path}/sketches/ann/{n}.png=odd/star{n:02d}.png" for n in (1, 3, 5)]
    learn = ["adapt", *pairs, "--gallery", "g", "--category", "odd", "--no-guard", "--output", "a", *bundle]
    assert cli.main([*learn, "--start", "odd.safetensors"]) == 0
    with Engine.open(gallery="g", bundle=starting_path, threads=1) as engine:
        assert engine.load_adapter("a").meta["start_weight"] == f"{PRIOR / (3 + PRIOR):.6g}"


def test_commands_say_what_is_missing(
    bundle_path: Path, data_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = ["--bundle", str(bundle_path)]
    assert cli.main(["index", str(data_path / "photos"), "--gallery", "g", "--category", "stars", *bundle]) == 0
    assert cli.main(["zero-sketch", "stars", "--gallery", "g", "--output", "s", *bundle]) == NoStartError.exit_code
    assert "training.zero_sketch fit" in capsys.readouterr().err
    assert not Path("s").exists()
    with pytest.raises(SystemExit):
        cli.main(["zero-sketch", "--gallery", "g", "--output", "s", *bundle])


def test_the_example_in_the_docs_runs(data_path: Path) -> None:
    """With the released bundle, which has a start."""
    text = (Path(__file__).parent.parent / "docs" / "zero_sketch.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {"photos": data_path / "photos", "sketch": data_path / "sketches" / "ann" / "3.png"}
    exec(compile(code, "zero_sketch.md", "exec"), names)
    hits = names["hits"]
    assert isinstance(hits, list)
    assert {hit.category for hit in hits} == {"even"}
