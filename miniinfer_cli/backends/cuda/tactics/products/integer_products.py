"""Products of 8-bit integers less their zero points, in 32 bits that wrap around.

``(A - za) (B - zb) = A B - za sum(B by columns) - zb sum(A by rows) + k za zb``: with constant weights, whose sums are made once,
the library multiplies signed bytes (unsigned ones less 128), and one pass over the result does the rest. It takes bytes that lie
along k in both, so that the columns of the weights become rows.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.problems import MatmulProblem
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Derived, Kernel, Launch, LibraryCall, Operand
from miniinfer_cli.backends.cuda.contract.strides import broadcast_strides
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.launching.grids import BLOCK, blocks_for, launch_over
from miniinfer_cli.backends.cuda.tactics.products.library_products import LIBRARY, library_problem
from miniinfer_cli.backends.cuda.tactics.products.product_records import Operands, Product, estimate_of
from miniinfer_cli.backends.cuda.tactics.products.products import matrices, merged, product_tactics
from miniinfer_cli.ir import Constant, DType, Graph, TensorType, Value
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.type_codes import code_of_dtype

SIGNED = "cublaslt over signed bytes"
"""The key of the library's tactic with constant weights."""


@dataclass(frozen=True, slots=True)
class Factor:
    """An operand: where it lies, its zero points (of ``zero_shape``, broadcast onto it), and the constant that it is."""

    operand: Operand
    dtype: DType
    shape: tuple[int, ...]
    zero: Operand | None
    zero_shape: tuple[int, ...] | None
    handle: Constant | None

    @property
    def shift(self) -> int:
        """What is taken from each element to make it signed."""
        return 128 if self.dtype is DType.U8 else 0


def integer_tactics(a: Factor, b: Factor, d: Operand, target: Target) -> tuple[Tactic, ...]:
    """The ways of the product in ``d``, as i32, the heuristic's favourite first: the library, then our kernels.

    None where zero points differ along k, and the library has no words for it either.
    """
    plain = matrices(a.shape, b.shape, (a.dtype, b.dtype, DType.I32))
    product = _with_zero_points(plain, a, b)
    signed = _signed_tactics(plain, a, b, d, target)
    if product is None:
        return signed
    return (*signed, *product_tactics(merged(product), Operands(a.operand, b.operand, d, a_zero=a.zero, b_zero=b.zero), target))


def _with_zero_points(product: Product, a: Factor, b: Factor) -> Product | None:
    """The product with the distances between its zero points; None where they differ along k."""
    steps: list[int | None] = []
    walks: list[tuple[int, ...]] = []
    for factor, shape, along_k in ((a, _row(a.shape), -1), (b, _column(b.shape), -2)):
        steps.append(None)
        walks.append((0,) * len(product.batch))
        if factor.zero_shape is None:
            continue
        strides = broadcast_strides(factor.zero_shape, shape)
        if strides[along_k]:
            return None
        steps[-1] = strides[-3 - along_k]
        walks[-1] = (walks[-1] + strides[:-2])[len(strides) - 2 :]
    axes = zip(product.batch, *walks, strict=True)
    batch = tuple(replace(axis, a_zero=x, b_zero=y) for axis, x, y in axes)
    return replace(product, a_zero=steps[0], b_zero=steps[1], batch=batch)


def _row(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A vector on the left as a row."""
    return (1, *shape) if len(shape) == 1 else shape


def _column(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A vector on the right as a column."""
    return (*shape, 1) if len(shape) == 1 else shape


def _signed_tactics(plain: Product, a: Factor, b: Factor, d: Operand, target: Target) -> tuple[Tactic, ...]:
    """The library over signed bytes, where the weights are one constant matrix."""
    p = merged(replace(plain, a=DType.I8, b=DType.I8, transpose_b=True, ldb=plain.k))
    problem = library_problem(p, target)
    steps = _row_step(p, a), _column_step(p, b)
    if problem is None or b.handle is None or p.batch or len(b.shape) != 2 or None in steps:
        return ()
    estimate = estimate_of(p)
    if _is_changed(a, b):
        estimate += Estimate(2 * p.m * p.k + 4 * p.m * p.n, (2 if a.shift else 1) * p.m * p.k + 8 * p.m * p.n)
    numbers = (steps[0] or 0, steps[1] or 0)
    return (
        Tactic(
            SIGNED,
            lambda work: _emit_signed(work, p, a, b, d, problem, numbers, target),
            estimate,
            problems=(problem,),
            parts=(LIBRARY,),
        ),
    )


def _is_changed(a: Factor, b: Factor) -> bool:
    """True when the product of signed bytes is not yet the result."""
    return a.zero is not None or b.zero is not None or bool(a.shift or b.shift)


def _emit_signed(
    work: Work, p: Product, a: Factor, b: Factor, d: Operand, problem: MatmulProblem, steps: tuple[int, int], target: Target
) -> None:
    row_sums: Argument = NULL
    column_sums: Argument = NULL
    left, weights = a.operand, b.handle
    assert weights is not None
    if b.zero is not None or b.shift or a.shift:
        sums = row_sums = work.scratch(4 * p.m)
        left = work.scratch(p.m * p.k) if a.shift else left
        work.add(_sum_rows(p, a, left if a.shift else NULL, sums, target))
    right = work.derive(Derived((weights,), f"columns as signed bytes, less {b.shift}", _signed_graph(b)))
    if a.zero is not None or a.shift:
        column_sums = work.derive(Derived((weights,), "sums of columns as signed bytes", _sums_graph(b)))
    work.add(LibraryCall(problem, (left, right, d)))
    if not _is_changed(a, b):
        return
    defines = (("MI_A", c_type(a.dtype)), ("MI_B", c_type(b.dtype)))
    zeros: tuple[Argument, ...] = (a.zero or NULL, b.zero or NULL)
    sizes = (np.int64(p.m), np.int32(p.n), np.int32(p.k))
    numbers: tuple[Argument, ...] = (*map(np.int32, (*steps, a.shift, b.shift)), *sizes)
    kernel = Kernel("take_zero_points", "zero_points.cu", defines)
    work.add(launch_over(kernel, p.m * p.n, (d, row_sums, column_sums, *zeros, *numbers), target.multiprocessors))


def _row_step(p: Product, a: Factor) -> int | None:
    """Elements between the zero points of A's rows, all of its axes but the last taken as one; None where there is no such."""
    if a.zero_shape is None or math.prod(a.zero_shape) == 1:
        return 0
    return 1 if math.prod(a.zero_shape) == p.m and a.zero_shape[-1] == 1 else None


def _column_step(p: Product, b: Factor) -> int | None:
    if b.zero_shape is None or math.prod(b.zero_shape) == 1:
        return 0
    return 1 if math.prod(b.zero_shape) == b.zero_shape[-1] == p.n else None


def _sum_rows(p: Product, a: Factor, signed: Argument, sums: Operand, target: Target) -> Launch[Operand]:
    pack = 16 if p.k % 16 == 0 else 1
    defines = (("MI_T", c_type(a.dtype)), ("MI_PACK", str(pack)))
    grid = (blocks_for(p.m * 32, target.multiprocessors),)
    arguments = (a.operand, signed, sums, np.int64(p.m), np.int32(p.k))
    return Launch(Kernel("sum_rows", "signed_rows.cu", defines), grid, (32, BLOCK // 32), arguments)


def _signed_graph(b: Factor) -> Graph:
    graph, wide = _widened(b)
    graph.set_outputs([insert(graph, "Transpose", insert(graph, "Cast", wide, to=code_of_dtype(DType.I8)), perm=[1, 0])])
    return graph


def _sums_graph(b: Factor) -> Graph:
    graph, wide = _widened(b)
    axes = graph.add_constant(np.array([0], np.int64), "axes")
    graph.set_outputs([insert(graph, "ReduceSum", wide, axes, keepdims=0)])
    return graph


def _widened(b: Factor) -> tuple[Graph, Value]:
    """The weights as signed numbers in i32."""
    graph = Graph("weights")
    x = graph.add_input("weights", TensorType(b.dtype, b.shape))
    wide = insert(graph, "Cast", x, to=code_of_dtype(DType.I32))
    if b.shift:
        wide = insert(graph, "Sub", wide, graph.add_constant(np.array(b.shift, np.int32), "shift"))
    return graph, wide
