"""Header -> GraphRecord, with every rule of graphs checked on the way: indices, order of definition, names, nesting."""

from collections.abc import Sequence
from typing import Any

from engine_format import fields
from engine_format.dtypes import DType
from engine_format.layout import MAX_DEPTH
from engine_format.records import ArrayRecord, Attribute, GraphRecord, NodeRecord, TensorSpec, TypeSpec, ValueRecord
from engine_format.strict import Fault


class GraphDecoder:
    """Decodes graphs over a plan's types and tensors. ``domains`` collects the operator sets of the nodes.

    ``origins`` has those of each node outside of bodies, in the order in which they are decoded; fewer are none. ``listed``: how
    many such nodes there were.
    """

    def __init__(
        self, types: Sequence[TypeSpec | None], tensors: Sequence[TensorSpec], origins: Sequence[tuple[str, ...]] = ()
    ) -> None:
        self._types = types
        self._tensors = tensors
        self._origins = origins
        self._bodies = 0  # around what is decoded
        self.listed = 0
        self.domains: set[str] = set()

    def graph(self, raw: Any, depth: int = 0) -> GraphRecord:
        """A graph. Raises Fault."""
        if depth > MAX_DEPTH:
            raise Fault(f"graphs are nested more than {MAX_DEPTH} deep")
        name, raw_values, raw_inputs, raw_outputs, raw_names, raw_nodes = fields.fields(raw, "a graph", 6)
        values = self._values(raw_values)
        ready = bytearray(v.tensor is not None for v in values)
        inputs = _indices(raw_inputs, len(values), 2)
        _define(inputs, values, ready, 2)
        if type(raw_nodes) is not list:
            raise fields.unexpected("a list", raw_nodes, 5)
        nodes: list[NodeRecord] = []
        for i, raw_node in enumerate(raw_nodes):
            try:
                nodes.append(self._node(raw_node, values, ready, depth))
            except Fault as fault:
                fault.under(5, i)
                raise
        outputs = _indices(raw_outputs, len(values), 3)
        _expect_ready(outputs, values, ready, 3)
        names = fields.sequence(raw_names, fields.text, 4)
        if len(names) != len(outputs):
            raise Fault(f"{len(outputs)} outputs have {len(names)} names", 4)
        if len(set(names)) != len(names):
            raise Fault("two outputs have the same name", 4)
        if 0 in ready:
            lost = ready.index(0)
            raise Fault(f"nothing makes value {values[lost].name!r}", 1, lost)
        return GraphRecord(fields.text(name, 0), values, inputs, outputs, names, tuple(nodes))

    def _values(self, raw: Any) -> tuple[ValueRecord, ...]:
        if type(raw) is not list:
            raise fields.unexpected("a list", raw, 1)
        types, tensors, names = self._types, self._tensors, set[str]()
        values: list[ValueRecord] = []
        for i, item in enumerate(raw):
            if type(item) is not list or len(item) != 3:
                raise fields.unexpected("a value of 3 fields", item, 1, i)
            name, number, tensor = item
            if type(name) is not str:
                raise fields.unexpected("text", name, 1, i, 0)
            if name in names:
                raise Fault(f"two values are named {name!r}", 1, i, 0)
            names.add(name)
            if tensor is not None:
                fields.integer(tensor, 0, len(tensors) - 1, 1, i, 2)
                if number is not None:
                    raise fields.unexpected("nil, as the value is a constant", number, 1, i, 1)
                values.append(ValueRecord(name, tensors[tensor], tensor))
            elif number is None:
                values.append(ValueRecord(name, None))
            else:
                values.append(ValueRecord(name, types[fields.integer(number, 0, len(types) - 1, 1, i, 1)]))
        return tuple(values)

    def _node(self, raw: Any, values: tuple[ValueRecord, ...], ready: bytearray, depth: int) -> NodeRecord:
        op, domain, name, raw_inputs, raw_outputs, raw_attrs, raw_graphs, raw_body = fields.fields(raw, "a node", 8)
        fields.text(op, 0)
        self.domains.add(fields.text(domain, 1))
        fields.text(name, 2)
        origins: tuple[str, ...] = ()
        if not self._bodies:
            origins = self._origins[self.listed] if self.listed < len(self._origins) else ()
            self.listed += 1
        inputs = _optional_indices(raw_inputs, len(values), 3)
        _expect_ready(inputs, values, ready, 3)
        outputs = _indices(raw_outputs, len(values), 4)
        _define(outputs, values, ready, 4)
        attrs = fields.mapping(raw_attrs, _attribute, 5)
        graphs = fields.mapping(raw_graphs, lambda g: self.graph(g, depth + 1), 6) if raw_graphs != {} else {}
        body = None
        if raw_body is not None:
            self._bodies += 1
            try:
                body = self.graph(raw_body, depth + 1)
                if (len(body.inputs), len(body.outputs)) != (len(inputs), len(outputs)):
                    raise Fault(
                        f"a node with {len(inputs)} inputs and {len(outputs)} outputs has a body "
                        f"with {len(body.inputs)} and {len(body.outputs)}"
                    )
            except Fault as fault:
                fault.under(7)
                raise
            self._bodies -= 1
        return NodeRecord(op, domain, name, inputs, outputs, attrs, graphs, body, origins)


def array(raw: Any) -> ArrayRecord:
    """A small tensor that is held whole. Raises Fault."""
    raw_dtype, raw_shape, raw_data = fields.fields(raw, "an array", 3)
    dtype = fields.dtype(raw_dtype, 0)
    shape = fields.shape(raw_shape, dtype, 1)
    record = ArrayRecord(dtype, shape, b"")
    if dtype is DType.STR:
        return ArrayRecord(dtype, shape, strings(raw_data, shape, 2))
    return ArrayRecord(dtype, shape, fields.binary(raw_data, record.nbytes, 2))


def strings(raw: Any, shape: tuple[int, ...], step: int) -> tuple[str, ...]:
    """The elements of a tensor of strings. Raises Fault."""
    items = fields.sequence(raw, fields.text, step)
    count = 1
    for dim in shape:
        count *= dim
    if len(items) != count:
        raise Fault(f"a tensor of {count} strings holds {len(items)}", step)
    return items


def _attribute(raw: Any, depth: int = 0) -> Attribute:
    kind = type(raw)
    if kind is int:
        return fields.number(raw)
    if raw is None or kind in (float, str, bool, bytes):
        result: Attribute = raw
        return result
    if kind is list and depth == 0:
        return fields.sequence(raw, lambda x: _attribute(x, 1))
    if kind is dict and len(raw) == 1:
        ((key, inner),) = raw.items()
        try:
            if key == "array":
                return array(inner)
            if key == "type":
                return fields.type_spec(inner)
        except Fault as fault:
            fault.under(key)
            raise
    raise fields.unexpected("an attribute", raw)


def _indices(raw: Any, count: int, step: int) -> tuple[int, ...]:
    if type(raw) is not list:
        raise fields.unexpected("a list", raw, step)
    for i, index in enumerate(raw):
        if type(index) is not int or not 0 <= index < count:
            raise _no_value(index, count, step, i)
    return tuple(raw)


def _optional_indices(raw: Any, count: int, step: int) -> tuple[int | None, ...]:
    if type(raw) is not list:
        raise fields.unexpected("a list", raw, step)
    for i, index in enumerate(raw):
        if index is not None and (type(index) is not int or not 0 <= index < count):
            raise _no_value(index, count, step, i)
    return tuple(raw)


def _no_value(index: Any, count: int, *path: int) -> Fault:
    if type(index) is int:
        return Fault(f"there is no value {index}, only {count}", *path)
    return fields.unexpected("the index of a value", index, *path)


def _expect_ready(indices: Sequence[int | None], values: Sequence[ValueRecord], ready: bytearray, step: int) -> None:
    for i, index in enumerate(indices):
        if index is not None and not ready[index]:
            raise Fault(f"value {values[index].name!r} is read before anything makes it", step, i)


def _define(indices: Sequence[int], values: Sequence[ValueRecord], ready: bytearray, step: int) -> None:
    for i, index in enumerate(indices):
        if ready[index]:
            raise Fault(f"value {values[index].name!r} is made twice", step, i)
        ready[index] = 1
