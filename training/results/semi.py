"""The tables of CVPR 2021 (METHODS B.10), with ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.results.markdown import NOTHING, number, table, with_interval

Json = Mapping[str, Any]

FEWEST = "5"  # percent labelled, where every arm was run
PARTS = {
    "full": "everything",
    "no_weights": "no instance weights",
    "no_teacher": "no teacher",
    "no_attention": "no 2D attention",
    "no_joint": "generator fixed",
}


def retrieval(paper: Json, twin: Json) -> str:
    """Retrieval without unlabelled photos and without adaptation; ours last."""
    rows = [[name, *map(number, values), NOTHING] for name, values in paper["retrieval"]["rows"].items()]
    sets = {"chairv2": "ChairV2", "chairv1": "Chair", "shoev1": "Shoe"}
    ours = []
    for name, title in sets.items():
        figures = twin[name]
        cells = [with_interval(figures[f"acc@{k}"], figures[f"acc@{k}_interval"]) for k in (1, 5, 10)]
        ours.append([f"{title}, {figures['queries']} sketches", *cells])
    return "\n\n".join(
        [
            table(["the paper's, its test sets", *paper["retrieval"]["columns"]], [row[:-1] for row in rows]),
            table(["ours, validation photos", "@1", "@5", "@10"], ours),
        ]
    )


def order(paper: Json, semi: Json) -> str:
    """Supervised, vanilla, full: the paper's with all labels and ours with the fewest."""
    rows = []
    for arm in ("supervised", "vanilla", "full"):
        cell = semi["arms"][arm]["fractions"][FEWEST]
        gain = cell.get("gain")
        rows.append(
            [
                arm,
                *map(number, paper["semi"]["rows"][arm]),
                with_interval(cell["mean"], cell["interval"]),
                NOTHING if gain is None else with_interval(gain["mean"], gain["interval"], sign=True),
                str(len(cell["values"])),
            ]
        )
    header = ["Acc@1", "paper, ChairV2", "paper, ShoeV2", f"ours, ChairV2, {FEWEST} % labelled", "over supervised", "seeds"]
    return table(header, rows)


def fractions(paper: Json, semi: Json) -> str:
    """Acc@1 by the share of photos that keep their sketches."""
    figure = paper["fractions"]
    theirs = {str(percent): index for index, percent in enumerate(figure["percent"])}
    ours = {arm: semi["arms"][arm]["fractions"] for arm in ("supervised", "full")}
    rows = []
    for percent in sorted({*theirs, *ours["supervised"]}, key=int):
        index, cells = theirs.get(percent), {arm: values.get(percent) for arm, values in ours.items()}
        full = cells["full"]
        gain = None if full is None else full.get("gain")
        rows.append(
            [
                f"{percent} %",
                *(NOTHING if index is None else number(figure[arm][index]) for arm in ("supervised", "full")),
                *(NOTHING if cell is None else number(cell["mean"]) for cell in cells.values()),
                NOTHING if gain is None else with_interval(gain["mean"], gain["interval"], sign=True),
                NOTHING if full is None else str(len(full["values"])),
            ]
        )
    header = ["labelled", "paper: supervised", "full", "ours: supervised", "full", "full over supervised", "seeds"]
    return table(header, rows)


def parts(paper: Json, semi: Json) -> str:
    """The full method without one part."""
    rows = []
    for arm, title in PARTS.items():
        cell = semi["arms"].get(arm, {"fractions": {}})["fractions"].get(FEWEST)
        value = NOTHING if cell is None else with_interval(cell["mean"], cell["interval"])
        rows.append([title, number(paper["parts"]["rows"][arm]), value, NOTHING if cell is None else str(len(cell["values"]))])
    return table(["Acc@1", "paper, ShoeV2", f"ours, ChairV2, {FEWEST} % labelled", "seeds"], rows)


def generation(paper: Json, generator: Json) -> str:
    """What generated sketches are worth by themselves."""
    rows = []
    for name, title in (("chairv2", "ChairV2"), ("shoev1", "ShoeV2; ours: Shoe")):
        figures = generator[name]["sets"][name]
        drawn, found = figures["recognition"]["drawn"], figures["retrieval"]["drawn"]
        cells = [with_interval(part[key], part[f"{key}_interval"]) for part in (drawn, found) for key in ("acc@1", "acc@10")]
        rows.append([f"{title}, paper", *map(number, paper["generation"]["rows"][name])])
        rows.append([f"{title}, ours", *cells, number(figures["fid"]["fid"])])
    return table(["", "Rec@1", "Rec@10", "Ret@1", "Ret@10", "FID"], rows)
