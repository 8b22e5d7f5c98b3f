"""What the adaptation table's command writes: figures of each row, and of all of them JSON, markdown and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fgsbir_edge.files import write_atomic
from training.config import to_table
from training.episodic.methods.config import TableConfig
from training.episodic.methods.learned import TERMS, TITLES
from training.episodic.methods.protocol import Measured
from training.episodic.plots import Axis, Panel, Points, plot_lines, plot_rows
from training.episodic.table import BASE, ROWS, WITH, Row, cell, markdown, note_of, tabulate

RESULTS = "results.json"


@dataclass(frozen=True)
class Found:
    """Figures of a row: by k, by inner steps at one k, what was chosen for each k, and all that they depend on."""

    key: dict[str, Any]
    by_k: dict[int, Measured]
    by_steps: dict[int, Measured] = field(default_factory=dict)
    chosen: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Found | None:
        """The figures in a file; None where there is none."""
        if not path.is_file():
            return None
        data = json.loads(path.read_text(encoding="utf-8"))

        def measured(part: dict[str, Any]) -> dict[int, Measured]:
            return {int(number): Measured(tuple(item["tasks"]), item["values"]) for number, item in part.items()}

        return cls(data["key"], measured(data["by_k"]), measured(data["by_steps"]), data["chosen"])

    def write(self, path: Path) -> None:
        """One JSON file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (json.dumps(asdict(self)) + "\n").encode())


def write_report(config: TableConfig, found: Mapping[str, Mapping[str, Found]], out: Path) -> dict[str, Any]:
    """adaptation.json and adaptation.md in the folder `out`; returns what the JSON holds."""
    table: dict[str, Any] = {"protocol": to_table(config.protocol), "settings": {}}
    sections = []
    for name, rows in found.items():
        if rows:
            table["settings"][name] = setting_table(config, rows)
            sections.append(section(config, name, rows, table["settings"][name]))
    write_atomic(out / "adaptation.json", (json.dumps(table, indent=2) + "\n").encode())
    write_atomic(out / "adaptation.md", "\n".join(sections).encode())
    return table


def setting_table(config: TableConfig, rows: Mapping[str, Found]) -> dict[str, Any]:
    """{"methods", "chosen", "steps", "trained_steps", "widths", "regularisers", "before"} of one setting."""
    results = {name: found.by_k for name, found in rows.items()}
    base = {"none": results["none"]} if "none" in results else {}
    k = config.sweep.k
    methods = tabulate({name: by_k for name, by_k in results.items() if name in config.methods}, base)
    at = base.get("none", {}).get(k)
    widths = {width: results.get(f"ours@{width}", {}).get(k) for width in config.sweep.widths}
    trained = {steps: results.get(f"ours+{steps}", {}).get(k) for steps in config.sweep.trained_steps}
    terms = {"ours": results.get("ours", {}).get(k)}
    terms |= {name: by_k.get(k) for name, by_k in results.items() if name.startswith("ours-")}
    return {
        "methods": methods,
        "chosen": {name: found.chosen for name, found in rows.items() if found.chosen},
        "steps": {
            name: {str(steps): cell(measured, at) for steps, measured in found.by_steps.items()}
            for name, found in rows.items()
            if found.by_steps and name in ROWS
        },
        "trained_steps": {str(steps): cell(measured, at) for steps, measured in trained.items() if measured is not None},
        "widths": {str(width): cell(measured, at) for width, measured in widths.items() if measured is not None},
        "regularisers": {name: cell(measured, at) for name, measured in terms.items() if measured is not None},
        "before": {
            name: cell(found.by_steps[0], at)
            for name, found in rows.items()
            if 0 in found.by_steps and (name == "ours" or name not in ROWS)
        },
    }


def section(config: TableConfig, name: str, rows: Mapping[str, Found], table: Mapping[str, Any]) -> str:
    """One setting in markdown: its table, and below it the one with and without each regulariser."""
    kind = next(item.kind for item in config.settings if item.name == name)
    counts = {k: len(measured.tasks) for found in rows.values() for k, measured in found.by_k.items()}
    text = markdown(f"{name}: tasks are of kind {kind}", table["methods"], ROWS, note_of(counts, config.protocol.draws))
    if len(table["regularisers"]) > 1:
        k = config.sweep.k
        titles = {each: Row(WITH, label) for each, label in regulariser_labels().items()}
        cells = {each: {str(k): found} for each, found in table["regularisers"].items()}
        note = f"Each meta-trained anew; {note_of({k: counts.get(k, 0)}, config.protocol.draws)}"
        text += "\n" + markdown(f"{name}: regularisers", cells, titles, note)
    return text


def regulariser_labels() -> dict[str, str]:
    """Row -> what it is called."""
    single = dict.fromkeys(term for terms in TERMS.values() for term in terms)
    return {
        "ours": "all regularisers",
        **{f"ours-{term}": f"without {TITLES[term]}" for term in single},
        "ours-all": "no regulariser",
    }


def draw(config: TableConfig, settings: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """The four plots of a table's settings, as far as there are figures."""

    k = config.sweep.k
    by_k, by_steps, by_width, by_term = [], [], [], []
    for name, table in settings.items():
        title, base = f"{name}, k={k}", _base(table["methods"].get(BASE, {}).get(str(k)))
        by_k.append(Panel(name, {ROWS[row].title: points(cells) for row, cells in table["methods"].items()}))
        swept = {ROWS[row].title: points(cells) for row, cells in table["steps"].items()}
        trained = {"ours, trained for as many": points(table["trained_steps"])} if table["trained_steps"] else {}
        by_steps.append(Panel(title, {**swept, **trained}, base))
        before = {width: table["before"][f"ours@{width}"] for width in table["widths"] if f"ours@{width}" in table["before"]}
        lines = {"ours": points(table["widths"]), "its head before adapting": points(before)}
        by_width.append(Panel(title, lines if table["widths"] else {}, base))
        labels = regulariser_labels()
        own = {labels[row]: points({str(k): found}) for row, found in table["regularisers"].items()}
        by_term.append(Panel(title, own if len(own) > 1 else {}, base))
    plot_lines(by_k, Axis("support pairs k"), out / "by_k.png")
    plot_lines(by_steps, Axis("inner steps", even=True), out / "by_steps.png")
    plot_lines(by_width, Axis("width D of the head", even=True), out / "by_width.png")
    plot_rows(by_term, out / "by_regulariser.png")


def points(cells: Mapping[str, Any]) -> Points:
    """Acc@1 by x; where it has a gain with this gain's interval, shifted to the base's mean.

    Intervals of Acc@1 itself are mostly how far tasks are apart, which is the same in all rows.
    """
    found: dict[int, tuple[float, list[float] | None]] = {}
    for x, item in cells.items():
        mean, gain, ends = (item["acc@1"].get(part) for part in ("mean", "gain", "gain_interval"))
        found[int(x)] = (mean, None if gain is None else [mean - gain + end for end in ends])
    return found


def _base(found: Mapping[str, Any] | None) -> float | None:
    return None if found is None else float(found["acc@1"]["mean"])
