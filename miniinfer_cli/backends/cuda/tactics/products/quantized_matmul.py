"""MatMulInteger and QLinearMatMul."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.estimating import default_estimate
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Operand, inputs
from miniinfer_cli.backends.cuda.contract.strides import broadcast_strides, merge_axes
from miniinfer_cli.backends.cuda.contract.tactic import REWRITTEN, Tactic
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over
from miniinfer_cli.backends.cuda.tactics.products.integer_products import Factor, integer_tactics
from miniinfer_cli.backends.cuda.tactics.products.products import NOTHING
from miniinfer_cli.ir import DType, Graph, Value
from miniinfer_cli.ir.quantization import FP8_LARGEST
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.type_codes import code_of_dtype


@lowers("MatMulInteger")
def lower_matmul_integer(site: Site) -> tuple[Tactic, ...]:
    """The product of integers (``tactics/products/integer_products.py``); last, other operations in whole 32 bits."""
    listed = integer_tactics(_factor(site, 0, 2), _factor(site, 1, 3), Operand.output(0), site.target)
    return (*listed, _rewritten(site, lambda: _product_graph(site, 0, 2, 1, 3)))


@lowers("QLinearMatMul")
def lower_qlinear_matmul(site: Site) -> tuple[Tactic, ...]:
    """The product of integers, then one pass that scales, rounds and saturates; 8-bit floats by the operations of the formula."""
    integers = (DType.I8, DType.U8)
    listed: tuple[Tactic, ...] = ()
    if site.dtype(0) in integers and site.dtype(3) in integers and site.out_dtype() in integers:
        count, total = math.prod(_aligned(site)), Operand.scratch(0)
        if count == 0:
            return (Tactic(NOTHING, lambda work: None, Estimate(0, 0)),)
        listed = integer_tactics(_factor(site, 0, 2), _factor(site, 3, 5), total, site.target)
    return (*(_requantized(site, tactic) for tactic in listed), _rewritten(site, lambda: _formula(site)))


def _requantized(site: Site, tactic: Tactic) -> Tactic:
    """The tactic, whose product lies in the first scratch buffer, and one pass over that."""
    shape = _aligned(site)
    count = math.prod(shape)

    def emit(work: Work) -> None:
        total = work.scratch(4 * count)
        tactic.emit(work)
        work.add(_requantize(site, total, shape))

    after = Estimate(4 * count, count * (4 + element_nbytes(site.out_dtype())))
    key, parts = f"{tactic.key}, requantized", (tactic.key, *tactic.parts)
    return replace(tactic, key=key, emit=emit, estimate=tactic.estimate + after, parts=parts)


def _rewritten(site: Site, graph: Callable[[], Graph]) -> Tactic:
    return Tactic(REWRITTEN, lambda work: work.replace_by(graph()), default_estimate(site))


def _factor(site: Site, number: int, zero: int) -> Factor:
    there = site.has(zero)
    known = site.known(zero)
    if known is not None and not np.any(known):
        there = False
    point = Operand.input(zero) if there else None
    shape = _per_row(site.shape(zero), number == 0) if there else None
    return Factor(Operand.input(number), site.dtype(number), site.shape(number), point, shape, site.handles[number])


def _per_row(shape: tuple[int, ...], rows: bool) -> tuple[int, ...]:
    """The shape under which an operand is broadcast: a vector of A's or Y's is one value for each row."""
    return (*shape, 1) if rows and len(shape) == 1 and shape[0] > 1 else shape


def _aligned(site: Site) -> tuple[int, ...]:
    """The result's shape with both axes of the matrices."""
    a, b = site.shape(0), site.shape(3)
    shape = site.out_shape()
    batch = shape[: len(shape) - (len(a) > 1) - (len(b) > 1)]
    return (*batch, a[-2] if len(a) > 1 else 1, b[-1] if len(b) > 1 else 1)


def _requantize(site: Site, total: Operand, shape: tuple[int, ...]) -> Launch[Operand]:
    count = math.prod(shape)
    walks = [broadcast_strides(_per_row(site.shape(n), n != 4), shape) for n in (1, 4, 6, 7)]
    sizes, strides = merge_axes(shape, *walks)
    rank = max(len(sizes), 1)
    defines = (
        *(("MI_SCALE_A", c_type(site.dtype(1))), ("MI_SCALE_B", c_type(site.dtype(4))), ("MI_SCALE_Y", c_type(site.dtype(6)))),
        *(("MI_T", c_type(site.out_dtype())), ("MI_RANK", str(rank)), ("MI_INDEX", index_name(count))),
    )
    walk = np.array([*(sizes or (1,)), *(s for one in strides for s in (one or (0,)))], np.int64)
    arguments = (total, *inputs(1, 4, 6, 7), Operand.output(0), index_dtype(count).type(count), walk)
    return launch_over(Kernel("requantize", "requantize.cu", defines), count, arguments, site.target.multiprocessors)


def _product_graph(site: Site, a: int, a_zero: int, b: int, b_zero: int) -> Graph:
    """Whole operands less their zero points, of any shape, multiplied in 32 bits."""
    graph = Graph(site.node.op)
    given = {i: graph.add_input(f"x{i}", t) for i, t in enumerate(site.types) if t is not None}
    graph.set_outputs([_centred_product(graph, site, given, (a, a_zero, b, b_zero), DType.I32)])
    return graph


def _centred_product(
    graph: Graph, site: Site, given: dict[int, Value], numbers: tuple[int, int, int, int], dtype: DType
) -> Value:
    a, a_zero, b, b_zero = numbers
    factors = []
    for number, zero in ((a, a_zero), (b, b_zero)):
        x = insert(graph, "Cast", given[number], to=code_of_dtype(dtype))
        if zero in given:
            point = insert(graph, "Cast", _column(graph, given[zero], number == a), to=code_of_dtype(dtype))
            x = insert(graph, "Sub", x, point)
        factors.append(x)
    return insert(graph, "MatMul", *factors)


def _formula(site: Site) -> Graph:
    """QLinearMatMul as its definition says it, in f32."""
    graph = Graph("QLinearMatMul")
    given = {i: graph.add_input(f"x{i}", t) for i, t in enumerate(site.types) if t is not None}
    integers = (DType.I8, DType.U8)
    whole = site.dtype(0) in integers and site.dtype(3) in integers
    total = _centred_product(graph, site, given, (0, 2, 3, 5), DType.I32 if whole else DType.F32)
    f32 = code_of_dtype(DType.F32)
    total = insert(graph, "Cast", total, to=f32) if whole else total
    scales = [insert(graph, "Cast", _column(graph, given[i], i != 4), to=f32) for i in (1, 4, 6)]
    scale = insert(graph, "Div", insert(graph, "Mul", *scales[:2]), scales[2])
    y = insert(graph, "Mul", total, scale)
    dtype = site.out_dtype()
    if dtype in integers:
        y = insert(graph, "Round", y)
        limits = (-128.0, 127.0) if dtype is DType.I8 else (0.0, 255.0)
    else:
        limits = (-FP8_LARGEST[dtype], FP8_LARGEST[dtype])
    y = insert(graph, "Add", y, insert(graph, "Cast", _column(graph, given[7], True), to=f32))
    y = insert(graph, "Clip", y, *(graph.add_constant(np.array(limit, np.float32)) for limit in limits))
    graph.set_outputs([insert(graph, "Cast", y, to=code_of_dtype(dtype))])
    return graph


def _column(graph: Graph, value: Value, rows: bool) -> Value:
    """A vector that is one value for each row, as a column."""
    shape = value.tensor.shape or ()
    if not rows or len(shape) != 1 or shape[0] == 1:
        return value
    return insert(graph, "Unsqueeze", value, graph.add_constant(np.array([1], np.int64)))
