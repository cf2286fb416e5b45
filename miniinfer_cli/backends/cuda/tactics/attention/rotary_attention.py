"""RotaryAttention: heads are turned in shared memory, by the kernel for sm_90a; elsewhere other operations do the work."""

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.strides import broadcast_strides
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.viewing import reads_strided
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import PAST_KEY, read_form, reads_heads
from miniinfer_cli.backends.cuda.tactics.attention.attention_sm90 import Angles, Rotary
from miniinfer_cli.backends.cuda.tactics.attention.attention_warpgroups import warpgroup_tactics
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.rotary_attention import FIRST_ANGLES

reads_strided("RotaryAttention", domain=OURS)(reads_heads)


@lowers("RotaryAttention", domain=OURS)
def lower_rotary_attention(site: Site) -> tuple[Tactic, ...] | None:
    """In several cuts; None where the kernel cannot turn heads, or not so."""
    return rotary_tactics(site) or None


def rotary_tactics(site: Site) -> tuple[Tactic, ...]:
    """What the site is offered; nothing where the kernel does not reach."""
    form = read_form(site)
    if form is None or site.has(PAST_KEY) or site.gives(1):
        return ()
    if form.batch * form.heads * form.queries * form.keys * form.v_size == 0:
        return ()
    sides = [_angles(site, FIRST_ANGLES + 3 * side) for side in range(2)]
    caches = {site.dtype(FIRST_ANGLES + 3 * side + n) for side in range(2) for n in range(2) if sides[side] is not None}
    if len(caches) != 1:
        return ()
    turned = site.attr("rotary_embedding_dim", 0) or form.size
    rotary = Rotary(turned, bool(site.attr("interleaved", 0)), caches.pop(), *sides)
    return warpgroup_tactics(form, Operand.output(0), site.target, rotary=rotary)


def _angles(site: Site, first: int) -> Angles | None:
    """Those of a side, whose cosines are the input of this number."""
    if not site.has(first):
        return None
    cosines, sines, ids = (Operand.input(first + n) for n in range(3))
    picked = site.has(first + 2)
    places = site.shape(first + 2) if picked else site.shape(first)[:2]
    of_batch, of_place = broadcast_strides(places, places)
    rows = site.shape(first)[0] if picked else 0
    return Angles(cosines, sines, ids if picked else None, rows, of_batch, of_place)
