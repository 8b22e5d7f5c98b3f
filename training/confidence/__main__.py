"""Fit the confidence of a model's answers, and say how well it holds.

``python -m training.confidence --model BUNDLE --data FOLDER... --twin TWIN --twin-data FOLDER... --out F.json``

Nothing is fitted to what the model has trained on: queries are the validation sets of the folders' splits. Where a released model
was trained on a dataset whole, ``--twin`` names one of the same recipe that was not, and ``--twin-data`` the folders that it
answers for. ``--last-look`` folders have people or categories that splits keep for reports; nothing is fitted to these either.

The file's "confidence" is what ``python -m export.bundle --confidence F.json`` puts into a bundle.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fgsbir_edge.console import put_json, run, say
from fgsbir_edge.errors import PairsFormatError
from fgsbir_edge.files import write_atomic
from training.confidence.data import Coder, Domain, Queries, build, held_out, last_look
from training.confidence.study import constants, study
from training.confidence.study import last_look as look
from training.confidence.trials import Trials, draw, draw_adapted

DIGITS = 4


def fit_and_judge(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the file holds."""
    coder = Coder(arguments.model, arguments.cache, arguments.threads)
    own = build(coder, [held_out(root) for root in arguments.data])
    domains, models = list(own), {"model": _described(coder, own)}
    if arguments.twin is not None:
        twin = Coder(arguments.twin, arguments.cache, arguments.threads)
        photos = [_with_category(text) for text in arguments.photos]
        theirs = build(twin, [held_out(root) for root in arguments.twin_data], photos)
        domains, models = domains + theirs, models | {"twin": _described(twin, theirs)}
    say(f"sketches: {', '.join(f'{domain.name} {len(domain.sketches)}' for domain in domains)}")
    trials = Trials.joined(_trials(domains, own, arguments.turns))
    confidence, shares = constants(trials)
    found = study(trials, confidence, shares)
    if arguments.last_look:
        kept: list[Queries] = [last_look(root) for root in arguments.last_look]
        others = build(coder, kept)
        found["last look"] = look(Trials.joined(_trials(others, others, arguments.turns)), confidence)
    facts = {"turns": arguments.turns, "largest gallery": int(trials.searches.sizes.max()), **models}
    summary = {what: {key: found["all"][what][key] for key in ("ece", "auroc")} for what in ("first", "in gallery")}
    confidence = replace(confidence, provenance=_rounded({**facts, "figures": summary}))
    return dict(_rounded({"confidence": confidence.to_manifest(), **facts, **found}))


def _trials(domains: Sequence[Domain], adapting: Sequence[Domain], turns: int) -> list[Trials]:
    return [draw(one, turns, 0) for one in domains] + [draw_adapted(one, turns, 0) for one in adapting]


def _described(coder: Coder, domains: Sequence[Domain]) -> dict[str, Any]:
    """Never where it lay: the head says which model it is."""
    counts = {domain.name: {"sketches": len(domain.sketches), "units": len(np.unique(domain.units))} for domain in domains}
    return {"head": coder.head.digest, "photos": len(domains[0].pool.names), "domains": counts}


def _with_category(text: str) -> tuple[Path, str]:
    path, sign, category = text.rpartition("=")
    if not sign or not category:
        raise PairsFormatError(f"--photos {text}: give a folder and the category of its photos, as FOLDER=CATEGORY")
    return Path(path), category


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    if isinstance(value, float):
        return round(value, DIGITS) if np.isfinite(value) else None
    return value


def write(arguments: argparse.Namespace) -> int:
    """Fit, judge and write the JSON file, whole or not at all; stdout gets the constants."""
    result = fit_and_judge(arguments)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(arguments.out, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
    put_json(result["confidence"])
    return 0


def parser() -> argparse.ArgumentParser:
    text = (__doc__ or "").partition("\n\n")
    options = argparse.ArgumentParser(prog="python -m training.confidence", description=text[0], epilog=text[2])
    options.add_argument("--model", type=Path, required=True, help="bundle folder or checkpoint")
    options.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="FOLDER", help="datasets it has not trained on whole"
    )
    options.add_argument("--twin", type=Path, metavar="MODEL", help="the same recipe with photos of --twin-data held back")
    options.add_argument("--twin-data", type=Path, nargs="+", default=[], metavar="FOLDER")
    options.add_argument(
        "--photos", nargs="+", default=[], metavar="FOLDER=CATEGORY", help="further photos for the twin's galleries"
    )
    options.add_argument("--last-look", type=Path, nargs="+", default=[], metavar="FOLDER", help="drawings32, sketchy")
    options.add_argument("--turns", type=int, default=8, help="searches with every sketch (8)")
    options.add_argument("--cache", type=Path, metavar="DIR", help="keeps features between runs")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--out", type=Path, required=True, metavar="F.json")
    return options


def main() -> int:
    options = parser()
    arguments = options.parse_args()
    if (arguments.twin is None) != (not arguments.twin_data):
        options.error("--twin and --twin-data go together")
    if arguments.turns < 1:
        options.error("--turns must be at least 1")
    return run(lambda: write(arguments))


if __name__ == "__main__":
    sys.exit(main())
