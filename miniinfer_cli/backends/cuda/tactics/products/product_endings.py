"""What follows a sum in the kernel that makes it: lines over the sum, and the operands that they read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from miniinfer_cli.backends.cuda.codegen.body import body_of
from miniinfer_cli.backends.cuda.contract.problems import Activation
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.strides import broadcast_strides, merge_axes
from miniinfer_cli.backends.cuda.tactics.products.product_records import Product
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import Finish
from miniinfer_cli.ir import DType, Graph, Node, TensorType, Type, Value
from miniinfer_cli.ir.parts import copy_node, is_literal, reading

QUICK_ACTIVATIONS = frozenset({Activation.RELU, Activation.RELU6})
"""Those that take a few instructions."""
_TAILS = {Activation.NONE: "mi_sum", Activation.RELU: "math::relu(mi_sum)", Activation.GELU_TANH: "math::gelu_tanh(mi_sum)"}


@dataclass(frozen=True, slots=True)
class Following:
    """``nodes``, all that follows a product's ``value`` in a region; the last of them makes the result.

    ``types``: of the region's values. ``places``: where other values lie that the nodes read. ``quick``: whether the nodes take a
    few instructions.
    """

    value: Value
    nodes: Sequence[Node]
    types: Mapping[Value, Type | None]
    places: Mapping[Value, Operand]
    quick: bool = False


def is_one_matrix(p: Product) -> bool:
    """What the kernels for sm_90 do: one product of rows, of halves or f32, with a result of that type or f32."""
    matches = p.a == p.b and (p.a.is_half or p.a is DType.F32) and (p.d == p.a or p.d is DType.F32)
    return not p.batch and not p.transpose_a and p.a_zero is None and p.b_zero is None and matches


@dataclass(slots=True)
class Ending:
    """What follows a sum, as it is put together: lines over ``mi_sum``, and the operands that they read as x0, x1 ..."""

    lines: list[str] = field(default_factory=lambda: ["float mi_sum = s;"])
    operands: list[tuple[Operand, DType, int, int]] = field(default_factory=list)
    adds: bool = False
    plain: bool = False
    quick: bool = False

    def read(self, operand: Operand, dtype: DType, row: int, step: int) -> str:
        """The name of an operand's element: ``row`` elements lie from token to token, ``step`` from feature to feature."""
        self.operands.append((operand, dtype, row, step))
        return f"x{len(self.operands) - 1}"

    @property
    def places(self) -> list[Operand]:
        """Where its operands lie."""
        return [operand for operand, *_ in self.operands]

    def finish(self, body: str) -> Finish:
        """All of it as one text."""
        types, rows, steps = (
            (tuple(column) for column in list(zip(*self.operands, strict=True))[1:]) if self.operands else ((),) * 3
        )
        return Finish(body, "{ " + " ".join(self.lines) + " }", types, steps, rows, self.adds, self.plain, self.quick)

    def scale(self, alpha: float) -> None:
        """The sum times ``alpha``."""
        if alpha != 1:
            self.lines.append(f"mi_sum *= {_literal(alpha)};")

    def add(self, operand: Operand | None, dtype: DType, walk: tuple[int, int] | None, factor: float = 1.0) -> bool:
        """A table times ``factor``, where there is one. False where its columns are neither neighbours nor one."""
        if operand is None or walk is None:
            return True
        if walk[1] not in (0, 1):
            return False
        name = self.read(operand, dtype, *walk)
        self.lines.append(f"mi_sum += widen({name}){'' if factor == 1 else f' * {_literal(factor)}'};")
        return True

    def close(self, product: Product) -> None:
        """The product's activation, and the result."""
        self.adds = self.lines[1:] == ["mi_sum += widen(x0);"] and not product.activation
        self.plain = not self.lines[1:] and not product.activation
        self.quick = not self.lines[1:] and product.activation in QUICK_ACTIVATIONS
        self.lines.append(f"y = narrow<MI_D>({_TAILS[product.activation]});")

    def follow(self, following: Following) -> tuple[str, DType] | None:
        """All that follows the product. Gives the text of functions, and the result's type; None where the nodes are not
        pointwise, or read what no two strides describe.
        """
        value, types, places = following.value, following.types, following.places
        made, result = types[value], types[following.nodes[-1].output]
        if not isinstance(made, TensorType) or not isinstance(result, TensorType) or result.shape != made.shape:
            return None
        graph, outer, kinds = _as_function(value, following.nodes, types)
        if any(v.constant is not None and v.constant.size != 1 for v in graph.constants()):
            return None
        function = body_of(graph, kinds)
        if function is None:
            return None
        names = []
        for number in function.reads:
            read = outer[number]
            walk = None if read is value else _walk(types[read], made)
            if read is value:
                names.append("mi_sum")
            elif walk is None or read not in places:
                return None
            else:
                names.append(self.read(places[read], function.operands[len(names)], *walk))
        self.quick = following.quick and not self.lines[1:]
        self.lines.append(f"body({', '.join(names)}, y);")
        return " ".join(line.strip() for line in function.code.splitlines()), result.dtype


def _literal(number: float) -> str:
    return f"{float(np.float32(number))!r}f"


def _as_function(
    value: Value, rest: Sequence[Node], types: Mapping[Value, Type | None]
) -> tuple[Graph, list[Value], dict[Value, Type | None]]:
    """The nodes as a graph of their own, in which the product's value is f32; what its inputs are outside; types of all."""
    graph = Graph("finish")
    inner: dict[Value, Value] = {}
    outer = [v for v in reading(rest) if not is_literal(v)]
    for one in outer:
        inner[one] = graph.add_input(one.name, types[one])
    for node in rest:
        copy_node(graph, node, inner)
    graph.set_outputs([inner[rest[-1].output]])
    kinds = {mine: types.get(one, one.type) for one, mine in inner.items()}
    kind = types[value]
    assert isinstance(kind, TensorType)
    return graph, outer, {**kinds, inner[value]: replace(kind, dtype=DType.F32)}


def _walk(kind: Type | None, made: TensorType) -> tuple[int, int] | None:
    """Elements of an operand from token to token and from feature to feature; None where no two numbers say that."""
    if not isinstance(kind, TensorType) or kind.shape is None or made.shape is None:
        return None
    shape = [int(n) for n in made.shape]
    walk = broadcast_strides([int(n) for n in kind.shape], shape)
    if walk[-1] not in (0, 1):
        return None
    sizes, (rows,) = merge_axes(shape[:-1], walk[:-1])
    if len(sizes) > 1:
        return None
    return (rows[0] if rows else 0), walk[-1]
