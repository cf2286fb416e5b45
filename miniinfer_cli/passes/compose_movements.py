"""A chain of Transposes and views -> the shortest that does the same: one Transpose at most, none where no data moves.

Heads split off and merged again, patches of a vision transformer, the pooled end of a channels-last net: frameworks write
them step by step, and most of the steps undo each other.
"""

from miniinfer_cli.ir import Graph, Node
from miniinfer_cli.passes.movement import chain_above, is_movement, is_writable, movement_of, write
from miniinfer_cli.passes.operands import sole_user


def compose_movements(graph: Graph) -> int:
    """Gives the number of chains rewritten."""
    return sum(_rewrite(graph, node) for node in graph.nodes if node in graph and _ends_chain(graph, node))


def _ends_chain(graph: Graph, node: Node) -> bool:
    return is_movement(node) and not is_movement(sole_user(graph, node.output))


def _rewrite(graph: Graph, last: Node) -> bool:
    chain = chain_above(graph, last.output)
    movement = movement_of(chain)
    x = chain[0].inputs[0]
    if movement is None or x is None:
        return False
    moves = movement.moves()
    if moves.cost >= (sum(n.op == "Transpose" for n in chain), len(chain)) or not is_writable(movement, moves):
        return False
    graph.replace_node(last, [write(graph, x, moves, before=last, out=last.output.name)])
    for node in reversed(chain[:-1]):
        graph.remove(node)
    return True
