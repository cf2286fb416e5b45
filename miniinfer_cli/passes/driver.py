"""Runs passes over a graph and its sub-graphs until none finds anything: timed, counted, and verified when asked."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from miniinfer_cli.errors import MiniinferError, UsageError, nearest
from miniinfer_cli.ir import Graph, Sym, TensorType, Type
from miniinfer_cli.ir.verifier import MalformedGraph, verify
from miniinfer_cli.ops import annotate, infer_graph
from miniinfer_cli.passes.constant_growth import count_constants_again

MAX_ROUNDS = 16


@dataclass(frozen=True, slots=True)
class Pass:
    """A rewrite ``run(graph) -> how many times it fired``, which runs at optimization level ``level`` and above.

    It edits one graph; the driver visits sub-graphs. It leaves types on the values that it makes.
    """

    run: Callable[[Graph], int]
    level: int

    @property
    def name(self) -> str:
        """The name of the function: what ``--disable-pass`` and reports call the pass."""
        return self.run.__name__


@dataclass(frozen=True, slots=True)
class Phase:
    """Passes that are repeated in order until none of them fires any more."""

    name: str
    passes: tuple[Pass, ...]


@dataclass(frozen=True, slots=True)
class PassReport:
    """What one pass did in all its runs: ``fired`` rewrites in ``seconds``."""

    name: str
    fired: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """What an optimization did; ``passes`` in the order of their first runs, those that were not run left out."""

    passes: tuple[PassReport, ...]
    rounds: int
    seconds: float

    def fired(self, name: str) -> int:
        """How often the pass called ``name`` fired; 0 when it was not run."""
        return next((p.fired for p in self.passes if p.name == name), 0)

    def and_then(self, other: "Report") -> "Report":
        """This report and the one of what was done after it, as one."""
        found = {p.name: p for p in self.passes}
        for p in other.passes:
            before = found.get(p.name, PassReport(p.name, 0, 0.0))
            found[p.name] = PassReport(p.name, before.fired + p.fired, before.seconds + p.seconds)
        return Report(tuple(found.values()), self.rounds + other.rounds, self.seconds + other.seconds)


class PassError(Exception):
    """A pass raised or left a malformed graph: a bug of ours. Names the pass and those that changed the graph before it."""


def run_phases(graph: Graph, phases: Sequence[Phase], *, level: int, disabled: Sequence[str] = (), check: bool = False) -> Report:
    """Runs ``phases`` in order on ``graph`` and gives the report.

    With ``check`` the graph and its types are verified after every pass that fired, and a phase that does not settle is
    an error. Raises UsageError for a name in ``disabled`` that no pass has, PassError for a pass that fails.
    """
    expect_passes(phases, disabled)
    start = time.perf_counter()
    place: dict[str, int] = {}
    for within in with_subgraphs(graph):
        for node in within:
            for name in node.known_origins:
                place.setdefault(name, len(place))
    run = _Run(graph, check)
    for phase in phases:
        run.phase(phase.name, [p for p in phase.passes if p.level <= level and p.name not in disabled])
    for within in with_subgraphs(graph):
        within.sort_origins(place)
    passes = tuple(PassReport(name, run.fired[name], run.seconds[name]) for name in run.fired)
    return Report(passes, run.rounds, time.perf_counter() - start)


def expect_passes(phases: Sequence[Phase], names: Sequence[str]) -> None:
    """Raises UsageError for a name that no pass of ``phases`` has."""
    known = list(dict.fromkeys(p.name for phase in phases for p in phase.passes))
    for name in names:
        if name not in known:
            hint = nearest(name, known) or "passes are: " + ", ".join(known)
            raise UsageError(f"there is no pass called {name!r}", hint=hint)


def with_subgraphs(graph: Graph) -> Iterator[Graph]:
    """``graph`` and every sub-graph of its nodes at any depth, outermost first; bodies of regions are not sub-graphs."""
    yield graph
    for node in graph.nodes:
        for inner in node.graphs.values():
            yield from with_subgraphs(inner)


class _Run:
    """The state of one optimization: counts, clocks, and which passes have changed the graph so far."""

    def __init__(self, graph: Graph, check: bool) -> None:
        self.graph = graph
        self.check = check
        self.fired: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.rounds = 0
        self._changes: list[str] = []
        if check:
            verify(graph)
        annotate(graph)

    def phase(self, name: str, passes: Sequence[Pass]) -> None:
        """Repeats ``passes`` until each has run once on the graph as it is without firing."""
        count_constants_again(self.graph)
        settled: dict[str, int] = {}  # pass -> number of changes when it last ran
        for _ in range(MAX_ROUNDS):
            before = len(self._changes)
            self.rounds += 1
            for p in passes:
                if settled.get(p.name) != len(self._changes) and not self._run(p):
                    settled[p.name] = len(self._changes)
            if len(self._changes) == before:
                return
            annotate(self.graph)
        if self.check:
            raise PassError(f"phase {name!r} does not settle in {MAX_ROUNDS} rounds; the last to fire: {self._changes[-8:]}")

    def _run(self, p: Pass) -> int:
        start = time.perf_counter()
        try:
            fired = 0
            for graph in self._graphs(p):
                fired += p.run(graph)
                graph.settle_origins()
            if fired and self.check:
                verify(self.graph)
                _verify_types(self.graph)
        except MiniinferError as error:
            raise error.at(f"pass {p.name}") from error
        except MemoryError:  # the machine's fault, not the pass's
            raise
        except Exception as error:
            after = ", ".join(dict.fromkeys(self._changes)) or "none"
            raise PassError(f"pass {p.name} failed, after the passes that changed the graph: {after}: {error}") from error
        self.seconds[p.name] = self.seconds.get(p.name, 0.0) + time.perf_counter() - start
        self.fired[p.name] = self.fired.get(p.name, 0) + fired
        if fired:
            self._changes.append(p.name)
        return fired

    def _graphs(self, p: Pass) -> Iterator[Graph]:
        """Those that ``p`` visits. A sub-graph with a node that does not fit fails where it is run, and is left as it is."""
        return (g for g in with_subgraphs(self.graph) if p.level == 0 or g is self.graph or _fits(g))


def _fits(graph: Graph) -> bool:
    """Whether every node has a type: one that does not fit, and what comes after it, has none (``annotate``)."""
    return all(v.type is not None for node in graph for v in node.outputs)


def _verify_types(graph: Graph) -> None:
    """Raises MalformedGraph where a value's type contradicts its node's shape rule; it may say less."""
    for value, type in infer_graph(graph, [v.type for v in graph.inputs]).items():
        if value.constant is None and not _agrees(value.type, type):
            raise MalformedGraph(f"{value!r} of {value.producer!r} should be {type}")


def _agrees(type: Type | None, inferred: Type | None) -> bool:
    if not isinstance(type, TensorType) or not isinstance(inferred, TensorType):
        return type == inferred
    if type.dtype is not inferred.dtype or type.shape is None or inferred.shape is None:
        return type.dtype is inferred.dtype and type.shape is None
    return len(type.shape) == len(inferred.shape) and all(
        a == b or isinstance(a, Sym) for a, b in zip(type.shape, inferred.shape, strict=True)
    )
