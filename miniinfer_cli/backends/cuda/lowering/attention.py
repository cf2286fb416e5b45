"""Attention: by the library, by our kernel of one pass, or in steps with the scores in memory."""

from miniinfer_cli.backends.cuda.launching.attention_form import PAST_KEY, PAST_VALUE, Form, read_form
from miniinfer_cli.backends.cuda.launching.attention_fused import attend_fused
from miniinfer_cli.backends.cuda.launching.attention_library import attend_by_library
from miniinfer_cli.backends.cuda.launching.attention_past import join_past
from miniinfer_cli.backends.cuda.launching.attention_steps import attend_in_steps
from miniinfer_cli.backends.cuda.launching.product_records import Solution
from miniinfer_cli.backends.cuda.site import Site, lowers
from miniinfer_cli.backends.cuda.steps import Fill, Lowered, Operand
from miniinfer_cli.backends.cuda.target import Target
from miniinfer_cli.backends.cuda.types import element_nbytes

_Y, _PRESENT_KEY, _PRESENT_VALUE, _KEPT = range(4)


@lowers("Attention")
def lower_attention(site: Site) -> Lowered | None:
    """Past and fresh keys are first joined, in the present outputs where there are any."""
    form = read_form(site)
    if form is None:
        return None
    scratch: list[int] = []
    joined: list[Operand | None] = []
    for past, present, size in ((PAST_KEY, _PRESENT_KEY, form.size), (PAST_VALUE, _PRESENT_VALUE, form.v_size)):
        if site.gives(present):
            joined.append(Operand.output(present))
        elif site.has(past):
            joined.append(Operand.scratch(len(scratch)))
            scratch.append(form.batch * form.kv_heads * form.keys * size * element_nbytes(form.dtype))
        else:
            joined.append(None)
    launches, form = join_past(form, (joined[0], joined[1]), site.target)
    kept = Operand.output(_KEPT) if site.gives(_KEPT) else None
    solution = attend(form, Operand.output(_Y), site.target, len(scratch), kept, site.attr("qk_matmul_output_mode", 0))
    if solution is None:
        return None
    return Lowered((*launches, *solution.actions), (*scratch, *solution.scratch), tactic=solution.tactic)


def attend(form: Form, y: Operand, target: Target, scratch: int, kept: Operand | None = None, mode: int = 0) -> Solution | None:
    """Y and, if wanted, the scores of stage ``mode`` in ``kept``; scratch buffers are numbered from ``scratch``."""
    rows = form.batch * form.heads * form.queries
    if rows == 0 or (form.v_size == 0 and (kept is None or form.keys == 0)):
        return Solution((), (), "nothing")
    if form.keys == 0:
        return Solution((Fill(y, 0, rows * form.v_size * element_nbytes(form.dtype)),), (), "nothing seen")
    if kept is None:
        for way in (attend_by_library, attend_fused):
            solution = way(form, y, target, scratch)
            if solution is not None:
                return solution
    return attend_in_steps(form, y, kept, mode, target, scratch)
