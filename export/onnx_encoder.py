"""A trained encoder as ONNX: dynamic batch, pinned opset, weights kept as float16 on disk and used as float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxslim
import torch
from onnx import TensorProto, helper, numpy_helper

from training.models.encoder import Encoder

OPSET = 18  # TensorRT 10.3's parser (JetPack 6) reads it
SMALLEST_HALVED = 256  # elements; biases and constants below this stay float32


def export_encoder(encoder: Encoder, path: Path, *, half_weights: bool = True) -> None:
    """Write `encoder` as `path`: input image float32 [batch,3,S,S], output features float32 [batch,C].

    With `half_weights` every large initialiser is stored as float16 behind a Cast to float32. Runtimes fold the Cast when they
    load the model, so that arithmetic stays float32 while the file is half as large; the rounding (2^-11 relative) is part of
    the model.
    """
    example = torch.zeros(2, 3, encoder.config.size, encoder.config.size)
    program = torch.onnx.export(
        encoder.eval().to(memory_format=torch.contiguous_format),  # type: ignore[call-overload]
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["features"],
        dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=1024)}},
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing; check the PyTorch version (2.13 is tested)")
    model = onnxslim.slim(program.model_proto)
    for node in [*model.graph.node, *model.graph.value_info]:
        node.ClearField("metadata_props")  # the exporter records source paths there
        node.ClearField("doc_string")
    model.ClearField("metadata_props")
    if half_weights:
        _halve(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def _halve(model: onnx.ModelProto) -> None:
    casts = []
    for initializer in model.graph.initializer:
        array = numpy_helper.to_array(initializer)
        if array.dtype != np.float32 or array.size < SMALLEST_HALVED:
            continue
        name = initializer.name
        initializer.CopyFrom(numpy_helper.from_array(array.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}.widen", to=TensorProto.FLOAT))
    for index, cast in enumerate(casts):
        model.graph.node.insert(index, cast)
