"""A token's heads turned, written into a cache, and attention over that: in two launches in the place of six."""

from collections.abc import Mapping

from miniinfer_cli.backends.cuda.contract.join import Join, joins, label_of
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.attention.attention_heuristic import ATTENTION
from miniinfer_cli.backends.cuda.tactics.attention.cached_attention import KEY as PARTS
from miniinfer_cli.backends.cuda.tactics.attention.cached_attention import cached_tactics
from miniinfer_cli.backends.reference import static_tensor
from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ir.parts import leaving, reading
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.cached_attention import ATTENDING
from miniinfer_cli.ops.inference import Types

KEY = "cached_attention"


@joins(KEY)
def find_cached_attentions(graph: Graph, types: Types, target: Target) -> list[Join]:
    """Every causal attention over a cache whose new keys, and its queries, are turned for it alone."""
    place = {node: number for number, node in enumerate(graph)}
    found: list[Join] = []
    for node in graph:
        parts = _parts(graph, node) if node.is_op("Attention") else None
        join = None if parts is None else _join(graph, parts, place, types, target)
        found += [join] if join is not None else []
    return found


def _parts(graph: Graph, node: Node) -> tuple[Node, Node, Node, Node, Node] | None:
    """The rotations of queries and keys, the writing of keys and values, and the attention; None where it is another one."""
    operands = [*node.inputs, *(None,) * 7][:7]
    q, keys, values, mask, past_key, past_value, held = operands
    attrs = node.attrs
    plain = mask is None and past_key is None and past_value is None and held is not None and len(node.outputs) == 1
    if not plain or attrs.get("is_causal", 0) != 1 or attrs.get("right_window_size", -1) >= 0 or attrs.get("softmax_precision"):
        return None
    writes = [None if v is None else v.producer for v in (keys, values)]
    if any(w is None or not _writes_rows(w) for w in writes) or writes[0] is writes[1]:
        return None
    key_write, value_write = writes
    assert key_write is not None and value_write is not None and q is not None
    turns = [q.producer, None if key_write.inputs[1] is None else key_write.inputs[1].producer]
    readers = (node, key_write)
    if any(t is None or not t.is_op("RotaryEmbedding") for t in turns) or key_write.inputs[2] is not value_write.inputs[2]:
        return None
    q_turn, k_turn = turns
    assert q_turn is not None and k_turn is not None
    alone = all(
        set(t.output.users) == {r} and not graph.is_output(t.output) for t, r in zip((q_turn, k_turn), readers, strict=True)
    )
    if not alone or q_turn.inputs[1:] != k_turn.inputs[1:] or any(_turning(t) != _turning(q_turn) for t in (k_turn,)):
        return None
    return q_turn, k_turn, key_write, value_write, node


def _writes_rows(node: Node) -> bool:
    if not node.is_op("TensorScatter") or node.attrs.get("mode", "linear") != "linear" or len(node.inputs) < 3:
        return False
    return node.inputs[2] is not None and node.attrs.get("axis", -2) in (2, -2)


def _turning(node: Node) -> tuple[object, ...]:
    return tuple(node.attrs.get(name, 0) for name in ("interleaved", "rotary_embedding_dim"))


def _join(
    graph: Graph, parts: tuple[Node, Node, Node, Node, Node], place: Mapping[Node, int], types: Types, target: Target
) -> Join | None:
    """None where the kernel does not take the sizes."""
    q_turn, k_turn, key_write, value_write, attention = parts
    nodes = (*sorted(parts[:-1], key=place.__getitem__), attention)
    if any(t.attrs.get("rotary_embedding_dim", 0) or t.attrs.get("num_heads", 0) for t in (q_turn, k_turn)):
        return None
    inner_graph = Graph(KEY)
    inner: dict[Value | None, Value | None] = {None: None}
    for value in reading(nodes):
        inner[value] = inner_graph.add_input(value.name, types.get(value, value.type))
    held = attention.inputs[6]
    angles = [*q_turn.inputs[1:], None][:3]
    read = [q_turn.inputs[0], k_turn.inputs[0], value_write.inputs[1], key_write.inputs[0], value_write.inputs[0]]
    operands = [inner[v] for v in (*read, key_write.inputs[2], held, *angles)]
    kinds = tuple(None if v is None else v.type for v in operands)
    if any(kind is not None and static_tensor(kind) is None for kind in kinds) or any(
        len(_sizes(kinds[i])) != 4 for i in range(5)
    ):
        return None
    made = {v: inner_graph.new_value(v.name, types[v]) for v in (attention.output, key_write.output, value_write.output)}
    attrs = {name: attention.attrs[name] for name in ATTENDING if name in attention.attrs}
    attrs |= {"interleaved": q_turn.attrs.get("interleaved", 0)}
    outputs = [made[attention.output], made[key_write.output], made[value_write.output]]
    node = inner_graph.add_node("CachedAttention", operands, outputs, domain=OURS, name=label_of(nodes), attrs=attrs)
    ends = leaving(graph, nodes)
    if not set(ends) <= made.keys():
        return None
    inner_graph.set_outputs([made[v] for v in ends])
    site = Site(node, kinds, tuple(v.type for v in outputs), (None,) * len(kinds), target)
    anywhere = next((t for t in cached_tactics(site) if t.key == PARTS), None)
    return None if anywhere is None else Join(KEY, nodes, inner_graph, anywhere.estimate, ATTENTION.cached_us, anywhere.needs)


def _sizes(kind: object) -> tuple[int, ...]:
    return tuple(getattr(kind, "shape", None) or ())
