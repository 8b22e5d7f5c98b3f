"""An ONNX file to a TensorRT engine, on the device that is going to run it.

Networks are strongly typed: the arithmetic is what the ONNX file says, tensor by tensor, so precision is chosen by choosing a
variant of the bundle, not by a flag. One source serves TensorRT 10.3 (JetPack 6) to 11.4, and TensorRT-RTX.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fgsbir_edge.encoder.onnx_widen import widened
from fgsbir_edge.encoder.trt_api import RTX, TENSORRT, Library, Messages, Say, load
from fgsbir_edge.encoder.trt_progress import Progress, with_heartbeat
from fgsbir_edge.errors import EngineBuildError

MAX_LEVEL = 5  # of builder_optimization_level, in every release so far
_SHOWN = 3  # errors of the log in one message
_MEMORY_WORDS = ("memory", "workspace", "bad_alloc")


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built. Raises EngineBuildError when a value makes no sense.

    Args:
        profiles: optimisation profiles: smallest, best-served and largest batch of each. A run takes the narrowest that fits: by
            default one for a single sketch, another for galleries.
        memory: bytes of GPU memory a layer may use for scratch while building and running; None: TensorRT's own limit.
        level: 0 (quick to build) to 5 (tries most), TensorRT's builder_optimization_level.
        tf32: let float32 products be rounded to 10 bits of mantissa. Off: fp32 means fp32.
        details: keep layer names and shapes in the engine, for profilers.
        targets: compute capabilities to build for, with TensorRT-RTX alone: ("8.6",). Empty: the GPU at hand.
        library: module to build with, "tensorrt" or "tensorrt_rtx".
        verbosity: what of TensorRT's log is passed on: 0 nothing, 1 warnings, 2 information, 3 everything.
    """

    profiles: tuple[tuple[int, int, int], ...] = ((1, 1, 1), (1, 8, 64))
    memory: int | None = None
    level: int = 3
    tf32: bool = False
    details: bool = False
    targets: tuple[str, ...] = ()
    library: str = TENSORRT
    verbosity: int = 0

    def __post_init__(self) -> None:
        if not self.profiles or not all(1 <= smallest <= best <= largest for smallest, best, largest in self.profiles):
            raise EngineBuildError(
                f"profiles are {self.profiles}, expected 1 <= smallest <= best <= largest batch, as in (1, 8, 64)"
            )
        if self.memory is not None and self.memory < 1:
            raise EngineBuildError(f"memory limit is {self.memory} bytes, expected at least 1; leave it out for TensorRT's own")
        if not 0 <= self.level <= MAX_LEVEL:
            raise EngineBuildError(f"optimisation level is {self.level}, expected 0 to {MAX_LEVEL}")
        if self.library not in (TENSORRT, RTX):
            raise EngineBuildError(f"library is {self.library!r}, expected {TENSORRT!r} or {RTX!r}")
        if self.targets and self.library != RTX:
            raise EngineBuildError(f"targets {', '.join(self.targets)}: only TensorRT-RTX builds for other GPUs; leave them out")

    def facts(self) -> dict[str, Any]:
        """What the engine depends on, as plain JSON values: all but ``verbosity``."""
        values = asdict(self)
        del values["verbosity"]
        return {**values, "profiles": [list(one) for one in self.profiles], "targets": list(self.targets)}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> BuildOptions:
        """The reverse of ``facts``; others among them are left aside. Raises KeyError and EngineBuildError."""
        values = {name: facts[name] for name in cls().facts()}
        profiles = tuple((low, best, high) for low, best, high in facts["profiles"])
        return cls(**{**values, "profiles": profiles, "targets": tuple(facts["targets"])})


@dataclass(frozen=True)
class Trouble:
    """A node that TensorRT does not take, or (with an empty operator) why it does not read the file at all."""

    node: str
    operator: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operator} {self.node!r}: {self.reason}" if self.operator else self.reason


def build_engine(onnx: Path, options: BuildOptions, say: Say) -> bytes:
    """The serialised engine of an ONNX file.

    Args:
        onnx: file with one dynamic dimension, the batch, and all weights inside it.
        options: see there.
        say: takes lines on progress, one every ten seconds at least.

    Raises:
        EngineBuildError: the file is not read, a node is not supported, the profile does not fit, or the build fails.
        TensorrtMissingError: no TensorRT.
    """
    return build_plan(_read(onnx), options, say)[0]


def check_onnx(data: bytes, options: BuildOptions) -> list[Trouble]:
    """What TensorRT has against an ONNX file's bytes; empty: it can be parsed. Nothing is built. Raises TensorrtMissingError."""
    library = load(options.library)
    with library.messages(None) as heard:
        _, _, parser = _parser(library)
        data = widened(data)
        if not parser.supports_model_v2(data):
            return _troubles(parser, heard)
        _, network, parser = _parser(library)  # a parser that has answered this question cannot be used any further
        if not parser.parse(data):
            return _troubles(parser, heard)
    return [] if network.num_inputs else [Trouble("", "", "the model has no inputs")]


def build_plan(data: bytes, options: BuildOptions, say: Say, timing: bytes | None = None) -> tuple[bytes, bytes]:
    """Like ``build_engine`` for a file's bytes; with what was learnt about this GPU's speed in earlier builds.

    Args:
        timing: an earlier timing cache (b"": none yet), or None to do without. Another GPU's is not used.

    Returns:
        The engine, and the timing cache to keep for the next build (b"" without).
    """
    library = load(options.library)
    with library.messages(say, options.verbosity) as heard:
        builder, network, parser = _parser(library)
        if not parser.parse(widened(data)):
            found = "; ".join(str(one) for one in _troubles(parser, heard)[:_SHOWN])
            raise EngineBuildError(
                f"{library.name} {library.version} does not read the model: {found}; 'fgsbir-edge engine build --dry-run' lists "
                "everything, export the bundle again or update TensorRT"
            )
        progress = Progress()
        monitor = progress.monitor(library.trt)
        config = _config(library, builder, options)
        config.progress_monitor = monitor
        for batches in options.profiles:
            _add_profile(builder, network, config, batches, heard)
        cache = None if timing is None or options.library == RTX else _timing_cache(config, timing, say)  # RTX has none
        plan = with_heartbeat(lambda: builder.build_serialized_network(network, config), progress, say)
        if plan is None:
            raise _failure(library, heard, options)
        learnt = b"" if cache is None else bytes(memoryview(config.get_timing_cache().serialize()))
        return bytes(memoryview(plan)), learnt


def _parser(library: Library) -> tuple[Any, Any, Any]:
    """A builder, an empty strongly typed network, and a parser that fills it."""
    trt = library.trt
    builder = trt.Builder(library.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    return builder, network, trt.OnnxParser(network, library.logger)


def _troubles(parser: Any, heard: Messages) -> list[Trouble]:
    found = []
    for index in range(parser.num_errors):
        failure = parser.get_error(index)
        operator, reason = failure.node_operator(), " ".join(failure.desc().split())
        if operator and not parser.supports_operator(operator):
            reason = f"TensorRT has no such operator ({reason})"
        found.append(Trouble(failure.node_name(), operator, f"{failure.code().name}: {reason}"))
    return found or [Trouble("", "", "; ".join(heard.errors[:_SHOWN]) or "no reason given")]


def _config(library: Library, builder: Any, options: BuildOptions) -> Any:
    trt = library.trt
    config = builder.create_builder_config()
    if options.memory is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.memory)
    config.builder_optimization_level = options.level
    verbosity = trt.ProfilingVerbosity
    config.profiling_verbosity = verbosity.DETAILED if options.details else verbosity.LAYER_NAMES_ONLY
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.targets:
        _aim(library, config, options.targets)
    return config


def _aim(library: Library, config: Any, targets: tuple[str, ...]) -> None:
    """Build for these compute capabilities: TensorRT-RTX alone has this."""
    known = library.trt.ComputeCapability.__members__
    names = [f"SM{target.replace('.', '')}" for target in targets]
    if unknown := sorted(set(names) - set(known)):
        raise EngineBuildError(f"{library.name} does not build for {', '.join(unknown)}; choose among {', '.join(known)}")
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        config.set_compute_capability(known[name], index)


def _add_profile(builder: Any, network: Any, config: Any, batches: tuple[int, int, int], heard: Messages) -> None:
    """A range of batches, for every input; raises EngineBuildError unless the batch is the one dimension that varies."""
    if not network.num_inputs:
        raise EngineBuildError("the model has no inputs: it is not an encoder; export the bundle again")
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        batch, *rest = tuple(tensor.shape)
        if batch != -1 or -1 in rest:
            shape = ["?" if length == -1 else length for length in (batch, *rest)]
            raise EngineBuildError(
                f"input {tensor.name!r} is {shape}, expected a free batch and nothing else; export the bundle again"
            )
        profile.set_shape(tensor.name, *((size, *rest) for size in batches))
    if config.add_optimization_profile(profile) < 0:
        raise EngineBuildError(f"TensorRT refuses batches {batches}: {_log(heard)}; choose others")


def _timing_cache(config: Any, old: bytes, say: Say) -> Any:
    """A timing cache from an earlier one where it fits, else an empty one."""
    cache = config.create_timing_cache(old)
    if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
        return cache
    say("timings of earlier builds do not fit this GPU and TensorRT: measuring anew")
    cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _failure(library: Library, heard: Messages, options: BuildOptions) -> EngineBuildError:
    remedy = "look at its log (-vv), or try another variant"
    if any(word in error.lower() for error in heard.errors for word in _MEMORY_WORDS):
        limit = "its own limit" if options.memory is None else f"a limit of {options.memory / 2**20:.3g} MiB"
        remedy = (
            f"memory ran out under {limit}: allow more (--memory), free some, build for smaller batches (--batches), "
            "or use the variant fp16 or int8"
        )
    return EngineBuildError(f"{library.name} {library.version} built no engine: {_log(heard)}; {remedy}")


def _log(heard: Messages) -> str:
    return "; ".join(list(dict.fromkeys(heard.errors))[:_SHOWN]) or "it gave no reason"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EngineBuildError(f"{path}: cannot read ({error.strerror}); check the path") from error
