"""Problems in cuBLASLt's terms.

cuBLASLt thinks in columns: a row-major matrix is the transpose of a column-major one over the same memory. So for the
row-major ``D = op(A) op(B)`` it is asked for ``D^T = op(B)^T op(A)^T``, with B as its first operand. Its bias, one value per row
of its result, is then one per column of D, which is what networks have.
"""

from dataclasses import dataclass

from miniinfer_cli.backends.cuda.contract.problems import Activation, Compute, MatmulProblem
from miniinfer_cli.backends.cuda.driver import cublaslt_api as api
from miniinfer_cli.ir import DType

_ACTIVATIONS = {
    Activation.NONE: api.EPILOGUE_DEFAULT,
    Activation.RELU: api.EPILOGUE_RELU,
    Activation.GELU_TANH: api.EPILOGUE_GELU,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """A column-major matrix: ``ld`` elements between columns, ``stride`` elements between the matrices of a batch."""

    dtype: DType
    rows: int
    columns: int
    ld: int
    stride: int


@dataclass(frozen=True, slots=True)
class ColumnMajor:
    """A product as cuBLASLt is asked for it: ``d = epilogue(alpha * op(first) @ op(second) + beta * c)``.

    ``first`` is the problem's B and ``second`` its A; c is laid out as d.
    """

    first: Layout
    second: Layout
    d: Layout
    transpose_first: bool
    transpose_second: bool
    batch: int
    compute: Compute
    beta: float
    epilogue: int


def describe(problem: MatmulProblem) -> ColumnMajor | None:
    """The problem in cuBLASLt's terms; None where these have no word for it.

    Raises ValueError for a problem that contradicts itself: rows that overlap, or a batch whose results do.
    """
    p = problem
    if p.activation not in _ACTIVATIONS or min(p.m, p.n, p.k, p.batch) < 1:
        return None
    if any(t not in api.DATA_TYPES for t in (p.a, p.b, p.d)) or (p.compute is Compute.I32 and not float(p.alpha).is_integer()):
        return None
    a = _layout(p.a, *((p.k, p.m) if p.transpose_a else (p.m, p.k)), p.lda, p.stride_a)
    b = _layout(p.b, *((p.n, p.k) if p.transpose_b else (p.k, p.n)), p.ldb, p.stride_b)
    d = _layout(p.d, p.m, p.n, p.ldd, p.stride_d)
    if p.batch > 1 and p.stride_d == 0:
        raise ValueError(f"the results of a batch of {p.batch} would overlap: stride_d is 0")
    return ColumnMajor(
        first=b,
        second=a,
        d=d,
        transpose_first=p.transpose_b,
        transpose_second=p.transpose_a,
        batch=p.batch,
        # TF32 is a way to read f32 operands; there is no such choice for narrower ones.
        compute=Compute.F32 if p.compute is Compute.TF32 and p.a is not DType.F32 else p.compute,
        beta=1.0 if p.residual else 0.0,
        epilogue=_epilogue(p.activation, p.bias),
    )


def _layout(dtype: DType, rows: int, columns: int, ld: int, stride: int) -> Layout:
    """A row-major matrix as the column-major one over the same memory; ``ld`` 0 means dense."""
    if rows == 1:
        ld = columns  # no second row whose distance could matter
    if ld and ld < columns:
        raise ValueError(f"rows of {columns} elements lie {ld} elements apart")
    return Layout(dtype, columns, rows, ld or columns, stride)


def _epilogue(activation: Activation, bias: bool) -> int:
    """DEFAULT is a bit that no other epilogue contains, so the others are ored without it."""
    epilogue = _ACTIVATIONS[activation]
    if not bias:
        return epilogue
    return api.EPILOGUE_BIAS if epilogue == api.EPILOGUE_DEFAULT else epilogue | api.EPILOGUE_BIAS


def form_of(problem: MatmulProblem) -> ColumnMajor | None:
    """The problem as the library may be asked for it: not with its tanh of f64, which is right to 3e-10 only (measured)."""
    if problem.compute is Compute.F64 and problem.activation is Activation.GELU_TANH:
        return None
    return describe(problem)
