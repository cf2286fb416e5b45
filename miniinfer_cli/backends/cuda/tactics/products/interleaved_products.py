"""Matrix products by the library into rows that begin anywhere, as a batch of interleaved matrices whose rows begin well."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.products.library_products import library_tactics
from miniinfer_cli.backends.cuda.tactics.products.padded_products import lies_well
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import ProductHeuristic
from miniinfer_cli.backends.cuda.tactics.products.product_records import Axis, Operands, Product
from miniinfer_cli.backends.cuda.tactics.products.row_pitch import VECTOR, aligned
from miniinfer_cli.backends.cuda.tactics.products.weight_forms import columns_of, is_matrix
from miniinfer_cli.ir import Constant

INTERLEAVED = "cublaslt interleaved"


@dataclass(frozen=True, slots=True)
class Turns:
    """A result of rows that begin anywhere as ``period`` interleaved matrices.

    Row r of each ``period`` is computed from column ``r * shift`` on, ``width`` columns of it.
    """

    product: Product
    period: int
    shift: int
    width: int
    constant: Constant | None

    @property
    def columns(self) -> Product:
        """The product over B as it is read: ``[n, k]``."""
        p = self.product
        return replace(p, transpose_b=True, ldb=p.k if self.constant is not None else p.ldb)

    @property
    def main(self) -> Product:
        """The interleaved matrices as a batch."""
        p, t = self.columns, self
        axis = Axis(t.period, p.lda, t.shift * p.ldb, p.ldd + t.shift)
        return replace(p, m=p.m // t.period, n=t.width, lda=t.period * p.lda, ldd=t.period * p.ldd, batch=(axis,))

    @property
    def edges(self) -> tuple[Product, ...]:
        """What the interleaved matrices leave: columns on the left, on the right, and rows behind all whole turns, if any."""
        p, rest = self.columns, self.product.m % self.period
        left = replace(p, m=p.m - rest, n=(self.period - 1) * self.shift)
        return left, replace(left, n=p.n - self.width), *((replace(p, m=rest),) if rest else ())

    def pieces(self, at: Operands) -> Iterator[tuple[Product, Operands]]:
        """The edges, and the interleaved matrices."""
        p, whole = self.columns, self.product.m // self.period * self.period

        def place(row: int, column: int) -> Operands:
            sizes = (element_nbytes(p.a), element_nbytes(p.b), element_nbytes(p.d))
            steps = (row * p.lda, column * p.ldb, row * p.ldd + column)
            operands = (at.a, at.b, at.d)
            a, b, d = (replace(o, offset=o.offset + s * n) for o, s, n in zip(operands, steps, sizes, strict=True))
            return Operands(a, b, d)

        yield from zip(self.edges, (place(0, 0), place(0, self.width), place(whole, 0)), strict=False)
        yield self.main, Operands(at.a, at.b, at.d)

    def time_us(self, table: ProductHeuristic) -> float:
        """Microseconds that it takes, about."""
        p = self.product
        weights = p.n * p.k * element_nbytes(p.b)
        main = max(table.aligned_us(self.main), table.launch_us + self.period * weights / table.reread_nbytes_per_us)
        return main + table.edge * sum(table.misaligned_us(edge) for edge in self.edges)


def turns_of(product: Product, operands: Operands) -> Turns | None:
    """How a product is interleaved; None where its rows begin well, or B's columns do not lie as rows that do."""
    p = product
    nbytes = element_nbytes(p.d)
    vector = VECTOR // nbytes
    over = p.n % vector
    if p.batch or p.c is not None or p.bias is not None or p.transpose_a or not over or p.ldd != p.n:
        return None
    if p.b != p.a or p.d != p.a or operands.d.offset % VECTOR or not lies_well(operands.a, nbytes, p.lda, 0):
        return None
    if p.k * nbytes % VECTOR:
        return None
    constant = operands.constants.get(operands.b)
    if p.transpose_b and lies_well(operands.b, nbytes, p.ldb, 0):
        constant = None
    elif constant is None or not is_matrix(constant, p.n, p.k):
        return None
    period, shift = vector // math.gcd(vector, over), vector - over
    width = (p.n - (period - 1) * shift) // vector * vector
    return Turns(p, period, shift, width, constant) if p.m >= period and width > 0 else None


def interleaved_tactic(turns: Turns, operands: Operands, target: Target) -> Tactic:
    """The edges, then the interleaved matrices over what they share with these."""
    at = operands if turns.constant is None else replace(operands, b=Operand.derived(0))
    calls = [library_tactics(p, o, target)[0] for p, o in turns.pieces(at)]
    estimate = sum((c.estimate for c in calls[1:]), calls[0].estimate)
    problems = tuple(dict.fromkeys(problem for c in calls for problem in c.problems))
    return Tactic(INTERLEAVED, lambda work: _emit_interleaved(work, turns, operands, target), estimate, problems=problems)


def _emit_interleaved(work: Work, turns: Turns, operands: Operands, target: Target) -> None:
    at, p = operands, turns.product
    if turns.constant is not None:
        # In the form that padded products of other numbers of rows share.
        at = replace(at, b=work.derive(columns_of(turns.constant, p, aligned(p.n, element_nbytes(p.b)), p.k)))
    for product, places in turns.pieces(at):
        (call,) = library_tactics(product, places, target)
        call.emit(work)
