"""The results page: up to date with the JSON files, and every cell where it belongs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training import results_page
from training.results import adapting, semi
from training.results.markdown import with_interval


def read(name: str) -> Any:
    return json.loads((results_page.DOCS / "results" / f"{name}.json").read_text(encoding="utf-8"))


def row(table: str, first: str) -> list[str]:
    (line,) = (line for line in table.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("| ").split(" | ")]


def test_the_page_is_what_the_files_say() -> None:
    expected = results_page.page(results_page.DOCS / "results")
    assert results_page.PAGE.read_text(encoding="utf-8") == expected, "run python -m training.results_page"


def test_every_link_and_picture_is_there() -> None:
    text = results_page.PAGE.read_text(encoding="utf-8")
    for part in text.split("](")[1:]:
        assert (results_page.DOCS / part.partition(")")[0]).is_file()


def test_fractions_that_only_one_side_has_are_dashes_on_the_other() -> None:
    cell = {"values": {"0": 10.0, "1": 20.0}, "mean": 15.0, "interval": [5.0, 25.0]}
    joint = {"arms": {arm: {"fractions": {"5": cell}} for arm in ("supervised", "full")}}
    joint["arms"]["full"]["fractions"]["5"] = {**cell, "mean": 18.0, "gain": {"mean": 3.0, "interval": [-1.0, 7.0]}}
    table = semi.fractions(read("paper"), joint)
    assert row(table, "5 %") == ["5 %", "–", "–", "15.0", "18.0", "+3.0 [-1.0, 7.0]", "2"]
    assert row(table, "20 %") == ["20 %", "4.0", "15.0", "–", "–", "–", "–"]


def test_arms_that_never_ran_are_dashes() -> None:
    cell = {"values": {"0": 44.0}, "mean": 44.0, "interval": None}
    table = semi.parts(read("paper"), {"arms": {"full": {"fractions": {"5": cell}}}})
    assert row(table, "everything") == ["everything", "39.1", "44.0", "1"]
    assert row(table, "no teacher") == ["no teacher", "37.3", "–", "–"]


def test_adapted_rows_have_both_settings() -> None:
    adaptation = read("adaptation")
    ours = adaptation["settings"]["person"]["methods"]["ours"]["10"]["acc@1"]
    line = next(line for line in adapting.adapted(read("paper"), adaptation).splitlines() if line.startswith("| ours | 10 |"))
    assert "| 32.7 | 53.5 | – | – |" in line
    assert f"{ours['mean']:.1f} ({ours['gain']:+.1f} [" in line.split(" | ")[-1]


def test_intervals_have_no_negative_nothing() -> None:
    assert with_interval(-0.01, [-0.04, 0.0], sign=True) == "0.0 [0.0, 0.0]"
    assert with_interval(None, None) == "–"


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    from training.results.people_plot import people_plot

    people_plot(read("adaptation"), tmp_path / "people.png")
    assert (tmp_path / "people.png").read_bytes()[:4] == b"\x89PNG"
