"""Weights and biases of a product in the forms that the library reads fastest, derived once."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import static_shape
from miniinfer_cli.backends.cuda.contract.steps import Derived
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.tactics.products.product_records import Product
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import packed_pieces
from miniinfer_cli.backends.cuda.tactics.products.token_forms import CHUNK_NBYTES, FEATURES
from miniinfer_cli.ir import Constant, DType, Graph, TensorType, Value
from miniinfer_cli.ops import insert, insert_many
from miniinfer_cli.ops.type_codes import code_of_dtype


def is_matrix(constant: Constant, rows: int, columns: int) -> bool:
    """True when the constant has as many elements as the matrix; its axes of size 1 are no matter."""
    return math.prod(constant.shape) == rows * columns


@dataclass(frozen=True, slots=True)
class Rearranged:
    """Weights that are put into another order first: nodes that do so, and a text that is the same only where they are."""

    key: str
    insert: Callable[[Graph, Value], Value]


def columns_of(weights: Constant, product: Product, n: int, k: int, rearranged: Rearranged | None = None) -> Derived:
    """B with its columns as rows, ``[n, k]``, zeros where there is nothing: which the library reads fastest."""
    graph = Graph("weights")
    value = graph.add_input("weights", TensorType(weights.dtype, weights.shape))
    stored = (product.n, product.k) if product.transpose_b else (product.k, product.n)
    if rearranged is not None:
        value = rearranged.insert(graph, value)
    if static_shape(value.tensor) != stored:
        value = insert(graph, "Reshape", value, graph.add_constant(np.array(stored, np.int64), "stored"))
    if not product.transpose_b:
        value = insert(graph, "Transpose", value, perm=[1, 0])
    if (n, k) != (product.n, product.k):
        pads = np.array([0, 0, n - product.n, k - product.k], np.int64)
        value = insert(graph, "Pad", value, graph.add_constant(pads, "pads"))
    graph.set_outputs([value])
    before = "" if rearranged is None else f"{rearranged.key}, "
    return Derived((weights,), f"{before}columns of {stored} {'rows' if product.transpose_b else 'columns'} as {n}x{k}", graph)


def tiles_of(weights: Constant, product: Product, taps: int = 1, rearranged: Rearranged | None = None) -> Derived:
    """B as the product of few tokens reads it (``product_sm90.packed_pieces``), zeros where there is nothing.

    k is so many ``taps`` of as many channels each, which are filled up to whole chunks; B's columns are stored as rows then.
    Weights of f32 are rounded to the numbers of TF32, give or take a fifth of a unit: by a factor, behind which the
    matrix units cut off the rest.
    """
    elements = CHUNK_NBYTES // element_nbytes(product.b)
    tiles, chunks = -(-product.n // FEATURES), -(-product.k // taps // elements)
    by_taps = replace(product, n=product.n * taps, k=product.k // taps)
    rows = columns_of(weights, by_taps, tiles * FEATURES * taps, chunks * elements, rearranged)
    graph = rows.graph
    (value,) = graph.outputs
    if taps > 1:
        whole = np.array((tiles * FEATURES, taps * chunks * elements), np.int64)
        value = insert(graph, "Reshape", value, graph.add_constant(whole, "whole"))
    if weights.dtype is DType.F32:
        factor = graph.add_constant(np.array(1 + 0.7 / 2048, np.float32), "factor")
        value = insert(graph, "Mul", value, factor)
    graph.set_outputs([_in_tiles(graph, value)])
    return Derived((weights,), f"{rows.key} in tiles{f' of {taps} taps' if taps > 1 else ''}", graph)


def _in_tiles(graph: Graph, value: Value) -> Value:
    """Rows of whole chunks, of whole tiles, in the order in which shared memory has them."""
    (rows, k), elements = static_shape(value.tensor), CHUNK_NBYTES // element_nbytes(value.tensor.dtype)
    tiles, chunks = rows // FEATURES, k // elements
    by_chunk = np.array((tiles, FEATURES, chunks, elements), np.int64)
    value = insert(graph, "Reshape", value, graph.add_constant(by_chunk, "by_chunk"))
    value = insert(graph, "Transpose", value, perm=[0, 2, 1, 3])
    pieces = np.array((tiles * chunks, FEATURES * 8, elements // 8), np.int64)
    value = insert(graph, "Reshape", value, graph.add_constant(pieces, "pieces"))
    return insert(graph, "Gather", value, graph.add_constant(packed_pieces(), "places"), axis=1)


def scaled_tiles(
    weights: Constant, product: Product, scale: Constant, shift: Constant | None, factor: float, *, sums: bool
) -> tuple[Derived, ...]:
    """For normalized rows: B times ``scale`` along k and ``factor``, rounded, in tiles; where ``sums`` are wanted those of its
    columns in f32; then the products of ``shift`` with the columns of B itself, in f32, where there is one.

    k must be a whole number of chunks, and halves: B has 16 bits.
    """
    columns = -(-product.n // FEATURES) * FEATURES

    def scaled() -> tuple[Graph, Value, str]:
        graph, value, key = _scaled(weights, product, columns, scale, factor)
        return graph, insert(graph, "Cast", value, to=code_of_dtype(weights.dtype)), key

    graph, value, key = scaled()
    graph.set_outputs([_in_tiles(graph, value)])
    found = [Derived((weights, scale), f"{key} in tiles", graph)]
    if sums:
        graph, value, key = scaled()
        graph.set_outputs([_summed(graph, insert(graph, "Cast", value, to=code_of_dtype(DType.F32)), keepdims=0)])
        found.append(Derived((weights, scale), f"{key}, summed", graph))
    return (*found, *_shifted(weights, product, columns, shift))


def scaled_columns(
    weights: Constant, product: Product, scale: Constant, shift: Constant | None, factor: float, *, centred: bool
) -> tuple[Derived, ...]:
    """The same with columns as rows. ``centred``: the mean of each column is taken off, so that its products with rows do not
    change when numbers of a row do by the same; then there are no sums.
    """
    graph, value, key = _scaled(weights, product, product.n, scale, factor)
    if centred:
        along = graph.add_constant(np.array([1], np.int64), "along")
        value = insert(graph, "Sub", value, insert(graph, "ReduceMean", value, along, keepdims=1))
        value, key = _rounded_to_nothing(graph, value, weights.dtype), f"{key}, centred"
    graph.set_outputs([insert(graph, "Cast", value, to=code_of_dtype(weights.dtype))])
    return (Derived((weights, scale), key, graph), *_shifted(weights, product, product.n, shift))


def _rounded_to_nothing(graph: Graph, value: Value, dtype: DType) -> Value:
    """Rows of f32 that sum up to nothing, rounded to ``dtype`` so that they still do: to the nearest number, but to the one on
    the other side where that changes an element least, as often as is needed.
    """

    def rounded(wide: Value) -> Value:
        return insert(graph, "Cast", insert(graph, "Cast", wide, to=code_of_dtype(dtype)), to=code_of_dtype(DType.F32))

    def number(of: float) -> Value:
        return graph.add_constant(np.array(of, np.float32), "number")

    near = rounded(value)
    lost = insert(graph, "Sub", value, near)
    missing = _summed(graph, lost, keepdims=1)
    sign = insert(graph, "Sign", missing)
    # Three quarters of the largest distance of two neighbours, which is up to twice the least.
    step = insert(graph, "Mul", insert(graph, "Abs", near), insert(graph, "Mul", sign, number(0.74 * _SPACING[dtype])))
    other = rounded(insert(graph, "Add", near, step))
    gain = insert(graph, "Abs", insert(graph, "Sub", other, near))
    part = insert(graph, "Div", insert(graph, "Mul", lost, sign), insert(graph, "Max", gain, number(1e-30)))
    length = graph.add_constant(np.array([static_shape(value.tensor)[1]], np.int64), "length")
    first, places = insert_many(graph, "TopK", part, length, n_outputs=2, axis=1)
    gains = insert(graph, "GatherElements", gain, places, axis=1)
    along = graph.add_constant(np.array(1, np.int64), "along")
    most = insert(graph, "Add", insert(graph, "Abs", missing), insert(graph, "Mul", gains, number(0.5)))
    taken = insert(graph, "LessOrEqual", insert(graph, "CumSum", gains, along), most)
    limits = insert(graph, "Where", taken, first, number(float("inf")))
    axes = graph.add_constant(np.array([1], np.int64), "axes")
    limit = insert(graph, "ReduceMin", limits, axes, keepdims=1)
    return insert(graph, "Where", insert(graph, "GreaterOrEqual", part, limit), other, near)


_SPACING = {DType.F16: 2.0**-10, DType.BF16: 2.0**-7}
"""The largest distance of two neighbours, by their size."""


def _scaled(weights: Constant, product: Product, columns: int, scale: Constant, factor: float) -> tuple[Graph, Value, str]:
    """B's columns as rows, times ``scale`` along k and ``factor``, in f32."""
    graph, wide, other, key = _widened(weights, product, columns, scale)
    by = insert(graph, "Mul", other, graph.add_constant(np.array(factor, np.float32), "factor"))
    return graph, insert(graph, "Mul", wide, by), f"{key} by a row and {factor!r}"


def _shifted(weights: Constant, product: Product, columns: int, shift: Constant | None) -> tuple[Derived, ...]:
    """The products of ``shift`` with the columns of B, in f32, where there is one."""
    if shift is None:
        return ()
    graph, wide, other, key = _widened(weights, product, columns, shift)
    graph.set_outputs([_summed(graph, insert(graph, "Mul", wide, other), keepdims=0)])
    return (Derived((weights, shift), f"{key} by a row, summed", graph),)


def _widened(weights: Constant, product: Product, columns: int, by: Constant) -> tuple[Graph, Value, Value, str]:
    """B's columns as rows, and a row ``by``, both in f32."""
    rows = columns_of(weights, product, columns, product.k)
    graph, (value,) = rows.graph, rows.graph.outputs
    other = graph.add_input("by", TensorType(by.dtype, by.shape))
    wide, other = (insert(graph, "Cast", v, to=code_of_dtype(DType.F32)) for v in (value, other))
    return graph, wide, other, rows.key


def _summed(graph: Graph, value: Value, *, keepdims: int) -> Value:
    axes = graph.add_constant(np.array([1], np.int64), "axes")
    return insert(graph, "ReduceSum", value, axes, keepdims=keepdims)


def longer(bias: Constant, n: int) -> Derived:
    """A bias of n elements, zeros behind those that there are."""
    graph = Graph("bias")
    value = graph.add_input("bias", TensorType(bias.dtype, bias.shape))
    value = insert(graph, "Reshape", value, graph.add_constant(np.array([-1], np.int64), "flat"))
    pads = np.array([0, n - math.prod(bias.shape)], np.int64)
    graph.set_outputs([insert(graph, "Pad", value, graph.add_constant(pads, "pads"))])
    return Derived((bias,), f"padded to {n}", graph)
