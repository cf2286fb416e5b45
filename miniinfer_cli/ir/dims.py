"""Dimensions: a plain int, or a symbolic expression of named sizes (``batch``, ``2*seq+1``, ``floor(h/2)``).

A symbolic dimension is a polynomial with integer coefficients over *atoms*: names, and floor-divisions of such
polynomials. The polynomial is kept in a canonical form, so two expressions that are equal as polynomials compare equal.
Arithmetic with ints and other dimensions gives an int again whenever everything symbolic cancels.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Union


@dataclass(frozen=True, slots=True)
class FloorDiv:
    """``floor(dividend / divisor)`` where the division is not exact for all sizes; an atom of a polynomial."""

    dividend: "Dim"
    divisor: "Dim"

    def __str__(self) -> str:
        return f"floor(({self.dividend})/({self.divisor}))"


class Undecided(Exception):
    """A question about a symbolic dimension whose answer depends on its size: ``seq < 4``, ``int(seq)``."""


Atom = Union[str, FloorDiv]
Monomial = tuple[Atom, ...]  # sorted by text; () is the constant term


@dataclass(frozen=True, slots=True, eq=False)
class Sym:
    """A symbolic dimension: ``terms`` maps monomials to non-zero coefficients and holds at least one atom.

    Built by ``symbol`` and by arithmetic, never directly. Hashable; equal when the polynomials are.
    Comparison with ``==`` to an int is always False (a Sym is by construction not constant). Order is answered
    where it is the same for all sizes (see ``lower_bound``); otherwise it raises Undecided, as conversion to a number does.
    """

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: "Dim") -> "Dim":
        sums = dict(self.terms)
        for monomial, coefficient in _terms(other):
            sums[monomial] = sums.get(monomial, 0) + coefficient
        return _normal(sums)

    def __mul__(self, other: "Dim") -> "Dim":
        products: dict[Monomial, int] = {}
        for m1, c1 in self.terms:
            for m2, c2 in _terms(other):
                monomial = tuple(sorted(m1 + m2, key=str))
                products[monomial] = products.get(monomial, 0) + c1 * c2
        return _normal(products)

    def __neg__(self) -> "Dim":
        return self * -1

    def __sub__(self, other: "Dim") -> "Dim":
        return self + (-other)

    def __rsub__(self, other: int) -> "Dim":
        return (-self) + other

    __radd__ = __add__
    __rmul__ = __mul__

    def __floordiv__(self, other: "Dim") -> "Dim":
        return floor_divide(self, other)

    def __rfloordiv__(self, other: int) -> "Dim":
        return floor_divide(other, self)

    def __mod__(self, other: "Dim") -> "Dim":
        return self - floor_divide(self, other) * other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sym) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self.terms)

    def __bool__(self) -> bool:
        return True

    def __lt__(self, other: object) -> bool:
        return _is_less(self, other)

    def __gt__(self, other: object) -> bool:
        return _is_less(other, self)

    def __le__(self, other: object) -> bool:
        return not _is_less(other, self)

    def __ge__(self, other: object) -> bool:
        return not _is_less(self, other)

    def __index__(self) -> int:
        raise Undecided(f"the size of {self}")

    __int__ = __index__

    def __float__(self) -> float:
        raise Undecided(f"the size of {self}")

    def __str__(self) -> str:
        parts: list[str] = []
        # The text of an atom is made once: making it again to sort by would double the work at each level of nesting.
        texts = [([str(atom) for atom in monomial], coefficient) for monomial, coefficient in self.terms]
        for factors, coefficient in sorted(texts, key=lambda t: (-len(t[0]), t[0])):
            if abs(coefficient) != 1 or not factors:
                factors.insert(0, str(abs(coefficient)))
            sign = "-" if coefficient < 0 else "+" if parts else ""
            parts.append(sign + "*".join(factors))
        return "".join(parts)

    __repr__ = __str__


Dim = Union[int, Sym]


def symbol(name: str) -> Sym:
    """The dimension called ``name``."""
    return Sym((((name,), 1),))


def is_static(shape: Iterable[Dim]) -> bool:
    """True when every dimension is an int."""
    return all(isinstance(d, int) for d in shape)


def product(dims: Iterable[Dim]) -> Dim:
    """The product of ``dims``; 1 for none."""
    result: Dim = 1
    for d in dims:
        result = result * d
    return result


def floor_divide(dividend: Dim, divisor: Dim) -> Dim:
    """``dividend // divisor``, exact where the polynomials divide, else an opaque floor expression."""
    if isinstance(dividend, int) and isinstance(divisor, int):
        return dividend // divisor
    exact = divide_exactly(dividend, divisor)
    if exact is not None:
        return exact
    if isinstance(divisor, int) and isinstance(dividend, Sym):
        # Whole multiples of the divisor come out: floor((2*h+1)/2) = h + floor(1/2).
        out, rest = _normal({}), dict(dividend.terms)
        for monomial, coefficient in dividend.terms:
            quotient, remainder = divmod(coefficient, divisor)
            if quotient:
                out = out + _normal({monomial: quotient})
            rest[monomial] = remainder
        inner = _normal(rest)
        if isinstance(inner, int):
            return out + inner // divisor
        return out + Sym((((FloorDiv(inner, divisor),), 1),))
    return Sym((((FloorDiv(dividend, divisor),), 1),))


def divide_exactly(dividend: Dim, divisor: Dim) -> Dim | None:
    """The polynomial quotient when ``divisor`` is one term (``4``, ``2*seq``) that divides each term; else None."""
    divisor_terms = _terms(divisor)
    if len(divisor_terms) != 1:
        return 1 if dividend == divisor else None
    (monomial, coefficient), quotient = divisor_terms[0], {}
    for m, c in _terms(dividend):
        left = list(m)
        for atom in monomial:
            if atom not in left:
                return None
            left.remove(atom)
        if c % coefficient:
            return None
        quotient[tuple(left)] = c // coefficient
    return _normal(quotient)


def evaluate(dim: Dim, sizes: Mapping[str, int]) -> int | None:
    """``dim`` with every name replaced by its size; None when a name has no size yet."""
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, coefficient in dim.terms:
        value = coefficient
        for atom in monomial:
            if isinstance(atom, str):
                size = sizes.get(atom)
            else:
                dividend, divisor = evaluate(atom.dividend, sizes), evaluate(atom.divisor, sizes)
                size = dividend // divisor if dividend is not None and divisor else None
            if size is None:
                return None
            value *= size
        total += value
    return total


def lower_bound(dim: Dim) -> int | None:
    """A number that ``dim`` is never below, None when none is found.

    A named size is at least 1; one that inference named because it could not be told (``?value.0``) is at least 0.
    """
    if isinstance(dim, int):
        return dim
    bound = _infimum({m: Fraction(c) for m, c in dim.terms})
    return None if bound is None else math.ceil(bound)


def names_in(dim: Dim) -> set[str]:
    """The names that ``dim`` depends on."""
    if isinstance(dim, int):
        return set()
    atoms = {atom for monomial, _ in dim.terms for atom in monomial}
    return {n for a in atoms for n in ([a] if isinstance(a, str) else names_in(a.dividend) | names_in(a.divisor))}


_TOKEN = re.compile(r"\s*(floor\(\(|\d+|[^\s+\-*/()\d,\[\]][^\s+\-*/(),\[\]]*|[+\-*/()])")


def parse_dim(text: str) -> Dim:
    """The dimension written as ``str(dim)`` writes it. Raises ValueError on anything else."""
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != text.replace(" ", "") or not tokens:
        raise ValueError(f"not a dimension: {text!r}")
    dim, rest = _parse_sum(tokens)
    if rest:
        raise ValueError(f"not a dimension: {text!r}")
    return dim


def _parse_sum(tokens: list[str]) -> tuple[Dim, list[str]]:
    total: Dim = 0
    sign = 1
    while True:
        if tokens and tokens[0] in "+-":
            sign = -1 if tokens[0] == "-" else 1
            tokens = tokens[1:]
        value, tokens = _parse_product(tokens)
        total = total + value * sign
        if not tokens or tokens[0] not in "+-":
            return total, tokens


def _parse_product(tokens: list[str]) -> tuple[Dim, list[str]]:
    value: Dim = 1
    while True:
        if not tokens:
            raise ValueError("a dimension ends too early")
        head, tokens = tokens[0], tokens[1:]
        if head == "floor((":
            inner, tokens = _parse_sum(tokens)
            if tokens[:3] != [")", "/", "("]:
                raise ValueError("a floor() in a dimension is malformed")
            divisor, tokens = _parse_sum(tokens[3:])
            if tokens[:2] != [")", ")"] or divisor == 0:
                raise ValueError("a floor() in a dimension is malformed")
            value = value * floor_divide(inner, divisor)
            tokens = tokens[2:]
        elif head.isdigit():
            value = value * int(head)
        elif head in "+-*/()":
            raise ValueError(f"unexpected {head!r} in a dimension")
        else:
            value = value * symbol(head)
        if not tokens or tokens[0] != "*":
            return value, tokens
        tokens = tokens[1:]


def _infimum(terms: Mapping[Monomial, Fraction]) -> Fraction | None:
    """A number that a polynomial with rational coefficients is never below, None when none is found.

    With every name written as its least size plus something that is not negative, the constant term is the bound,
    provided that no other coefficient is negative.
    """
    sums: dict[Monomial, Fraction] = {}
    for monomial, coefficient in _without_floors(terms).items():
        expanded: dict[Monomial, Fraction] = {(): coefficient}
        for atom in monomial:
            least = _least(atom)
            if least is None:
                return None
            raised = {(*m, atom): c for m, c in expanded.items()}
            for m, c in expanded.items():
                raised[m] = raised.get(m, Fraction(0)) + c * least
            expanded = raised
        for m, c in expanded.items():
            key = tuple(sorted(m, key=str))
            sums[key] = sums.get(key, Fraction(0)) + c
    if any(c < 0 for m, c in sums.items() if m):
        return None
    return sums.get((), Fraction(0))


def _without_floors(terms: Mapping[Monomial, Fraction]) -> dict[Monomial, Fraction]:
    """A polynomial that is nowhere above the given one, with each lone ``floor(x / 4)`` replaced by one of its bounds.

    Outer floors go first, so that their insides cancel against the same floor elsewhere: ``x - 2*floor(x/2)`` is >= 0.
    """
    out = dict(terms)
    while True:
        lone = (m[0] for m in out if len(m) == 1)
        floors = [(a, a.divisor) for a in lone if isinstance(a, FloorDiv) and isinstance(a.divisor, int) and a.divisor > 0]
        if not floors:
            return out
        outer, divisor = max(floors, key=lambda pair: _depth(pair[0]))
        coefficient = out.pop((outer,))
        # (x - d + 1) / d <= floor(x / d) <= x / d: the side that makes the term smaller.
        bound = outer.dividend - (divisor - 1 if coefficient > 0 else 0)
        for m, c in _terms(bound):
            out[m] = out.get(m, Fraction(0)) + coefficient * c / divisor
        out = {m: c for m, c in out.items() if c}


def _depth(atom: Atom) -> int:
    if isinstance(atom, str):
        return 0
    return 1 + max((_depth(a) for part in (atom.dividend, atom.divisor) for m, _ in _terms(part) for a in m), default=0)


def _least(atom: Atom) -> Fraction | None:
    if isinstance(atom, str):
        return Fraction(0 if atom.startswith("?") else 1)
    bounds = (lower_bound(atom.dividend), lower_bound(atom.divisor))
    if all(b is not None and b >= 0 for b in bounds):
        return Fraction(0)
    return None


def _is_less(a: object, b: object) -> bool:
    if isinstance(a, (int, Sym)) and isinstance(b, (int, Sym)):
        for difference, limit, answer in ((b - a, 1, True), (a - b, 0, False)):
            bound = lower_bound(difference)
            if bound is not None and bound >= limit:
                return answer
    raise Undecided(f"whether {a} < {b}")


def _terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(dim, Sym):
        return dim.terms
    return (((), int(dim)),) if dim else ()


def _normal(sums: Mapping[Monomial, int]) -> Dim:
    terms = tuple(sorted(((m, c) for m, c in sums.items() if c), key=lambda t: [str(a) for a in t[0]]))
    if not terms:
        return 0
    if len(terms) == 1 and terms[0][0] == ():
        return terms[0][1]
    return Sym(terms)
