"""Where fusion stopped: elementwise work that stands by itself beside what could have taken it along, and what is between."""

from collections.abc import Iterator
from dataclasses import dataclass

from miniinfer_cli.diagnosis.heavy import Types, elements, nbytes
from miniinfer_cli.ir import Dim, Graph, Node, Value
from miniinfer_cli.ops import find
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.passes.epilogues import LONGEST
from miniinfer_cli.passes.fuse_pointwise import MOST_INPUTS, MOST_NODES, MOST_OUTPUTS
from miniinfer_cli.passes.operands import dims


@dataclass(frozen=True, slots=True)
class Blocked:
    """``reader``, elementwise, could be computed with ``producer``, were it not for ``blocker``, a node or an output.

    ``why`` tells it in words; ``nbytes``: written and read again between the two, an inference. ``output``: the blocker is an
    output of the graph, which may be left out; ``sizes``: it is sizes that are open.
    """

    producer: Node
    reader: Node
    blocker: str
    why: str
    nbytes: int
    output: bool = False
    sizes: bool = False


def blocked_fusions(graph: Graph, types: Types) -> Iterator[Blocked]:
    """Every elementwise node or region that stands behind a product, a convolution or another one, and is not fused with it.

    What cannot be otherwise is left out: where another reader's result comes back into the elementwise work.
    """
    names = {id(v): n for v, n in zip(graph.outputs, graph.output_names, strict=True)}
    for producer in graph:
        if len(producer.outputs) != 1 or not (_is_anchor(producer) or _is_elementwise(producer)):
            continue
        value = producer.output
        for reader in value.users:
            if _is_elementwise(reader):
                yield from _beside(graph, types, producer, reader, names)
            elif _moves(reader, types) and len(value.users) == 1 and not graph.is_output(value):
                yield from _behind_movement(types, producer, reader)


def _beside(graph: Graph, types: Types, producer: Node, reader: Node, names: dict[int, str]) -> Iterator[Blocked]:
    value = producer.output
    moved = 2 * nbytes(types.get(value, value.type))
    others = [u for u in value.users if u is not reader]
    shape, result = dims(value), dims(reader.outputs[0])
    if shape is None or result is None or (shape != result and not _is_broadcast(shape, result)):
        why = f"sizes of {value.name} ({_shown(value)}) are not known to be those of {reader.outputs[0].name}"
        yield Blocked(producer, reader, producer.name, why, moved, sizes=True)
        return
    if shape != result:
        return  # another kernel of more elements
    if _is_elementwise(producer):
        count = _count(producer) + _count(reader)
        if count > MOST_NODES:
            yield Blocked(producer, reader, reader.name, f"a region holds {MOST_NODES} operations, they have {count}", moved)
        elif len({v for n in (producer, reader) for v in n.inputs}) - 1 > MOST_INPUTS:
            yield Blocked(producer, reader, reader.name, f"a region reads {MOST_INPUTS} values, they read more", moved)
        elif len(producer.outputs) + len(reader.outputs) > MOST_OUTPUTS:
            yield Blocked(producer, reader, reader.name, f"a region has {MOST_OUTPUTS} outputs, they have more", moved)
        return
    if id(value) in names:
        yield Blocked(producer, reader, names[id(value)], f"{value.name} is an output of the model", moved, output=True)
    elif others:
        back = [o for o in others if _reaches(o, reader)]
        given = [_given_by(o, types, names) for o in others]
        if not back and all(given):
            told = f"{given[0]} is an output of the model"
            yield from (Blocked(producer, reader, name, told, moved // len(given), output=True) for name in given)
        elif not back:
            told = ", ".join(f"{o.op} {o.name!r}" for o in others[:3])
            yield Blocked(producer, reader, others[0].name, f"{told} reads {value.name}, too", moved)
    elif len(reader.outputs) > 1:
        yield Blocked(producer, reader, reader.name, "its inner results are read elsewhere, too", moved)
    elif _count(producer) + _count(reader) > LONGEST:
        why = f"an epilogue holds {LONGEST} operations, they have {_count(producer) + _count(reader)}"
        yield Blocked(producer, reader, reader.name, why, moved)


def _behind_movement(types: Types, producer: Node, movement: Node) -> Iterator[Blocked]:
    value = movement.outputs[0]
    if len(value.users) == 1 and _is_elementwise(value.users[0]):
        reader = value.users[0]
        moved = 2 * nbytes(types.get(value, value.type))
        yield Blocked(producer, reader, movement.name, f"{movement.op} {movement.name!r} stands between them", moved)


def _given_by(node: Node, types: Types, names: dict[int, str]) -> str:
    """The output of the graph that the node gives to nobody else, where it only moves elements; empty where it does not."""
    is_last = _moves(node, types) and not node.outputs[0].users
    return names.get(id(node.outputs[0]), "") if is_last else ""


def _is_elementwise(node: Node) -> bool:
    """A pointwise operation, or a region of nothing else."""
    if node.body is not None:
        return all(is_pointwise(n) for n in node.body)
    return is_pointwise(node) and not node.graphs


def _is_broadcast(shape: tuple[Dim, ...], result: tuple[Dim, ...]) -> bool:
    """True when a value of ``shape`` is surely repeated to make one of ``result``."""
    return len(shape) < len(result) or any(d == 1 and isinstance(d, int) and e != 1 for d, e in zip(shape, result, strict=True))


def _is_anchor(node: Node) -> bool:
    """A convolution or product, or a region that begins with one."""
    first = next(iter(node.body), node) if node.body is not None else node
    opdef = find(first.domain, first.op)
    return opdef is not None and opdef.heavy and (first.is_op("MatMul", "Gemm") or "group" in opdef.attribute_names)


def _moves(node: Node, types: Types) -> bool:
    """It gives the elements of its first input, each once, in another order or shape."""
    opdef, first = find(node.domain, node.op), node.inputs[0] if node.inputs else None
    if opdef is None or not (opdef.view or opdef.moves) or len(node.outputs) != 1 or first is None:
        return False
    before, after = types.get(first, first.type), types.get(node.output, node.output.type)
    return opdef.view or elements(before) == elements(after) > 0


def _reaches(start: Node, end: Node) -> bool:
    """True when ``end`` depends on ``start``."""
    seen, stack = {start}, [start]
    while stack:
        node = stack.pop()
        if node is end:
            return True
        for user in (u for v in node.outputs for u in v.users):
            if user not in seen:
                seen.add(user)
                stack.append(user)
    return False


def _count(node: Node) -> int:
    return 1 if node.body is None else len(node.body)


def _shown(value: Value) -> str:
    return str(value.type or "?")
