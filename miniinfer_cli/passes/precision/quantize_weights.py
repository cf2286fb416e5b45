"""Weights of matrix products become integers of 8 or 4 bits, dequantized in front of the product, which stays one of f32.

Scales are symmetric, one for each column or for each group of so many rows of it.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array, Constant, DType, Graph, KeptNode, Node, Value, constant
from miniinfer_cli.ir.quantization import KeepFloat, NumberFormat
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.precision.choose_quantized import choose_quantized, output_axis
from miniinfer_cli.passes.precision.quantize_floats import scales_of_weights
from miniinfer_cli.passes.recipes import map_constants, reshape_constant


@dataclass(frozen=True, slots=True)
class WeightForm:
    """Integers of ``dtype`` (i8 or i4), with a scale for every ``group`` rows of a column; 0: one for each column."""

    dtype: DType
    group: int = 0

    @property
    def format(self) -> NumberFormat:
        """The integers; the smallest is as far from 0 as the largest."""
        return NumberFormat(f"int{self.dtype.bits}", self.dtype, (1 << (self.dtype.bits - 1)) - 1)


def quantize_weights(graph: Graph, keep: KeepFloat, form: WeightForm) -> tuple[int, tuple[KeptNode, ...]]:
    """Gives the number of products whose weights are integers from now on, and the others, with why they are not.

    Raises ModelError for a weight that is not finite.
    """
    chosen = choose_quantized(graph, keep)
    matrices = [n for n in chosen.products if n.is_op("MatMul", "Gemm")]
    others = [
        KeptNode(n.name, n.op, n.origins, "rule: only matrices are stored so") for n in chosen.products if n not in matrices
    ]
    made: dict[tuple[Value, int], Value] = {}
    for node in matrices:
        weights, axis = node.inputs[1], output_axis(node)
        assert weights is not None and weights.constant is not None
        if (weights, axis) not in made:
            made[weights, axis] = _dequantized(graph, node, weights, 1 - axis, form)
        graph.set_inputs(node, [node.inputs[0], made[weights, axis], *node.inputs[2:]])
    return len(matrices), (*chosen.kept, *others)


def _dequantized(graph: Graph, node: Node, weights: Value, along: int, form: WeightForm) -> Value:
    """The weights as integers, with scales for groups ``along`` the axis that is summed."""
    handle = weights.constant
    assert handle is not None
    size = handle.shape[along]
    group = min(form.group, size) or size
    scales_of = functools.partial(scales_of_weights, node, weights, format=form.format)
    scales, narrow = _integers(handle, along, group, form, scales_of)
    value = graph.add_constant(narrow, f"{weights.name}_{form.dtype}")
    attrs: dict[str, Any] = {"axis": 1 - along} if group == size else {"axis": along, "block_size": group}
    numbers = graph.add_constant(scales.reshape(-1) if group == size else scales, f"{weights.name}_scale")
    return insert(graph, "DequantizeLinear", value, numbers, before=node, out=f"{weights.name}_dequantized", **attrs)


def _integers(
    handle: Constant, along: int, group: int, form: WeightForm, scales_of: Callable[[Array], Array]
) -> tuple[Array, Constant]:
    """The scales, with as many along the axis as there are groups, and the integers: a recipe where groups are whole."""
    size = handle.shape[along]
    if size % group:  # the last group is a part of one: it is computed now
        array = handle.array()
        padding = [(0, 0), (0, 0)]
        padding[along] = (0, -size % group)
        padded = constant(np.pad(array, padding))
        scales, narrow = _integers(padded, along, group, form, scales_of)
        cut = [slice(None), slice(None)]
        cut[along] = slice(0, size)
        return scales, constant(narrow.array()[tuple(cut)])
    apart = (size // group, group)
    shape = (*apart, handle.shape[1]) if along == 0 else (handle.shape[0], *apart)
    grouped = reshape_constant(handle, shape)
    scales = scales_of(grouped.magnitudes([along + 1]).largest)

    largest = form.format.largest

    def rounded(block: Array, by: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.clip(np.rint(block / by), -largest, largest)

    narrow = map_constants(rounded, [grouped, constant(scales)], form.dtype, shape, str(form.dtype))
    return scales.reshape([n for i, n in enumerate(scales.shape) if i != along + 1]), reshape_constant(narrow, handle.shape)
