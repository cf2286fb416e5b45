"""How a node gets into a program: decided first, so that what the maker adds follows from a record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from miniinfer_cli.backends.cuda.choice.deciding import Decided, lower
from miniinfer_cli.backends.cuda.choice.tactics import has_tactics
from miniinfer_cli.backends.cuda.contract.expansion import expand_node
from miniinfer_cli.backends.cuda.contract.site import OpenSize, Site
from miniinfer_cli.backends.cuda.contract.steps import Lowered, Rewrite
from miniinfer_cli.backends.cuda.contract.types import HostOnly
from miniinfer_cli.backends.reference import is_same_bytes, place_of, static_tensor
from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.ir import Graph, Node, Type


@dataclass(frozen=True, slots=True)
class ByTactic:
    """By the work of the tactic that was taken."""

    work: Lowered
    decided: Decided


@dataclass(frozen=True, slots=True)
class SameBytes:
    """As its operand, under another shape."""


@dataclass(frozen=True, slots=True)
class Inline:
    """As the nodes of ``graph``, which reads what it reads. ``by_tactic``: one was taken that says so."""

    graph: Graph
    by_tactic: bool = False


@dataclass(frozen=True, slots=True)
class OnHost:
    """By its reference between segments; ``reason`` is for reports."""

    reason: str


Way = ByTactic | SameBytes | Inline | OnHost


def without_tactics(node: Node, results: Sequence[Type | None], *, is_on_device: bool) -> Way | None:
    """The way of a node for which no tactic is looked for; ``is_on_device``: all that it reads is. None for others."""
    if node.graphs and not has_tactics(node):
        return OnHost("control flow")
    if not is_on_device:
        if node.body is not None:  # some of its nodes may read nothing whose size depends on data
            return Inline(node.body)
        return OnHost("its inputs' sizes depend on data, or they are no tensors")
    if is_same_bytes(node) and static_tensor(results[0]) is not None:
        return SameBytes()
    return None


def by_tactics(
    node: Node,
    kinds: Sequence[Type | None],
    results: Sequence[Type | None],
    joins: Mapping[str, str],
    site: Callable[[], Site],
) -> Way:
    """By the tactic that is taken, else by the node's body, its expansion, or on the host. Raises what tactics raise."""
    try:
        decided = lower(site(), joins)
    except (OpenSize, HostOnly):
        decided = None
    except MiniinferError as error:
        raise error.at(place_of(node)) from None
    except OverflowError:  # a size or an attribute that the kernel's argument has no room for
        return OnHost("a number of its is beyond what kernels take")
    if decided is not None:
        work = decided.work
        if isinstance(work, Rewrite):
            return Inline(work.graph, by_tactic=True)
        if all(static_tensor(t) is not None or i in work.bounds for i, t in enumerate(results)):
            return ByTactic(work, decided)
    graph = node.body if node.body is not None else expand_node(node, kinds)
    if graph is not None:
        return Inline(graph)
    if not has_tactics(node):
        return OnHost("no lowering")
    is_open = any(static_tensor(t) is None for t in results)
    return OnHost("its size depends on data" if is_open else "this form has no lowering")
