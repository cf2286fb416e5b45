"""Dimensions: a plain int, or a symbolic expression of named sizes (``batch``, ``2*seq+1``, ``floor(h/2)``, ``min(seq,4)``).

A symbolic dimension is a polynomial with integer coefficients over *atoms*: names, floor-divisions of such polynomials, and
parts of them that are kept from being negative: ``max(0, n-2)``. The smaller and the larger of two are written by that alone:
``min(a, b)`` is ``a - max(0, a-b)``. The polynomial is kept in a canonical form, so two expressions that are equal as
polynomials compare equal. Arithmetic with ints and other dimensions gives an int again whenever everything symbolic cancels.

A named size may be anything from 0, unless the symbol says more (``symbol("n", least=1)``).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, Union

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir.bent_lines import BentLine
from miniinfer_cli.ir.dim_atoms import Atom, FloorDiv, Monomial, Name, PositivePart, Terms, names_of
from miniinfer_cli.ir.dim_atoms import terms_of as _terms
from miniinfer_cli.ir.dim_bounds import infimum
from miniinfer_cli.limits import DIMENSION_ATOMS, DIMENSION_DEPTH, DIMENSION_PRODUCT


class Undecided(Exception):
    """A question about a symbolic dimension whose answer depends on its size: ``seq < 4``, ``int(seq)``."""


class UnwieldyDim(Undecided, ModelError):
    """Arithmetic that would give a dimension of too many terms, or of functions too deep within each other."""


@dataclass(frozen=True, slots=True, eq=False)
class Sym:
    """A symbolic dimension: ``terms`` maps monomials to non-zero coefficients and holds at least one atom.

    Built by ``symbol`` and by arithmetic, never directly. Hashable; equal when the polynomials are.
    Comparison with ``==`` to an int is always False (a Sym is by construction not constant). Order is answered
    where it is the same for all sizes (see ``lower_bound``); otherwise it raises Undecided, as conversion to a number does.
    """

    terms: Terms
    atoms: int = field(init=False, repr=False)
    """Names and functions in it, those within functions included, each as often as it stands there."""
    depth: int = field(init=False, repr=False)
    """Functions within each other."""
    is_unwieldy: bool = field(init=False, repr=False)
    """True for one that is better given a name than followed further."""

    def __post_init__(self) -> None:
        """Counts, so that texts, hashes and comparisons, which go through everything, are never made of too much."""
        atoms = depth = 0
        for monomial, _ in self.terms:
            atoms += len(monomial)
            for atom in monomial:
                if not isinstance(atom, str):
                    for part in (atom.dividend, atom.divisor) if isinstance(atom, FloorDiv) else (atom.dim,):
                        if isinstance(part, Sym):
                            atoms += part.atoms
                            depth = max(depth, part.depth + 1)
        if atoms > DIMENSION_PRODUCT.value or depth > 2 * DIMENSION_DEPTH.value:
            raise UnwieldyDim(f"a dimension of {atoms} names, functions {depth} deep, is too long to be computed with")
        object.__setattr__(self, "atoms", atoms)
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "is_unwieldy", atoms > DIMENSION_ATOMS.value or depth > DIMENSION_DEPTH.value)

    def __add__(self, other: "Dim") -> "Dim":
        sums = dict(self.terms)
        for monomial, coefficient in _terms(other):
            sums[monomial] = sums.get(monomial, 0) + coefficient
        return _normal(sums)

    def __mul__(self, other: "Dim") -> "Dim":
        products: dict[Monomial, int] = {}
        if not isinstance(other, int) and len(self.terms) * len(other.terms) > DIMENSION_PRODUCT.value:
            raise UnwieldyDim(f"a product of dimensions of {len(self.terms)} and {len(other.terms)} terms is too long")
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
        return _as_choice(self) or self._as_sum()

    def _as_sum(self) -> str:
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


def symbol(name: str, least: int = 0, most: int | None = None) -> Sym:
    """The dimension called ``name``, which is never below ``least`` nor above ``most``."""
    return Sym((((name if not least and most is None else Name(name, least, most),), 1),))


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
        if _is_choice(inner) and is_natural(inner) and is_natural(divisor - 1 - inner):
            return out
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


def positive_part(dim: Dim) -> Dim:
    """``max(0, dim)``."""
    if isinstance(dim, int):
        return max(dim, 0)
    if is_natural(dim):
        return dim
    if is_natural(-dim):
        return 0
    bent = _as_bent_line(dim)
    if bent is not None:
        return _of_bent_line(*bent)
    factor = math.gcd(*(c for _, c in dim.terms))
    part = _normal({m: c // factor for m, c in dim.terms})
    leading = next(c for m, c in _terms(part) if m)
    if leading < 0:  # max(0, x) = x + max(0, -x): one of the two is written by the other
        return factor * (part + _positive(-part))
    return factor * _positive(part)


def minimum(a: Dim, b: Dim) -> Dim:
    """The smaller of the two."""
    return a - positive_part(a - b)


def maximum(a: Dim, b: Dim) -> Dim:
    """The larger of the two."""
    return a + positive_part(b - a)


def evaluate(dim: Dim, sizes: Mapping[str, int]) -> int | None:
    """``dim`` with every name replaced by its size; None when a name has no size yet."""
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, coefficient in dim.terms:
        value = coefficient
        for atom in monomial:
            size = _evaluate(atom, sizes)
            if size is None:
                return None
            value *= size
        total += value
    return total


@dataclass(frozen=True, slots=True)
class Misfit:
    """A size that does not fit its dimension: ``expected`` is the one that is fixed, or that the dimension has elsewhere."""

    axis: int
    dim: Dim
    size: Dim
    expected: Dim


Size = TypeVar("Size", int, Dim)


def bind(dims: Sequence[Dim], shape: Sequence[Size], sizes: dict[str, Size]) -> Misfit | None:
    """Notes in ``sizes`` what ``shape`` makes of the dimensions that are plain names; the first size that does not fit.

    Both are of one rank; sizes may be dimensions themselves. Dimensions that are computed from names are not looked at.
    """
    for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        name = plain_name(dim)
        if name is None and not isinstance(dim, int):
            continue
        expected = dim if name is None else sizes.setdefault(name, size)
        if expected != size:
            return Misfit(axis, dim, size, expected)
    return None


def plain_name(dim: Dim) -> str | None:
    """The name that ``dim`` is, and nothing else; None for a number and for what is computed from names."""
    if isinstance(dim, int) or len(dim.terms) != 1:
        return None
    ((monomial, coefficient),) = dim.terms
    return monomial[0] if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], str) else None


def lower_bound(dim: Dim, given: Sequence[Dim] = ()) -> int | None:
    """A number that ``dim`` is never below where none of ``given`` is negative; None when none is found."""
    if isinstance(dim, int):
        return dim
    bent = _as_bent_line(dim) if _is_choice(dim) and not given else None
    if bent is not None:
        return bent[1].least(*_ends(bent[0]))
    factor = math.gcd(*(c for _, c in dim.terms))
    bound = infimum(tuple((m, c // factor) for m, c in dim.terms), [_terms(d) for d in given])
    return None if bound is None else math.ceil(bound) * factor


def is_natural(dim: Dim, given: Sequence[Dim] = ()) -> bool:
    """True when ``dim`` is certainly not negative where none of ``given`` is."""
    bound = lower_bound(dim, given)
    return bound is not None and bound >= 0


def assuming(dim: Dim, given: Sequence[Dim]) -> Dim:
    """``dim`` as it can be written where none of ``given`` is negative: ``min(n, 1)`` is 1 where ``n - 1`` is not."""
    if isinstance(dim, int) or not _is_choice(dim):
        return dim
    total: Dim = 0
    for monomial, coefficient in dim.terms:
        term: Dim = coefficient
        for atom in monomial:
            factor: Dim = Sym((((atom,), 1),))
            if isinstance(atom, PositivePart):
                factor = atom.dim if is_natural(atom.dim, given) else 0 if is_natural(-atom.dim, given) else factor
            term = term * factor
        total = total + term
    return total


def names_in(dim: Dim) -> set[str]:
    """The names that ``dim`` depends on."""
    return names_of(_terms(dim))


def _evaluate(atom: Atom, sizes: Mapping[str, int]) -> int | None:
    match atom:
        case FloorDiv():
            dividend, divisor = evaluate(atom.dividend, sizes), evaluate(atom.divisor, sizes)
            return dividend // divisor if dividend is not None and divisor else None
        case PositivePart():
            value = evaluate(atom.dim, sizes)
            return None if value is None else max(value, 0)
    return sizes.get(atom)


def _positive(dim: Dim) -> Dim:
    return Sym((((PositivePart(dim),), 1),))


def _as_bent_line(dim: Sym) -> tuple[Sym, BentLine] | None:
    """``dim`` as a function of a size that all its terms are in, and that size; None where it is not of that kind."""
    choices = [(m, c) for m, c in dim.terms if any(isinstance(atom, PositivePart) for atom in m)]
    straight, start = _apart(_normal({m: c for m, c in dim.terms if (m, c) not in choices}))
    bends: dict[int, int] = {}
    size = None if choices else _primitive(straight)
    for monomial, bend in choices:
        if len(monomial) > 1 or not isinstance(monomial[0], PositivePart):
            return None
        inner, offset = _apart(monomial[0].dim)
        if not isinstance(inner, Sym) or size not in (None, inner) or _is_choice(inner):
            return None
        size, bends[-offset] = inner, bend
    assert size is not None
    slope = _terms(straight)[0][1] // size.terms[0][1] if straight else 0
    return (size, BentLine(start, slope, bends)) if size * slope == straight else None


def _of_bent_line(size: Sym, line: BentLine) -> Dim:
    """The positive part of ``line`` at ``size``."""
    found = line.positive_part(*_ends(size))
    total = found.start + found.slope * size
    for place, bend in found.bends.items():
        total = total + bend * _positive(size - place)
    return total


def _ends(size: Sym) -> tuple[int | None, int | None]:
    """The least and the most that a size without a choice in it may be, as far as they can be told."""
    most = lower_bound(-size)
    return lower_bound(size), None if most is None else -most


def _apart(dim: Dim) -> tuple[Dim, int]:
    """``dim`` without its constant term, and that."""
    constant = next((c for m, c in _terms(dim) if not m), 0)
    return dim - constant, constant


def _primitive(dim: Dim) -> Sym:
    """``dim`` without the number that all its terms have in common, its first one positive."""
    assert isinstance(dim, Sym)
    factor = math.gcd(*(c for _, c in dim.terms))
    return Sym(tuple((m, c // (factor if dim.terms[0][1] > 0 else -factor)) for m, c in dim.terms))


def _is_choice(dim: Sym) -> bool:
    """True when a smaller or larger of two stands in ``dim``."""
    return any(isinstance(atom, PositivePart) for monomial, _ in dim.terms for atom in monomial)


def _as_choice(dim: Sym) -> str | None:
    """``dim`` as ``min(a,b)`` or ``max(a,b)`` where it is that and nothing else."""
    choices = [(m, c) for m, c in dim.terms if any(isinstance(atom, PositivePart) for atom in m)]
    if len(choices) != 1 or len(choices[0][0]) != 1 or abs(choices[0][1]) != 1:
        return None
    ((atom,), sign) = choices[0]
    assert isinstance(atom, PositivePart)
    rest = _normal({m: c for m, c in dim.terms if m != (atom,)})
    return f"{'max' if sign > 0 else 'min'}({rest},{rest + sign * atom.dim})"


def _is_less(a: object, b: object) -> bool:
    if isinstance(a, (int, Sym)) and isinstance(b, (int, Sym)):
        for difference, limit, answer in ((b - a, 1, True), (a - b, 0, False)):
            bound = lower_bound(difference)
            if bound is not None and bound >= limit:
                return answer
    raise Undecided(f"whether {a} < {b}")


def _normal(sums: Mapping[Monomial, int]) -> Dim:
    terms = tuple(sorted(((m, c) for m, c in sums.items() if c), key=lambda t: [str(a) for a in t[0]]))
    if not terms:
        return 0
    if len(terms) == 1 and terms[0][0] == ():
        return terms[0][1]
    return Sym(terms)
