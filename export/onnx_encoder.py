"""A trained encoder as ONNX: dynamic batch, pinned opset, weights kept as float16 on disk and used as float32."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.models.encoder import Encoder
from training.models.light import LightEncoder

OPSET = 18  # TensorRT 10.3's parser (JetPack 6) reads it
SMALLEST_HALVED = 256  # elements; biases and constants below this stay float32
_HALF, _WIDEN = ".half", ".widen"


def export_encoder(encoder: Encoder, path: Path, *, half_weights: bool = True) -> None:
    """Write `encoder` as `path`: input image float32 [batch,3,S,S], output features float32 [batch,C].

    With `half_weights` every large initialiser is stored as float16 behind a Cast to float32. Runtimes fold the Cast when they
    load the model, so that arithmetic stays float32 while the file is half as large; the rounding (2^-11 relative) is part of
    the model.
    """
    model = export_model(encoder)
    path.write_bytes(serialised(halved(model) if half_weights else model))


def export_model(encoder: Encoder | LightEncoder) -> onnx.ModelProto:
    """`encoder` as a graph with float32 weights, simplified. Raises RuntimeError when PyTorch gives none."""
    import onnxslim
    import torch

    example = torch.zeros(2, 3, encoder.config.size, encoder.config.size)
    with quiet():
        program = torch.onnx.export(
            encoder.eval().to(memory_format=torch.contiguous_format),  # type: ignore[call-overload]
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["features"],
            dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=1024)}},
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing; check the PyTorch version (2.13 is tested)")
    return clean(onnxslim.slim(program.model_proto))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporter says of packages that it does not need here, and of its own future."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)  # four lines on torchvision, which nothing here uses
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
            yield
    finally:
        log.setLevel(level)


def serialised(model: onnx.ModelProto) -> bytes:
    """The file's bytes, all tensors inside, once `onnx.checker` has passed them. Raises onnx.checker.ValidationError."""
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """Nodes in order, without what exporters and converters note beside the graph, paths of the machine among it.

    Changes `model`.
    """
    from onnxruntime.transformers.onnx_model import OnnxModel

    OnnxModel.graph_topological_sort(model.graph)  # converters append their nodes at the end
    for node in [*model.graph.node, *model.graph.value_info]:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    model.ClearField("metadata_props")
    return model


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large float32 initialisers are float16 behind a Cast; not the scales of integers, too small for float16."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    quantising = [node for node in result.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    scales = {name for node in quantising for name in node.input[1:]}
    casts = []
    for initializer in result.graph.initializer:
        array = numpy_helper.to_array(initializer)
        if array.dtype != np.float32 or array.size < SMALLEST_HALVED or initializer.name in scales:
            continue
        name = initializer.name
        initializer.CopyFrom(numpy_helper.from_array(array.astype(np.float16), name + _HALF))
        casts.append(helper.make_node("Cast", [name + _HALF], [name], name=name + _WIDEN, to=TensorProto.FLOAT))
    for index, cast in enumerate(casts):
        result.graph.node.insert(index, cast)
    return result


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with float32 initialisers and no Cast: `halved` undone, what it rounded stays rounded."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    casts = {node.input[0]: node for node in result.graph.node if node.op_type == "Cast" and node.name.endswith(_WIDEN)}
    for initializer in result.graph.initializer:
        if cast := casts.get(initializer.name):
            wide = numpy_helper.to_array(initializer).astype(np.float32)
            initializer.CopyFrom(numpy_helper.from_array(wide, cast.output[0]))
            result.graph.node.remove(cast)
    return result
