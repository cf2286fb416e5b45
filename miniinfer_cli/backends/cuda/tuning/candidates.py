"""What may be tried at a site: its tactics, and the ways that libraries know of solving their problems."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain, islice, zip_longest
from typing import Protocol

from engine_format import TacticRecord
from miniinfer_cli.backends.choosing import Chooser, Found
from miniinfer_cli.backends.cuda.choice.deciding import Decision, by_record, emitted, objection
from miniinfer_cli.backends.cuda.choice.makers import maker_of
from miniinfer_cli.backends.cuda.choice.signature import signature
from miniinfer_cli.backends.cuda.contract.problems import Problem, Variant
from miniinfer_cli.backends.cuda.contract.protocols import Libraries
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import Lowered, library_problems
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.tuning.rig import MOST_COPIES
from miniinfer_cli.backends.cuda.tuning.site_graph import site_graph
from miniinfer_cli.ir import Constant, Graph, Node, Type


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is tried.

    ``candidates``: of one signature besides the heuristic's choice; ``variants``: of one library problem; ``variant_s``: seconds
    after which a library is asked for no further one. ``races``: how many signatures, those with the most time first, are tried
    in the plan, each in up to ``raced_each`` ways; others take what was faster alone. ``rounds``: replays of each candidate, of
    at most so many ``copies`` each. ``pairs``: replays of the plan in two versions.
    """

    candidates: int
    variants: int
    variant_s: float
    races: int
    raced_each: int
    rounds: int = 7
    copies: int = MOST_COPIES
    pairs: int = 50


FAST = Effort(candidates=8, variants=8, variant_s=0.5, races=10, raced_each=1)
FULL = Effort(candidates=1000, variants=24, variant_s=20.0, races=1000, raced_each=3)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way of computing a site. ``problem``: what its library solves in the way of ``variant``, where there is one."""

    key: str
    claims: int | None
    maker: str
    variant: Variant | None = None
    problem: Problem | None = None

    @property
    def name(self) -> str:
        """For a person: the key, and the library's way."""
        return self.key if self.variant is None else f"{self.key} {self.variant.brief}"

    def record(self, signature: str) -> TacticRecord:
        """As a table is to give it."""
        opaque = {} if self.variant is None else self.variant.opaque
        return TacticRecord(signature, self.key, self.maker, opaque, claims=self.claims)


class Tunable(Protocol):
    """Places of a program that compute the same, ``labels``, what may be tried there, and how they are computed alone."""

    signature: str
    labels: list[str]

    def candidates(self, target: Target, libraries: Libraries, effort: Effort) -> list[Candidate]:
        """What is tried: the heuristic's choice first."""

    def alone(self) -> tuple[Graph, list[Type | None]]:
        """A graph of one of the places, and the types of its inputs."""

    def fits(self, record: TacticRecord, target: Target) -> str:
        """Why a record that is known of the signature cannot be taken; empty where it can."""


@dataclass(slots=True)
class TunedSite:
    """All nodes of a program that compute the same: the first of them, what it was offered, and what the heuristic took."""

    signature: str
    site: Site
    offered: tuple[Tactic, ...]
    decision: Decision
    labels: list[str]

    def candidates(self, target: Target, libraries: Libraries, effort: Effort) -> list[Candidate]:
        """The heuristic's choice first, then other tactics and the libraries' ways in turns."""
        reference, *others = _by_tactics(self, target)
        ways = (_variants(c, libraries, effort) for c in (reference, *others))
        merged = chain.from_iterable(zip_longest(others, chain.from_iterable(ways)))
        return [reference, *islice((c for c in merged if c is not None), effort.candidates)]

    def alone(self) -> tuple[Graph, list[Type | None]]:
        """A graph of the node."""
        return site_graph(self.site)

    def fits(self, record: TacticRecord, target: Target) -> str:
        """Why the tactic of a record cannot be taken; empty where it can."""
        decision, reason = by_record(Found(record, Chooser.TRIAL), self.offered, target, partial(str, self.signature))
        return reason if decision is None else ""


class RecordsOf:
    """A table of records by signature, which the tuner gives programs to be made by.

    ``asked``: whether a record was found at all. ``refused`` says why one was not taken.
    """

    def __init__(self, records: Mapping[str, TacticRecord]) -> None:
        self._records = records
        self.asked = False
        self.refused: dict[str, str] = {}

    def find(self, signature: str) -> Iterator[Found]:
        """The record of just this signature."""
        record = self._records.get(signature)
        if record is not None:
            self.asked = True
            yield Found(record, Chooser.TRIAL)

    def pass_over(self, found: Found, reason: str) -> None:
        """Notes why."""
        self.refused[found.record.signature] = reason


class Sites:
    """The sites that are met while programs are made for a target, those that compute the same together.

    ``nodes``: of these nodes alone; of all where it is None.
    """

    def __init__(self, target: Target, nodes: Collection[Node] | None = None) -> None:
        self.found: dict[str, TunedSite] = {}
        self.target = replace(target, watch=self._watch)
        """What programs are to be made for, so that their sites are met."""
        self._unwatched = target
        self._nodes = nodes

    def _watch(self, site: Site, offered: Sequence[Tactic], decision: Decision) -> None:
        if self._nodes is not None and site.node not in self._nodes:
            return
        text = signature(site)
        if text in self.found:
            self.found[text].labels.append(site.node.name)
        else:
            site = replace(site, target=self._unwatched)
            self.found[text] = TunedSite(text, site, tuple(offered), decision, [site.node.name])


def collect_sites(
    graph: Graph, inputs: Sequence[Type | None], target: Target, holds: Callable[[Constant], bool]
) -> list[TunedSite]:
    """The sites of a program, but for those of the bodies of control nodes, which it makes when it runs."""
    sites = Sites(target)
    make_program(graph, inputs, sites.target, holds)
    return list(sites.found.values())


def nodes_of_bodies(graph: Graph) -> set[Node]:
    """The nodes of all branches and bodies of a graph's control nodes, and of those within."""
    inner = {n for node in graph for body in node.graphs.values() for n in body}
    deeper = (nodes_of_bodies(body) for node in graph for body in node.graphs.values())
    return inner.union(*deeper)


def _by_tactics(tuned: TunedSite, target: Target) -> list[Candidate]:
    """One candidate for each tactic that may be taken, the heuristic's first."""
    computed = cache(lambda: tuned.signature)
    found: dict[tuple[str, int | None], Candidate] = {}
    chosen = tuned.decision.tactic
    for tactic in (chosen, *tuned.offered):
        place = (tactic.key, tactic.claims)
        if place not in found and (tactic is chosen or not objection(tactic, target, computed)):
            work = emitted(tactic)
            problems = library_problems(work.actions) if isinstance(work, Lowered) else ()
            problem = problems[0] if len(problems) == 1 else None
            found[place] = Candidate(tactic.key, tactic.claims, maker_of(tactic, work, target), problem=problem)
    return list(found.values())


def _variants(candidate: Candidate, libraries: Libraries, effort: Effort) -> Iterator[Candidate]:
    if candidate.problem is not None:
        for variant in libraries.variants(candidate.problem, effort.variants, effort.variant_s):
            yield replace(candidate, variant=variant)
