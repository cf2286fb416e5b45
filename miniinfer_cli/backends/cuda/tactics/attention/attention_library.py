"""Attention by the library, where it has words for the problem; a mask is first put into the form that it takes."""

from dataclasses import replace

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.problems import AttentionProblem
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, LibraryCall, Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.launching.grids import power_of_two_from
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import Form, Q
from miniinfer_cli.backends.cuda.tactics.attention.attention_rows import clear_nan
from miniinfer_cli.ir import DType

CUDNN = "cudnn"
"""The key of the tactic that is a call alone."""
CUDNN_MASKED = "cudnn with a mask"
"""The key of the one that makes a dense mask first."""


def library_tactics(form: Form, y: Operand, target: Target) -> tuple[Tactic, ...]:
    """Y by cuDNN; none where it has no words for this. No operand is empty.

    What hides keys, causal order from the first key apart, goes into a dense mask. What the library makes of a query that
    sees no key is not said anywhere, and one that sees all through the lowest numbers is beyond what it computes with: such rows
    are found while the mask is made, and mended afterwards.
    """
    if not form.dtype.is_half or form.softcap or form.precision not in (None, DType.F32, form.dtype) or form.size == 0:
        return ()
    if not form.may_be_empty or _is_plainly_causal(form):
        plain = _problem(form, None)
        call = LibraryCall(plain, (Operand.input(Q), form.k, form.v, y))
        return (Tactic(CUDNN, lambda work: work.add(call, *clear_nan(form, y, target)), form.estimate(), problems=(plain,)),)
    mask_batch = form.batch if form.nonpad or (form.mask and form.mask.strides[0]) else 1
    mask_heads = form.heads if form.mask and form.mask.strides[1] else 1
    problem = _problem(form, (mask_batch, mask_heads, form.queries, form.keys))
    mask_nbytes = mask_batch * mask_heads * form.queries * form.keys * element_nbytes(form.dtype)
    estimate = replace(form, causal=False, left=-1, right=-1).estimate() + Estimate(0, 2 * mask_nbytes)
    return (Tactic(CUDNN_MASKED, lambda work: _emit_masked(work, form, y, problem, target), estimate, problems=(problem,)),)


def _emit_masked(work: Work, form: Form, y: Operand, problem: AttentionProblem, target: Target) -> None:
    assert problem.mask_shape is not None
    mask_batch, mask_heads, *_ = problem.mask_shape
    rows = mask_batch * mask_heads * form.queries
    mask, odd = work.scratch(rows * form.keys * element_nbytes(form.dtype)), work.scratch(rows)
    defines = (("MI_T", c_type(form.dtype)), *form.mask_defines(), *form.nan_defines())
    make: Launch[Operand] = Launch(
        Kernel("dense_mask", "attention_mask.cu", defines),
        (min(rows, (1 << 31) - 1),),
        (min(256, max(32, power_of_two_from(form.keys))),),
        (mask, odd, *form.seen_by(), np.int64(rows), np.int64(mask_heads)),
    )
    all_rows = form.batch * form.heads * form.queries
    walk = (form.queries * mask_heads if mask_batch > 1 else 0, form.queries if mask_heads > 1 else 0)
    counts = [np.int64(n) for n in (all_rows, form.heads, form.queries, form.keys, form.v_size, form.group)]
    strides = [np.array(form.strides[i], np.int64) for i in (3, 2)]
    mend: Launch[Operand] = Launch(
        Kernel("mend_rows", "attention_mask.cu", defines),
        (min(-(-all_rows // 8), target.multiprocessors * 16),),
        (32, 8),
        (y, odd, mask, form.v, *counts, *strides, np.array(walk, np.int64)),
    )
    work.add(make, LibraryCall(problem, (Operand.input(Q), form.k, form.v, y, mask)), mend, *clear_nan(form, y, target))


def _is_plainly_causal(form: Form) -> bool:
    """True when query i sees the keys up to i, and nothing else hides any."""
    return form.causal and form.mask is None and not form.nonpad and form.offset == 0 and form.left < 0 and form.right < 0


def _problem(form: Form, mask_shape: tuple[int, int, int, int] | None) -> AttentionProblem:
    q, k, v, y = ((*s, 1) for s in form.strides)
    return AttentionProblem(
        dtype=form.dtype,
        batch=form.batch,
        heads=form.heads,
        kv_heads=form.kv_heads,
        q_length=form.queries,
        kv_length=form.keys,
        size=form.size,
        v_size=form.v_size,
        q_strides=q,
        k_strides=k,
        v_strides=v,
        y_strides=y,
        scale=form.scale,
        causal=form.causal and mask_shape is None,
        mask_shape=mask_shape,
    )
