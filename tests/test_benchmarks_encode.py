"""The benchmark of encoders runs, and refuses to time an encoder whose answer is wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

from benchmarks.encode import EAGER, Options, Subject, run, text
from fgsbir_edge.variant import Variant
from tests.toy import toy_encoder
from training.models.config import EncoderConfig


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_every_precision_is_timed_beside_torch_and_a_wrong_one_is_not() -> None:
    backbone = {"backbone": "mobilenetv3_small", "stages": ("block3",), "grids": (2,), "attention": "none"}
    subject = Subject.random(EncoderConfig(size=32, features=16, embedding=8, **backbone))  # type: ignore[arg-type]
    wrong = Variant.of("wrong", toy_encoder(size=32, features=16, seed=3))
    bundle = replace(subject.bundle, variants=dict(subject.bundle.variants) | {"wrong": wrong})
    figures = run(replace(subject, bundle=bundle), Options(rounds=1, turn_ms=1.0, compiled=False))
    names = {EAGER, *(f"ONNX Runtime {name}" for name in ("fp32", "fp16", "int8", "int8_cpu"))}
    for group in ("batch 1, 1 thread", "batch 8, 1 thread", "batch 1, 2 threads", "batch 8, 2 threads"):
        assert {row["name"] for row in figures["rows"] if row["group"] == group} == names
        assert group in text(figures)
    assert {entry["name"] for entry in figures["rejected"]} == {"ONNX Runtime wrong"}
    assert all("cosine" in entry["reason"] for entry in figures["rejected"])
    assert figures["weights"] == "random"
    assert all(np.isfinite(row["median"]) for row in figures["rows"])
    json.dumps(figures)
