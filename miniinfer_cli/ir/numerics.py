"""In which numbers a graph is to be computed: what a build was asked for, and what came of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from engine_format.dtypes import DType


@dataclass(frozen=True, slots=True)
class KeptNode:
    """A node that keeps f32: its operation, the nodes of the model that it computes, and why it does."""

    node: str
    op: str
    origins: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class LostWeight:
    """A weight that ``half`` cannot hold: the nodes of the model that read it, its name, and what is lost, in words."""

    origins: tuple[str, ...]
    weight: str
    loss: str


@dataclass(frozen=True, slots=True)
class Numerics:
    """Tensors of f32 are to be stored as ``half`` (f16 or bf16), but for those of some nodes; products still sum in f32.

    ``kept_nodes``: nodes of the model that keep f32, by name; ``kept_ops``: operations that do. ``kept`` has what keeps f32 in
    the end, ``lost`` the weights that were to be ``half`` and cannot; the pass that decides adds to both. A graph shares these
    records with its copies and sub-graphs; of the latter ``inner`` is True.
    """

    half: DType
    kept_nodes: frozenset[str] = frozenset()
    kept_ops: frozenset[str] = frozenset()
    inner: bool = False
    kept: list[KeptNode] = field(default_factory=list, compare=False)
    lost: list[LostWeight] = field(default_factory=list, compare=False)

    def __post_init__(self) -> None:
        """Raises ValueError for a type that is no float of 16 bits."""
        if not self.half.is_half:
            raise ValueError(f"{self.half} is no float of 16 bits")

    def asks_to_keep(self, op: str, origins: Iterable[str]) -> bool:
        """Whether a node of this operation, which computes these nodes of the model, is to keep f32."""
        return op in self.kept_ops or not self.kept_nodes.isdisjoint(origins)
