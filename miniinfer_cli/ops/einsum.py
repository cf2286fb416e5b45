"""Einsum."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, TensorType
from miniinfer_cli.ops.einsum_equation import Equation, parse_equation
from miniinfer_cli.ops.einsum_expansion import expand_einsum
from miniinfer_cli.ops.element_types import FLOATS, INTEGERS, expect_dtype, same_dtype
from miniinfer_cli.ops.flops import Operands, Results
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.products import ForEach, multiply
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.work import Attrs, Inputs, Outputs, volume


def infer_einsum(*xs: TensorType, equation: str) -> TensorType:
    """Operands labelled by the equation give an output with its output labels. Source: ONNX Einsum-28."""
    dtype = same_dtype("Einsum", *xs)
    expect_dtype("Einsum", xs[0], FLOATS | INTEGERS)
    parsed = parse_equation(equation)
    if len(parsed.terms) != len(xs):
        raise ModelError(f"Einsum equation {equation!r} has {len(parsed.terms)} terms for {len(xs)} operands")
    sizes: dict[str, Dim] = {}
    broadcast: list[Dim] | None = None
    for x, term in zip(xs, parsed.terms, strict=True):
        if x.shape is None:
            return TensorType(dtype)
        labels, rest = _assign(x, term, equation)
        for label, size in labels:
            sizes[label] = _merge(sizes.get(label, 1), size, label, equation)
        if rest is not None:
            if broadcast is not None and len(broadcast) != len(rest):
                raise ModelError(f"Einsum equation {equation!r}: '...' stands for {len(broadcast)} axes and for {len(rest)}")
            broadcast = [_merge(a, b, "...", equation) for a, b in zip(broadcast or (1,) * len(rest), rest, strict=True)]
    shape: list[Dim] = []
    for label in parsed.output:
        shape.extend(broadcast or () if label == "..." else (sizes[label],))
    return TensorType(dtype, tuple(shape))


@widen_half
def einsum(*xs: Array, equation: str, for_each: ForEach | None = None) -> Array:
    """The sum over all labels that the output does not have of the product of the operands."""
    parsed = parse_equation(equation)
    if len(xs) == 2:
        product = _as_matrix_product(xs[0], xs[1], parsed, for_each)
        if product is not None:
            return product
    result = np.einsum("".join(equation.split()), *xs, optimize=len(xs) > 2)
    return np.asarray(result, xs[0].dtype, order="C")


def _as_matrix_product(a: Array, b: Array, equation: Equation, for_each: ForEach | None) -> Array | None:
    """One batched product where each label occurs once per operand and nothing is broadcast; None elsewhere.

    numpy's own einsum leaves products with batch axes to scalar loops.
    """
    left, right, out = equation.spread((a.ndim, b.ndim))
    if len(set(left)) != len(left) or len(set(right)) != len(right):
        return None
    size = dict(zip(left, a.shape, strict=True))
    if any(size.setdefault(label, n) != n for label, n in zip(right, b.shape, strict=True)):
        return None
    batch = [label for label in left if label in right and label in out]
    inner = [label for label in left if label in right and label not in out]
    rows = [label for label in left if label not in right]
    columns = [label for label in right if label not in left]
    if not inner or any(label not in out for label in (*rows, *columns)):
        return None
    shapes = [[size[label] for label in labels] for labels in (batch, rows, columns, inner)]
    count, height, width, depth = (math.prod(sizes) for sizes in shapes)
    first = a.transpose([left.index(label) for label in (*batch, *rows, *inner)]).reshape(count, height, depth)
    second = b.transpose([right.index(label) for label in (*batch, *inner, *columns)]).reshape(count, depth, width)
    product = multiply(first, second, for_each=for_each).reshape((*shapes[0], *shapes[1], *shapes[2]))
    order = [*batch, *rows, *columns]
    return np.asarray(product.transpose([order.index(label) for label in out]), order="C")


def _assign(x: TensorType, term: tuple[str, ...], equation: str) -> tuple[list[tuple[str, Dim]], tuple[Dim, ...] | None]:
    """The size of each label of one operand, and the sizes that '...' stands for."""
    shape = x.shape or ()
    spare = len(shape) - len(term)
    if ("..." in term and spare < -1) or ("..." not in term and spare != 0):
        raise ModelError(f"Einsum operand {x} does not have the axes of {''.join(term)!r} in equation {equation!r}")
    if "..." not in term:
        return list(zip(term, shape, strict=True)), None
    at = term.index("...")
    stop = at + spare + 1
    return [*zip(term[:at], shape[:at], strict=True), *zip(term[at + 1 :], shape[stop:], strict=True)], shape[at:stop]


def _merge(a: Dim, b: Dim, label: str, equation: str) -> Dim:
    if isinstance(a, int) and isinstance(b, int) and a != b and 1 not in (a, b):
        raise ModelError(f"Einsum equation {equation!r}: label {label!r} is {a} and {b}")
    if isinstance(a, int) and a != 1:
        return a
    return b if not isinstance(b, int) or b != 1 else a


def _work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """A multiplication for each operand and each combination of the labels, as with no order found that takes fewer."""
    return _multiplications([x.shape for x in inputs if x is not None], attrs)


def _flops(operands: Operands, results: Results, attrs: Attrs) -> int:
    return _multiplications([t.shape or () for t in operands if t is not None], attrs)


def _multiplications(shapes: Sequence[Sequence[Any]], attrs: Attrs) -> int:
    sizes: dict[str, int] = {}
    for shape, labels in zip(shapes, parse_equation(attrs["equation"]).spread(list(map(len, shapes))), strict=False):
        for label, size in zip(labels, shape, strict=False):
            sizes[label] = max(sizes.get(label, 1), size)
    return len(shapes) * volume(list(sizes.values()))


EINSUM = define("Einsum", infer=infer_einsum, reference=einsum, expand=expand_einsum, work=_work, heavy=True, flops=_flops)
