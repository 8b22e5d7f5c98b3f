"""What the tests' toy model and photos are made of; the fixtures are in conftest.py."""

from __future__ import annotations

import math

import numpy as np

from fgsbir_edge.head import Head

SIZE, POOL, FEATURES, EMBEDDING = 32, 4, 40, 16
USERS, PHOTOS = ("ann", "bob"), 12


def toy_encoder(size: int = SIZE, features: int = FEATURES, seed: int = 0) -> bytes:
    """Average-pool, flatten, matmul: an ONNX graph with the interface of a real encoder."""
    from onnx import TensorProto, helper, numpy_helper

    cells = 3 * (size // POOL) ** 2
    weight = np.random.default_rng(seed).normal(size=(cells, features)).astype(np.float32) / math.sqrt(cells)
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["image"], ["pooled"], kernel_shape=[POOL, POOL], strides=[POOL, POOL]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["features"]),
        ],
        "toy",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", features])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def toy_head(seed: int = 0, **changes: object) -> Head:
    """A random head with three step sizes."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(EMBEDDING, FEATURES)) / math.sqrt(FEATURES)
    fields = {"bias": 0.01 * rng.normal(size=EMBEDDING), "step_sizes": [0.2, 0.1, 0.05], **changes}
    return Head(weight=weight, **fields)  # type: ignore[arg-type]


def outline(number: int, wobble: float) -> list[tuple[float, float]]:
    """A closed outline on a 100-pixel square: stars with 3 to 8 points, thick and thin."""
    points, depth = 3 + number // 2, 0.35 + 0.4 * (number % 2)
    corners = []
    for corner in range(2 * points + 1):
        radius = 40 * (1.0 if corner % 2 == 0 else depth) + wobble * math.sin(7 * corner + number)
        angle = math.pi * corner / points
        corners.append((50 + radius * math.cos(angle), 50 + radius * math.sin(angle)))
    return corners
