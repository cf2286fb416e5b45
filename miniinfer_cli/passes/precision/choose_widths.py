"""Which nodes of a graph compute on f32 and which on 16 bits: by what each operation does, and by what each node reads.

A node keeps f32 where it was asked to, where its operation asks for it (``ops/half_floats.py``), where 16 bits cannot hold a
constant that it reads, and where it takes no 16 bits. From there f32 spreads: forward through what hands large numbers on, up to
a product or to an operation whose results are small again; backward to elementwise operations that only such nodes read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Constant, DType, Graph, Node, Numerics, TensorType, Type, Value
from miniinfer_cli.ops.half_floats import Bearing, bearing_of, coordinate_operands, exact_operands, is_product
from miniinfer_cli.ops.inference import infer_node
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.ops.registry import find
from miniinfer_cli.ops.stored_numbers import dequantizing
from miniinfer_cli.passes.operands import dims, scalar
from miniinfer_cli.passes.precision.half_constants import loss_of

MULTIPLIES = "it multiplies numbers of 8 bits"
"""Why such a product keeps f32: so it is one region with what dequantizes its operands; its result is rounded like any other."""
_DIGITS = {DType.F16: 11, DType.BF16: 8}  # whole numbers up to 2 to this power are exact
_KINDS_OF_CONSTANTS = {"beyond": "beyond", "vanishes": "too small for", "coarse": "too small for"}


@dataclass(frozen=True, slots=True)
class Widths:
    """``wide``: the nodes that compute on f32, and why. ``types``: of the results of each other node that reads or makes f32."""

    wide: Mapping[Node, str]
    types: Mapping[Node, tuple[Type | None, ...]]


def choose_widths(graph: Graph, numerics: Numerics) -> Widths:
    """For each node of ``graph`` that reads or makes f32 whether it keeps that. Sub-graphs are not looked into."""
    choice = _Choice(graph, numerics)
    for node in graph:
        choice.forward(node)
    for node in reversed(graph.nodes):
        choice.backward(node)
    return Widths(choice.wide, {n: t for n, t in choice.types.items() if n not in choice.wide})


def is_f32(type: Type | None) -> bool:
    """True for a tensor of f32."""
    return isinstance(type, TensorType) and type.dtype is DType.F32


def with_dtype(type: Type | None, dtype: DType) -> Type | None:
    """A tensor of f32 with the element type ``dtype``; any other type as it is."""
    return replace(type, dtype=dtype, known=None) if isinstance(type, TensorType) and type.dtype is DType.F32 else type


def rounded_operands(node: Node) -> list[tuple[int, Value]]:
    """The operands of f32 that a node on 16 bits reads rounded, by number."""
    exact = exact_operands(node.domain, node.op)
    return [(i, v) for i, v in enumerate(node.inputs) if v is not None and is_f32(v.type) and i not in exact]


@dataclass
class _Choice:
    """``wide``, ``types``: see Widths. ``large``: the nodes whose results may be beyond 16 bits; ``counted``: those whose results
    are whole numbers, or come of nothing else; ``coordinates``: values that are places in an image, or what these are made of.
    """

    graph: Graph
    numerics: Numerics
    wide: dict[Node, str] = field(default_factory=dict)
    large: set[Node] = field(default_factory=set)
    counted: set[Node] = field(default_factory=set)
    types: dict[Node, tuple[Type | None, ...]] = field(default_factory=dict)
    coordinates: set[Value] = field(default_factory=set)
    _losses: dict[Constant, str] = field(default_factory=dict)

    def forward(self, node: Node) -> None:
        """Decides on a node behind all that it reads."""
        if not any(is_f32(v.type) for v in (*node.inputs, *node.outputs) if v is not None) or _leaves_f32(node):
            return
        bearing = bearing_of(node.domain, node.op)
        read = [v for v in node.inputs if v is not None and is_f32(v.type) and v.constant is None]
        if read and all(v.producer in self.counted for v in read) and bearing is not Bearing.BOUNDED:
            self.counted.add(node)
        own, read_large = self._own_reason(node, bearing), self._by_operands(node)
        reason, is_large = own or read_large or self._by_inference(node)
        if reason:
            self.wide[node] = reason
        spreads = is_large or (read_large and bearing is not Bearing.EXACT)
        if reason and spreads and bearing is not Bearing.BOUNDED:
            self.large.add(node)

    def backward(self, node: Node) -> None:
        """Decides on a node in front of all that read it."""
        places = coordinate_operands(node.domain, node.op)
        self.coordinates.update(v for i, v in enumerate(node.inputs) if i in places and v is not None)
        if not self.coordinates.isdisjoint(node.outputs) and self._hands_on(node):
            self.coordinates.update(v for _, v in rounded_operands(node))
            if node not in self.wide and node in self.types:
                self.wide[node] = "coordinates are made of it"
        if node in self.wide or node not in self.types or not is_pointwise(node):
            return
        value = node.output
        if self.numerics.inner and is_f32(value.type) and self.graph.is_output(value):
            self.wide[node] = "a sub-graph returns it"  # which a loop may add to in its next round
            return
        if not is_f32(value.type) or not all(self._reads_f32(u, value) for u in value.users):
            return
        # What is returned is cast behind the node, and what is not read is neither here nor there.
        if node.is_op("Cast") if self.graph.is_output(value) else value.users:
            self.wide[node] = "only nodes of f32 read it"

    def _hands_on(self, node: Node) -> bool:
        """Whether coordinates that a node gives are those that it reads, moved or computed with."""
        opdef = find(node.domain, node.op)
        return is_pointwise(node) or (opdef is not None and (opdef.moves or opdef.view))

    def _reads_f32(self, node: Node, value: Value) -> bool:
        """Whether a node wants ``value`` in f32, or in whatever type it has."""
        if _leaves_f32(node):
            return not (isinstance(node.output.type, TensorType) and node.output.type.dtype.is_float)
        return node in self.wide or all(v is not value for _, v in rounded_operands(node))

    def _own_reason(self, node: Node, bearing: Bearing | None) -> tuple[str, bool] | None:
        """Why the node keeps f32 whatever it reads, and whether its results may be large."""
        half = self.numerics.half
        if self.numerics.asks_to_keep(node.op, node.origins):
            return "asked for", True
        if node.graphs:
            return "sub-graphs keep the types of what goes in and out", False
        if not all(isinstance(v.type, TensorType) for v in (*node.inputs, *node.outputs) if v is not None):
            return "sequences keep their types", False
        if bearing is None:
            return f"what it does to {half} is not known", False
        if _multiplies(node):
            return MULTIPLIES, False
        if bearing is Bearing.EXACT:
            return f"rule for {node.op}: it needs the digits of f32", False
        if (bearing is Bearing.GROWS and not _is_root(node)) or _is_square(node):
            return f"rule for {node.op}: its results may be large", True
        if node.is_op("Cast") and is_f32(node.output.type) and self._is_count(node.inputs[0]):
            self.counted.add(node)
            return f"whole numbers may need more digits than {half} has", True
        if not (node.is_op("Cast", "ConstantOfShape") or any(v is not None and is_f32(v.type) for v in node.inputs)):
            return "it makes f32", False
        return self._by_constants(node)

    def _is_count(self, value: Value | None) -> bool:
        dtype = value.type.dtype if value is not None and isinstance(value.type, TensorType) else None
        return dtype is not None and dtype.is_integer and dtype.bits > _DIGITS[self.numerics.half]

    def _by_constants(self, node: Node) -> tuple[str, bool] | None:
        """Weights of products and tables are another matter: losing those is an error."""
        if holds_weights(node):
            return None
        for _, value in rounded_operands(node):
            loss = "" if value.constant is None else self._loss(value.constant)
            if loss == "beyond" and _is_bound(node):
                continue  # x below an infinity is x below any larger number
            if loss == "coarse" and not node.is_op("Mul", "Div"):
                continue  # as coarse as all numbers of 16 bits that it could be added to
            if loss:
                return f"constant {value.name!r} is {_KINDS_OF_CONSTANTS[loss]} {self.numerics.half}", loss != "coarse"
        return None

    def _loss(self, handle: Constant) -> str:
        if handle not in self._losses:
            self._losses[handle] = loss_of(handle, self.numerics.half)[0]
        return self._losses[handle]

    def _by_operands(self, node: Node) -> tuple[str, bool] | None:
        large = [v for _, v in rounded_operands(node) if v.producer in self.large]
        if not large or (is_product(node.domain, node.op) and not (node in self.counted and _is_outer(node))):
            return None
        return f"it reads {large[0].name!r}, which keeps f32", True

    def _by_inference(self, node: Node) -> tuple[str, bool]:
        """Nothing, and the types of the results, where the node may read 16 bits."""
        half = self.numerics.half
        if node.is_op("Cast", "ConstantOfShape"):
            self.types[node] = tuple(with_dtype(v.type, half) for v in node.outputs)
            return "", False
        rounded = {i for i, _ in rounded_operands(node)}
        operands = [
            None if v is None else with_dtype(v.type, half) if i in rounded else v.type for i, v in enumerate(node.inputs)
        ]
        try:
            found = infer_node(node, operands)
        except ModelError:
            return f"{node.op} takes no {half} there", False
        self.types[node] = tuple(_retyped(v.type, t) for v, t in zip(node.outputs, found, strict=True))
        return "", False


def _multiplies(node: Node) -> bool:
    """Whether a product's operands are numbers of 8 bits or fewer that are dequantized."""
    if not is_product(node.domain, node.op) or len(node.inputs) < 2:
        return False
    stored = [s.inputs[0] for s in map(dequantizing, node.inputs[:2]) if s is not None]
    kinds = [v.type for v in stored if v is not None]
    return len(kinds) == 2 and all(isinstance(k, TensorType) and k.dtype.bits <= 8 for k in kinds)


def _leaves_f32(node: Node) -> bool:
    """A Cast from f32, which takes what it is given."""
    return node.is_op("Cast") and is_f32(node.inputs[0].type if node.inputs[0] is not None else None)


def holds_weights(node: Node) -> bool:
    """Whether a constant of f32 that the node reads is a weight, or a table: of numbers that all count."""
    opdef = find(node.domain, node.op)
    return opdef is not None and (opdef.flops is not None or opdef.moves)


def _retyped(before: Type | None, found: Type | None) -> Type | None:
    """What was known of the type, with the element type that was found."""
    if not isinstance(before, TensorType) or not isinstance(found, TensorType) or before.dtype is found.dtype:
        return before
    return replace(before, dtype=found.dtype, known=None)


def _is_root(node: Node) -> bool:
    """Pow to a constant between 0 and 1 gives no large numbers of others."""
    exponent = scalar(node.inputs[1]) if node.is_op("Pow") else None
    return exponent is not None and 0 <= exponent <= 1


def _is_square(node: Node) -> bool:
    return node.is_op("Mul") and node.inputs[0] is node.inputs[1]


def _is_bound(node: Node) -> bool:
    return node.is_op("Clip", "Min", "Max")


def _is_outer(node: Node) -> bool:
    """A product that sums nothing: positions times frequencies."""
    if node.is_op("Einsum"):
        terms, _, result = str(node.attrs.get("equation", "")).replace(" ", "").partition("->")
        return bool(result) and set(terms) - {","} <= set(result)
    shape = dims(node.inputs[0]) if node.is_op("MatMul") else None
    return shape is not None and len(shape) > 1 and shape[-1] == 1
