"""Gives convolutions, and whatever around them can follow, channels-last tensors: [N, spatial..., C].

Every library and our own kernels convolve fastest that way. Conv, ConvTranspose and pooling become our ``...NHWC``
operations, with weights as [K, spatial..., C/group] by a recipe. Elementwise operations, Concat, Resize and others compute
in either layout; which of them follow is the cheapest division of the graph into two layouts, counted in bytes that the
Transposes at the borders move. Transposes are put in explicitly; ``cancel_transposes`` and its neighbours clean up.
"""

from collections.abc import Hashable, Iterable, Sequence

from miniinfer_cli.ir import Dim, Graph, Node, Value
from miniinfer_cli.ir.dims import Sym, evaluate, names_in
from miniinfer_cli.ops import OURS, insert, insert_many
from miniinfer_cli.ops.layout import channels_first, channels_last
from miniinfer_cli.passes.cancel_transposes import permutation
from miniinfer_cli.passes.layout_rules import Relayout, relayout
from miniinfer_cli.passes.min_cut import divide
from miniinfer_cli.passes.operands import constant_handle, dims
from miniinfer_cli.passes.recipes import reshape_constant, transpose_constant
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes

GUESSED_SIZE = 16  # of a symbolic dimension, for counting bytes
_FIRST, _LAST = "first", "last"
_POOLS = ("AveragePool", "GlobalAveragePool", "MaxPool")
_WITH_KERNELS = ("ConvNHWC", "ConvTransposeNHWC")


def assign_layouts(graph: Graph) -> int:
    """Gives the number of operations that became channels-last."""
    forms = {n: f for n in graph if (f := _convolution(n)) is not None}
    convolutions = set(forms)
    forms |= {n: f for n in graph if (f := _turned_pool(n)) is not None}
    if not forms:
        return 0
    forms |= _followers(graph, forms)
    staying = divide(_groups(graph, forms), [_FIRST], [_LAST, *convolutions])
    moving = [n for n in graph.nodes if n in forms and n not in staying]
    rewriter = _Rewriter(graph)
    for node in moving:
        rewriter.rewrite(node, forms[node])
    remove_dead_nodes(graph)
    return len(moving)


def _convolution(node: Node) -> Relayout | None:
    shape = dims(node.inputs[0]) if node.is_op("Conv", "ConvTranspose") else None
    if shape is None or len(shape) < 3:
        return None
    return Relayout(f"{node.op}NHWC", domain=OURS, attrs=dict(node.attrs))


def _turned_pool(node: Node) -> Relayout | None:
    """The form of a pool over what was turned from channels-last for it."""
    source = node.inputs[0].producer if node.inputs and node.inputs[0] is not None else None
    if node.domain or node.op not in _POOLS or source is None or not _makes_channels_first(source):
        return None
    return relayout(node)


# -- who follows ---------------------------------------------------------------------------------------------------------


def _followers(graph: Graph, convolutions: Iterable[Node]) -> dict[Node, Relayout]:
    """The operations that could be channels-last and hang together with a convolution through others that could."""
    found: dict[Node, Relayout] = {}
    stack = list(convolutions)
    seen = set(stack)
    while stack:
        node = stack.pop()
        neighbours = [u for v in node.outputs for u in v.users] + [
            v.producer for v in node.inputs if v is not None and v.producer
        ]
        for other in neighbours:
            if other not in seen:
                seen.add(other)
                form = relayout(other)
                if form is not None:
                    found[other] = form
                    stack.append(other)
    return found


def _groups(graph: Graph, forms: dict[Node, Relayout]) -> list[tuple[int, Sequence[Hashable]]]:
    """Who shares each value: the node that makes it and those that read it; what it costs if they do not agree."""
    groups: list[tuple[int, Sequence[Hashable]]] = []
    for value in {v: None for n in forms for v in (*n.outputs, *(n.inputs[i] for i in forms[n].data))}:
        if value is None or value.constant is not None:
            continue
        members: list[Hashable] = [_maker(value, forms)]
        members += [_reader(value, user, forms) for user in value.users]
        if graph.is_output(value):
            members.append(_FIRST)
        groups.append((_transposing_nbytes(value), members))
    return groups


def _maker(value: Value, forms: dict[Node, Relayout]) -> Hashable:
    node = value.producer
    if node is not None and node in forms and forms[node].outputs:
        return node
    # What was made by transposing from channels-last is there channels-last as well.
    return _LAST if node is not None and _makes_channels_first(node) else _FIRST


def _reader(value: Value, node: Node, forms: dict[Node, Relayout]) -> Hashable:
    form = forms.get(node)
    if form is not None and any(i in form.data for i, v in enumerate(node.inputs) if v is value):
        return node
    return _LAST if _makes_channels_last(node) else _FIRST


def _makes_channels_first(node: Node) -> bool:
    perm = permutation(node) if node.is_op("Transpose") else None
    return perm is not None and len(perm) >= 3 and perm == channels_first(len(perm))


def _makes_channels_last(node: Node) -> bool:
    perm = permutation(node) if node.is_op("Transpose") else None
    return perm is not None and len(perm) >= 3 and perm == channels_last(len(perm))


def _transposing_nbytes(value: Value) -> int:
    """Bytes that a Transpose of ``value`` moves; next to nothing when channels or space is a single element."""
    size = 1
    shape = [_guess(d) for d in dims(value) or ()]
    for n in shape:
        size *= n
    if all(n == 1 for n in shape[2:]) or shape[1:2] == [1]:
        return 1
    return max(value.tensor.dtype.nbytes(size), 2)


def _guess(dim: Dim) -> int:
    return max(evaluate(dim, dict.fromkeys(names_in(dim), GUESSED_SIZE)) or 1, 1) if isinstance(dim, Sym) else dim


# -- rewriting -----------------------------------------------------------------------------------------------------------


class _Rewriter:
    """Puts channels-last forms in place, each between Transposes that the next one sees through."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._transposed: dict[Value, Value] = {}

    def rewrite(self, node: Node, form: Relayout) -> None:
        """Replaces ``node`` by its channels-last form."""
        count = max(len(node.inputs), *(number + 1 for number in (0, *form.operands)))
        inputs = [self._input(node, form, number) for number in range(count)]
        name = f"{node.outputs[0].name}_last"
        made = insert_many(
            self.graph, form.op, *inputs, n_outputs=len(node.outputs), before=node, out=name, domain=form.domain, **form.attrs
        )
        if made[0].producer is not None:
            self.graph.rename_node(made[0].producer, node.name)
        if form.outputs:
            made = tuple(
                insert(self.graph, "Transpose", y, before=node, out=old.name, perm=channels_first(len(dims(y) or ())))
                for y, old in zip(made, node.outputs, strict=True)
            )
        self.graph.replace_node(node, made)

    def _input(self, node: Node, form: Relayout, number: int) -> Value | None:
        value = node.inputs[number] if number < len(node.inputs) else None
        if number in form.operands:
            return self.graph.add_constant(form.operands[number], f"{node.outputs[0].name}_axes")
        if value is None:
            return None
        if number in form.gathers:
            return self._gathered(value, form.gathers[number], node)
        if number in form.data:
            return self._channels_last(value, node)
        if form.op in _WITH_KERNELS and number == 1:
            return self._kernels(value, node)
        return self._broadcast(value, node) if form.broadcasts else value

    def _channels_last(self, value: Value, before: Node) -> Value:
        producer = value.producer
        if producer is not None and producer.inputs[0] is not None and _makes_channels_first(producer):
            return producer.inputs[0]
        if value not in self._transposed:
            perm = channels_last(len(dims(value) or ()))
            handle = constant_handle(value)
            self._transposed[value] = (
                self.graph.add_constant(transpose_constant(handle, perm), value.name)
                if handle is not None
                else insert(self.graph, "Transpose", value, before=before, out=f"{value.name}_last", perm=perm)
            )
        return self._transposed[value]

    def _kernels(self, value: Value, before: Node) -> Value:
        """Weights with their second axis last; those of a quantized model are transposed before they are dequantized."""
        source = value.producer
        form = relayout(source) if source is not None and source.is_op("DequantizeLinear") else None
        if source is None or form is None or source.inputs[0] is None or constant_handle(source.inputs[0]) is None:
            return self._channels_last(value, before)
        narrow = self._channels_last(source.inputs[0], before)
        return insert(self.graph, "DequantizeLinear", narrow, *source.inputs[1:], before=before, out=value.name, **form.attrs)

    def _gathered(self, value: Value, order: list[int], before: Node) -> Value:
        """A vector with one or two entries per axis, in the new order of the axes."""
        handle = constant_handle(value)
        if handle is not None:
            return self.graph.add_constant(handle.array()[order], value.name)
        return insert(
            self.graph, "Gather", value, self.graph.add_constant(order, "order"), before=before, out=f"{value.name}_last"
        )

    def _broadcast(self, value: Value, node: Node) -> Value:
        """An operand that broadcasts, given all axes and transposed; a single number stays as it is."""
        shape, rank = dims(value) or (), len(dims(node.outputs[0]) or ())
        if all(d == 1 for d in shape):
            return value
        if len(shape) < rank:
            handle, missing = constant_handle(value), rank - len(shape)
            if handle is not None:
                value = self.graph.add_constant(reshape_constant(handle, (1,) * missing + handle.shape), value.name)
            else:
                axes = self.graph.add_constant(list(range(missing)), "axes")
                value = insert(self.graph, "Unsqueeze", value, axes, before=node, out=f"{value.name}_wide")
        return self._channels_last(value, node)
