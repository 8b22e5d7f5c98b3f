"""Bundles and their variants measured side by side: ``python -m export.parity_table BUNDLE ... --check DATA --json FILE``.

Prints a Markdown table. With ``--checkpoint`` PyTorch is the reference of fp32 (one bundle at a time, then); without it fp32 is
what the variants are compared with.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from export.provenance import file_sha256, folder_sha256, versions
from export.variants import QUERIES, Plan, measure
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.console import put, run
from fgsbir_edge.files import write_atomic
from training.data.folder import PairsFolder
from training.evaluate_table import GalleryRule
from training.evaluation import Encode

_HEAD = (
    "| bundle | variant | Acc@1 | Acc@5 | Acc@10 | Acc@1 among fp32 photos | cosine, least | cosine, mean | adversarial, least "
    "| batches differ by | ranks changed | MB |"
)


def rows(name: str, bundle: Bundle, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Markdown rows of one bundle, a row for each entry of ``measure``."""
    lines = []
    for variant, entry in found.items():
        accuracy, parity = entry["accuracy"], entry.get("parity")
        cells = [name, variant, *(f"{accuracy[f'acc@{at}']:.2f}" for at in (1, 5, 10))]
        mixed = accuracy.get("acc@1_among_fp32_photos")
        cells.append("" if mixed is None else f"{mixed:.2f}")
        if parity is None:
            cells += [""] * 5
        else:
            adversarial = parity["adversarial"]
            cells += [f"{parity['cosine_min']:.6f}", f"{parity['cosine_mean']:.6f}", f"{min(adversarial['cosine'].values()):.6f}"]
            cells += [
                f"{adversarial['largest_difference_between_batches']:.0e}",
                f"{parity['ranks_changed']}/{parity['queries']}",
            ]
        cells.append(f"{bundle.variants[variant].size / 1e6:.1f}" if variant in bundle.variants else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def table(arguments: argparse.Namespace) -> int:
    """Measure, print, and write the JSON file if one is wanted."""
    check = PairsFolder.read(arguments.check, arguments.pairs)
    plan = Plan(pairs=arguments.pairs, gallery=arguments.gallery, queries=arguments.queries, threads=arguments.threads)
    queries = plan.table(check)
    result: dict[str, Any] = {
        "data": {
            "folder": check.root.resolve().name,
            "sha256": folder_sha256(check.root),
            "pairs": arguments.pairs,
            "gallery": arguments.gallery,
            "queries": len(queries.pairs),
            "photos": len(queries.photos),
        },
        "packages": versions(),
        "bundles": {},
    }
    lines = [_HEAD, "|" + "---|" * (_HEAD.count("|") - 1)]
    for path in arguments.bundles:
        bundle = Bundle.load(path)
        references = {"PyTorch": _pytorch(arguments)} if arguments.checkpoint else {}
        found = measure(bundle, queries, references, arguments.threads)
        made = {name: dict(variant.made) for name, variant in bundle.variants.items() if variant.made}
        entry: dict[str, Any] = {"encoder_sha256": bundle.encoder_sha256, "measured": found, "made": made}
        if arguments.checkpoint:
            entry["checkpoint_sha256"] = file_sha256(arguments.checkpoint)
        result["bundles"][bundle.name] = entry
        lines += rows(bundle.name, bundle, found)
    if arguments.json is not None:
        write_atomic(arguments.json, (json.dumps(result, indent=2) + "\n").encode())
    put("\n".join(lines))
    return 0


def _pytorch(arguments: argparse.Namespace) -> Encode:
    import torch

    from training.checkpoint import load_model
    from training.evaluation import torch_encode

    torch.set_num_threads(arguments.threads)
    return torch_encode(load_model(arguments.checkpoint)[0])


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m export.parity_table", description=__doc__)
    options.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    options.add_argument("--check", type=Path, required=True, help="dataset folder")
    options.add_argument("--pairs", default="pairs.csv", help="table inside it")
    options.add_argument("--gallery", choices=get_args(GalleryRule), default="category", help="what a sketch is searched among")
    options.add_argument("--queries", type=int, default=QUERIES, help="rows of that table at most")
    options.add_argument("--checkpoint", type=Path, help="what the one bundle was exported from")
    options.add_argument("--json", type=Path, help="file for the figures")
    options.add_argument("--threads", type=int, default=2)
    arguments = options.parse_args()
    if arguments.checkpoint is not None and len(arguments.bundles) > 1:
        options.error("--checkpoint goes with one bundle")
    return run(lambda: table(arguments))


if __name__ == "__main__":
    sys.exit(main())
