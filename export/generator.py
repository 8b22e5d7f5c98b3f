"""A photo-to-sketch generator for devices without PyTorch: ``python -m export.generator --generator G --out DIR``.

DIR gets two graphs for ONNX Runtime, ``look.onnx`` (photos to what the decoder sees of them) and ``step.onnx`` (one row of every
drawing), and ``artist.safetensors`` with what is left: the first state's layer, the offsets' scale, the input's constants, hashes
of the graphs and, with --start, the constants that ``training.zero_sketch measure`` fitted to its drawings. With --discriminator
``judge.onnx`` says how certain D_C is of a drawing. Sampling is NumPy's (fgsbir_edge.zero_sketch_artist). Each graph is held
against PyTorch before anything is written.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from export.agreement import ParityError
from export.onnx_encoder import OPSET, clean, quiet, serialised
from fgsbir_edge.console import put_json, run
from fgsbir_edge.errors import BundleFormatError
from fgsbir_edge.files import pack_tensors, read_bounded, unpack_tensors, write_atomic
from fgsbir_edge.start import REFERENCE
from fgsbir_edge.variant import digest
from fgsbir_edge.zero_sketch_artist import ARTIST, ARTIST_FORMAT, JUDGE, LOOK, LOOKS, NEXT, STATE, STEP
from training.generation.drawing import Artist, open_artist
from training.generation.network import Encoded, Generator, State
from training.semi.discriminator import PatchDiscriminator, certainty
from training.zero_sketch_drawn import open_judge

LARGEST_DIFFERENCE = 1e-4  # of any number a graph gives, to PyTorch's, beside numbers of about 1
BATCHES = (3, 1)  # that are tried; the first is that of the tracing


class Look(nn.Module):
    """Photos [B,3,S,S] -> values [B,L,C], keys [B,L,A], mean and log variance [B,Z]."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        seen = self.generator.encode(image)
        assert seen.keys is not None
        return seen.values, seen.keys, seen.mean, seen.log_variance


class Step(nn.Module):
    """What was seen, the state and the row before [B,5] -> the new state and the raw outputs [B,6M+3]."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self, values: Tensor, keys: Tensor, h: Tensor, c: Tensor, pen: Tensor, row: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        unused = values[:, 0, :1]
        state, _ = self.generator.step(Encoded(values, keys, unused, unused), State(h, c, pen), row)
        return state.h, state.c, state.pen, self.generator.output(state.h)


class Judge(nn.Module):
    """Photos and sketches [B,3,S,S] each -> D_C [B]."""

    def __init__(self, network: PatchDiscriminator) -> None:
        super().__init__()
        self.network = network

    def forward(self, photo: Tensor, sketch: Tensor) -> Tensor:
        return certainty(self.network(photo, sketch))


def export_generator(artist: Artist, start: Path | None = None, judge: PatchDiscriminator | None = None) -> dict[str, bytes]:
    """The files by name. Raises BundleFormatError (no 2D attention, or a file that is no start) and ParityError."""
    generator, config = artist.generator, artist.generator.config
    if not config.use_attention:
        raise BundleFormatError("the generator has no 2D attention; export one that has")
    torch.manual_seed(0)
    images = torch.randn(BATCHES[0], 3, config.size, config.size)
    with torch.no_grad():  # or what is traced would carry gradients
        seen = Look(generator)(images)
    h = torch.rand(BATCHES[0], config.hidden) - 0.5
    arguments = (*seen[:2], h, h.flip(0), torch.randn(BATCHES[0], 2), torch.randn(BATCHES[0], 5))
    files = {
        LOOK: graph(Look(generator), (images,), ("image",), LOOKS),
        STEP: graph(Step(generator), arguments, (*LOOKS[:2], *STATE, "row"), NEXT),
    }
    facts: dict[str, Any] = {
        "input": artist.input.to_manifest(),
        "max_length": config.max_length,
        "positions": config.positions,
        "least_deviation": config.least_deviation,
    }
    tensors = {
        "start.weight": generator.start.weight.detach().float().numpy(),
        "start.bias": generator.start.bias.detach().float().numpy(),
    }
    if judge is not None:
        side = judge.config.size
        pair = torch.randn(BATCHES[0], 3, side, side), torch.randn(BATCHES[0], 3, side, side)
        files[JUDGE] = graph(Judge(judge), pair, ("photo", "sketch"), ("certainty",))
        facts["judge_size"] = side
    meta = {"format": ARTIST_FORMAT, "scale": repr(float(artist.scale)), "facts": json.dumps(facts)}
    if start is not None:
        constants, about = _constants(start)
        tensors[REFERENCE] = constants
        meta |= {"head": about["head"], "start_share": about["start_share"]}
    meta |= {f"sha256.{name}": digest(data) for name, data in files.items()}
    return {**files, ARTIST: pack_tensors(tensors, meta)}


def _constants(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    try:
        tensors, meta = unpack_tensors(read_bounded(path))
        return tensors[REFERENCE], {name: meta[name] for name in ("head", "start_share")}
    except (OSError, KeyError, ValueError) as error:
        raise BundleFormatError(f"{path}: {error}; give a start that 'python -m training.zero_sketch measure' wrote") from error


def graph(module: nn.Module, example: tuple[Tensor, ...], inputs: tuple[str, ...], outputs: tuple[str, ...]) -> bytes:
    """A module as ONNX with a free batch dimension, checked against PyTorch. Raises ParityError."""
    module.eval()
    batch = torch.export.Dim("batch", min=1, max=4096)
    with quiet(), warnings.catch_warnings():  # that inputs share their batch dimension is meant
        warnings.filterwarnings("ignore", "# The axis name: batch", UserWarning)
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple({0: batch} for _ in example),
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing; check the PyTorch version (2.13 is tested)")
    data = serialised(clean(program.model_proto))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for count in BATCHES:
        part = tuple(tensor[:count] for tensor in example)
        with torch.no_grad():
            expected = module(*part)
        found = session.run(list(outputs), {name: tensor.numpy() for name, tensor in zip(inputs, part, strict=True)})
        wanted = expected if isinstance(expected, tuple) else (expected,)
        for name, own, theirs in zip(outputs, found, wanted, strict=True):
            apart = float(np.abs(own - theirs.numpy()).max() / max(1.0, float(theirs.abs().max())))
            if not apart <= LARGEST_DIFFERENCE:
                raise ParityError(f"{name}: {apart:.1e} from PyTorch, at most {LARGEST_DIFFERENCE:g} is allowed; report this")
    return data


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m export.generator", description=__doc__)
    options.add_argument("--generator", type=Path, required=True, help=".safetensors of training.generator")
    options.add_argument("--out", type=Path, required=True, help="folder for the graphs")
    options.add_argument("--start", type=Path, help="of training.zero_sketch measure, for this generator's drawings")
    options.add_argument("--discriminator", type=Path, help="of training.semi_supervised: weighs the drawings")
    arguments = options.parse_args()

    def write() -> int:
        artist = open_artist(arguments.generator)
        judge = None if arguments.discriminator is None else open_judge(arguments.discriminator, artist.input).network
        files = export_generator(artist, arguments.start, judge)
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():  # the one that names the others comes last
            write_atomic(arguments.out / name, data)
        put_json({"out": str(arguments.out), "bytes": {name: len(data) for name, data in files.items()}})
        return 0

    return run(write)


if __name__ == "__main__":
    sys.exit(main())
