"""The names in scope while the nodes of a graph, a function or a sub-graph are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import onnx

from miniinfer_cli.ir import Constant, Graph, Value


class Failed:
    """Stands for a value that a faulty node should have made: its readers are passed over without a fault of their own."""


FAILED = Failed()

Named = Value | Failed | None  # None: an input of a function that the call leaves out
Pending = Callable[[], Constant]  # reads an initializer


@dataclass
class Frame:
    """One scope: names that have a value, initializers that nothing has read yet, and the opsets in force.

    ``outer`` is the scope around a branch that is read into the same graph. ``bindings`` are the attributes of the
    function call being read, None outside functions; ``functions`` are the functions being read, outermost first, and
    ``prefix`` goes before the names of their nodes and values. ``declared`` are the types that the model gives for values.
    A sub-graph's scope is ``lenient``, see ``Call``.
    """

    graph: Graph
    opsets: Mapping[str, int]
    names: dict[str, Named] = field(default_factory=dict)
    pending: dict[str, Pending] = field(default_factory=dict)
    outer: "Frame | None" = None
    bindings: Mapping[str, onnx.AttributeProto] | None = None
    functions: tuple[str, ...] = ()
    prefix: str = ""
    lenient: bool = False
    declared: Mapping[str, onnx.TypeProto] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """True when ``name`` means something here."""
        return self.has_own(name) or (self.outer is not None and self.outer.has(name))

    def has_own(self, name: str) -> bool:
        """True when ``name`` means something here that does not come from the scope around."""
        return name in self.names or name in self.pending

    def find(self, name: str) -> Named:
        """The value called ``name``, which must mean something; an initializer becomes a constant of the graph now."""
        if name in self.names:
            return self.names[name]
        if name in self.pending:
            self.names[name] = FAILED  # stays when the initializer cannot be read: told once
            handle = self.pending.pop(name)()
            value = self.names[name] = self.graph.add_constant(handle, self.prefix + name)
            return value
        if self.outer is None:
            raise KeyError(name)
        return self.outer.find(name)

    def all_names(self) -> list[str]:
        """Every name that means something here, for suggestions."""
        return [*self.names, *self.pending, *(self.outer.all_names() if self.outer is not None else ())]

    def inside(self, graph: Graph) -> "Frame":
        """The scope of a sub-graph, which sees no name of this one."""
        return replace(self, graph=graph, names={}, pending={}, outer=None, lenient=True)

    def branch(self) -> "Frame":
        """The scope of a branch that is read into this graph."""
        return replace(self, names={}, pending={}, outer=self)
