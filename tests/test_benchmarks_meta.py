"""The benchmark of meta-training: wrong answers are refused, everyone agrees, tables say what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from benchmarks import meta
from benchmarks.document import document
from benchmarks.meta_methods import BASE, LOOPED, OURS, PEERS, PRODUCTS, VMAP, methods, step, without
from benchmarks.meta_tables import INNER, STEP, group, meta_text, ratio_table
from benchmarks.meta_task import BOUND, MetaTask
from benchmarks.rounds import Report
from benchmarks.samples import summary

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("pairs", [1, 3])
def test_everyone_gives_the_same_heads_losses_and_gradients(pairs: int) -> None:
    task = MetaTask(24, 8, pairs, 2, episodes=2, queries=4)
    for name, method in methods(task).items():
        heads, outer = task.heads_verdict(method.heads()), task.outer_verdict(step(task, method.outer))
        assert heads.passed, (name, heads.finding)
        assert outer.passed, (name, outer.finding)
    assert not task.outer_verdict(step(task, without(task))).passed  # not adapting is another answer


def test_wrong_answers_are_refused() -> None:
    task = MetaTask(24, 8, 3, 2, episodes=2, queries=4)
    (weight, bias), (loss, gradients) = task.reference
    change = (weight - task.leaves[0].detach().double()).abs().max()
    assert task.heads_verdict((weight + 0.5 * BOUND * change, bias)).passed
    assert not task.heads_verdict((weight + 2 * BOUND * change, bias)).passed
    assert not task.heads_verdict((weight * float("nan"), bias)).passed
    assert task.outer_verdict((loss, gradients)).passed
    assert task.outer_verdict((loss, ())).passed
    for place, gradient in enumerate(gradients):
        wrong = [*gradients]
        wrong[place] = gradient + 2 * BOUND * gradient.abs().max()
        assert not task.outer_verdict((loss, tuple(wrong))).passed
    one_step = replace(task, steps=1)
    assert not task.heads_verdict(one_step.reference[0]).passed


def test_quick_run() -> None:
    figures = meta.run(meta.Options(rounds=1, quick=True))
    assert figures["rejected"] == []
    assert {row["name"] for row in figures["rows"]} == {*PEERS, *OURS, BASE}
    assert len(figures["rows"]) == len(figures["cells"]) * (2 * (len(PEERS) + len(OURS) + 1) + len(PEERS) + len(OURS))
    assert len(figures["targets"]) == 2 * len(PEERS) * len(figures["cells"])
    shown = meta_text(figures)
    assert "smoke test" in shown
    assert all(shown.count(f"| {cell} |") == 3 for cell in figures["cells"])
    json.dumps(figures)


def test_cells() -> None:
    few, every = (meta.tasks(meta.Options(every=every)) for every in (False, True))
    assert len(few) == 2 * (9 + 2)
    assert len({task.name for task in every}) == 54


def timed(times: dict[str, list[float]], where: str) -> Report:
    report = Report()
    report.rows = [{"group": where, "name": name, **summary(rounds)} for name, rounds in times.items()]
    return report


def test_what_adapting_adds_leaves_out_what_all_do() -> None:
    times = {PRODUCTS: [15.0, 30.0, 15.0], LOOPED: [110.0, 220.0, 110.0], BASE: [10.0, 20.0, 10.0]}
    found = meta.added(timed(times, "g"), "g", PRODUCTS, LOOPED)
    assert found is not None
    assert (found.value, found.best) == (20.0, 20.0)
    assert meta.added(timed(times, "g"), "g", PRODUCTS, VMAP) is None
    assert meta.added(timed({**times, PRODUCTS: [9.0, 19.0, 9.0]}, "g"), "g", PRODUCTS, LOOPED) is None  # noise, not a ratio


def test_targets_take_the_faster_of_our_forms() -> None:
    task = MetaTask(24, 8, 3, 1)
    inner, outer = group(task.name, INNER), group(task.name, STEP)
    report = timed({OURS[0]: [4.0], OURS[1]: [2.0], LOOPED: [30.0], VMAP: [10.0]}, inner)
    report.rows += timed({OURS[1]: [3.0], LOOPED: [12.0], BASE: [1.0]}, outer).rows
    meta.judge(report, [task])
    got = {entry["target"]: (entry["got"], entry["reached"]) for entry in report.targets if entry["got"] is not None}
    assert got == {
        f"inner loop, times faster than {LOOPED} ({task.name})": (15.0, True),
        f"inner loop, times faster than {VMAP} ({task.name})": (5.0, False),
        f"what adapting adds to an outer step, times faster than {LOOPED} ({task.name})": (5.5, False),
    }
    lines = ratio_table({"targets": report.targets}).splitlines()
    assert lines[2] == f"| inner loop, times faster than {LOOPED} | ≥ 10 | 15.0 | 15.0 to 15.0 | 1 of 1 tasks |"


def test_the_document_shows_it_where_it_was_measured() -> None:
    figures: dict[str, Any] = meta.run(meta.Options(rounds=1, quick=True))
    figures["machine"] = {"processor": "a core", "cores": 1, "python": "3", "commit": "abc", "load": 0.0}
    page = document({"meta": figures})
    assert "## Meta-training" in page
    assert page.count(figures["cells"][0]) >= 3
    assert "## Meta-training" not in document({})
    assert np.isfinite([row["median"] for row in figures["rows"]]).all()
