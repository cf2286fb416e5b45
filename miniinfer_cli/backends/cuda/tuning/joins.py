"""Joins as places that are tuned: nodes of a program that are computed together, or apart."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine_format import TacticRecord
from miniinfer_cli.backends.choosing import Chooser, Found
from miniinfer_cli.backends.cuda.choice.joining import APART, Joining, maker_of_join, record_fault
from miniinfer_cli.backends.cuda.choice.signature import joined_signature
from miniinfer_cli.backends.cuda.contract.join import Join
from miniinfer_cli.backends.cuda.contract.protocols import Libraries
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tuning.candidates import Candidate, Effort
from miniinfer_cli.ir import Graph, Type, Value
from miniinfer_cli.ir.parts import copy_node, copy_value, leaving, reading
from miniinfer_cli.ops.inference import Types, infer_graph
from miniinfer_cli.planning.late_parts import late_parts


@dataclass(slots=True)
class TunedJoin:
    """All sets of nodes of a program that compute the same: the join of the first of them, whether the heuristic takes it, and
    the nodes alone. ``members``: the names of all nodes."""

    signature: str
    join: Join
    is_taken: bool
    graph: Graph
    labels: list[str]
    members: list[str]

    def candidates(self, target: Target, libraries: Libraries, effort: Effort) -> list[Candidate]:
        """Joined and apart, what the heuristic does first."""
        maker = maker_of_join(self.join, target)
        joined, apart = (Candidate(key, None, maker) for key in (self.join.key, APART))
        return [joined, apart] if self.is_taken else [apart, joined]

    def alone(self) -> tuple[Graph, list[Type | None]]:
        """A graph of the nodes of the first set."""
        return self.graph, [v.type for v in self.graph.inputs]

    def fits(self, record: TacticRecord, target: Target) -> str:
        """Why a record does not tell whether the nodes are to be joined; empty where it does."""
        return record_fault(Found(record, Chooser.TRIAL), self.join, target)

    def gone(self, key: str) -> list[str]:
        """The labels of the places that are no more when the nodes are computed by a candidate of this key."""
        return self.labels if key == APART else self.members


def collect_joins(graph: Graph, inputs: Sequence[Type | None], target: Target) -> list[TunedJoin]:
    """The joins that may be taken in a program, but for those of bodies and late parts."""
    types = infer_graph(graph, inputs)
    late = {n for part in late_parts(graph, types) for n in part.nodes}
    found: dict[str, TunedJoin] = {}
    for join, is_taken in Joining(graph, types, late, target).fitting():
        text = joined_signature(graph, join.nodes, types, target.tf32)
        names = [n.name for n in join.nodes]
        if text in found:
            found[text].labels.append(join.label)
            found[text].members += names
        else:
            found[text] = TunedJoin(text, join, is_taken, _alone(graph, join, types), [join.label], names)
    return list(found.values())


def _alone(graph: Graph, join: Join, types: Types) -> Graph:
    """The nodes of a join as a graph; constants are the same handles."""
    alone, values = Graph("trial"), dict[Value, Value]()
    for value in reading(join.nodes):
        if value.constant is None:
            values[value] = alone.add_input(value.name, types.get(value, value.type))
        else:
            copy_value(alone, value, values)
    for node in join.nodes:
        copy_node(alone, node, values)
    alone.set_outputs([values[v] for v in leaving(graph, join.nodes)])
    return alone
