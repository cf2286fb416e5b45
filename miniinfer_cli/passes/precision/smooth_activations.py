"""SmoothQuant: outliers of activations move into weights, channel by channel, before both become integers.

x @ W = (x / s) @ (s * W). Where a few channels of x are far larger than the others, one scale for all of x leaves these few
steps of the integers; the factors s, one for each channel, share that out between x and the rows of W. x / s costs nothing where
what makes x ends with constants for each channel, and nothing else reads it: a norm, a product with a bias, a Mul. A norm that
others read as well (the stream that is normalized behind each layer) gets a Mul, which is one step with what quantizes. All else
is left alone.

Source: G. Xiao et al., SmoothQuant: Accurate and efficient post-training quantization for large language models, arXiv
2211.10438.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.ir import Array, Constant, DType, Graph, Node, Value, constant
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.operands import dims
from miniinfer_cli.passes.precision.choose_quantized import Quantized, has_weights, output_axis
from miniinfer_cli.passes.recipes import map_constants, reshape_constant

_NORMS = ("LayerNormalization", "RMSNormalization")


@dataclass(frozen=True, slots=True)
class Smoothable:
    """A value of ``channels`` (its last axis) that ``products`` read, and the constants that its factors go into.

    ``folds``: node, number of the input, and the axis of the constant that the channels lie along; none for a Mul of its own.
    """

    value: Value
    channels: int
    products: tuple[Node, ...]
    folds: tuple[tuple[Node, int, int], ...]


def smoothable(graph: Graph, chosen: Quantized) -> tuple[Smoothable, ...]:
    """What of the activations that are to be quantized can be divided channel by channel at little cost, in graph order."""
    position = {node: i for i, node in enumerate(graph)}
    found = []
    for value in chosen.readers:
        shape = dims(value)
        products = tuple(u for u in value.users if _multiplies_rows(u, value))
        if not shape or not isinstance(shape[-1], int) or not products:
            continue
        folds = _folds(graph, value, shape[-1], products)
        if folds is None and value.producer is not None and value.producer.is_op(*_NORMS):
            folds = ()
        if folds is not None:
            found.append(Smoothable(value, shape[-1], tuple(sorted(products, key=position.__getitem__)), folds))
    return tuple(sorted(found, key=lambda s: position[s.products[0]]))


def smooth_activations(graph: Graph, found: Collection[Smoothable], maxima: Mapping[str, Array], alpha: float) -> int:
    """Divides what was ``found`` by s = max|x|**alpha / max|W|**(1 - alpha), channel by channel; gives how many values.

    ``maxima``: the largest magnitudes of each channel, by the name of the value. A channel that is always 0, or whose weights
    are, stays as it is.
    """
    fired = 0
    for one in found:
        rows = [_weights(p).magnitudes([output_axis(p)]).largest.reshape(-1) for p in one.products]
        weights, values = np.max(rows, axis=0).astype(np.float64), maxima[one.value.name].astype(np.float64)
        with np.errstate(all="ignore"):
            factors = values**alpha / weights ** (1 - alpha)
        usable = (values > 0) & (weights > 0) & np.isfinite(factors) & (factors > 0)
        if not usable.any():
            continue
        factors = np.where(usable, factors, np.exp(np.log(factors[usable]).mean())).astype(np.float32)
        for node, number, axis in one.folds:
            _scale(graph, node, number, axis, factors, np.divide)
        if not one.folds:
            inverse = graph.add_constant((1 / factors).astype(np.float32), f"{one.value.name}_factors")
            first = one.products[0]
            divided = insert(graph, "Mul", one.value, inverse, before=first, out=f"{one.value.name}_smoothed")
            for product in one.products:
                graph.set_inputs(product, [divided, *product.inputs[1:]])
        for product in one.products:
            _scale(graph, product, 1, 1 - output_axis(product), factors, np.multiply)
        fired += 1
    return fired


def _multiplies_rows(node: Node, value: Value) -> bool:
    """A product that reads ``value`` as its first factor alone, and a constant matrix as its second."""
    if not node.is_op("MatMul", "Gemm") or not has_weights(node) or node.attrs.get("transA", 0):
        return False
    return len(_weights(node).shape) == 2 and [v is value for v in node.inputs].count(True) == 1 and node.inputs[0] is value


def _weights(product: Node) -> Constant:
    value = product.inputs[1]
    assert value is not None and value.constant is not None  # ``has_weights``
    return value.constant


def _folds(graph: Graph, value: Value, channels: int, readers: Collection[Node]) -> tuple[tuple[Node, int, int], ...] | None:
    """The constants to divide so that ``value``, which ``readers`` alone may read, is divided; None where there are none."""
    node = value.producer
    if node is None or graph.is_output(value) or any(u not in readers for u in value.users):
        return None
    if node.is_op(*_NORMS):
        return _all_rows(node, [i for i in (1, 2) if len(node.inputs) > i and node.inputs[i] is not None], channels)
    if node.is_op("MatMul", "Gemm") and has_weights(node) and len(_weights(node).shape) == 2:
        axis = output_axis(node)
        bias = _all_rows(node, [2], channels) if len(node.inputs) > 2 and node.inputs[2] is not None else ()
        return None if bias is None or _weights(node).shape[axis] != channels else ((node, 1, axis), *bias)
    if node.is_op("Relu"):  # so is that of what is divided by a number above 0
        return None if node.inputs[0] is None else _folds(graph, node.inputs[0], channels, (node,))
    if not node.is_op("Add", "Mul"):
        return None
    rows = [i for i, v in enumerate(node.inputs) if v is not None and v.constant is not None]
    own = _all_rows(node, rows, channels)
    others = [v for i, v in enumerate(node.inputs) if i not in rows and v is not None and dims(v) == dims(value)]
    if own is None or (node.is_op("Add") and (not rows or len(others) != 1)):
        return None
    if node.is_op("Mul") and rows:
        return own
    inner = next((f for f in (_folds(graph, v, channels, (node,)) for v in others) if f is not None), None)
    return None if inner is None else (*own, *inner)


def _all_rows(node: Node, numbers: Collection[int], channels: int) -> tuple[tuple[Node, int, int], ...] | None:
    """These inputs, where each is a constant with a number for each channel, along its last axis, and no other axis."""
    found = []
    for number in numbers:
        value = node.inputs[number]
        handle = None if value is None else value.constant
        if handle is None or handle.dtype is not DType.F32 or handle.size != channels or handle.shape[-1:] != (channels,):
            return None
        found.append((node, number, len(handle.shape) - 1))
    return tuple(found)


def _scale(graph: Graph, node: Node, number: int, axis: int, factors: Array, operation: np.ufunc) -> None:
    """Gives ``node`` a constant of its own: this one, by the factors along ``axis``."""
    value = node.inputs[number]
    assert value is not None and value.constant is not None
    handle = value.constant
    spread = reshape_constant(constant(factors), tuple(len(factors) if i == axis else 1 for i in range(len(handle.shape))))
    scaled = graph.add_constant(map_constants(operation, [handle, spread], DType.F32, handle.shape, "smoothed"), value.name)
    graph.set_inputs(node, [scaled if i == number else v for i, v in enumerate(node.inputs)])
