"""Two runs of one benchmark side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.samples import ratio
from benchmarks.tables import number, table


def read_result(path: Path) -> dict[str, Any]:
    """A result as JSON. Raises SystemExit for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or "rows" not in found:
            raise ValueError("it has no rows")
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path}: cannot be read as a result ({error}); give the JSON of an earlier run") from error
    return found


def comparison(new: Mapping[str, Any], path: Path) -> str:
    """Time of each row over its time in the earlier result at ``path``, with the 95 % interval; below 1 is faster than before.

    Rows that only one of the two has are named. Raises SystemExit when the file is not a result of the same benchmark.
    """
    old = read_result(path)
    if old.get("question") != new["question"]:
        raise SystemExit(
            f"{path}: answers {old.get('question')!r}, this run {new['question']!r}; give a result of the same benchmark"
        )
    before = {(row["group"], row["name"]): row for row in old["rows"]}
    now = {(row["group"], row["name"]): row for row in new["rows"]}
    rows = []
    for key, row in now.items():
        if key in before:
            found, low, high = ratio(row["rounds"], before[key]["rounds"], paired=False)
            says = "faster" if high < 1 else "slower" if low > 1 else "no difference seen"
            rows.append([": ".join(key), f"{found:.3f}", f"{low:.3f}", f"{high:.3f}", says])
    lone = [f"- only in one of the two: {': '.join(key)}\n" for key in [*before, *now] if (key in before) != (key in now)]
    commit = old.get("machine", {}).get("commit")
    head = f"\nTimes over those of {path.name} (commit {commit}, {number(len(rows))} rows)\n\n"
    return head + table(["row", "ratio", "low", "high", ""], rows) + "".join(lone)
