"""How many operations the products within an operation take, by the types of its operands: what its definition says as ``flops``.

A multiplication and an addition are two. Types are static; operands that are left out are None.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from miniinfer_cli.ir import TensorType

Operands = Sequence[TensorType | None]
Results = Sequence[TensorType]
Attrs = Mapping[str, Any]
Flops = Callable[[Operands, Results, Attrs], int]


def count(type: TensorType | None) -> int:
    """The elements of a tensor of static shape; 0 for one that is left out."""
    return 0 if type is None else math.prod(_sizes(type))


def product_flops(operands: Operands, results: Results, attrs: Attrs) -> int:
    """MatMul, Gemm and their forms: each element of the result is a sum over the inner dimension of the first operand."""
    sizes = _sizes(operands[0])
    if not sizes:
        return 0
    return 2 * count(results[0]) * (sizes[-2] if attrs.get("transA") else sizes[-1])


def convolution_flops(weights: int) -> Flops:
    """Convolutions whose weights are operand ``weights``: each result is a sum over the taps and channels of its group."""

    def flops(operands: Operands, results: Results, attrs: Attrs) -> int:
        return 2 * count(results[0]) * math.prod(_sizes(operands[weights])[1:])

    return flops


def transposed_convolution_flops(operands: Operands, results: Results, attrs: Attrs) -> int:
    """Each element of the input meets each tap and feature of its group."""
    return 2 * count(operands[0]) * math.prod(_sizes(operands[1])[1:])


def attention_flops(operands: Operands, results: Results, attrs: Attrs) -> int:
    """Queries with the keys that they see, and weights with values."""
    queries, past = _sizes(operands[0])[-2], _sizes(operands[4] if len(operands) > 4 else None)
    before = past[-2] if past else 0
    keys = _sizes(operands[1])[-2] + before
    seen = queries * keys
    if attrs.get("is_causal"):
        seen = sum(min(keys, before + i + 1) for i in range(queries)) if queries <= keys else seen // 2
    return 2 * seen * (count(operands[0]) + count(results[0])) // max(queries, 1)


def recurrent_flops(operands: Operands, results: Results, attrs: Attrs) -> int:
    """RNN, GRU and LSTM: two products for each step and sequence."""
    x, w, r = operands[:3]
    return 2 * math.prod(_sizes(x)[:2]) * (count(w) + count(r))


def excitation_flops(operands: Operands, results: Results, attrs: Attrs) -> int:
    """A product with each of the two weights for each image."""
    x, squeeze, excite = operands[:3]
    return 2 * (_sizes(x) or (0,))[0] * (count(squeeze) + count(excite))


def linear_attention_flops(operands: Operands, results: Results, attrs: Attrs) -> int:
    """For each token the state is scaled, read twice and added to."""
    query, key, value = (_sizes(t) for t in operands[:3])
    held = attrs["kv_num_heads"]
    state = query[0] * held * (key[2] // held) * (value[2] // held)
    return int(8 * query[1] * state)


def causal_conv_flops(operands: Operands, results: Results, attrs: Attrs) -> int:
    """A sum over the taps for each element."""
    return 2 * count(results[0]) * _sizes(operands[1])[-1]


def _sizes(type: TensorType | None) -> tuple[int, ...]:
    return () if type is None else tuple(n for n in type.shape or () if isinstance(n, int))
