"""Shape inference over nodes and graphs, with the contents of small shape-carrying tensors followed along the way.

The same code serves the build, where dimensions may be symbolic, and the making of a program for concrete input shapes,
where everything that depends on shapes alone comes out as ``TensorType.known``.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine_format.layout import MAX_RANK
from miniinfer_cli.errors import MiniinferError, ModelError, ModelTooLarge
from miniinfer_cli.ir import Array, Dim, Graph, Node, TensorType, Type, Value, symbol
from miniinfer_cli.ir.dims import Sym, Undecided, UnwieldyDim, evaluate, names_in
from miniinfer_cli.limits import INFERRED_NODES, KNOWN_CHARACTERS, KNOWN_STEPS, Limits
from miniinfer_cli.ops.agreement import expect_told
from miniinfer_cli.ops.registry import InferGraph, OpDef, lookup

UNKNOWN = symbol("?")
"""What a shape rule puts where a dimension cannot be told; inference gives each a name of its own."""

_MOST_ELEMENTS = 1 << 56  # beyond every memory; bytes of any type are still counted in 64 bits
_KNOWN_LIMIT = 4096  # elements; larger contents are for the constant folder, not for inference

Types = dict[Value, Type | None]


def infer_graph(graph: Graph, inputs: Sequence[Type | None]) -> Types:
    """The type of every value of ``graph`` for these input types. Changes nothing. Raises ModelError naming the node."""
    return Inference(graph.budget.limits).types_of(graph, inputs)


def infer_outputs(graph: Graph, inputs: Sequence[Type | None]) -> tuple[Type | None, ...]:
    """The types of the outputs of ``graph`` for these input types."""
    types = infer_graph(graph, inputs)
    return tuple(types[v] for v in graph.outputs)


def infer_fitting(graph: Graph, inputs: Sequence[Type | None]) -> tuple[Type | None, ...]:
    """``infer_outputs``, with None for what comes after a node that does not fit: of a body that is not run."""
    inference = Inference(graph.budget.limits)
    try:
        inference.types_of(graph, inputs)
    except ModelTooLarge:
        raise
    except ModelError:
        pass  # told when the body is run
    return tuple(inference.found(graph, v) for v in graph.outputs)


def annotate(graph: Graph) -> None:
    """Sets the type of every value from the types of the graph's inputs, in regions and sub-graphs too.

    A sub-graph's values get the types of the last time its node's rule inferred it. When a node does not fit, it and what comes
    after it have no type: passes leave them alone, and a branch may be so.
    """
    inference = Inference(graph.budget.limits)
    try:
        inference.types_of(graph, [v.type for v in graph.inputs])
    finally:
        inference.annotate()


def annotate_node(node: Node, inputs: Sequence[Type | None]) -> tuple[Type | None, ...]:
    """``infer_node`` that sets the types of the values of the node's sub-graphs as ``annotate`` does.

    Raises ModelError that does not name the node: the caller says where it is.
    """
    if not node.graphs:
        return _infer_node(node, inputs, infer_outputs)
    inference = Inference(node.graph.budget.limits if node.graph is not None else Limits())
    try:
        return _infer_node(node, inputs, inference)
    finally:
        inference.annotate()


@dataclass(slots=True)
class _Inferred:
    """What was inferred of a graph: the types of its values, those found until a node did not fit, and what that node said;
    and what was last inferred of each graph inside it.
    """

    graph: Graph
    types: Types
    inner: "dict[Graph, _Inferred]"
    fault: MiniinferError | None = None


class Inference:
    """One inference of a graph with all that is inside it; it is what the rules of If, Loop and Scan infer their sub-graphs with.

    A sub-graph that holds sub-graphs is inferred once for each set of input types: a Loop infers its body again and again until
    no round tells anything new, and those within it would double the work at each level.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._found: dict[Hashable, _Inferred] = {}
        self._nodes = 0
        self._outermost: dict[Graph, _Inferred] = {}
        self._inner = self._outermost

    def __call__(self, graph: Graph, inputs: Sequence[Type | None]) -> tuple[Type | None, ...]:
        """The types of the outputs of a sub-graph for these input types. Raises ModelError naming the node."""
        types = self.types_of(graph, inputs, counted=True)
        return tuple(types[v] for v in graph.outputs)

    def types_of(self, graph: Graph, inputs: Sequence[Type | None], *, counted: bool = False) -> Types:
        """The types of all values of ``graph`` for these input types. Raises ModelError naming the node.

        ``counted``: its nodes count against the limit, as those of what is inferred again and again do.
        """
        key = (graph, tuple(map(_type_key, inputs))) if counted and any(n.graphs for n in graph) else None
        found = self._found.get(key) if key is not None else None
        if found is None:
            self._nodes += len(graph) if counted else 0
            if self._nodes > self._limits.of(INFERRED_NODES):
                raise self._limits.refusal(INFERRED_NODES, "types of sub-graphs are inferred", self._nodes)
            found = self._infer(graph, inputs)
            if key is not None:
                self._found[key] = found
        self._inner[graph] = found
        if found.fault is not None:
            fault = found.fault
            raise type(fault)(fault.message, hint=fault.hint, where=fault.where, details=fault.details)
        return found.types

    def found(self, graph: Graph, value: Value) -> Type | None:
        """The type that was last inferred of a value of the outermost ``graph``; None for one that a fault kept from it."""
        return self._outermost[graph].types.get(value, value.type if value.constant is not None else None)

    def annotate(self) -> None:
        """Sets the types that were inferred last."""
        pending = list(self._outermost.values())
        while pending:
            found = pending.pop()
            for value in (*found.graph.inputs, *(v for node in found.graph for v in node.outputs)):
                found.graph.set_type(value, found.types.get(value))
            pending += found.inner.values()

    def _infer(self, graph: Graph, inputs: Sequence[Type | None]) -> _Inferred:
        found = _Inferred(graph, {}, {})
        around, self._inner = self._inner, found.inner
        try:
            types = found.types
            types.update(zip(graph.inputs, inputs, strict=True))
            for node in graph:
                operands = [None if v is None else _type_of(v, types) for v in node.inputs]
                types.update(zip(node.outputs, infer_node(node, operands, self), strict=True))
            for value in graph.outputs:
                _type_of(value, types)
        except MiniinferError as fault:
            found.fault = fault
        finally:
            self._inner = around
        return found


def _type_key(type: Type | None) -> Hashable:
    """Equal for types that say the same, known contents included."""
    if not isinstance(type, TensorType) or type.known is None:
        return type
    known = type.known
    return (type, known.shape, tuple(known.reshape(-1).tolist()) if known.dtype == object else (known.dtype.str, known.tobytes()))


def infer_node(node: Node, inputs: Sequence[Type | None], subgraphs: InferGraph | None = None) -> tuple[Type | None, ...]:
    """The types of the outputs of ``node`` for these input types. Raises ModelError that names the node.

    ``subgraphs`` is what the rules of If, Loop and Scan infer their sub-graphs with; ``infer_outputs`` when left out.
    """
    infer_inner = subgraphs or infer_outputs
    if node.body is not None:
        if not isinstance(infer_inner, Inference):
            return infer_inner(node.body, inputs)
        types_within = infer_inner.types_of(node.body, inputs)
        return tuple(types_within[v] for v in node.body.outputs)
    try:
        return _infer_node(node, inputs, infer_inner)
    except MiniinferError as error:
        raise error.at(f"node {node.name!r}") from None


def _infer_node(node: Node, inputs: Sequence[Type | None], infer_inner: InferGraph) -> tuple[Type | None, ...]:
    """The types of the outputs of a node that is no region. Raises ModelError that does not name it."""
    try:
        opdef = lookup(node.domain, node.op)
        untyped = frozenset(i for i, (t, v) in enumerate(zip(inputs, node.inputs, strict=True)) if t is None and v is not None)
        if untyped and not node.graphs:
            return (None,) * len(node.outputs)
        types = opdef.infer_types(
            inputs, node.attrs, n_outputs=len(node.outputs), graphs=node.graphs, infer_graph=infer_inner, untyped=untyped
        )
        _check_results(opdef.name, types, len(node.outputs))
        known = _contents(opdef, node, inputs, types)
    except UnwieldyDim:  # sizes that are too long to be followed: a program, which has numbers for them, tells the types
        return (None,) * len(node.outputs)
    named = tuple(_name_unknown(t, v.name) for t, v in zip(types, node.outputs, strict=False))
    if known is not None:
        named = tuple(
            replace(t, known=k) if isinstance(t, TensorType) and t.known is None else t
            for t, k in zip(named, known, strict=False)
        )
    return named


def _check_results(op: str, types: Sequence[Type | None], count: int) -> None:
    """Raises ModelError when a node has more outputs than there are, or one that no array can be, or no memory could hold."""
    if count > len(types):
        raise ModelError(f"{op} has {len(types)} outputs here, the node names {count}")
    for t in types:
        if not isinstance(t, TensorType) or t.shape is None:
            continue
        if len(t.shape) > MAX_RANK:
            raise ModelError(f"{op} gives a tensor of rank {len(t.shape)}, above {MAX_RANK}")
        if any(isinstance(d, int) and d < 0 for d in t.shape):
            raise ModelError(f"{op} gives {t}, which has a negative size", hint="look at the sizes that the node is given")
        # A size of 0 does not count: numpy multiplies the others all the same.
        if math.prod(d for d in t.shape if isinstance(d, int) and d > 0) > _MOST_ELEMENTS:
            raise ModelError(
                f"{op} gives {t}, more than {_MOST_ELEMENTS} elements", hint="look at the sizes that the node is given"
            )


def _type_of(value: Value, types: Types) -> Type | None:
    if value not in types:
        types[value] = value.type  # a constant (or a value nobody made: the verifier's business)
    return types[value]


def _contents(opdef: OpDef, node: Node, inputs: Sequence[Type | None], types: Sequence[Type | None]) -> tuple[Array, ...] | None:
    """The outputs' contents when the inputs' are known and all are small; None otherwise."""
    if opdef.random or node.graphs or not inputs or all(isinstance(t, TensorType) and t.known is not None for t in types):
        return None
    for t in types:
        if not isinstance(t, TensorType) or t.shape is None or not _is_small(t.shape):
            return None
    arrays: list[Any] = []
    concrete = True
    for t in inputs:
        if t is None:
            arrays.append(None)
        elif not isinstance(t, TensorType) or t.known is None or t.known.size > _KNOWN_LIMIT or _is_unwieldy(t.known):
            return None
        else:
            exact = t.concrete
            concrete = concrete and exact is not None
            arrays.append(t.known if exact is None else exact)
    if not concrete and not opdef.symbolic:
        return None
    if not concrete:
        arrays = [a if a is None or a.dtype == object else a.astype(object) for a in arrays]
    if (
        opdef.work is not None
        and opdef.steps(arrays, [t for t in types if isinstance(t, TensorType)], node.attrs) > KNOWN_STEPS.value
    ):
        return None
    try:
        with np.errstate(all="ignore"):
            results = opdef.evaluate(arrays, node.attrs, n_outputs=len(node.outputs), graphs=node.graphs)
    except Undecided:  # the contents hang on the size of a symbolic dimension
        return None
    found = tuple(np.asarray(r, dtype=None if concrete else object) for r in results)
    if any(_is_unwieldy(a) for a in found):
        return None
    for told, contents in zip(types, found, strict=False) if concrete else ():
        expect_told(opdef.name, contents, told)
    return found


def _is_unwieldy(contents: Array) -> bool:
    """True for sizes, or strings, that are too long to be followed."""
    if contents.dtype != object:
        return False
    if any(isinstance(i, Sym) and i.is_unwieldy for i in contents.flat):
        return True
    return sum(len(i) for i in contents.flat if isinstance(i, (str, bytes))) > KNOWN_CHARACTERS.value


def _is_small(shape: Sequence[Dim]) -> bool:
    size = 1
    for d in shape:
        if not isinstance(d, int):
            return False
        size *= d
    return size <= _KNOWN_LIMIT


def _name_unknown(type: Type | None, name: str) -> Type | None:
    """``type`` with each dimension that could not be told replaced by a name of its own, ``?value.axis``."""
    if not isinstance(type, TensorType) or type.shape is None:
        return type
    axes = [axis for axis, d in enumerate(type.shape) if isinstance(d, Sym) and (d.is_unwieldy or "?" in names_in(d))]
    if not axes:
        return type
    return replace(type, shape=tuple(symbol(f"?{_clean(name)}.{i}") if i in axes else d for i, d in enumerate(type.shape)))


def _clean(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_.:$" else "_" for c in name)


def resolve(type: Type | None, sizes: Mapping[str, int]) -> Type | None:
    """``type`` with every named dimension that ``sizes`` has replaced by its size."""
    if not isinstance(type, TensorType) or type.shape is None:
        return type
    shape = tuple(size if (size := evaluate(d, sizes)) is not None else d for d in type.shape)
    return replace(type, shape=shape)
