"""The weight files of webnn-samples: every array in its place, the maps they gave when first read, and sense in them.

Run where FGSBIR_WEIGHTS names the folder of the .npz files; retrieval and recognition also need FGSBIR_DATA (chairv2/).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fgsbir_edge.preprocess import InputSpec
from training.data.folder import PairsFolder
from training.data.splits import CHAIRV2_VALIDATION_PHOTOS, select, split_photos
from training.evaluation import encode_photos, encode_sketches
from training.metrics import accuracy, gallery_ranks
from training.models.backbone import Backbone, BackboneOptions
from training.models.pooling import grid_pool
from training.models.registry import backbone_info, build_backbone
from training.models.weights import layout, load_weights, read_arrays

pytestmark = pytest.mark.torch

# file, arrays used and left out, and (mean, standard deviation) of every stage on `pattern`
FILES = {
    "mobilenetv2": (
        "mobilenetv2_nchw.npz",
        (104, 1),
        {
            "bottleneck1": (0.097208, 1.542607),
            "bottleneck2": (-0.187899, 1.294408),
            "bottleneck3": (0.239893, 1.398974),
            "bottleneck4": (0.104978, 0.959578),
            "bottleneck5": (-0.017614, 0.477057),
            "bottleneck6": (0.023385, 0.429734),
            "bottleneck7": (-0.002368, 0.134841),
            "expansion": (0.225213, 0.456981),
        },
    ),
    "squeezenet1_1": (
        "squeezenet1.1_nchw.npz",
        (50, 2),
        {
            "fire3": (3.946148, 7.841616),
            "fire5": (11.401327, 22.424656),
            "fire7": (20.518869, 38.0917),
            "fire9": (0.869026, 5.28473),
        },
    ),
    "resnet50v2": (
        "resnet50v2_nchw.npz",
        (211, 38),
        {"stage1": (0.078449, 0.113442), "stage2": (0.02854, 0.072734), "stage3": (0.014028, 0.036456)},
    ),
}
# Acc@1 of frozen features of this stage, 4x4 cells, centred, is at least this on the 60 validation photos (chance: 1.7)
RETRIEVAL = {"mobilenetv2": ("bottleneck5", 45.0), "squeezenet1_1": ("fire7", 40.0), "resnet50v2": ("stage3", 45.0)}
SEATS = {423, 559, 703, 765, 831, 857, 861, 532}  # ImageNet: barber, folding, bench, rocking, couch, throne, seat, table


def weights(name: str) -> Path:
    folder = os.environ.get("FGSBIR_WEIGHTS")
    path = Path(folder or "") / FILES[name][0]
    if not folder or not path.is_file():
        pytest.skip(f"FGSBIR_WEIGHTS does not name a folder that holds {FILES[name][0]} (not shipped)")
    return path


def chairs() -> PairsFolder:
    folder = os.environ.get("FGSBIR_DATA")
    if not folder or not (Path(folder) / "chairv2").is_dir():
        pytest.skip("FGSBIR_DATA does not name a folder that holds chairv2/ (research data, not shipped)")
    return PairsFolder.read(Path(folder) / "chairv2")


def loaded(name: str, stages: tuple[str, ...]) -> Backbone:
    network = build_backbone(name, BackboneOptions(stages=stages))
    load_weights(network, weights(name))
    return network.eval()


@pytest.mark.parametrize("name", FILES)
def test_every_array_is_used_once_or_known_to_be_left_out(name: str) -> None:
    network = build_backbone(name, BackboneOptions(stages=(backbone_info(name).stages[-1].name,)))
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))
    report = load_weights(network, weights(name))
    assert (len(report.used), len(report.left_out)) == FILES[name][1]
    assert len(set(report.used)) == len(report.used)
    arrays = read_arrays(weights(name))
    assert set(report.used) == set(layout(name, "npz").required) == set(arrays) - set(report.left_out)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values())  # nothing was passed over
    elements = sum(arrays[key].numel() for key in report.used)
    assert elements == sum(tensor.numel() for tensor in network.state_dict().values() if tensor.is_floating_point())


@pytest.mark.parametrize("name", FILES)
def test_maps_are_those_of_the_first_reading(name: str) -> None:
    network = loaded(name, tuple(FILES[name][2]))
    pattern = 2 * torch.sin(torch.arange(2 * 3 * 96 * 96, dtype=torch.float64) * 0.37).float().view(2, 3, 96, 96)
    with torch.no_grad():
        maps = network(pattern)
    for (stage, (mean, deviation)), level in zip(FILES[name][2].items(), maps, strict=True):
        assert level.double().mean().item() == pytest.approx(mean, rel=1e-3, abs=1e-4), stage
        assert level.double().std().item() == pytest.approx(deviation, rel=1e-3), stage


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_frozen_features_find_chairs(name: str) -> None:
    folder = chairs()
    stage, floor = RETRIEVAL[name]
    network = loaded(name, (stage,))
    _, held = split_photos(folder, CHAIRV2_VALIDATION_PHOTOS, "chairv2-photos")
    pairs, names = select(folder.pairs, photos=held), sorted(held)

    @torch.no_grad()
    def encode(pixels: np.ndarray) -> np.ndarray:
        rows: np.ndarray = grid_pool(network(torch.from_numpy(pixels))[0], 4).numpy()
        return rows

    spec = InputSpec(size=160)
    sides = [encode_sketches(folder, [pair.sketch for pair in pairs], encode, spec), encode_photos(folder, names, encode, spec)]
    centred = [rows - rows.mean(0) for rows in sides]
    sketches, photos = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in centred)
    ranks = gallery_ranks(sketches, photos, np.array([names.index(pair.photo) for pair in pairs]))
    assert accuracy(ranks, 1) > floor


def test_squeezenet_knows_a_chair_when_it_sees_one() -> None:
    """With the classifier's convolution from the file: most photos of chairs have something to sit on among the first five."""
    folder = chairs()
    network = loaded("squeezenet1_1", ("fire9",))
    arrays = read_arrays(weights("squeezenet1_1"))
    spec = InputSpec(size=224, photo_fit="pad")

    @torch.no_grad()
    def classify(pixels: np.ndarray) -> np.ndarray:
        scores = torch.nn.functional.conv2d(
            network(torch.from_numpy(pixels))[0], arrays["squeezenet0_conv25_weight"], arrays["squeezenet0_conv25_bias"]
        )
        best: np.ndarray = scores.relu().mean((2, 3)).topk(5).indices.numpy()
        return best

    found = encode_photos(folder, sorted(folder.photo_category)[:32], classify, spec)
    assert np.mean([bool(SEATS & set(row.tolist())) for row in found]) > 0.7
