"""Running programs on the CPU: the arena of a context, and programs of sub-graphs."""

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.blas import blas_threads
from miniinfer_cli.backends.cpu.bound_program import CpuExecution
from miniinfer_cli.backends.cpu.memory import allocate_arena
from miniinfer_cli.backends.cpu.program import CpuProgram
from miniinfer_cli.backends.cpu.results import ResultMemory
from miniinfer_cli.backends.cpu.routine import Weights, nbytes_of, shape_of
from miniinfer_cli.backends.cpu.threads import Threads
from miniinfer_cli.backends.interface import Clock, StepRound, TimedBy
from miniinfer_cli.backends.kept_programs import KeptPrograms
from miniinfer_cli.backends.reference import static_tensor
from miniinfer_cli.host_memory import expect_memory
from miniinfer_cli.ir import Array, Graph, TensorType, Type, dtype_of, numpy_dtype
from miniinfer_cli.ops.budget import current
from miniinfer_cli.planning.late_parts import DEEPEST

_EXECUTIONS = 64  # bound programs a context keeps; each is a list of views into the one arena
_SMALL_NBYTES = 1 << 16  # of an arena: it is not worth making a smaller one
_NESTED = 512  # programs of sub-graphs that a context keeps: a loop whose shapes grow must not pile them up


class CpuContext:
    """One arena that only grows, and the programs bound to it. ``level``: how many contexts are around this one.

    ``results``: the memory of what is handed out.
    """

    def __init__(self, weights: Weights, threads: Threads, level: int = 0) -> None:
        self._weights = weights
        self._threads = threads
        self._level = level
        self._blas = blas_threads() if level == 0 else contextlib.nullcontext()  # within, it is so already
        self._arena: Array = np.empty(0, np.uint8)
        self._bound: dict[CpuProgram, CpuExecution] = {}
        self._nested: NestedPrograms | None = None
        self._states: tuple[Array, ...] = ()
        self.results = ResultMemory()

    @property
    def arena_nbytes(self) -> int:
        """See DeviceContext."""
        return self._arena.nbytes + (self._nested.arena_nbytes if self._nested is not None else 0)

    def execute(
        self, program: CpuProgram, inputs: Sequence[Any], times_ns: list[int] | None = None, *, commit: bool = True
    ) -> tuple[Any, ...]:
        """See DeviceContext."""
        marks: list[int] | None = None if times_ns is None else []
        outputs = self._run(program, inputs, marks, commit=commit)
        if marks is not None and times_ns is not None:
            times_ns += [end - begin for begin, end in zip(marks[::2], marks[1::2], strict=True)]
        return outputs

    def time_steps(self, program: CpuProgram, inputs: Sequence[Any]) -> StepRound:
        """See DeviceContext."""
        marks: list[int] = []
        self._run(program, inputs, marks, commit=False)
        begins, ends = marks[::2], marks[1::2]
        gaps = [b - e for b, e in zip(begins, begins[:1] + ends, strict=False)]
        steps = [e - b for b, e in zip(begins, ends, strict=True)]
        return StepRound(TimedBy.CLOCK, steps, gaps, begins[0] if begins else None)

    depth = 1

    def enqueue(self, program: CpuProgram, inputs: Sequence[Any], *, timed: bool = False, on_device: bool = False) -> "Computed":
        """See DeviceContext: the work is done when this returns."""
        return self._computed(program, inputs, commit=True)

    def replay(self, program: CpuProgram, inputs: Sequence[Any], *, timed: bool = False, transfers: bool = False) -> "Computed":
        """See DeviceContext: there are no copies to leave out."""
        return self._computed(program, inputs, commit=False)

    def set_clock(self) -> Clock:
        """See DeviceContext: the device's clock is the host's."""
        return Clock(time.perf_counter_ns(), 0)

    def is_busy(self) -> bool:
        """See DeviceContext: nothing is ever under way."""
        return False

    def input_buffers(self, program: CpuProgram) -> tuple[Array | None, ...]:
        """See DeviceContext: arrays to fill; they are read where they are."""
        kinds = map(static_tensor, program.input_types)
        return tuple(None if t is None else np.empty(shape_of(t), numpy_dtype(t.dtype)) for t in kinds)

    host_buffers = input_buffers

    def close(self) -> None:
        """See DeviceContext."""
        self._bound.clear()
        self._arena = np.empty(0, np.uint8)
        self._nested = None
        self._states = ()
        self.results.forget()

    # -- states ----------------------------------------------------------------------------------------------------

    def hold_states(self, kinds: Sequence[TensorType]) -> None:
        """See DeviceContext."""
        self.drop_states()
        budget = current()
        if budget is not None:
            budget.expect(sum(map(nbytes_of, kinds)), "memory for the states of the context")
        for kind in kinds:
            expect_memory(nbytes_of(kind), f"a state of the context, {kind}")
        self._states = tuple(np.zeros(shape_of(k), numpy_dtype(k.dtype)) for k in kinds)

    def drop_states(self) -> None:
        """See DeviceContext."""
        self._bound.clear()  # steps of these programs are made ready for the arrays that go
        self._states = ()

    def clear_state(self, number: int, axis: int, index: int) -> None:
        """See DeviceContext."""
        self._states[number][(slice(None),) * axis + (index,)] = 0

    def copy_states(self, source: "CpuContext") -> None:
        """See DeviceContext."""
        for own, other in zip(self._states, source._states, strict=True):
            np.copyto(own, other)

    # -- running ---------------------------------------------------------------------------------------------------

    def _computed(self, program: CpuProgram, inputs: Sequence[Any], *, commit: bool) -> "Computed":
        started = time.perf_counter_ns()
        outputs = self.execute(program, inputs, commit=commit)
        return Computed(outputs, time.perf_counter_ns() - started)

    def _run(self, program: CpuProgram, inputs: Sequence[Any], marks: list[int] | None, *, commit: bool) -> tuple[Any, ...]:
        if program.states and not self._states:  # nobody asked for them: whoever measures
            self.hold_states([k for k in map(static_tensor, program.state_types) if k is not None])
        execution = self._bind(program)
        with self._blas:
            return execution.run(inputs, marks, lend=self._level > 0, commit=commit)

    def _bind(self, program: CpuProgram) -> CpuExecution:
        execution = self._bound.pop(program, None)
        if execution is None:
            if program.arena_nbytes > self._arena.nbytes or self._is_wasteful(program):
                self._expect_arena(program.arena_nbytes)
                self._bound.clear()  # they hold views of the arena that goes
                self._arena = np.empty(0, np.uint8)  # before the larger one comes
                self._arena = allocate_arena(program.arena_nbytes)
            elif len(self._bound) >= _EXECUTIONS:
                self._bound.pop(next(iter(self._bound)))
            execution = CpuExecution(program, self._arena, self.results, self._run_graph, self._states)
        self._bound[program] = execution  # most recently used last
        return execution

    def _is_wasteful(self, program: CpuProgram) -> bool:
        """True when the arena of a larger program keeps from this one what a memory limit leaves for what runs within."""
        budget = current()
        limited = budget is not None and budget.allowance.memory_nbytes is not None
        return limited and self._level == 0 and self._arena.nbytes > 2 * program.arena_nbytes + _SMALL_NBYTES

    def _expect_arena(self, nbytes: int) -> None:
        """Raises LimitExceeded when the inference may not have so much; what is kept within goes first."""
        budget = current()
        if budget is not None:
            if not budget.has_room(self._level, nbytes):
                self._nested = None
                budget.forget_arenas(self._level)
            budget.expect_arena(self._level, nbytes, "memory for the activations")

    def _run_graph(self, graph: Graph, inputs: Sequence[Any]) -> tuple[Any, ...]:
        return self.nested.run(graph, inputs)

    @property
    def nested(self) -> "NestedPrograms":
        """What runs the graphs within graphs, made at first need."""
        if self._nested is None:
            self._nested = NestedPrograms(self._weights, self._threads, self._level + 1)
        return self._nested


class Computed:
    """An inference that is done. See interface.Pending."""

    intervals_ms = None

    def __init__(self, outputs: tuple[Any, ...], compute_ns: int) -> None:
        self.enqueue_ns = compute_ns
        self.times_ms = (0.0, compute_ns / 1e6, 0.0)
        self._outputs = outputs

    def done(self) -> bool:
        """True."""
        return True

    def wait(self) -> None:
        """Nothing to wait for."""

    def result(self) -> tuple[Any, ...]:
        """The outputs."""
        return self._outputs

    def on_stream(self, handle: int) -> tuple[Any, ...]:
        """The outputs: nothing is left to wait for."""
        return self._outputs


class NestedPrograms:
    """The programs of sub-graphs (branches, loop bodies, late parts), made at first need for each set of input types.

    They run in a context of their own, one at a time: what calls them is in the middle of its arena.
    """

    def __init__(self, weights: Weights, threads: Threads, level: int) -> None:
        self._weights = weights
        self._threads = threads
        self._late = level <= DEEPEST
        self._made: KeptPrograms[CpuProgram] = KeptPrograms(_NESTED)
        self._context = CpuContext(weights, threads, level)

    @property
    def arena_nbytes(self) -> int:
        """Bytes of activation memory held now."""
        return self._context.arena_nbytes

    def run(self, graph: Graph, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """The outputs of ``graph`` for these inputs."""
        key = (graph, *(_signature(i) for i in inputs))

        def make() -> CpuProgram:
            kinds = [_type_of(i, v.type) for i, v in zip(inputs, graph.inputs, strict=True)]
            return CpuProgram(graph, kinds, self._weights, self._threads, late=self._late)

        return self._context.execute(self._made.get(key, make), inputs)


def _type_of(value: Any, declared: Type | None) -> Type | None:
    return TensorType(dtype_of(value), value.shape) if isinstance(value, np.ndarray) else declared


def _signature(value: Any) -> Any:
    return (value.dtype, value.shape) if isinstance(value, np.ndarray) else type(value)
