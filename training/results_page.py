"""docs/results.md from docs/results/*.json: ``python -m training.results_page``.

Every table of both papers (METHODS B.10 and C.8, ``docs/results/paper.json``), with the papers' figures beside ours, in the text
of ``training/results/page.md``. Also draws ``docs/results/people.png``, what adapting does to each person.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fgsbir_edge.console import run
from fgsbir_edge.files import write_atomic
from training.results import adapting, semi
from training.results.people_plot import people_plot

DOCS = Path(__file__).parents[1] / "docs"
PAGE, PEOPLE = DOCS / "results.md", DOCS / "results" / "people.png"
TEMPLATE = Path(__file__).parent / "results" / "page.md"


def page(results: Path) -> str:
    """The page from the JSON files in a folder."""
    paper, default, joint, generator, adaptation = (
        _read(results, name) for name in ("paper", "default", "semi", "generator", "adaptation")
    )
    tables = {
        "retrieval": semi.retrieval(paper, default["twin"]),
        "order": semi.order(paper, joint),
        "fractions": semi.fractions(paper, joint),
        "parts": semi.parts(paper, joint),
        "generation": semi.generation(paper, generator),
        "without": adapting.without(paper, adaptation),
        "adapted": adapting.adapted(paper, adaptation),
        "regularisers": adapting.regularisers(paper, adaptation),
        "steps": adapting.steps(paper, adaptation),
        "widths": adapting.widths(paper, adaptation),
        "released": adapting.released(default),
    }
    return TEMPLATE.read_text(encoding="utf-8").format_map(tables)


def _read(results: Path, name: str) -> Any:
    return json.loads((results / f"{name}.json").read_text(encoding="utf-8"))


def main() -> int:
    """Write the page and the plot."""
    results = DOCS / "results"

    def make() -> int:
        write_atomic(PAGE, page(results).encode())
        people_plot(_read(results, "adaptation"), PEOPLE)
        return 0

    return run(make)


if __name__ == "__main__":
    sys.exit(main())
