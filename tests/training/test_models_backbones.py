"""Every backbone of the registry: shapes, truncation, gradients, normalisation layers, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.models.backbone import Backbone, BackboneOptions
from training.models.inception import INFO as INCEPTION
from training.models.norm import NormConv2d, calibrate
from training.models.registry import backbone_info, backbone_names, build_backbone, whole

pytestmark = pytest.mark.torch

SIZE = 96
OWN = [name for name in backbone_names() if not backbone_info(name).needs]
# (backbone, published size, tapped stage, side there): METHODS A.1 and the papers' tables
SIDES = [
    ("inception_v3", 299, "Mixed_7c", 8),
    ("inception_v3", 256, "Mixed_7c", 6),
    ("inception_v3", 299, "Mixed_6e", 17),
    ("vgg16", 256, "pool5", 8),
    ("vgg16", 299, "pool5", 9),
    ("squeezenet1_1", 224, "fire9", 13),
    ("mobilenetv2", 224, "bottleneck5", 14),
    ("resnet50v2", 224, "stage3", 14),
    ("resnet18", 160, "layer4", 5),
    ("mobilenetv3_large", 224, "block12", 14),
]


def build(name: str, options: BackboneOptions | None = None) -> Backbone:
    """A backbone, or a skip that names the missing package."""
    if needs := backbone_info(name).needs:
        try:
            return build_backbone(name, options or BackboneOptions())
        except ModuleNotFoundError as error:
            pytest.skip(f"{needs} is not installed: {error}")
    return build_backbone(name, options or BackboneOptions())


@pytest.mark.parametrize("name", backbone_names())
def test_every_stage_has_the_channels_and_the_stride_it_says(name: str) -> None:
    info = backbone_info(name)
    network = build(name, BackboneOptions(stages=tuple(stage.name for stage in info.stages))).eval()
    size = 160
    with torch.no_grad():
        maps = network(torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)))
    assert network.side(size) == tuple(level.shape[-1] for level in maps)
    for stage, level in zip(info.stages, maps, strict=True):
        assert level.shape[:2] == (1, stage.channels)
        assert level.shape[2] == level.shape[3]
        padded = name not in ("inception_v3", "squeezenet1_1")
        assert size // stage.stride - (0 if padded else 4) <= level.shape[-1] <= size // stage.stride
        assert torch.isfinite(level).all()


@pytest.mark.parametrize(("name", "size", "stage", "side"), SIDES)
def test_map_sides_are_the_published_ones(name: str, size: int, stage: str, side: int) -> None:
    with torch.device("meta"):
        network = build(name, BackboneOptions(stages=(stage,)))
    assert network.side(size) == (side,)


@pytest.mark.parametrize("name", backbone_names())
def test_gradients_reach_every_weight_and_nothing_else_is_carried(name: str) -> None:
    """A network tapped early has no parameter that its maps do not depend on."""
    info = backbone_info(name)
    early = info.stages[len(info.stages) // 2]
    torch.manual_seed(0)
    network = build(name, BackboneOptions(stages=(early.name,)))
    (level,) = network(torch.randn(2, 3, SIZE, SIZE))
    (level * torch.randn_like(level)).sum().backward()
    for path, parameter in network.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.abs().sum() > 0, path
    assert network.parameter_count() < build(name, BackboneOptions(stages=(info.stages[-1].name,))).parameter_count()


@pytest.mark.parametrize("name", OWN)
def test_early_maps_do_not_depend_on_how_far_the_network_goes(name: str) -> None:
    info = backbone_info(name)
    full = whole(name).eval()
    short = build(name, BackboneOptions(stages=(info.stages[0].name,))).eval()
    missing, _ = short.load_state_dict(full.state_dict(), strict=False)
    assert not missing
    both = build(name, BackboneOptions(stages=(info.stages[0].name, info.stages[-1].name))).eval()
    both.load_state_dict(full.state_dict())
    x = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(short(x)[0], both(x)[0])
        torch.testing.assert_close(full(x)[0], both(x)[1])


@pytest.mark.parametrize("name", ["mobilenetv2", "squeezenet1_1", "vgg16"])
def test_fresh_norms_change_nothing_until_trained(name: str) -> None:
    """In evaluation: as put in, and after calibration on any batches; weights keep their keys."""
    plain = build(name, BackboneOptions(norm="own")).eval()
    fresh = build(name, BackboneOptions(norm="fresh")).eval()
    assert {key for key in fresh.state_dict() if ".norm." not in key} == set(plain.state_dict())
    fresh.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = plain(x)
        for before, after in zip(expected, fresh(x), strict=True):
            torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4 * before.abs().max().item())
        layers = calibrate(fresh, [x[:2], x[2:]])
        assert layers == sum(isinstance(module, nn.Conv2d) for module in plain.modules())
        for before, after in zip(expected, fresh(x), strict=True):
            torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4 * before.abs().max().item())
        # in training mode the batch that gave the statistics gives nearly the same maps: they are its own (n against n-1 apart)
        for before, after in zip(expected, fresh.train()(x), strict=True):
            torch.testing.assert_close(after, before, rtol=1e-2, atol=1e-2 * before.abs().max().item())


def test_calibration_finds_the_statistics() -> None:
    torch.manual_seed(0)
    layer = NormConv2d(nn.Conv2d(3, 5, 3))
    batches = [torch.randn(2, 3, 9, 9) * 3 + 1, torch.randn(3, 3, 9, 9)]
    assert calibrate(layer, batches) == 1
    raw = torch.cat([nn.functional.conv2d(batch, layer.weight, layer.bias) for batch in batches]).transpose(0, 1).flatten(1)
    assert layer.norm.running_mean is not None
    assert layer.norm.running_var is not None
    torch.testing.assert_close(layer.norm.running_mean, raw.mean(1).detach())
    torch.testing.assert_close(layer.norm.running_var, raw.var(1, correction=0).detach())


def test_calibration_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="no fresh norm"):
        calibrate(nn.Conv2d(3, 4, 1), [torch.zeros(1, 3, 4, 4)])
    with pytest.raises(ValueError, match="no batches"):
        calibrate(NormConv2d(nn.Conv2d(3, 4, 1)), [])


def test_frozen_norms_keep_their_statistics_while_training() -> None:
    own, frozen = (build("resnet18", BackboneOptions(stages=("layer1",), norm=norm)) for norm in ("own", "frozen"))  # type: ignore[arg-type]
    for network, moves in ((own, True), (frozen, False)):
        network.train()
        before = network.get_buffer("bn1.running_mean").clone()
        network(torch.randn(2, 3, 32, 32) + 1.0)[0].sum().backward()
        assert bool((network.get_buffer("bn1.running_mean") != before).any()) == moves
        assert network.get_parameter("bn1.weight").grad is not None
        assert network.training


def test_inception_remaps_pixels_only_where_told() -> None:
    faithful = build("inception_v3", BackboneOptions(stages=("Conv2d_2b_3x3",))).eval()
    better = build("inception_v3", BackboneOptions(stages=("Conv2d_2b_3x3",), transform_input=True)).eval()
    better.load_state_dict(faithful.state_dict())
    pixels = torch.rand(1, 3, 75, 75)  # in [0,1]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (INCEPTION.mean, INCEPTION.std))
    with torch.no_grad():
        normalised = (pixels - mean) / std
        torch.testing.assert_close(better(normalised)[0], faithful(pixels * 2 - 1)[0], rtol=1e-4, atol=1e-4)
        assert (better(normalised)[0] - faithful(normalised)[0]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("alexnet", BackboneOptions(), "no backbone 'alexnet'; there are mobilenetv2, "),
        ("vgg16", BackboneOptions(stages=("pool6",)), "no stage 'pool6'; there are pool1, "),
        ("vgg16", BackboneOptions(stages=("pool5", "pool3")), "each once, in the order pool1, "),
        ("vgg16", BackboneOptions(stages=("pool5", "pool5")), "each once"),
        ("vgg16", BackboneOptions(norm="frozen"), 'use norm "own" or "fresh"'),
        ("resnet18", BackboneOptions(norm="fresh"), 'use norm "own" or "frozen"'),
        ("resnet18", BackboneOptions(norm="none"), "norm is 'none', expected one of"),  # type: ignore[arg-type]
        ("resnet18", BackboneOptions(inputs=1), "inputs is 1, expected 3 or more"),
        ("resnet18", BackboneOptions(transform_input=True), "belongs to inception_v3"),
    ],
)
def test_what_does_not_exist_is_named(name: str, options: BackboneOptions, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_backbone(name, options)


def test_too_few_pixels_are_named() -> None:
    with pytest.raises(ValueError, match="40 pixels are too few for inception_v3"):
        build("inception_v3").side(40)


@pytest.mark.parametrize("name", [name for name in backbone_names() if backbone_info(name).needs == "timm"])
def test_timm_networks_give_what_timm_gives(name: str) -> None:
    """Taken apart at its blocks, a network computes what timm's own feature extractor does."""
    info = backbone_info(name)
    ours = build(name, BackboneOptions(stages=tuple(stage.name for stage in info.stages))).eval()
    import timm

    theirs = timm.create_model(name, pretrained=False).eval()
    missing, _ = theirs.load_state_dict(
        {key.removeprefix("net."): value for key, value in ours.state_dict().items()}, strict=False
    )
    assert all(key.startswith(("conv_head", "norm_head", "bn2", "classifier")) for key in missing)
    x = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        found = dict(zip((stage.name for stage in info.stages), ours(x), strict=True))
        captured: dict[str, torch.Tensor] = {}
        for path, module in theirs.named_modules():
            if path in found:
                module.register_forward_hook(lambda _m, _i, out, path=path: captured.__setitem__(path, out))
        theirs(x)
    assert captured.keys() == found.keys()
    for path, level in found.items():
        torch.testing.assert_close(level, captured[path])
