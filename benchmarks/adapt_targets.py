"""What adaptation is meant to reach, judged on the rows of one run; and the names of groups that are not cells."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from benchmarks.adapt_task import COMPILED, EAGER, FORMED, GATHERED, Task
from benchmarks.rounds import Ratio, Report
from benchmarks.samples import ratio

GROWING = "C grows, D=64, 10 rows: whole runs of few and of many steps"
WHOLE = "whole Python calls of 5 steps, 10 rows"
CACHED, PLAIN, GUARDED = "ours, outputs of the support kept", "ours, adapt() without guard", "ours, adapt() with guard"
BATCH = "a batch of tasks of 5 steps, 10 rows"
WANTED = {COMPILED: 4, EAGER: 50, GATHERED: 50}  # times faster, in every cell
MOST_MICROSECONDS = 20  # of a whole call with kept outputs
MOST_GROWTH = 1.2  # of a step's time from one C to the next: what differences of noisy times allow to tell


def cell(task: Task, steps: int) -> str:
    """Group of one task and number of steps."""
    return f"{task.name}, {steps} steps"


def growing(task: Task, steps: int) -> str:
    """Row of the question whether a step's time depends on C."""
    return f"C={task.features}, {steps} steps"


def judge(report: Report) -> None:
    """Add every target to the report, with the ratio it got."""
    cells = [row["group"] for row in report.rows if row["name"] == FORMED]
    for peer, wanted in WANTED.items():
        for group in cells:
            report.target(f"W' formed, times faster than {peer} ({group})", wanted, report.times(group, FORMED, (group, peer)))
    row = report.row(WHOLE, CACHED)
    if row is not None:
        got = Ratio(*ratio(row["rounds"], np.ones(len(row["rounds"])), paired=True), row["best"])
        report.target(f"whole Python call with kept outputs, µs ({WHOLE})", MOST_MICROSECONDS, got, most=True)


def judge_growth(report: Report, tasks: list[Task], steps: tuple[int, int]) -> None:
    """Whether a step takes as long at a wide C as at a narrow one: by what the further steps of a long run add to a short one."""
    each = {}
    for task in tasks:
        rows = [report.row(GROWING, growing(task, count)) for count in steps]
        if None not in rows:
            short, long = (np.asarray(row["rounds"]) for row in rows if row is not None)
            each[task] = (long - short) / (steps[1] - steps[0])
    for narrow, wide in pairwise(each):
        text = f"time of a step at C={wide.features} over that at C={narrow.features}"
        report.target(text, MOST_GROWTH, Ratio(*ratio(each[wide], each[narrow], paired=True)), most=True)
