"""What a graph consists of: values, and the nodes that make and read them. Only the methods of Graph change either.

A value knows its producer and its users, so a pass can walk both ways.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from miniinfer_cli.ir.constants import Constant
from miniinfer_cli.ir.types import TensorType, Type

if TYPE_CHECKING:
    from miniinfer_cli.ir.graph import Graph

_MANY = 64  # inputs from which on a node keeps where each of them is, while they are exchanged


class Value:
    """One tensor (or sequence ...) of a graph: a graph input, a constant, or an output of ``producer``."""

    __slots__ = ("_name", "_type", "_uses", "_wanted_name", "constant", "producer")

    def __init__(self, name: str, type: Type | None) -> None:
        self._name = name
        self._wanted_name = name
        self._type = type
        self.producer: Node | None = None
        self.constant: Constant | None = None
        self._uses: dict[Node, int] = {}

    @property
    def name(self) -> str:
        """What people see; unique in the graph when the value is made."""
        return self._name

    @property
    def type(self) -> Type | None:
        """What it is, None where nobody knows."""
        return self._type

    @property
    def users(self) -> tuple["Node", ...]:
        """The nodes that read this value, each once, in the order in which they began to."""
        return tuple(self._uses)

    @property
    def tensor(self) -> TensorType:
        """The type, where only a tensor makes sense. Raises TypeError otherwise (unknown type, sequence ...)."""
        if not isinstance(self.type, TensorType):
            raise TypeError(f"value {self.name!r} is {self.type or 'of unknown type'}, not a tensor")
        return self.type

    def __repr__(self) -> str:
        return f"<{self.name}: {self.type or '?'}>"


class Node:
    """One operation. ``op`` and ``domain`` name its meaning in ``ops``; ``attrs`` are its ONNX attributes.

    ``graphs`` holds sub-graphs by attribute name (If, Loop, Scan). They are closed: what they read from outside comes
    in through inputs of the node, mapped to trailing inputs of the sub-graph.
    ``body`` is set on a region only: the primitive nodes it stands for, with the region's inputs and outputs.
    An input is None where an optional operand is left out.
    """

    __slots__ = (
        *("_edited", "_heir", "_inputs", "_name", "_next", "_origins", "_places", "_prev"),
        *("attrs", "body", "domain", "graph", "graphs", "op", "outputs"),
    )

    def __init__(self, op: str, domain: str, name: str) -> None:
        self.op = op
        self.domain = domain
        self._name = name
        self._origins: dict[str, None] = {}  # in order
        self._heir: Node | None = None  # what took its place, or that of all that read it
        self._inputs: tuple[Value | None, ...] = ()
        # Of a node with many inputs, while they are exchanged one by one: what they are now, where that changed; where each is.
        self._edited: list[Value | None] | None = None
        self._places: dict[Value | None, list[int]] | None = None
        self.outputs: tuple[Value, ...] = ()
        self.attrs: Mapping[str, Any] = {}
        self.graphs: dict[str, Graph] = {}
        self.body: Graph | None = None
        self.graph: Graph | None = None
        self._prev: Node | None = None
        self._next: Node | None = None

    @property
    def name(self) -> str:
        """What people see, in messages and profiles."""
        return self._name

    @property
    def origins(self) -> tuple[str, ...]:
        """The nodes of the model that it computes, or computes parts of, by name; its own where nobody said."""
        return tuple(self._origins) or (self._name,)

    @property
    def known_origins(self) -> tuple[str, ...]:
        """The same, and none where nobody said."""
        return tuple(self._origins)

    @property
    def inputs(self) -> tuple[Value | None, ...]:
        """The operands; None for an optional one that is left out."""
        if self._edited is not None:
            self._inputs, self._edited = tuple(self._edited), None
        return self._inputs

    @property
    def output(self) -> Value:
        """The only output. Raises ValueError when there are several."""
        (value,) = self.outputs
        return value

    def _set_inputs(self, inputs: Sequence[Value | None]) -> None:
        self._inputs, self._edited, self._places = tuple(inputs), None, None

    def _exchange(self, old: Value, new: Value) -> None:
        """Reads ``new`` wherever it reads ``old``. Thousands of inputs may be exchanged one after the other."""
        if len(self._inputs) < _MANY:
            self._inputs = tuple(new if v is old else v for v in self._inputs)
            return
        if self._places is None:
            self._places = {}
            for i, value in enumerate(self.inputs):
                self._places.setdefault(value, []).append(i)
        if self._edited is None:
            self._edited = list(self._inputs)
        places = self._places.pop(old)
        for i in places:
            self._edited[i] = new
        self._places.setdefault(new, []).extend(places)

    def is_op(self, *names: str) -> bool:
        """True for an ai.onnx operation of one of these names."""
        return self.domain == "" and self.op in names

    def __repr__(self) -> str:
        return f"<{self.domain + '.' if self.domain else ''}{self.op} {self.name!r}>"


def producers_first(nodes: Sequence[Node]) -> list[Node]:
    """The nodes in an order in which producers stand before users, stable otherwise. Raises ValueError on a cycle."""
    position = {node: i for i, node in enumerate(nodes)}
    done: set[Node] = set()
    order: list[Node] = []
    for root in nodes:
        stack: list[tuple[Node, bool]] = [(root, False)]
        on_path: set[Node] = set()
        while stack:
            node, leaving = stack.pop()
            if leaving:
                on_path.discard(node)
                done.add(node)
                order.append(node)
            elif node not in done:
                if node in on_path:
                    raise ValueError(f"the graph has a cycle through {node!r}")
                on_path.add(node)
                stack.append((node, True))
                producers = {v.producer for v in node.inputs if v is not None and v.producer is not None}
                for p in sorted(producers - done, key=lambda p: -position.get(p, 0)):
                    if p in on_path:
                        raise ValueError(f"the graph has a cycle through {p!r}")
                    stack.append((p, False))
    return order


def drop_use(value: Value, node: Node) -> None:
    """Notes that ``node`` reads ``value`` at one place less. For Graph alone."""
    left = value._uses.get(node, 0) - 1
    if left > 0:
        value._uses[node] = left
    else:
        value._uses.pop(node, None)
