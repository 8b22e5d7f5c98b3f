"""What an exported graph must keep to: PyTorch's features and ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fgsbir_edge.errors import FgsbirError
from fgsbir_edge.variant import FP32

EXACT_FLOOR = 0.99999  # smallest cosine of features that the graph may have to PyTorch's, with the very same weights
COSINE_FLOOR = 0.999  # float16 weights move the features of a trained network by about 1e-5, of a random one by 1e-3
PYTORCH, GRAPH = "PyTorch", "float32 weights"


class ParityError(FgsbirError):
    """The exported graph does not do what the checkpoint does."""

    exit_code = 47


def agree(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ParityError where the graph, or its rounded weights, are further from PyTorch than is let through."""
    graph, stored = found[GRAPH]["parity"], found[FP32]["parity"]
    for what, parity, floor in ((GRAPH, graph, EXACT_FLOOR), (FP32, stored, COSINE_FLOOR)):
        cosines = [parity["cosine_min"], *parity["adversarial"]["cosine"].values()]
        if min(cosines) < floor:
            raise ParityError(f"ONNX features ({what}) have cosine {min(cosines):.6f} to PyTorch's, at least {floor} is expected")
    if graph["ranks_changed_beyond_ties"]:
        raise ParityError(
            f"{graph['ranks_changed_beyond_ties']} of {graph['queries']} ranks differ between ONNX and PyTorch, none should"
        )
