"""From a trained model to what a device runs. Run from a checkout; never part of the wheel."""

from __future__ import annotations

import os

from fgsbir_edge.encoder.onnx import NO_TELEMETRY

os.environ.setdefault(NO_TELEMETRY, "1")  # as ``load_runtime`` does, for what imports ONNX Runtime's tools by itself
