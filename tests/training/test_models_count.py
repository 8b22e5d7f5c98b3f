"""Counters against published figures, and the table of ``python -m training.models``."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from training.models.__main__ import main
from training.models.count import Count, count, latency
from training.models.encoder import EncoderConfig, build_encoder
from training.models.registry import backbone_info, build_backbone, whole

pytestmark = pytest.mark.torch

# multiply-accumulates in millions at the published input size, classifier taken off: VGG16 15,470 with 124 in its classifier,
# ResNets and MobileNets less their last linear layers, SqueezeNet less its last convolution
PUBLISHED = [
    ("vgg16", 224, 15_347, 0.001),
    ("resnet18", 224, 1_814, 0.01),
    ("resnet50", 224, 4_089, 0.01),
    ("inception_v3", 299, 5_713, 0.01),
    ("mobilenetv2", 224, 300, 0.01),
    ("mobilenetv3_large", 224, 217, 0.02),
    ("mobilenetv3_small", 224, 56, 0.03),
]


def test_counts_of_layers_counted_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8 * 6 * 6, 5))
    assert count(network, 16) == Count(
        parameters=(27 * 8 + 8) + (9 * 8 + 8) + (288 * 5 + 5), macs=27 * 8 * 64 + 9 * 8 * 36 + 288 * 5
    )


@pytest.mark.parametrize(("name", "size", "millions", "tolerance"), PUBLISHED)
def test_counts_are_the_published_ones(name: str, size: int, millions: float, tolerance: float) -> None:
    with torch.device("meta"):
        network = whole(name)
    assert count(network, size).macs / 1e6 == pytest.approx(millions, rel=tolerance)


def test_counting_changes_nothing() -> None:
    network = build_backbone("resnet18").train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    count(network, 64)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_latency_is_the_median_after_warming_up() -> None:
    ticks = iter([0.0, 7.0, 9.0, *(10.0, 10.001), *(11.0, 11.004), *(12.0, 12.002)])  # three warm-ups, three rounds
    assert latency(nn.Identity(), 8, rounds=3, clock=lambda: next(ticks)) == pytest.approx(2.0)


def test_edge_networks_make_encoders_of_at_most_five_million_parameters() -> None:
    for name in ("mobilenetv2", "mobilenetv3_small", "mobilenetv3_large", "squeezenet1_1"):
        assert count(build_encoder(EncoderConfig(backbone=name)), 160).parameters <= 5_000_000


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--backbone", "mobilenetv3_small", "--backbone", "squeezenet1_1", "--latency", "--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:2] == ["backbone", "stages"]
    assert [line.split()[0] for line in lines[1:]] == ["mobilenetv3_small", "squeezenet1_1"]
    assert main(["--backbone", "mobilenetv3_small", "--json"]) == 0
    (figures,) = json.loads(capsys.readouterr().out)["backbones"]
    network = build_backbone("mobilenetv3_small")
    assert figures["parameters"] == network.parameter_count()
    assert figures["macs_160"] < figures["macs_224"] < figures["macs_256"]
    assert figures["encoder_parameters"] > figures["parameters"]
    assert "milliseconds_160" not in figures


def test_table_names_what_it_leaves_out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("the package 'timm' is missing: pip install timm")

    monkeypatch.setattr("training.models.__main__.import_timm", missing)
    assert backbone_info("ghostnet_100").needs == "timm"
    assert main(["--backbone", "ghostnet_100", "--backbone", "mobilenetv3_small"]) == 0
    captured = capsys.readouterr()
    assert "ghostnet_100 left out: the package 'timm' is missing" in captured.err
    assert len(captured.out.splitlines()) == 2


def test_nonsense_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--rounds", "0"])
    assert "must be positive" in capsys.readouterr().err
