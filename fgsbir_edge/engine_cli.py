"""The commands ``fgsbir-edge engine build``, ``list`` and ``clear``; ``python -m export.tensorrt`` is the first of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from time import localtime, strftime
from typing import TYPE_CHECKING

from fgsbir_edge.arguments import positive
from fgsbir_edge.console import Stages, put, put_json, say
from fgsbir_edge.encoder.trt_build import MAX_LEVEL, BuildOptions
from fgsbir_edge.errors import EngineBuildError

if TYPE_CHECKING:
    from fgsbir_edge.bundle import Bundle
    from fgsbir_edge.encoder.engine_folder import EngineFolder

ENGINES = "Build, list and clear TensorRT's engines on this device."
BUILD = "Build TensorRT's engine of a model on this device, or find it among those built before."


def add_engine_commands(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``fgsbir-edge engine``."""
    commands = parser.add_subparsers(dest="engine_command", required=True, metavar="COMMAND")
    build = commands.add_parser("build", help=BUILD, description=BUILD)
    add_build_arguments(build)
    text = "List the engines that are kept: file, MiB, last use, what for."
    listing = commands.add_parser("list", help=text, description=text)
    listing.set_defaults(run=list_command)
    text = "Remove every engine and timing cache; the next use builds again."
    clear = commands.add_parser("clear", help=text, description=text)
    clear.set_defaults(run=clear_command)
    for one in (listing, clear):
        one.add_argument("--folder", metavar="DIR", type=Path, help="where engines are kept ($FGSBIR_ENGINES, else in ~/.cache)")
        one.add_argument("--json", action="store_true", help="print one JSON object")


def add_build_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``build`` takes."""
    parser.set_defaults(run=build_command)
    parser.add_argument("--bundle", metavar="DIR", help="model folder (the one in the package)")
    parser.add_argument("--sketches", action="store_true", help="of a bundle with two encoders, that of sketches")
    parser.add_argument(
        "--variant", default="fp32", help="of the bundle, which decides the precision: fp32 (default), fp16, int8, ..."
    )
    parser.add_argument(
        "--batches",
        type=positive,
        nargs=3,
        action="append",
        metavar="N",
        help="smallest, best-served and largest batch of a profile; repeatable (1 1 1 and 1 8 64)",
    )
    parser.add_argument("--memory", type=positive, metavar="MIB", help="scratch memory at most, in MiB (TensorRT's own limit)")
    parser.add_argument(
        "--level", type=int, choices=range(MAX_LEVEL + 1), default=3, help="how much is tried: 0 little, 5 most (3)"
    )
    parser.add_argument("--tf32", action="store_true", help="let float32 products be rounded to 10 bits")
    parser.add_argument("--details", action="store_true", help="keep layer names and shapes in the engine, for profilers")
    parser.add_argument("--rtx", action="store_true", help="build with TensorRT-RTX, which also runs where there is no GPU")
    parser.add_argument(
        "--target", action="append", default=[], metavar="SM", help="with --rtx: build for this GPU, 8.6 say; repeatable"
    )
    parser.add_argument("--dry-run", action="store_true", help="build nothing: say which nodes TensorRT does not take")
    parser.add_argument("--folder", metavar="DIR", type=Path, help="where engines are kept ($FGSBIR_ENGINES, else in ~/.cache)")
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="pass TensorRT's log on: -v warnings, -vv more, -vvv all"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def build_command(arguments: argparse.Namespace, _: Stages) -> int:
    """Build, or find; with --dry-run only say what TensorRT lacks."""
    from fgsbir_edge.bundle import Bundle
    from fgsbir_edge.encoder.engine_cache import cached_engine
    from fgsbir_edge.encoder.engine_file import read_header

    bundle = Bundle.default() if arguments.bundle is None else Bundle.load(arguments.bundle)
    bundle = bundle.for_sketches if arguments.sketches else bundle
    options = _options(arguments)
    if arguments.dry_run:
        return _dry_run(bundle, arguments, options)
    path = cached_engine(bundle, arguments.variant, options, say=say, folder=_folder(arguments))
    header = read_header(path)
    if arguments.json:
        put_json({"engine": str(path), "bytes": header.size, **header.facts})
    else:
        put(f"{path}\t{header.size / 2**20:.1f} MiB\tbuilt in {header.facts['seconds']} s")
    return 0


def _dry_run(bundle: Bundle, arguments: argparse.Namespace, options: BuildOptions) -> int:
    from fgsbir_edge.encoder.trt_api import load
    from fgsbir_edge.encoder.trt_build import check_onnx

    troubles = check_onnx(bundle.encoder_bytes(arguments.variant), options)
    library = load(options.library)
    if arguments.json:
        rows = [{"node": one.node, "operator": one.operator, "reason": one.reason} for one in troubles]
        put_json({"bundle": bundle.name, "variant": arguments.variant, library.name: library.version, "unsupported": rows})
    else:
        for one in troubles:
            put(str(one))
        if not troubles:
            put(f"{bundle.name} {arguments.variant}: {library.name} {library.version} takes every node")
    return EngineBuildError.exit_code if troubles else 0


def list_command(arguments: argparse.Namespace, _: Stages) -> int:
    """What is kept, the latest used first."""
    folder = _folder(arguments)
    entries = sorted(folder.entries(), key=lambda entry: -entry.used)
    if arguments.json:
        rows = [{"file": str(e.path), "bytes": e.size, "used": int(e.used), "problem": e.problem, **e.facts} for e in entries]
        put_json({"folder": str(folder.path), "engines": rows})
        return 0
    for entry in entries:
        used = strftime("%Y-%m-%d %H:%M", localtime(entry.used))
        put(f"{entry.path.name[:12]}\t{entry.size / 2**20:.1f}\t{used}\t{entry.problem or _purpose(entry.facts)}")
    return 0


def clear_command(arguments: argparse.Namespace, _: Stages) -> int:
    """Remove all of them."""
    folder = _folder(arguments)
    count = folder.clear(say)
    if arguments.json:
        put_json({"folder": str(folder.path), "removed": count})
    else:
        put(f"{folder.path}: engines removed: {count}")
    return 0


def _purpose(facts: dict[str, object]) -> str:
    wanted = facts.get("for")
    made = wanted if isinstance(wanted, dict) else {}
    batches = " and ".join("/".join(map(str, one)) for one in made.get("profiles", []))
    return f"{facts.get('name')}, batches {batches}, {made.get('library')} {made.get('tensorrt')}, GPU {made.get('gpu_name')}"


def _folder(arguments: argparse.Namespace) -> EngineFolder:
    from fgsbir_edge.encoder.engine_folder import EngineFolder

    return EngineFolder.default() if arguments.folder is None else EngineFolder(arguments.folder)


def _options(arguments: argparse.Namespace) -> BuildOptions:
    return BuildOptions(
        profiles=tuple((low, best, high) for low, best, high in arguments.batches or BuildOptions.profiles),
        memory=None if arguments.memory is None else arguments.memory * 2**20,
        level=arguments.level,
        tf32=arguments.tf32,
        details=arguments.details,
        targets=tuple(arguments.target),
        library="tensorrt_rtx" if arguments.rtx else "tensorrt",
        verbosity=arguments.verbose,
    )
