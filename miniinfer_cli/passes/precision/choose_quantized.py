"""Which products of a graph multiply numbers of 8 bits when a build asks for them, and which values become such for that.

A product with constant weights does: their scales are one for each of its outputs, and that of what it multiplies is one number.
What is added to the result of such a convolution is of 8 bits as well, since it is a result of another one: so what passes
between two convolutions is bytes. What is added to the result of a matrix product (the stream that the layers of a transformer
add to) keeps f32.

The last products, whose results are those of the model, keep f32 where they are a hundredth of all work at most: nothing behind
them would average their errors, and what they take is not seen (the last layer of a classifier, not that of a language model).

Floats of 8 bits are multiplied in products of two results as well, and in attention: an outlier costs them little, where it takes
all but a few of the steps of integers.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from miniinfer_cli.ir import Graph, KeptNode, Node, Value
from miniinfer_cli.ir.quantization import INT8, KeepFloat, NumberFormat
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.ops.registry import find
from miniinfer_cli.ops.stored_numbers import only_moves
from miniinfer_cli.passes.driver import with_subgraphs
from miniinfer_cli.passes.operands import dims, sole_user
from miniinfer_cli.passes.precision.choose_widths import is_f32
from miniinfer_cli.passes.precision.quantized_moves import leads_to_attention, moves_one_operand

_LITTLE = 100
"""A last product that is one part of so many of all work is little."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """``products``: the nodes that multiply numbers of this ``format``. ``readers``: by value, who reads it quantized, and at
    which input.

    ``kept``: the products that keep f32, and why.
    """

    products: tuple[Node, ...]
    readers: Mapping[Value, Sequence[tuple[Node, int]]]
    kept: tuple[KeptNode, ...]
    format: NumberFormat = INT8

    def without(self, names: Collection[str]) -> "Quantized":
        """The same, but that the products of these names keep f32, and what is added to their results."""
        left = tuple(n for n in self.products if n.name not in names)
        own = set(left)
        readers = {
            v: [
                (n, i)
                for n, i in found
                if n in own
                or (n.is_op("Add") and any(u is not None and u.producer in own for u in n.inputs))
                or (moves_one_operand(n) and any(a in own for a in _attentions_behind(n)))
            ]
            for v, found in self.readers.items()
        }
        return replace(self, products=left, readers={v: found for v, found in readers.items() if found})


def choose_quantized(graph: Graph, keep: KeepFloat, format: NumberFormat = INT8) -> Quantized:
    """What is to be quantized of a graph of primitive and recognised operations, in front of layouts and regions.

    Sub-graphs keep f32.
    """
    products: list[Node] = []
    kept: list[KeptNode] = []
    for within in with_subgraphs(graph):
        for node in within:
            if not _is_product(node):
                continue
            reason = "sub-graphs keep f32" if within is not graph else _reason(node, keep, format)
            if reason:
                kept.append(KeptNode(node.name, node.op, node.origins, reason))
            else:
                products.append(node)
    last = _few_last(graph, products)
    reason = "rule for the last product: it is little work, and its errors show"
    kept += [KeptNode(n.name, n.op, n.origins, reason) for n in last]
    products = [n for n in products if n not in last]
    readers: dict[Value, list[tuple[Node, int]]] = {}
    for node in products:
        for number in factors(node):
            _read(readers, *(_in_front_of_moves(graph, node, number) if node.is_op("Attention") else (node, number)))
    _add_residuals(graph, {n for n in products if n.is_op("Conv")}, keep, readers)
    return Quantized(tuple(products), readers, tuple(kept), format)


def output_axis(node: Node) -> int:
    """The axis of the weights of a product that its outputs lie along."""
    return 1 if node.is_op("MatMul") or (node.is_op("Gemm") and not node.attrs.get("transB", 0)) else 0


def _few_last(graph: Graph, products: Sequence[Node]) -> list[Node]:
    """The products behind which nothing comes but what is computed element by element, where they are little work."""
    total = sum(map(_operations, products))
    return [n for n in products if has_weights(n) and 0 < _LITTLE * _operations(n) <= total and _leads_out(graph, n.output)]


def _operations(product: Node) -> int:
    """Multiplications, of sizes that are not known as if these were 1; 0 for a product of two results."""
    weights, shape = product.inputs[1], dims(product.output)
    if not has_weights(product) or weights is None or weights.constant is None or not shape:
        return 0
    axis = 1 if product.is_op("Conv") else len(shape) - 1
    return weights.constant.size * math.prod(d for i, d in enumerate(shape) if i != axis and isinstance(d, int))


def _leads_out(graph: Graph, value: Value) -> bool:
    """Whether all that reads the value, and what reads that, ends in results of the graph, element by element."""
    if not value.users:
        return graph.is_output(value)
    return all(
        (is_pointwise(u) or only_moves(u) or u.is_op("Softmax", "LogSoftmax")) and all(_leads_out(graph, v) for v in u.outputs)
        for u in value.users
    )


def _attentions_behind(mover: Node) -> set[Node]:
    """The attentions that what a node moves is moved to."""
    users = {u for v in mover.outputs for u in v.users}
    return {u for u in users if u.is_op("Attention")}.union(*(_attentions_behind(u) for u in users if moves_one_operand(u)))


def _is_product(node: Node) -> bool:
    """A product of f32, whatever it multiplies."""
    opdef = find(node.domain, node.op)
    return opdef is not None and opdef.flops is not None and any(is_f32(v.type) for v in node.outputs)


def factors(node: Node) -> tuple[int, ...]:
    """Which inputs of a product that is quantized are results, not weights."""
    if node.is_op("Attention"):
        return (0, 1, 2)
    return (0,) if has_weights(node) else (0, 1)


def _in_front_of_moves(graph: Graph, attention: Node, number: int) -> tuple[Node, int]:
    """The first of the nodes that only move this operand on its way to attention, and at which input it reads it.

    So queries, keys and values of one product are quantized where it ends, by one scale, which costs floats of 8 bits nothing.
    """
    reader, place = attention, number
    while True:
        value = reader.inputs[place]
        mover = None if value is None else value.producer
        if mover is None or not moves_one_operand(mover) or not leads_to_attention(graph, mover):
            return reader, place
        reader, place = mover, 0


def has_weights(node: Node) -> bool:
    """Whether the second factor of a product is a constant."""
    weights = node.inputs[1]
    return weights is not None and weights.constant is not None


def _reason(node: Node, keep: KeepFloat, format: NumberFormat) -> str:
    """Why a product keeps f32; empty for one that need not."""
    if keep.asks_to_keep(node.op, node.origins):
        return "asked for"
    of_results = format.is_float and node.is_op("Attention", "MatMul") and not has_weights(node)
    if not (of_results or node.is_op("Conv", "MatMul", "Gemm")):
        return f"rule for {node.op}: no {'floats of 8 bits' if format.is_float else 'integers'} are multiplied in it"
    if of_results:
        read = [node.inputs[i] for i in factors(node)]
        if any(v is None or v.constant is not None or not is_f32(v.type) for v in read):
            return "a factor of it is no result of f32"
        # With a past, keys and values of f32 are joined to the new ones.
        has_past = node.is_op("Attention") and any(v is not None for v in node.inputs[4:6])
        return "rule for Attention: it reads a past" if has_past else ""
    x, weights = node.inputs[0], node.inputs[1]
    assert x is not None and weights is not None
    if weights.constant is None or not is_f32(weights.type):
        return "its second factor is no constant of f32"
    if x.constant is not None or not is_f32(x.type):
        return "its first factor is no result of f32"
    if node.is_op("Conv"):
        return "" if len(weights.constant.shape) > 2 else "rule for Conv: weights without spatial axes"
    if node.attrs.get("transA", 0) or len(weights.constant.shape) != 2:
        return f"rule for {node.op}: its weights are no matrix on the right"
    return "" if len(dims(x) or ()) > 1 else f"rule for {node.op}: it multiplies a vector"


def _add_residuals(graph: Graph, convolutions: set[Node], keep: KeepFloat, readers: dict[Value, list[tuple[Node, int]]]) -> None:
    """What is added to the result of a convolution that nothing else reads; of two such results the first."""
    position = {node: i for i, node in enumerate(graph)}
    for node in graph.nodes:
        if not node.is_op("Add") or keep.asks_to_keep(node.op, node.origins):
            continue
        a, b = node.inputs[0], node.inputs[1]
        if a is None or b is None or a is b or dims(a) is None or dims(a) != dims(b) or not (is_f32(a.type) and is_f32(b.type)):
            continue
        own = [v for v in (a, b) if v.producer in convolutions and sole_user(graph, v) is node]
        if not own:
            continue
        last = max(own, key=lambda v: position[v.producer] if v.producer is not None else -1)
        other = b if last is a else a
        if other.constant is None:
            _read(readers, node, 1 if other is b else 0)


def _read(readers: dict[Value, list[tuple[Node, int]]], node: Node, number: int) -> None:
    value = node.inputs[number]
    assert value is not None
    found = readers.setdefault(value, [])
    if (node, number) not in found:
        found.append((node, number))
