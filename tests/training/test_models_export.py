"""Encoders of every family through ONNX: the same features in ONNX Runtime, norms folded away, three channels in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.models.config import EncoderConfig
from training.models.encoder import build_encoder
from training.models.norm import calibrate
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


@pytest.mark.parametrize("what", CONFIGS)
def test_onnx_runtime_gives_the_same_features(what: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    import onnx
    import onnxruntime

    from export.onnx_encoder import export_encoder

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
    export_encoder(encoder, tmp_path / "encoder.onnx", half_weights=False)
    model = onnx.load(tmp_path / "encoder.onnx")
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:] == [3, SIZE, SIZE]
    norms = any(node.op_type == "BatchNormalization" for node in model.graph.node)
    assert norms == (what in NORMS_LEFT)
    (found,) = onnxruntime.InferenceSession(tmp_path / "encoder.onnx").run(None, {"image": pixels.numpy()})
    with torch.no_grad():
        expected = encoder.eval()(pixels).numpy()
    error = np.abs(found - expected).max()
    assert error < 5e-6
    apart = min(np.abs(expected[one] - expected[other]).max() for one, other in ((0, 1), (0, 2), (1, 2)))
    assert apart > 20 * error  # the images differ, so that sameness means something
