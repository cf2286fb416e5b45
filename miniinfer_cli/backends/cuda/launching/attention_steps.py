"""Attention as product, softmax and product, with the scores in memory: any size, any type, scores handed out."""

import numpy as np

from miniinfer_cli.backends.cuda.grids import power_of_two_from
from miniinfer_cli.backends.cuda.launching.attention_form import Form, Q
from miniinfer_cli.backends.cuda.launching.product_records import Axis, Operands, Product, Solution
from miniinfer_cli.backends.cuda.launching.products import merged, solve
from miniinfer_cli.backends.cuda.steps import NULL, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.target import Target
from miniinfer_cli.backends.cuda.types import c_type, computed_type, element_nbytes
from miniinfer_cli.ir import DType
from miniinfer_cli.ops.element_types import FLOATS


def attend_in_steps(form: Form, y: Operand, kept: Operand | None, mode: int, target: Target, scratch: int) -> Solution | None:
    """Y, and the scores or probabilities of the stage ``mode`` in ``kept``. No operand is empty, the heads' sizes apart."""
    if form.precision is not None and form.precision not in FLOATS:
        return None
    wide = DType.F64 if form.dtype is DType.F64 else DType.F32
    scores = Operand.scratch(scratch)
    first = solve(_scores(form, wide), Operands(Operand.input(Q), form.k, scores), target, scratch + 1)
    second = solve(_values(form, wide), Operands(scores, form.v, y), target, scratch + 1 + len(first.scratch) if first else 0)
    if first is None or second is None:
        return None
    nbytes = form.batch * form.heads * form.queries * form.keys * element_nbytes(wide)
    middle = _softmax(form, scores, kept, mode)
    return Solution(
        (*first.actions, middle, *second.actions),
        (nbytes, *first.scratch, *second.scratch),
        f"{first.tactic}, softmax, {second.tactic}",
    )


def _scores(form: Form, wide: DType) -> Product:
    (qb, qh, q), (kb, kh, k) = form.strides[:2]
    plane = form.queries * form.keys
    axes = (
        Axis(form.batch, qb, kb, form.heads * plane),
        Axis(form.kv_heads, form.group * qh, kh, form.group * plane),
        Axis(form.group, qh, 0, plane),
    )
    sizes = (form.queries, form.keys, form.size)
    return merged(Product(*sizes, form.dtype, form.dtype, wide, False, True, q, k, form.keys, axes, alpha=form.scale))


def _values(form: Form, wide: DType) -> Product:
    (vb, vh, v), (yb, yh, y) = form.strides[2:]
    plane = form.queries * form.keys
    axes = (
        Axis(form.batch, form.heads * plane, vb, yb),
        Axis(form.kv_heads, form.group * plane, vh, form.group * yh),
        Axis(form.group, plane, 0, yh),
    )
    sizes = (form.queries, form.v_size, form.keys)
    return merged(Product(*sizes, wide, form.dtype, form.dtype, False, False, form.keys, v, y, axes))


def _softmax(form: Form, scores: Operand, kept: Operand | None, mode: int) -> Launch[Operand]:
    computed = computed_type(form.dtype)
    precision = form.precision or (DType.F64 if computed == "f64" else DType.F32)
    working = "f64" if precision is DType.F64 else "f32"
    types = (("MI_T", c_type(form.dtype)), ("MI_C", computed), ("MI_W", working), ("MI_P", c_type(precision)))
    kernel = Kernel("masked_softmax", "attention_scores.cu", (*types, *form.mask_defines(), *form.nan_defines()))
    rows = form.batch * form.heads * form.queries
    cap = np.float64(form.softcap) if computed == "f64" else np.float32(form.softcap)
    arguments = (
        *(scores, kept or NULL, *form.seen_by(), np.int64(rows), np.int64(form.heads), cap),
        *(np.int32(mode), np.int32(form.may_be_empty)),
    )
    block = min(256, max(32, power_of_two_from(form.keys)))
    return Launch(kernel, (min(rows, (1 << 31) - 1),), (block,), arguments)
