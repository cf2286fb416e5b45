"""8-bit operators of com.microsoft."""

from typing import Any

import numpy as np
import pytest

from tests.onnx_import.contributed.cases import VARIATIONS, Case, Chance, check, on_cpu


def kind(chance: Chance) -> Any:
    return chance.pick(np.uint8, np.int8)


def linear(chance: Chance) -> Case:
    op, dtype = chance.pick("QuantizeLinear", "DequantizeLinear"), chance.pick(np.uint8, np.int8, np.uint16, np.int16)
    rows = chance.size(1, 4)
    axis = chance.maybe(1)
    shape = (rows,) if axis else ()
    zero = chance.integers(0, 100, *shape, dtype=dtype)
    scale = np.abs(chance.normal(*shape)) + np.float32(0.01)
    x = chance.normal(3, rows, 2) * np.float32(3)
    if op == "DequantizeLinear":
        x = chance.eight_bits(dtype, 3, rows, 2)
    attrs = {"axis": 1} if axis else {}
    return Case(op, {"x": x, "scale": scale.astype(np.float32), "zero": zero}, attrs, steps=0)


def binary(chance: Chance) -> Case:
    dtype = kind(chance)
    a, b = (chance.quantized(dtype, *s) for s in ((2, 3, 4), chance.pick((2, 3, 4), (4,), (3, 1))))
    y, z = np.float32(chance.rng.uniform(0.05, 0.3)), chance.eight_bits(dtype).reshape(())
    operands = dict(zip(("a", "as", "az", "b", "bs", "bz", "ys", "yz"), (*a, *b, np.array(y, np.float32), z), strict=True))
    return Case(chance.pick("QLinearAdd", "QLinearMul"), operands, steps=1)


def unary(chance: Chance) -> Case:
    dtype = kind(chance)
    op = chance.pick("QLinearSigmoid", "QLinearLeakyRelu")
    operands = dict(zip(("x", "xs", "xz"), chance.quantized(dtype, 3, 5), strict=True))
    scale = np.array(chance.rng.uniform(0.004, 0.05), np.float32)
    operands |= {"ys": scale, "yz": chance.maybe(chance.eight_bits(dtype).reshape(()))}
    attrs = {"alpha": float(chance.rng.uniform(0.01, 0.5))} if op == "QLinearLeakyRelu" else {}
    return Case(op, operands, attrs, steps=1, stored=("xs", "xz", "ys", "yz"))


def softmax(chance: Chance) -> Case:
    dtype = kind(chance)
    operands = dict(zip(("x", "xs", "xz"), chance.quantized(dtype, 2, 3, 4), strict=True))
    operands |= {"ys": np.array(1 / 256, np.float32), "yz": np.array(np.iinfo(dtype).min, dtype)}
    attrs = {"axis": chance.pick(1, 2, -1), "opset": chance.pick(12, 13)}
    return Case("QLinearSoftmax", operands, attrs, steps=1, stored=("xs", "xz", "ys", "yz"))


def pool(chance: Chance) -> Case:
    dtype, last = kind(chance), chance.pick(0, 1)
    op = chance.pick("QLinearAveragePool", "QLinearGlobalAveragePool")
    shape = (2, 5, 6, 3) if last else (2, 3, 5, 6)
    operands = dict(zip(("x", "xs", "xz"), chance.quantized(dtype, *shape), strict=True))
    operands |= {"ys": np.array(chance.rng.uniform(0.03, 0.1), np.float32), "yz": chance.eight_bits(dtype).reshape(())}
    attrs: dict[str, Any] = {"channels_last": last}
    if op == "QLinearAveragePool":
        attrs |= {"kernel_shape": [2, 3], "strides": [chance.size(1, 2), 1], "pads": chance.pick([0, 0, 0, 0], [1, 1, 0, 1])}
        attrs |= {"count_include_pad": chance.pick(0, 1), "ceil_mode": chance.pick(0, 1)}
    return Case(op, operands, attrs, steps=1, stored=("xs", "xz", "ys", "yz"))


def concat(chance: Chance) -> Case:
    dtype = kind(chance)
    operands: dict[str, Any] = {"ys": np.array(0.1, np.float32), "yz": chance.eight_bits(dtype).reshape(())}
    for i in range(chance.size(1, 3)):
        names = (f"x{i}", f"s{i}", f"z{i}")
        operands |= dict(zip(names, chance.quantized(dtype, 2, chance.size(1, 3)), strict=True))
    return Case("QLinearConcat", operands, {"axis": chance.pick(1, -1)}, steps=1, stored=[n for n in operands if n[0] != "x"])


def where(chance: Chance) -> Case:
    dtype = kind(chance)
    operands: dict[str, Any] = {"c": chance.integers(0, 1, 3, 4, dtype=bool)}
    operands |= dict(zip(("x", "xs", "xz"), chance.quantized(dtype, 3, 4), strict=True))
    operands |= dict(zip(("b", "bs", "bz"), chance.quantized(dtype, 4), strict=True))
    operands |= {"ys": np.array(0.07, np.float32), "yz": chance.eight_bits(dtype).reshape(())}
    return Case("QLinearWhere", operands, steps=1, stored=("xs", "xz", "bs", "bz", "ys", "yz"))


def reduce_mean(chance: Chance) -> Case:
    """ONNX Runtime has no kernel for it: the reference is the documentation's words."""
    dtype = kind(chance)
    operands = dict(zip(("x", "xs", "xz"), chance.quantized(dtype, 3, 4, 2), strict=True))
    operands |= {"ys": np.array(0.05, np.float32), "yz": chance.eight_bits(dtype).reshape(())}

    def mean(x: Any, xs: Any, xz: Any, ys: Any, yz: Any, *, axes: Any, keepdims: int) -> Any:
        wide = (x.astype(np.float64) - xz) * xs
        found = np.rint(wide.mean(axis=tuple(axes), keepdims=bool(keepdims)) / ys) + yz
        return [np.clip(found, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)]

    attrs = {"axes": chance.pick([1], [0, 2]), "keepdims": chance.pick(0, 1)}
    return Case("QLinearReduceMean", operands, attrs, steps=1, reference=mean)


def qgemm(chance: Chance) -> Case:
    m, k, n = (chance.size(1, 6) for _ in range(3))
    ta, tb, dtype = chance.pick(0, 1), chance.pick(0, 1), kind(chance)
    a = chance.quantized(np.uint8, *((k, m) if ta else (m, k)))
    b, scale, zero = chance.quantized(dtype, *((n, k) if tb else (k, n)))
    if chance.maybe(True):
        scale, zero = (np.abs(chance.normal(n)) / 20 + np.float32(0.01)), chance.eight_bits(dtype, n)
    operands = dict(zip(("a", "as", "az", "b", "bs", "bz"), (*a, b, scale, zero), strict=True))
    operands["c"] = chance.maybe(chance.integers(-500, 500, n, dtype=np.int32))
    if chance.maybe(True):
        operands |= {"ys": np.array(0.5, np.float32), "yz": chance.eight_bits(np.uint8).reshape(())}
    attrs = {"transA": ta, "transB": tb, "alpha": chance.pick(1.0, 0.5)}
    return Case("QGemm", operands, attrs, steps=1, stored=[n for n in operands if n not in "abc"])


def dynamic(chance: Chance) -> Case:
    k, n, dtype = chance.size(1, 8), chance.size(1, 6), kind(chance)
    shape = () if chance.maybe(True) else (n,)
    operands = {
        "a": chance.normal(2, 3, k),
        "b": chance.eight_bits(dtype, k, n),
        "s": np.abs(chance.normal(*shape)).astype(np.float32) / 20,
        "z": chance.maybe(chance.eight_bits(dtype, *shape).reshape(shape)),
        "bias": chance.maybe(chance.normal(n)),
    }
    return Case("DynamicQuantizeMatMul", operands, tolerance=5e-3, stored=("b", "s", "z"))


def to_float(chance: Chance) -> Case:
    k, n, dtype = chance.size(1, 8), chance.size(1, 6), kind(chance)
    shape = () if chance.maybe(True) else (n,)
    operands = {
        "a": chance.eight_bits(np.uint8, 3, k),
        "b": chance.eight_bits(dtype, k, n),
        "as": np.array(0.02, np.float32),
        "s": np.abs(chance.normal(*shape)).astype(np.float32) / 20,
        "az": chance.maybe(chance.eight_bits(np.uint8).reshape(())),
        "z": chance.maybe(chance.eight_bits(dtype, *shape).reshape(shape)),
        "bias": chance.maybe(chance.normal(n)),
    }
    return Case("MatMulIntegerToFloat", operands)


def conv(chance: Chance) -> Case:
    last, dtype = chance.pick(0, 1), kind(chance)
    operands = dict(zip(("x", "xs", "xz"), chance.quantized(dtype, *((1, 5, 6, 4) if last else (1, 4, 5, 6))), strict=True))
    operands |= dict(zip(("w", "ws", "wz"), chance.quantized(np.int8, 2, 4, 3, 2), strict=True))
    operands |= {"wz": np.zeros((), np.int8), "ys": np.array(0.9, np.float32), "yz": chance.eight_bits(dtype).reshape(())}
    operands["b"] = chance.maybe(chance.integers(-99, 99, 2, dtype=np.int32))
    attrs = {"channels_last": last, "strides": [1, chance.size(1, 2)], "pads": chance.pick([0, 0, 0, 0], [1, 0, 1, 1])}
    return Case("QLinearConv", operands, attrs, steps=1, stored=[n for n in operands if n != "x"])


def max_pool(chance: Chance) -> Case:
    attrs = {"kernel_shape": [2, 3], "strides": [chance.size(1, 2), 1], "ceil_mode": 0}
    return Case("NhwcMaxPool", {"x": chance.eight_bits(kind(chance), 2, 5, 6, 3)}, attrs, steps=0)


FAMILIES = [
    linear, binary, unary, softmax, pool, concat, where, reduce_mean, qgemm, dynamic, to_float, conv, max_pool,
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_random_nodes(family: Any) -> None:
    for seed in range(2 * VARIATIONS):
        check(family(Chance(seed)), None if seed else on_cpu)
