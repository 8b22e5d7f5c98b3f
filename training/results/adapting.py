"""The tables of ECCV 2022 (METHODS C.8), with ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.results.markdown import NOTHING, gained, number, table, with_interval

Json = Mapping[str, Any]

TITLES = {
    "none": "no adaptation",
    "regularised": "baseline + regularisers",
    "upper": "upper bound",
    "ccdg": "CC-DG",
    "finetune": "fine-tuning",
    "maml": "MAML",
    "sign_maml": "sign-MAML",
    "anil": "ANIL",
    "ours": "ours",
}
SETTINGS = ("category", "person")
KS = ("1", "5", "10")
REGULARISERS = {
    "ours": "all",
    "ours-domain": "without the domain discriminator",
    "ours-semantic": "without the semantic decoder",
    "ours-category": "without the category classifier",
    "ours-intra": "without the triplet of one photo",
    "classifier alone": "category classifier alone",
    "ours-all": "none",
}


def without(paper: Json, adaptation: Json) -> str:
    """Rows that look at no pairs; ours in the episodes of k = 5."""
    rows = []
    for name, theirs in paper["adaptation"]["none"].items():
        rows.append([TITLES[name], *_theirs(theirs), *(_ours(adaptation, setting, name, "5") for setting in SETTINGS)])
    return table(_header("", ["ours, categories", "ours, people"]), rows)


def adapted(paper: Json, adaptation: Json) -> str:
    """Rows that adapt, by the number of pairs."""
    rows = []
    for name, by_k in paper["adaptation"]["adapted"].items():
        for k in KS:
            ours = [_ours(adaptation, setting, name, k) for setting in SETTINGS]
            rows.append([TITLES[name], k, *_theirs(by_k[k]), *ours])
    header = _header("", ["ours, categories", "ours, people"])
    return table([header[0], "k", *header[1:]], rows)


def regularisers(paper: Json, adaptation: Json) -> str:
    """The full method without one regulariser or without all, k = 5; ours over fixed features."""
    rows = []
    for name, title in REGULARISERS.items():
        cells = [adaptation["settings"][setting]["regularisers"].get(name) for setting in SETTINGS]
        ours = [NOTHING if cell is None else gained(cell) for cell in cells]
        rows.append([title, *_theirs(paper["regularisers"]["rows"][name]), *ours])
    return table(["Acc@1, k = 5", "paper: Sketchy", "ShoeV2", "ours, categories", "ours, people"], rows)


def steps(paper: Json, adaptation: Json) -> str:
    """A head trained for one inner step, after none to 20 of them, k = 5."""
    return _curve("inner steps", paper["steps"], {name: adaptation["settings"][name]["steps"]["ours"] for name in SETTINGS})


def widths(paper: Json, adaptation: Json) -> str:
    """The full method with heads of other widths, k = 5."""
    return _curve("width of the head", paper["widths"], {name: adaptation["settings"][name]["widths"] for name in SETTINGS})


def _curve(axis: str, paper: Json, ours: Json) -> str:
    rows = []
    for x in sorted({*ours["category"], *paper["category"]}, key=int):
        theirs = _theirs([paper[name].get(x) for name in SETTINGS])
        cells = [ours[name].get(x) for name in SETTINGS]
        rows.append([x, *theirs, *(NOTHING if cell is None else gained(cell) for cell in cells)])
    return table([axis, "paper: Sketchy", "ShoeV2", "ours, categories", "ours, people"], rows)


def released(default: Json) -> str:
    """The shipped model with the guard, on what was held back."""
    rows = []
    categories = default["sketchy 12 categories never seen"]
    people = default["drawings32 20 people, 16 objects never seen"]
    for title, figures in (
        ("12 categories, k = 1", categories["k=1"]["guarded"]),
        ("12 categories, k = 5", categories["k=5"]["guarded"]),
        ("12 categories, k = 10", categories["k=10"]["guarded"]),
        ("20 people, 16 new objects, k = 5", people["guarded"]),
    ):
        gain = figures["after@1"] - figures["before@1"]
        cells = [number(figures[f"{when}@{n}"]) for n in (1, 5) for when in ("before", "after")]
        rows.append([title, *cells, with_interval(gain, figures["gain@1_interval"], sign=True)])
    return table(["", "Acc@1 before", "after", "Acc@5 before", "after", "gain Acc@1"], rows)


def _header(first: str, ours: Sequence[str]) -> list[str]:
    return [first, "paper: Sketchy @1", "@5", "ShoeV2 @1", "@5", *ours]


def _theirs(values: Sequence[float | None]) -> list[str]:
    return [number(value) for value in values]


def _ours(adaptation: Json, setting: str, name: str, k: str) -> str:
    cell = adaptation["settings"][setting]["methods"].get(name, {}).get(k)
    return NOTHING if cell is None else gained(cell)
