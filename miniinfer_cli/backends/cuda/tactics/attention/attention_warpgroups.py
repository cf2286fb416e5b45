"""Attention by the kernel for sm_90a: the tactics, in several cuts."""

from functools import partial

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.attention.attention_cuts import cuts_of
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import Form
from miniinfer_cli.backends.cuda.tactics.attention.attention_heuristic import ATTENTION, AttentionHeuristic
from miniinfer_cli.backends.cuda.tactics.attention.attention_sm90 import (
    ROWS,
    Cut,
    Leaving,
    Rotary,
    attention_launch,
    form_fault,
    tiling_of,
)
from miniinfer_cli.ir import DType

WAY = "warpgroups"
"""The word that keys begin with."""


def warpgroup_tactics(
    form: Form,
    y: Operand,
    target: Target,
    table: AttentionHeuristic = ATTENTION,
    rotary: Rotary | None = None,
    leaving: Leaving | None = None,
) -> tuple[Tactic, ...]:
    """Y by matrix instructions of whole warpgroups, in several cuts, the favourite first; none where the kernel does not reach.

    No operand is empty. f32 as TF32, where that may be. ``rotary``: what queries and keys are turned by first. ``leaving``: how
    results become bytes.
    """
    exact = form.dtype is DType.F32 and not target.tf32
    if exact or form_fault(form) or any(step is not None and step.fault(form) for step in (rotary, leaving)):
        return ()

    def tactic(cut: Cut) -> Tactic:
        def emit(work: Work) -> None:
            work.add(attention_launch(form, cut, y, rotary, leaving))

        return Tactic(key_of(cut), emit, _estimate(form, cut, leaving), partial(_needs, form, cut, table))

    turned = 0 if rotary is None else rotary.turned
    return tuple(map(tactic, cuts_of(form, target.multiprocessors, turned)[: table.warpgroup_cuts]))


def key_of(cut: Cut) -> str:
    """Rows and keys of a block's tiles, how many of them come at a time, and how many warpgroups share a tile."""
    parts = f" in {cut.parts} parts" if cut.parts > 1 else ""
    return f"{WAY} {ROWS * cut.groups}x{cut.keys}, {cut.stages} ahead{parts}"


def _needs(form: Form, cut: Cut, table: AttentionHeuristic, target: Target) -> str:
    if target.arch != table.warpgroup_arch:
        return f"it is for sm_{table.warpgroup_arch} alone, and this is sm_{target.arch}"
    nbytes = cut.shared_nbytes(form)
    return f"it needs {-(-nbytes >> 10)} KiB of shared memory" if nbytes > target.shared_nbytes else ""


def _estimate(form: Form, cut: Cut, leaving: Leaving | None) -> Estimate:
    """As of the form, with the rows and keys that fill tiles up; bytes leave as such."""
    tiling = tiling_of(form)
    rows = form.group * form.queries / (-(-tiling.tiles // cut.groups) * cut.groups * ROWS)
    keys = form.keys / (-(-form.keys // cut.keys) * cut.keys)
    plain = form.estimate()
    made = form.batch * form.heads * form.queries * form.v_size
    spared = 0 if leaving is None else made * (element_nbytes(form.dtype) - element_nbytes(leaving.dtype))
    return Estimate(int(plain.flops / (rows * keys)), plain.nbytes - spared)
