"""A program bound to an arena: its steps made ready, and run."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.program import CpuProgram, Step
from miniinfer_cli.backends.cpu.results import ResultMemory
from miniinfer_cli.backends.cpu.routine import nbytes_of, shape_of
from miniinfer_cli.backends.reference import own, place_of, run_reference, static_tensor
from miniinfer_cli.errors import LimitExceeded, MiniinferError, OutOfMemoryError
from miniinfer_cli.ir import Array, TensorType, dtype_of, numpy_dtype
from miniinfer_cli.ops.agreement import expect_told
from miniinfer_cli.ops.budget import Budget, current
from miniinfer_cli.ops.products import Call, in_order
from miniinfer_cli.ops.registry import RunGraph
from miniinfer_cli.planning.held_states import changed_type
from miniinfer_cli.planning.late_parts import is_late_part

_COPIED_NBYTES = 1 << 15  # of an input: copying it takes less than making its readers ready


class CpuExecution:
    """A program bound to an arena: what one context runs. Not for two threads at once.

    A value in the arena is the same array in every run, so a step of such values is made ready once; one that reads a large array
    of the caller's, or what a step outside the arena left, each time. Small inputs are copied, into arrays that stay.
    """

    def __init__(
        self, program: CpuProgram, arena: Array, results: ResultMemory, run_graph: RunGraph, states: Sequence[Array] = ()
    ) -> None:
        """``results``: the memory of what is handed out; ``run_graph`` runs graphs within; ``states``: those of the context."""
        self.program = program
        self._results = results
        self._run_graph = run_graph
        self._arena = arena
        self._held: dict[int, Any] = {}  # what a budget counts, by slot
        self._no_scratch = arena[:0]
        self._slots: list[Any] = [None] * len(program.slots)
        for slot, array in program.preset.items():
            self._slots[slot] = array
        for step in program.steps:
            for slot, kind in zip(step.outputs, step.types, strict=True):
                offset = program.layout.offsets.get(slot)
                if kind is not None and offset is not None and not step.view:
                    raw = arena[offset : offset + nbytes_of(kind)]
                    self._slots[slot] = raw.view(numpy_dtype(kind.dtype)).reshape(shape_of(kind))
        held = dict(zip((s.past for s in program.states), states, strict=True))
        self._slots = [held.get(slot, value) for slot, value in enumerate(self._slots)]
        self._copied: dict[int, Array] = {}
        """The arrays of small inputs, by slot."""
        self._given = [(slot, i) for i, slot in enumerate(program.input_slots) if slot not in held]
        """The slots of what callers give, and its numbers."""
        for slot, kind in zip(program.input_slots, map(static_tensor, program.input_types), strict=True):
            if slot not in held and kind is not None and nbytes_of(kind) <= _COPIED_NBYTES:
                self._slots[slot] = self._copied[slot] = np.empty(shape_of(kind), numpy_dtype(kind.dtype))
        for step in program.steps:
            if (step.view or step.in_state) and step.inputs[0] is not None and self._slots[step.inputs[0]] is not None:
                self._slots[step.outputs[0]] = _viewed(step, self._slots[step.inputs[0]])
        self._passing = tuple(slot for slot, value in enumerate(self._slots) if value is None)
        self._last_reads = _last_dynamic_reads(program)
        self._calls: list[Call] = []
        self._busy: list[tuple[int, Call]] = []
        """Numbers of the steps that do something, and what does it."""
        for number, step in enumerate(program.steps):
            call = self._made_ready(number, step)
            self._calls.append(in_order() if call is None else call)
            if call is not None:
                self._busy.append((number, call))

    def run(
        self, inputs: Sequence[Any], marks: list[int] | None = None, *, lend: bool = False, commit: bool = True
    ) -> tuple[Any, ...]:
        """The outputs, as arrays of their own: nothing of the arena, the plan or an input is handed out.

        ``marks``, when given, receives the host's clock in nanoseconds before and behind each step. ``lend``: what lies outside
        the arena is handed out as it is, not to be changed; a loop that carries much would copy all of it in every round.
        ``commit``: states that are replaced hold their new contents afterwards.
        """
        program, slots = self.program, self._slots
        budget = current()
        if budget is not None:
            budget.check_time()
            budget.expect(program.results_nbytes, "memory for the results")
        for slot, number in self._given:
            array = inputs[number]
            if slot in self._copied:
                np.copyto(self._copied[slot], array, casting="no")
            else:
                slots[slot] = array
        try:
            with np.errstate(all="ignore"):
                self._run_steps(budget, marks)
            results = [slots[s] for s in program.handed_slots]
            if lend:
                passing = (self._arena, *self._copied.values())
                return tuple(_outside(passing, value) for value in results)
            if budget is not None and budget.allowance.memory_nbytes is not None:
                handed = tuple(map(own, results))  # nothing is kept beside what is counted
            else:
                handed = self._results.copies(results)
            if commit and program.states:
                self._commit()  # now, since a state may be handed out as it was before
            return handed
        finally:
            for slot in self._passing:
                self._let_go(slot)

    def _commit(self) -> None:
        """Raises ModelError where what is to replace a state has another size, as data decided; then nothing is replaced."""
        replaced = [s for s in self.program.states if not s.in_place]
        made = [self._slots[s.present] for s in replaced]
        for state, array in zip(replaced, made, strict=True):
            past = self._slots[state.past]
            if array.shape != past.shape:
                raise changed_type(*(TensorType(dtype_of(a), a.shape) for a in (past, array)))
        pasts = {id(self._slots[s.past]) for s in replaced}
        if len(made) > 1:  # what one state is replaced by may be another
            made = [array.copy() if id(array) in pasts else array for array in made]
        for state, array in zip(replaced, made, strict=True):
            np.copyto(self._slots[state.past], array, casting="no")

    def _run_steps(self, budget: Budget | None, marks: list[int] | None) -> None:
        steps, number = self.program.steps, 0
        try:
            if marks is not None:
                for number, call in enumerate(self._calls):
                    if budget is not None:
                        budget.check_time(place_of(steps[number].node))
                    marks.append(time.perf_counter_ns())
                    call()
                    marks.append(time.perf_counter_ns())
            else:
                for number, call in self._busy:
                    if budget is not None:
                        budget.check_time(place_of(steps[number].node))
                    call()
        except (LimitExceeded, MemoryError) as error:
            raise _at(steps[number], error) from None

    def _made_ready(self, number: int, step: Step) -> Call | None:
        """What does the step; None for nothing: a view of what stays where it is."""
        slots = self._slots
        last = [slot for slot in self._last_reads.get(number, ()) if slots[slot] is None]
        stays = all(s is None or slots[s] is not None for s in step.inputs)
        if step.view and stays:
            return None
        call = self._ready_once(number, step) if stays and step.routine is not None else None
        if call is not None:
            return call

        def each_time() -> None:
            operands: list[Any] = [None if s is None else slots[s] for s in step.inputs]
            if step.view:
                slots[step.outputs[0]] = _viewed(step, operands[0])
            elif step.routine is not None:
                step.routine.run(operands, [slots[s] for s in step.outputs], self._scratch_of(number, step))
            else:
                self._run_outside(step, operands)
            for slot in last:
                self._let_go(slot)

        return each_time

    def _ready_once(self, number: int, step: Step) -> Call:
        assert step.routine is not None
        slots = self._slots
        operands: list[Any] = [None if s is None else slots[s] for s in step.inputs]
        try:
            return step.routine.prepare(operands, [slots[s] for s in step.outputs], self._scratch_of(number, step))
        except (LimitExceeded, MemoryError) as error:
            raise _at(step, error) from None

    def _scratch_of(self, number: int, step: Step) -> Array:
        offset = self.program.layout.scratch_offsets.get(number)
        if offset is None or step.routine is None:
            return self._no_scratch
        return self._arena[offset : offset + step.routine.scratch_nbytes]

    def _run_outside(self, step: Step, operands: Sequence[Any]) -> None:
        if is_late_part(step.node):
            assert step.node.body is not None
            results = self._run_graph(step.node.body, operands)
        else:
            results = run_reference(step.node, operands, self._run_graph, self.program.threads)
        for slot, kind, told, result in zip(step.outputs, step.types, step.told, results, strict=False):
            target = None if kind is None else self._slots[slot]
            if target is None or not _alike(result, target):
                expect_told(step.kind, result, told, (place_of(step.node),))
            if target is None:
                self._keep(step, slot, _outside((self._arena,), result))
            else:
                np.copyto(target, result, casting="no")

    def _keep(self, step: Step, slot: int, value: Any) -> None:
        """Puts what lies outside the arena into a slot, and counts it."""
        self._slots[slot] = value
        budget = current()
        if budget is not None:
            self._held[slot] = value
            budget.hold(value)
            budget.expect(0, f"results of {step.kind}", place_of(step.node))

    def _let_go(self, slot: int) -> None:
        self._slots[slot] = None
        if slot in self._held:
            budget = current()
            value = self._held.pop(slot)
            if budget is not None:
                budget.let_go(value)


def _viewed(step: Step, array: Array) -> Array:
    (kind,) = step.types
    return array.reshape(shape_of(kind))


def _at(step: Step, error: LimitExceeded | MemoryError) -> MiniinferError:
    """The error with the place."""
    if isinstance(error, LimitExceeded):
        return error if error.where else error.at(place_of(step.node))
    return OutOfMemoryError(f"{step.kind}: {error}", hint="run smaller shapes", where=(place_of(step.node),))


def _alike(value: Any, target: Array) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == target.dtype and value.shape == target.shape


def _outside(memory: Sequence[Array], value: Any) -> Any:
    """``value`` with copies of the arrays that lie in ``memory``, which soon holds something else."""
    if isinstance(value, list):
        return [_outside(memory, item) for item in value]
    if isinstance(value, np.ndarray) and any(np.may_share_memory(value, part) for part in memory):
        return value.copy()
    return value


def _last_dynamic_reads(program: CpuProgram) -> dict[int, list[int]]:
    """By step: the slots with no place in the arena that nobody reads afterwards, so that their memory is let go."""
    last: dict[int, int] = {}
    for number, step in enumerate(program.steps):
        for slot in (*step.inputs, *step.outputs):
            if slot is not None and slot not in program.layout.offsets and slot not in program.preset:
                last[slot] = number
    freed: dict[int, list[int]] = {}
    for slot, number in last.items():
        if slot not in program.output_slots and slot not in program.input_slots:
            freed.setdefault(number, []).append(slot)
    return freed
