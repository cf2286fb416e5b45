"""Matrix products by the library over rows that are whole vectors: operands are copied there, and the result out of there."""

from dataclasses import dataclass, replace

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.products.library_products import library_tactics
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import ProductHeuristic
from miniinfer_cli.backends.cuda.tactics.products.product_records import Axis, Operands, Product
from miniinfer_cli.backends.cuda.tactics.products.row_pitch import VECTOR, Rows, aligned, pack_rows, pad_rows
from miniinfer_cli.backends.cuda.tactics.products.weight_forms import columns_of, is_matrix, longer
from miniinfer_cli.ir import Constant

PADDED = "cublaslt padded"


@dataclass(frozen=True, slots=True)
class Padding:
    """A product over sizes that are whole vectors, and which operands have to be moved for it.

    ``b_constant`` and ``bias_constant``: derived once, where they are known.
    """

    product: Product
    padded: Product
    a: Rows | None
    b: Rows | None
    d: Rows | None
    b_constant: Constant | None
    bias_constant: Constant | None

    @property
    def moved_nbytes(self) -> list[int]:
        """Bytes that each copy of an inference reads and writes."""
        p = self.padded
        copies = [rows for rows in (self.a, None if self.b_constant is not None else self.b, self.d) if rows is not None]
        found = [2 * rows.matrices * rows.rows * rows.pitch * rows.nbytes for rows in copies]
        if self.d is not None and p.c is not None:
            found.append(found[-1])
        if self.d is not None and p.bias is not None and self.bias_constant is None:
            found.append(2 * p.n * element_nbytes(p.d))
        return found

    def time_us(self, table: ProductHeuristic) -> float:
        """Microseconds that it takes, about."""
        return table.aligned_us(self.padded) + sum(map(table.copy_us, self.moved_nbytes))


def padding_of(product: Product, operands: Operands) -> Padding | None:
    """How a product is padded; None where nothing is in the way, or something else than n, k, and where rows begin."""
    p = product
    if len(p.batch) > 1 or p.ldd != p.n or (p.transpose_a and p.m * element_nbytes(p.a) % VECTOR):
        return None
    (axis,) = p.batch or (Axis(1),)
    if p.batch and axis.d != p.m * p.n:
        return None
    narrow = min(element_nbytes(p.b), element_nbytes(p.d))
    n, k = aligned(p.n, narrow), aligned(p.k, element_nbytes(p.a))
    constant = operands.constants.get(operands.b) if not axis.b else None
    stored_a = (p.k, p.m) if p.transpose_a else (p.m, p.k)
    stored_b = (p.n, p.k) if p.transpose_b else (p.k, p.n)
    moves_a = k != p.k or not lies_well(operands.a, element_nbytes(p.a), p.lda, axis.a)
    moves_b = (n, k) != (p.n, p.k) or not lies_well(operands.b, element_nbytes(p.b), p.ldb, axis.b)
    moves_d = n != p.n or not lies_well(operands.d, element_nbytes(p.d), p.ldd, axis.d)
    if not (moves_a or moves_b or moves_d) or (constant is not None and not is_matrix(constant, *stored_b)):
        return None

    def rows(shape: tuple[int, int], pitch: int, stride: int, nbytes: int) -> Rows:
        return Rows(nbytes, *shape, pitch, axis.size if stride else 1, stride)

    kept = constant if moves_b else None
    transposed = p.transpose_b or kept is not None
    lda = (p.m if p.transpose_a else k) if moves_a else p.lda
    ldb = (k if transposed else n) if moves_b else p.ldb
    strides = Axis(
        axis.size,
        (k * p.m if axis.a else 0) if moves_a else axis.a,
        (k * n if axis.b else 0) if moves_b else axis.b,
        p.m * n if moves_d else axis.d,
        p.m * n if moves_d and p.c is not None else axis.c,
    )
    padded = replace(
        p,
        n=n,
        k=k,
        transpose_b=transposed,
        lda=lda,
        ldb=ldb,
        ldd=n,
        c=None if p.c is None else (n, 1),
        batch=(strides,) if p.batch else (),
    )
    return Padding(
        p,
        padded,
        rows(stored_a, p.lda, axis.a, element_nbytes(p.a)) if moves_a else None,
        rows(stored_b, p.ldb, axis.b, element_nbytes(p.b)) if moves_b else None,
        Rows(element_nbytes(p.d), axis.size * p.m, p.n, n) if moves_d else None,
        kept,
        operands.constants.get(operands.bias) if operands.bias is not None and n != p.n else None,
    )


def lies_well(operand: Operand, nbytes: int, pitch: int, stride: int) -> bool:
    """True when all rows begin at multiples of 16 bytes, if the operand's buffer does."""
    return not (operand.offset % VECTOR or pitch * nbytes % VECTOR or stride * nbytes % VECTOR)


def padded_tactic(padding: Padding, operands: Operands, target: Target) -> Tactic:
    """Copies in, the library, a copy out."""
    somewhere = Operand.scratch(0)
    longer_bias = padding.padded.n != padding.product.n
    stands_for = replace(
        operands,
        a=operands.a if padding.a is None else somewhere,
        b=operands.b if padding.b is None else somewhere,
        d=operands.d if padding.d is None else somewhere,
        bias=operands.bias and somewhere if longer_bias else operands.bias,
        c=operands.c if padding.d is None else operands.c and somewhere,
    )
    (call,) = library_tactics(padding.padded, stands_for, target)
    estimate = call.estimate + Estimate(0, sum(padding.moved_nbytes))
    return Tactic(PADDED, lambda work: _emit_padded(work, padding, operands, target), estimate, problems=call.problems)


def _emit_padded(work: Work, padding: Padding, operands: Operands, target: Target) -> None:
    p, moved = padding.padded, operands
    if padding.a is not None:
        height, width = (p.k, p.m) if p.transpose_a else (p.m, p.k)
        moved = replace(moved, a=_pad(work, operands.a, padding.a, height, width, target))
    if padding.b_constant is not None:
        moved = replace(moved, b=work.derive(columns_of(padding.b_constant, padding.product, p.n, p.k)))
    elif padding.b is not None:
        height, width = (p.n, p.k) if p.transpose_b else (p.k, p.n)
        moved = replace(moved, b=_pad(work, operands.b, padding.b, height, width, target))
    if padding.d is not None:
        nbytes = padding.d.nbytes
        if operands.bias is not None and p.n != padding.product.n:
            row = Rows(nbytes, 1, padding.product.n, padding.product.n)
            bias = (
                work.derive(longer(padding.bias_constant, p.n))
                if padding.bias_constant is not None
                else _pad(work, operands.bias, row, 1, p.n, target)
            )
            moved = replace(moved, bias=bias)
        if operands.c is not None:  # laid out as D is; the library adds to it where it lies
            assert padding.product.c is not None
            source = replace(padding.d, pitch=padding.product.c[0])
            d = _pad(work, operands.c, source, padding.d.rows, p.n, target)
            moved = replace(moved, c=d, d=d)
        else:
            moved = replace(moved, d=work.scratch(padding.d.rows * p.n * nbytes))
    (call,) = library_tactics(p, moved, target)
    call.emit(work)
    if padding.d is not None:
        work.add(pack_rows(operands.d, moved.d, padding.d, target))


def _pad(work: Work, source: Operand, form: Rows, height: int, width: int, target: Target) -> Operand:
    """The source in scratch, with zeros around it."""
    destination = work.scratch(form.matrices * height * width * form.nbytes)
    work.add(pad_rows(destination, source, form, target, height=height, width=width))
    return destination
