"""Casts of float16 weights carried out in an ONNX file's bytes: held against the onnx package and ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.onnx_widen import widened
from tests.toy import SIZE, toy_encoder

onnx = pytest.importorskip("onnx", reason="onnx is not installed")


def halved_toy() -> onnx.ModelProto:
    """The toy encoder with its weight as float16 behind a Cast, as bundles keep it."""
    model = onnx.load_from_string(toy_encoder())
    (weight,) = model.graph.initializer
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight).astype(np.float16), "weight.half"))
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["weight.half"], ["weight"], to=onnx.TensorProto.FLOAT))
    return model


def run(model: bytes, size: int) -> np.ndarray:
    import onnxruntime

    pixels = np.random.default_rng(0).normal(size=(3, 3, size, size)).astype(np.float32)
    rows: np.ndarray = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"image": pixels})[0]
    return rows


def test_the_cast_is_gone_and_the_numbers_are_not() -> None:
    data = halved_toy().SerializeToString()
    model = onnx.load_from_string(widened(data))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["AveragePool", "Flatten", "MatMul"]
    (weight,) = model.graph.initializer
    half = onnx.numpy_helper.to_array(halved_toy().graph.initializer[0])
    assert (weight.name, weight.data_type) == ("weight", onnx.TensorProto.FLOAT)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(weight), half.astype(np.float32))
    np.testing.assert_array_equal(run(widened(data), SIZE), run(data, SIZE))


def test_everything_else_is_kept() -> None:
    model = halved_toy()
    model.doc_string, model.producer_name = "words", "somebody"
    rewritten = onnx.load_from_string(widened(model.SerializeToString()))
    del model.graph.node[0], rewritten.graph.initializer[:], model.graph.initializer[:]
    assert rewritten == model


def test_shipped_model() -> None:
    bundle = Bundle.default()
    model = onnx.load_from_string(widened(bundle.encoder))
    onnx.checker.check_model(model, full_check=True)
    assert onnx.TensorProto.FLOAT16 not in {weight.data_type for weight in model.graph.initializer}
    assert "Cast" not in {node.op_type for node in model.graph.node}
    np.testing.assert_array_equal(run(widened(bundle.encoder), bundle.input.size), run(bundle.encoder, bundle.input.size))


def test_weights_that_others_use_are_kept() -> None:
    model = halved_toy()
    model.graph.node.append(onnx.helper.make_node("Identity", ["weight.half"], ["again"]))
    kept = onnx.load_from_string(widened(model.SerializeToString()))
    assert {weight.name for weight in kept.graph.initializer} == {"weight", "weight.half"}


@pytest.mark.parametrize("what", ["other type", "activation", "inside out", "subgraph", "no cast"])
def test_what_is_no_such_cast_is_left(what: str) -> None:
    model = halved_toy()
    if what == "other type":
        model.graph.node[0].attribute[0].i = onnx.TensorProto.DOUBLE
    elif what == "activation":
        model.graph.node[0].input[0] = "image"
    elif what == "inside out":  # values in another field than raw_data
        model.graph.initializer[0].ClearField("raw_data")
    elif what == "subgraph":
        inner = onnx.helper.make_graph([], "inner", [], [])
        model.graph.node.append(onnx.helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))
    else:
        model = onnx.load_from_string(toy_encoder())
    data = model.SerializeToString()
    assert widened(data) == data


def test_cut_short_at_any_length() -> None:
    """Never an exception; and never a file that reads well where the original did not."""
    data = halved_toy().SerializeToString()
    for length in [*range(200), *range(len(data) - 200, len(data))]:
        widened(data[:length])


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    widened(data)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 400), st.integers(0, 255))
def test_any_byte_changed(place: int, value: int) -> None:
    data = bytearray(halved_toy().SerializeToString())
    data[place] = value
    widened(bytes(data))
