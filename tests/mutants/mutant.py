"""What a mutant is, and what a register must tell so that there can be mutants of its entries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

AWAY = "away"
Function = Callable[..., Any]
Note = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One entry of a register, changed in one way; ``files`` are the tests that name it."""

    family: str
    entry: str
    way: str
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        """What ``--match`` looks at."""
        return f"{self.family}/{self.entry}/{self.way}"

    @property
    def on_numbers(self) -> bool:
        """True when a test must fail because numbers differ."""
        return self.way != AWAY


class Family(Protocol):
    """A register. ``ways`` are what is done to each entry; those of ``may_not_apply`` need not be possible everywhere."""

    name: str
    ways: tuple[str, ...]
    may_not_apply: frozenset[str]

    def entries(self) -> Mapping[str, tuple[str, ...]]:
        """The entries' names, and the test files that name each."""

    def substitute(self, entry: str, make: Callable[[Function], Function]) -> None:
        """Puts ``make(function)`` in the place of an entry's function, for as long as the process lives."""

    def did(self, answer: Any) -> bool:
        """True when the entry's function did something, going by what it returned."""

    def changed(self, entry: str, way: str, function: Function, applied: Note) -> Function:
        """The function that takes an entry's place; it calls ``applied`` when it has changed something."""


def mutants_of(families: Mapping[str, Family]) -> list[Mutant]:
    """Every mutant, family by family."""
    return [
        Mutant(family.name, entry, way, files)
        for family in families.values()
        for entry, files in family.entries().items()
        for way in family.ways
    ]
