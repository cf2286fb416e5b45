"""QuantizedAttention: attention whose results leave as bytes, by the kernel for sm_90a; elsewhere the nodes of its body do it.

Results are rounded once, from the sums, where the body rounds them to floats of 16 bits first: so a byte may be one step off.
"""

from dataclasses import replace

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.viewing import reads_strided
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import Form, read_form, reads_heads
from miniinfer_cli.backends.cuda.tactics.attention.attention_sm90 import Leaving
from miniinfer_cli.backends.cuda.tactics.attention.attention_warpgroups import warpgroup_tactics
from miniinfer_cli.backends.cuda.tactics.convolution.integer_regions import numbers_of
from miniinfer_cli.ir import TensorType
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import infer_graph

reads_strided("QuantizedAttention", domain=OURS)(reads_heads)


@lowers("QuantizedAttention", domain=OURS)
def lower_quantized_attention(site: Site) -> tuple[Tactic, ...] | None:
    """In several cuts; None where the kernel does not reach."""
    return quantized_tactics(site) or None


def quantized_tactics(site: Site) -> tuple[Tactic, ...]:
    """What the site is offered; nothing where the kernel does not reach.

    The body is Attention of all inputs in their order, then Casts, and what quantizes by one scale.
    """
    form, leaving = form_within(site), _leaving(site)
    if form is None or leaving is None or form.batch * form.heads * form.queries * form.keys * form.v_size == 0:
        return ()
    return warpgroup_tactics(form, Operand.output(0), site.target, leaving=leaving)


def form_within(site: Site) -> Form | None:
    """The form of the attention that the body begins with; None for another body."""
    body = site.node.body
    assert body is not None
    first, *others = body.nodes
    if not first.is_op("Attention") or list(first.inputs) != list(body.inputs) or len(first.outputs) != 1:
        return None
    value = first.output
    for node in others:
        if node.inputs[0] is not value or not node.is_op("Cast" if node is not others[-1] else "QuantizeLinear"):
            return None
        value = node.output
    made = infer_graph(body, site.types)[first.output]
    return read_form(replace(site, node=first, results=(made,))) if isinstance(made, TensorType) else None


def _leaving(site: Site) -> Leaving | None:
    """By which numbers results become bytes."""
    body = site.node.body
    assert body is not None
    last = body.nodes[-1]
    numbers = numbers_of(site, last) if last.is_op("QuantizeLinear") else None
    if numbers is None or any(last.attrs.get(name) for name in ("precision", "block_size")) or not last.attrs.get("saturate", 1):
        return None
    low, high = numbers.ends
    return Leaving(numbers.dtype, 1.0 / numbers.scale, numbers.zero, low - numbers.zero, high - numbers.zero)
