"""Rotated heads and attention: queries, keys or both are turned by the kernel that multiplies them."""

from collections.abc import Mapping

from miniinfer_cli.backends.cuda.contract.join import Join, joins, label_of
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import K, Q, read_form
from miniinfer_cli.backends.cuda.tactics.attention.attention_heuristic import ATTENTION
from miniinfer_cli.backends.cuda.tactics.attention.attention_sm90 import tiling_of
from miniinfer_cli.backends.cuda.tactics.attention.rotary_attention import rotary_tactics
from miniinfer_cli.backends.reference import static_tensor
from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ir.parts import reading
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import Types
from miniinfer_cli.ops.rotary_attention import FIRST_ANGLES, ROTARY

KEY = "rotary_attention"
_HEADS = "q_num_heads", "kv_num_heads"


@joins(KEY)
def find_rotary_attentions(graph: Graph, types: Types, target: Target) -> list[Join]:
    """Every attention that alone reads rotated queries or keys."""
    place = {node: number for number, node in enumerate(graph)}
    found: list[Join] = []
    for node in graph:
        if node.is_op("Attention") and len(node.outputs) == 1:
            turning = {side: turns for side in (Q, K) if (turns := _turns(graph, node, side)) is not None}
            attrs = [tuple(_form(turns, types)) for turns in turning.values()]
            if turning and len(set(attrs)) == 1:
                nodes = (*sorted(turning.values(), key=place.__getitem__), node)
                join = _join(nodes, turning, types, target)
                found += [join] if join is not None else []
    return found


def _turns(graph: Graph, node: Node, side: int) -> Node | None:
    """The rotation that makes an operand of attention, and of nothing else."""
    value = node.inputs[side]
    made = None if value is None else value.producer
    if value is None or made is None or not made.is_op("RotaryEmbedding"):
        return None
    if graph.is_output(value) or set(value.users) != {node} or node.inputs.count(value) > 1:
        return None
    heads = node.attrs.get(_HEADS[side], 0)
    return made if made.attrs.get("num_heads", 0) in (0, heads) else None


def _form(turns: Node, types: Types) -> list[object]:
    """What is to be alike on both sides."""
    cosines = turns.inputs[1]
    kind = None if cosines is None else static_tensor(types.get(cosines, cosines.type))
    return [turns.attrs.get(name, 0) for name in ROTARY] + [None if kind is None else kind.dtype]


def _join(nodes: tuple[Node, ...], turning: Mapping[int, Node], types: Types, target: Target) -> Join | None:
    """None where the kernel does not take the sizes."""
    attention, turns = nodes[-1], next(iter(turning.values()))
    graph = Graph(KEY)
    inner: dict[Value | None, Value | None] = {None: None}
    for value in reading(nodes):
        inner[value] = graph.add_input(value.name, types.get(value, value.type))
    operands: list[Value | None] = [*attention.inputs, *(None,) * FIRST_ANGLES][:FIRST_ANGLES]
    angles: list[Value | None] = []
    for side in (Q, K):
        operands[side], *read = turning[side].inputs if side in turning else (operands[side],)
        angles += [*read, None, None, None][:3]
    y = graph.new_value(attention.output.name, types[attention.output])
    attrs = {**attention.attrs, **{name: turns.attrs[name] for name in ROTARY if name in turns.attrs}}
    read = [inner[value] for value in (*operands, *angles)]
    node = graph.add_node("RotaryAttention", read, [y], domain=OURS, name=label_of(nodes), attrs=attrs)
    graph.set_outputs([y])
    kinds = tuple(None if v is None else v.type for v in read)
    if any(kind is not None and static_tensor(kind) is None for kind in kinds):
        return None
    site = Site(node, kinds, (y.type,), (None,) * len(kinds), target)
    listed = rotary_tactics(site)
    if not listed:
        return None
    gain_us = _gain_us(site, target) if len(turning) == 2 else 0.0
    return Join(KEY, nodes, graph, listed[0].estimate, gain_us, listed[0].needs)


def _gain_us(site: Site, target: Target) -> float:
    form = read_form(site)
    assert form is not None
    tiles = form.batch * form.kv_heads * tiling_of(form).tiles
    return ATTENTION.turned_us if form.keys <= ATTENTION.turned_keys and tiles <= target.multiprocessors else 0.0
