"""Products of f32 become products of 8-bit integers, as pairs of QuantizeLinear and DequantizeLinear around them say.

Scales are symmetric: an integer of -127 to 127 times one number for each tensor, or for each output of the weights. Those of
an output keep their sum (``sum_rounding``): their errors would shift it by that times the mean of what they multiply.
"""

import math
from collections.abc import Mapping

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Constant, DType, Graph, Node, Value, constant
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.precision.choose_quantized import Quantized, output_axis
from miniinfer_cli.passes.recipes import map_constants, reshape_constant
from miniinfer_cli.passes.sum_rounding import LARGEST, round_keeping_sums


def quantize_floats(graph: Graph, chosen: Quantized, scales: Mapping[str, float]) -> int:
    """Quantizes what was ``chosen``, by the scale of each value of ``chosen.readers`` by name; gives the number of products.

    Raises ModelError for a scale that is missing, or none; and for weights that are no numbers.
    """
    position = {node: i for i, node in enumerate(graph)}
    weights: dict[tuple[Value, int], Value] = {}
    for value, readers in chosen.readers.items():
        scale = scales.get(value.name)
        first = min((node for node, _ in readers), key=position.__getitem__)
        if scale is None or not (math.isfinite(scale) and scale > 0):
            told = "has no scale" if scale is None else f"has the scale {scale:g}, expected a positive number"
            raise ModelError(
                f"node {first.name!r}: {value.name!r}, which it is to read as integers, {told}",
                hint="calibrate with data in which it is not constant, or let the node keep f32",
            )
        numbers = (graph.add_constant(np.float32(scale), f"{value.name}_scale"), graph.add_constant(np.int8(0), "zero_point"))
        narrow = insert(graph, "QuantizeLinear", value, *numbers, before=first, out=f"{value.name}_int8")
        wide = insert(graph, "DequantizeLinear", narrow, *numbers, before=first, out=f"{value.name}_dequantized")
        for node, number in readers:
            graph.set_inputs(node, [wide if i == number else v for i, v in enumerate(node.inputs)])
    for node in chosen.products:
        old, axis = node.inputs[1], output_axis(node)
        assert old is not None and old.constant is not None
        if (old, axis) not in weights:
            weights[old, axis] = _quantized_weights(graph, node, old, axis)
        graph.set_inputs(node, [node.inputs[0], weights[old, axis], *node.inputs[2:]])
    return len(chosen.products)


def _quantized_weights(graph: Graph, node: Node, weights: Value, axis: int) -> Value:
    """The weights as integers with a scale for each index of ``axis``, dequantized in front of ``node``."""
    handle = weights.constant
    assert handle is not None
    scales = scales_along(handle, axis)
    if not np.isfinite(scales).all():
        raise ModelError(
            f"node {node.name!r}: its weight {weights.name!r} holds a number that is not finite, which no integer stands for",
            hint="let the node keep f32",
        )
    shape = tuple(-1 if i == axis else 1 for i in range(len(handle.shape)))
    spread = reshape_constant(constant(scales), tuple(len(scales) if n == -1 else 1 for n in shape))
    wide = map_constants(np.divide, [handle, spread], DType.F32, handle.shape, "over its scale")
    narrow = round_keeping_sums(wide, DType.I8, (axis,))
    numbers = (graph.add_constant(scales, f"{weights.name}_scale"),)
    value = graph.add_constant(narrow, f"{weights.name}_int8")
    return insert(graph, "DequantizeLinear", value, *numbers, before=node, out=f"{weights.name}_dequantized", axis=axis)


def scales_along(handle: Constant, axis: int) -> Array:
    """The scale of each index of ``axis``: the largest magnitude over LARGEST, or 1 where all is 0."""
    others = [i for i in range(len(handle.shape)) if i != axis]
    largest = handle.magnitudes(others).largest.reshape(-1)
    with np.errstate(all="ignore"):
        scales = (largest / np.float32(LARGEST)).astype(np.float32)
    return np.where(scales == 0, np.float32(1), scales)
