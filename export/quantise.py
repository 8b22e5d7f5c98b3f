"""The encoder in int8: QuantizeLinear/DequantizeLinear around convolutions, residual additions and linear layers.

Weights have a scale for each output channel. Activations are of two kinds, because no kind runs well everywhere:

    int8      signed, zero point 0: the only one that TensorRT reads. ONNX Runtime's CPU kernels do not fuse it
    int8_cpu  unsigned with zero point: a clipped activation uses all 256 levels and its Clip disappears, so that ONNX Runtime
              runs whole layers in integers; TensorRT refuses it

Pooling, attention and the unit length stay in float, and so does each layer that alone turns the features more than its share.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from export.calibration import CalibrationSet
from export.onnx_encoder import clean, halved, widened
from fgsbir_edge.arrays import Float32

Method = Literal["minmax", "percentile", "entropy"]
QUANTISED = ("Conv", "Gemm", "Add")
LAYERS = ("Conv", "Gemm")  # those with weights; MatMul pools and attends
_ACTIVATIONS = ("Clip", "Relu", "HardSwish")
LEFT_SHARE = 0.02  # of the sum of all layers' own errors; what is above stays float
_PROBES = 24  # calibration images that layers are judged by
_BATCH = 8


@dataclass(frozen=True)
class Scheme:
    """How to quantise.

    Args:
        signed: activations int8 with zero point 0, else uint8 with a zero point.
        method: how ranges are chosen from the calibration images.
        left: names of nodes left in float; None finds them by measuring each layer.
    """

    signed: bool = True
    method: Method = "minmax"
    left: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Quantiser:
    """Ranges of one encoder, from which any number of schemes can be made."""

    model: onnx.ModelProto  # float32, shapes inferred
    calibration: CalibrationSet
    ranges: Mapping[Method, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: onnx.ModelProto, calibration: CalibrationSet, methods: Sequence[Method] = ("minmax",)) -> Quantiser:
        """Run the calibration images through `model` once for each method."""
        wide = onnx.shape_inference.infer_shapes(widened(model))
        return cls(wide, calibration, {method: _ranges(wide, calibration.pixels, method) for method in dict.fromkeys(methods)})

    def quantised(self, scheme: Scheme) -> tuple[onnx.ModelProto, dict[str, Any]]:
        """The model with QDQ, and what the manifest says of how it was made."""
        left = self.sensitive(scheme) if scheme.left is None else dict.fromkeys(scheme.left)
        model = halved(clean(self._qdq(scheme, exclude=list(left))))
        made = {
            "activations": "int8" if scheme.signed else "uint8",
            "weights": "int8 per channel",
            "method": scheme.method,
            "calibration": self.calibration.to_json(),
            "left_in_float": {self.layer(name): error for name, error in left.items()},
        }
        return model, made

    def layer(self, node: str) -> str:
        """What a layer is called in the network, from the name of its weights."""
        weights: str = next(item.input[1] for item in self.model.graph.node if item.name == node)
        return weights.removesuffix(".weight")

    def largest(self, method: Method) -> float:
        """Largest activation that the calibration images gave, as `method` ranges it."""
        return max(float(np.abs(item.range_value).max()) for item in self.ranges[method].values())

    def sensitive(self, scheme: Scheme) -> dict[str, float]:
        """Layers whose own error is above LEFT_SHARE of all errors, largest first, with that error."""
        errors = self.errors(scheme)
        bound = LEFT_SHARE * sum(errors.values())
        return {name: round(error, 6) for name, error in sorted(errors.items(), key=lambda item: -item[1]) if error > bound}

    def errors(self, scheme: Scheme) -> dict[str, float]:
        """For each layer, how far it alone turns the features when quantised: mean 1 - cosine on calibration images."""
        probe = self.calibration.pixels[:_PROBES]
        expected = run(self.model, probe)
        layers = [node.name for node in self.model.graph.node if node.op_type in LAYERS and _has_weights(self.model, node)]
        found = {}
        for name in layers:
            cosine = np.sum(run(self._qdq(scheme, only=name), probe) * expected, axis=1)
            found[name] = max(0.0, 1.0 - float(cosine.mean()))
        return found

    def _qdq(self, scheme: Scheme, *, exclude: Sequence[str] = (), only: str | None = None) -> onnx.ModelProto:
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        quantizer = QDQQuantizer(
            model,
            True,  # a scale for each channel
            False,  # all 8 bits
            QuantType.QInt8,
            QuantType.QInt8 if scheme.signed else QuantType.QUInt8,
            self.ranges[scheme.method],
            [] if only is None else [only],
            [*exclude, *_lone_additions(self.model)],
            list(QUANTISED if only is None else LAYERS),
            {
                "ActivationSymmetric": scheme.signed,
                "WeightSymmetric": True,
                "QuantizeBias": False,  # TensorRT adds biases in float
                # so that no pair comes between a convolution and its activation, where both runtimes fuse
                "OpTypesToExcludeOutputQuantization": list(QUANTISED),
            },
        )
        quantizer.quantize_model()
        result: onnx.ModelProto = quantizer.model.model
        return result


def run(model: onnx.ModelProto, pixels: Float32) -> Float32:
    """Features [B,C] of `model` for pixels [B,3,S,S] on one thread of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    parts = [pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH)]
    rows: Float32 = np.concatenate([session.run(None, {"image": part})[0] for part in parts])
    return rows


def _has_weights(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    return any(initializer.name == node.input[1] for initializer in model.graph.initializer)


def _lone_additions(model: onnx.ModelProto) -> list[str]:
    """Additions that are no residual between layers: of a constant, or in front of pooling. Integers would gain nothing there."""
    made = {name for node in model.graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def leads_to_layer(name: str) -> bool:
        return any(
            node.op_type in LAYERS or (node.op_type in (*_ACTIVATIONS, "Add") and leads_to_layer(node.output[0]))
            for node in readers.get(name, [])
        )

    additions = [node for node in model.graph.node if node.op_type == "Add"]
    return [node.name for node in additions if not (set(node.input) <= made and leads_to_layer(node.output[0]))]


def _ranges(model: onnx.ModelProto, pixels: Float32, method: Method) -> Any:
    """Smallest and largest value of each activation, as `method` would have them."""
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.parts = iter(range(0, len(pixels), _BATCH))

        def get_next(self) -> dict[str, Float32] | None:
            start = next(self.parts, None)
            return None if start is None else {"image": pixels[start : start + _BATCH]}

    kind = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }[method]
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "plain.onnx"
        onnx.save(model, plain)
        calibrator = create_calibrator(plain, list(QUANTISED), str(Path(scratch) / "augmented.onnx"), calibrate_method=kind)
        with contextlib.redirect_stdout(sys.stderr):  # histograms are talked about on stdout
            calibrator.collect_data(Reader())
            return calibrator.compute_data()
