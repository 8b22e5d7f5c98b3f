"""The benchmark of light sketch encoders runs, and refuses to time a search whose answer is wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.light import engines, right, run
from fgsbir_edge.bench_inputs import scribbles
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.engine import Engine
from fgsbir_edge.variant import SKETCH, Variant
from tests.toy import toy_encoder


@pytest.fixture
def two(bundle: Bundle) -> Bundle:
    found = bundle.with_sketch_encoder(toy_encoder(16, seed=1), replace(bundle.input, size=16), {})
    side = found.for_sketches
    int8 = Variant.of("int8_cpu", toy_encoder(16, seed=2), SKETCH)
    return replace(found, sketch=replace(side, variants={**side.variants, "int8_cpu": int8}))


def test_every_encoder_is_timed_by_stage(two: Bundle) -> None:
    figures = run(two, rounds=1, photos=50)
    names = {"encoder of photos", "sketch encoder fp32", "sketch encoder int8_cpu"}
    for group in ("strokes to the 10 nearest of 50 photos", "raster", "encode"):
        assert {row["name"] for row in figures["rows"] if row["group"] == group} == names
    assert not figures["rejected"]
    assert all(np.isfinite(row["median"]) for row in figures["rows"])
    json.dumps(figures)


def test_a_wrong_answer_is_told(two: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engines(two, 50)["sketch encoder fp32"]
    assert right(engine, scribbles(2)).passed
    search = Engine.search
    monkeypatch.setattr(Engine, "search", lambda self, sketch, k: search(self, sketch, k + 1)[1:])
    assert not right(engine, scribbles(2)).passed
