"""An activation behind a convolution that a depthwise convolution alone reads: it is done as the depthwise kernel loads.

Libraries have few activations behind their sums, so others are passes over the largest results that such networks have.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from miniinfer_cli.backends.cuda.contract.join import Join, joins, label_of
from miniinfer_cli.backends.cuda.contract.problems import Activation
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.strides import row_major
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_heuristic import CONVOLUTIONS, ConvolutionHeuristic
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import (
    LIBRARY_ACTIVATIONS,
    Convolution,
    ConvolutionOperands,
    Finish,
    activation_of,
    convolution_of,
    estimate_of,
)
from miniinfer_cli.backends.cuda.tactics.convolution.pixel_products import favours_pixels
from miniinfer_cli.backends.cuda.tactics.convolution.stems import prefers_stem
from miniinfer_cli.backends.reference import static_tensor
from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ir.parts import copy_node
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import Types

KEY = "activated_depthwise"


@joins(KEY)
def find_activated(graph: Graph, types: Types, target: Target) -> list[Join]:
    """Every convolution with an activation whose result one depthwise convolution alone reads."""
    found = []
    for node in graph:
        first = _activated(node, types)
        if first is None or len(node.output.users) != 1:
            continue
        (reader,) = node.output.users
        second = _depthwise(reader, node.output, types)
        if second is not None:
            found.append(_join(node, first, reader, second, types, target))
    return found


@dataclass(frozen=True, slots=True)
class _Activated:
    """A region of a convolution and an activation behind it."""

    conv: Convolution
    anchor: Node
    activation: Node


def _activated(region: Node, types: Types) -> _Activated | None:
    body = region.body
    if (region.domain, region.op) != (OURS, "FusedConv") or body is None or len(body) != 2:
        return None
    anchor, then = body
    if anchor.op != "ConvNHWC" or then.inputs[0] is not anchor.output or body.outputs != (then.output,):
        return None
    if activation_of(then) in (*LIBRARY_ACTIVATIONS, Activation.NONE):
        return None
    conv = _conv_of(anchor, dict(zip(body.inputs, region.inputs, strict=True)), region.output, types)
    return None if conv is None or conv.is_depthwise else _Activated(conv, anchor, then)


def _depthwise(reader: Node, value: Value, types: Types) -> Convolution | None:
    """The depthwise convolution of ``value`` that a node is, or that its body begins with."""
    if reader.domain != OURS or reader.op not in ("ConvNHWC", "FusedConv"):
        return None
    inside = _Inside.of(reader)
    anchor, outer = inside.nodes[0], inside.outer
    if anchor.op != "ConvNHWC" or [outer.get(v) for v in anchor.inputs if v is not None].count(value) != 1:
        return None
    inner = anchor.inputs[0]
    if inner is None or outer.get(inner) is not value or inner.users != (anchor,):
        return None
    conv = _conv_of(anchor, outer, reader.output, types)
    return conv if conv is not None and conv.is_depthwise else None


@dataclass(frozen=True, slots=True)
class _Inside:
    """The nodes of a region, or a node alone: what each value that these read is outside, and what leaves them."""

    nodes: tuple[Node, ...]
    outer: Mapping[Value, Value | None]
    results: tuple[Value, ...]

    @classmethod
    def of(cls, node: Node) -> "_Inside":
        if node.body is None:
            return cls((node,), {v: v for v in node.inputs if v is not None}, node.outputs)
        return cls(node.body.nodes, dict(zip(node.body.inputs, node.inputs, strict=True)), node.body.outputs)


def _conv_of(anchor: Node, outer: Mapping[Value, Value | None], result: Value, types: Types) -> Convolution | None:
    """The convolution of an anchor, by the types of what it reads outside of its body and of the region's result."""
    x, w = (outer.get(v) if v is not None else None for v in anchor.inputs[:2])
    kinds = [None if v is None else static_tensor(types.get(v, v.type)) for v in (x, w, result)]
    if any(kind is None for kind in kinds):
        return None
    read, by, made = kinds
    assert read is not None and by is not None and made is not None
    return convolution_of(anchor, read, by, made)


def _join(
    node: Node, first: _Activated, reader: Node, second: Convolution, types: Types, target: Target,
    table: ConvolutionHeuristic = CONVOLUTIONS,
) -> Join:  # fmt: skip
    graph = Graph(KEY)
    outer: dict[Value, Value] = {}
    for value in (v for n in (node, reader) for v in n.inputs if v is not None and v is not node.output):
        if value not in outer:
            outer[value] = graph.add_input(value.name, types.get(value, value.type))
    assert node.body is not None
    label = label_of((node, reader))
    inside = {v: outer[o] for v, o in zip(node.body.inputs, node.inputs, strict=True) if o is not None}
    made = graph.new_value(first.anchor.output.name, types[node.output])
    given = [None if v is None else inside[v] for v in first.anchor.inputs]
    graph.add_node("ConvNHWC", given, [made], domain=OURS, name=f"{label}: {node.name}", attrs=first.anchor.attrs)

    body = Graph("FusedConv")
    operands = [made, *(v for v in reader.inputs if v is not None and v is not node.output)]
    operands = list(dict.fromkeys(operands))
    names = {v: body.add_input(v.name, types.get(v, v.type) if v is not made else types[node.output]) for v in operands}
    before = {first.anchor.output: names[made]}
    copy_node(body, first.activation, before)
    activated = before[first.activation.output]
    depthwise = _Inside.of(reader)
    inner = {v: activated if o is node.output else names[o] for v, o in depthwise.outer.items() if o is not None}
    for one in depthwise.nodes:
        copy_node(body, one, inner)
    body.set_outputs([inner[v] for v in depthwise.results])
    results = [graph.new_value(v.name, types[v]) for v in reader.outputs]
    read = [made if v is made else outer[v] for v in operands]
    graph.add_node("FusedConv", read, results, domain=OURS, name=f"{label}: {reader.name}", body=body)
    graph.set_outputs(results)
    estimate = estimate_of(first.conv, Finish()) + estimate_of(second, Finish())
    return Join(KEY, (node, reader), graph, estimate, _gain_us(node, first, target, table))


def _gain_us(node: Node, first: _Activated, target: Target, table: ConvolutionHeuristic) -> float:
    """Microseconds of a pass over the convolution's result; less than nothing where our own kernel does the activation, and where
    that takes longer than the pass: pixels are read more than once."""
    conv, activation = first.conv, activation_of(first.activation)
    quick = table.quick_half_activations if conv.dtype.is_half else table.quick_activations
    if activation not in quick or favours_pixels(conv, target, table, activated=True):
        return -1.0
    assert node.body is not None
    outer = dict(zip(node.body.inputs, node.inputs, strict=True))
    image, weights = (None if v is None else outer.get(v, v) for v in first.anchor.inputs[:2])
    constant = None if weights is None else weights.constant
    strides = row_major(conv.x_shape) if image is not None and _is_turned(image) else None
    places = ConvolutionOperands(Operand.input(0), Operand.input(1), Operand.output(0), constant, strides)
    if prefers_stem(conv, places, target, table):
        return -1.0
    nbytes = 2 * math.prod(conv.y_shape) * element_nbytes(conv.dtype)
    return table.pass_us + nbytes / table.pass_nbytes_per_us


def _is_turned(image: Value) -> bool:
    """Whether an image lies with the channels first where it comes from, and the library would have it copied."""
    return image.producer is not None and image.producer.is_op("Transpose")
