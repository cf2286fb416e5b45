"""Plan -> Graph: the graph that a plan was frozen from, its constants as handles on the bytes of the plan."""

import marshal
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine_format import (
    ArrayRecord,
    GraphRecord,
    MapSpec,
    NodeRecord,
    OptionalSpec,
    Plan,
    PlanError,
    SequenceSpec,
    StoredTensor,
    Tensor,
    TensorSpec,
    TypeSpec,
)
from miniinfer_cli.errors import ModelError, PlanFileError
from miniinfer_cli.ir import Array, Constant, DType, Graph, MapType, Node, OptionalType, SequenceType, TensorType, Type, Value
from miniinfer_cli.ir.arrays import unpack
from miniinfer_cli.ir.constants import ArrayConstant, Index, MappedConstant, Transposed
from miniinfer_cli.ir.dim_text import parse_dim
from miniinfer_cli.ir.dims import Dim
from miniinfer_cli.limits import Budget, Limits
from miniinfer_cli.ops.entry import check_entering
from miniinfer_cli.planning.state_options import read_states

OVERRIDABLE = "overridable"
"""The option of a plan under which the constants stand that are defaults of inputs."""
DERIVED = "derived"
"""The option of a plan that names the nodes which stand for constants: each is a stored one with its axes permuted."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredConstant(Constant):
    """A constant in a plan file, read and checked when something looks at it first.

    ``tensor.offset`` is its place in the weights, in the file and on a device.
    """

    tensor: StoredTensor = field(repr=False)

    def block(self, index: Index) -> Array:
        """The contents at ``index``. Raises PlanFileError when the file is damaged there."""
        try:
            view = self.tensor.view()
        except PlanError as error:
            raise PlanFileError(str(error), hint=error.hint).at(error.path) from None
        return MappedConstant(self.dtype, self.shape, view).block(index)


def thaw(plan: Plan, limits: Limits | None = None) -> Graph:
    """The graph of ``plan``. Reads no large constant; each is a handle on the plan, which must stay open.

    ``limits``: other than the defaults.

    Small constants are looked at, as their contents are part of their types. Raises PlanFileError when the file is
    damaged there, or holds what no graph can, or a node that its operation's declaration does not allow.
    """
    named = plan.report.options.get(DERIVED, ())
    derived = frozenset(n for n in named if isinstance(n, str)) if isinstance(named, (list, tuple)) else frozenset()
    graph = _Thawer([_constant(t) for t in plan.tensors], plan.path, Budget(limits), derived).graph(plan.graph)
    graph.defaults = _defaults(plan, graph)
    graph.states = read_states(plan, graph)
    return graph


def _defaults(plan: Plan, graph: Graph) -> dict[str, Constant]:
    """The constants that the plan's options name as defaults. Raises PlanFileError for one that is not there, or does not fit."""
    named = plan.report.options.get(OVERRIDABLE, {})
    constants = {v.name: v.tensor for v in plan.graph.values if v.tensor is not None}
    inputs = {v.name: v.type for v in graph.inputs}
    defaults: dict[str, Constant] = {}
    for name, value in named.items() if isinstance(named, Mapping) else [("", named)]:
        kind, tensor = inputs.get(name), constants.get(value) if isinstance(value, str) else None
        default = None if tensor is None else _constant(plan.tensors[tensor])
        if default is None or not isinstance(kind, TensorType) or kind.dtype is not default.dtype:
            raise PlanFileError(f"the default of input {name!r} is not in the plan, or of another type").at(plan.path)
        defaults[name] = default
    return defaults


_PLAIN = frozenset({int, float, str, bool})
"""Types of attributes that are in a graph what they are in a plan."""


class _Thawer:
    def __init__(self, constants: Sequence[Constant], path: str, budget: Budget, derived: Collection[str] = ()) -> None:
        self._derived = derived
        self._budget = budget
        self._constants = constants
        self._path = path
        self._checked: set[Hashable] = set()
        self._types: dict[TypeSpec | None, Type | None] = {None: None}
        self._dims: dict[str, Dim] = {}

    def graph(self, record: GraphRecord) -> Graph:
        graph = Graph(record.name, self._budget)
        values: list[Value] = []
        for item in record.values:
            if item.tensor is not None:
                value = graph.new_value(item.name)
                graph.set_constant(value, self._constants[item.tensor])
            else:
                value = graph.new_value(item.name, self._type(item.type))
            values.append(value)
        graph.set_graph_inputs([values[i] for i in record.inputs])
        for node in record.nodes:
            if node.name in self._derived and (form := _transposed(node, values)) is not None:
                graph.set_constant(values[node.outputs[0]], form)
                continue
            added = graph.add_node(
                node.op,
                [None if i is None else values[i] for i in node.inputs],
                [values[i] for i in node.outputs],
                domain=node.domain,
                name=node.name,
                attrs={k: self._attribute(v) for k, v in node.attrs.items()},
                graphs={k: self.graph(g) for k, g in node.graphs.items()},
                body=None if node.body is None else self.graph(node.body),
                origins=node.origins or (node.name,),
            )
            held = _what_is_checked(node)
            if held is None or held not in self._checked:
                self._check(added)
                self._checked.add(held)
        graph.set_outputs([values[i] for i in record.outputs], record.output_names)
        return graph

    def _check(self, node: Node) -> None:
        try:
            check_entering(node)
        except ModelError as error:
            raise PlanFileError(error.message, hint=error.own_hint, where=(*filter(None, (self._path,)), *error.where)) from None

    def _attribute(self, value: Any) -> Any:
        if type(value) in _PLAIN:
            return value
        match value:
            case tuple():
                return list(value) if _PLAIN.issuperset(map(type, value)) else [self._attribute(v) for v in value]
            case ArrayRecord():
                return _array(value)
            case TensorSpec() | SequenceSpec() | OptionalSpec() | MapSpec():
                return self._type(value)
        return value

    def _type(self, spec: TypeSpec | None) -> Type | None:
        if spec not in self._types:
            self._types[spec] = self._new_type(spec)
        return self._types[spec]

    def _new_type(self, spec: TypeSpec | None) -> Type | None:
        match spec:
            case TensorSpec(dtype, dims):
                return TensorType(dtype, None if dims is None else tuple(map(self._dim, dims)))
            case SequenceSpec(element):
                return SequenceType(self._type(element))
            case OptionalSpec(element):
                return OptionalType(self._type(element))
            case MapSpec(key, element):
                return MapType(key, self._type(element))
        return None

    def _dim(self, dim: int | str) -> Dim:
        if isinstance(dim, int):
            return dim
        if dim not in self._dims:
            try:
                self._dims[dim] = parse_dim(dim)
            except ValueError as error:
                raise PlanFileError(f"dimension {dim[:80]!r} cannot be read: {str(error)[:200]}").at(self._path) from None
        return self._dims[dim]


def _transposed(node: NodeRecord, values: Sequence[Value]) -> Constant | None:
    """The constant that a node of ``DERIVED`` stands for; None where it is none that does."""
    given = node.attrs.get("perm")
    perm = tuple(p for p in given if isinstance(p, int)) if isinstance(given, tuple) else ()
    if (node.op, node.domain, len(node.inputs), len(node.outputs)) != ("Transpose", "", 1, 1) or node.inputs[0] is None:
        return None
    source = values[node.inputs[0]].constant
    if source is None or given != perm or sorted(perm) != list(range(len(source.shape))):
        return None
    shape = tuple(source.shape[p] for p in perm)
    made = values[node.outputs[0]]
    return Transposed(source.dtype, shape, source, perm) if made.type == TensorType(source.dtype, shape) else None


def _what_is_checked(node: NodeRecord) -> Hashable:
    """All that the check of a node looks at; None where that is more than plain values, and each is checked by itself.

    Most nodes of a plan are like another. ``marshal`` tells types apart that are equal as values (1, 1.0 and True).
    """
    if node.graphs or node.body is not None:
        return None
    attrs: Any = node.attrs
    if not attrs:
        return node.domain, node.op, len(node.inputs)
    try:
        return node.domain, node.op, len(node.inputs), marshal.dumps(attrs, _NO_REFERENCES)
    except ValueError:  # an array, or a type
        return None


_NO_REFERENCES = 2
"""The version of marshal's format in which equal values of equal types are equal bytes."""


def _constant(tensor: Tensor) -> Constant:
    match tensor:
        case Constant():
            return tensor  # of a plan that was never written
        case StoredTensor():
            return StoredConstant(tensor.dtype, tensor.shape, tensor)
        case ArrayRecord():
            return ArrayConstant(tensor.dtype, tensor.shape, _array(tensor))
    data = b"".join(tensor.chunks())
    return MappedConstant(tensor.dtype, tensor.shape, data)


def _array(record: ArrayRecord) -> Array:
    if record.dtype is DType.STR:
        array = np.empty(len(record.data), dtype=object)
        array[:] = record.data
        return array.reshape(record.shape)
    return unpack(record.data, record.dtype, record.shape)
