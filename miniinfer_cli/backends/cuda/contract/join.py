"""A join: connected nodes of a graph that other nodes compute together, as data; and the register of families that find them."""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.tactic import needs_nothing
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ir import Graph, Node
from miniinfer_cli.ops.inference import Types


@dataclass(frozen=True, slots=True, eq=False)
class Join:
    """Some nodes of a graph, and what may stand in their place.

    ``key`` is stable text, as a tactic's is. ``nodes`` are in the graph's order. ``graph`` reads what they read and do not make
    (``ir.parts.reading``), and gives what others read of them (``leaving``), both in that order; its operations have references.
    ``estimate`` is of that graph. ``gain_us``: microseconds that the family's table expects it to save; the heuristic takes
    what saves some. ``needs`` says what a target lacks for it, nothing where it may be taken.
    """

    key: str
    nodes: tuple[Node, ...]
    graph: Graph
    estimate: Estimate
    gain_us: float
    needs: Callable[[Target], str] = needs_nothing

    @property
    def label(self) -> str:
        """The names of its nodes, for reports."""
        return label_of(self.nodes)


def label_of(nodes: Iterable[Node]) -> str:
    """What a step is called that does the work of several nodes."""
    return " + ".join(n.name for n in nodes)


JoinsOf = Callable[[Graph, Types, Target], Sequence[Join]]
"""The joins of a family in a graph of these types, for a target. Asks no library and no device."""

_FAMILIES: dict[str, JoinsOf] = {}
_FILES = {
    "Attention": ("quantized_attention",),
    "DequantizeLinear": ("row_product",),
    "FusedConv": ("excitation", "squeeze_excitation", "activated_depthwise"),
    "LayerNormalization": ("normalization", "normalized_product", "row_product"),
    "RMSNormalization": ("normalization", "normalized_product", "row_product"),
    "RotaryEmbedding": ("cached_attention", "rotary_attention"),
    "Split": ("row_product",),
}
"""The files of ``joins/``, by an operation that their joins hold (each one of those that bring its file): a model needs few."""


def joins(family: str) -> Callable[[JoinsOf], JoinsOf]:
    """Registers a family, by the first word of its keys. Raises ValueError when there is one of that name."""

    def add(find: JoinsOf) -> JoinsOf:
        if _FAMILIES.setdefault(family, find) is not find:
            raise ValueError(f"there are two families of joins called {family}")
        return find

    return add


def families(graph: Graph | None = None) -> Mapping[str, JoinsOf]:
    """All families, by name; of a graph, at least those of which it may have joins."""
    for operation in _FILES if graph is None else {n.op for n in graph} & _FILES.keys():
        for name in _FILES[operation]:
            importlib.import_module(f"{__package__.rpartition('.')[0]}.joins.{name}")
    return dict(_FAMILIES)
