"""Weight files: layouts against the published networks, round trips, and errors that name the first array that does not fit."""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from training.models.backbone import Backbone, BackboneOptions, Kind
from training.models.registry import backbone_info, backbone_names, build_backbone, whole
from training.models.timm_backbone import import_timm
from training.models.weights import WeightsError, layout, load_arrays, load_weights

pytestmark = pytest.mark.torch

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
# entries and SHA-256 (first 16 digits) of the sorted "name shape" lines of torchvision 0.28's state dicts, classifiers included
TORCHVISION = {
    "vgg16": ("vgg16", 32, "ba63c2556d912509"),
    "inception_v3": ("inception_v3", 580, "4c9e13f64584de74"),
    "resnet18": ("resnet18", 122, "5191d63ec3989592"),
    "resnet50": ("resnet50", 320, "a87e91cd6bd1f939"),
    "mobilenetv2": ("mobilenet_v2", 314, "e3eb10f890f74c6e"),
    "squeezenet1_1": ("squeezenet1_1", 52, "3fbd2a746421cada"),
    "mobilenetv3_small": ("mobilenet_v3_small", 244, "8fee267f118ca2d7"),
    "mobilenetv3_large": ("mobilenet_v3_large", 312, "555a3f5e3bcc126e"),
}


def shapes(name: str, kind: Kind) -> dict[str, tuple[int, ...]]:
    """All arrays of a whole classification network's file; skips where the network's package is missing."""
    if backbone_info(name).needs:
        try:
            import_timm()
        except ModuleNotFoundError as error:
            pytest.skip(f"timm is not installed: {error}")
    expected = layout(name, kind)
    return {**expected.required, **expected.optional}


def arrays(name: str, kind: Kind = "torchvision", seed: int = 0) -> dict[str, Tensor]:
    """A made-up file of that layout, without the classifier: tame numbers, so that maps stay finite and lively."""
    generator = torch.Generator().manual_seed(seed)
    every, expected = shapes(name, kind), layout(name, kind)
    found: dict[str, Tensor] = {}
    for key, shape in every.items():
        if key.endswith("num_batches_tracked"):
            if key.replace("num_batches_tracked", "weight") in expected.required:
                found[key] = torch.tensor(7)
        elif key in expected.required:
            scale = (2.0 / max(int(np.prod(shape[1:])), 1)) ** 0.5 if len(shape) == 4 else 0.1
            found[key] = torch.randn(shape, generator=generator) * scale
            if len(shape) == 1 and key.endswith(("weight", "running_var")):
                found[key] = found[key] + 1.0
    return found


@pytest.mark.parametrize("name", backbone_names())
def test_files_hold_the_published_number_of_parameters(name: str) -> None:
    info = backbone_info(name)
    if info.published is None:
        pytest.skip(f"{name} is implemented in part only")
    kind: Kind = "timm" if info.needs else "torchvision"
    counted = sum(int(np.prod(shape)) for key, shape in shapes(name, kind).items() if not key.endswith(STATISTICS))
    assert counted == info.published


@pytest.mark.parametrize("name", TORCHVISION)
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    _, count, digest = TORCHVISION[name]
    lines = sorted(f"{key} {shape}" for key, shape in shapes(name, "torchvision").items())
    assert len(lines) == count
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("name", TORCHVISION)
def test_same_weights_same_maps_as_torchvision(name: str) -> None:
    """Where torchvision is installed: its own network with made-up weights gives our maps."""
    try:
        models = import_timm("torchvision.models")
    except ModuleNotFoundError as error:
        pytest.skip(f"torchvision is not installed: {error}")
    more = {"init_weights": False} if name == "inception_v3" else {}
    theirs = getattr(models, TORCHVISION[name][0])(weights=None, **more).eval()
    assert {key: tuple(value.shape) for key, value in theirs.state_dict().items()} == shapes(name, "torchvision")
    missing, unexpected = theirs.load_state_dict(arrays(name), strict=False)
    assert not unexpected
    assert all(key.startswith(("classifier.", "fc.", "AuxLogits.")) for key in missing)
    ours = whole(name).eval()
    load_arrays(ours, theirs.state_dict(), "torchvision")
    last = {"inception_v3": "Mixed_7c", "resnet18": "layer4", "resnet50": "layer4"}.get(name, "features")
    found: list[Tensor] = []
    theirs.get_submodule(last).register_forward_hook(lambda _module, _inputs, output: found.append(output))
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        theirs(x)
        # folding batch norm rounds differently: ReLU6 bounds MobileNetV2's maps, 35 roundings lie between
        exact = 1e-4 if name == "mobilenetv2" else 1e-6
        torch.testing.assert_close(ours(x)[-1], found[0], rtol=1e-4, atol=exact * found[0].abs().max().item())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", "legacy.pth"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    """A file written and read gives every tensor back, whatever torch.save's age; counters may be absent, as in old files."""
    made = arrays("resnet18")
    classifier = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file({**made, **classifier}, path)
    else:
        old = {key: value for key, value in made.items() if not key.endswith("num_batches_tracked")}
        torch.save({**old, **classifier}, path, _use_new_zipfile_serialization=suffix == ".pth")
    network = build_backbone("resnet18")
    report = load_weights(network, path)
    for key, value in network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, made[key], rtol=0, atol=0)
    assert set(report.left_out) == set(classifier)
    assert set(report.used) | set(report.left_out) >= set(made) - {key for key in made if key.endswith("num_batches_tracked")}


@pytest.mark.parametrize("name", [name for name in TORCHVISION if name != "mobilenetv2"])
def test_state_dict_in_torchvisions_names_goes_out_as_it_came_in(name: str) -> None:
    made = arrays(name)
    network = whole(name)
    load_arrays(network, made, "torchvision")
    assert network.state_dict().keys() == made.keys()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, made[key], rtol=0, atol=0)


def test_folding_batch_norm_into_mobilenetv2_changes_nothing() -> None:
    made = arrays("mobilenetv2")
    every = tuple(stage.name for stage in backbone_info("mobilenetv2").stages)
    folded = build_backbone("mobilenetv2", BackboneOptions(stages=every)).eval()
    kept = build_backbone("mobilenetv2", BackboneOptions(stages=every, norm="fresh")).eval()
    for network in (folded, kept):
        assert not load_arrays(network, made, "torchvision").left_out
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for one, other in zip(folded(x), kept(x), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * other.abs().max().item())


@pytest.mark.parametrize("name", backbone_names())
def test_any_stages_load_from_a_whole_file(name: str) -> None:
    info = backbone_info(name)
    for kind in info.weights:
        made = arrays(name, kind)  # skips where the package is missing
        network = build_backbone(name, BackboneOptions(stages=(info.stages[1].name,)))
        report = load_arrays(network, made, kind)
        assert report.left_out
        assert sorted((*report.used, *report.left_out)) == sorted(made)
        complete = whole(name)
        used = load_arrays(complete, made, kind).used
        assert set(layout(name, kind).required) <= set(used)
        for key, value in network.state_dict().items():
            torch.testing.assert_close(value, complete.state_dict()[key], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mobilenetv2", "squeezenet1_1", "resnet50v2"])
def test_every_array_of_an_npz_goes_to_one_place(name: str) -> None:
    complete = whole(name)
    names = complete.names("npz")
    assert len(set(names.values())) == len(names) == len(layout(name, "npz").required)
    assert set(names) == {key for key in complete.state_dict() if not key.endswith("num_batches_tracked")}


def without(made: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    return {name: value for name, value in made.items() if name != key}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: without(without(a, "layer2.0.conv1.weight"), "layer3.1.bn1.bias"), "'layer2.0.conv1.weight' is missing"),
        (lambda a: {k: v for k, v in a.items() if k < "layer3"}, "'layer3.0.conv1.weight' is missing.*truncated"),
        (lambda a: {**a, "bn1.bias": torch.zeros(63)}, r"'bn1.bias' has shape \(63,\), expected \(64,\)"),
        (lambda a: {**a, "bn1.bias": torch.full((64,), float("nan"))}, "'bn1.bias' holds NaN"),
        (lambda a: {**a, "bn1.bias": torch.zeros(64, dtype=torch.int64)}, "'bn1.bias' holds torch.int64"),
        (lambda a: {**a, "fc.weight": torch.zeros(10, 512)}, r"'fc.weight' has shape \(10, 512\), expected \(1000, 512\)"),
        (lambda a: {**a, "layer5.weight": torch.zeros(1)}, "'layer5.weight' .* not an array of this network"),
        (lambda a: {f"module.{k}": v for k, v in a.items()}, "'conv1.weight' is missing"),
        (lambda _: arrays("resnet50"), r"'layer1.0.conv1.weight' has shape \(64, 64, 1, 1\), expected \(64, 64, 3, 3\)"),
        (lambda _: {}, "'conv1.weight' is missing"),
    ],
)
def test_the_first_mismatch_is_named_and_nothing_changes(change: object, words: str) -> None:
    assert callable(change)
    network = build_backbone("resnet18")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=words) as caught:
        load_arrays(network, change(arrays("resnet18")), "torchvision", "file.pth (resnet18, torchvision names)")
    assert "file.pth" in str(caught.value)
    assert "\n" not in str(caught.value)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


class Hostile:
    """What a malicious .pth holds: code that runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("never"),))


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch tells how to trust a file; nobody does here
def test_unreadable_files_are_named(tmp_path: Path) -> None:
    network = build_backbone("squeezenet1_1")
    cases: dict[str, tuple[bytes, str]] = {
        "cut.safetensors": (b"\x10\0\0\0\0\0\0\0{", "cannot be read as weights"),
        "cut.npz": (b"PK\x03\x04 no more", "cannot be read as weights"),
        "hostile.pth": (pickle.dumps(Hostile()), "cannot be read as weights"),
        "empty.pth": (b"", "cannot be read as weights"),
        "other.onnx": (b"", "weights are .npz, .safetensors, .pth or .pt files"),
    }
    for name, (content, words) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=f"{re.escape(name)}.*{words}"):
            load_weights(network, tmp_path / name)
    with pytest.raises(WeightsError, match=r"gone.pth: cannot be read"):
        load_weights(network, tmp_path / "gone.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="not a state dict"):
        load_weights(network, tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"vgg16 loads torchvision files, not \.npz"):
        load_weights(build_backbone("vgg16", BackboneOptions(stages=("pool1",))), tmp_path / "cut.npz")
    with pytest.raises(WeightsError, match=r"resnet50v2 loads npz files, not \.pth"):
        load_weights(build_backbone("resnet50v2"), tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("name", "kind"), [("mobilenetv2", "torchvision"), ("resnet50v2", "npz"), ("inception_v3", "torchvision")]
)
def test_a_fourth_channel_starts_without_a_say(name: str, kind: Kind) -> None:
    made = arrays(name, kind)
    stages = (backbone_info(name).stages[0].name,)

    def loaded(inputs: int) -> Backbone:
        network = build_backbone(name, BackboneOptions(stages=stages, inputs=inputs)).eval()
        load_arrays(network, made, kind)
        return network

    x = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(4)(x)[0], loaded(3)(x[:, :3])[0])
    wide = loaded(4)
    wide(x)[0].square().sum().backward()
    stem = next(parameter for parameter in wide.parameters() if parameter.dim() == 4)
    assert stem.grad is not None
    assert stem.grad[:, 3].abs().sum() > 0  # but it can learn
