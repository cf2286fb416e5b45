"""A chain of Transposes and views -> the shortest that does the same: one Transpose at most, none where no data moves.

Heads split off and merged again, patches of a vision transformer, the pooled end of a channels-last net: frameworks write
them step by step, and most of the steps undo each other.

Where an axis is put together and cut at other places (an image out of windows of 8 x 7, and into a grid of 7 x 8), it takes two
Transposes. What lies between them is then free to have its axes in any order: in the one that takes least, and, among these, that
leaves neighbours beside each other.
"""

import itertools
from collections.abc import Sequence

from miniinfer_cli.ir import Dim, Graph, Node
from miniinfer_cli.passes.movement import Axes, Movement, Moves, chain_above, is_movement, is_writable, movement_of, write
from miniinfer_cli.passes.operands import dims, sole_user
from miniinfer_cli.passes.reshape_targets import may_not_fit

_MOST_AXES = 5  # of what lies in between: 120 orders


def compose_movements(graph: Graph) -> int:
    """Gives the number of chains rewritten."""
    return sum(_rewrite(graph, node) for node in graph.nodes if node in graph and _ends_chain(graph, node))


def _ends_chain(graph: Graph, node: Node) -> bool:
    return is_movement(node) and not is_movement(sole_user(graph, node.output))


def _rewrite(graph: Graph, last: Node) -> bool:
    chain = chain_above(graph, last.output)
    movement = movement_of(chain)
    x = chain[0].inputs[0]
    if movement is None:
        return _rewrite_in_two(graph, chain)
    if x is None:
        return False
    moves = movement.moves()
    if moves.cost >= (sum(n.op == "Transpose" for n in chain), len(chain)) or not is_writable(movement, moves):
        return False
    graph.replace_node(last, [write(graph, x, moves, before=last, out=last.output.name)])
    for node in reversed(chain[:-1]):
        graph.remove(node)
    return True


# -- Two Transposes ----------------------------------------------------------------------------------------------------


def _rewrite_in_two(graph: Graph, chain: Sequence[Node]) -> bool:
    """Two parts of a chain, each of which is one movement, where there is a better value between them."""
    for (nodes, first), (others, second) in itertools.pairwise(_parts(chain)):
        both = [*nodes, *others]
        x, last = both[0].inputs[0], both[-1]
        found = _two_moves(first, second)
        if x is None or found is None or _cost(found) >= _cost_of(both):
            continue
        between = write(graph, x, found[0], before=last, out=f"{last.output.name}_between")
        graph.replace_node(last, [write(graph, between, found[1], before=last, out=last.output.name)])
        for node in reversed(both[:-1]):
            graph.remove(node)
        return True
    return False


def _parts(chain: Sequence[Node]) -> list[tuple[list[Node], Movement]]:
    """The chain in parts that are one movement each; none where a shape is not known.

    A view that cuts axes at other places than they were put together at begins a part with what it makes.
    """
    shapes = dims(chain[0].inputs[0]), *(dims(node.output) for node in chain)
    if any(shape is None or 0 in shape for shape in shapes) or any(map(may_not_fit, chain)):
        return []
    movement = Movement(shapes[0] or ())
    parts: list[tuple[list[Node], Movement]] = [([], movement)]
    for node, shape in zip(chain, shapes[1:], strict=True):
        longer = parts[-1][1].copy()
        if longer.apply(node):
            parts[-1] = ([*parts[-1][0], node], longer)
        elif node.op != "Transpose":
            parts.append(([node], Movement(shape or ())))
        else:
            return []
    return parts


def _two_moves(first: Movement, second: Movement) -> tuple[Moves, Moves] | None:
    """The best that do one movement and then the other, with any order of the axes in between that both leave whole."""
    groups = _common(first, [a for axis in first.axes for a in axis], second, [a for axis in second.source for a in axis])
    if groups is None or len(groups[0]) > _MOST_AXES:
        return None
    candidates = []
    for order in itertools.permutations(range(len(groups[0]))):
        before, behind = first.copy(), second.copy()
        before.axes = [groups[0][i] for i in order]
        behind.source = [groups[1][i] for i in order]
        behind.shape = tuple(behind.measure(axis) for axis in behind.source)
        moves = before.moves(), behind.moves()
        if all(is_writable(m, way) for m, way in zip((before, behind), moves, strict=True)):
            candidates.append(moves)
    return min(candidates, key=_cost, default=None)


def _common(first: Movement, left: Sequence[int], second: Movement, right: Sequence[int]) -> tuple[Axes, Axes] | None:
    """The atoms of both, in order, grouped to the smallest axes that both have; None where they do not meet."""
    groups: tuple[Axes, Axes] = [], []
    a, b = list(left), list(right)
    while a and b:
        one, other = [a.pop(0)], [b.pop(0)]
        sizes: list[Dim] = [first.measure(one), second.measure(other)]
        while sizes[0] != sizes[1]:
            if _is_less(sizes[0], sizes[1]) and a:
                one.append(a.pop(0))
            elif b:
                other.append(b.pop(0))
            else:
                return None
            sizes = [first.measure(one), second.measure(other)]
        groups[0].append(one)
        groups[1].append(other)
    return None if a or b else groups


def _is_less(x: Dim, y: Dim) -> bool:
    return isinstance(x, int) and isinstance(y, int) and x < y


def _cost(moves: tuple[Moves, Moves]) -> tuple[int, int, int]:
    """Transposes, those of them that take neighbours apart, and nodes."""
    perms = [m.perm for m in moves if m.perm is not None]
    return len(perms), sum(perm[-1] != len(perm) - 1 for perm in perms), sum(m.cost[1] for m in moves)


def _cost_of(nodes: Sequence[Node]) -> tuple[int, int, int]:
    perms = [node.attrs.get("perm") for node in nodes if node.op == "Transpose"]
    return len(perms), sum(perm is None or list(perm)[-1] != len(perm) - 1 for perm in perms), len(nodes)
