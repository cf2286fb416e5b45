"""Pointwise arithmetic as polynomials, so that a recogniser sees through the many ways of writing the same formula.

``0.5 * x * (1 + erf)``, ``x * (0.5 * (erf + 1))`` and ``(x + x * erf) / 2`` are one polynomial over the atoms x and erf.
"""

import math
from collections.abc import Collection, Mapping

from miniinfer_cli.ir import DType, Value
from miniinfer_cli.passes.operands import scalar

Monomial = tuple[Value, ...]  # sorted by id; () is the constant term
Polynomial = dict[Monomial, float]

_MAX_TERMS = 12
# How far apart two coefficients may be, relatively, and be the same number written in the type: a few roundings of it.
_CLOSE = {DType.F64: 1e-12, DType.F32: 1e-6, DType.F16: 2e-3, DType.BF16: 1e-2}


def polynomial(value: Value, atoms: Collection[Value]) -> Polynomial | None:
    """``value`` as a polynomial over ``atoms``, or None when it is none (of few terms).

    Goes through Add, Sub, Mul, Div and Pow by numbers, Neg, Sum and numeric constants.
    """
    return _polynomial(value, atoms, {})


def _polynomial(value: Value, atoms: Collection[Value], done: dict[Value, Polynomial | None]) -> Polynomial | None:
    if value in atoms:
        return {(value,): 1.0}
    if value not in done:
        done[value] = None
        done[value] = _computed(value, atoms, done)
    return done[value]


def _computed(value: Value, atoms: Collection[Value], done: dict[Value, Polynomial | None]) -> Polynomial | None:
    number = scalar(value)
    if number is not None:
        return {(): float(number)} if number else {}
    node = value.producer
    if node is None or node.domain or node.op not in _RULES:
        return None
    parts = []
    for operand in node.inputs:
        part = None if operand is None else _polynomial(operand, atoms, done)
        if part is None:
            return None
        parts.append(part)
    result = _RULES[node.op](parts)
    return result if result is not None and len(result) <= _MAX_TERMS else None


def monomial(*values: Value) -> Monomial:
    """The product of ``values`` as a key of a polynomial."""
    return tuple(sorted(values, key=id))


def matches(found: Polynomial | None, wanted: Mapping[Monomial, float], dtype: DType) -> bool:
    """True when both have the same terms with coefficients that are the same as far as ``dtype`` can say."""
    return found is not None and found.keys() == wanted.keys() and all(close(found[m], c, dtype) for m, c in wanted.items())


def close(a: float, b: float, dtype: DType) -> bool:
    """True when two coefficients are the same as far as ``dtype`` can say."""
    return math.isclose(a, b, rel_tol=_CLOSE.get(dtype, 0.0))


def _add(parts: list[Polynomial]) -> Polynomial:
    total: Polynomial = {}
    for part in parts:
        for m, c in part.items():
            total[m] = total.get(m, 0.0) + c
    return {m: c for m, c in total.items() if c}


def _scale(part: Polynomial, factor: float) -> Polynomial:
    return {m: c * factor for m, c in part.items()}


def _multiply(parts: list[Polynomial]) -> Polynomial:
    a, b = parts
    return _add([{tuple(sorted(m1 + m2, key=id)): c1 * c2} for m1, c1 in a.items() for m2, c2 in b.items()])


def _divide(parts: list[Polynomial]) -> Polynomial | None:
    a, b = parts
    return _scale(a, 1 / b[()]) if b.keys() == {()} else None


def _power(parts: list[Polynomial]) -> Polynomial | None:
    base, exponent = parts
    times = exponent.get((), 0.0)
    if exponent.keys() != {()} or times not in (2.0, 3.0):
        return None
    result = _multiply([base, base])
    return result if times == 2.0 else _multiply([result, base])


_RULES = {
    "Add": _add,
    "Sum": _add,
    "Sub": lambda parts: _add([parts[0], _scale(parts[1], -1.0)]),
    "Neg": lambda parts: _scale(parts[0], -1.0),
    "Mul": _multiply,
    "Div": _divide,
    "Pow": _power,
}
