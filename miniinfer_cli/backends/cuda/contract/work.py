"""The one builder of a node's device work: its actions, and the memory that they name beside the node's inputs and outputs."""

from dataclasses import replace

from miniinfer_cli.backends.cuda.contract.steps import Action, Bound, Derived, Lowered, Operand, OperandKind, Rewrite, moved
from miniinfer_cli.ir import Array, Graph


class Work:
    """What a tactic emits into. Buffers are numbered as they are asked for, those of scratch from ``first_scratch``."""

    def __init__(self, first_scratch: int = 0) -> None:
        self._first_scratch = first_scratch
        self._actions: list[Action] = []
        self._scratch: list[int] = []
        self._derived: list[Derived] = []
        self._tables: list[Array] = []
        self._in_place: dict[int, tuple[int, ...]] = {}
        self._bounds: dict[int, Bound] = {}
        self._graph: Graph | None = None

    @property
    def actions(self) -> tuple[Action, ...]:
        """What there is so far."""
        return tuple(self._actions)

    @property
    def next_scratch(self) -> int:
        """The number of the scratch buffer that is asked for next."""
        return self._first_scratch + len(self._scratch)

    @property
    def scratch_nbytes(self) -> tuple[int, ...]:
        """Bytes of each scratch buffer so far."""
        return tuple(self._scratch)

    def add(self, *actions: Action) -> None:
        """Actions behind those that are there."""
        self._actions += actions

    def scratch(self, nbytes: int) -> Operand:
        """A buffer of so many bytes that lives during the node alone."""
        self._scratch.append(nbytes)
        return Operand.scratch(self.next_scratch - 1)

    def derive(self, derived: Derived) -> Operand:
        """A constant in another form, made at load."""
        self._derived.append(derived)
        return Operand.derived(len(self._derived) - 1)

    def table(self, contents: Array) -> Operand:
        """A small array that is uploaded with the program."""
        self._tables.append(contents)
        return Operand.table(len(self._tables) - 1)

    def take(self, lowered: Lowered) -> None:
        """Work that was made elsewhere, behind what is there; its buffers are numbered anew."""
        starts = {
            OperandKind.SCRATCH: self.next_scratch,
            OperandKind.DERIVED: len(self._derived),
            OperandKind.TABLE: len(self._tables),
        }

        def renumbered(operand: Operand) -> Operand:
            return replace(operand, number=operand.number + starts.get(operand.kind, 0))

        self._actions += (moved(a, renumbered) for a in lowered.actions) if any(starts.values()) else lowered.actions
        self._scratch += lowered.scratch
        self._derived += lowered.derived
        self._tables += lowered.tables
        self._in_place |= lowered.in_place
        self._bounds |= lowered.bounds

    def replace_by(self, graph: Graph) -> None:
        """Other nodes do the node's work (``steps.Rewrite``): nothing else may be emitted."""
        self._graph = graph

    def finished(self, tactic: str) -> Lowered | Rewrite:
        """All of it, under the key of its tactic."""
        if self._graph is not None:
            return Rewrite(self._graph)
        scratch, derived, tables = tuple(self._scratch), tuple(self._derived), tuple(self._tables)
        return Lowered(tuple(self._actions), scratch, derived, tables, self._in_place, self._bounds, tactic)
