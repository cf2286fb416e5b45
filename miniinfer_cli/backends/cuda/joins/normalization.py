"""A normalization of rows with what is computed element by element in front of it and behind it, and rows that are looked up."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from miniinfer_cli.backends.cuda.contract.estimating import nbytes
from miniinfer_cli.backends.cuda.contract.join import Join, joins
from miniinfer_cli.backends.cuda.contract.joined_region import as_region
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.movement.gather import view_gather
from miniinfer_cli.backends.cuda.tactics.normalization.fused_normalization import normalization_tactics
from miniinfer_cli.backends.cuda.tactics.normalization.normalization_heuristic import NORMALIZATIONS, NormalizationHeuristic
from miniinfer_cli.backends.cuda.tactics.normalization.normalized_rows import NORMALIZATIONS as OPERATIONS
from miniinfer_cli.backends.cuda.tactics.normalization.normalized_rows import is_normalization
from miniinfer_cli.backends.reference import settled, static_tensor
from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ir.parts import is_literal, leaving
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import Types
from miniinfer_cli.ops.pointwise import is_pointwise

KEY = "normalization"
REGION = "FusedNormalization"


@joins(KEY)
def find_normalizations(graph: Graph, types: Types, target: Target) -> list[Join]:
    """For each normalization what may be joined with it: what makes its rows, what reads them, and both."""
    around = _Around(graph, types, target, {node: number for number, node in enumerate(graph)})
    found: list[Join | None] = []
    for norm in graph:
        if norm.op in OPERATIONS and is_normalization(norm, types):
            fronts, behind = around.in_front(norm), around.behind(norm)
            for last in dict.fromkeys(((*behind,), ())):
                joined = (_join(graph, [*front, norm, *last], types, target) for front in fronts)
                found.append(next((join for join in joined if join is not None), None))
            if behind:
                found.append(_join(graph, [norm, *behind], types, target))
    return [join for join in found if join is not None]


@dataclass(frozen=True, slots=True)
class _Around:
    """What stands around the norms of a graph; ``place``: of each node in its order."""

    graph: Graph
    types: Types
    target: Target
    place: Mapping[Node, int]

    def in_front(self, norm: Node) -> list[list[Node]]:
        """What computes the rows element by element, with all that looks up and stacks what it reads; the same alone."""
        (x, *_) = norm.inputs
        producer = None if x is None else x.producer
        if producer is None or x is None:
            return []
        if _looks_up(producer, self.types, self.target):
            return [[producer]]
        if producer.is_op("Concat"):
            return [self._stacked(producer)]
        if not _is_pointwise(producer, x, self.types):
            return []
        found: list[Node] = []
        for node in _computed(producer, self.types):
            if _looks_up(node, self.types, self.target) and _is_read_by(self.graph, node.output, producer):
                found.append(node)
            elif node.is_op("Concat") and _is_read_by(self.graph, node.output, producer):
                found += self._stacked(node)
        found = self._in_order(found)
        tables = [n for n in found if n.is_op("Gather")]
        return [[*found, producer], [*tables, producer], [producer]]

    def behind(self, norm: Node) -> list[Node]:
        """The first reader of the rows, where it computes element by element."""
        readers = self._in_order(norm.output.users)
        return readers[:1] if readers and _is_pointwise(readers[0], norm.output, self.types) else []

    def _stacked(self, concat: Node) -> list[Node]:
        """A Concat, behind what repeats its pieces."""
        expands = [n for n in _computed(concat, self.types) if n.is_op("Expand") and _is_read_by(self.graph, n.output, concat)]
        return [*self._in_order(expands), concat]

    def _in_order(self, nodes: Iterable[Node]) -> list[Node]:
        return sorted(nodes, key=self.place.__getitem__)


def _computed(node: Node, types: Types) -> list[Node]:
    """The nodes that make what the node reads, each once, but those whose results are known."""
    found = dict.fromkeys(v.producer for v in node.inputs if v is not None and v.producer is not None)
    return [n for n in found if settled([types[v] for v in n.outputs]) is None]


def _is_read_by(graph: Graph, value: Value, node: Node) -> bool:
    """True when nobody else reads it."""
    return value.users == (node,) and not graph.is_output(value)


def _is_pointwise(node: Node, rows: Value, types: Types) -> bool:
    """True for a pointwise operation, or a region of such, whose results are all of the shape of the rows."""
    if (node.domain, node.op) != (OURS, "FusedPointwise") and not is_pointwise(node):
        return False
    shapes = [getattr(static_tensor(types.get(v, v.type)), "shape", None) for v in (rows, *node.outputs)]
    return None not in shapes and len(set(shapes)) == 1


def _looks_up(node: Node, types: Types, target: Target) -> bool:
    """True for a Gather that is work: rows at known places in equal steps are read where they lie."""
    if not node.is_op("Gather"):
        return False
    kinds, results = (
        tuple(None if v is None else types.get(v, v.type) for v in values) for values in (node.inputs, node.outputs)
    )
    if any(static_tensor(t) is None for t in (*kinds, *results)):
        return False
    handles = tuple(None if v is None else v.constant for v in node.inputs)
    return view_gather(Site(node, kinds, results, handles, target)) is None


def _join(graph: Graph, nodes: Sequence[Node], types: Types, target: Target) -> Join | None:
    """The nodes as one region, where a kernel computes it."""
    # Scales and zero points stand in the kernel's text.
    literals = {v for n in nodes if n.is_op("QuantizeLinear") for v in n.inputs[1:] if v is not None and is_literal(v)}
    made = as_region(graph, nodes, types, target, key=KEY, op=REGION, held=literals)
    if made is None:
        return None
    joined, site = made
    favourite = next(iter(normalization_tactics(site)), None)
    if favourite is None:
        return None
    return Join(KEY, tuple(nodes), joined, favourite.estimate, _gain_us(nodes, leaving(graph, nodes), types))


def _gain_us(nodes: Sequence[Node], ends: Sequence[Value], types: Types, table: NormalizationHeuristic = NORMALIZATIONS) -> float:
    """Microseconds that one step is expected to save: the others, and what passes between them."""
    saved = sum(nbytes(types[v]) * (1 if v in ends else 2) for v in _passing(nodes))
    return (len(nodes) - 1) * table.joined_step_us + saved / table.joined_nbytes_per_us


def _passing(nodes: Sequence[Node]) -> Iterator[Value]:
    members = set(nodes)
    return (v for n in nodes for v in n.outputs if members.intersection(v.users))
