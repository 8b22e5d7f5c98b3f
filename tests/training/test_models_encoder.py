"""The encoder's configuration and parts: attention, pooling, edges, projection, head."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fgsbir_edge.preprocess import InputSpec
from training.checkpoint import load_model, save_model
from training.episodic.model import fold_gain
from training.heads import runtime_head
from training.models.attention import SpatialAttention
from training.models.config import EncoderConfig, paper_configs
from training.models.edge import EdgeMap
from training.models.encoder import Encoder, build_encoder, build_head, initialise_by_pca
from training.models.pooling import POOLINGS, GeneralisedMean, TightPool, grid_pool, windows
from training.models.registry import backbone_info, backbone_names, build_backbone

pytestmark = pytest.mark.torch

SIZE = 96
SMALL = EncoderConfig(size=SIZE, features=16, embedding=8)
EARLY = replace(SMALL, stages=("bottleneck3",), grids=(2,))  # small and quick
VARIANTS = [
    replace(EARLY, pooling="max"),
    replace(EARLY, pooling="gem", attention="scaled"),
    replace(EARLY, attention="none", stages=("bottleneck2", "bottleneck3"), grids=(3, 1)),
    replace(EARLY, branch="edge"),
    replace(EARLY, branch="both", norm="fresh"),
    replace(EARLY, projection=False, features=128, head="identity", embedding=128),
    replace(SMALL, backbone="resnet18", stages=("layer1",), grids=(2,), norm="frozen"),
    replace(SMALL, backbone="inception_v3", stages=("Conv2d_4a_3x3",), grids=(2,), transform_input=True),
    replace(SMALL, backbone="squeezenet1_1", stages=("fire3",), grids=(2,), branch="both"),
]


def pixels(count: int = 2, size: int = SIZE) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("config", VARIANTS, ids=range(len(VARIANTS)))
def test_unit_features_gradients_and_json(config: EncoderConfig, tmp_path: Path) -> None:
    encoder, head = build_encoder(config, seed=0), build_head(config)
    features = encoder(pixels())
    assert features.shape == (2, config.features)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    embeddings = head(features)
    assert embeddings.shape == (2, config.embedding)
    (embeddings * torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        if name.endswith("score.bias"):
            continue  # the same for all positions: softmax does not see it
        assert parameter.grad.abs().sum() > 0, name
    assert EncoderConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    save_model(tmp_path / "model.safetensors", encoder, head, {"step": 1, "input": InputSpec(size=SIZE).to_manifest()})
    again, head_again, meta = load_model(tmp_path / "model.safetensors")
    assert again.config == config
    assert meta["step"] == 1
    with torch.no_grad():
        torch.testing.assert_close(head_again(again(pixels())), head(encoder.eval()(pixels())))
    assert (
        runtime_head(tmp_path / "model.safetensors").embed(np.eye(config.features, dtype=np.float32)).shape[1] == config.embedding
    )


def test_checkpoints_from_before_backbones_had_names_still_load() -> None:
    old = {"size": 160, "features": 512, "embedding": 128, "grids": [5, 3]}
    config = EncoderConfig.from_json(old)
    assert config == EncoderConfig(grids=(5, 3))
    assert (config.backbone, config.stages, config.attention) == ("mobilenetv2", ("bottleneck5", "bottleneck7"), "paper")
    keys = Encoder(config).state_dict()
    assert len(keys) == 108
    for name, shape in (
        ("backbone.stem.0.weight", (32, 3, 3, 3)),
        ("backbone.middle.4.2.layers.4.bias", (96,)),
        ("backbone.last.1.0.layers.4.weight", (320, 960, 1, 1)),
        ("attention.1.score.weight", (1, 320, 1, 1)),
        ("projection.weight", (512, 96 * 25 + 320 * 9)),
    ):
        assert tuple(keys[name].shape) == shape


def test_seeds_decide_the_weights() -> None:
    state = torch.random.get_rng_state()
    for name in backbone_names():
        if backbone_info(name).needs or name in ("vgg16", "resnet50", "inception_v3"):
            continue  # slow to draw; the same code
        config = EncoderConfig(size=SIZE, features=8, embedding=4, backbone=name)
        one, same, other = (build_encoder(config, seed=seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(one[key], same[key]) for key in one)
        assert any(not torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("scaled", [False, True])
def test_attention_sums_to_one_and_adds_what_it_attends_to(scaled: bool) -> None:
    x = torch.randn(3, 7, 4, 5)
    attention = SpatialAttention(7, scaled=scaled)
    torch.testing.assert_close(attention.weights(x), torch.full((3, 1, 4, 5), 1 / 20))  # at first equal everywhere
    torch.nn.init.normal_(attention.score.weight)
    weights = attention.weights(x)
    assert weights.min() >= 0
    assert weights.std() > 0.01
    torch.testing.assert_close(weights.sum((1, 2, 3)), torch.ones(3))
    pooled = attention(x).mean((2, 3))
    extra = (x * weights).sum((2, 3)) * (1.0 if scaled else 1 / 20)
    torch.testing.assert_close(pooled, x.mean((2, 3)) + extra, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("side", "cells"), [(10, 5), (5, 3), (7, 3), (8, 1), (6, 6), (9, 4)])
def test_grids_cover_the_map_with_equal_windows(side: int, cells: int) -> None:
    kernel, stride = windows(side, cells)
    assert (cells - 1) * stride + kernel == side
    assert kernel >= stride
    x = torch.randn(2, 3, side, side)
    for name in ("avg", "max", "gem"):
        expected = []
        for row in range(cells):
            for column in range(cells):
                cell = x[:, :, row * stride : row * stride + kernel, column * stride : column * stride + kernel].flatten(2)
                cube = cell.clamp_min(1e-6).pow(3).mean(2).pow(1 / 3)
                expected.append({"avg": cell.mean(2), "max": cell.amax(2), "gem": cube}[name])
        torch.testing.assert_close(POOLINGS[name](cells)(x), torch.stack(expected, 2).flatten(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("side", "cells"), [(10, 7), (10, 5), (5, 3), (8, 1), (9, 4)])
def test_tight_windows_are_those_of_adaptive_pooling(side: int, cells: int) -> None:
    x = torch.randn(2, 3, side, side)
    torch.testing.assert_close(TightPool(cells)(x), F.adaptive_avg_pool2d(x, cells).flatten(1))
    with pytest.raises(ValueError, match="coarser grid"):
        TightPool(side + 1)(x)


def test_generalised_mean_lies_between_mean_and_maximum() -> None:
    x = torch.rand(2, 3, 6, 6)
    pool = GeneralisedMean(1)
    pool.p.data.fill_(1.0)
    torch.testing.assert_close(pool(x), grid_pool(x, 1))
    pool.p.data.fill_(60.0)
    torch.testing.assert_close(pool(x), x.amax((2, 3)), rtol=0.1, atol=0)


def test_edges_are_black_on_white_and_blind_to_brightness() -> None:
    spec = InputSpec()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    grey = torch.full((1, 1, 16, 16), 0.2)
    grey[..., 8:] = 0.7
    edges = EdgeMap(3)((grey.expand(-1, 3, -1, -1) - mean) / std) * std + mean
    assert edges.shape == (1, 3, 16, 16)
    torch.testing.assert_close(edges[0, :, 8, 7], torch.full((3,), 0.5), rtol=1e-3, atol=1e-3)  # half a step from black to white
    torch.testing.assert_close(edges[0, :, 8, 2], torch.ones(3), rtol=0, atol=2e-3)
    brighter = EdgeMap(3)((grey.expand(-1, 3, -1, -1) + 0.2 - mean) / std) * std + mean
    torch.testing.assert_close(brighter, edges, rtol=0, atol=1e-4)
    torch.testing.assert_close(EdgeMap(1)((grey.expand(-1, 3, -1, -1) - mean) / std)[:, 0] * std[:, 0] + mean[:, 0], edges[:, 0])


def test_edge_channel_is_what_the_backbone_gets() -> None:
    encoder = build_encoder(replace(EARLY, branch="both"), seed=0)
    seen = encoder.view(pixels())
    assert seen.shape == (2, 4, SIZE, SIZE)
    torch.testing.assert_close(seen[:, :3], pixels())
    torch.testing.assert_close(seen[:, 3:], EdgeMap(1)(pixels()))


def test_levels_stand_side_by_side() -> None:
    encoder = build_encoder(replace(SMALL, attention="none"), seed=0).eval()
    with torch.no_grad():
        middle, last = encoder.backbone(pixels())
        pooled = encoder.pool(pixels())
    assert encoder.config.pooled == 96 * 25 + 320 * 9
    torch.testing.assert_close(pooled, torch.cat([grid_pool(middle, 5), grid_pool(last, 3)], dim=1))


@pytest.mark.parametrize("name", ["cvpr2021", "on-the-fly", "eccv2022-baseline", "eccv2022"])
def test_the_papers_encoders(name: str) -> None:
    config = paper_configs()[name]
    with torch.device("meta"):
        encoder, head = Encoder(config), build_head(config)
        features = encoder(torch.empty(1, 3, config.size, config.size))
        assert features.shape == (1, 2048 if config.backbone == "inception_v3" else 512)
        assert head(features).shape == (1, 2048 if name == "cvpr2021" else 64)
    attended = not isinstance(encoder.attention[0], torch.nn.Identity)
    assert attended == (name in ("cvpr2021", "eccv2022"))


def test_identity_head_returns_the_features_and_does_not_train() -> None:
    config = replace(EARLY, projection=False, features=128, head="identity", embedding=128)
    head = build_head(config)
    features = F.normalize(torch.randn(4, 128), dim=1)
    torch.testing.assert_close(head(features), features)
    assert not any(parameter.requires_grad for parameter in head.parameters())


def test_components_start_a_model_at_the_frozen_backbones_similarities() -> None:
    """With as many components as pooled features, and hardly whitened, neighbours stay neighbours; without a projection too."""
    rows = torch.randn(200, 128, generator=torch.Generator().manual_seed(0)) * torch.linspace(3, 0.3, 128)
    for config in (replace(EARLY, features=128, embedding=64), replace(EARLY, projection=False, features=128, embedding=64)):
        encoder, head = build_encoder(config, seed=0), build_head(config)
        initialise_by_pca(encoder, head, rows)
        with torch.no_grad():
            embedded = head(F.normalize(encoder.projection(rows), dim=1))
        raw = F.normalize(rows - rows.mean(0), dim=1)
        similar = torch.corrcoef(torch.stack([(embedded @ embedded.T).flatten(), (raw @ raw.T).flatten()]))[0, 1]
        assert similar > 0.8
    identity = replace(EARLY, projection=False, features=128, head="identity", embedding=128)
    encoder, head = build_encoder(identity, seed=0), build_head(identity)
    initialise_by_pca(encoder, head, rows)
    torch.testing.assert_close(head.linear.weight, torch.eye(128))


def test_meta_learned_gains_have_a_place_without_a_projection() -> None:
    encoder = build_encoder(replace(EARLY, projection=False, features=128), seed=0).eval()
    gain = torch.linspace(-1, 1, 128)
    with torch.no_grad():
        pooled = encoder.pool(pixels())
        fold_gain(encoder, gain)
        torch.testing.assert_close(encoder(pixels()), F.normalize(pooled * gain.exp(), dim=1))
    assert "projection.weight" in encoder.state_dict()
    assert not list(encoder.projection.parameters())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": 64}, r"size is 64 pixels, grids \(5, 3\) need at least 96"),
        ({"backbone": "lenet"}, "no backbone 'lenet'"),
        ({"stages": ("layer4",)}, "mobilenetv2 has no stage 'layer4'; there are bottleneck1"),
        ({"grids": (5,)}, "expected a positive number for each of the stages bottleneck5, bottleneck7"),
        ({"grids": (5, 0)}, "expected a positive number"),
        ({"pooling": "sum"}, "pooling is 'sum', expected one of avg, tight, max, gem"),
        ({"attention": "self"}, "attention is 'self', expected one of paper, scaled, none"),
        ({"branch": "sketch"}, "branch is 'sketch', expected one of photo, edge, both"),
        ({"norm": "layer"}, "norm is 'layer', expected one of own, frozen, fresh"),
        ({"head": "mlp"}, "head is 'mlp', expected one of linear, identity"),
        ({"features": 0}, "must be positive"),
        ({"dropout": 1.0}, r"dropout 1.0 in \[0,1\)"),
        ({"projection": False}, "set features=5280"),
        ({"head": "identity"}, "set it to 512"),
        ({"colour": True}, "unknown field 'colour'"),
    ],
)
def test_configurations_that_cannot_be_are_named(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EncoderConfig.from_json(values)


def test_maps_too_small_for_the_grid_are_named() -> None:
    """96 / 16 is 6, but the unpadded stem leaves 5."""
    config = EncoderConfig(size=96, features=8, embedding=4, backbone="squeezenet1_1", stages=("fire9",), grids=(6,))
    with pytest.raises(ValueError, match="a map of 5x5 has no 6x6 cells"):
        Encoder(config)


def test_default_grids_belong_to_default_stages() -> None:
    assert EncoderConfig(backbone="resnet18").grids == (5, 3)
    assert EncoderConfig(backbone="resnet18", stages=("layer2", "layer4")).grids == (1, 1)


def test_building_a_backbone_does_not_change_its_training_mode() -> None:
    network = build_backbone("resnet18")
    network.bn1.eval()  # type: ignore[union-attr]
    network.side(64)
    assert network.training
    assert not network.bn1.training  # type: ignore[union-attr]


@pytest.mark.parametrize("shape", [(300, 128), (90, 128)])
def test_components_are_those_of_the_singular_value_decomposition(shape: tuple[int, int]) -> None:
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * torch.linspace(3, 0.3, 128) + 5.0
    encoder = build_encoder(replace(EARLY, features=100, embedding=64), seed=0)
    initialise_by_pca(encoder, build_head(encoder.config), rows, 0.5)
    _, singular, components = torch.linalg.svd((rows - rows.mean(0)).double(), full_matrices=False)
    count = min(100, shape[0] - 1)  # centred rows have one dimension less
    expected = (components[:count] * (singular[:count] / singular[0])[:, None] ** -0.5).float()
    weight = encoder.projection.weight.detach()
    scale = weight[0].norm() / expected[0].norm()
    similar = (weight[:count] * expected).sum(1).abs() / expected.norm(dim=1) ** 2
    torch.testing.assert_close(similar, scale.expand(count), rtol=1e-3, atol=1e-4)
    assert not weight[count:].any()
