"""Photos of a large folder into shards, on several processes or machines: ``python -m training.bulk_encode --folder PHOTOS ...``.

The photos' names are sorted and cut into shards; of these each process takes every n-th, encodes what the folder holds as
``fgsbir-edge index`` would, with the bundle's own encoder, and writes it whole or not at all. Started again, also with another
number of processes, it keeps the shards that are whole and whose photos have not changed. ``fgsbir-edge gallery merge`` makes a
gallery of them.

Processes are started by Lightning Fabric (``--devices``), by torchrun, or by hand on each machine with ``--num-nodes`` and the
variables NODE_RANK, MASTER_ADDR and MASTER_PORT.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from fgsbir_edge.arguments import positive
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.console import put_json, run, say
from fgsbir_edge.encoder.backends import BACKENDS, CPU, Setting, missing, open_encoder
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import EmptyGalleryError, OutputError, UnreadableImageError
from fgsbir_edge.gallery import Gallery
from fgsbir_edge.gallery.folder import BATCH, photo_names
from fgsbir_edge.gallery.shards import MOST_PHOTOS, SUFFIX, Part
from fgsbir_edge.gallery.store import MEMORY
from fgsbir_edge.head import digest_of
from training.bulk_shard import Encoding, encode_shard, kept_shard
from training.processes import launch

AUTO = ("onnx-cuda", CPU)
PER_SHARD = 1024
LONG = timedelta(days=30)  # that a process may wait for the others at the end


@dataclass(frozen=True)
class Counts:
    """What one process did."""

    photos: int = 0
    encoded: int = 0
    shards: int = 0
    kept: int = 0
    skipped: tuple[str, ...] = ()


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="python -m training.bulk_encode", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = options.add_argument
    add("--folder", type=Path, required=True, help="folder of photos: JPEG, PNG, WebP, BMP")
    add("--model", type=Path, help="bundle folder (the one in the package)")
    add("--out", type=Path, required=True, metavar="SHARDS", help="folder for the shards; made where there is none")
    add("--category", default="folder", help="'folder': the sub-folder's name (default); or one name for all")
    add("--no-recursive", action="store_true", help="leave sub-folders out")
    add("--per-shard", type=_per_shard, default=PER_SHARD, help=f"photos to a shard, a multiple of {BATCH} ({PER_SHARD})")
    many = options.add_argument_group("processes")
    many.add_argument("--devices", type=positive, help="processes on each machine (1); on GPUs they take turns")
    many.add_argument("--num-nodes", type=positive, help="machines (1)")
    many.add_argument("--threads", type=positive, default=1, help="processor threads of each process's encoder (1)")
    many.add_argument("--backend", choices=("auto", *BACKENDS), default="auto", help=f"of the encoder; auto: {' or '.join(AUTO)}")
    many.add_argument("--variant", default="fp32", help="of the bundle (fp32)")
    return options


def _per_shard(text: str) -> int:
    value = positive(text)
    if value % BATCH or value > MOST_PHOTOS:
        raise argparse.ArgumentTypeError(f"{value} is no multiple of {BATCH} up to {MOST_PHOTOS}")
    return value


def launched(devices: int | None, nodes: int | None) -> Any:
    """A Fabric with its processes started. Under torchrun their number is torchrun's, unless it is given."""
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    devices = here if devices is None else devices
    nodes = int(os.environ.get("WORLD_SIZE", "1")) // here if nodes is None and "LOCAL_WORLD_SIZE" in os.environ else nodes or 1
    alone = devices * nodes == 1
    # the strategy is the processor's on GPUs too: nothing but counts goes from one process to another
    strategy = "auto" if alone else DDPStrategy(process_group_backend="gloo", timeout=LONG)
    fabric = Fabric(accelerator="cpu", devices=devices, num_nodes=nodes, strategy=strategy)
    launch(fabric)
    return fabric


def encode_folder(arguments: argparse.Namespace, fabric: Any) -> int:
    """This process's shards; the first process prints what all have done."""
    begun = time.monotonic()
    rank, world = int(fabric.global_rank), int(fabric.world_size)
    bundle = Bundle.default() if arguments.model is None else Bundle.load(arguments.model)
    names = photo_names(arguments.folder, not arguments.no_recursive)
    if not names:
        raise EmptyGalleryError(f"{arguments.folder}: no JPEG, PNG, WebP or BMP photos in it; give a folder that has some")
    parts = [names[start : start + arguments.per_shard] for start in range(0, len(names), arguments.per_shard)]
    name = digest_of(arguments.category.encode(), str(arguments.per_shard).encode(), *(_bytes(one) for one in names))
    if len(set(gathered(fabric, name))) > 1:
        raise UnreadableImageError(
            f"{arguments.folder}: not the same photos for all processes; give all the same, and wait for copies"
        )
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{arguments.out}: cannot be made ({error.strerror}); choose a writable folder") from error
    setting = chosen(arguments, int(os.environ.get("LOCAL_RANK", "0")))
    engine = Engine(bundle, open_encoder(bundle, setting, say=say), Gallery.open_or_create(MEMORY, bundle))
    encoding = Encoding(engine, arguments.folder, arguments.out, arguments.category, None if rank == 0 else False)
    counts = Counts()
    for number in range(rank, len(parts), world):
        part = Part(bundle.features_digest, bundle.head.features, name, number, len(parts))
        kept = kept_shard(encoding, part, parts[number])
        shard = kept or encode_shard(encoding, part, parts[number])
        counts = Counts(
            counts.photos + len(shard.files),
            counts.encoded + (0 if kept else len(shard.files)),
            counts.shards + 1,
            counts.kept + (kept is not None),
            (*counts.skipped, *(one.name for one in shard.failed)),
        )
    everyone = gathered(fabric, counts)  # waits for all
    if rank == 0:
        _remove_outdated(arguments.out, len(parts))
        put_json({**_summed(everyone), "processes": world, "encoder": engine.encoder.name, "seconds": _seconds(begun)})
    return 0


def chosen(arguments: argparse.Namespace, local_rank: int) -> Setting:
    """How this process runs the encoder: processes on one machine take its GPUs in turn."""
    backend = arguments.backend
    if backend == "auto":
        backend = next(name for name in AUTO if name == CPU or not missing(name))
    return Setting(backend, arguments.variant, arguments.threads, device=local_rank % max(1, torch.cuda.device_count()))


def gathered(fabric: Any, value: Any) -> list[Any]:
    """Everyone's value, by rank."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def _bytes(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _summed(everyone: list[Counts]) -> dict[str, Any]:
    sums: dict[str, Any] = {
        field: sum(getattr(one, field) for one in everyone) for field in ("photos", "encoded", "shards", "kept")
    }
    return {**sums, "skipped": sorted(name for one in everyone for name in one.skipped)}


def _seconds(begun: float) -> float:
    return round(time.monotonic() - begun, 2)


def _remove_outdated(out: Path, of: int) -> None:
    """Shards of a folder that has changed since: of another number of parts."""
    for path in out.glob(f"*-of-*{SUFFIX}"):
        if path.name.removesuffix(SUFFIX).rpartition("-")[2] != f"{of:05d}":
            path.unlink()


def main() -> int:
    arguments = parser().parse_args()
    work: Callable[[], int] = lambda: encode_folder(arguments, launched(arguments.devices, arguments.num_nodes))  # noqa: E731
    return run(work)


if __name__ == "__main__":
    sys.exit(main())
