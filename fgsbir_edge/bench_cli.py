"""The command ``fgsbir-edge bench``: times each backend by stage, and keeps the fastest for ``Engine.open``."""

from __future__ import annotations

import argparse
import datetime
from typing import TYPE_CHECKING, Any

from fgsbir_edge.arguments import positive
from fgsbir_edge.console import Stages, by_reason, put, put_json, say

if TYPE_CHECKING:
    from fgsbir_edge.bench import Report, Times
    from fgsbir_edge.bundle import Bundle
    from fgsbir_edge.encoder.backends import Setting

DESCRIPTION = "Time each backend that is here by stage, and use the fastest from now on."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--bundle", metavar="DIR", help="model folder (the one in the package)")
    parser.add_argument(
        "--encode",
        choices=("sketches", "photos"),
        default="sketches",
        help="which encoder, of a bundle with two: that of queries (default), or that of photos",
    )
    parser.add_argument("--gallery", metavar="FILE", help="search over this gallery (over the photos in the package)")
    parser.add_argument("--backends", metavar="NAMES", help="separated by commas (all)")
    parser.add_argument("--variants", metavar="NAMES", help="of the bundle, separated by commas (all it has)")
    parser.add_argument("--runs", type=positive, default=200, help="timed runs of each stage (200)")
    parser.add_argument("--threads", type=positive, help="processor threads (the cores there are, at most 4)")
    parser.add_argument("--no-store", action="store_true", help="change nothing about what is used")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def bench_command(arguments: argparse.Namespace, _: Stages) -> int:
    """Run the command; returns its exit code."""
    from fgsbir_edge import jetson
    from fgsbir_edge.bench import Plan, as_json, bench_encoders, bench_rest
    from fgsbir_edge.bundle import Bundle
    from fgsbir_edge.encoder.backends import CPU
    from fgsbir_edge.encoder.choose import hardware, software
    from fgsbir_edge.engine import Engine
    from fgsbir_edge.jetson_watch import Watch
    from fgsbir_edge.pairs import DEMO_FOLDER

    bundle = Bundle.default() if arguments.bundle is None else Bundle.load(arguments.bundle)
    side = bundle.for_sketches if arguments.encode == "sketches" else bundle
    settings = _settings(side, arguments)
    plan = Plan(arguments.runs, max(1, arguments.runs // 10), arguments.threads)
    photos = DEMO_FOLDER / "photos" if arguments.gallery is None else None
    with Watch() as watch:
        report = bench_encoders(side, settings, plan, say)
        say("head, search, adapt ...")
        with Engine.open(
            bundle=bundle, gallery=arguments.gallery, photos=photos, threads=arguments.threads, backend=CPU
        ) as engine:
            rest, size = bench_rest(engine, plan), len(engine.gallery)
    facts: dict[str, Any] = {
        "bundle": side.name,
        "photos": size,
        "machine": hardware(),
        "software": software(),
        "jetson": jetson.state(),
        "while_running": watch.summary(),
        **as_json(report, rest),
        "stored": None if arguments.no_store else _store(side, report),
    }
    if arguments.json:
        put_json(facts)
    else:
        for line in _lines(facts, report, rest):
            put(line)
    return 0


def _settings(bundle: Bundle, arguments: argparse.Namespace) -> list[Setting]:
    """What to measure. Raises what Setting and ``Bundle.variant`` raise for names that there are not."""
    from fgsbir_edge.encoder.backends import BACKENDS, Setting

    backends = arguments.backends.split(",") if arguments.backends else list(BACKENDS)
    variants = arguments.variants.split(",") if arguments.variants else list(bundle.variants)
    for variant in variants:
        bundle.variant(variant)
    return [Setting(backend, variant, arguments.threads) for backend in backends for variant in variants]


def _store(bundle: Bundle, report: Report) -> str | None:
    """Keep the fastest; returns its file, None where there is nothing to keep or nowhere to keep it, which is said."""
    from fgsbir_edge.bench import as_json
    from fgsbir_edge.encoder.choose import Choice, software, store
    from fgsbir_edge.errors import OutputError

    if report.fastest is None:
        return None
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    try:
        return str(store(bundle, Choice(report.fastest.setting, today, software(), as_json(report, {}))))
    except OutputError as error:
        say(f"the choice is not kept: {error}")
        return None


def _lines(facts: dict[str, Any], report: Report, rest: dict[str, Times]) -> list[str]:
    machine, jetson, seen = facts["machine"], facts["jetson"], facts["while_running"]
    lines = [
        f"bundle {facts['bundle']}, {facts['photos']} photos; {machine['model'] or machine['machine']}, {machine['cores']} cores"
    ]
    if jetson is not None:
        clocks = "pinned" if jetson["clocks_pinned"] else "not pinned: figures vary; sudo jetson_clocks pins them"
        gpu = jetson["clocks_mhz"].get("GPU")
        text = "" if gpu is None else f", GPU {gpu['least']:g} to {gpu['largest']:g} MHz"
        lines.append(f"L4T {jetson['l4t']}, power mode {jetson['power_mode']}, clocks {clocks}{text}")
    if seen is not None:
        lines.append("while running: " + ", ".join(f"{name} {value}" for name, value in seen.items() if value is not None))
    lines.append(f"{'milliseconds':<22}{'stage':<8}{'p50':>9}{'p90':>9}{'p99':>9}")
    for one in report.measured:
        lines += [_line(one.setting.name, stage, times) for stage, times in one.stages.items()]
        agrees = "replayed CUDA graph, " if one.replayed else ""
        lines.append(f"{'':<22}{agrees}cosine to onnx-cpu fp32 at least {one.agreement:.6f}")
    lines += [_line("all backends", stage, times) for stage, times in rest.items()]
    lines += [f"left out: {names}: {reason}" for names, reason in by_reason(report.left_out)]
    if report.fastest is None:
        return [*lines, "no backend agrees with onnx-cpu fp32: nothing is chosen"]
    where = "not stored" if facts["stored"] is None else f"used from now on ({facts['stored']})"
    return [*lines, f"fastest: {report.fastest.setting.name}, {where}"]


def _line(name: str, stage: str, times: Times) -> str:
    return f"{name:<22}{stage:<8}{times.p50:>9.3f}{times.p90:>9.3f}{times.p99:>9.3f}"
