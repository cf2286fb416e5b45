"""Attention and what rounds its results to 8 bits: the kernel that makes them writes bytes, and nothing runs between."""

from collections.abc import Sequence

from miniinfer_cli.backends.cuda.contract.estimating import nbytes
from miniinfer_cli.backends.cuda.contract.join import Join, joins, label_of
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.attention.attention_heuristic import ATTENTION, AttentionHeuristic
from miniinfer_cli.backends.cuda.tactics.attention.quantized_attention import form_within, quantized_tactics
from miniinfer_cli.backends.reference import static_tensor
from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ir.parts import copy_node, is_literal, reading
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import Types

KEY = "quantized_attention"
REGION = "QuantizedAttention"


@joins(KEY)
def find_quantized_attentions(graph: Graph, types: Types, target: Target) -> list[Join]:
    """Every attention whose results nothing reads but what quantizes them."""
    found = (_join((node, node.output.users[0]), types, target) for node in graph if _leaves_bytes(graph, node))
    return [join for join in found if join is not None]


def _leaves_bytes(graph: Graph, node: Node) -> bool:
    if not node.is_op("Attention") or len(node.outputs) != 1 or graph.is_output(node.output) or len(node.output.users) != 1:
        return False
    (reader,) = node.output.users
    steps = [reader] if reader.body is None else reader.body.nodes
    return len(reader.outputs) == 1 and steps[-1].is_op("QuantizeLinear")


def _join(nodes: Sequence[Node], types: Types, target: Target) -> Join | None:
    """None where the kernel does not take the sizes, or the body."""
    attention, reader = nodes
    joined, body = Graph(KEY), Graph(REGION)
    literals = {v for v in reader.inputs if v is not None and is_literal(v)}
    read = [v for v in reading(nodes) if v not in literals]
    kinds = tuple(types.get(v, v.type) for v in read)
    if read != list(attention.inputs) or any(static_tensor(kind) is None for kind in kinds):
        return None
    inner: dict[Value, Value] = {v: body.add_input(v.name, kind) for v, kind in zip(read, kinds, strict=True)}
    inner |= {v: body.add_constant(v.constant, v.name) for v in literals if v.constant is not None}
    copy_node(body, attention, inner)
    if reader.body is None:
        copy_node(body, reader, inner)
    else:
        given = [None if v is None else inner[v] for v in reader.inputs]
        inner.update(zip(reader.outputs, body.inline(reader.body, given), strict=True))
    body.set_outputs([inner[reader.output]])
    given_by = {v: joined.add_input(v.name, types.get(v, v.type)) for v in reading(nodes)}
    result = joined.new_value(reader.output.name, types[reader.output])
    node = joined.add_node(REGION, [given_by[v] for v in read], [result], domain=OURS, name=label_of(nodes), body=body)
    joined.set_outputs([result])
    site = Site(node, kinds, (result.type,), tuple(v.constant for v in read), target)
    listed = quantized_tactics(site)
    if not listed:
        return None
    saved = 2 * nbytes(types[attention.output])
    return Join(KEY, tuple(nodes), joined, listed[0].estimate, _gain_us(site, saved), listed[0].needs)


def _gain_us(site: Site, saved_nbytes: int, table: AttentionHeuristic = ATTENTION) -> float:
    """A launch, and what passes between; nothing where another way of attention is the favourite."""
    form = form_within(site)
    assert form is not None
    if form.group * form.queries < table.warpgroup_rows or form.keys > table.warpgroup_keys:
        return 0.0
    return table.joined_step_us + saved_nbytes / table.joined_nbytes_per_us
