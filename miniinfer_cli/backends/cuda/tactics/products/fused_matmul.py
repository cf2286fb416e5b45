"""Regions of a matrix product and the elementwise operations behind it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from miniinfer_cli.backends.cuda.contract.problems import Activation
from miniinfer_cli.backends.cuda.contract.site import Site, lowers, static_shape
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.viewing import reads_strided
from miniinfer_cli.backends.cuda.launching.regions import claiming, is_closed
from miniinfer_cli.backends.cuda.tactics.products.aligned_products import INTERLEAVED, PADDED
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import WAY, Extra, region_tactics, token_tactics
from miniinfer_cli.backends.cuda.tactics.products.large_products import LARGE, favours_large, large_region_tactics, large_tactics
from miniinfer_cli.backends.cuda.tactics.products.library_products import LIBRARY
from miniinfer_cli.backends.cuda.tactics.products.matmul import (
    gemm_product,
    lower_product,
    matmul_product,
    reads_factor,
    row_as_bias,
)
from miniinfer_cli.backends.cuda.tactics.products.product_endings import Following
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS
from miniinfer_cli.backends.cuda.tactics.products.product_records import Operands, Product
from miniinfer_cli.backends.cuda.tactics.products.products import is_gemv, merged
from miniinfer_cli.backends.cuda.tactics.products.row_products import WAY as ROWS
from miniinfer_cli.backends.cuda.tactics.products.row_products import row_tactics
from miniinfer_cli.ir import DType, Graph, Node, TensorType, Type, Value
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import Types, infer_graph


@dataclass(frozen=True, slots=True)
class _Prefix:
    """The first ``count`` nodes of a body as one product."""

    count: int
    product: Product
    operands: Operands


_Lists = Callable[[Product, Operands, Following, Target], tuple[Tactic, ...]]


@lowers("FusedMatMul", domain=OURS)
def lower_fused_matmul(site: Site) -> tuple[Tactic, ...]:
    """Bias, residual and activation go into the product, as many as the library takes at once; the rest follows it.

    The heuristic takes the library for the longest part that it solves, then anything else for the longest part; before both the
    kernel for few or for many tokens, where that is faster, which does a whole body.
    """
    body = site.node.body
    assert body is not None
    if (body.nodes[-1].domain, body.nodes[-1].op) == (OURS, "RowStatistics"):
        return whole_tactics(site, body.nodes[:-1], Extra(summary=Operand.output(1)))
    by_library: list[Tactic] = []
    others: list[Tactic] = []
    tokens: list[Tactic] = []
    large: list[Tactic] = []
    rows: list[Tactic] = []
    types = infer_graph(body, list(site.types))
    prefixes = _prefixes(site, body, types)
    for prefix in reversed(prefixes):
        listed = lower_product(prefix.product, prefix.operands, site.target)
        for tactic in claiming(site, body.nodes[: prefix.count], types, listed):
            first = tactic.key in (LIBRARY, PADDED, INTERLEAVED) and not is_gemv(prefix.product)
            ways = (
                (first, by_library),
                (tactic.key.startswith(WAY), tokens),
                (tactic.key.startswith(LARGE), large),
                (tactic.key.startswith(ROWS), rows),
            )
            next((found for is_one, found in ways if is_one), others).append(tactic)
    tokens = [*_whole(site, body, types, prefixes), *tokens]
    whole = _whole_of_many(site, body, types, prefixes)
    large = [*whole, *large]
    rows = [*_whole_of_rows(site, body, types, prefixes), *rows]
    if rows and PRODUCTS.favours_rows(prefixes[-1].product, site.target.arch):
        return (*rows, *others, *by_library, *tokens, *large)
    others += rows
    if any(PRODUCTS.favours_tokens(prefix.product, site.target.arch) for prefix in prefixes):
        return (*tokens, *by_library, *others, *large)
    if whole and not _tables(body, types, prefixes[-1].product.n) and favours_large(prefixes[-1].product, site.target):
        return (*large, *by_library, *others, *tokens)
    return (*by_library, *others, *tokens, *large)


def whole_tactics(site: Site, nodes: Sequence[Node], extra: Extra) -> tuple[Tactic, ...]:
    """``nodes``, the first of the site's body, whose last makes its first output, by the kernel for few or for many tokens, and
    ``extra``. None where neither can do all of them.
    """
    body = site.node.body
    assert body is not None
    if body.outputs[0] is not nodes[-1].output:
        return ()
    types = infer_graph(body, list(site.types))
    prefixes = _prefixes(site, body, types)
    if not prefixes or prefixes[0].count > 1:
        return ()
    last = prefixes[-1]
    if last.count == len(nodes):
        few = token_tactics(last.product, last.operands, site.target, extra=extra)
        return few or large_tactics(last.product, last.operands, site.target, extra=extra)
    following = Following(nodes[0].output, nodes[1:], types, _places(body))
    few = region_tactics(prefixes[0].product, prefixes[0].operands, following, site.target, extra=extra)
    summed = _summed(prefixes)
    following = Following(nodes[summed.count - 1].output, nodes[summed.count :], types, _places(body))
    return few or large_region_tactics(summed.product, summed.operands, following, site.target, extra=extra)


def product_in_front(site: Site) -> tuple[Product, Operands] | None:
    """The product that the first node of the site's body is; None where it is none."""
    body = site.node.body
    assert body is not None
    prefixes = _prefixes(site, body, infer_graph(body, list(site.types)))
    return (prefixes[0].product, prefixes[0].operands) if prefixes and prefixes[0].count == 1 else None


def _whole(site: Site, body: Graph, types: Types, prefixes: Sequence[_Prefix]) -> list[Tactic]:
    """The body by the kernel for few tokens, where its prefixes are parts of it."""
    return _by_region(site, body, types, prefixes[:1], region_tactics) if _are_parts(prefixes, body) else []


def _whole_of_rows(site: Site, body: Graph, types: Types, prefixes: Sequence[_Prefix]) -> list[Tactic]:
    """The same by the kernel for a few tokens of one product."""

    def listed(product: Product, operands: Operands, following: Following, target: Target) -> tuple[Tactic, ...]:
        return row_tactics(product, operands, target, following=following)

    return _by_region(site, body, types, prefixes[:1], listed) if _are_parts(prefixes, body) else []


def _whole_of_many(site: Site, body: Graph, types: Types, prefixes: Sequence[_Prefix]) -> list[Tactic]:
    """The same by the kernel for many tokens, which adds a bias before it rounds a sum."""
    if not _are_parts(prefixes, body):
        return []
    return _by_region(site, body, types, [_summed(prefixes)], large_region_tactics)


def _summed(prefixes: Sequence[_Prefix]) -> _Prefix:
    """The longest with nothing behind the sum but a bias."""
    return [p for p in prefixes if p.count == 1 or (p.product.c is None and not p.product.activation)][-1]


def _tables(body: Graph, types: Types, columns: int) -> list[Value]:
    """What the body reads besides the product's operands, and is more than a row."""
    return [v for v in body.inputs if v not in body.nodes[0].inputs and not _is_row(_shape(v, types), columns)]


def _are_parts(prefixes: Sequence[_Prefix], body: Graph) -> bool:
    """Whether something follows what is a product, and the body has one result, its last."""
    parts = prefixes and prefixes[0].count == 1 and prefixes[-1].count < len(body)
    return bool(parts) and list(body.outputs) == [body.nodes[-1].output]


def _by_region(site: Site, body: Graph, types: Types, prefixes: Sequence[_Prefix], list_tactics: _Lists) -> list[Tactic]:
    """The body, whose ``prefixes`` the kernel does as a product."""
    found: list[Tactic] = []
    for prefix in prefixes:
        following = Following(body.nodes[prefix.count - 1].output, body.nodes[prefix.count :], types, _places(body))
        found += list_tactics(prefix.product, prefix.operands, following, site.target)
    return claiming(site, body.nodes, types, found)


def _places(body: Graph) -> dict[Value, Operand]:
    """Where the body's inputs lie."""
    return {v: Operand.input(i) for i, v in enumerate(body.inputs)}


def _prefixes(site: Site, body: Graph, types: Types) -> list[_Prefix]:
    """Every part of the body, from its first node on, that is one product; none where its first node is no product."""
    number = {v: i for i, v in enumerate(body.inputs)}
    nodes = body.nodes
    anchor = nodes[0]
    if not anchor.is_op("MatMul", "Gemm") or any(v is not None and v not in number for v in anchor.inputs):
        return []
    inner = _anchor(site, anchor, types)
    product = gemm_product(inner) if anchor.op == "Gemm" else matmul_product(inner)
    sources = [None if v is None else Operand.input(number[v]) for v in anchor.inputs]
    a, b, c = (*sources, None)[:3]
    assert a is not None and b is not None
    result = _shape(anchor.output, types)
    operands = Operands(a, b, Operand.output(0), None if product.c is None else c, constants=site.constants)
    product, operands = row_as_bias(product, operands)
    found = [_Prefix(1, merged(product), operands)]
    value = anchor.output
    for count, node in enumerate(nodes[1:], 2):
        if not is_closed(body, nodes[: count - 1]) or value not in node.inputs or types[node.output] != types[value]:
            break
        if node.is_op("Add") and not product.activation:
            other = next((v for v in node.inputs if v is not value), None)
            if other is None or other not in number:
                break
            shape, operand = _shape(other, types), Operand.input(number[other])
            if product.bias is None and result[-1:] == (product.n,) and _is_row(shape, product.n):
                product, operands = replace(product, bias=(0, 1)), replace(operands, bias=operand)
            elif product.c is None and _stripped(shape) == _stripped(result):
                batch = tuple(replace(axis, c=axis.d) for axis in product.batch)
                product, operands = replace(product, c=(product.ldd, 1), batch=batch), replace(operands, c=operand)
            else:
                break
        else:
            activation = _activation(node, product)
            if not activation:
                break
            product = replace(product, activation=activation)
        value = node.output
        found.append(_Prefix(count, merged(product), operands))
    return [p for p in found if is_closed(body, nodes[: p.count])]


@reads_strided("FusedMatMul", domain=OURS)
def reads_first_factor(site: Site, number: int) -> bool:
    """What the product in front reads, where nothing else of the body does."""
    body = site.node.body
    assert body is not None
    anchor, value = body.nodes[0], body.inputs[number]
    if not anchor.is_op("MatMul", "Gemm") or value.users != (anchor,) or any(v is not None and v.producer for v in anchor.inputs):
        return False
    inner = _anchor(site, anchor, infer_graph(body, list(site.types)))
    return all(reads_factor(inner, i) for i, v in enumerate(anchor.inputs) if v is value)


def _anchor(site: Site, anchor: Node, types: Mapping[Value, Type | None]) -> Site:
    """The product in front of the body, as a site of its own."""
    body = site.node.body
    assert body is not None
    kinds = tuple(None if v is None else types.get(v, v.type) for v in anchor.inputs)
    walks = dict(zip(body.inputs, site.strided, strict=False))
    strided = tuple(None if v is None else walks.get(v) for v in anchor.inputs)
    return Site(anchor, kinds, (types[anchor.output],), (None,) * len(kinds), site.target, strided)


def _activation(node: Node, product: Product) -> Activation:
    """The activation that the node is; NONE where it is none, or one is there already."""
    if product.activation:
        return Activation.NONE
    if node.is_op("Relu"):
        return Activation.RELU
    narrow = product.d.is_float and product.d is not DType.F64
    gelu_tanh = node.is_op("Gelu") and node.attrs.get("approximate") == "tanh"
    return Activation.GELU_TANH if gelu_tanh and narrow else Activation.NONE


def _is_row(shape: tuple[int, ...], columns: int) -> bool:
    return bool(shape) and shape[-1] == columns and all(size == 1 for size in shape[:-1])


def _stripped(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without leading axes of size 1."""
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape


def _shape(value: Value, types: Mapping[Value, Type | None]) -> tuple[int, ...]:
    kind = types[value]
    assert isinstance(kind, TensorType)
    return static_shape(kind)
