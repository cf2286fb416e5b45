"""The model while it is compiled: an ordered list of nodes, which its own methods alone change.

Inputs and outputs of a node are tuples; edits go through the graph, which keeps the uses right. The names of a graph's
outputs belong to the graph (``output_names``), not to the values, so a pass may replace any value by another. Value names are
for people: the graph makes each one that it creates unique.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from miniinfer_cli.ir.arrays import Array
from miniinfer_cli.ir.constants import Constant, constant
from miniinfer_cli.ir.lineage import Lineage
from miniinfer_cli.ir.node import Node, Value, drop_use, producers_first
from miniinfer_cli.ir.numerics import Numerics
from miniinfer_cli.ir.states import States
from miniinfer_cli.ir.types import TensorType, Type
from miniinfer_cli.limits import Budget


class Graph:
    """An ordered list of nodes; every node stands after the producers of its inputs.

    ``defaults``: what inputs are, by name, when nobody gives them. ``budget``: what may be taken for it, and was so far; graphs
    that are made for nodes of this one share it. ``numerics``: in which numbers to compute it, None for those of its types.
    ``states``: what of its inputs and outputs lives between inferences; None where nothing does.
    """

    def __init__(self, name: str = "main", budget: Budget | None = None) -> None:
        self.name = name
        self.budget = Budget() if budget is None else budget
        self.numerics: Numerics | None = None
        self.states: States | None = None
        self.inputs: tuple[Value, ...] = ()
        self.outputs: tuple[Value, ...] = ()
        self.output_names: tuple[str, ...] = ()
        self.defaults: dict[str, Constant] = {}
        self._first: Node | None = None
        self._last: Node | None = None
        self._count = 0
        self._lineage = Lineage()
        self._names: set[str] = set()
        self._suffix: dict[str, int] = {}

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[Node, ...]:
        """A snapshot of the nodes in order: editing the graph while walking it is safe."""
        return tuple(self)

    def __iter__(self) -> Iterator[Node]:
        node = self._first
        while node is not None:
            yield node
            node = node._next

    def __len__(self) -> int:
        return self._count

    def __contains__(self, node: Node) -> bool:
        return node.graph is self

    def is_output(self, value: Value) -> bool:
        """True when the graph returns ``value``."""
        return any(v is value for v in self.outputs)

    def values(self) -> Iterator[Value]:
        """Every value once: inputs, then the constants and outputs of each node in order, then constant outputs."""
        seen: set[int] = set()
        for value in (*self.inputs, *(v for n in self for v in (*n.inputs, *n.outputs)), *self.outputs):
            if value is not None and id(value) not in seen:
                seen.add(id(value))
                yield value

    def constants(self) -> Iterator[Value]:
        """The constant values that something reads, in order of first use."""
        return (v for v in self.values() if v.constant is not None)

    def all_constants(self) -> Iterator[Value]:
        """The same, then those of the bodies of regions and of sub-graphs, at any depth."""
        yield from self.constants()
        for node in self:
            for inner in (*((node.body,) if node.body is not None else ()), *node.graphs.values()):
                yield from inner.all_constants()

    # -- making ----------------------------------------------------------------------------------------------------

    def new_value(self, name: str, type: Type | None = None) -> Value:
        """A fresh value with no producer; its name is ``name``, made unique in this graph."""
        value = Value(self.unique_name(name), type)
        value._wanted_name = name
        return value

    def unique_name(self, name: str) -> str:
        """``name``, with a numbered suffix if this graph already gave it out."""
        base, number = name or "v", self._suffix.get(name or "v", 0)
        candidate = base
        while candidate in self._names:
            number += 1
            candidate = f"{base}_{number}"
        self._suffix[base] = number
        self._names.add(candidate)
        return candidate

    def add_input(self, name: str, type: Type | None) -> Value:
        """A new last input of the graph."""
        value = self.new_value(name, type)
        self.inputs = (*self.inputs, value)
        return value

    def set_graph_inputs(self, values: Sequence[Value]) -> None:
        """Makes these values of ``new_value``, which nothing makes, the graph's inputs."""
        if any(v.producer is not None or v.constant is not None for v in values):
            raise ValueError(f"inputs of graph {self.name!r} are made in it")
        self.inputs = tuple(values)

    def remove_input(self, value: Value) -> None:
        """Removes an input that nobody reads. Raises ValueError when something does, or when it is no input."""
        if value not in self.inputs or value._uses or self.is_output(value):
            raise ValueError(f"cannot remove input {value!r} of graph {self.name!r}")
        self.inputs = tuple(v for v in self.inputs if v is not value)
        self._names.discard(value.name)

    def set_outputs(self, outputs: Sequence[Value], names: Sequence[str] | None = None) -> None:
        """Sets what the graph returns, under ``names`` (the values' own names when left out)."""
        self.outputs = tuple(outputs)
        self.output_names = tuple(names) if names is not None else tuple(v.name for v in outputs)

    def add_constant(self, data: Constant | Array | Any, name: str = "const") -> Value:
        """A constant value of this graph from a handle, or from anything numpy can make an array of."""
        handle = data if isinstance(data, Constant) else constant(data)
        value = self.new_value(name)
        self.set_constant(value, handle)
        return value

    def set_constant(self, value: Value, handle: Constant) -> None:
        """Makes ``value``, which has no producer, the constant ``handle``. Small contents become ``type.known``."""
        if value.producer is not None:
            raise ValueError(f"{value!r} has a producer")
        value.constant = handle
        value._type = TensorType(handle.dtype, handle.shape, handle.array() if handle.is_small else None)

    def add_node(
        self,
        op: str,
        inputs: Sequence[Value | None],
        outputs: Sequence[Value],
        *,
        domain: str = "",
        name: str = "",
        attrs: Mapping[str, Any] | None = None,
        graphs: Mapping[str, "Graph"] | None = None,
        body: "Graph | None" = None,
        before: Node | None = None,
        origins: Iterable[str] = (),
    ) -> Node:
        """Adds a node that makes ``outputs`` (fresh values of ``new_value``); at the end, or just before ``before``.

        ``origins``: the nodes of the model that it computes. Left out, it gets those of what it takes the place of, and
        ``settle_origins`` those of what reads it.
        """
        node = Node(op, domain, name or (outputs[0].name if outputs else op))
        for value in outputs:
            if value.producer is not None or value.constant is not None:
                raise ValueError(f"{value!r} already has a producer")
            value.producer = node
        node.outputs = tuple(outputs)
        node.attrs = dict(attrs or {})
        node.graphs = dict(graphs or {})
        node.body = body
        self._link(node, before)
        self._lineage.enter(node, origins)
        self.set_inputs(node, inputs)
        return node

    def add(
        self,
        op: str,
        *inputs: Value | None,
        out: str = "",
        type: Type | None = None,
        before: Node | None = None,
        domain: str = "",
        **attrs: Any,
    ) -> Value:
        """Adds a node with one output and returns that output. ``ops.insert`` does the same and infers the type."""
        value = self.new_value(out or op.lower(), type)
        self.add_node(op, inputs, (value,), domain=domain, attrs=attrs, before=before)
        return value

    # -- editing ---------------------------------------------------------------------------------------------------

    def set_type(self, value: Value, type: Type | None) -> None:
        """Says what ``value`` is from now on. A constant is what its contents are: see ``set_constant``."""
        value._type = type

    def rename_node(self, node: Node, name: str) -> None:
        """Gives ``node`` the name by which people know it; the names of its outputs stay."""
        node._name = name

    def set_attribute(self, node: Node, name: str, value: Any) -> None:
        """Adds an attribute of ``node``, or replaces it."""
        node.attrs = {**node.attrs, name: value}

    def set_inputs(self, node: Node, inputs: Sequence[Value | None]) -> None:
        """Replaces all inputs of ``node``."""
        for value in node.inputs:
            if value is not None:
                drop_use(value, node)
        node._set_inputs(inputs)
        for value in node.inputs:
            if value is not None:
                value._uses[node] = value._uses.get(node, 0) + 1

    def replace_uses(self, old: Value, new: Value) -> None:
        """Every reader of ``old``, and the graph's outputs, read ``new`` from now on."""
        if old is new:
            return
        for node, count in old._uses.items():
            node._exchange(old, new)
            new._uses[node] = new._uses.get(node, 0) + count
        old._uses.clear()
        if self.is_output(old):
            self.outputs = tuple(new if v is old else v for v in self.outputs)
        if old.producer is not None and new.producer is not None:
            self._lineage.replace(old.producer, new.producer)

    def remove(self, node: Node) -> None:
        """Removes a node whose outputs nobody reads."""
        for value in node.outputs:
            if value._uses or self.is_output(value):
                raise ValueError(f"cannot remove {node!r}: {value!r} is still read")
        self._lineage.leave(node)
        self.set_inputs(node, ())
        self._unlink(node)
        for value in node.outputs:
            value.producer = None
            self._names.discard(value.name)

    def replace_node(self, node: Node, values: Sequence[Value]) -> None:
        """``values`` take the place of the node's outputs, one each, and the node goes.

        A value that was made under the name of the output that it replaces, and got another because that was taken, has
        it now; its producer then has the name of the node.
        """
        for old, new in zip(node.outputs, values, strict=True):
            self.replace_uses(old, new)
        self.remove(node)
        for old, new in zip(node.outputs, values, strict=True):
            if new._wanted_name == old.name != new.name and old.name not in self._names:
                if new.producer is not None and new.producer.name == new.name:
                    new.producer._name = node.name
                self._names.discard(new.name)
                self._names.add(old.name)
                new._name = old.name

    def fold_node(self, node: Node, handles: Sequence[Constant]) -> None:
        """The outputs of ``node`` become the constants ``handles``, one each, keeping names and readers; the node goes."""
        self._lineage.forget(node)
        self.set_inputs(node, ())
        self._unlink(node)
        for value, handle in zip(node.outputs, handles, strict=True):
            value.producer = None
            self.set_constant(value, handle)

    def add_origins(self, node: Node, origins: Iterable[str]) -> None:
        """Says of ``node`` that it computes these nodes of the model, too."""
        self._lineage.hold(node, origins)

    def settle_origins(self) -> None:
        """Gives nodes that were made with no origins those of the nodes that read them, else of those that they read."""
        self._lineage.settle()

    def sort_origins(self, place: Mapping[str, int]) -> None:
        """Puts the origins of each node in the order of their places in the model; those that have none come last."""
        for node in self:
            if len(node._origins) > 1:
                node._origins = dict.fromkeys(sorted(node._origins, key=lambda name: place.get(name, len(place))))

    def move_before(self, node: Node, anchor: Node) -> None:
        """Moves ``node`` to just before ``anchor``; the caller sees to it that producers stay ahead of users."""
        if node is not anchor:
            self._unlink(node)
            self._link(node, anchor)

    def sort(self) -> None:
        """Restores producer-before-user order, stable otherwise. Raises ValueError on a cycle."""
        order = producers_first(self.nodes)
        self._first = self._last = None
        self._count = 0
        for node in order:
            node._prev = node._next = None
            self._link(node, None)

    def copy(self) -> "Graph":
        """A deep copy of the structure (values, nodes, bodies, sub-graphs); constants are shared handles."""
        clone = Graph(self.name, self.budget)
        clone.numerics = self.numerics
        clone.states = self.states
        clone.defaults = dict(self.defaults)
        mapping: dict[Value, Value] = {}
        clone.inputs = tuple(clone._adopt(v, mapping) for v in self.inputs)
        for node in self:
            clone.add_node(
                node.op,
                [None if v is None else clone._adopt(v, mapping) for v in node.inputs],
                [clone._adopt(v, mapping) for v in node.outputs],
                domain=node.domain,
                name=node.name,
                attrs=node.attrs,
                graphs={k: g.copy() for k, g in node.graphs.items()},
                body=node.body.copy() if node.body is not None else None,
                origins=node._origins,
            )
        clone.set_outputs([clone._adopt(v, mapping) for v in self.outputs], self.output_names)
        return clone

    def inline(self, body: "Graph", inputs: Iterable[Value | None], before: Node | None = None) -> tuple[Value, ...]:
        """Copies the nodes of ``body`` into this graph, reading ``inputs`` for the body's inputs; gives its outputs."""
        mapping: dict[Value, Value] = {}
        absent: set[Value] = set()
        for inner, outer in zip(body.inputs, inputs, strict=True):
            if outer is None:
                absent.add(inner)
            else:
                mapping[inner] = outer
        for node in body:
            self.add_node(
                node.op,
                [None if v is None or v in absent else self._adopt(v, mapping) for v in node.inputs],
                [self._adopt(v, mapping) for v in node.outputs],
                domain=node.domain,
                name=node.name,
                attrs=node.attrs,
                graphs={k: g.copy() for k, g in node.graphs.items()},
                body=node.body.copy() if node.body is not None else None,
                before=before,
                origins=node._origins,
            )
        return tuple(self._adopt(v, mapping) for v in body.outputs)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _adopt(self, value: Value, mapping: dict[Value, Value]) -> Value:
        found = mapping.get(value)
        if found is None:
            found = mapping[value] = self.new_value(value.name, value.type)
            found.constant = value.constant
        return found

    def _link(self, node: Node, before: Node | None) -> None:
        node.graph = self
        if before is None:
            node._prev, node._next = self._last, None
            if self._last is None:
                self._first = node
            else:
                self._last._next = node
            self._last = node
        else:
            if before.graph is not self:
                raise ValueError(f"{before!r} is not in this graph")
            node._prev, node._next = before._prev, before
            if before._prev is None:
                self._first = node
            else:
                before._prev._next = node
            before._prev = node
        self._count += 1

    def _unlink(self, node: Node) -> None:
        if node._prev is None:
            self._first = node._next
        else:
            node._prev._next = node._next
        if node._next is None:
            self._last = node._prev
        else:
            node._next._prev = node._prev
        node._prev = node._next = None
        node.graph = None
        self._count -= 1
