"""Weights in blocks of a few bits, and layers of experts."""

from typing import Any

import numpy as np
import pytest

from tests.onnx_import.contributed.cases import VARIATIONS, Case, Chance, check, on_cpu


def nbits(chance: Chance) -> Case:
    bits, size = chance.pick(2, 4, 4, 8), chance.pick(16, 32)
    k, n = chance.size(1, 3) * size - chance.pick(0, 0, 5), chance.size(1, 9)
    blocks = -(-k // size)
    a = chance.normal(2, chance.size(1, 3), k)
    dtype = chance.pick(np.float32, np.float32, np.float16)
    operands: dict[str, Any] = {
        "a": a.astype(dtype),
        "b": chance.eight_bits(np.uint8, n, blocks, size * bits // 8),
        "scales": chance.normal(n, blocks).astype(dtype),
        "zeros": None,
        "g": None,
        "bias": chance.maybe(chance.normal(n).astype(dtype)),
    }
    form = chance.pick("none", "packed", "floats")
    if form == "packed":
        operands["zeros"] = chance.eight_bits(np.uint8, n, -(-blocks * bits // 8))
    elif form == "floats" and bits == 4:
        operands["zeros"] = chance.integers(0, 15, n, blocks, dtype=dtype) + chance.pick(dtype(0), dtype(0.25))
    stored = ("b", "scales", "zeros") if chance.rng.random() < 0.8 else ()
    attrs = {"K": k, "N": n, "bits": bits, "block_size": size, "accuracy_level": chance.pick(0, 1)}
    return Case("MatMulNBits", operands, attrs, stored=stored, tolerance=1e-4)


def gather(chance: Chance) -> Case:
    bits, size, dtype = chance.pick(4, 4, 8), chance.pick(16, 32), chance.pick(np.float32, np.float16)
    rows, blocks = chance.size(2, 6), chance.size(1, 3)
    operands: dict[str, Any] = {
        "data": chance.eight_bits(np.uint8, rows, blocks * size * bits // 8),
        "ids": chance.integers(-rows, rows - 1, 2, 3, dtype=chance.pick(np.int32, np.int64)),
        "scales": chance.normal(rows, blocks).astype(dtype),
        "zeros": chance.maybe(chance.eight_bits(np.uint8, rows, -(-blocks * bits // 8))),
    }
    attrs = {"bits": bits, "block_size": size, "gather_axis": 0, "quantize_axis": chance.pick(1, -1)}
    return Case("GatherBlockQuantized", operands, attrs, stored=("data", "scales", "zeros"))


def bnb4(chance: Chance) -> Case:
    size, n = 16, chance.size(1, 6)
    k = chance.pick(16, 32, 48)
    operands = {
        "a": chance.normal(2, 3, k),
        "b": chance.eight_bits(np.uint8, n * k // 2),
        "absmax": np.abs(chance.normal(n * k // size)),
    }
    return Case(
        "MatMulBnb4",
        operands,
        {"K": k, "N": n, "block_size": size, "quant_type": chance.pick(0, 1)},
        stored=("b", "absmax"),
        tolerance=1e-4,
    )


def experts(chance: Chance) -> Case:
    count, hidden, inner, tokens = chance.size(2, 5), 16, 32, chance.size(1, 5)
    activation = chance.pick("relu", "gelu", "silu", "identity", "swiglu")
    wide = inner * (2 if activation == "swiglu" else 1)
    scores = np.abs(chance.normal(tokens, count))
    operands = {
        "x": chance.normal(tokens, hidden),
        "scores": scores,
        "w1": chance.normal(count, wide, hidden) / 4,
        "b1": chance.maybe(chance.normal(count, wide)),
        "w2": chance.normal(count, hidden, inner) / 4,
        "b2": chance.maybe(chance.normal(count, hidden)),
    }
    attrs = {"k": chance.size(1, count), "activation_type": activation, "normalize_routing_weights": chance.pick(0, 1)}
    if activation == "swiglu":
        attrs |= {"swiglu_fusion": 1, "activation_alpha": 1.7, "activation_beta": 1.0, "swiglu_limit": 3.0}
    return Case("MoE", operands, attrs, tolerance=1e-4, stored=("w1", "w2", "b1", "b2"))


def quantized_experts(chance: Chance) -> Case:
    count, hidden, inner, tokens, bits = chance.size(2, 5), 32, 32, chance.size(1, 5), chance.pick(4, 8)
    block = chance.pick(0, 16)
    activation = chance.pick("silu", "swiglu")
    wide = inner * (2 if activation == "swiglu" else 1)

    def scales(rows: int, columns: int) -> Any:
        shape = (count, rows, columns // block) if block else (count, rows)
        return np.abs(chance.normal(*shape)) / 100

    operands = {
        "x": chance.normal(tokens, hidden),
        "scores": chance.normal(tokens, count),
        "w1": chance.eight_bits(np.uint8, count, wide, hidden * bits // 8),
        "s1": scales(wide, hidden),
        "b1": chance.maybe(chance.normal(count, wide)),
        "w2": chance.eight_bits(np.uint8, count, hidden, inner * bits // 8),
        "s2": scales(hidden, inner),
        "b2": chance.maybe(chance.normal(count, hidden)),
    }
    attrs = {"k": chance.size(1, count), "activation_type": activation, "expert_weight_bits": bits}
    if block:
        attrs["block_size"] = block
    if activation == "swiglu":
        attrs |= {"swiglu_fusion": 1, "activation_alpha": 1.7, "activation_beta": 1.0, "swiglu_limit": 3.0}
    bound = 6e-2 if block and bits == 8 else 1e-4  # ONNX Runtime rounds what it multiplies by such weights to 8 bits as well
    return Case("QMoE", operands, attrs, tolerance=bound, stored=[n for n in operands if n[0] in "wsb" and n != "scores"])


FAMILIES = [nbits, gather, bnb4, experts, quantized_experts]


@pytest.mark.parametrize("family", FAMILIES)
def test_random_nodes(family: Any) -> None:
    for seed in range(2 * VARIATIONS):
        check(family(Chance(seed)), None if seed else on_cpu)
