"""Encoders of every backbone as engines in every precision, by TensorRT-RTX on the CPU. Built, not run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fgsbir_edge.encoder.trt_build import BuildOptions, build_plan
from training.models.config import EncoderConfig
from training.models.encoder import build_encoder
from training.models.registry import backbone_info, backbone_names

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: make tensorrt")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

OPTIONS = BuildOptions(library="tensorrt_rtx", targets=("8.6",), level=0)
SIZES = {"inception_v3": 128}  # it strides further
SIZE = 64


@pytest.mark.parametrize("backbone", backbone_names())
def test_every_backbone_in_every_precision(backbone: str, tmp_path: Path) -> None:
    import onnx

    from export.calibration import CalibrationSet
    from export.onnx_encoder import export_encoder
    from export.precision import in_half
    from export.quantise import Quantiser, Scheme

    size = SIZES.get(backbone, SIZE)
    last = backbone_info(backbone).stages[-1].name
    config = EncoderConfig(size=size, features=16, embedding=8, backbone=backbone, stages=(last,), grids=(2,))
    try:
        encoder = build_encoder(config, seed=0)
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    export_encoder(encoder, tmp_path / "encoder.onnx")
    model = onnx.load(tmp_path / "encoder.onnx")
    noise = np.random.default_rng(0).normal(size=(4, 3, size, size)).astype(np.float32)
    int8 = Quantiser.of(model, CalibrationSet(noise, ("made/photo/noise",) * 4)).quantised(Scheme(left=()))[0]
    forms = {"fp32": model, "fp16": in_half(model), "int8": int8}
    plans = {name: build_plan(form.SerializeToString(), OPTIONS, print)[0] for name, form in forms.items()}
    assert len(plans["fp16"]) < len(plans["fp32"])
    assert len(set(plans.values())) == len(forms)
