"""Graph -> Plan: the graph as the frozen records of a plan, its constants as the handles that they are."""

import dataclasses
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from engine_format import (
    ArrayRecord,
    BuildReport,
    DimensionRange,
    GraphRecord,
    MapSpec,
    NodeRecord,
    OptionalSpec,
    Plan,
    SequenceSpec,
    Tensor,
    TensorSpec,
    TypeSpec,
    ValueRecord,
)
from engine_format.layout import MAX_DIM_TEXT, OP_SETS
from miniinfer_cli.errors import MiniinferError, ModelError
from miniinfer_cli.ir import (
    Constant,
    Dim,
    DType,
    Graph,
    MapType,
    Node,
    OptionalType,
    SequenceType,
    TensorType,
    Type,
    Value,
    dtype_of,
)
from miniinfer_cli.ir.arrays import pack
from miniinfer_cli.ir.constants import as_transposed, content_key
from miniinfer_cli.ir.dim_text import parse_dim
from miniinfer_cli.ir.dims import Sym
from miniinfer_cli.planning.state_options import STATES, stored_states
from miniinfer_cli.planning.thaw import DERIVED, OVERRIDABLE
from miniinfer_cli.version import VERSION


def freeze(
    graph: Graph,
    *,
    ranges: Sequence[DimensionRange] = (),
    options: Mapping[str, Any] | None = None,
    metadata: Any = None,
    passes: Mapping[str, int] | None = None,
) -> Plan:
    """The plan of ``graph``, which is not changed and must not be while the plan is in use.

    ``ranges`` bounds named dimensions. ``options`` (what the build was told), ``metadata`` (what the model says of
    itself: a mapping or a dataclass) and ``passes`` (how often each fired) are recorded; they hold texts, numbers, lists
    and mappings.

    The default of an input is a constant that no node reads; ``options`` name it under ``overridable``, by the input's name.

    Small constants come first among the plan's tensors, then large ones, both in the order of their first use: what a
    program needs to follow shapes then lies in the first chunks of the file.
    Raises ModelError for an attribute or a constant that a plan cannot hold.
    """
    stored, transposed = _stored(graph)
    handles = list(dict.fromkeys(h for h in stored.values() if h not in transposed))
    handles.sort(key=lambda h: not h.is_small)
    number = {h: i for i, h in enumerate(handles)}
    freezer = _Freezer({h: number[own] for h, own in stored.items() if own in number}, transposed)
    record = freezer.graph(graph)
    if freezer.derived:
        options = {**(options or {}), DERIVED: freezer.derived}
    if graph.defaults:
        record, names = freezer.with_defaults(record, graph.defaults)
        options = {**(options or {}), OVERRIDABLE: names}
    if graph.states is not None:
        options = {**(options or {}), STATES: stored_states(graph.states)}
    if dataclasses.is_dataclass(metadata) and not isinstance(metadata, type):
        metadata = dataclasses.asdict(metadata)
    return Plan(
        graph=record,
        tensors=tuple(_tensor(h) for h in handles),
        op_sets={d or "ai.onnx": OP_SETS.get(d or "ai.onnx", 1) for d in sorted(freezer.domains)},
        ranges=tuple(ranges),
        report=BuildReport(f"miniinfer {VERSION}", _plain(options or {}), _plain(metadata or {}), dict(passes or {})),
    )


class _Freezer:
    """``transposed``: constants of the graph itself that are others, by the permutation of their axes.

    ``derived``: the names of the nodes that stand for such.
    """

    def __init__(self, handles: Mapping[Constant, int], transposed: Mapping[Constant, tuple[Constant, tuple[int, ...]]]) -> None:
        self._handles = handles
        self._transposed = transposed
        self.derived: list[str] = []
        self._types: dict[Type | None, TypeSpec | None] = {None: None}
        self._dims: dict[Sym, str] = {}
        self.domains: set[str] = set()

    def graph(self, graph: Graph) -> GraphRecord:
        index: dict[Value, int] = {}
        values: list[ValueRecord] = []
        taken: set[str] = set()
        before: list[NodeRecord] = []
        for value in graph.values():
            if value.constant in self._transposed:
                before.append(self._derive(value, values, taken))
                index[value] = len(values) - 1
                continue
            index[value] = len(values)
            if value.constant is not None:
                tensor = self._handles[value.constant]
                spec: TypeSpec | None = TensorSpec(value.constant.dtype, value.constant.shape)
            else:
                tensor, spec = None, self._spec(value.type)
            values.append(ValueRecord(_unique(value.name, taken), spec, tensor))
        return GraphRecord(
            name=graph.name,
            values=tuple(values),
            inputs=tuple(index[v] for v in graph.inputs),
            outputs=tuple(index[v] for v in graph.outputs),
            output_names=graph.output_names,
            nodes=(*before, *(self._node(n, index) for n in graph)),
        )

    def _derive(self, value: Value, values: list[ValueRecord], taken: set[str]) -> NodeRecord:
        """Adds the constant that ``value`` is a transposed form of, and ``value``; gives the node that makes one of the other."""
        assert value.constant is not None
        source, perm = self._transposed[value.constant]
        name = _unique(value.name, taken)
        kept = TensorSpec(source.dtype, source.shape)
        values.append(ValueRecord(_unique(f"{name}.stored", taken), kept, self._handles[source]))
        values.append(ValueRecord(name, TensorSpec(value.constant.dtype, value.constant.shape), None))
        self.derived.append(_unique(f"{name}.derived", taken))
        self.domains.add("")
        at = len(values)
        return NodeRecord("Transpose", "", self.derived[-1], (at - 2,), (at - 1,), {"perm": perm}, {}, None, ())

    def with_defaults(self, record: GraphRecord, defaults: Mapping[str, Constant]) -> tuple[GraphRecord, dict[str, str]]:
        """The record with a constant for each default, and the names of these by the inputs' names."""
        taken = {v.name for v in record.values}
        names = {name: _unique(f"{name}.default", taken) for name in defaults}
        added = tuple(
            ValueRecord(names[name], TensorSpec(handle.dtype, handle.shape), self._handles[handle])
            for name, handle in defaults.items()
        )
        return dataclasses.replace(record, values=(*record.values, *added)), names

    def _node(self, node: Node, index: Mapping[Value, int]) -> NodeRecord:
        self.domains.add(node.domain)
        try:
            attrs = {k: self._attribute(k, v) for k, v in node.attrs.items()}
        except MiniinferError as error:
            raise error.at(f"node {node.name!r}") from None
        return NodeRecord(
            op=node.op,
            domain=node.domain,
            name=node.name,
            inputs=tuple(None if v is None else index[v] for v in node.inputs),
            outputs=tuple(index[v] for v in node.outputs),
            attrs=attrs,
            graphs={k: self.graph(g) for k, g in node.graphs.items()},
            body=None if node.body is None else self.graph(node.body),
            origins=() if node.origins == (node.name,) else node.origins,
        )

    def _attribute(self, name: str, value: Any) -> Any:
        match value:
            case None | int() | float() | bytes():
                return value
            case str():
                return str(value)
            case np.ndarray():
                return _array(value)
            case np.generic():
                return value.item()
            case TensorType() | SequenceType() | OptionalType() | MapType():
                return self._spec(value)
            case list() | tuple() if not any(isinstance(v, (list, tuple)) for v in value):
                return tuple(self._attribute(name, v) for v in value)
        raise ModelError(f"attribute {name!r} is {type(value).__name__}, which a plan cannot hold")

    def _spec(self, type: Type | None) -> TypeSpec | None:
        if type not in self._types:
            self._types[type] = self._new_spec(type)
        return self._types[type]

    def _new_spec(self, type: Type | None) -> TypeSpec | None:
        match type:
            case TensorType(dtype, shape):
                return TensorSpec(dtype, None if shape is None else tuple(map(self._dim, shape)))
            case SequenceType(element):
                return SequenceSpec(self._spec(element))
            case OptionalType(element):
                return OptionalSpec(self._spec(element))
            case MapType(key, element):
                return MapSpec(key, self._spec(element))
        return None

    def _dim(self, dim: Dim) -> int | str:
        """The text of a dimension; a name for one that is not known where its text could not be read back."""
        if isinstance(dim, int):
            return dim
        if dim not in self._dims:
            text = str(dim)
            self._dims[dim] = text if len(text) <= MAX_DIM_TEXT and _reads_back(text, dim) else f"?{len(self._dims)}"
        return self._dims[dim]


def _stored(graph: Graph) -> tuple[dict[Constant, Constant], dict[Constant, tuple[Constant, tuple[int, ...]]]]:
    """By constant the one that is stored in its place, the same for all of equal contents; and those that are not stored.

    These are large ones that are a stored one with its axes permuted, and that no body or sub-graph reads.
    """
    first: dict[Hashable, Constant] = {}
    stored: dict[Constant, Constant] = {}
    inner: set[Constant] = set()
    for handle, is_inner in (*_constants(graph), *((h, True) for h in graph.defaults.values())):
        if handle not in stored:
            stored[handle] = handle if handle.is_small else first.setdefault(content_key(handle), handle)
        if is_inner:
            inner.add(stored[handle])
    transposed: dict[Constant, tuple[Constant, tuple[int, ...]]] = {}
    for own in first.values():
        form = as_transposed(own)
        source = None if form is None or own in inner else first.get(content_key(form[0]))
        if form is not None and source is not None and source is not own and source not in transposed:
            transposed[own] = source, form[1]
    for handle, own in stored.items():
        if own in transposed:
            transposed[handle] = transposed[own]
    return stored, transposed


def _constants(graph: Graph, inner: bool = False) -> Iterator[tuple[Constant, bool]]:
    """Every handle of ``graph`` in order of first use, bodies and sub-graphs where their node stands; whether it is in such."""
    for node in graph:
        yield from ((v.constant, inner) for v in node.inputs if v is not None and v.constant is not None)
        for graph_of_node in (*((node.body,) if node.body is not None else ()), *node.graphs.values()):
            yield from _constants(graph_of_node, True)
    yield from ((v.constant, inner) for v in graph.outputs if v.constant is not None)


def _tensor(handle: Constant) -> Tensor:
    return _array(handle.array()) if handle.dtype is DType.STR else handle


def _array(array: Any) -> ArrayRecord:
    dtype = dtype_of(array)
    if dtype is DType.STR:
        return ArrayRecord(dtype, array.shape, tuple(_text(s) for s in array.reshape(-1)))
    return ArrayRecord(dtype, array.shape, pack(array, dtype))


def _text(item: Any) -> str:
    return item.decode() if isinstance(item, bytes) else str(item)


def _reads_back(text: str, dim: Sym) -> bool:
    try:
        return parse_dim(text) == dim
    except ValueError:
        return False


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate


def _plain(value: Any) -> Any:
    """Options and metadata with lists for all sequences."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_plain(v) for v in value)
    return value.item() if isinstance(value, np.generic) else value
