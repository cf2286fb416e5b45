"""What the runtime asks of a backend. Each backend package implements these."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol

from engine_format import TargetSection
from miniinfer_cli.backends.ceilings import Rate
from miniinfer_cli.backends.choosing import Choice, Estimate
from miniinfer_cli.ir import Graph, TensorType, Type

Scheduling = Literal["auto", "spin", "blocking"]
TrustTargets = Literal["auto", "always", "never"]
Vet = Callable[[TargetSection], TargetSection | None]
"""What is to be taken of a target section; None when it is not trusted. Raises PlanFileError when its code is damaged."""
MOST_THREADS = 1024
"""More threads than that are a slip of the hand."""


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """How a device is to be used. A CPU heeds ``threads`` and limits alone, a GPU all but the threads.

    ``threads``: how many compute; None leaves it to the environment, or to the processors that there are (cpu.thread_count).
    ``cuda_graph``: an inference is captured once and replayed. ``overlap``: copies run beside the computation, two inferences
    are under way at once. ``pdl``: programmatic dependent launch, kernels may begin before those in front of them have ended.
    ``scheduling``: how the host waits for the device. ``trust_targets``: which of the plan's target
    sections, which hold GPU code, are taken: those signed by a key that is known here (``auto``), all (``always``) or none
    (``never``; ``ignore_targets`` says the same). ``trust_key``: a file with one more key, beside the user's own.
    ``timing_cache``: a file of tactics found best on GPUs, which choose where the plan's own do not.
    ``tactics``: keys of tactics by the name of the node that must be done so; ``disable_tactics``: keys that nobody may take
    (docs/tuning.md).
    ``nvtx``: name the steps to profilers. ``time_limit``: seconds that one inference may take, with the making of its program;
    ``memory_limit``: bytes that it may allocate (docs/security.md). ``cache``: the folder for compiled kernels and tactics;
    None keeps them in memory. ``kernel_cache_mib``, ``tactic_cache_mib``: MiB that its files may take.
    ``limits``: values by name (docs/security.md) that replace the defaults.
    """

    cuda_graph: bool = True
    overlap: bool = True
    pdl: bool = True
    scheduling: Scheduling = "auto"
    ignore_targets: bool = False
    trust_targets: TrustTargets = "auto"
    trust_key: Path | None = None
    time_limit: float | None = None
    memory_limit: int | None = None
    tactics: Mapping[str, str] = field(default_factory=dict)
    disable_tactics: Sequence[str] = ()
    nvtx: bool = False
    cache: Path | None = None
    kernel_cache_mib: int = 1024
    tactic_cache_mib: int = 64
    threads: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    timing_cache: Path | None = None


DEFAULT_OPTIONS = DeviceOptions()


class Step(Protocol):
    """One thing a program does, as reports name it."""

    @property
    def label(self) -> str:
        """The node's name."""

    @property
    def kind(self) -> str:
        """The operation, with its domain if it is not ONNX's."""

    @property
    def tactic(self) -> str:
        """How it is done: the key of a tactic, a kernel, a view, the reference ..."""

    @property
    def choice(self) -> Choice | None:
        """Who chose the tactic, over what; None where there are none to choose from."""

    @property
    def estimate(self) -> Estimate | None:
        """What it does at least; None where nobody knows."""

    @property
    def rate(self) -> Rate | None:
        """Which ceiling of computing holds for it; None where nobody knows."""

    @property
    def weights_nbytes(self) -> int:
        """Bytes of the model's constants that it reads."""

    @property
    def origins(self) -> tuple[str, ...]:
        """The nodes of the ONNX model that it computes, or computes parts of, by name."""


class TimedBy(StrEnum):
    """How the times of steps were taken."""

    REPLAY = "events within a replay"
    """Between the steps of the whole program, captured as a graph: each with its launch, as it is in an inference."""
    PIECES = "events within a replay of each piece"
    """The same for what lies between steps of the host, which its clock times while the device waits."""
    STREAM = "events between launches"
    """The host enqueues step after step; what passes beyond the work of a step is the gap in front of it."""
    CLOCK = "the host's clock"
    """On a CPU."""


@dataclass(frozen=True, slots=True)
class StepRound:
    """One inference, timed step by step: nanoseconds of each step, and of what passes in front of each while nothing computes.

    ``gaps_ns`` is None where that cannot be told from the steps. ``begin_ns``: when the first step began, as time.perf_counter_ns
    counts; None where the device times them. ``event_ns``: what was taken off each step for the event behind it: as much as one
    takes with no work around it.
    """

    way: TimedBy
    steps_ns: Sequence[float]
    gaps_ns: Sequence[float] | None = None
    begin_ns: int | None = None
    event_ns: float = 0.0


@dataclass(frozen=True, slots=True)
class LaunchedKernel:
    """A kernel that a step launches, and what it takes: registers of a thread, and bytes of local memory of a thread.

    ``shared_nbytes``: of a block, static and as the launch asks for it. Local memory holds arrays that only a run indexes, and
    what found no room in registers.
    """

    kernel: str
    registers: int
    local_nbytes: int
    shared_nbytes: int


class Program(Protocol):
    """A model made ready for one set of input types; immutable, shared by contexts."""

    @property
    def steps(self) -> Sequence[Step]:
        """What it does, in order."""

    def sources(self) -> Sequence[Sequence[int]]:
        """For each step the numbers of the earlier ones whose results it reads."""

    def launched_kernels(self) -> Sequence[Sequence[LaunchedKernel]]:
        """What each step launches, in the order of ``steps``, equal ones once; nothing on a CPU."""

    @property
    def arena_nbytes(self) -> int:
        """Peak bytes of intermediates on the device, as planned."""

    @property
    def activation_nbytes(self) -> int:
        """Bytes that the intermediates and the scratch of steps would take with no memory shared."""

    @property
    def host_steps(self) -> Sequence[Step]:
        """Steps that run on the host though the device is another; empty on a CPU."""

    def close(self) -> None:
        """Frees what it holds on the device, once no context uses it; may be called twice."""


@dataclass(frozen=True, slots=True)
class Clock:
    """A point on a device's clock, and when it was on the host's: ``host_ns`` as time.perf_counter_ns counts.

    ``error_ns``: it may have been so much earlier or later.
    """

    host_ns: int
    error_ns: int


Intervals = tuple[tuple[float, float] | None, tuple[float, float], tuple[float, float] | None]
"""Begin and end of the copies in, the computation and the copies out, in milliseconds; None for copies that were not made."""


class Pending(Protocol):
    """An inference under way."""

    @property
    def enqueue_ns(self) -> int:
        """Host nanoseconds that enqueuing it took."""

    @property
    def times_ms(self) -> tuple[float, float, float] | None:
        """Copies in, computation and copies out on the device, once its result was asked for; None if it was not timed."""

    @property
    def intervals_ms(self) -> Intervals | None:
        """The same as points in time since the context's clock was set; None if it was not, and on a CPU."""

    def done(self) -> bool:
        """True when ``result`` would not wait for the device."""

    def wait(self) -> None:
        """Waits for the device; any thread may."""

    def result(self) -> tuple[Any, ...]:
        """The outputs in order, the caller's own. Waits for the device."""

    def on_stream(self, handle: int) -> tuple[Any, ...]:
        """The outputs in order, where they stay on the device, for work that is enqueued in a foreign stream from here on.

        That stream waits for them, the host does not; where the host has a part in them, it does. ``handle``: CUDA's CUstream.
        """


class DeviceContext(Protocol):
    """What one stream of work owns on a device. Used by one thread at a time."""

    def execute(
        self, program: Any, inputs: Sequence[Any], times_ns: list[int] | None = None, *, commit: bool = True
    ) -> tuple[Any, ...]:
        """Runs a program that this context's model made; the caller owns the outputs, without those that are states.

        ``times_ns`` receives one duration per step. ``inputs`` are all of the graph's; in the places of states, which the context
        holds, only their shapes count. ``commit``: states that are replaced hold what was computed afterwards.
        """

    def time_steps(self, program: Any, inputs: Sequence[Any]) -> StepRound:
        """One inference, timed step by step, that commits nothing.

        The first few of a program may differ in kind from those that follow.
        """

    def enqueue(self, program: Any, inputs: Sequence[Any], *, timed: bool = False, on_device: bool = False) -> Pending:
        """Starts an inference; waits only when as many as can be are under way.

        ``timed``: its times are taken. ``on_device``: outputs stay on the device, valid until the second ``enqueue`` from here.
        States are committed, in order with what is enqueued before and afterwards.
        """

    def replay(self, program: Any, inputs: Sequence[Any], *, timed: bool = False, transfers: bool = False) -> Pending:
        """Computes once more on the inputs of the last ``enqueue``; outputs stay where they are until the slot's next turn.

        ``transfers``: copies between pinned memory and the device are made as well; otherwise none. Nothing is committed.
        """

    def set_clock(self) -> Clock:
        """Waits for what is under way, and sets the point that ``Pending.intervals_ms`` of timed inferences count from."""

    def is_busy(self) -> bool:
        """True when ``enqueue`` would wait."""

    def input_buffers(self, program: Any) -> tuple[Any, ...]:
        """The memory on the device that the next ``enqueue`` of this program reads, an array for each input.

        None for an input that is no tensor of numbers.
        """

    def host_buffers(self, program: Any) -> tuple[Any, ...]:
        """The pinned host memory that the next ``enqueue`` of this program copies from; see ``input_buffers``."""

    def hold_states(self, kinds: Sequence[TensorType]) -> None:
        """Takes memory for the states of these types, in the order of the graph's pairs, all zeros; what was held goes.

        Raises OutOfMemoryError, and then holds none.
        """

    def drop_states(self) -> None:
        """Lets the memory of states go, once what is under way is done; may be called twice."""

    def clear_state(self, number: int, axis: int, index: int) -> None:
        """Zeros at ``index`` along ``axis`` of a state, behind what is under way."""

    def copy_states(self, source: Any) -> None:
        """Takes what another context of the same model holds, once what is under way there is done; it holds the same types."""

    @property
    def depth(self) -> int:
        """Inferences that can be under way at once."""

    @property
    def arena_nbytes(self) -> int:
        """Bytes of the arena held now."""

    def close(self) -> None:
        """Lets everything go; may be called twice."""


class LoadedModel(Protocol):
    """A model on a device: its weights, held once and shared by programs and contexts."""

    @property
    def device(self) -> str:
        """The device's name as a flag spells it: ``cpu``, ``cuda:0``."""

    def facts(self) -> Mapping[str, Any]:
        """What the device is, for reports: ``name``, and of a GPU ``arch``, ``multiprocessors``, ``memory_bytes``, ``driver``."""

    def adopt(self, name: str, value: Any) -> Any:
        """A caller's array that lies on a device, as contexts take it; None for what is no such array.

        Raises UsageError, with the input's ``name``, for one on another device.
        """

    def fetch(self, value: Any) -> Any:
        """The contents of what ``adopt`` gave, on the host."""

    def rows(self, arrays: Sequence[Any], repeats: int) -> Any:
        """Arrays of the host one behind another along their first dimension, as one input that a context takes without copying
        them on the host; ``repeats``: how often the last row stands behind them once more.

        None where that cannot be: some memory is not registered (``devices.registering``), or the device is a CPU.
        """

    def use_targets(self, targets: Sequence[TargetSection], vet: Vet) -> None:
        """Takes what fits of a plan's target sections, and of that what ``vet`` lets through; ``notes`` tell of the rest."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of what was taken of the plan, and what was not."""

    def make_program(self, inputs: Sequence[Type | None], branched: Graph | None = None) -> Program:
        """Lowers the model for these input types; ``branched`` is its graph with some branches in the places of their Ifs.

        Raises ModelError when the shapes do not go through.
        """

    def make_context(self) -> DeviceContext:
        """A context of its own for one more stream of work."""

    def state(self) -> Mapping[str, Any]:
        """The device at this moment, as its maker's tools tell it: clocks, throttling, others that use it; may be empty."""

    def stats(self) -> Mapping[str, Any]:
        """Counters: weights and where they were found, kernels compiled, copies of host steps ..."""

    def close(self) -> None:
        """Lets the weights go; may be called twice."""


class LoadModel(Protocol):
    """Loads a graph on the device of a name."""

    def __call__(
        self,
        graph: Graph,
        device: str,
        options: DeviceOptions,
        recorded: Mapping[str, Any],
        beside: LoadedModel | None = None,
        /,
    ) -> LoadedModel:
        """``recorded``: the options that the plan was built with. ``beside``: a model of the same plan on another device of the
        same kind, from which weights may be copied.
        """


class OnDevice:
    """An array that is on a device already, as ``LoadedModel.adopt`` gives it; it has a ``shape`` and a ``dtype``."""
