"""Products of f32 become products of 8-bit numbers, as pairs of QuantizeLinear and DequantizeLinear around them say.

Scales are symmetric: an integer of -127 to 127, or a float of -448 to 448, times one number for each tensor, or for each output
of the weights. What is never negative, behind a Relu, has integers of 0 to 255. The weights of an output keep their sum
(``sum_rounding``): their errors would shift it by that times the mean of what they multiply.
"""

import math
import shlex
from collections.abc import Mapping

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, Graph, Node, Value, constant, numpy_dtype
from miniinfer_cli.ir.quantization import NumberFormat
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.stored_numbers import only_moves
from miniinfer_cli.passes.operands import scalar
from miniinfer_cli.passes.precision.choose_quantized import Quantized, has_weights, output_axis
from miniinfer_cli.passes.recipes import map_constants, reshape_constant
from miniinfer_cli.passes.sum_rounding import round_keeping_sums
from miniinfer_cli.wording import Wording

_LARGEST_UNSIGNED = 255


def quantize_floats(graph: Graph, chosen: Quantized, scales: Mapping[str, float]) -> int:
    """Quantizes what was ``chosen``, by the scale of each value of ``chosen.readers`` by name; gives the number of products.

    A scale is the largest magnitude that a number stands for over the largest of the format, also where there are more integers.

    Raises ModelError for a scale that is missing, or none; and for weights that are no numbers.
    """
    position = {node: i for i, node in enumerate(graph)}
    format = chosen.format
    weights: dict[tuple[Value, int], Value] = {}
    for value, readers in chosen.readers.items():
        scale = scales.get(value.name)
        first = min((node for node, _ in readers), key=position.__getitem__)
        if scale is None or not (math.isfinite(scale) and scale > 0):
            told = "has no scale" if scale is None else f"has the scale {scale:g}, expected a positive number"
            raise ModelError(
                f"node {first.name!r}: {value.name!r}, which it is to read as {format.name}, {told}",
                hint=keep_float_hint(first, "take it out of the calibration cache, and calibrate again"),
            )
        wide = rounded_value(graph, value, scale, format, first)
        for node, number in readers:
            graph.set_inputs(node, [wide if i == number else v for i, v in enumerate(node.inputs)])
    for node in filter(has_weights, chosen.products):
        old, axis = node.inputs[1], output_axis(node)
        assert old is not None and old.constant is not None
        if (old, axis) not in weights:
            weights[old, axis] = rounded_weights(graph, node, format)
        graph.set_inputs(node, [node.inputs[0], weights[old, axis], *node.inputs[2:]])
    return len(chosen.products)


def rounded_value(graph: Graph, value: Value, scale: float, format: NumberFormat, before: Node) -> Value:
    """``value`` in 8 bits by this scale, dequantized, in front of a node."""
    if not format.is_float and is_never_negative(value):
        step, zero = np.float32(scale * format.largest / _LARGEST_UNSIGNED), np.array(0, np.uint8)
    else:
        step, zero = np.float32(scale), np.zeros((), numpy_dtype(format.dtype))
    numbers = (graph.add_constant(step, f"{value.name}_scale"), graph.add_constant(zero, "zero_point"))
    narrow = insert(graph, "QuantizeLinear", value, *numbers, before=before, out=f"{value.name}_{format.name}")
    return insert(graph, "DequantizeLinear", narrow, *numbers, before=before, out=f"{value.name}_dequantized")


def rounded_weights(graph: Graph, node: Node, format: NumberFormat) -> Value:
    """The weights of a product in 8 bits with a scale for each of its outputs, dequantized in front of ``node``."""
    weights, axis = node.inputs[1], output_axis(node)
    assert weights is not None and weights.constant is not None  # ``has_weights``
    handle = weights.constant
    others = [i for i in range(len(handle.shape)) if i != axis]
    scales = scales_of_weights(node, weights, handle.magnitudes(others).largest.reshape(-1), format)
    shape = tuple(-1 if i == axis else 1 for i in range(len(handle.shape)))
    spread = reshape_constant(constant(scales), tuple(len(scales) if n == -1 else 1 for n in shape))
    wide = map_constants(np.divide, [handle, spread], DType.F32, handle.shape, "over its scale")
    narrow = round_keeping_sums(wide, format.dtype, (axis,))
    numbers = (graph.add_constant(scales, f"{weights.name}_scale"),)
    value = graph.add_constant(narrow, f"{weights.name}_{format.name}")
    return insert(graph, "DequantizeLinear", value, *numbers, before=node, out=f"{weights.name}_dequantized", axis=axis)


def is_never_negative(value: Value) -> bool:
    """Whether what makes ``value`` gives no number below 0: bytes without a sign are twice as fine for it."""
    node = value.producer
    if node is None:
        return False
    if node.is_op("Relu", "Sigmoid", "HardSigmoid", "Softmax"):
        return True
    if node.is_op("Clip"):
        least = scalar(node.inputs[1]) if len(node.inputs) > 1 else None
        return least is not None and least >= 0
    read = [v for v in node.inputs if v is not None and v.tensor.dtype is DType.F32] if only_moves(node) else []
    if node.is_op("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"):
        read = [v for v in node.inputs[:1] if v is not None]
    return bool(read) and all(is_never_negative(v) for v in read)


def scales_of_weights(node: Node, weights: Value, magnitudes: Array, format: NumberFormat) -> Array:
    """The scales by which numbers of up to ``magnitudes`` become ones of up to the largest of ``format``; 1 where all are 0.

    Raises ModelError, which names ``node`` and its ``weights``, where a magnitude is not finite.
    """
    with np.errstate(all="ignore"):
        scales = (magnitudes / np.float32(format.largest)).astype(np.float32)
    if not np.isfinite(scales).all():
        raise ModelError(
            f"node {node.name!r}: its weight {weights.name!r} holds a number that is not finite, as {format.name} has none",
            hint=keep_float_hint(node),
        )
    return np.where(scales == 0, np.float32(1), scales)


def keep_float_hint(node: Node, otherwise: str = "") -> Wording:
    """How to let a node keep f32, behind ``otherwise``, what else would do."""
    before = f"{otherwise}, or " if otherwise else ""
    name = (*node.origins, node.name)[0]  # as the model has it
    return Wording(f"{before}give keep_float=[{name!r}]", flags=f"{before}give --keep-float {shlex.quote(name)}")
