"""Moves Transposes and Reshapes of leading axes past row-wise operations, where fewer are left then.

    Reshape [b,s,k] -> [b*s,k], MatMul, Add, Reshape -> [b,s,n]                  MatMul, Add on [b,s,...]
    Transpose [b,s,k] -> [s,b,k], MatMul, Reshape, Transpose -> [b,h,s,n]        MatMul, Reshape, Transpose

Exporters write fully connected layers of sequences like the first, and multi-head attention like the second. Without the
detour the layer fuses with the residual Add and the activation behind it, and what is recognised by its shape is recognised.
"""

import re
from dataclasses import dataclass

from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops import insert_many
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.passes.movement import Movement, chain_above, is_movement, is_writable, movement_of, write
from miniinfer_cli.passes.operands import dims, sole_user

_ROW_WISE = ("LayerNormalization", "RMSNormalization", "Softmax", "LogSoftmax")


def sink_movements(graph: Graph) -> int:
    """Gives the number of runs of row-wise operations that are done on another arrangement of the rows."""
    count = 0
    for node in graph.nodes:
        if node in graph:
            rows = next((v for v in node.inputs if v is not None and is_movement(v.producer) and _works_on_rows(node, v)), None)
            count += rows is not None and _sink(graph, node, rows)
    return count


@dataclass(frozen=True, slots=True)
class _Branch:
    """One result of the row-wise operations and the movements behind it."""

    value: Value
    chain: list[Node]

    @property
    def end(self) -> Value:
        """What comes out in the end."""
        return self.chain[-1].output if self.chain else self.value


def _sink(graph: Graph, first: Node, rows: Value) -> bool:
    above = chain_above(graph, rows)
    movement, x = movement_of(above), above[0].inputs[0]
    if movement is None or x is None:
        return False
    run = _row_wise_run(graph, first)
    if not any(node.is_op("MatMul") for node in run):
        return False  # nothing is gained for the rest alone, and recognisers know it where exporters put it
    branches = [_Branch(v, _chain_below(graph, v)) for v in run[-1].outputs]
    rearranged = _leading_axes_in_order(movement)
    behind = [_behind(movement, rearranged, branch) for branch in branches]
    movements = [rearranged, *(m for m in behind if m is not None)]
    written = [m.moves() for m in movements]
    if len(written) <= len(branches) or not all(map(is_writable, movements, written)):
        return False
    # What others read as well stays; it goes when the last of them is done otherwise too.
    shared = sole_user(graph, rows) is not first
    nodes = [*(() if shared else above), *(n for branch in branches for n in branch.chain)]
    moved = (not _splits_heads(m) and p.cost[0] for m, p in zip(movements, written, strict=True))
    cost = (sum(moved), sum(p.cost[1] for p in written))
    moving = [n for branch in branches if not _splits_heads(movement_of(branch.chain)) for n in branch.chain]
    old_cost = (sum(n.op == "Transpose" for n in (*(() if shared else above), *moving)), len(nodes))
    if cost > old_cost or (cost == old_cost and not shared):
        return False
    made = _repeat(graph, run, rows, write(graph, x, written[0], before=first, out=f"{rows.name}_rows"))
    # The values of the end stand where the last of the operations stood: readers come later.
    ends = [write(graph, y, p, before=run[-1], out=b.end.name) for y, p, b in zip(made, written[1:], branches, strict=True)]
    _replace(graph, run if shared else [*above, *run], branches, ends)
    return True


def _leading_axes_in_order(movement: Movement) -> Movement:
    """The same rows, their leading axes as they stand in the source. One of size 1 stays, for the source has it."""
    row = movement.axes[-1]
    other = movement.copy()
    other.axes = [[a for a in axis if a not in row] for axis in movement.source if not axis or not set(axis) <= set(row)]
    other.axes.append(list(row))
    return other


def _behind(movement: Movement, rearranged: Movement, branch: _Branch) -> Movement | None:
    """From the result on rearranged rows to the end of the branch."""
    width = (dims(branch.value) or (1,))[-1]
    behind = movement.copy()
    column = behind.add_atom(width)
    behind.shape = (*rearranged.target[:-1], width)
    behind.source = [*(list(axis) for axis in rearranged.axes[:-1]), list(column)]
    behind.axes = [*(list(axis) for axis in movement.axes[:-1]), list(column)]
    return behind if all(behind.apply(node) for node in branch.chain) else None


def _splits_heads(movement: Movement | None) -> bool:
    """Whether it does no more than to split heads off the last axis and to put them in front of some rows: ``[b,s,h*d]`` to
    ``[b,h,s,d]``. Attention reads such heads where they lie, so these Transposes cost nothing.
    """
    if movement is None or not movement.source:
        return False
    row_atoms = [a for axis in movement.source[:-1] for a in axis]
    order = [a for axis in movement.axes for a in axis]
    kinds = "".join("r" if a in row_atoms else "c" for a in order)
    in_order = [a for a in order if a in row_atoms] == row_atoms
    in_order = in_order and [a for a in order if a not in row_atoms] == list(movement.source[-1])
    return in_order and re.fullmatch("r*c+r+c+", kinds) is not None


def _repeat(graph: Graph, run: list[Node], rows: Value, y: Value) -> tuple[Value, ...]:
    """The operations of ``run`` once more, on ``y`` in place of ``rows``."""
    made: tuple[Value, ...] = (y,)
    for node in run:
        attrs = dict(node.attrs) | ({"axis": -1} if "axis" in node.attrs or node.op == "Split" else {})
        inputs = [made[0] if v is rows else v for v in node.inputs]
        name = f"{node.outputs[0].name}_rows"
        made = insert_many(
            graph, node.op, *inputs, n_outputs=len(node.outputs), before=node, out=name, domain=node.domain, **attrs
        )
        if made[0].producer is not None:
            graph.rename_node(made[0].producer, node.name)
        rows = node.outputs[0]
    return made


def _replace(graph: Graph, nodes: list[Node], branches: list[_Branch], ends: list[Value]) -> None:
    for branch, end in zip(branches, ends, strict=True):
        graph.replace_uses(branch.end, end)
        for node in reversed(branch.chain):
            graph.remove(node)
    for node in reversed(nodes):
        graph.remove(node)


def _row_wise_run(graph: Graph, first: Node) -> list[Node]:
    """``first`` and the row-wise operations behind it, each alone in reading the one before. A Split can only be the last."""
    run = [first]
    while len(run[-1].outputs) == 1:
        value = run[-1].output
        node = sole_user(graph, value)
        if node is None or not _works_on_rows(node, value):
            break
        run.append(node)
    return run


def _chain_below(graph: Graph, value: Value) -> list[Node]:
    chain: list[Node] = []
    node = sole_user(graph, value)
    while node is not None and is_movement(node):
        chain.append(node)
        node = sole_user(graph, node.output)
    return chain


def _works_on_rows(node: Node, rows: Value) -> bool:
    """True when each row of the result of ``node`` depends on the same row of ``rows`` and on nothing else that has rows."""
    shape = dims(rows)
    if not shape or list(node.inputs).count(rows) != 1:
        return False
    if node.is_op("Split"):
        return node.inputs[0] is rows and node.attrs.get("axis", 0) % len(shape) == len(shape) - 1 > 0
    if len(node.outputs) != 1:
        return False
    others = [v for v in node.inputs if v is not None and v is not rows]
    if node.is_op("MatMul"):
        return node.inputs[0] is rows and len(shape) > 1 and len(dims(node.inputs[1]) or ()) == 2
    if node.is_op(*_ROW_WISE):
        return node.inputs[0] is rows and node.attrs.get("axis", -1) in (-1, len(shape) - 1)
    return is_pointwise(node) and dims(node.output) == shape and all(len(dims(v) or (1, 1)) <= 1 for v in others)
