"""Channels lie where it costs least: padded to whole vectors, and shuffled, cut and joined in the weights of who reads them.

    Concat(Slice(x), Relu(Conv(Slice'(x)))) -> Reshape -> Transpose -> Reshape -> Slice ...

is a unit of ShuffleNet. A tensor of 16 bits whose channels (axis 1) all readers can take from anywhere is not moved: a
convolution that reads some channels of it has weights of nothing for the others, and one whose result is joined with channels
that lie in a tensor writes into the places there that nobody needs any more, ``Where(kept, x, Relu(Conv(...)))``, which is
the end of a convolution's own kernel. So is filled up what is no multiple of 16 bytes: every kernel is slow for it.

Numbers are the same, but that infinity or NaN in a channel makes NaN of what is read of its neighbours. f32 is left as it is:
processors compute it, too, and would compute more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array, Constant, DType, Graph, Node, Value
from miniinfer_cli.ir.constants import ArrayConstant, Filled, Index
from miniinfer_cli.ops import find, insert
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.passes.operands import dims, known_ints, sole_user
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes

VECTOR_NBYTES = 16
MOST_PADDING = 1.25
"""Times the channels that there are, at most, where they are filled up, or read by a filter of several taps."""
MOST_SPREAD = 2.5
"""Times the channels that are read, at most, of the tensor that they lie in."""
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool")


@dataclass(frozen=True, slots=True)
class Lying:
    """Channel c of a value of the graph is channel ``places[c]`` of ``value``.

    ``into``: the tensor of as many channels in which these places are free, and are to be written.
    """

    value: Value
    places: tuple[int, ...]
    into: Value | None = None

    @property
    def room(self) -> int:
        """Channels of ``value``."""
        return channels_of(self.value) or 0


@dataclass(frozen=True, slots=True, eq=False)
class Spread(Constant):
    """``source`` with its element i of ``axis`` at ``places[i]``, zeros elsewhere. A block costs the whole axis of the source."""

    source: Constant
    axis: int
    places: tuple[int, ...]

    def _source_steps(self) -> int:
        return self.source.steps

    def block(self, index: Index) -> Array:
        """The block of ``index``."""
        mine = index[self.axis]
        given = self.source.block((*index[: self.axis], slice(0, self.source.shape[self.axis]), *index[self.axis + 1 :]))
        result = np.zeros(tuple(s.stop - s.start for s in index), given.dtype)
        inside = [(i, p - mine.start) for i, p in enumerate(self.places) if mine.start <= p < mine.stop]
        if inside:
            taken, put = zip(*inside, strict=True)
            np.moveaxis(result, self.axis, 0)[list(put)] = np.moveaxis(given, self.axis, 0)[list(taken)]
        return result


def spread(source: Constant, axis: int, places: Sequence[int], room: int) -> Constant:
    """``source`` with its element i of ``axis`` at ``places[i]`` of ``room``, zeros elsewhere."""
    if tuple(places) == tuple(range(room)):
        return source
    shape = (*source.shape[:axis], room, *source.shape[axis + 1 :])
    handle = Spread(source.dtype, shape, source, axis, tuple(places))
    return ArrayConstant(source.dtype, shape, handle.array()) if handle.is_small else handle


def place_channels(graph: Graph) -> int:
    """Gives the number of nodes that were given other places for their channels, or became none."""
    if not any(_is_convolution(node) for node in graph):
        return 0
    placer = _Placer(graph)
    for node in graph.nodes:
        placer.visit(node)
    if placer.count:
        remove_dead_nodes(graph)
    return placer.count


def channels_of(value: Value | None) -> int | None:
    """The size of axis 1 of a tensor of 16 bits with three axes or more; None for any other value."""
    shape = dims(value)
    if value is None or shape is None or len(shape) < 3 or value.tensor.dtype not in (DType.F16, DType.BF16):
        return None
    return shape[1] if isinstance(shape[1], int) else None


# -- who can read channels from anywhere ---------------------------------------------------------------------------------


def _is_convolution(node: Node) -> bool:
    """A Conv of 16 bits with constant operands, of one group or of one for each channel."""
    if not node.is_op("Conv") or channels_of(node.inputs[0]) is None or channels_of(node.output) is None:
        return False
    return all(v is None or v.constant is not None for v in node.inputs[1:]) and (_group(node) == 1 or _is_depthwise(node))


def _group(node: Node) -> int:
    return int(node.attrs.get("group", 1))


def _is_depthwise(node: Node) -> bool:
    return 1 < _group(node) == channels_of(node.inputs[0]) == channels_of(node.output)


def _is_plain(node: Node) -> bool:
    return _is_convolution(node) and _group(node) == 1


def _taps(node: Node) -> int:
    return int(np.prod((dims(node.inputs[1]) or ())[2:]))


def _works_on_each(node: Node) -> bool:
    """A pointwise operation of one tensor that makes a finite number of zero, or a pool."""
    x = node.inputs[0] if node.inputs else None
    if x is None or len(node.outputs) != 1 or channels_of(x) is None or channels_of(node.output) is None:
        return False
    if node.op in _POOLS and not node.domain:
        return True
    if not is_pointwise(node) or any(v is not None and (v.constant is None or v.constant.size != 1) for v in node.inputs[1:]):
        return False
    opdef = find(node.domain, node.op)
    assert opdef is not None
    zero = Filled(x.tensor.dtype, (1, 1, 1), 0).array()
    others = [None if v is None or v.constant is None else v.constant.array() for v in node.inputs[1:]]
    with np.errstate(all="ignore"):
        (y,) = opdef.evaluate([zero, *others], node.attrs, n_outputs=1)
    return node.output.tensor.dtype is x.tensor.dtype and bool(np.isfinite(np.asarray(y, np.float64)).all())


def _cut(node: Node) -> list[range] | None:
    """Which channels of its input each output of a Slice or Split along the channels is."""
    count = channels_of(node.inputs[0]) if node.inputs else None
    if count is None:
        return None
    rank = len(dims(node.inputs[0]) or ())
    if node.is_op("Split") and node.attrs.get("axis", 0) % rank == 1:
        sizes = [size for v in node.outputs if (size := channels_of(v)) is not None]
        ends = [int(n) for n in np.cumsum(sizes)]
        return [range(a, b) for a, b in zip([0, *ends], ends, strict=False)]
    if not node.is_op("Slice"):
        return None
    starts, ends_, axes, steps = (known_ints(v) for v in (*node.inputs[1:], *[None] * (5 - len(node.inputs))))
    one = starts is not None and ends_ is not None and len(starts) == 1 and axes is not None and axes[0] % rank == 1
    if not one or (len(node.inputs) > 4 and node.inputs[4] is not None and (steps is None or steps[0] < 1)):
        return None
    assert starts is not None and ends_ is not None
    return [range(*slice(starts[0], ends_[0], steps[0] if steps else 1).indices(count))]


def _shuffled(graph: Graph, node: Node) -> tuple[Node, tuple[int, ...]] | None:
    """The last node of a channel shuffle that begins at ``node``, a Reshape, and which channel each of the result is."""
    count, shape = channels_of(node.inputs[0]), dims(node.inputs[0])
    if not node.is_op("Reshape") or count is None or shape is None:
        return None
    turn = sole_user(graph, node.output)
    back = sole_user(graph, turn.output) if turn is not None and turn.is_op("Transpose") else None
    if turn is None or back is None or not back.is_op("Reshape") or back.inputs[0] is not turn.output:
        return None
    apart = dims(node.output)
    if apart is None or len(apart) != len(shape) + 1 or dims(back.output) != shape:
        return None
    groups, each = apart[1:3]
    alike = (apart[0], *apart[3:]) == (shape[0], *shape[2:]) and isinstance(groups, int) and isinstance(each, int)
    if not alike or groups * each != count or tuple(turn.attrs.get("perm", ())) != (0, 2, 1, *range(3, len(apart))):
        return None
    return back, tuple(int(i) for i in np.arange(count).reshape(groups, each).T.reshape(-1))


class _Readers:
    """Whether all who read a value can take its channels from anywhere: neighbours among few others, or any."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._found: dict[Value, tuple[bool, bool]] = {}
        for node in reversed(graph.nodes):
            for value in node.outputs:
                if channels_of(value) is not None:
                    self._found[value] = self._look(value)

    def take(self, value: Value, *, anywhere: bool) -> bool:
        """Whether the readers of ``value`` take it so; ``anywhere``: far from all channels of a tensor are the value's."""
        return self._found.get(value, (False, False))[anywhere]

    def _look(self, value: Value) -> tuple[bool, bool]:
        if self._graph.is_output(value) or not value.users:
            return False, False
        each = [self._one(user, value) for user in value.users]
        return all(near for near, _ in each), all(far for _, far in each)

    def _one(self, node: Node, value: Value) -> tuple[bool, bool]:
        if node.is_op("Concat"):
            joins = node.attrs["axis"] % len(dims(value) or ()) == 1
            return self._found.get(node.output, (False, False)) if joins else (False, False)
        if node.inputs[0] is not value or sum(v is value for v in node.inputs) != 1:
            return False, False
        if _is_convolution(node):
            return self._found.get(node.output, (False, False)) if _is_depthwise(node) else (True, _taps(node) == 1)
        if _works_on_each(node):
            return self._found.get(node.output, (False, False))
        shuffled = _shuffled(self._graph, node)
        if shuffled is not None:
            return (self.take(shuffled[0].output, anywhere=True),) * 2
        if _cut(node) is not None:
            return (all(self.take(v, anywhere=True) for v in node.outputs),) * 2
        return False, False


# -- rewriting -----------------------------------------------------------------------------------------------------------


class _Placer:
    """Goes through the nodes in their order; what lies elsewhere is known by the value whose channels it has."""

    def __init__(self, graph: Graph) -> None:
        self.count = 0
        self._graph = graph
        self._readers = _Readers(graph)
        self._lying: dict[Value, Lying] = {}
        self._made: set[Value] = set()

    def visit(self, node: Node) -> None:
        """Gives the node's results places, or has it read what lies elsewhere."""
        if _is_convolution(node):
            self._convolve(node)
        elif node.is_op("Concat"):
            self._join(node)
        elif any(v in self._lying for v in node.inputs if v is not None) or node.is_op("Slice", "Split", "Reshape"):
            self._pass_on(node)

    def _at(self, value: Value) -> Lying:
        return self._lying.get(value) or Lying(value, tuple(range(channels_of(value) or 0)))

    def _put(self, node: Node, value: Value, lying: Lying) -> None:
        if lying.value.producer is not None and lying.value.producer is not node:
            self._graph.add_origins(lying.value.producer, node.origins)
        self._lying[value] = lying

    def _insert(self, node: Node, op: str, *inputs: Value | None, **attrs: Any) -> Value:
        made = insert(self._graph, op, *inputs, before=node, out=node.output.name, domain=node.domain, **attrs)
        if made.producer is not None:
            self._graph.rename_node(made.producer, node.name)
        self._made.add(made)
        self.count += 1
        return made

    def _convolve(self, node: Node) -> None:
        x, weight, out = node.inputs[0], node.inputs[1], node.output
        assert x is not None and weight is not None and weight.constant is not None
        at, into = self._at(x), None
        count = channels_of(out) or 0
        kernels, attrs = weight.constant, dict(node.attrs)
        if _is_depthwise(node):
            if x not in self._lying:
                return
            places, room = at.places, at.room
            kernels, attrs["group"] = spread(kernels, 0, places, room), room
        else:
            most = MOST_PADDING if _taps(node) > 1 else MOST_SPREAD
            if x in self._lying and at.room > most * len(at.places):
                at = self._apart(x, node)
            places, room, into = self._places_for(node, count)
            if at.value is x and room == count:
                return
            kernels = spread(spread(kernels, 1, at.places, at.room), 0, places, room)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None and bias.constant is not None and room != count:
            bias = self._graph.add_constant(spread(bias.constant, 0, places, room), bias.name)
        more = () if bias is None else (bias,)
        made = self._insert(node, "Conv", at.value, self._graph.add_constant(kernels, weight.name), *more, **attrs)
        if room == count and not _is_depthwise(node):
            self._graph.replace_node(node, [made])
        else:
            self._put(node, out, Lying(made, places, into))

    def _places_for(self, node: Node, count: int) -> tuple[tuple[int, ...], int, Value | None]:
        """Places for the results of a convolution, how many there are, and in which tensor they are free, if in one."""
        same = tuple(range(count))
        if not self._readers.take(node.output, anywhere=False):
            return same, count, None
        last = self._follow(node)
        if _taps(node) == 1 and last is not None and last.is_op("Concat") and len(last.inputs) == 2:
            (other,) = {v for v in last.inputs if v is not None and self._maker(v) is not node} or (None,)
            beside = self._lying.get(other) if other is not None else None
            if beside is not None and count * MOST_SPREAD >= beside.room >= count + len(beside.places):
                free = sorted(set(range(beside.room)) - set(beside.places))
                return tuple(free[:count]), beside.room, beside.value
            maker = None if other is None or beside is not None else self._maker(other)
            more = channels_of(other) or 0
            if maker is not None and _is_plain(maker) and _taps(maker) == 1 and count + more <= MOST_SPREAD * min(count, more):
                return same, self._whole(node, count + more), None
        return same, self._whole(node, count), None

    def _whole(self, node: Node, count: int) -> int:
        """So many channels as whole vectors, where these are few more; those of a single pixel are a product of one row."""
        if all(d == 1 for d in (dims(node.output) or ())[2:]):
            return count
        vector = VECTOR_NBYTES // node.output.tensor.dtype.nbytes(1)
        padded = -(-count // vector) * vector
        return padded if padded <= MOST_PADDING * count else count

    def _follow(self, node: Node) -> Node | None:
        """The node that alone reads what a convolution makes, or what is made of each number of that; None where several do."""
        last = sole_user(self._graph, node.output)
        while last is not None and _works_on_each(last) and last.op not in _POOLS:
            last = sole_user(self._graph, last.output)
        return last

    def _maker(self, value: Value) -> Node | None:
        """The node behind the work on each number that gave ``value``."""
        node = value.producer
        while node is not None and _works_on_each(node) and node.op not in _POOLS:
            node = None if node.inputs[0] is None else node.inputs[0].producer
        return node

    def _join(self, node: Node) -> None:
        operands = [v for v in node.inputs if v is not None]
        if not any(v in self._lying for v in operands):
            return
        lying = [self._at(v) for v in operands]
        tensors = list(dict.fromkeys(at.value for at in lying))
        if len(tensors) == 1:
            self._put(node, node.output, Lying(tensors[0], tuple(p for at in lying for p in at.places)))
        elif (new := next((at for at in lying if at.into in tensors), None)) is not None and len(lying) == 2:
            (old,) = (at for at in lying if at is not new)
            kept = np.ones((1, old.room, *[1] * (len(dims(old.value) or ()) - 2)), np.bool_)
            kept[0, list(new.places)] = False
            made = self._insert(node, "Where", self._graph.add_constant(kept, "kept"), old.value, new.value)
            self._put(node, node.output, Lying(made, tuple(p for at in lying for p in at.places)))
        else:
            dense = [
                self._apart(v, node) if at.room > MOST_PADDING * len(at.places) else at
                for v, at in zip(operands, lying, strict=True)
            ]
            if [at.value for at in dense] == operands:
                return
            starts = np.cumsum([0, *(at.room for at in dense)])
            made = self._insert(node, "Concat", *(at.value for at in dense), **node.attrs)
            places = tuple(int(s) + p for s, at in zip(starts, dense, strict=False) for p in at.places)
            self._put(node, node.output, Lying(made, places))

    def _pass_on(self, node: Node) -> None:
        x = node.inputs[0]
        if x is None or channels_of(x) is None:
            return
        at = self._at(x)
        if x in self._lying and _works_on_each(node):
            made = self._insert(node, node.op, at.value, *node.inputs[1:], **node.attrs)
            self._put(node, node.output, Lying(made, at.places, None if node.op in _POOLS else at.into))
            return
        shuffled = _shuffled(self._graph, node)
        if shuffled is not None:
            last, order = shuffled
            if x in self._lying or self._readers.take(last.output, anywhere=True):
                self._put(last, last.output, Lying(at.value, tuple(at.places[i] for i in order)))
            return
        cut = _cut(node)
        worth = cut is not None and all(self._readers.take(v, anywhere=True) for v in node.outputs)
        if cut is not None and worth and (x in self._lying or all(at.room <= MOST_SPREAD * len(r) for r in cut)):
            for value, channels in zip(node.outputs, cut, strict=True):
                self._put(node, value, Lying(at.value, tuple(at.places[i] for i in channels)))

    def _apart(self, value: Value, before: Node) -> Lying:
        """The channels in a tensor of their own: as the graph has it, else from what they lie in now."""
        at = self._at(value)
        same = tuple(range(len(at.places)))
        if at.value not in self._made:
            return Lying(value, same)
        first, name = at.places[0], f"{value.name}_apart"
        if at.places == tuple(range(first, first + len(same))):  # neighbours may be read where they lie
            ends = (self._graph.add_constant(np.array([n], np.int64), name) for n in (first, first + len(same), 1))
            made = insert(self._graph, "Slice", at.value, *ends, before=before, out=name)
        else:
            places = self._graph.add_constant(np.array(at.places, np.int64), "places")
            made = insert(self._graph, "Gather", at.value, places, before=before, out=name, axis=1)
        return Lying(made, same)
