"""Einsum of two operands that is a batch of matrix products as the operands lie; everything else is expanded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from miniinfer_cli.backends.cuda.contract.estimating import default_estimate
from miniinfer_cli.backends.cuda.contract.expansion import expand_node
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Operand, inputs, outputs
from miniinfer_cli.backends.cuda.contract.strides import merge_axes, row_major
from miniinfer_cli.backends.cuda.contract.tactic import REWRITTEN, Tactic
from miniinfer_cli.backends.cuda.contract.types import computed_type
from miniinfer_cli.backends.cuda.tactics.products.library_products import calls_of
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS, ProductHeuristic
from miniinfer_cli.backends.cuda.tactics.products.product_records import Axis, Operands, Product
from miniinfer_cli.backends.cuda.tactics.products.products import is_gemv, merged, product_tactics
from miniinfer_cli.ir import DType, Graph
from miniinfer_cli.ops.einsum_equation import parse_equation

_SUMMED_AS_THEY_ARE = ("f32", "f64", "i32", "i64", "u32", "u64")


@dataclass(frozen=True, slots=True)
class _Side:
    """One operand: strides of its labels, and those it alone shares with the result."""

    operand: Operand
    strides: dict[str, int]
    own: list[str]


@lowers("Einsum")
def lower_einsum(site: Site) -> tuple[Tactic, ...] | None:
    """No transposition is needed where rows, columns and the summed labels each lie in memory as one axis."""
    return einsum_tactics(site)


def einsum_tactics(site: Site, table: ProductHeuristic = PRODUCTS) -> tuple[Tactic, ...] | None:
    """A product as the operands lie, or other operations; None where only these do."""
    if len(site.types) != 2 or computed_type(site.dtype()) not in _SUMMED_AS_THEY_ARE:
        return None
    first, second = site.shape(0), site.shape(1)
    left, right, out = parse_equation(site.node.attrs["equation"]).spread((len(first), len(second)))
    size = dict(zip(left, first, strict=False))
    if len(set(left)) < len(left) or len(set(right)) < len(right):
        return None
    if any(size.setdefault(label, n) != n for label, n in zip(right, second, strict=True)) or 0 in size.values():
        return None
    shared = [label for label in left if label in right]
    inner = [label for label in shared if label not in out]
    rows, columns = [i for i in left if i not in shared], [i for i in right if i not in shared]
    if not inner or any(label not in out for label in (*rows, *columns)):
        return None
    a = _Side(inputs(0)[0], dict(zip(left, row_major(first), strict=True)), rows)
    b = _Side(inputs(1)[0], dict(zip(right, row_major(second), strict=True)), columns)
    result = dict(zip(out, row_major([size[label] for label in out]), strict=True))
    batch = [label for label in out if label in shared]
    for one, other in ((a, b), (b, a)):
        product = _product(site.out_dtype(), size, one, other, result, batch, inner)
        if product is not None:
            product = merged(product)
            operands = Operands(one.operand, other.operand, outputs(0)[0], constants=site.constants)
            as_it_lies = product_tactics(product, operands, site.target)
            rewritten = Tactic(REWRITTEN, lambda work: work.replace_by(_expanded(site)), default_estimate(site))
            many = not is_gemv(product) and calls_of(product) > table.transposed_calls
            return (rewritten, *as_it_lies) if many else (*as_it_lies, rewritten)
    return None


def _expanded(site: Site) -> Graph:
    graph = expand_node(site.node, site.types)
    assert graph is not None
    return graph


def _product(
    dtype: DType, size: dict[str, int], a: _Side, b: _Side, result: dict[str, int], batch: list[str], inner: list[str]
) -> Product | None:
    """The product whose rows are the labels of ``a`` alone; None where the operands would have to be rearranged.

    Rows or columns that lie apart in an operand or the result are rows or columns of several products.
    """
    depths = _axes(size, inner, a.strides, b.strides)
    if len(depths) > 1:
        return None
    *row_batch, (rows, row_a, row_d) = _axes(size, a.own, a.strides, result)
    *column_batch, (columns, column_b, column_d) = _axes(size, b.own, b.strides, result)
    ((depth, depth_a, depth_b),) = depths
    left, right = _stored(rows, row_a, depth, depth_a), _stored(depth, depth_b, columns, column_b)
    into = _stored(rows, row_d, columns, column_d)
    if left is None or right is None or into is None or into[0]:
        return None
    axes = [Axis(size[label], a.strides[label], b.strides[label], result[label]) for label in batch]
    axes += [Axis(n, a=x, d=y) for n, x, y in row_batch] + [Axis(n, b=x, d=y) for n, x, y in column_batch]
    axes.sort(key=lambda axis: -axis.d)
    product = Product(rows, columns, depth, dtype, dtype, dtype, left[0], right[0], left[1], right[1], into[1])
    return replace(product, batch=tuple(axes))


def _axes(
    size: dict[str, int], labels: Sequence[str], first: dict[str, int], second: dict[str, int]
) -> list[tuple[int, int, int]]:
    """Size and strides of the labels, in as few axes as both operands allow; one at least."""
    sizes, (x, y) = merge_axes([size[i] for i in labels], [first[i] for i in labels], [second[i] for i in labels])
    return list(zip(sizes, x, y, strict=True)) or [(1, 1, 1)]


def _stored(rows: int, row: int, columns: int, column: int) -> tuple[bool, int] | None:
    """Whether a matrix lies transposed, and the distance between what does not lie side by side; None where nothing does."""
    if column == 1 or columns == 1:
        return False, row if rows > 1 else columns
    if row == 1 or rows == 1:
        return True, column
    return None
