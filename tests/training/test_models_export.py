"""Encoders of every family through ONNX: the same features in ONNX Runtime, norms folded away, three channels in."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from training.models.config import EncoderConfig
from training.models.encoder import Encoder, build_encoder
from training.models.norm import calibrate
from training.models.registry import backbone_info, backbone_names
from training.models.timm_backbone import import_timm

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

SIZE = 96
BASE = EncoderConfig(size=SIZE, features=16, embedding=8)
CONFIGS = {
    "mobilenetv2, fresh norms, edges, gem": replace(
        BASE, stages=("bottleneck3",), grids=(2,), norm="fresh", branch="both", pooling="gem", attention="scaled"
    ),
    "mobilenetv3_small, edges alone, max, unprojected": replace(
        BASE,
        backbone="mobilenetv3_small",
        stages=("block8", "block11"),
        grids=(2, 1),
        branch="edge",
        pooling="max",
        attention="none",
        projection=False,
        features=48 * 4 + 96,
    ),
    "mobilenetv3_large": replace(BASE, backbone="mobilenetv3_large", stages=("block6",), grids=(3,)),
    "efficientnet_lite0, fresh norms": replace(
        BASE, backbone="efficientnet_lite0", stages=("stage2", "stage4"), grids=(4, 3), norm="fresh", attention="none"
    ),
    "squeezenet1_1, tight windows": replace(BASE, backbone="squeezenet1_1", stages=("fire9",), grids=(4,), pooling="tight"),
    "resnet18": replace(BASE, backbone="resnet18", stages=("layer3", "layer4"), grids=(5, 3)),
    "resnet50 to stage 2": replace(BASE, backbone="resnet50", stages=("layer2",), grids=(2,)),
    "resnet50v2 to stage 1": replace(BASE, backbone="resnet50v2", stages=("stage1",), grids=(2,)),
    "vgg16 to pool3": replace(BASE, backbone="vgg16", stages=("pool3",), grids=(2,)),
    "inception_v3 to Mixed_5d": replace(BASE, backbone="inception_v3", stages=("Mixed_5d",), grids=(2,), transform_input=True),
    "mobilenetv4_conv_small": replace(BASE, backbone="mobilenetv4_conv_small", stages=("blocks.2", "blocks.3"), grids=(5, 3)),
}
NORMS_LEFT = {"resnet50v2 to stage 1"}  # its norms come before convolutions, where they cannot be folded in


def images() -> torch.Tensor:
    """Noise, a ramp and stripes [3,3,S,S]: different in brightness and in texture."""
    place = torch.arange(SIZE, dtype=torch.float32)
    noise = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    ramp = (place / SIZE * 4 - 2).expand(3, SIZE, SIZE)
    stripes = torch.sign(torch.sin(place * 0.7))[:, None].expand(3, SIZE, SIZE)
    return torch.stack([noise, ramp, stripes])


class Exported(NamedTuple):
    """An encoder, its graph with float32 weights, and features [3,C] that PyTorch makes of `images`."""

    encoder: Encoder
    model: onnx.ModelProto
    expected: np.ndarray


@cache
def exported(what: str) -> Exported:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    from export.onnx_encoder import export_model

    config = CONFIGS[what]
    if config.backbone == "mobilenetv4_conv_small":
        try:
            import_timm()
        except ModuleNotFoundError as error:
            pytest.skip(f"timm is not installed: {error}")
    encoder = build_encoder(config, seed=0)
    pixels = images()
    encoder.train()
    with torch.no_grad():
        encoder(pixels)  # running statistics that are not 0 and 1
        if config.norm == "fresh":
            calibrate(encoder.backbone, [pixels], encoder.pool)
        return Exported(encoder, export_model(encoder), encoder.eval()(pixels).numpy())


def features(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    """What ONNX Runtime makes of the file's bytes, which the checker has passed."""
    from export.onnx_encoder import serialised

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    (rows,) = onnxruntime.InferenceSession(serialised(model), options).run(None, {"image": pixels})
    return rows


@pytest.mark.parametrize("what", CONFIGS)
def test_onnx_runtime_gives_the_same_features(what: str) -> None:
    _, model, expected = exported(what)
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:] == [3, SIZE, SIZE]
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 18)]
    norms = any(node.op_type == "BatchNormalization" for node in model.graph.node)
    assert norms == (what in NORMS_LEFT)
    pixels = images().numpy()
    error = np.abs(features(model, pixels) - expected).max()
    assert error < 5e-6
    np.testing.assert_allclose(features(model, pixels[1:2]), expected[1:2], atol=5e-6)  # a batch of one
    apart = min(np.abs(expected[one] - expected[other]).max() for one, other in ((0, 1), (0, 2), (1, 2)))
    assert apart > 20 * error  # the images differ, so that sameness means something


@pytest.mark.parametrize("what", CONFIGS)
def test_every_precision_gives_nearly_the_same_features(what: str) -> None:
    """float16 and both kinds of int8, where all layers are quantised: the graph is valid, runs, and means the same."""
    from export.calibration import CalibrationSet
    from export.precision import in_half
    from export.quantise import Quantiser, Scheme

    _, model, expected = exported(what)
    pixels = images().numpy()
    half = in_half(model)
    kinds = {item.data_type for item in half.graph.initializer if item.name.endswith(".weight")}
    assert kinds == {onnx.TensorProto.FLOAT16}
    quantiser = Quantiser.of(model, CalibrationSet(pixels, ("x/sketch/a", "x/photo/b", "x/photo/c")))
    graphs = {"fp16": half}
    for name, signed in (("int8", True), ("int8_cpu", False)):
        graphs[name], made = quantiser.quantised(Scheme(signed=signed, left=()))
        assert made["calibration"]["sketches"] == 1
        assert made["left_in_float"] == {}
        assert_quantised(graphs[name], signed=signed)
    for name, graph in graphs.items():
        assert graph.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        found = features(graph, pixels)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
        cosines = np.sum(found * expected, axis=1)
        assert cosines.min() > LEAST[name]
        assert np.any(found != expected)  # it is another arithmetic
        np.testing.assert_allclose(features(graph, pixels[:1]), found[:1], atol=2e-2)


LEAST = {"fp16": 0.9995, "int8": 0.95, "int8_cpu": 0.95}  # cosine to float32


def assert_quantised(model: onnx.ModelProto, *, signed: bool) -> None:
    """Every convolution reads int8 weights with a scale for each channel, and activations of the wanted kind."""
    tensors = {item.name: item for item in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    layers = [node for node in model.graph.node if node.op_type == "Conv"]
    assert layers
    for node in layers:
        activation, weight = (makers[name] for name in node.input[:2])
        assert (activation.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert tensors[weight.input[0]].data_type == onnx.TensorProto.INT8
        assert list(tensors[weight.input[1]].dims) == [tensors[weight.input[0]].dims[0]]
        zero = onnx.numpy_helper.to_array(tensors[activation.input[2]])
        assert zero.dtype == (np.int8 if signed else np.uint8)
        assert not signed or not zero.any()


def test_every_family_is_exported() -> None:
    assert {family(config.backbone) for config in CONFIGS.values()} >= {family(name) for name in backbone_names()}


def family(backbone: str) -> str:
    """Sizes of one design count as one; so do those that come from timm."""
    return "timm" if backbone_info(backbone).needs else backbone.rstrip("01234") if "lite" in backbone else backbone
