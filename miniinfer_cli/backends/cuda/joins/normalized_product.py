"""Rows that are normalized between two products: the first leaves their statistics, by which the second normalizes its sums."""

from collections.abc import Mapping, Sequence

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.join import Join, joins, label_of
from miniinfer_cli.backends.cuda.contract.site import Lowering, Site
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import WAY
from miniinfer_cli.backends.cuda.tactics.products.fused_matmul import lower_fused_matmul, product_in_front
from miniinfer_cli.backends.cuda.tactics.products.large_products import LARGE, lost_us
from miniinfer_cli.backends.cuda.tactics.products.matmul import gemm_product, matmul_product
from miniinfer_cli.backends.cuda.tactics.products.normalized_product import lower_normalized_product
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS, ProductHeuristic
from miniinfer_cli.backends.cuda.tactics.products.product_records import Product
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import PIECE
from miniinfer_cli.backends.cuda.tactics.products.products import merged
from miniinfer_cli.backends.cuda.tactics.products.row_pitch import VECTOR
from miniinfer_cli.backends.reference import static_tensor
from miniinfer_cli.ir import Constant, DType, Graph, Node, Value
from miniinfer_cli.ir.parts import copy_node, leaving, reading
from miniinfer_cli.ops import OURS, insert
from miniinfer_cli.ops.inference import Types, infer_graph
from miniinfer_cli.ops.type_codes import dtype_of_code

KEY = "normalized_product"


@joins(KEY)
def find_normalized_products(graph: Graph, types: Types, target: Target) -> list[Join]:
    """Every normalization of what a product makes whose first reader is a product, where one kernel does each of both."""
    if target.arch != PRODUCTS.token_arch:
        return []
    place = {node: number for number, node in enumerate(graph)}
    found = []
    for norm in graph:
        if norm.is_op("LayerNormalization", "RMSNormalization") and _is_plain(norm, types):
            x, y = norm.inputs[0], norm.output
            producer = None if x is None else x.producer
            reader = min(y.users, key=lambda n: place[n], default=None)
            if producer is not None and reader is not None and _is_product(producer) and _multiplies(reader, y):
                join = _join(graph, producer, norm, reader, types, target)
                found += [] if join is None else [join]
    return found


def _is_plain(norm: Node, types: Types) -> bool:
    """Along the last axis, whole pieces, by constants of its length and 16 bits; statistics are in f32, and nobody else's."""
    x, *affine = (None if v is None else static_tensor(types.get(v, v.type)) for v in norm.inputs)
    if x is None or not x.shape or not x.dtype.is_half or len(norm.outputs) != 1 or int(x.shape[-1]) % PIECE:
        return False
    alike = all(t is not None and t.dtype is x.dtype and t.shape == x.shape[-1:] for t in affine)
    along = norm.attrs.get("axis", -1) in (-1, len(x.shape) - 1)
    constant = all(v is not None and v.constant is not None for v in norm.inputs[1:])
    return alike and along and constant and dtype_of_code(norm.attrs.get("stash_type", 1)) is DType.F32


def _is_product(node: Node) -> bool:
    return len(node.outputs) == 1 and (node.is_op("MatMul", "Gemm") or (node.domain, node.op) == (OURS, "FusedMatMul"))


def _multiplies(node: Node, rows: Value) -> bool:
    """True for a product whose first factor, and nothing else, is ``rows``."""
    if not _is_product(node) or node.inputs.count(rows) != 1:
        return False
    if node.body is None:
        return node.inputs[0] is rows
    inner = node.body.inputs[node.inputs.index(rows)]
    return inner.users == (node.body.nodes[0],) and node.body.nodes[0].inputs[0] is inner


def _join(graph: Graph, producer: Node, norm: Node, reader: Node, types: Types, target: Target) -> Join | None:
    nodes = (producer, norm, reader)
    joined = Graph(KEY)
    read = reading(nodes)
    outer = {v: joined.add_input(v.name, types.get(v, v.type)) for v in read}
    x, y = norm.inputs[0], norm.output
    assert x is not None
    first = _Part("FusedMatMul", joined, outer)
    first.add(producer)
    statistics = insert(first.body, "RowStatistics", first.inner[x], domain=OURS)
    outer[x], left = first.close([first.inner[x], statistics], label_of((producer, norm)))

    second = _Part("NormalizedProduct", joined, outer)
    operands = [second.operand(x), second.new_input(left), *(second.operand(v) for v in norm.inputs[1:] if v is not None)]
    attrs = {"epsilon": norm.attrs.get("epsilon", 1e-5), "centred": int(norm.op == "LayerNormalization")}
    second.inner[y] = insert(second.body, "NormalizeByStatistics", *operands, domain=OURS, **attrs)
    second.add(reader)
    ends = leaving(graph, nodes)
    made = second.close([second.inner[reader.output], *([second.inner[y]] if y in ends else [])], label_of((norm, reader)))
    outer.update(zip((reader.output, y), made, strict=False))
    joined.set_outputs([outer[v] for v in ends])
    estimate = _estimate(joined, read, target)
    if estimate is None:
        return None
    return Join(KEY, nodes, joined, estimate, _gain_us(producer, reader, types, target, kept=y in ends))


class _Part:
    """A region of a join's graph while it is put together; ``inner``: values of the graph as its body knows them."""

    def __init__(self, op: str, graph: Graph, outer: Mapping[Value, Value]) -> None:
        self.body = Graph(op)
        self.inner: dict[Value, Value] = {}
        self._op, self._graph, self._outer = op, graph, outer
        self._operands: list[Value] = []

    def operand(self, value: Value) -> Value:
        """A value of the graph in the body, as one of its inputs where it is none yet."""
        if value not in self.inner:
            self.inner[value] = self.new_input(self._outer[value])
        return self.inner[value]

    def new_input(self, value: Value) -> Value:
        """An input of the body for a value of the join's graph."""
        self._operands.append(value)
        return self.body.add_input(value.name, value.type)

    def add(self, node: Node) -> None:
        """A node, or the nodes of a region."""
        given = {v: self.operand(v) for v in node.inputs if v is not None}
        if node.body is None:
            copy_node(self.body, node, self.inner)
            return
        values = {i: given[v] for i, v in zip(node.body.inputs, node.inputs, strict=True) if v is not None}
        for one in node.body:
            copy_node(self.body, one, values)
        self.inner[node.output] = values[node.body.outputs[0]]

    def close(self, ends: Sequence[Value], name: str) -> list[Value]:
        """Adds the region to the join's graph; what it makes there."""
        self.body.set_outputs(list(ends))
        made = [self._graph.new_value(v.name, v.type) for v in ends]
        self._graph.add_node(self._op, self._operands, made, domain=OURS, name=name, body=self.body)
        return made


def _gain_us(
    producer: Node, reader: Node, types: Types, target: Target, *, kept: bool, table: ProductHeuristic = PRODUCTS
) -> float:
    """What the join is expected to save: of few tokens where the kernel is the favourite for both products anyway.

    ``kept``: the reader makes the normalized rows as well.
    """
    products = [_product(node, types, target) for node in (producer, reader)]
    first, second = products
    if first is None or second is None:
        return 0
    if all(table.favours_tokens(p, target.arch) for p in (first, second)):
        return table.normalization_us - (table.kept_rows_us if kept else 0)
    ragged = any(p.n * element_nbytes(p.d) % VECTOR for p in (first, second))
    if ragged or min(first.m, second.m) < table.large_rows:
        return 0
    saved = table.copy_us(2 * second.m * second.k * element_nbytes(second.a)) - table.large_normalization_us
    return saved - lost_us(first, target) - lost_us(second, target)


def _product(node: Node, types: Types, target: Target) -> Product | None:
    """What the node computes in front of anything else."""
    site = _site(node, types, {}, target)
    if node.body is not None:
        found = product_in_front(site)
        return None if found is None else found[0]
    return merged(gemm_product(site) if node.op == "Gemm" else matmul_product(site))


def _estimate(graph: Graph, read: Sequence[Value], target: Target) -> Estimate | None:
    """What both nodes take; None where one kernel cannot do one of them."""
    types = infer_graph(graph, [v.type for v in graph.inputs])
    handles = {v: outer.constant for v, outer in zip(graph.inputs, read, strict=True)}
    total = Estimate(0, 0)
    for node, lower in zip(graph, (lower_fused_matmul, lower_normalized_product), strict=True):
        first = _first_of(lower, _site(node, types, handles, target))
        if first is None:
            return None
        total += first.estimate
    return total


def _first_of(lower: Lowering, site: Site) -> Tactic | None:
    """The site's favourite, where that is the kernel for few or for many tokens."""
    listed = lower(site)
    first = listed[0] if isinstance(listed, tuple) and listed else None
    return first if first is not None and first.key.startswith((WAY, LARGE)) else None


def _site(node: Node, types: Types, handles: Mapping[Value, Constant | None], target: Target) -> Site:
    kinds = tuple(None if v is None else types.get(v, v.type) for v in node.inputs)
    constants = tuple(None if v is None else handles.get(v, v.constant) for v in node.inputs)
    return Site(node, kinds, tuple(types[v] for v in node.outputs), constants, target)
