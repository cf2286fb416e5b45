"""Operators that are none of ai.onnx's give what ONNX Runtime gives."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from tests.onnx_import.models import F16, F32, fault, model, run

IMAGE = np.random.default_rng(3).standard_normal((2, 3, 4, 5)).astype(np.float32)
SCALE = np.array([1, -2, 3, 0.5, 2], np.float32)


def _model(op: str, stored: dict[str, Any] | None = None, n_outputs: int = 1, **attrs: Any) -> onnx.ModelProto:
    names = [f"y{i}" for i in range(n_outputs)]
    node = helper.make_node(op, ["x", *(stored or {})], names, **attrs)
    proto = model([node], {"x": (F32, ["n", "c", "h", "w"])}, dict.fromkeys(names, (F32, None)), stored, opset=8)
    proto.ir_version = 7
    return proto


def _expect_same(proto: onnx.ModelProto, x: Any) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for got, want in zip(run(proto, x), session.run(None, {"x": x}), strict=True):
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("Affine", {"alpha": 2.0, "beta": 0.25}),
        ("Affine", {}),
        ("Scale", {"scale": 3.0}),
        ("Scale", {}),
        ("ScaledTanh", {"alpha": 2.0, "beta": 0.5}),
        ("ParametricSoftplus", {"alpha": 2.0, "beta": 0.5}),
        ("ThresholdedRelu", {"alpha": 0.5}),
        ("ImageScaler", {"scale": 0.5, "bias": [1.0, 2.0, 3.0]}),
        ("ImageScaler", {"bias": [1.0, 2.0, 3.0]}),
        ("Crop", {"border": [1, 0, 2, 1]}),
        ("Crop", {"border": [1, 1, 0, 0], "scale": [2, 3]}),
        *(
            ("MeanVarianceNormalization", {"across_channels": a, "normalize_variance": b})
            for a, b in ((0, 0), (0, 1), (1, 0), (1, 1))
        ),
        ("MeanVarianceNormalization", {}),
    ],
)
def test_one_input(op: str, attrs: dict[str, Any]) -> None:
    _expect_same(_model(op, **attrs), IMAGE)


def test_dynamic_slice() -> None:
    bounds = {"s": np.array([1, 0]), "e": np.array([2, -1])}
    _expect_same(_model("DynamicSlice", bounds), IMAGE)
    _expect_same(_model("DynamicSlice", {**bounds, "a": np.array([3, 1])}), IMAGE)


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize(
    "attrs", [{}, {"axis": -1, "epsilon": 0.5}, {"axis": 3, "stash_type": 1}, {"axis": -2}], ids=lambda attrs: ",".join(attrs)
)
def test_simplified_layer_normalization(attrs: dict[str, Any], n_outputs: int) -> None:
    scale = np.stack([SCALE] * 4) if attrs.get("axis") == -2 else SCALE
    _expect_same(_model("SimplifiedLayerNormalization", {"s": scale}, n_outputs, **attrs), IMAGE)


def test_simplified_layer_normalization_takes_the_type_of_its_scale() -> None:
    proto = _model("SimplifiedLayerNormalization", {"s": SCALE.astype(np.float16)})
    proto.graph.output[0].type.tensor_type.elem_type = F16
    _expect_same(proto, IMAGE)


@pytest.mark.parametrize(
    ("op", "attrs", "told"),
    [
        ("Crop", {"border": [1, 1]}, r"Crop border [1, 1] and scale []: expected 4 numbers and none or 2, from 0 on"),
        ("Crop", {}, "Crop border []"),
        ("ImageScaler", {}, "ImageScaler needs the attribute 'bias'"),
        ("ScaledTanh", {"alpha": 1.0}, "ScaledTanh needs the attribute 'beta'"),
        ("Affine", {"gamma": 1.0}, "Affine-1 has no attribute 'gamma'; its attributes: alpha, beta"),
    ],
)
def test_what_is_missing_is_told(op: str, attrs: dict[str, Any], told: str) -> None:
    assert told in fault(_model(op, **attrs))
