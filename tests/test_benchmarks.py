"""The benchmarks' own machinery: statistics, turns, checks that refuse wrong answers, quick runs, comparison, the document."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import raster_peers
from benchmarks.adapt_task import BOUND, Task
from benchmarks.compare import comparison
from benchmarks.document import DOCUMENT, document, read_results
from benchmarks.raster_field import MEAN, Field, normalise
from benchmarks.raster_gate import Gate
from benchmarks.raster_peers import Peer
from benchmarks.reasons import reasons
from benchmarks.rounds import Competitor, Ratio, Report, Verdict, race
from benchmarks.samples import ratio, summary
from benchmarks.sketches import SIDE, SketchSet, load
from benchmarks.tables import number, text
from fgsbir_edge._reference import raster as twin

PASS = Verdict(True, "right")


@pytest.fixture(scope="module")
def sketches() -> SketchSet:
    return load("no/such/folder", 2)


# ---- statistics ----


def test_summary_of_known_samples():
    figures = summary(np.arange(1, 101, dtype=float).reshape(10, 10))
    assert (figures["min"], figures["median"], figures["calls"]) == (1.0, 50.5, 100)
    assert [figures[name] for name in ("p05", "p95", "p99")] == [5.95, 95.05, 99.01]
    assert figures["rounds"] == [10 * n + 5.5 for n in range(10)]
    assert figures["best"] == 5.5  # the first round was the shortest of every call
    assert summary([[1.0, 9.0], [5.0, 3.0]])["best"] == 2.0


def test_paired_ratio_cancels_what_drifts():
    drift = np.exp(np.linspace(0, 2, 15))
    assert ratio(3 * drift, drift, paired=True) == pytest.approx((3, 3, 3))
    found, low, high = ratio(3 * drift, drift, paired=False)
    assert low < 2 < found < 4 < high


def test_intervals_narrow_with_more_rounds():
    rng = np.random.default_rng(0)
    few, many = (ratio(2 + rng.normal(0, 0.2, n), 1 + rng.normal(0, 0.1, n), paired=False) for n in (8, 800))
    assert many[2] - many[1] < (few[2] - few[1]) / 3
    assert many[1] < 2 < many[2]


def test_statistics_refuse():
    with pytest.raises(ValueError, match="no samples"):
        summary([])
    with pytest.raises(ValueError, match="3 rounds with 2"):
        ratio([1.0, 2.0, 3.0], [1.0, 2.0], paired=True)
    with pytest.raises(ValueError, match="0 rounds"):
        ratio([], [1.0], paired=False)


# ---- turns ----


def test_all_take_turns_in_every_round():
    calls: list[tuple[str, int]] = []

    def player(name: str) -> Competitor:
        return Competitor(name, lambda n: calls.append((name, n)), items=2, check=lambda: PASS)

    report = Report()
    race(report, "game", [player("a"), player("b"), player("c")], rounds=6, calls=2)
    timed = calls[-36:]
    for turn in range(6):
        hands = timed[6 * turn : 6 * turn + 6]
        assert sorted(hands) == sorted((name, 2 * turn + n) for name in "abc" for n in (0, 1))
        assert [name for name, _ in hands[::2]] == [name for name, _ in hands[1::2]]  # a turn is not interrupted
    assert len({tuple(name for name, _ in timed[6 * turn : 6 * turn + 6]) for turn in range(6)}) > 1  # nor always the same order
    assert [row["calls"] for row in report.rows] == [12, 12, 12]


def test_wrong_answers_are_not_timed():
    count = {"wrong": 0}

    def wrong(_: int) -> None:
        count["wrong"] += 1

    def broken(_: int) -> None:
        raise RuntimeError("no such font")

    competitors = [
        Competitor("right", lambda _: None, check=lambda: PASS),
        Competitor("wrong", wrong, check=lambda: Verdict(False, "3 of 4 images differ")),
        Competitor("broken", broken),
    ]
    report = Report()
    race(report, "game", competitors, rounds=3, calls=5)
    assert [row["name"] for row in report.rows] == ["right"]
    assert count["wrong"] == 1
    assert {entry["name"]: entry["reason"] for entry in report.rejected} == {
        "wrong": "3 of 4 images differ",
        "broken": "RuntimeError: no such font",
    }


def test_targets():
    report = Report()
    report.target("fast", 10, Ratio(12.0, 11.0, 13.0, 12.5, 80.0))
    report.target("near the limit", 4, Ratio(4.5, 4.2, 4.6, 4.1, 9.0), most=True)
    report.target("unknown", 4, report.times("none", "a", ("none", "b")))
    report.target("only on a busy machine", 10, Ratio(25.0, 9.0, 26.0, 8.9))
    assert [entry["reached"] for entry in report.targets] == [True, False, None, False]
    assert [entry.get("at_the_limit") for entry in report.targets] == [80.0, None, None, None]


def test_reasons_of_missed_targets():
    report = Report()
    report.target("met", 4, Ratio(5.0, 4.0, 6.0, ceiling=9.0))
    report.target("beyond the floor", 50, Ratio(5.0, 4.0, 6.0, ceiling=20.0))
    report.target("missed", 50, Ratio(5.0, 4.0, 6.0, ceiling=200.0))
    report.target("not measured", 4, None)
    found = reasons(report.targets)
    assert list(found.values()) == [["beyond the floor"], ["missed"]]
    assert "at the limit" in next(iter(found))


def test_ratios_of_rows():
    report = Report()
    times = {"ours": [1.0, 2.0, 1.5], "theirs": [10.0, 20.0, 15.0], "limit": [0.5, 1.0, 0.75]}
    report.rows = [{"group": "g", "name": name, **summary(rounds)} for name, rounds in times.items()]
    report.rows[1]["limit_share"] = 0.05
    got = report.times("g", "ours", ("g", "theirs"))
    assert got == Ratio(10.0, 10.0, 10.0, 10.0, 20.0)
    assert report.times("g", "ours", ("g", "none")) is None
    assert report.fastest("g", ["theirs", "none", "ours"]) == "ours"


def test_share_of_the_limit_counts_bytes():
    report = Report()
    rows = [("limit", 2.0, 100, True), ("half", 4.0, 100, False), ("one image", 1.0, 10, False)]
    competitors = [Competitor(name, lambda _: None, bytes=size, limit=limit) for name, _, size, limit in rows]
    race(report, "game", competitors, rounds=1, calls=1)
    for row in report.rows:
        expected = row["bytes"] / row["median"] / (100 / report.rows[0]["median"])
        assert row["limit_share"] == pytest.approx(expected, rel=0.01)


# ---- checks of rasterisers ----


def drawing(change: Callable[[np.ndarray], None]) -> Peer:
    """The papers' pixels, changed."""

    def draw(strokes: list[np.ndarray], image: np.ndarray) -> None:
        image[...] = twin.bresenham(strokes, SIDE, SIDE)
        change(image)

    return Peer("changed", "dilated", True, lambda s: s, lambda s: [np.array(x) for x in s], draw)


@pytest.mark.parametrize("source", ["prepared", "tuples", "arrays"])
def test_one_wrong_pixel_is_refused(sketches: SketchSet, source):
    field = Field(sketches, Gate(sketches), 1, source)
    good, bad = field.peer(drawing(lambda image: None)), field.peer(drawing(lambda image: image.__setitem__((3, 3), 255)))
    assert good.check is not None
    assert bad.check is not None
    assert good.check() == Verdict(True, "same pixels, 2 images")
    assert bad.check() == Verdict(False, "2 of 2 images differ")


def test_not_drawing_at_all_is_refused(sketches: SketchSet):
    """What the competitor before left in the shared memory must not pass for an answer."""
    idle = Peer("idle", "dilated", True, lambda s: s, lambda s: s, lambda strokes, image: None)
    field = Field(sketches, Gate(sketches), 2)
    field.ours("bresenham").run(0)
    check = field.peer(idle).check
    assert check is not None
    assert not check().passed


def test_gate_on_smooth_and_normalised_answers(sketches: SketchSet):
    gate = Gate(sketches)
    right = gate.expected("antialias 2", 0)
    off = np.clip(right.astype(int) + 2, 0, 255).astype(np.uint8)
    assert gate.within_a_level("antialias 2", [(0, right)]).passed
    assert not gate.within_a_level("antialias 2", [(0, off)]).passed
    assert gate.verdict("antialias 2", same=False, answers=[(0, off)]).passed
    assert not gate.verdict("antialias 2", same=False, answers=[(0, np.roll(right, 9, axis=0))]).passed
    floats = normalise(gate.expected("dilated", 0))
    assert floats[:, 0, 0] == pytest.approx([-m / s for m, s in zip(MEAN, (0.229, 0.224, 0.225), strict=True)])
    assert gate.normalised("dilated", [(0, floats)], normalise, 1e-6).passed
    assert not gate.normalised("dilated", [(0, floats + 1e-5)], normalise, 1e-6).passed


def testtraces_cover_the_bundled_drawings(sketches: SketchSet):
    from PIL import Image

    from fgsbir_edge.formats.drawing import Drawing
    from fgsbir_edge.pairs import DEMO_FOLDER

    assert sketches.name == "bundled drawings"
    file = sorted((DEMO_FOLDER / "sketches").glob("*/*.png"))[0]
    ink = Drawing.from_image(Image.open(file).convert("RGB")).ink > 0.5
    drawn = twin.bresenham(sketches.sketches[0].strokes, SIDE, SIDE) > 0
    rows, columns = np.nonzero(ink)
    assert drawn.mean() > 0.01
    aspect = (np.ptp(rows) + 1) * ink.shape[1] / (np.ptp(columns) + 1) / ink.shape[0]
    rows, columns = np.nonzero(drawn)
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx(aspect, rel=0.1)


def test_missing_peers_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cairo", None)
    monkeypatch.setitem(sys.modules, "cv2", None)
    found, skipped = raster_peers.peers()
    assert {"pycairo", "OpenCV", "Pillow + OpenCV"} <= {entry["name"] for entry in skipped}
    assert all("bench" in entry["reason"] for entry in skipped)
    assert "Pillow, width 1" in {peer.name for peer in found}
    assert not {peer.name for peer in found} & {*raster_peers.SAME, "pycairo, width 2"}


# ---- checks of adaptations ----


def test_wrong_adaptations_are_refused():
    task = Task(24, 8, 4)
    weight, bias = task.reference(5)
    change = np.abs(weight - task.weight).max()
    assert task.verdict((weight, bias), 5).passed
    assert task.verdict((weight + 0.5 * BOUND * change, bias), 5).passed
    assert not task.verdict((weight + 2 * BOUND * change, bias), 5).passed
    assert not task.verdict((task.weight, task.bias), 5).passed
    assert not task.verdict(task.reference(4), 5).passed
    assert not task.verdict((weight * np.nan, bias), 5).passed


def test_floor_counts_both_forms():
    few, many = Task(512, 512, 0), Task(512, 8, 64)
    setup = few.rows * 512 * 512 + 512 * few.rows * (few.rows + 1) / 2
    inner = 512 * few.rows * (few.rows + 1) / 2 + 5 * 3 * few.rows**3 + few.rows**2 * 512
    assert few.floor_operations(5, formed=False) == 2 * (setup + inner)
    setup = many.rows * 512 * 8 + 512 * many.rows * (many.rows + 1) / 2
    span = 5 * (3 * 5 * 69 * 8 + many.rows**2 * 8)
    assert many.floor_operations(5, formed=True) == 2 * (setup + span + many.rows * 512 * 8)


# ---- whole runs ----


def test_quick_run_of_the_rasterisers(monkeypatch: pytest.MonkeyPatch):
    from benchmarks.raster import Options, run

    monkeypatch.delenv("FGSBIR_DATA", raising=False)
    figures = run(Options(data=None, rounds=1, quick=True))
    assert figures["sketches"]["set"] == "bundled drawings"
    assert "traced lines of the bundled drawings, no data folder given" in text(figures)
    assert "smoke test" in text(figures)
    ours = [row for row in figures["rows"] if row["name"].startswith("ours")]
    assert len({row["group"] for row in ours}) == 11
    assert not [entry for entry in figures["rejected"] if entry["name"].startswith("ours")]
    assert all(row["median"] > 0 for row in figures["rows"])
    json.dumps(figures)


@pytest.mark.torch
def test_quick_run_of_the_adaptations():
    pytest.importorskip("torch")
    from benchmarks.adapt import Options, run

    figures = run(Options(rounds=1, compiled=False, quick=True))
    assert figures["rejected"] == []
    assert {"torch.func", "NumPy, full gradient", "ours, W' formed"} <= {row["name"] for row in figures["rows"]}
    assert all(row["floor_multiple"] > 1 for row in figures["rows"] if "floor" in row)
    json.dumps(figures)


def test_adaptations_without_torch(monkeypatch: pytest.MonkeyPatch):
    from benchmarks.adapt import Options, run

    monkeypatch.setitem(sys.modules, "benchmarks.adapt_torch", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    figures = run(Options(rounds=1, compiled=True, quick=True))
    assert [entry["name"] for entry in figures["skipped"]] == ["PyTorch"]
    assert not [row for row in figures["rows"] if row["name"].startswith("torch")]
    assert {entry["reached"] for entry in figures["targets"] if "torch" in entry["target"]} == {None}


# ---- comparison and document ----


def result(question: str, **rounds: list[float]) -> dict[str, object]:
    rows = [
        {"group": "g", "name": name, "unit": "us", "bytes": 0, "agrees": "", **summary(times)} for name, times in rounds.items()
    ]
    targets: list[object] = []
    return {"question": question, "rows": rows, "targets": targets, "machine": {"commit": "abc"}}


def test_comparison_says_what_changed(tmp_path: Path):
    rng = np.random.default_rng(0)
    noise = lambda middle: list(middle + rng.normal(0, 0.05, 15))  # noqa: E731
    old = tmp_path / "old.json"
    old.write_text(json.dumps(result("q", quick=noise(2), slow=noise(1), same=noise(1), gone=noise(1))))
    shown = comparison(result("q", quick=noise(1), slow=noise(2), same=noise(1), new=noise(1)), old)
    lines = {line.split(" | ")[0].removeprefix("| g: "): line for line in shown.splitlines() if line.startswith("| g")}
    assert "faster" in lines["quick"]
    assert "slower" in lines["slow"]
    assert "no difference" in lines["same"]
    assert "only in one of the two: g: gone" in shown
    assert "only in one of the two: g: new" in shown


def test_comparison_refuses_other_benchmarks(tmp_path: Path):
    old = tmp_path / "old.json"
    old.write_text(json.dumps(result("another")))
    with pytest.raises(SystemExit, match="answers 'another'"):
        comparison(result("q"), old)
    with pytest.raises(SystemExit, match="cannot be read"):
        comparison(result("q"), tmp_path / "none.json")


def test_numbers():
    shown = [number(value) for value in (None, 0.0, 0.004, 0.5, 1.234, 12.34, 123.4, 12345.6)]
    assert shown == ["–", "0.000", "< 0.01", "0.500", "1.23", "12.3", "123", "12,346"]


def test_document_is_what_the_results_give():
    assert DOCUMENT.read_text(encoding="utf-8") == document(read_results())


def test_document_claims_nothing_unmeasured():
    page = document({})
    assert "No figures were taken on a GPU yet" in page
    assert page.count("Not measured") == 2
