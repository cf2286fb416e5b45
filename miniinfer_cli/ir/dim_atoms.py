"""What symbolic dimensions are polynomials in: named sizes, floor divisions, and parts that are kept from being negative."""

from dataclasses import dataclass
from typing import Any, Union

# An int or a dims.Sym, which is made of what stands here.
Dim = Any


class Name(str):
    """A named size of which more is known than that it is not negative: the least and the most that it may be.

    ``most`` is None where there is no such number. Names compare as texts do: the bounds of one name are the same everywhere.
    """

    __slots__ = ("least", "most")

    least: int
    most: int | None

    def __new__(cls, text: str, least: int = 0, most: int | None = None) -> "Name":
        """The name ``text`` of a size from ``least`` to ``most``."""
        name = super().__new__(cls, text)
        name.least, name.most = least, most
        return name


@dataclass(frozen=True, slots=True)
class FloorDiv:
    """``floor(dividend / divisor)`` where the division is not exact for all sizes."""

    dividend: Dim
    divisor: Dim

    def __str__(self) -> str:
        return f"floor(({self.dividend})/({self.divisor}))"


@dataclass(frozen=True, slots=True)
class PositivePart:
    """``max(0, dim)`` where ``dim`` is negative for some sizes and positive for others."""

    dim: Dim

    def __str__(self) -> str:
        return f"max(0,{self.dim})"


Atom = Union[str, FloorDiv, PositivePart]
Monomial = tuple[Atom, ...]  # sorted by text; () is the constant term
Terms = tuple[tuple[Monomial, int], ...]


def terms_of(dim: Dim) -> Terms:
    """The terms of a dimension, an int's too; none for 0."""
    if isinstance(dim, int):
        return (((), int(dim)),) if dim else ()
    result: Terms = dim.terms
    return result


def names_of(terms: Terms) -> set[str]:
    """The names that the terms depend on."""
    names: set[str] = set()
    for atom in {atom for monomial, _ in terms for atom in monomial}:
        match atom:
            case FloorDiv(dividend, divisor):
                names |= names_of(terms_of(dividend)) | names_of(terms_of(divisor))
            case PositivePart(inner):
                names |= names_of(terms_of(inner))
            case _:
                names.add(atom)
    return names


def limits(name: str) -> tuple[int, int | None]:
    """The least and the most that a named size may be; no size is negative."""
    return (name.least, name.most) if isinstance(name, Name) else (0, None)


def depth(atom: Atom) -> int:
    """How deep atoms are nested in ``atom``: 0 for a name."""
    parts: tuple[Dim, ...]
    match atom:
        case FloorDiv(dividend, divisor):
            parts = (dividend, divisor)
        case PositivePart(dim):
            parts = (dim,)
        case _:
            return 0
    return 1 + max((depth(a) for part in parts for m, _ in terms_of(part) for a in m), default=0)
