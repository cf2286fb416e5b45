"""Products between DequantizeLinear and QuantizeLinear -> regions QuantizedConv and QuantizedMatMul.

A region holds what dequantizes the operands of its product, the product, and what follows elementwise, up to what quantizes the
result: so numbers of 8 bits go in and come out, and a quantized network has about as many steps as its f32 form. Weights that are
dequantized stand in such a region whatever they multiply: a backend unfolds them once, or multiplies them as they are.
"""

import math
from collections.abc import Collection

from miniinfer_cli.ir import Constant, DType, Graph, Node, TensorType, Value
from miniinfer_cli.ops import ONNX, OURS, insert
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.ops.stored_numbers import dequantizing
from miniinfer_cli.passes.epilogues import epilogue_of
from miniinfer_cli.passes.operands import dims
from miniinfer_cli.passes.precision.choose_widths import is_f32
from miniinfer_cli.passes.recipes import reshape_constant, transpose_constant
from miniinfer_cli.passes.regions import make_region

_LABELS = {
    (ONNX, "Conv"): "QuantizedConv",
    (OURS, "ConvNHWC"): "QuantizedConv",
    (ONNX, "MatMul"): "QuantizedMatMul",
    (ONNX, "Gemm"): "QuantizedMatMul",
}
BYTES = (DType.I8, DType.U8, DType.F8E4M3FN, DType.F8E5M2)
"""What operands of a region may be stored in: integers and floats of 8 bits."""
_WEIGHTS = (*BYTES, DType.I4, DType.U4)


def fuse_quantized(graph: Graph) -> int:
    """Gives the number of regions made."""
    products = [n for n in graph.nodes if _is_quantized(n)]
    if not products:
        return 0
    products = [_as_matrix_product(graph, n) for n in products]
    claimed = set(products)
    for node in products:
        _own_operands(graph, node)
        claimed |= {d for d in _operands(node) if d is not None}
    position = {node: i for i, node in enumerate(graph.nodes)}
    for node in reversed(products):
        members = [node, *epilogue_of(graph, node, position, claimed)]
        inside, own = set(members), _operands(node)
        for value in [v for m in members for v in m.inputs]:
            source = dequantized(value, _WEIGHTS)
            if source is None or source in inside or (source not in own and not is_pointwise(source)):
                continue  # one with scales in blocks, say, is no part of what follows element by element
            if all(u in inside for u in source.output.users):
                members.append(source)
                inside.add(source)
        members.sort(key=position.__getitem__)
        end = position[members[-1]]
        position[make_region(graph, _LABELS[node.domain, node.op], members, node.name)] = end
    return len(products)


def dequantized(value: Value | None, types: Collection[DType] = BYTES) -> Node | None:
    """The node that makes ``value`` from numbers of these types; None for another."""
    node = dequantizing(value)
    kind = None if node is None or node.inputs[0] is None else node.inputs[0].type
    return node if isinstance(kind, TensorType) and kind.dtype in types else None


def _operands(product: Node) -> list[Node | None]:
    """What dequantizes the factors of a product: constant weights may be of fewer bits."""
    weights = dequantized(product.inputs[1], _WEIGHTS)
    stored = None if weights is None else weights.inputs[0]
    is_constant = stored is not None and stored.constant is not None
    return [dequantized(product.inputs[0]), weights if is_constant else dequantized(product.inputs[1])]


def _is_quantized(node: Node) -> bool:
    """A product of f32 whose weights are constants of few bits, or both of whose operands are such under one scale each."""
    if (node.domain, node.op) not in _LABELS or len(node.outputs) != 1:
        return False
    sources = _operands(node)
    if sources[1] is None or dims(node.output) is None or not is_f32(node.output.type):
        return False
    scales_are_constant = all(v is None or v.constant is not None for s in sources if s is not None for v in s.inputs[1:])
    if not scales_are_constant or (sources[0] is not None and not is_pointwise(sources[0])):
        return False
    weights = sources[1].inputs[0]
    return (weights is not None and weights.constant is not None) or (sources[0] is not None and is_pointwise(sources[1]))


def _as_matrix_product(graph: Graph, node: Node) -> Node:
    """A channels-last convolution of single pixels as the product of matrices that it is; any other as it is."""
    weights = dequantized(node.inputs[1])
    stored = None if weights is None else weights.inputs[0]
    handle = None if stored is None else stored.constant
    if node.op != "ConvNHWC" or weights is None or handle is None or not _is_pixel_by_pixel(node, handle):
        return node
    size, channels = handle.shape[0], handle.shape[-1]
    turned = transpose_constant(reshape_constant(handle, (size, channels)), (1, 0))
    narrow = graph.add_constant(turned, stored.name if stored is not None else "weights")
    attrs = {**weights.attrs, "axis": 1}
    wide = insert(graph, "DequantizeLinear", narrow, *weights.inputs[1:], before=node, out=weights.output.name, **attrs)
    value = insert(graph, "MatMul", node.inputs[0], wide, before=node, out=node.output.name)
    product = value.producer
    assert product is not None
    graph.rename_node(product, node.name)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        value = insert(graph, "Add", value, bias, before=node, out=node.output.name)
    graph.replace_node(node, [value])
    if not weights.output.users and not graph.is_output(weights.output):
        graph.remove(weights)
    return product


def _is_pixel_by_pixel(node: Node, weights: Constant) -> bool:
    plain = node.attrs.get("group", 1) == 1 and math.prod(weights.shape[1:-1]) == 1
    return plain and not any(s != 1 for s in node.attrs.get("strides", ())) and not any(node.attrs.get("pads", ()))


def _own_operands(graph: Graph, product: Node) -> None:
    """Gives the product, and what is added to it, a DequantizeLinear of its own for each operand that others read as well."""
    for reader in (product, *(u for u in product.output.users if u.is_op("Add"))):
        for i, value in enumerate(reader.inputs):
            source = dequantized(value, _WEIGHTS)
            if source is None or value is None or (len(value.users) == 1 and not graph.is_output(value)):
                continue
            if reader is not product and not is_pointwise(source):
                continue
            copy = graph.new_value(value.name, value.type)
            graph.add_node(
                *(source.op, source.inputs, (copy,)),
                attrs=source.attrs,
                before=reader,
                name=source.name,
                origins=source.known_origins,
            )
            graph.set_inputs(reader, [copy if k == i else v for k, v in enumerate(reader.inputs)])
