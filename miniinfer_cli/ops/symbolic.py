"""Arithmetic on arrays of dtype object whose items are ints and symbolic dimensions: how references follow shapes.

Where the answer depends on the sizes, Undecided is raised, and inference takes the contents for unknown. A named size is
at least 1; one that inference named because it could not tell it (``?value.0``) may be 0.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array, Dim, Sym
from miniinfer_cli.ir.dims import FloorDiv, Monomial, Undecided, divide_exactly, floor_divide

_Terms = dict[Monomial, Fraction]


def lower_bound(dim: Dim) -> int | None:
    """A size that ``dim`` certainly reaches, None when none is found. Tight for most shape arithmetic."""
    bound = _lower({m: Fraction(c) for m, c in dim.terms}) if isinstance(dim, Sym) else dim
    return None if bound is None else math.ceil(bound)


def upper_bound(dim: Dim) -> int | None:
    """A size that ``dim`` certainly does not exceed, None when none is found."""
    bound = lower_bound(-dim)
    return None if bound is None else -bound


def is_symbolic(*arrays: Any) -> bool:
    """True when an operand is an array of dtype object, that is of ints and symbolic dimensions (or of strings)."""
    return any(isinstance(a, np.ndarray) and a.dtype == object for a in arrays)


def _is_at_least(a: Dim, b: Dim) -> bool:
    low, high = lower_bound(a - b), upper_bound(a - b)
    if low is not None and low >= 0:
        return True
    if high is not None and high < 0:
        return False
    raise Undecided(f"whether {a} is at least {b}")


def _is_equal(a: Any, b: Any) -> bool:
    if not isinstance(a, Sym) and not isinstance(b, Sym):
        return bool(a == b)
    low, high = lower_bound(a - b), upper_bound(a - b)
    if low == high == 0:
        return True
    if (low is not None and low > 0) or (high is not None and high < 0):
        return False
    raise Undecided(f"whether {a} is {b}")


def _divide(a: Dim, b: Dim) -> Dim:
    if b == 0:
        raise Undecided(f"{a} divided by 0")
    exact = divide_exactly(a, b)
    if exact is not None:
        return exact
    quotient = floor_divide(a if _is_at_least(a, 0) else -a, b if _is_at_least(b, 0) else -b)
    return quotient if _is_at_least(a, 0) == _is_at_least(b, 0) else -quotient


def _modulo(a: Dim, b: Dim) -> Dim:
    if b == 0:
        raise Undecided(f"{a} modulo 0")
    return a - floor_divide(a, b) * b


def _sign(a: Dim) -> int:
    return 0 if a == 0 else 1 if _is_at_least(a, 1) else -1 if _is_at_least(-1, a) else 0


def _elementwise(function: Callable[..., Any], n_inputs: int) -> Callable[..., Array]:
    ufunc = np.frompyfunc(function, n_inputs, 1)
    return lambda *arrays: np.asarray(ufunc(*arrays), dtype=object)


add = _elementwise(lambda a, b: a + b, 2)
subtract = _elementwise(lambda a, b: a - b, 2)
multiply = _elementwise(lambda a, b: a * b, 2)
truncated_divide = _elementwise(_divide, 2)
modulo = _elementwise(_modulo, 2)
truncated_modulo = _elementwise(lambda a, b: a - _divide(a, b) * b, 2)
minimum = _elementwise(lambda a, b: b if _is_at_least(a, b) else a, 2)
maximum = _elementwise(lambda a, b: a if _is_at_least(a, b) else b, 2)
equal = _elementwise(_is_equal, 2)
less = _elementwise(lambda a, b: not _is_at_least(a, b), 2)
less_or_equal = _elementwise(lambda a, b: _is_at_least(b, a), 2)
negative = _elementwise(lambda a: -a, 1)
absolute = _elementwise(lambda a: a if _is_at_least(a, 0) else -a, 1)
sign = _elementwise(_sign, 1)


def _lower(terms: _Terms) -> Fraction | None:
    """The infimum, or something below it, of a polynomial with rational coefficients over names and floor-divisions."""
    plain: _Terms = {}
    constant: Fraction = Fraction(0)
    todo = dict(terms)
    while todo:
        monomial, coefficient = todo.popitem()
        floors = [a for a in monomial if isinstance(a, FloorDiv)]
        if not floors:
            plain[monomial] = plain.get(monomial, Fraction(0)) + coefficient
        elif len(monomial) == 1 and isinstance(floors[0].divisor, int) and floors[0].divisor > 0:
            # (x - d + 1) / d <= floor(x / d) <= x / d: take the side that makes the term smaller.
            dividend, divisor = floors[0].dividend, floors[0].divisor
            slack = divisor - 1 if coefficient > 0 else 0
            shifted = dividend - slack
            for m, c in shifted.terms if isinstance(shifted, Sym) else (((), shifted),):
                todo[m] = todo.get(m, Fraction(0)) + coefficient * c / divisor
        else:
            factors = [_atom_lower(a) for a in monomial]
            if coefficient < 0 or any(f is None or f < 0 for f in factors):
                return None
            constant += coefficient * math.prod((f for f in factors if f is not None), start=Fraction(1))
    # With every name written as its least size plus something that is not negative, the constant term is the least
    # value, provided that no other term can pull below it.
    shifted_terms: _Terms = {}
    for monomial, coefficient in plain.items():
        expanded: _Terms = {(): coefficient}
        for name in monomial:
            least = _atom_lower(name) or Fraction(0)
            raised: _Terms = {}
            for m, c in expanded.items():
                longer = tuple(sorted((*m, name), key=str))
                raised[longer] = raised.get(longer, Fraction(0)) + c
                raised[m] = raised.get(m, Fraction(0)) + c * least
            expanded = raised
        for m, c in expanded.items():
            shifted_terms[m] = shifted_terms.get(m, Fraction(0)) + c
    if any(c < 0 for m, c in shifted_terms.items() if m):
        return None
    return constant + shifted_terms.get((), Fraction(0))


def _atom_lower(atom: Any) -> Fraction | None:
    if isinstance(atom, FloorDiv):
        return _lower({(atom,): Fraction(1)}) if isinstance(atom.divisor, int) else None
    return Fraction(0 if atom.startswith("?") else 1)
