"""A product of a few tokens with the norm in front, what dequantizes its weights, and a gate of its two halves: one kernel."""

import math
from collections.abc import Iterator, Mapping, Sequence

from miniinfer_cli.backends.cuda.contract.join import Join, joins
from miniinfer_cli.backends.cuda.contract.joined_region import as_region
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS, ProductHeuristic
from miniinfer_cli.backends.cuda.tactics.products.row_products import NORMS, REGION, row_region_tactics
from miniinfer_cli.backends.reference import static_tensor
from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ir.parts import leaving, reading
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import Types
from miniinfer_cli.ops.pointwise import is_pointwise

KEY = "row_product"
_PRODUCTS = ("FusedMatMul", "QuantizedMatMul")


@joins(KEY)
def find_row_products(graph: Graph, types: Types, target: Target) -> list[Join]:
    """Every product of at most a few rows with what the kernel can do beside it, as much of that as it can."""
    if target.arch != PRODUCTS.token_arch:
        return []
    place = {node: number for number, node in enumerate(graph)}
    found = []
    for node in graph:
        if _is_product(node) and _has_few_rows(node.output, types):
            joined = (_join(graph, nodes, types, target) for nodes in _sets(graph, node, place))
            found.append(next((join for join in joined if join is not None), None))
    return [join for join in found if join is not None]


def _is_product(node: Node) -> bool:
    return len(node.outputs) == 1 and (node.is_op("MatMul", "Gemm") or (node.domain == OURS and node.op in _PRODUCTS))


def _has_few_rows(value: Value, types: Types, table: ProductHeuristic = PRODUCTS) -> bool:
    kind = static_tensor(types.get(value, value.type))
    return kind is not None and bool(kind.shape) and math.prod(map(int, (kind.shape or ())[:-1])) <= table.most_rows


def _sets(graph: Graph, product: Node, place: Mapping[Node, int]) -> Iterator[tuple[Node, ...]]:
    """The product and what may be joined with it, in the graph's order, larger sets first."""
    makers = {n for n in (_maker(graph, product, v) for v in product.inputs) if n is not None}
    front = sorted(makers, key=place.__getitem__)
    norm = [n for n in front if n.is_op(*NORMS)][:1]
    dequantize = [n for n in front if n.is_op("DequantizeLinear")][:1]
    for behind in dict.fromkeys((_gate(graph, product), ())):
        for before in dict.fromkeys(((*norm, *dequantize), tuple(dequantize))):
            if before or behind:
                yield (*sorted(before, key=place.__getitem__), product, *behind)


def _maker(graph: Graph, product: Node, value: Value | None) -> Node | None:
    """What makes an operand that nobody else reads."""
    if value is None or value.users != (product,) or graph.is_output(value):
        return None
    return value.producer


def _gate(graph: Graph, product: Node) -> tuple[Node, ...]:
    """The Split of the product's result, and the one node that reads both halves element by element."""
    readers = product.output.users
    if len(readers) != 1 or graph.is_output(product.output) or not readers[0].is_op("Split") or len(readers[0].outputs) != 2:
        return ()
    (split,) = readers
    users = {user for v in split.outputs for user in v.users}
    if len(users) != 1 or any(graph.is_output(v) for v in split.outputs):
        return ()
    (last,) = users
    computes = (last.domain, last.op) == (OURS, "FusedPointwise") or is_pointwise(last)
    return (split, last) if computes and len(last.outputs) == 1 else ()


def _join(graph: Graph, nodes: Sequence[Node], types: Types, target: Target) -> Join | None:
    """The nodes as one region; None where the kernel does not do all of it."""
    if len(leaving(graph, nodes)) != 1:
        return None
    # What cuts the result in halves stands in the body, as constants of one number do.
    held = {v for v in reading(nodes) if v.constant is not None and _is_small(v, nodes)}
    made = as_region(graph, nodes, types, target, key=KEY, op=REGION, held=held)
    if made is None:
        return None
    joined, site = made
    favourite = next(iter(row_region_tactics(site)), None)
    if favourite is None:
        return None
    return Join(KEY, tuple(nodes), joined, favourite.estimate, _gain_us(nodes), favourite.needs)


def _is_small(value: Value, nodes: Sequence[Node]) -> bool:
    """True for the sizes of a Split's outputs, and for one number that nothing but pointwise nodes read."""
    readers = [n for n in nodes if value in n.inputs]
    if all(n.is_op("Split") for n in readers):
        return True
    return value.constant is not None and value.constant.size == 1 and all(is_pointwise(n) for n in readers)


def _gain_us(nodes: Sequence[Node], table: ProductHeuristic = PRODUCTS) -> float:
    """The steps that are none any more; what cuts a result in halves is none in any case."""
    return table.row_step_us * (sum(not n.is_op("Split") for n in nodes) - 1)
