"""Squeeze-and-excitation: two products of single pixels, with an activation behind one and a gate behind the other."""

from dataclasses import dataclass

from miniinfer_cli.backends.cuda.contract.join import Join, joins, label_of
from miniinfer_cli.backends.cuda.contract.site import static_shape
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import Finish, convolution_of, product_of
from miniinfer_cli.backends.cuda.tactics.convolution.excitation_launch import Excitation
from miniinfer_cli.backends.reference import static_tensor
from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.excitation import ACTIVATIONS, GATES
from miniinfer_cli.ops.inference import Types

KEY = "excitation"


@joins(KEY)
def find_excitations(graph: Graph, types: Types, target: Target) -> list[Join]:
    """Every pair of such products of which the second alone reads what the first makes."""
    found: list[Join | None] = []
    for node in graph:
        first = pixel_product(node, types)
        if first is None or not is_activation(first.then) or len(node.output.users) != 1:
            continue
        (reader,) = node.output.users
        second = pixel_product(reader, types)
        if second is not None and second.x is node.output and second.then.is_op(*GATES):
            found.append(_join(node, first, reader, second, types, target))
    return [join for join in found if join is not None]


@dataclass(frozen=True, slots=True)
class PixelProduct:
    """A 1x1 convolution of one pixel an image, with what the region has of operands, and the node behind it."""

    x: Value
    weights: Value
    bias: Value | None
    then: Node


def pixel_product(region: Node, types: Types) -> PixelProduct | None:
    """The product that a region is; None for anything else."""
    if (region.domain, region.op) != (OURS, "FusedConv") or region.body is None or len(region.body) != 2:
        return None
    anchor, then = region.body
    outer = dict(zip(region.body.inputs, region.inputs, strict=True))
    if anchor.op != "ConvNHWC" or then.inputs != (anchor.output,) or region.body.outputs != (then.output,):
        return None
    x, weights, bias = (None if v is None else outer.get(v) for v in (*anchor.inputs, None)[:3])
    if x is None or weights is None or (bias is None and len(anchor.inputs) > 2 and anchor.inputs[2] is not None):
        return None
    read, by, made = (static_tensor(types.get(v, v.type)) for v in (x, weights, region.output))
    if read is None or by is None or made is None or set(static_shape(read)[1:-1]) != {1}:
        return None
    conv = convolution_of(anchor, read, by, made)
    return None if conv is None or product_of(conv, Finish()) is None else PixelProduct(x, weights, bias, then)


def is_activation(node: Node) -> bool:
    """Whether a node may follow the first product."""
    return node.is_op(*ACTIVATIONS) and node.attrs.get("alpha", 1.0) == 1


def _join(node: Node, first: PixelProduct, reader: Node, second: PixelProduct, types: Types, target: Target) -> Join | None:
    x, squeeze, excite = (static_tensor(types.get(v, v.type)) for v in (first.x, first.weights, second.weights))
    assert x is not None and squeeze is not None and excite is not None
    (images, *_, channels), squeezed, features = static_shape(x), static_shape(squeeze)[0], static_shape(excite)[0]
    sizes = Excitation(x.dtype, images, channels, squeezed, features)
    shares = () if sizes.is_empty else sizes.shares(target)
    if not shares:
        return None
    graph = Graph(KEY)
    operands = [first.x, first.weights, second.weights, first.bias, second.bias]
    inner: dict[Value, Value] = {}
    for value in (v for n in (node, reader) for v in n.inputs if v is not None and v is not node.output):
        if value not in inner:
            inner[value] = graph.add_input(value.name, types.get(value, value.type))
    y = graph.new_value(reader.output.name, types[reader.output])
    limits = {k: v for k, v in second.then.attrs.items() if k in ("alpha", "beta")}
    attrs = {"activation": first.then.op, "gate": second.then.op, **limits}
    read = [None if v is None else inner[v] for v in operands]
    graph.add_node("Excitation", read, [y], domain=OURS, name=label_of((node, reader)), attrs=attrs)
    graph.set_outputs([y])
    return Join(KEY, (node, reader), graph, sizes.estimate, sizes.gain_us(shares[0]))
