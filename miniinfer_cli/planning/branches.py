"""The branches that a graph takes where shapes and small inputs alone decide its Ifs, and the graph with these in their places.

A program is made for a graph with its branches chosen: it holds one branch and no control flow. Which branch is taken, not
the value that decides it, is part of what the program is kept under: a thousand sampling rates of one branch make one program.
What is read from data stays an If, which the host decides when it comes to it.
"""

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine_format.forking import ForkSafeLock
from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.ir import DType, Graph, Node, TensorType, Type, Value
from miniinfer_cli.ops.inference import Types, infer_graph
from miniinfer_cli.ops.interpreter import interpret_node
from miniinfer_cli.ops.registry import lookup
from miniinfer_cli.planning.shape_values import is_small, may_be_shape, shape_inputs

_SMALL = 4096  # elements of a value on the way to a condition
_SHAPES = 64  # sets of input shapes whose branched graphs are kept
_TRIED = 4  # choices of branches that are tried for each graph that is wanted: some do not fit
_CONTENTS = 1024  # contents of small inputs whose decisions are kept


@dataclass(frozen=True, slots=True, eq=False)
class BranchedGraph:
    """A graph with the branches that are taken. ``path`` names the decisions: the same for all inputs that take these branches.

    ``shape_inputs``: see ``shape_values``.
    """

    graph: Graph
    path: Hashable
    shape_inputs: frozenset[int]


class BranchedGraphs:
    """A graph with its branches chosen, for each choice that was asked for. For several threads."""

    def __init__(self, graph: Graph) -> None:
        self._whole = BranchedGraph(graph, (), shape_inputs(graph))
        self._has_choices = any(n.is_op("If") for n in graph)
        self._lock = ForkSafeLock(threading.RLock)
        self._stages: OrderedDict[Hashable, _Stage] = OrderedDict()
        self.host_inputs = self._whole.shape_inputs | (_reaching_ifs(graph) if self._has_choices else frozenset())
        """Numbers of the inputs whose contents may decide shapes or branches: they are wanted on the host."""

    def choose(self, inputs: Sequence[Any], types: Callable[[], Sequence[Type | None]]) -> BranchedGraph:
        """The branched graph for these inputs; ``types`` gives theirs, with shapes and without contents.

        Raises ModelError when the shapes do not go through the graph.
        """
        if not self._has_choices:
            return self._whole
        with self._lock:
            stage = self._first(types())
            path: list[Hashable] = []
            while stage.choices:
                decisions = stage.decide(inputs)
                if not any(d is not None for d in decisions):
                    break
                path.append(decisions)
                stage = stage.after(decisions)
            return BranchedGraph(stage.graph, tuple(path), stage.shape_inputs)

    def possible(self, types: Sequence[Type | None], most: int) -> list[Graph]:
        """Each graph that inputs of these types may choose, at most so many; those that do not fit left out.

        Raises ModelError when the shapes do not go through the graph.
        """
        if not self._has_choices:
            return [self._whole.graph]
        with self._lock:
            return list(itertools.islice(_leaves(self._first(types), iter(range(_TRIED * most))), most))

    def _first(self, types: Sequence[Type | None]) -> "_Stage":
        key = tuple((t.dtype, t.shape) if isinstance(t, TensorType) else str(t) for t in types)
        stage = self._stages.get(key)
        if stage is None:
            stage = self._stages[key] = _Stage(self._whole.graph, tuple(types))
            if len(self._stages) > _SHAPES:
                self._stages.popitem(last=False)
        self._stages.move_to_end(key)
        return stage


class _Stage:
    """A graph with some branches chosen, at one set of input types: its Ifs, and the stages that follow from what they decide."""

    def __init__(self, graph: Graph, types: tuple[Type | None, ...]) -> None:
        self.graph = graph
        self.shape_inputs = shape_inputs(graph)
        self._types = types
        ifs = [n for n in graph if n.is_op("If")]
        inferred = infer_graph(graph, types) if ifs else {}
        self.choices = [_choice(n, graph, inferred) for n in ifs]
        self._read = sorted({i for c in self.choices for i in c.reads})
        self._decided: dict[bytes, tuple[bool | None, ...]] = {}
        self._following: dict[tuple[bool | None, ...], _Stage] = {}

    @property
    def fits(self) -> bool:
        """Whether the types of the inputs go through the graph, which is not looked at where no If is left to ask."""
        try:
            infer_graph(self.graph, self._types)
        except MiniinferError:
            return False
        return True

    def decide(self, inputs: Sequence[Any]) -> tuple[bool | None, ...]:
        """What each If decides; None where something else than these inputs has a say."""
        given = {i: np.asarray(inputs[i]) for i in self._read}
        key = b"".join(a.tobytes() for a in given.values())
        decisions = self._decided.get(key)
        if decisions is None:
            if len(self._decided) >= _CONTENTS:
                self._decided.clear()
            decisions = self._decided[key] = tuple(c.decide(self.graph, given) for c in self.choices)
        return decisions

    def after(self, decisions: tuple[bool | None, ...]) -> "_Stage":
        """The stage at which the decided Ifs are replaced by the branches that they take."""
        stage = self._following.get(decisions)
        if stage is None:
            stage = self._following[decisions] = _Stage(_replaced(self.graph, decisions), self._types)
        return stage

    def all_decisions(self) -> Iterator[tuple[bool | None, ...]]:
        """What the Ifs may decide for any contents of the inputs."""
        return itertools.product(
            *((True, False) if c.nodes is not None and c.known is None else (c.known,) for c in self.choices)
        )


def _leaves(stage: _Stage, tries: Iterator[int]) -> Iterator[Graph]:
    """The graphs that ``stage`` may become, as long as there are ``tries``: each If may double what there is to try."""
    for decisions in stage.all_decisions() if stage.choices else ():
        if any(d is not None for d in decisions):
            if next(tries, None) is None:
                return
            try:
                following = stage.after(decisions)
            except MiniinferError:
                continue  # a branch that does not fit these sizes
            yield from _leaves(following, tries)
        else:
            yield stage.graph
    if not stage.choices and stage.fits:
        yield stage.graph


@dataclass(frozen=True, slots=True)
class _Choice:
    """An If: what its condition is ``known`` to be by shapes alone, or the ``nodes`` that compute it from the small inputs
    ``reads`` and from ``contents``, what is known of others; None for nodes where data have a say.
    """

    condition: Value
    known: bool | None
    nodes: tuple[Node, ...] | None = None
    reads: frozenset[int] = frozenset()
    contents: Mapping[Value, Any] = field(default_factory=dict)

    def decide(self, graph: Graph, inputs: Mapping[int, Any]) -> bool | None:
        if self.known is not None or self.nodes is None:
            return self.known
        values = {**self.contents, **{graph.inputs[i]: inputs[i] for i in self.reads}}
        try:
            with np.errstate(all="ignore"):
                for node in self.nodes:
                    operands = [None if v is None else values[v] for v in node.inputs]
                    values.update(zip(node.outputs, interpret_node(node, operands), strict=False))
            condition = np.asarray(values[self.condition])
        except (MiniinferError, IndexError, ValueError, ArithmeticError):
            return None  # what these contents do not allow is told by the run, which comes to it
        return bool(condition.reshape(-1)[0]) if condition.size == 1 else None


def _choice(node: Node, graph: Graph, types: Types) -> _Choice:
    condition = node.inputs[0]
    assert condition is not None
    known = _contents(condition, types)
    if known is not None:
        return _Choice(condition, bool(known.reshape(-1)[0]) if known.size == 1 else None)
    number_of = {v: i for i, v in enumerate(graph.inputs)}
    contents: dict[Value, Any] = {}
    reads: set[int] = set()
    nodes: list[Node] = []
    seen: set[Value] = set()
    pending = [condition]
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        array = _contents(value, types)
        if array is not None:
            contents[value] = array
        elif value in number_of and _may_decide(value):
            reads.add(number_of[value])
        elif (maker := value.producer) is not None and _is_plain(maker, types):
            nodes.append(maker)
            pending += [v for v in maker.inputs if v is not None]
        else:
            return _Choice(condition, None)
    wanted = set(nodes)
    return _Choice(condition, None, tuple(n for n in graph if n in wanted), frozenset(reads), contents)


def _contents(value: Value, types: Types) -> Any:
    """The contents of a value that follow from shapes alone, None where others have a say."""
    kind = types.get(value, value.type)
    if isinstance(kind, TensorType) and kind.concrete is not None:
        return kind.concrete
    return value.constant.array() if value.constant is not None and value.constant.size <= _SMALL else None


def _is_plain(node: Node, types: Types) -> bool:
    """True for a node of a few numbers that gives the same for the same inputs."""
    if node.graphs or (node.body is None and lookup(node.domain, node.op).random):
        return False
    kinds = [types.get(v) for v in node.outputs]
    return all(isinstance(t, TensorType) and t.is_static and math.prod(t.shape or ()) <= _SMALL for t in kinds)


def _may_decide(value: Value) -> bool:
    """True for a small input of integers or bools."""
    kind = value.type
    return isinstance(kind, TensorType) and (kind.dtype.is_integer or kind.dtype is DType.BOOL) and is_small(value)


def _reaching_ifs(graph: Graph) -> frozenset[int]:
    """Numbers of the small inputs that something within an If may read, or its condition."""
    reaching: set[Value] = set()
    for node in reversed(graph.nodes):
        if node.is_op("If") or any(v in reaching for v in node.outputs):
            reaching.update(v for v in node.inputs if v is not None)
    return frozenset(i for i, v in enumerate(graph.inputs) if v in reaching and (may_be_shape(v) or _may_decide(v)))


def _replaced(graph: Graph, decisions: Sequence[bool | None]) -> Graph:
    """A copy of ``graph`` with the branches in the places of the Ifs that are decided, and without what nobody reads then."""
    graph = graph.copy()
    for node, taken in zip([n for n in graph if n.is_op("If")], decisions, strict=True):
        if taken is not None:
            branch = node.graphs["then_branch" if taken else "else_branch"]
            results = graph.inline(branch, node.inputs[1:], before=node)
            graph.replace_node(node, results[: len(node.outputs)])
    returned = set(graph.outputs)
    for node in reversed(graph.nodes):
        if not any(v.users or v in returned for v in node.outputs):
            graph.remove(node)
    return graph
