"""Bulk encoding through ONNX Runtime's CUDA provider, two processes' shares on one GPU: the features of the processor, nearly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.backends import missing, open_encoder
from fgsbir_edge.engine import Engine
from fgsbir_edge.gallery import Gallery
from fgsbir_edge.gallery.shards import Part
from fgsbir_edge.gallery.store import MEMORY
from training.bulk_encode import chosen, parser
from training.bulk_shard import Encoding, encode_shard


def test_a_gpus_shards_are_a_processors_within_a_thousandth(data_path: Path, bundle: Bundle, tmp_path: Path) -> None:
    if reason := missing("onnx-cuda"):
        pytest.skip(reason)
    names = sorted(path.relative_to(data_path / "photos").as_posix() for path in (data_path / "photos").rglob("*.png"))
    rows = []
    for backend, rank in (("onnx-cpu", 0), ("onnx-cuda", 0), ("onnx-cuda", 1)):
        out = tmp_path / f"{backend}{rank}"
        out.mkdir()
        arguments = parser().parse_args(["--folder", "x", "--out", "x", "--backend", backend])
        engine = Engine(bundle, open_encoder(bundle, chosen(arguments, rank)), Gallery.open_or_create(MEMORY, bundle))
        encoding = Encoding(engine, data_path / "photos", out, "folder", False)
        shard = encode_shard(encoding, Part(bundle.features_digest, bundle.head.features, "run", 0, 1), names)
        rows.append(shard.features.astype(np.float32))
    lengths = np.linalg.norm(rows[0], axis=1, keepdims=True)
    for other in rows[1:]:
        np.testing.assert_allclose(other / lengths, rows[0] / lengths, atol=1e-3)
