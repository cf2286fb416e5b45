"""The tactics of attention: our kernels of one pass, the library, steps with the scores in memory, in the heuristic's order."""

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.steps import Fill, Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import Form
from miniinfer_cli.backends.cuda.tactics.attention.attention_fused import fused_tactics, has_favourite
from miniinfer_cli.backends.cuda.tactics.attention.attention_heuristic import ATTENTION, AttentionHeuristic
from miniinfer_cli.backends.cuda.tactics.attention.attention_library import CUDNN, library_tactics
from miniinfer_cli.backends.cuda.tactics.attention.attention_sm90 import tiling_of
from miniinfer_cli.backends.cuda.tactics.attention.attention_steps import Kept, step_tactics
from miniinfer_cli.backends.cuda.tactics.attention.attention_warpgroups import warpgroup_tactics
from miniinfer_cli.backends.cuda.tactics.products.products import NOTHING

NOTHING_SEEN = "nothing seen"
"""The key of the tactic where there are no keys, so that all results are zeros."""


def attention_tactics(
    form: Form,
    y: Operand,
    target: Target,
    *,
    kept: Kept | None = None,
    first_scratch: int = 0,
    table: AttentionHeuristic = ATTENTION,
) -> tuple[Tactic, ...]:
    """Y and, if wanted, the scores of a stage, the heuristic's favourite first; none where no kernel takes the types.

    Scratch buffers that are taken already are those below ``first_scratch``.
    """
    rows = form.batch * form.heads * form.queries
    if rows == 0 or (form.v_size == 0 and (kept is None or form.keys == 0)):
        return (Tactic(NOTHING, lambda work: None, Estimate(0, 0)),)
    if form.keys == 0:
        nbytes = rows * form.v_size * element_nbytes(form.dtype)
        return (Tactic(NOTHING_SEEN, lambda work: work.add(Fill(y, 0, nbytes)), Estimate(0, nbytes)),)
    steps = step_tactics(form, y, target, first_scratch, kept)
    if kept is not None:
        return steps
    library, fused = library_tactics(form, y, target), fused_tactics(form, y, target, table)
    ours = (*fused, *steps) if has_favourite(form, target, table) else (*steps, *fused)
    warpgroups = warpgroup_tactics(form, y, target, table)
    # By lengths ours ends where the keys do; cuDNN goes through the whole cache, behind a mask that is made for it.
    pays = not form.nonpad and (form.keys >= table.mask_pays or any(t.key == CUDNN for t in library))
    first = warpgroups[:1] if _warpgroups_pay(form, target, table) else ()
    others = (*library, *ours) if pays else (*ours, *library)
    return (*first, *others, *warpgroups[len(first) :])


def _warpgroups_pay(form: Form, target: Target, table: AttentionHeuristic) -> bool:
    """Whether our kernel of whole warpgroups is the favourite; but for many short heads of halves, unmasked, by cuDNN."""
    tiles = form.batch * form.kv_heads * tiling_of(form).tiles
    many = (
        form.dtype.is_half
        and not form.may_be_empty
        and form.keys <= table.library_keys
        and tiles >= table.library_tiles * target.multiprocessors
    )
    return form.group * form.queries >= table.warpgroup_rows and form.keys <= table.warpgroup_keys and not many
