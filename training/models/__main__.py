"""Backbones side by side: ``python -m training.models`` prints parameters and multiply-accumulates.

Backbones are cut behind their default stages; "encoder" adds attention, grid pooling and a projection to 512 features.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch

from fgsbir_edge.console import put, put_json, run, say
from training.models.count import count, latency
from training.models.encoder import EncoderConfig, build_encoder
from training.models.registry import backbone_info, backbone_names
from training.models.timm_backbone import import_timm

SIZES = (160, 224, 256)


def row(name: str, sizes: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Figures of one backbone; latency where `rounds` is not 0."""
    info = backbone_info(name)
    figures: dict[str, Any] = {
        "backbone": name,
        "stages": list(info.default),
        "grids": list(info.grids),
        "weights": list(info.weights),
    }
    for size in sizes:
        with torch.device("cpu" if rounds else "meta"):  # counting needs no numbers
            encoder = build_encoder(EncoderConfig(size=size, backbone=name), seed=0)
        whole = count(encoder, size)
        figures |= {"parameters": encoder.backbone.parameter_count(), "encoder_parameters": whole.parameters}
        figures[f"macs_{size}"] = whole.macs
        if rounds:
            figures[f"milliseconds_{size}"] = round(latency(encoder, size, rounds=rounds), 2)
    return figures


def table(rows: list[dict[str, Any]], sizes: tuple[int, ...], *, timed: bool) -> list[str]:
    """Lines of text, millions of parameters and of multiply-accumulates."""
    heads = ["backbone", "stages", "M params", "encoder"] + [f"M MACs {size}" for size in sizes]
    heads += [f"ms {size}" for size in sizes] if timed else []
    lines = [heads]
    for figures in rows:
        stages = " ".join(f"{stage}/{cells}" for stage, cells in zip(figures["stages"], figures["grids"], strict=True))
        cells = [figures["backbone"], stages, f"{figures['parameters'] / 1e6:.2f}", f"{figures['encoder_parameters'] / 1e6:.2f}"]
        cells += [f"{figures[f'macs_{size}'] / 1e6:.0f}" for size in sizes]
        cells += [f"{figures[f'milliseconds_{size}']:.1f}" for size in sizes] if timed else []
        lines.append(cells)
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]


def _available(name: str) -> bool:
    try:
        if backbone_info(name).needs:
            import_timm()
    except ModuleNotFoundError as error:
        say(f"{name} left out: {error}")
        return False
    return True


def show(arguments: argparse.Namespace) -> int:
    """Print the table; backbones whose package is missing are left out and named."""
    torch.set_num_threads(arguments.threads)
    names = [name for name in arguments.backbone or backbone_names() if _available(name)]
    rows = [row(name, SIZES, arguments.rounds if arguments.latency else 0) for name in names]
    if arguments.json:
        put_json({"torch": torch.__version__, "threads": arguments.threads, "backbones": rows})
    else:
        put("\n".join(table(rows, SIZES, timed=arguments.latency)))
    return 0


def main(words: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(prog="python -m training.models", description=__doc__)
    options.add_argument("--backbone", action="append", choices=backbone_names(), help="this one alone; may be repeated")
    options.add_argument("--latency", action="store_true", help="also time one image on this CPU, in PyTorch")
    options.add_argument("--rounds", type=int, default=20, help="forward passes behind a median")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = options.parse_args(words)
    if min(arguments.rounds, arguments.threads) < 1:
        options.error("--rounds and --threads must be positive")
    return run(lambda: show(arguments))


if __name__ == "__main__":
    sys.exit(main())
