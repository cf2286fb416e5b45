"""Attention: past and fresh keys joined, then the family's tactics (``tactics/attention/attention_tactics.py``)."""

from dataclasses import replace

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import PAST_KEY, PAST_VALUE, read_form
from miniinfer_cli.backends.cuda.tactics.attention.attention_past import join_past
from miniinfer_cli.backends.cuda.tactics.attention.attention_steps import Kept
from miniinfer_cli.backends.cuda.tactics.attention.attention_tactics import attention_tactics

_Y, _PRESENT_KEY, _PRESENT_VALUE, _KEPT = range(4)


@lowers("Attention")
def lower_attention(site: Site) -> tuple[Tactic, ...] | None:
    """Past and fresh keys are first joined, in the present outputs where there are any."""
    form = read_form(site)
    if form is None:
        return None
    scratch: list[int] = []
    joined: list[Operand | None] = []
    moved = 0
    for past, present, size in ((PAST_KEY, _PRESENT_KEY, form.size), (PAST_VALUE, _PRESENT_VALUE, form.v_size)):
        nbytes = form.batch * form.kv_heads * form.keys * size * element_nbytes(form.dtype)
        if site.gives(present):
            joined.append(Operand.output(present))
        elif site.has(past):
            joined.append(Operand.scratch(len(scratch)))
            scratch.append(nbytes)
        else:
            joined.append(None)
        moved += 2 * nbytes if joined[-1] is not None else 0
    launches, form = join_past(form, (joined[0], joined[1]), site.target)
    kept = Kept(Operand.output(_KEPT), site.attr("qk_matmul_output_mode", 0)) if site.gives(_KEPT) else None

    def behind_the_past(tactic: Tactic) -> Tactic:
        def emit(work: Work) -> None:
            for nbytes in scratch:
                work.scratch(nbytes)
            work.add(*launches)
            tactic.emit(work)

        return replace(tactic, emit=emit, estimate=tactic.estimate + Estimate(0, moved))

    listed = attention_tactics(form, Operand.output(_Y), site.target, kept=kept, first_scratch=len(scratch))
    return tuple(map(behind_the_past, listed)) if launches or scratch else listed
