"""A graph made ready for one set of input types on a GPU: steps over slots, and where each slot lives.

Making one touches no device: it is a description that contexts bind to addresses. Every primitive that has no lowering is
a host step between device steps.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Union

from miniinfer_cli.backends.ceilings import Rate
from miniinfer_cli.backends.choosing import Choice, Estimate
from miniinfer_cli.backends.cuda.contract.io_layout import IoLayout
from miniinfer_cli.backends.cuda.contract.steps import AnyAction, Bound, Derived, Kernel, Launch, LibraryCall, flat
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.reference import kind_of
from miniinfer_cli.ir import Array, Constant, Graph, Node, TensorType, Type
from miniinfer_cli.planning.flow import sources_of
from miniinfer_cli.planning.late_parts import is_late_part
from miniinfer_cli.planning.memory import MemoryLayout


@dataclass(frozen=True, slots=True)
class Place:
    """Device memory of a program: ``offset`` bytes behind the start of slot ``number``, or of the scratch of step ``number``."""

    number: int
    offset: int = 0
    scratch: bool = False


PlacedAction = AnyAction[Place]
"""An action of a program, whose operands have their places."""


class Origin(StrEnum):
    """Where the contents of a slot come from."""

    INPUT = "input"
    """The caller."""
    CONSTANT = "constant"
    """The model: ``Slot.handle``."""
    TABLE = "table"
    """``Slot.contents``, uploaded with the program; with a ``handle`` where it is a constant."""
    DERIVED = "derived"
    """A constant in another form: ``Slot.derived``."""
    DEVICE = "device"
    """A step on the device."""
    HOST = "host"
    """A step on the host."""
    STATE = "state"
    """The context, which holds it between inferences."""


class HostWork(StrEnum):
    """What a host step is."""

    REFERENCE = "host"
    """The node's reference."""
    CONTROL = "control"
    """An If, Loop or Scan, whose bodies run on the device."""
    LATE = "late"
    """A late part, which runs on the device once its sizes are known."""


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """One value of a program.

    ``type`` is concrete for what can be on the device. ``root`` is the slot whose bytes it shares, itself where it is no view;
    a view begins ``offset`` bytes behind the start of that, and has ``strides`` (elements between neighbours along each axis)
    where it is not dense.
    ``bound``: the size depends on data, ``type`` is the largest, and slot ``count`` holds how many elements there are along
    ``bound.axis``.
    """

    type: Type | None
    origin: Origin
    root: int
    handle: Constant | None = None
    contents: Array | None = None
    derived: Derived | None = None
    bound: Bound | None = None
    count: int | None = None
    offset: int = 0
    strides: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its elements on the device."""
        assert isinstance(self.type, TensorType)
        return nbytes_of(self.type)


@dataclass(frozen=True, slots=True, eq=False)
class DeviceStep:
    """One node (or a part of one) as device work: what was chosen for it, what that costs at least, and what it does."""

    label: str
    kind: str
    choice: Choice
    estimate: Estimate
    actions: tuple[PlacedAction, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    in_place: Mapping[int, tuple[int, ...]]
    scratch_nbytes: int
    rate: Rate | None = None
    weights_nbytes: int = 0
    origins: tuple[str, ...] = ()

    @property
    def tactic(self) -> str:
        """The key of the tactic that was chosen."""
        return self.choice.key


@dataclass(frozen=True, slots=True, eq=False)
class HostStep:
    """One node that the host sees to; slots of inputs (None where absent) and outputs.

    It runs the node's reference, or decides for a control node, or makes a late part into a program once its sizes are known.
    """

    node: Node
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    reason: str

    @property
    def label(self) -> str:
        """The node's name."""
        return self.node.name

    @property
    def kind(self) -> str:
        """The operation, with its domain if it is not ONNX's."""
        return kind_of(self.node)

    @property
    def tactic(self) -> HostWork:
        """What the host does."""
        return HostWork.LATE if is_late_part(self.node) else HostWork.CONTROL if self.node.graphs else HostWork.REFERENCE

    @property
    def choice(self) -> None:
        """Nobody chose: there was one way."""

    @property
    def estimate(self) -> None:
        """Nobody knows."""

    @property
    def rate(self) -> None:
        """The device has no part in it."""

    @property
    def weights_nbytes(self) -> int:
        """None on the device."""
        return 0

    @property
    def origins(self) -> tuple[str, ...]:
        """The nodes of the model that it computes."""
        return self.node.origins


Step = Union[DeviceStep, HostStep]


@dataclass(frozen=True, slots=True)
class HeldState:
    """A state of the context: its slot, and that of what it is to be replaced by at the end; None where steps write into it."""

    past: int
    present: int | None


@dataclass(frozen=True, slots=True, eq=False)
class CudaProgram:
    """The steps and the memory layout for one set of input types. Immutable; shared by contexts."""

    graph: Graph
    slots: tuple[Slot, ...]
    steps: tuple[Step, ...]
    input_slots: tuple[int, ...]
    output_slots: tuple[int, ...]
    layout: MemoryLayout
    io: IoLayout
    uploads: tuple[int, ...]  # slots of host steps that device steps read, in the order in which they are made
    replaced: frozenset[str] = frozenset()  # names of nodes by whose tactic other nodes do the work
    states: tuple[HeldState, ...] = ()  # in the order of the graph's pairs; what replaces them is none of ``output_slots``

    @property
    def state_numbers(self) -> dict[int, int]:
        """The number of each state by its slot."""
        return {state.past: number for number, state in enumerate(self.states)}

    def behind_root(self, place: Place) -> Place:
        """The place in a slot, as one behind the slot's root; what is in scratch stays."""
        if place.scratch:
            return place
        slot = self.slots[place.number]
        return Place(slot.root, slot.offset + place.offset)

    @property
    def arena_nbytes(self) -> int:
        """Peak bytes of intermediates, as planned."""
        return self.layout.arena_nbytes

    @property
    def activation_nbytes(self) -> int:
        """Bytes that the intermediates and the scratch of steps would take with no memory shared."""
        return self.layout.sum_nbytes

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Every kernel that the program launches, each once."""
        actions = (a for s in self.steps if isinstance(s, DeviceStep) for a in flat(s.actions))
        return tuple(dict.fromkeys(a.kernel for a in actions if isinstance(a, Launch)))

    @property
    def host_steps(self) -> tuple[HostStep, ...]:
        """The nodes that run on the host: not If, Loop, Scan and late parts."""
        return tuple(s for s in self.steps if isinstance(s, HostStep) and s.tactic is HostWork.REFERENCE)

    def sources(self) -> tuple[tuple[int, ...], ...]:
        """For each step the numbers of the earlier ones whose results it reads."""

        def slots(step: Step) -> tuple[Iterable[int], Iterable[int]]:
            if isinstance(step, DeviceStep):
                return step.reads, step.writes
            return (s for s in step.inputs if s is not None), step.outputs

        return sources_of(map(slots, self.steps), lambda slot: self.slots[slot].root)

    def segments(self) -> list[tuple[Step, ...]]:
        """The steps in runs: each all on the device, or one on the host."""
        runs: list[list[Step]] = []
        for step in self.steps:
            if isinstance(step, DeviceStep) and runs and isinstance(runs[-1][0], DeviceStep):
                runs[-1].append(step)
            else:
                runs.append([step])
        return [tuple(r) for r in runs]


def is_whole(slots: Sequence[Slot], number: int) -> bool:
    """True when a slot is all of its root's bytes, in their order."""
    slot = slots[number]
    return slot.root == number or (slot.offset == 0 and slot.strides is None and slot.nbytes == slots[slot.root].nbytes)


def nbytes_of(type: TensorType) -> int:
    """Bytes of a tensor on the device."""
    size = element_nbytes(type.dtype)
    for n in type.shape or ():
        assert isinstance(n, int)
        size *= n
    return size


def library_calls(steps: Sequence[Step]) -> list[LibraryCall[Place]]:
    """The calls into libraries, in order, each once."""
    return [a for s in steps if isinstance(s, DeviceStep) for a in flat(s.actions) if isinstance(a, LibraryCall)]
