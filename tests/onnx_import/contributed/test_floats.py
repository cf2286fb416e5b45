"""Activations, products, convolutions and norms of com.microsoft."""

from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import helper

from tests.onnx_import.contributed.cases import VARIATIONS, Case, Chance, check, on_cpu


def reference(op: str, *operands: Any, **attrs: Any) -> Any:
    """What onnx itself computes for a node of ai.onnx."""
    node = helper.make_node(op, [f"x{i}" for i in range(len(operands))], ["y"], **attrs)
    inputs = [
        helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for i, a in enumerate(operands)
    ]
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx.reference.ReferenceEvaluator(model).run(None, {f"x{i}": a for i, a in enumerate(operands)})[0]


def activation(chance: Chance) -> Case:
    op = chance.pick("Gelu", "BiasGelu", "FastGelu", "QuickGelu")
    operands = {"x": chance.normal(2, 3, 5) * np.float32(3)}
    if op == "BiasGelu" or (op == "FastGelu" and chance.maybe(True)):
        operands["b"] = chance.normal(5)
    return Case(op, operands, {"alpha": 1.3} if op == "QuickGelu" and chance.maybe(True) else {})


def sums(chance: Chance) -> Case:
    """ONNX Runtime's CPU has neither."""
    x, bias = chance.normal(2, 3, 8), chance.normal(8)
    if chance.maybe(True):
        return Case("BiasAdd", {"x": x, "b": bias, "skip": chance.normal(2, 3, 8)}, reference=lambda *a: [a[0] + a[1] + a[2]])

    def split_gelu(x: Any, b: Any) -> Any:
        left, right = np.split(x + b, 2, axis=-1)
        return [left * reference("Gelu", right)]

    return Case("BiasSplitGelu", {"x": x, "b": bias}, reference=split_gelu)


def matmul(chance: Chance) -> Case:
    rank, sizes = chance.pick(2, 3, 4), [chance.size(1, 4) for _ in range(4)]
    ta, tb, (m, k, n) = chance.pick(0, 1), chance.pick(0, 1), (chance.size(1, 5) for _ in range(3))
    op = chance.pick("FusedMatMul", "TransposeMatMul") if chance.maybe(True) and rank > 2 else "FusedMatMul"
    ba, bb = (chance.pick(0, 1), chance.pick(0, 1)) if op == "FusedMatMul" and rank > 2 else (0, 0)
    batch = sizes[: rank - 2]
    operands = {}
    for name, turned, moved, pair in (("a", ta, ba, (m, k)), ("b", tb, bb, (k, n))):
        shape = [*batch, *(pair[::-1] if turned else pair)]
        if moved:  # what is first goes behind all the other batches
            shape = [shape[-2], *shape[:-2], shape[-1]]
        operands[name] = chance.normal(*shape)
    attrs = {"transA": ta, "transB": tb, "alpha": chance.pick(1.0, 0.25)}
    if op == "FusedMatMul":
        attrs |= {"transBatchA": ba, "transBatchB": bb}
    return Case(op, operands, attrs)


def gemm(chance: Chance) -> Case:
    m, k, n = (chance.size(1, 5) for _ in range(3))
    ta, tb = chance.pick(0, 1), chance.pick(0, 1)
    operands = {
        "a": chance.normal(*((k, m) if ta else (m, k))),
        "b": chance.normal(*((n, k) if tb else (k, n))),
        "c": chance.maybe(chance.normal(n)),
    }
    attrs = {"transA": ta, "transB": tb, "alpha": chance.pick(1.0, 0.25), "beta": chance.pick(1.0, 2.0)}
    activation = chance.pick("Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Elu", "Softplus", "Softsign")
    attrs["activation"] = activation
    attrs |= {"LeakyRelu": {"activation_alpha": 0.2}, "Elu": {"activation_alpha": 0.7}}.get(activation, {})
    attrs |= {"HardSigmoid": {"activation_alpha": 0.3, "activation_beta": 0.4}}.get(activation, {})
    return Case("FusedGemm", operands, attrs)


def activated_matmul(chance: Chance) -> Case:
    """DirectML's alone."""
    operands = {"a": chance.normal(2, 4, 3), "b": chance.normal(2, 4, 5)}
    attrs = {"transA": 1, "alpha": 0.5, "activation": "Relu"}
    turned: Any = lambda a, b, **_: [np.maximum(np.float32(0.5) * (a.swapaxes(1, 2) @ b), 0)]  # noqa: E731
    return Case("FusedMatMulActivation", operands, attrs, reference=turned)


_ACTIVATIONS = [("Relu", None), ("LeakyRelu", [0.3]), ("Clip", [-0.5, 0.7]), ("HardSigmoid", [0.3, 0.4]), ("Tanh", None)]


def conv(chance: Chance) -> Case:
    group = chance.pick(1, 2)
    strides, pads = [chance.size(1, 2), 1], chance.pick([0, 0, 0, 0], [1, 0, 1, 1])
    height = (5 + pads[0] + pads[2] - 3) // strides[0] + 1
    width = 6 + pads[1] + pads[3] - 2 + 1
    operands = {"x": chance.normal(2, 4, 5, 6), "w": chance.normal(2, 4 // group, 3, 2), "b": chance.maybe(chance.normal(2))}
    if chance.maybe(True):
        operands["z"] = chance.normal(2, 2, height, width)
    name, params = chance.pick(*_ACTIVATIONS)
    attrs = {"group": group, "strides": strides, "pads": pads, "activation": name}
    if params:
        attrs["activation_params"] = params
    return Case("FusedConv", operands, attrs)


def nhwc_conv(chance: Chance) -> Case:
    """No kernel on ONNX Runtime's CPU: the reference is onnx's Conv between transposes."""
    fused = chance.pick(False, True)
    x, w, b = chance.normal(2, 5, 6, 4), chance.normal(4, 2, 3, 2), chance.normal(4)
    attrs: dict[str, Any] = {"group": 2, "strides": [1, 2], "pads": [1, 0, 1, 1]}
    operands = {"x": x, "w": w, "b": b}
    if fused:
        operands["z"] = chance.normal(2, 5, 3, 4)

    def conv(x: Any, w: Any, b: Any, z: Any = None, *, activation: str = "", **attrs: Any) -> Any:
        y = reference("Conv", x.transpose(0, 3, 1, 2), w, b, **attrs).transpose(0, 2, 3, 1)
        return [y] if z is None else [np.maximum(y + z, 0)]

    return Case(
        "NhwcFusedConv" if fused else "NhwcConv", operands, {**attrs, **({"activation": "Relu"} if fused else {})}, reference=conv
    )


def group_norm(chance: Chance) -> Case:
    """No kernel on ONNX Runtime's CPU: the reference is onnx's GroupNormalization, and the documentation's words."""
    last, skipped, activation = chance.pick(0, 1), chance.pick(False, True), chance.pick(0, 1)
    shape = (2, 3, 4, 6) if last else (2, 6, 3, 4)
    operands: dict[str, Any] = {"x": chance.normal(*shape), "gamma": chance.normal(6), "beta": chance.normal(6)}
    results = ["y"]
    if skipped:
        operands["skip"] = chance.normal(*chance.pick(shape, (2, 6)))
        operands["bias"] = chance.maybe(chance.normal(6))
        results.append("total")

    def norm(x: Any, gamma: Any, beta: Any, skip: Any = None, bias: Any = None, **_: Any) -> Any:
        first = x.transpose(0, 3, 1, 2) if last else x
        if skip is not None:
            first = first + (skip[:, :, None, None] if skip.ndim == 2 else skip.transpose(0, 3, 1, 2) if last else skip)
        if bias is not None:
            first = first + bias[:, None, None]
        y = reference("GroupNormalization", first, gamma, beta, num_groups=3, epsilon=1e-3)
        y = y / (1 + np.exp(-y)) if activation else y
        return [(v.transpose(0, 2, 3, 1) if last else v).astype(np.float32) for v in ((y, first) if skipped else (y,))]

    attrs = {"activation": activation, "channels_last": last, "groups": 3, "epsilon": 1e-3}
    return Case("SkipGroupNorm" if skipped else "GroupNorm", operands, attrs, results=results, reference=norm)


def renamed(chance: Chance) -> Case:
    match chance.pick("Trilu", "GridSample", "ExpandDims", "Range", "Unique"):
        case "Trilu":
            operands: dict[str, Any] = {"x": chance.normal(4, 5), "k": chance.maybe(np.array(1, np.int64))}
            return Case("Trilu", operands, {"upper": chance.pick(0, 1)})
        case "GridSample":
            mode = chance.pick("bilinear", "nearest", "bicubic")
            attrs = {"mode": mode, "padding_mode": chance.pick("zeros", "border"), "align_corners": chance.pick(0, 1)}
            operands = {"x": chance.normal(1, 2, 5, 6), "grid": chance.normal(1, 3, 4, 2) / 2}
            return Case("GridSample", operands, attrs, tolerance=1e-4)
        case "ExpandDims":
            operands = {"x": chance.normal(2, 3), "axis": np.array(chance.pick(0, 1, -1), np.int32)}
            return Case("ExpandDims", operands, stored=("axis",))
        case "Range":
            operands = {"a": np.float32(1), "b": np.float32(7), "c": chance.maybe(np.float32(1.5))}
            return Case("Range", operands, stored=("a", "b", "c"))
    return Case("Unique", {"x": chance.integers(0, 3, 7).astype(np.float32)}, results=("y", "at", "count"))


FAMILIES = [activation, sums, matmul, gemm, activated_matmul, conv, nhwc_conv, group_norm, renamed]


@pytest.mark.parametrize("family", FAMILIES)
def test_random_nodes(family: Any) -> None:
    for seed in range(2 * VARIATIONS):
        check(family(Chance(seed)), None if seed else on_cpu)
