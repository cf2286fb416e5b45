"""Decomposed activations -> one node each: Gelu (erf and tanh), Swish, HardSwish, Mish, in any algebraic form.

Each is a polynomial over its input ``x`` and one inner function of ``x`` (Erf, Tanh, Sigmoid, HardSigmoid, a Clip). The
recogniser starts at the inner function, guesses ``x`` among what feeds it, and climbs from its output until the polynomial
is the one wanted.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.ir import Graph, Node, TensorType, Value
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.operands import same_type, scalar, sole_user
from miniinfer_cli.passes.polynomial import Monomial, Polynomial, close, matches, monomial, polynomial

_CLIMB = 6  # nodes between the inner function and the product that ends the formula
_DEPTH = 5  # nodes between x and the inner function


@dataclass(frozen=True, slots=True)
class _Found:
    """What the inner function tells: ``x``, the node to put in, and the polynomial that the whole formula must be."""

    x: Value
    op: str
    attrs: dict[str, Any]
    whole: Mapping[Monomial, float]


def recognize_activations(graph: Graph) -> int:
    """Replaces every decomposed activation by its ONNX node, one type at input and output."""
    fired = 0
    for node in graph.nodes:
        if node in graph and not node.domain and node.op in _INNER:
            fired += any(_rewrite(graph, node, found) for found in _INNER[node.op](node))
    return fired


def _rewrite(graph: Graph, inner: Node, found: _Found) -> bool:
    value = inner.output
    for _ in range(_CLIMB):
        user = _climb(graph, value)
        if user is None:
            return False
        value = user.output
        is_read = bool(value.users) or graph.is_output(value)
        if is_read and same_type(value, found.x) and _is(polynomial(value, (found.x, inner.output)), found.whole, found.x):
            graph.replace_node(user, [insert(graph, found.op, found.x, before=user, out=value.name, **found.attrs)])
            return True
    return False


def _climb(graph: Graph, value: Value) -> Node | None:
    """The next node of the formula: the only reader of ``value``, as long as it is arithmetic."""
    user = sole_user(graph, value)
    return user if user is not None and user.is_op("Add", "Sub", "Mul", "Div", "Sum") else None


def _erf(node: Node) -> Iterator[_Found]:
    """Gelu: x/2 (1 + erf(x / sqrt 2))."""
    e = node.output
    for x, factor in _scaled(node.inputs[0]):
        if _is_number(factor, math.sqrt(0.5), x):
            yield _Found(x, "Gelu", {}, {monomial(x): 0.5, monomial(x, e): 0.5})


def _tanh(node: Node) -> Iterator[_Found]:
    """Gelu by tanh: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))); Mish: x tanh(softplus(x))."""
    t = node.output
    feed = node.inputs[0]
    assert feed is not None
    x = _softplus_operand(feed)
    if x is not None:
        yield _Found(x, "Mish", {}, {monomial(x, t): 1.0})
        return
    root = math.sqrt(2 / math.pi)
    for x in _feeding(feed):
        if _is(polynomial(feed, (x,)), {monomial(x): root, monomial(x, x, x): root * 0.044715}, x):
            yield _Found(x, "Gelu", {"approximate": "tanh"}, {monomial(x): 0.5, monomial(x, t): 0.5})
            return


def _softplus_operand(value: Value) -> Value | None:
    """``x`` when ``value`` is softplus(x), also written as Where(x > 20, x, softplus(x)): above 20 the two are one f32."""
    node = value.producer
    if node is not None and node.is_op("Where"):
        test, x, plus = node.inputs
        greater = test.producer if test is not None else None
        if x is None or plus is None or greater is None or not greater.is_op("Greater") or greater.inputs[0] is not x:
            return None
        threshold = scalar(greater.inputs[1])
        return x if threshold is not None and threshold >= 20 and _softplus_operand(plus) is x else None
    return node.inputs[0] if node is not None and node.is_op("Softplus") else None


def _sigmoid(node: Node) -> Iterator[_Found]:
    """Swish: x sigmoid(alpha x)."""
    for x, factor in _scaled(node.inputs[0]):
        yield _Found(x, "Swish", {} if factor == 1.0 else {"alpha": factor}, {monomial(x, node.output): 1.0})


def _hard_sigmoid(node: Node) -> Iterator[_Found]:
    """HardSwish: x hardsigmoid(x) with slope 1/6 and offset 1/2."""
    (x,) = node.inputs
    slope, offset = node.attrs.get("alpha", 0.2), node.attrs.get("beta", 0.5)
    if x is not None and _is_number(slope, 1 / 6, x) and offset == 0.5:
        yield _Found(x, "HardSwish", {}, {monomial(x, node.output): 1.0})


def _clip(node: Node) -> Iterator[_Found]:
    """HardSwish: x clip(x + 3, 0, 6) / 6, or x clip(x / 6 + 1/2, 0, 1)."""
    feed, *bounds = node.inputs
    assert feed is not None
    slope = {(0.0, 6.0): 1.0, (0.0, 1.0): 1 / 6}.get(tuple(scalar(b) for b in bounds))
    if slope is not None:
        for x in _feeding(feed):
            if _is(polynomial(feed, (x,)), {monomial(x): slope, (): 3 * slope}, x):
                yield _Found(x, "HardSwish", {}, {monomial(x, node.output): 1 / 6 / slope})
                return


def _scaled(value: Value | None) -> Iterator[tuple[Value, float]]:
    """``value`` as a number times something, for each something on the way up through scalings; the nearest first."""
    assert value is not None
    factor = 1.0
    yield value, factor
    for _ in range(_DEPTH):
        node = value.producer
        if node is None or not node.is_op("Mul", "Div"):
            return
        a, b = node.inputs
        assert a is not None
        assert b is not None
        number = scalar(b)
        if number is None and node.op == "Mul":
            (a, b), number = (b, a), scalar(a)
        if not number:
            return
        factor = factor / number if node.op == "Div" else factor * number
        value = a
        yield value, factor


def _feeding(value: Value) -> Iterator[Value]:
    """The values that ``value`` is computed from by arithmetic, nearest first."""
    level, seen = [value], {value}
    for _ in range(_DEPTH):
        below = []
        for v in level:
            node = v.producer
            if node is None or node.domain or node.op not in ("Add", "Sub", "Mul", "Div", "Pow", "Sum"):
                continue
            for operand in node.inputs:
                if operand is not None and operand not in seen and scalar(operand) is None:
                    seen.add(operand)
                    below.append(operand)
                    yield operand
        level = below


def _is(found: Polynomial | None, wanted: Mapping[Monomial, float], x: Value) -> bool:
    return isinstance(x.type, TensorType) and matches(found, wanted, x.type.dtype)


def _is_number(a: float, b: float, x: Value) -> bool:
    return isinstance(x.type, TensorType) and close(a, b, x.type.dtype)


_INNER: dict[str, Callable[[Node], Iterator[_Found]]] = {
    "Erf": _erf,
    "Tanh": _tanh,
    "Sigmoid": _sigmoid,
    "HardSigmoid": _hard_sigmoid,
    "Clip": _clip,
}
