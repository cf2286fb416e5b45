"""A graph of pointwise nodes as a device function ``body(operands..., results&...)`` over elements in storage types."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.cuda.codegen import expressions  # noqa: F401  (registers the emitters)
from miniinfer_cli.backends.cuda.codegen.expressions.registry import Call, find_emitter, literal, narrowed, widened
from miniinfer_cli.backends.cuda.contract.types import HOST_ONLY, c_type, computed_type
from miniinfer_cli.ir import Array, DType, Graph, Node, TensorType, Type, Value

# What a call costs beside an addition, in instructions and so in time to compile.
_COSTS = {
    **dict.fromkeys(("sin", "cos", "tan", "power", "truncated_power", "acos", "asin", "cosh", "sinh"), 16),
    **dict.fromkeys(("absolute", "add", "subtract", "multiply", "maximum", "minimum", "negate", "relu", "leaky_relu"), 1),
}
_COST = 4
_FUNCTION = re.compile(r"math::(\w+)")


@dataclass(frozen=True, slots=True)
class Body:
    """``code`` defines ``MI_DEVICE void body(const T0 x0, ..., R0& y0, ...)``; equal graphs have equal code, whatever the names.

    ``reads`` are the numbers of the graph's inputs that the parameters x0, x1 ... are: those that something reads.
    ``operands`` and ``results`` are the element types; ``weight`` is about the number of operations.
    """

    code: str
    reads: tuple[int, ...]
    operands: tuple[DType, ...]
    results: tuple[DType, ...]
    weight: int


def body_of(graph: Graph, types: dict[Value, Type | None]) -> Body | None:
    """The function ``body`` of ``graph``, whose inputs are the operands.

    None when a node has no expression, or a type is host-only. ``types`` are those of ``infer_graph``. Constants of one
    element become literals; raises ValueError for larger ones, which a kernel must read: make them inputs before.
    """
    kinds = {v: types.get(v, v.type) for v in graph.values()}
    if any(not isinstance(t, TensorType) or t.dtype in HOST_ONLY for t in kinds.values()):
        return None
    writer = _Writer({v: t.dtype for v, t in kinds.items() if isinstance(t, TensorType)})
    reads = tuple(i for i, v in enumerate(graph.inputs) if v.users or v in graph.outputs)
    for k, i in enumerate(reads):
        writer.operand(graph.inputs[i], f"x{k}")
    for node in graph:
        if not writer.node(node):
            return None
    operands = tuple(writer.dtypes[graph.inputs[i]] for i in reads)
    results = tuple(writer.dtypes[v] for v in graph.outputs)
    parameters = [f"const {c_type(d)} x{i}" for i, d in enumerate(operands)]
    parameters += [f"{c_type(d)}& y{i}" for i, d in enumerate(results)]
    lines = [*writer.lines, *(f"y{i} = {writer.stored(v)};" for i, v in enumerate(graph.outputs))]
    text = "".join(f"  {line}\n" for line in lines)
    weight = len(lines) + sum(_COSTS.get(name, _COST) - 1 for name in _FUNCTION.findall(text))
    return Body(f"MI_DEVICE void body({', '.join(parameters)}) {{\n{text}}}\n", reads, operands, results, weight)


def single(node: Node, dtypes: Sequence[DType | None], result: DType, known: dict[int, Array] | None = None) -> Body | None:
    """The function of one node, whose operands are its inputs that are there and not ``known``, which become literals."""
    graph = Graph("one")
    inputs: list[Value | None] = []
    for i, dtype in enumerate(dtypes):
        if dtype is None:
            inputs.append(None)
        elif known and i in known:
            inputs.append(graph.add_constant(known[i]))
        else:
            inputs.append(graph.add_input(f"x{i}", TensorType(dtype, ())))
    output = graph.new_value("y", TensorType(result, ()))
    graph.add_node(node.op, inputs, (output,), domain=node.domain, attrs=node.attrs)
    graph.set_outputs([output])
    return body_of(graph, {})


class _Writer:
    """Lines of the function, and for each value its name in the type computed in and its expression in the storage type."""

    def __init__(self, dtypes: dict[Value, DType]) -> None:
        self.dtypes = dtypes
        self.lines: list[str] = []
        self._wide: dict[Value, str] = {}
        self._stored: dict[Value, str] = {}
        self._known: dict[Value, Array] = {}
        self._count = 0

    def operand(self, value: Value, name: str) -> None:
        self._stored[value] = name

    def node(self, node: Node) -> bool:
        found = find_emitter(node)
        if found is None or len(node.outputs) != 1:
            return False
        emitter, gives_stored = found
        output, dtype = node.output, self.dtypes[node.output]
        call = Call(
            node,
            tuple(None if v is None else self.wide(v) for v in node.inputs),
            tuple(None if v is None else self.stored(v) for v in node.inputs),
            tuple(None if v is None else self.dtypes[v] for v in node.inputs),
            tuple(None if v is None else self._known.get(v) for v in node.inputs),
            dtype,
        )
        expression = emitter(call)
        if gives_stored:
            self._stored[output] = self._name("n", c_type(dtype), expression)
        else:
            self._wide[output] = self._name("v", computed_type(dtype), expression)
        return True

    def wide(self, value: Value) -> str:
        if value not in self._wide:
            dtype = self.dtypes[value]
            if value.constant is not None and value not in self._stored:
                self._wide[value] = literal(self._contents(value), dtype)
            elif c_type(dtype) == computed_type(dtype):
                self._wide[value] = self._stored[value]
            else:
                self._wide[value] = self._name("v", computed_type(dtype), widened(self._stored[value], dtype))
        return self._wide[value]

    def stored(self, value: Value) -> str:
        if value not in self._stored:
            self._stored[value] = narrowed(self.wide(value), self.dtypes[value])
        return self._stored[value]

    def _contents(self, value: Value) -> object:
        assert value.constant is not None
        if value.constant.size != 1:
            raise ValueError(f"constant {value} of {value.constant.size} elements is no literal")
        array = value.constant.array()
        dtype = self.dtypes[value]
        self._known[value] = np.asarray(array)
        if dtype.is_half:
            array = array.astype(np.float32)
        elif dtype.is_integer and dtype.bits < 8:
            array = array.astype(np.int8)
        return array.reshape(-1)[0].item()

    def _name(self, prefix: str, c: str, expression: str) -> str:
        name = f"{prefix}{self._count}"
        self._count += 1
        self.lines.append(f"const {c} {name} = {expression};")
        return name
