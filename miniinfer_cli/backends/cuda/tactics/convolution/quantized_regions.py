"""QuantizedMatMul and QuantizedConv: one kernel of bytes (``integer_regions``) where there is one, or several nodes.

Of these a product of matrices is one of integers (MatMulInteger), which tensor cores multiply, and a pass that scales its sums
and does all that follows, to the integers that leave. Others are of floats: their operands are dequantized in front of them.
"""

from collections.abc import Sequence

from miniinfer_cli.backends.cuda.contract.estimating import default_estimate
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.tactic import REWRITTEN, Tactic
from miniinfer_cli.backends.cuda.contract.viewing import reads_strided
from miniinfer_cli.backends.cuda.launching.regions import POINTWISE, add_region
from miniinfer_cli.backends.cuda.tactics.convolution.byte_products import (
    favours_large,
    favours_tokens,
    folds,
    large_tactics,
    token_tactics,
)
from miniinfer_cli.backends.cuda.tactics.convolution.integer_kernels import fills, integer_tactics
from miniinfer_cli.backends.cuda.tactics.convolution.integer_regions import (
    INTEGERS,
    PACK,
    IntegerRegion,
    integer_region,
)
from miniinfer_cli.backends.cuda.tactics.products.row_products import row_region_tactics
from miniinfer_cli.ir import DType, Graph, Node, TensorType, Value
from miniinfer_cli.ir.parts import copy_node, copy_value, leaving
from miniinfer_cli.ops import OURS, insert
from miniinfer_cli.ops.registry import lookup
from miniinfer_cli.ops.stored_numbers import dequantizing
from miniinfer_cli.ops.type_codes import code_of_dtype

_FLOATS = {"QuantizedConv": "FusedConv", "QuantizedMatMul": "FusedMatMul"}


@lowers("QuantizedConv", "QuantizedMatMul", domain=OURS)
def lower_quantized_region(site: Site) -> tuple[Tactic, ...] | None:
    """One kernel where it does all of the body; else, and last, nodes of integers or of floats."""
    body = site.node.body
    assert body is not None
    products = [n for n in body if lookup(n.domain, n.op).flops is not None]
    if len(products) != 1 or len(body.outputs) != 1:
        return None
    (product,) = products
    sources = [dequantizing(product.inputs[number]) for number in (0, 1)]
    region = _region(site, product)
    if region is not None and region.x_strides is not None:
        return (*large_tactics(region, site.target), *token_tactics(region, site.target)) if folds(region, site.target) else None
    rewritten = Tactic(REWRITTEN, lambda work: work.replace_by(_apart(site, body, product, sources)), default_estimate(site))
    if region is None:
        rows = row_region_tactics(site) if site.node.op == "QuantizedMatMul" else ()
        return (*rows, rewritten)
    few, many = token_tactics(region, site.target), large_tactics(region, site.target)
    packed = region.of_x.dtype in INTEGERS and (region.conv.is_depthwise or region.conv.channels % PACK == 0)
    others = integer_tactics(site, region) if packed else ()
    behind = (*others, rewritten) if fills(site.target, region) else (rewritten, *others)
    if favours_tokens(region, site.target):
        return (*few, *many, *behind)
    return (*many, *few, *behind) if favours_large(region, site.target) else (*behind, *few, *many)


@reads_strided("QuantizedConv", domain=OURS)
def reads_folded(site: Site, number: int) -> bool:
    """The image, where it is folded in any case, and nothing else reads it."""
    body = site.node.body
    assert body is not None
    products = [n for n in body if lookup(n.domain, n.op).flops is not None]
    region = _region(site, products[0]) if len(products) == 1 else None
    image = body.inputs[number]
    return region is not None and region.x == Operand.input(number) and len(image.users) == 1 and folds(region, site.target)


def _region(site: Site, product: Node) -> IntegerRegion | None:
    whole = [s for s in (dequantizing(product.inputs[number]) for number in (0, 1)) if s is not None]
    return integer_region(site, product, whole) if len(whole) == 2 else None


def _apart(site: Site, body: Graph, product: Node, sources: Sequence[Node | None]) -> Graph:
    """The region as several nodes."""
    graph = Graph(site.node.op)
    known = {v: graph.add_input(v.name, t) for v, t in zip(body.inputs, site.types, strict=True)}
    if _are_matrices(product, sources):
        _add_integers(graph, body, product, [s for s in sources if s is not None], known)
    else:
        _add_floats(graph, body, product, sources, _FLOATS[site.node.op], known)
    graph.set_outputs([known[v] for v in body.outputs])
    return graph


def _are_matrices(product: Node, sources: Sequence[Node | None]) -> bool:
    """Whether the product is MatMul of integers by a matrix of them, under one scale and under one for each column."""
    if not product.is_op("MatMul") or None in sources:
        return False
    kinds = [None if s is None or s.inputs[0] is None else s.inputs[0].type for s in sources]
    if not all(isinstance(k, TensorType) and k.dtype in INTEGERS for k in kinds):
        return False
    ranks = [k.rank for k in kinds if isinstance(k, TensorType)]
    return ranks[0] is not None and ranks[0] > 1 and ranks[1] == 2


def _add_integers(graph: Graph, body: Graph, product: Node, sources: Sequence[Node], known: dict[Value, Value]) -> None:
    """The sums as a node, and a region that scales them and does what follows."""
    a, b = ([None if v is None else copy_value(graph, v, known) for v in s.inputs] for s in sources)
    zeros = [(*a, None)[2], (*b, None)[2]]
    operands = [a[0], b[0], *(zeros if any(z is not None for z in zeros) else ())]
    total = insert(graph, "MatMulInteger", *operands, out=product.output.name)
    scaled = Graph("scaled")
    inner: dict[Value, Value] = {}
    sums = scaled.add_input(total.name, total.type)
    for source in sources:
        scale = source.inputs[1]
        assert scale is not None
        inner.setdefault(scale, _given(scaled, scale))
    wide = insert(scaled, "Cast", sums, to=code_of_dtype(DType.F32))
    for source in sources:
        scale = source.inputs[1]
        assert scale is not None
        wide = insert(scaled, "Mul", wide, inner[scale])
    inner[product.output] = wide
    for node in body:
        if node is product or node in sources:
            continue
        for value in node.inputs:
            if value is not None and value not in inner and value.producer is None:
                inner[value] = _given(scaled, value)
        copy_node(scaled, node, inner)
    scaled.set_outputs([inner[v] for v in body.outputs])
    outer = {v: k for k, v in inner.items()}
    given = [total if v is sums else copy_value(graph, outer[v], known) for v in scaled.inputs]
    results = [graph.new_value(v.name, v.type) for v in body.outputs]
    graph.add_node(POINTWISE, given, results, domain=OURS, name=product.name, body=scaled)
    known.update(zip(body.outputs, results, strict=True))


def _given(graph: Graph, value: Value) -> Value:
    """A value of the body as one of ``graph``: a constant, or an input."""
    return graph.add_input(value.name, value.type) if value.constant is None else graph.add_constant(value.constant, value.name)


def _add_floats(
    graph: Graph, body: Graph, product: Node, sources: Sequence[Node | None], label: str, known: dict[Value, Value]
) -> None:
    """What dequantizes the operands as nodes, and a region of floats behind them."""
    for source in sources:
        if source is not None:
            copy_node(graph, source, known)
    rest = [n for n in body if n not in sources]
    if len(rest) == 1:
        copy_node(graph, product, known)
        return
    rest.remove(product)
    add_region(graph, label, [product, *rest], leaving(body, [product, *rest]), known, product.name)
