"""A tactic: one way of computing a node, as data."""

from collections.abc import Callable
from dataclasses import dataclass

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.problems import Problem
from miniinfer_cli.backends.cuda.contract.steps import Lowered
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.work import Work

REWRITTEN = "rewritten"
"""The key of a tactic by which other nodes do the work."""


def needs_nothing(target: Target) -> str:
    """What a tactic needs that every target has."""
    return ""


@dataclass(frozen=True, slots=True, eq=False)
class Tactic:
    """One way of computing a node, or the first part of a region.

    ``key`` is stable text: the way in a word, then its parameters; tactics of one key differ in ``claims`` alone. ``emit`` builds
    its actions. ``needs`` says what a target lacks for it, nothing where it may be taken; it asks nobody. ``problems`` are what
    libraries must solve for it, prepared when it is chosen. ``claims``: how many nodes of a region's body it does, None for the
    whole node; the rest becomes a region of its own. ``parts``: the keys of tactics of other families that it is made of, which
    may be disabled as its own may.
    """

    key: str
    emit: Callable[[Work], None]
    estimate: Estimate
    needs: Callable[[Target], str] = needs_nothing
    problems: tuple[Problem, ...] = ()
    claims: int | None = None
    parts: tuple[str, ...] = ()


def tactic_of(key: str, make: Callable[[], Lowered], estimate: Estimate) -> Tactic:
    """A tactic whose work is made at once, when it is taken."""
    return Tactic(key, lambda work: work.take(make()), estimate)
