"""Attention as product, softmax and product, with the scores in memory: any size, any type, scores handed out."""

from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.steps import NULL, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type, computed_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.launching.grids import power_of_two_from
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import Form, Q
from miniinfer_cli.backends.cuda.tactics.normalization.normalizing import SOFTMAX_FLOPS
from miniinfer_cli.backends.cuda.tactics.products.product_records import Axis, Operands, Product
from miniinfer_cli.backends.cuda.tactics.products.products import alike, main_tactics, merged
from miniinfer_cli.ir import DType
from miniinfer_cli.ops.element_types import FLOATS


@dataclass(frozen=True, slots=True)
class Kept:
    """Where scores (or probabilities) are handed out, and those of which stage: ONNX's qk_matmul_output_mode."""

    operand: Operand
    mode: int


def step_tactics(form: Form, y: Operand, target: Target, first_scratch: int = 0, kept: Kept | None = None) -> tuple[Tactic, ...]:
    """Y, and what is to be kept of the scores. No operand is empty, the heads' sizes apart.

    Scores are the scratch buffer of number ``first_scratch``.
    """
    if form.precision is not None and form.precision not in FLOATS:
        return ()
    wide = DType.F64 if form.dtype is DType.F64 else DType.F32
    scores = Operand.scratch(first_scratch)
    nbytes = form.batch * form.heads * form.queries * form.keys * element_nbytes(wide)
    first = main_tactics(_scores(form, wide), Operands(Operand.input(Q), form.k, scores), target)
    second = main_tactics(_values(form, wide), Operands(scores, form.v, y), target)
    between = Estimate(SOFTMAX_FLOPS * nbytes // element_nbytes(wide), (3 if kept is not None else 2) * nbytes)

    def tactic(one: Tactic, other: Tactic) -> Tactic:
        def emit(work: Work) -> None:
            assert work.scratch(nbytes) == scores
            one.emit(work)
            work.add(_softmax(form, scores, kept))
            other.emit(work)

        return Tactic(
            f"{one.key}, softmax, {other.key}",
            emit,
            one.estimate + between + other.estimate,
            lambda target: one.needs(target) or other.needs(target),
            (*one.problems, *other.problems),
            parts=(one.key, other.key),
        )

    return tuple(tactic(*chosen) for chosen in alike(first, second))


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


def _softmax(form: Form, scores: Operand, kept: Kept | None) -> Launch[Operand]:
    computed = computed_type(form.dtype)
    precision = form.precision or (DType.F64 if computed == "f64" else DType.F32)
    working = "f64" if precision is DType.F64 else "f32"
    types = (("MI_T", c_type(form.dtype)), ("MI_C", computed), ("MI_W", working), ("MI_P", c_type(precision)))
    kernel = Kernel("masked_softmax", "attention_scores.cu", (*types, *form.mask_defines(), *form.nan_defines()))
    rows = form.batch * form.heads * form.queries
    cap = np.float64(form.softcap) if computed == "f64" else np.float32(form.softcap)
    arguments = (
        *(scores, kept.operand if kept is not None else NULL, *form.seen_by(), np.int64(rows), np.int64(form.heads), cap),
        *(np.int32(kept.mode if kept is not None else 0), np.int32(form.may_be_empty)),
    )
    block = min(256, max(32, power_of_two_from(form.keys)))
    return Launch(kernel, (min(rows, (1 << 31) - 1),), (block,), arguments)
