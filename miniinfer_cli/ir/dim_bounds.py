"""A number that a polynomial of sizes is never below, whatever the sizes are.

Floor divisions give way to one of their bounds. ``max(0, x)`` is looked at twice: as x where x >= 0, and as 0 where it is not;
what is assumed there narrows what names may be, or makes one name another plus something that is not negative.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from miniinfer_cli.ir.dim_atoms import Atom, FloorDiv, Monomial, Name, PositivePart, Terms, depth, limits, names_of, terms_of

Poly = Mapping[Monomial, Fraction]

_MOST_CASES = 6  # ``max(0, x)`` within each other or side by side that are looked at twice
_MOST_TERMS = 200  # of a polynomial: nothing is told of longer ones
_MOST_PRODUCTS = 2000  # of terms, while something is put in the place of a name
_MOST_VALUES = 4  # sizes that a name may have for them to be tried one by one


def infimum(terms: Terms, given: Sequence[Terms] = ()) -> Fraction | None:
    """A number that the polynomial is never below where those in ``given`` are not negative; None when none is found."""
    if max(map(len, (terms, *given))) > _MOST_TERMS:
        return None
    if not any(isinstance(atom, PositivePart) for m, _ in terms for atom in m):
        return _found(terms, tuple(given))
    # The same questions are asked of every layer of a network. Names compare without what they may be, so that is told besides.
    bounded = {(str(n), *limits(n)) for t in (terms, *given) for n in names_of(t) if isinstance(n, Name)}
    return _remembered(terms, tuple(given), frozenset(bounded))


@functools.lru_cache(maxsize=4096)
def _remembered(terms: Terms, given: tuple[Terms, ...], bounded: frozenset[tuple[str, int, int | None]]) -> Fraction | None:
    return _found(terms, given)


def _found(terms: Terms, given: tuple[Terms, ...]) -> Fraction | None:
    facts: _Facts | None = _Facts()
    try:
        for condition in given:
            facts = None if facts is None else facts.assuming(_poly(condition))
        return None if facts is None else _infimum(_poly(terms), facts, 0)  # no facts: that is never so
    except _TooLong:
        return None


class _TooLong(Exception):
    """Polynomials whose product has more terms than are looked at."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is assumed: the least and the most that names are, and names that are others plus what is not negative."""

    ranges: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    equals: Mapping[str, Poly] = field(default_factory=dict)

    def range_of(self, name: str) -> tuple[int, int | None]:
        return self.ranges.get(name, limits(name))

    def applied(self, poly: Poly) -> Poly:
        """``poly`` without the names that are others."""
        while True:
            name = next((a for m in poly for a in m if isinstance(a, str) and a in self.equals), None)
            if name is None:
                return poly
            poly = _replaced(poly, name, self.equals[name])

    def assuming(self, poly: Poly) -> "_Facts | None":
        """The facts where ``poly`` is not negative, as far as they can be told; None where it always is."""
        poly = self.applied(poly)
        opened = next((a for m in poly for a in m if not isinstance(a, str)), None)
        if opened is not None:
            return self._assuming_opened(poly, opened)
        names = [a for m in poly for a in m if isinstance(a, str)]
        if not names:
            return self if poly.get((), Fraction(0)) >= 0 else None
        if any(len(m) > 1 for m in poly):
            return self
        if len(names) == 1:
            return self._narrowed(names[0], poly[(names[0],)], poly.get((), Fraction(0)))
        for name in names:
            low, high = self.range_of(name)
            if poly[(name,)] == 1 and high is None:
                others = {m: -c for m, c in poly.items() if m != (name,)}
                least = _infimum(others, self, _MOST_CASES)
                if least is not None and least >= low:  # then nothing that is known of the name is lost
                    slack = f"\0{len(self.equals)}"
                    return _Facts(self.ranges, {**self.equals, name: {**others, (slack,): Fraction(1)}})
        return self

    def _narrowed(self, name: str, factor: Fraction, rest: Fraction) -> "_Facts | None":
        """The facts where ``factor * name + rest`` is not negative; None where it always is."""
        low, high = self.range_of(name)
        edge = -rest / factor
        if factor > 0:
            low = max(low, math.ceil(edge))
        else:
            high = math.floor(edge) if high is None else min(high, math.floor(edge))
        return None if high is not None and low > high else _Facts({**self.ranges, name: (low, high)}, self.equals)

    def _assuming_opened(self, poly: Poly, atom: Atom) -> "_Facts | None":
        factor, rest = poly.get((atom,)), {m: c for m, c in poly.items() if m != (atom,)}
        if factor is None or any(atom in m for m in rest):
            return self
        if isinstance(atom, PositivePart) and factor < 0:  # rest >= max(0, x): it is at least both
            inner = self.assuming(rest)
            return None if inner is None else inner.assuming(_sum(rest, _scaled(_poly(terms_of(atom.dim)), factor)))
        if isinstance(atom, FloorDiv) and isinstance(atom.divisor, int) and atom.divisor > 0 and not any(rest.keys()):
            edge = rest.get((), Fraction(0)) / abs(factor)
            inside = _poly(terms_of(atom.dividend))
            if factor > 0:  # floor(x/d) >= -edge
                return self.assuming(_sum(inside, {(): Fraction(math.floor(edge) * atom.divisor)}))
            room = Fraction((math.floor(edge) + 1) * atom.divisor - 1)  # floor(x/d) <= edge
            return self.assuming(_sum({(): room}, _scaled(inside, Fraction(-1))))
        return self


def _infimum(poly: Poly, facts: _Facts, cases: int) -> Fraction | None:
    poly = facts.applied(poly)
    while True:
        if len(poly) > _MOST_TERMS:
            return None
        atom = _outermost(poly, cases < _MOST_CASES)
        if not isinstance(atom, FloorDiv):
            break
        assert isinstance(atom.divisor, int)
        # (x - d + 1) / d <= floor(x / d) <= x / d: the side that makes the term smaller.
        below = atom.divisor - 1 if poly[(atom,)] > 0 else 0
        edge = _scaled(_sum(_poly(terms_of(atom.dividend)), {(): Fraction(-below)}), Fraction(1, atom.divisor))
        poly = facts.applied(_with_bound(poly, atom, edge))
    if atom is None:
        return _least(poly, facts)
    inner = _poly(terms_of(atom.dim))
    bounds: list[Fraction] = []
    for value, condition in ((inner, inner), ({}, _scaled(inner, Fraction(-1)))):
        narrower = facts.assuming(condition)
        if narrower is None:
            continue
        bound = _infimum(_replaced(poly, atom, value), narrower, cases + 1)
        if bound is None:
            return None
        bounds.append(bound)
    return min(bounds, default=None)


def _with_bound(poly: Poly, atom: Atom, bound: Poly) -> Poly:
    """What ``poly`` is never below, with ``bound`` in the place of ``atom``: on the side that the atom's own term asks for.

    Products keep the atom, unless all ask for the same side, and what it is multiplied by is not negative.
    """
    factor, products = poly[(atom,)], {m: c for m, c in poly.items() if atom in m}
    if all(c * factor > 0 and m.count(atom) == 1 and all(a == atom or _is_natural(a) for a in m) for m, c in products.items()):
        return _replaced(poly, atom, bound)
    return _sum({m: c for m, c in poly.items() if m != (atom,)}, _scaled(bound, factor))


def _outermost(poly: Poly, both_cases: bool) -> FloorDiv | PositivePart | None:
    """The atom to open next. Outer ones go first, so that their insides cancel against the same atom elsewhere:
    ``x - 2*floor(x/2)`` is not negative.
    """
    found: list[FloorDiv | PositivePart] = []
    for m in poly:
        for atom in m:
            if isinstance(atom, PositivePart):
                if both_cases:
                    found.append(atom)
            elif isinstance(atom, FloorDiv) and m == (atom,) and isinstance(atom.divisor, int) and atom.divisor > 0:
                found.append(atom)
    return max(found, key=depth, default=None) if len(found) > 1 else next(iter(found), None)


def _least(poly: Poly, facts: _Facts) -> Fraction | None:
    """With every atom written as its least (or its most) and something that is not negative, the constant term is the bound,
    provided that no other coefficient is negative.
    """
    atoms = list(dict.fromkeys(a for m in poly for a in m))
    for name in (a for a in atoms if isinstance(a, str)):
        low, high = facts.range_of(name)
        if high is not None and high - low <= _MOST_VALUES and any(c < 0 for m, c in poly.items() if name in m):
            tried = [_least(_replaced(poly, name, {(): Fraction(n)}), facts) for n in range(low, high + 1)]
            return None if None in tried else min(t for t in tried if t is not None)
    for atom in atoms:
        if isinstance(atom, str):
            low, high = facts.range_of(atom)
            from_above = high is not None and all(c < 0 for m, c in poly.items() if atom in m)
            poly = _shifted(poly, atom, high if from_above and high is not None else low, -1 if from_above else 1)
        elif not _is_natural(atom):
            return None
    return None if any(c < 0 for m, c in poly.items() if m) else poly.get((), Fraction(0))


def _is_natural(atom: Atom) -> bool:
    """True for an atom that is certainly not negative, as every name is."""
    if isinstance(atom, str):
        return True
    if isinstance(atom, FloorDiv):
        bounds = (infimum(terms_of(atom.dividend)), infimum(terms_of(atom.divisor)))
        return all(b is not None and b >= 0 for b in bounds)
    return True


# -- polynomials with rational coefficients ----------------------------------------------------------------------------


def _poly(terms: Terms) -> Poly:
    return {m: Fraction(c) for m, c in terms}


def _sum(a: Poly, b: Poly) -> Poly:
    out = dict(a)
    for m, c in b.items():
        out[m] = out.get(m, Fraction(0)) + c
    return {m: c for m, c in out.items() if c}


def _scaled(a: Poly, factor: Fraction) -> Poly:
    return {m: c * factor for m, c in a.items()}


def _times(a: Poly, b: Poly) -> Poly:
    if len(a) * len(b) > _MOST_PRODUCTS:
        raise _TooLong
    out: dict[Monomial, Fraction] = {}
    for m1, c1 in a.items():
        for m2, c2 in b.items():
            m = tuple(sorted(m1 + m2, key=str)) if m1 and m2 else m1 or m2
            out[m] = out.get(m, Fraction(0)) + c1 * c2
    return {m: c for m, c in out.items() if c}


def _replaced(poly: Poly, atom: Atom, value: Poly) -> Poly:
    """``poly`` with ``value`` in the place of ``atom``, as often as it stands there."""
    out: Poly = {}
    for m, c in poly.items():
        term: Poly = {tuple(a for a in m if a != atom): c}
        for _ in range(m.count(atom)):
            term = _times(term, value)
        out = _sum(out, term)
        if len(out) > _MOST_PRODUCTS:
            raise _TooLong
    return out


def _shifted(poly: Poly, atom: Atom, start: int, step: int) -> Poly:
    """``poly`` with ``start + step * atom`` in the place of ``atom``: what ``atom`` stands for then begins at 0."""
    if not start and step == 1:
        return poly
    return _replaced(poly, atom, {m: c for m, c in {(): Fraction(start), (atom,): Fraction(step)}.items() if c})
