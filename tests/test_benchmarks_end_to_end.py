"""The end-to-end benchmark: its tables and picture, two results side by side, processes from their start, a tiny run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import end_to_end
from benchmarks import end_to_end_tables as tables
from benchmarks.document import document
from benchmarks.end_to_end_place import Place
from benchmarks.end_to_end_starts import Starts, start
from benchmarks.end_to_end_tables import COMPILED, ENCODE, OURS, RASTER, RESEARCH, SEARCH, STARTS, WHOLE
from benchmarks.rounds import Report
from benchmarks.samples import summary
from fgsbir_edge.bundle import Bundle

MACHINE = {"processor": "none", "cores": 1, "python": "3", "commit": "0", "load": 1.0}


def figures(**times: float) -> dict[str, Any]:
    """A made-up result: milliseconds of each stage, ours; research code takes ten times as long."""
    rng, rows = np.random.default_rng(0), []
    for group, millis in times.items():
        names = {OURS: 1.0, RESEARCH: 10.0} | ({COMPILED: 5.0} if group == ENCODE else {})
        for name, factor in names.items():
            samples = 1e3 * millis * factor * rng.uniform(0.99, 1.01, (15, 4))
            rows.append({"group": group.replace("_", " "), "name": name, "unit": "us", "agrees": "", **summary(samples)})
    start_rows = [
        {
            "group": group,
            "name": OURS,
            **summary([[4e5], [5e5]]),
            "processor": 3e5,
            "processor_min": 2e5,
            "peak_mib": 140.0,
            "agrees": "",
        }
        for group in STARTS
    ]
    return {
        "question": end_to_end.QUESTION,
        "bundle": {"name": "made-up", "encoder": "0", "sketch encoder": "0"},
        "sketches": {"count": 3, "segments": 20.0, "set": "some", "note": "made up"},
        "photos": {"count": 2000, "note": "made up"},
        "rounds": 15,
        "quick": False,
        "first_call_seconds": {"network": 61.0},
        "rows": rows + start_rows,
        "targets": [],
        "rejected": [],
        "skipped": [{"name": "ours, tensorrt", "reason": "no GPU"}],
        "machine": MACHINE,
    }


def known() -> dict[str, Any]:
    return figures(**{RASTER: 0.1, ENCODE: 5.0, SEARCH.replace(" ", "_"): 0.2, WHOLE.replace(" ", "_"): 5.4})


def test_percentiles_of_known_samples() -> None:
    found = summary(np.arange(1.0, 102.0).reshape(1, -1))
    assert (found["median"], found["p90"], found["p99"]) == (51.0, 91.0, 100.0)


def test_tables_hold_percentiles_ratios_and_memory() -> None:
    made = known()
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in tables.stage_table(made).splitlines()}
    low, high = (float(part) for part in lines[f"{ENCODE}: {RESEARCH}"].split("[")[1].split("]")[0].split(","))
    assert 9.8 < low <= high < 10.2
    assert "| – |" in lines[f"{ENCODE}: {OURS}"]
    assert "| 140 |" in tables.start_table(made)
    assert "| 450 | 400 | 300 | 200 |" in tables.start_table(made)
    text = tables.text(made)
    assert "61 s for the network" in text
    assert "left out: ours, tensorrt: no GPU" in text
    assert "smoke test" not in text
    assert "smoke test" in tables.text({**made, "quick": True})


def test_the_picture_has_a_bar_for_each_pipeline_as_long_as_its_stages() -> None:
    root = ElementTree.fromstring(tables.plot(known()))
    space = "{http://www.w3.org/2000/svg}"
    bars = [shape for shape in root.iter(f"{space}rect") if shape.find(f"{space}title") is not None]
    widths = [float(shape.attrib["width"]) for shape in bars]
    assert len(bars) == 9  # three pipelines of three stages; torch.compile leaves two of them as they are
    assert sum(widths[3:6]) == pytest.approx(10 * sum(widths[:3]), rel=0.05)
    assert sum(widths[6:]) == pytest.approx(sum(widths[3:6]) / 2, rel=0.1)
    without = known()
    without["rows"] = [row for row in without["rows"] if row["name"] != COMPILED]
    assert tables.plot(without).count("<title>") == 6


def test_two_results_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = known(), figures(**{RASTER: 0.1, ENCODE: 2.5, SEARCH.replace(" ", "_"): 0.2})
    for name, made in (("old.json", old), ("new.json", new)):
        (tmp_path / name).write_text(json.dumps(made), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["end_to_end", "--compare", str(tmp_path / "old.json"), str(tmp_path / "new.json")])
    end_to_end.main()
    lines = capsys.readouterr().out.splitlines()
    (encode,) = (line for line in lines if line.startswith(f"| {ENCODE}: {OURS} |"))
    assert "faster" in encode
    assert float(encode.split("|")[2]) == pytest.approx(0.5, abs=0.02)
    (raster,) = (line for line in lines if line.startswith(f"| {RASTER}: {OURS} |"))
    assert "faster" not in raster
    assert f"- only in one of the two: {WHOLE}: {OURS}" in lines
    (tmp_path / "new.json").write_text("[]", encoding="utf-8")
    with pytest.raises(SystemExit, match="no rows"):
        end_to_end.main()


def test_the_page_has_a_section_where_it_was_measured() -> None:
    page = document({"end_to_end": known()})
    assert "## End to end" in page
    assert "images/end_to_end.svg" in page
    assert "### Not measured here" in page
    assert "## End to end" not in document({})


def test_a_process_is_timed_from_its_start() -> None:
    found = start(["-c", "print(bytearray(60_000_000)[-1])"])
    small = start(["-c", "print()"])
    assert found.wall > 0 < found.processor
    assert found.peak > small.peak + 50
    assert small.peak < 40  # not what this process takes
    with pytest.raises(SystemExit, match="nothing on stdout"):
        start(["-c", "pass"])
    with pytest.raises(SystemExit, match="ended with 3"):
        start(["-c", "print(); raise SystemExit(3)"])


def test_our_commands_are_started_and_write_the_adapter(tmp_path: Path, bundle: Bundle) -> None:
    report = Report()
    with Place.make(tmp_path, bundle, photos=40, drawings=5) as place:
        assert len(place.engine.gallery) == 40
        assert place.photos.shape == (40, bundle.head.features)
        Starts(tmp_path, place).race(report, 1, research=False)
        Starts(tmp_path, place).race(report, 0, research=True)
    assert (tmp_path / "ours.safetensors").is_file()
    assert [row["name"] for row in report.rows].count(OURS) == 3
    assert all(row["median"] > 0 and row["peak_mib"] > 5 for row in report.rows)


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_tiny_run_checks_every_answer() -> None:
    for needed in ("torch", "onnx", "scipy"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    found = end_to_end.run(Bundle.default(), end_to_end.Options(1, 1.0, False, 0, 50, 5))
    assert found["rejected"] == []
    assert found["quick"]
    groups = {row["group"] for row in found["rows"]}
    assert groups == {*tables.STAGES}
    assert {row["name"] for row in found["rows"] if row["group"] == WHOLE} == {OURS, RESEARCH}
    skipped = {entry["name"] for entry in found["skipped"]}
    assert COMPILED in skipped
    assert len(skipped) >= 2  # backends that are not here are named
    json.dumps(found)
