"""What a matrix product is, as our kernels and the library take it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.problems import Activation
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.ir import Constant, DType


@dataclass(frozen=True, slots=True)
class Axis:
    """A batch axis: its size, and elements between neighbours in each operand, 0 where all use the same."""

    size: int
    a: int = 0
    b: int = 0
    d: int = 0
    c: int = 0
    a_zero: int = 0
    b_zero: int = 0

    @property
    def strides(self) -> tuple[int, ...]:
        """In the order that kernels take."""
        return self.a, self.b, self.d, self.c, self.a_zero, self.b_zero


@dataclass(frozen=True, slots=True)
class Product:
    """``D = activation(alpha * (op(A) - a_zero) @ (op(B) - b_zero) + beta * C + bias)`` for each place of the ``batch`` axes.

    As problems.MatmulProblem says it, but over several batch axes, with any distances within C (``c``: between rows, between
    columns) and within the bias (likewise; it has no batch axes), and with zero points: ``a_zero`` is the distance between
    those of rows of op(A), ``b_zero`` between those of columns of op(B). None where there is none. C and bias have D's type.
    Halves are summed in f32, whole numbers wrap around in D's type.
    """

    m: int
    n: int
    k: int
    a: DType
    b: DType
    d: DType
    transpose_a: bool
    transpose_b: bool
    lda: int
    ldb: int
    ldd: int
    batch: tuple[Axis, ...] = ()
    alpha: float = 1.0
    beta: float = 1.0
    c: tuple[int, int] | None = None
    bias: tuple[int, int] | None = None
    activation: Activation = Activation.NONE
    a_zero: int | None = None
    b_zero: int | None = None

    @property
    def is_empty(self) -> bool:
        """True when there is nothing to write."""
        return 0 in (self.m, self.n, *(axis.size for axis in self.batch))

    @property
    def matrices(self) -> int:
        """How many products there are."""
        count = 1
        for axis in self.batch:
            count *= axis.size
        return count


@dataclass(frozen=True, slots=True)
class Operands:
    """Where the operands of a Product lie. ``constants``: those of them that are, whole."""

    a: Operand
    b: Operand
    d: Operand
    c: Operand | None = None
    bias: Operand | None = None
    a_zero: Operand | None = None
    b_zero: Operand | None = None
    constants: Mapping[Operand, Constant] = field(default_factory=dict)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Bytes by which the operands lie behind the start of a buffer."""
        listed = (self.a, self.b, self.d, self.c, self.bias)
        return tuple(operand.offset for operand in listed if operand is not None)

    def moved(self, product: Product, axes: Sequence[Axis], place: Sequence[int]) -> "Operands":
        """The operands at one place of some axes."""

        def offset(operand: Operand | None, name: str, dtype: DType) -> Operand | None:
            steps = sum(i * int(getattr(axis, name)) for i, axis in zip(place, axes, strict=True))
            return operand and replace(operand, offset=operand.offset + steps * element_nbytes(dtype))

        p = product
        a, b, d = offset(self.a, "a", p.a), offset(self.b, "b", p.b), offset(self.d, "d", p.d)
        assert a is not None and b is not None and d is not None
        zeros = offset(self.a_zero, "a_zero", p.a), offset(self.b_zero, "b_zero", p.b)
        return Operands(a, b, d, offset(self.c, "c", p.d), self.bias, *zeros, self.constants)


def estimate_of(product: Product) -> Estimate:
    """A multiplication and an addition for each pair of elements; every operand read once, D written once."""
    p = product

    def nbytes(name: str, elements: int, dtype: DType) -> int:
        walked = math.prod(axis.size for axis in p.batch if getattr(axis, name))
        return walked * elements * element_nbytes(dtype)

    read = nbytes("a", p.m * p.k, p.a) + nbytes("b", p.k * p.n, p.b)
    read += nbytes("c", p.m * p.n, p.d) if p.c is not None else 0
    read += p.n * element_nbytes(p.d) if p.bias is not None else 0
    return Estimate(2 * p.m * p.n * p.k * p.matrices, read + p.m * p.n * p.matrices * element_nbytes(p.d))
