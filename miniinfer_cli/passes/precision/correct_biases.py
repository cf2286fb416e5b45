"""What rounding to 8 bits shifts the results of a product by, on average, goes into its bias.

Errors of weights and of what they multiply do not add up to nothing: each output is off by about the same for all samples,
and the shifts of the layers add up. So the mean error of each output is measured on the samples, each product by itself: what it
multiplies is that of the graph in f32. What is added to the result of a convolution in 8 bits is corrected there as well.

Source: M. Nagel et al., Data-free quantization through weight equalization and bias correction, arXiv 1906.04721 (section 4.2,
with samples).
"""

from collections.abc import Mapping

import numpy as np

from miniinfer_cli.ir import Array, DType, Graph, Node, Value
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.operands import dims, sole_user
from miniinfer_cli.passes.precision.choose_quantized import Quantized, has_weights
from miniinfer_cli.passes.precision.quantize_floats import rounded_value, rounded_weights


def show_errors(graph: Graph, chosen: Quantized, scales: Mapping[str, float]) -> dict[str, list[Value]]:
    """Adds to a graph of f32, in which nothing is quantized yet, the mean error of each output of what was ``chosen``.

    Gives, by the name of a product, values of f32[outputs]: what to add to its results. ``chosen`` may be of a graph that this is
    a copy of, by names.
    """
    nodes = {node.name: node for node in graph}
    behind = dict(zip(graph.nodes, graph.nodes[1:], strict=False))
    values = {value.name: value for value in graph.values()}
    errors: dict[str, list[Value]] = {}
    for product in chosen.products:
        node = nodes[product.name]
        x = node.inputs[0]
        if not has_weights(node) or x is None or x.name not in scales or not dims(node.output):
            continue
        wide = rounded_value(graph, x, scales[x.name], chosen.format, node)
        weights = rounded_weights(graph, node, chosen.format)
        rounded = insert(graph, node.op, wide, weights, *node.inputs[2:], before=node, domain=node.domain, **node.attrs)
        errors[node.name] = [_mean_error(graph, node, node.output, rounded, behind.get(node))]
    for read, readers in chosen.readers.items():
        for reader, number in readers:
            beside = _convolution_beside(reader, number)
            if beside is None or beside.name not in errors or read.name not in scales:
                continue
            node, value = nodes[reader.name], values[read.name]
            wide = rounded_value(graph, value, scales[value.name], chosen.format, node)
            errors[beside.name].append(_mean_error(graph, nodes[beside.name], value, wide, node))
    return errors


def correct_biases(graph: Graph, errors: Mapping[str, Array]) -> int:
    """Adds these numbers to the biases of products by name, which get one where they have none; gives how many."""
    fired = 0
    for node in graph.nodes:
        error = errors.get(node.name)
        if error is not None and np.isfinite(error).all() and error.any():
            fired += _add_to_bias(graph, node, error.astype(np.float32))
    return fired


def _convolution_beside(reader: Node, number: int) -> Node | None:
    """The product to whose result an Add adds a value that is quantized."""
    other = reader.inputs[1 - number] if reader.is_op("Add") else None
    return None if other is None else other.producer


def _mean_error(graph: Graph, product: Node, exact: Value, rounded: Value, before: Node | None) -> Value:
    """By output of the product, over all else."""
    rank = len(dims(exact) or ())
    axis = 1 if product.is_op("Conv") else rank - 1
    axes = graph.add_constant(np.array([i for i in range(rank) if i != axis], np.int64), "axes")
    error = insert(graph, "Sub", exact, rounded, before=before)
    return insert(graph, "ReduceMean", error, axes, before=before, keepdims=0)


def _add_to_bias(graph: Graph, node: Node, error: Array) -> bool:
    """False where the bias is none of one constant for each output."""
    if node.is_op("Conv", "Gemm"):
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if node.attrs.get("beta", 1.0) != 1 or (bias is not None and not _is_row(bias, error.size)):
            return False
        graph.set_inputs(node, [*node.inputs[:2], _summed(graph, bias, error)])
        return True
    user = sole_user(graph, node.output)
    if user is not None and user.is_op("Add"):
        number = next((i for i, v in enumerate(user.inputs) if v is not None and _is_row(v, error.size)), None)
        if number is not None:
            row = _summed(graph, user.inputs[number], error)
            graph.set_inputs(user, [row if i == number else v for i, v in enumerate(user.inputs)])
            return True
    behind = dict(zip(graph.nodes, graph.nodes[1:], strict=False))
    row = graph.add_constant(error, f"{node.name}_bias")
    corrected = insert(graph, "Add", node.output, row, before=behind.get(node), out=node.output.name)
    graph.replace_uses(node.output, corrected)
    assert corrected.producer is not None
    graph.set_inputs(corrected.producer, [node.output, row])
    return True


def _is_row(value: Value, outputs: int) -> bool:
    """A constant of f32 with a number for each output, along its last axis."""
    handle = value.constant
    return handle is not None and handle.dtype is DType.F32 and handle.size == outputs and handle.shape[-1:] == (outputs,)


def _summed(graph: Graph, bias: Value | None, error: Array) -> Value:
    if bias is None:
        return graph.add_constant(error, "bias")
    assert bias.constant is not None  # ``_is_row``
    return graph.add_constant((bias.constant.array() + error).astype(np.float32), bias.name)
