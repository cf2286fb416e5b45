"""What is quantized and dequantized again inside what a recognition puts together is left as it is.

Tools that quantize every operation also do so between the pieces of an activation, of a norm and of attention, where nothing
multiplies integers: there it costs digits and time, and keeps the pieces apart. So a pair goes

    between two elementwise operations, or one and a mean (a Gelu or a norm in pieces);
    between the product of queries and keys, the softmax, and the product with the values, and in front of these three;

and behind attention it goes behind the Transposes and Reshapes that merge the heads, where the next product reads it.
"""

from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.ops.stored_numbers import only_moves
from miniinfer_cli.passes.operands import scalar
from miniinfer_cli.passes.precision.quantized_moves import attrs_of_one_scale, undone


def drop_inner_quantization(graph: Graph) -> int:
    """Gives the number of pairs that went, or moved."""
    fired = 0
    for node in graph.nodes:
        if node.is_op("DequantizeLinear") and _stands_between_pieces(graph, node):
            fired += _drop(graph, node)
    for node in graph.nodes:
        if node.is_op("Softmax"):
            fired += _open_attention(graph, node)
    return fired


def _drop(graph: Graph, node: Node) -> int:
    """Readers of ``node``, which undoes a QuantizeLinear, read what that reads."""
    before = undone(node)
    assert before is not None and before.inputs[0] is not None
    graph.replace_node(node, [before.inputs[0]])
    return 1


def _stands_between_pieces(graph: Graph, node: Node) -> bool:
    before = undone(node)
    value = None if before is None else before.inputs[0]
    if value is None or value.producer is None or graph.is_output(node.output) or not node.output.users:
        return False
    return _is_piece(value.producer) and all(_is_piece(u) for u in node.output.users)


def _is_piece(node: Node) -> bool:
    """An elementwise operation that does not quantize, or a mean of such."""
    return (is_pointwise(node) or node.is_op("ReduceMean")) and not node.is_op("QuantizeLinear", "DequantizeLinear")


def _open_attention(graph: Graph, softmax: Node) -> int:
    """Drops the pairs around a softmax between two products of results, and in front of these; gives how many."""
    scores, above = _above(softmax.inputs[0])
    weighted, below = _below(graph, softmax.output)
    if scores is None or weighted is None:
        return 0
    pairs = [*above, *below]
    for value in (*scores.inputs[:2], weighted.inputs[1]):
        pairs += _in_front(value)
    dropped = sum(_drop(graph, pair) for pair in dict.fromkeys(pairs) if pair in graph)
    return dropped + _behind(graph, weighted)


def _above(value: Value | None) -> tuple[Node | None, list[Node]]:
    """The product whose result reaches ``value`` through elementwise operations, and the pairs on the way."""
    pairs: list[Node] = []
    while value is not None and value.producer is not None:
        node = value.producer
        if _is_product_of_results(node):
            return node, pairs
        before = undone(node)
        if before is not None:
            pairs.append(node)
            value = before.inputs[0]
        elif _is_piece(node):
            ways = [v for v in node.inputs if v is not None and v.constant is None and v.producer is not None]
            found = [(v, *_above(v)) for v in ways]
            reached = [(product, more) for _, product, more in found if product is not None]
            return (reached[0][0], [*pairs, *reached[0][1]]) if len(reached) == 1 else (None, [])
        else:
            break
    return None, []


def _below(graph: Graph, value: Value) -> tuple[Node | None, list[Node]]:
    """The product that reads ``value`` as its first factor, and the pairs in between."""
    pairs: list[Node] = []
    while len(value.users) == 1 and not graph.is_output(value):
        (user,) = value.users
        if _is_product_of_results(user):
            return (user, pairs) if user.inputs[0] is value else (None, [])
        if user.is_op("QuantizeLinear") and len(user.output.users) == 1 and undone(user.output.users[0]) is user:
            user = user.output.users[0]
            pairs.append(user)
        elif not _is_piece(user):
            break
        value = user.output
    return None, []


def _is_product_of_results(node: Node) -> bool:
    """A MatMul of two results, neither of which is a constant, as it is or dequantized."""
    return node.is_op("MatMul") and not any(_is_weight(v) for v in node.inputs[:2])


def _is_weight(value: Value | None) -> bool:
    node = None if value is None else value.producer
    if value is None or node is None:
        return value is not None and value.constant is not None
    return node.is_op("DequantizeLinear", "Transpose") and _is_weight(node.inputs[0])


def _in_front(value: Value | None) -> list[Node]:
    """The pairs in front of an operand of attention: through what moves data or scales by one number."""
    pairs: list[Node] = []
    while value is not None and value.producer is not None:
        node = value.producer
        before = undone(node)
        if before is not None:
            if len(value.users) > 1:
                break
            pairs.append(node)
            value = before.inputs[0]
        elif _moves(node) or (node.is_op("Mul", "Div") and scalar(node.inputs[1]) is not None):
            value = node.inputs[0]
        else:
            break
    return pairs


def _moves(node: Node) -> bool:
    return only_moves(node) and not node.is_op("Concat")


def _behind(graph: Graph, product: Node) -> int:
    """Puts the pair behind the product behind what moves its result, where each has one reader."""
    fired = 0
    value = product.output
    while len(value.users) == 1 and not graph.is_output(value):
        quantize = value.users[0]
        pair = quantize.output.users[0] if quantize.is_op("QuantizeLinear") and len(quantize.output.users) == 1 else None
        mover = pair.output.users[0] if pair is not None and len(pair.output.users) == 1 else None
        if pair is None or mover is None or undone(pair) is not quantize or graph.is_output(pair.output):
            return fired
        if not _moves(mover) or len(mover.outputs) != 1 or mover.inputs[0] is not pair.output:
            return fired
        moved = insert(graph, mover.op, value, *mover.inputs[1:], before=mover, out=mover.output.name, **mover.attrs)
        narrow = insert(graph, "QuantizeLinear", moved, *quantize.inputs[1:], before=mover, **attrs_of_one_scale(quantize))
        wide = insert(graph, "DequantizeLinear", narrow, *pair.inputs[1:], before=mover, **attrs_of_one_scale(pair))
        graph.replace_node(mover, [wide])
        graph.remove(pair)
        graph.remove(quantize)
        value = moved
        fired += 1
    return fired
