"""The encoder in half precision: arithmetic and weights float16, input, output and the final unit length float32."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from export.onnx_encoder import clean, widened

OUTPUT = "features"
_NORM = frozenset({"Clip", "Div", "Expand", "LpNormalization", "Max", "ReduceL2", "ReduceSumSquare", "Sqrt"})


def in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` (as ``export_encoder`` makes it) with float16 arithmetic up to the projection.

    Rewriting the graph is what builders with strong typing need: they take the types that the file says. The length is taken in
    float32, since in float16 the sum of squares overflows from a length of 256 on. The tail that does so is cut off and put
    back, because the converter rounds between nodes that it is told to leave alone.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    body = onnx.shape_inference.infer_shapes(widened(model))
    tail = norm_nodes(body)
    output = onnx.ValueInfoProto()
    output.CopyFrom(body.graph.output[0])
    for node in tail:
        body.graph.node.remove(node)
    made = {name for node in body.graph.node for name in node.output}
    floats = {value.name: value for value in body.graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    read = {name for node in tail for name in node.input}
    own = [item for item in body.graph.initializer if item.name in read]
    for item in own:
        body.graph.initializer.remove(item)
    del body.graph.output[:]
    body.graph.output.extend(floats[name] for name in sorted(read & made & set(floats)))
    half = convert_float_to_float16(body, keep_io_types=True, op_block_list=[])
    del half.graph.output[:], half.graph.value_info[:]  # the converter gave the tail's tensors its own types
    half.graph.output.append(output)
    half.graph.node.extend(tail)
    half.graph.initializer.extend(item for item in own if item.name not in {other.name for other in half.graph.initializer})
    return clean(half)


def norm_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that bring the output to unit length: all before it up to the projection, in the graph's order."""
    makers = {output: node for node in model.graph.node for output in node.output}
    found: set[str] = set()
    waiting = [OUTPUT]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.op_type in _NORM and node.output[0] not in found:
            found.add(node.output[0])
            waiting.extend(node.input)
    return [node for node in model.graph.node if node.output[0] in found]
