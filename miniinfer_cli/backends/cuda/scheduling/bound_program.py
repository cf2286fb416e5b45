"""A program bound to addresses: what one context enqueues for one of its I/O slots."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Protocol

import numpy as np

from miniinfer_cli.backends.cuda.contract.parameters import Encoded, Parameters, pack_parameters
from miniinfer_cli.backends.cuda.contract.program import CudaProgram, DeviceStep, HostStep, Place, PlacedAction
from miniinfer_cli.backends.cuda.contract.protocols import Captured, Function, Ranges, Stream
from miniinfer_cli.backends.cuda.contract.steps import ByValue, Copy, Fill, Kernel, Launch, LibraryCall, Once, Repeat, Round
from miniinfer_cli.backends.cuda.contract.tensor_map import TensorMap
from miniinfer_cli.backends.cuda.scheduling.programmatic_edges import begin_early, expect_sound_edges

Call = Callable[[], None]


class Closable(Protocol):
    """Something that holds what the device gave."""

    def close(self) -> None:
        """Gives it back; may be called twice."""


class Segment:
    """Steps that run on the device one after the other: calls that enqueue them, and the graphs captured from the calls.

    One graph is of the calls alone, another has events around them, which take their time; each is captured when it is needed.
    ``alone`` are the calls of each step when nothing is in front of it.
    """

    def __init__(self, steps: Sequence[DeviceStep], calls: list[list[Call]], alone: list[list[Call]]) -> None:
        self.steps = steps
        self.calls = calls
        self.alone = alone
        self.graph: Captured | None = None
        self.timed_graph: Captured | None = None
        self.timing: Closable | None = None  # one more graph, with events between the steps (contexts/step_timing.py)
        self.warm = False  # enqueued once, so that libraries have loaded what they load at first use

    def enqueue(self) -> None:
        """Enqueues every step."""
        for calls in self.calls:
            for call in calls:
                call()

    def close(self) -> None:
        """Drops the graphs; may be called twice."""
        for graph in (self.graph, self.timed_graph, self.timing):
            if graph is not None:
                graph.close()
        self.graph = self.timed_graph = self.timing = None


class BoundProgram:
    """The segments of a program, each device segment bound to addresses."""

    def __init__(self, program: CudaProgram, segments: list["Segment | HostStep"], address_of: Callable[[Place], int]) -> None:
        self.program = program
        self.segments = segments
        self.address_of = address_of
        self.on_device = all(isinstance(s, Segment) for s in segments) and all(
            program.slots[s].root in program.io.outputs for s in program.output_slots
        )
        """True when the host has no part in it: no step, and no output that it hands through."""
        first = segments[0] if self.on_device and len(segments) == 1 else None
        self.alone = first if isinstance(first, Segment) else None
        """The segment that is all there is to do, as is usual."""
        io = program.io
        self.outputs = ((0, io.handed_nbytes),) if io.handed_nbytes else ()
        """Offset and bytes of what is copied out: the region of outputs, as far as it is the caller's."""
        bounded = [s for s in program.output_slots if program.slots[s].bound is not None and s in io.outputs]
        counted = [n for s in bounded for n in (s, program.slots[s].count) if n is not None]
        self.counted = tuple((io.outputs[n], program.slots[n].nbytes) for n in counted)
        """The same of outputs that the host must cut to a count, wherever the others stay."""

    def close(self) -> None:
        """Drops the graphs; may be called twice."""
        for segment in self.segments:
            if isinstance(segment, Segment):
                segment.close()


def bind(
    program: CudaProgram,
    *,
    stream: Stream,
    address_of: Callable[[Place], int],
    function: Callable[[Kernel, int], Function],
    library_call: Callable[[LibraryCall[Place], Sequence[int]], Call],
    encode: Callable[[TensorMap[Place], int], Encoded],
    ranges: Ranges | None = None,
    programmatic: bool = False,
) -> BoundProgram:
    """``function(kernel, shared_nbytes)`` is the loaded kernel; ``library_call(action, addresses)`` what enqueues a call.

    ``encode(map, address)`` is a tensor map as a kernel takes it. ``ranges`` names every step to profilers (driver.nvtx), as it
    is enqueued or captured. ``programmatic``: kernels may begin before those in front of them have ended (programmatic_edges).
    """

    def value_of(argument: Place | Round | ByValue | TensorMap[Place]) -> ByValue | Encoded:
        match argument:
            case Place():
                return np.uint64(address_of(argument))
            case TensorMap():
                return encode(argument, address_of(argument.operand))
            case Round():
                return argument.value(0)
        return argument

    def parameters_of(action: Launch[Place]) -> Parameters:
        """The arguments, those that advance as in the first round."""
        return pack_parameters([value_of(a) for a in action.arguments])

    def launch_with(action: Launch[Place]) -> Callable[[Parameters], None]:
        loaded = function(action.kernel, action.shared_nbytes)
        return stream.launcher(loaded, action.grid, action.block, action.shared_nbytes, action.attributes)

    def once_call(action: Once[Place]) -> Call:
        match action:
            case Launch():
                return partial(launch_with(action), parameters_of(action))
            case Copy(target, source, nbytes):
                to, since = address_of(target), address_of(source)
                # A step that works in place begins with a copy that is none when its buffers are one.
                return _do_nothing if to == since else partial(stream.copy_on_device, to, since, nbytes)
            case Fill(target, byte, nbytes):
                return partial(stream.fill, address_of(target), byte, nbytes)
            case LibraryCall(operands=operands):
                return library_call(action, [address_of(o) for o in operands])

    def turn_call(action: Once[Place]) -> Callable[[int], None]:
        """What enqueues the action in the round of a number."""
        rounds = {at: a for at, a in enumerate(action.arguments) if isinstance(a, Round)} if isinstance(action, Launch) else {}
        if not isinstance(action, Launch) or not rounds:
            call = once_call(action)
            return lambda number: call()
        launch, first = launch_with(action), parameters_of(action)
        in_round = cache(lambda number: first.replaced({at: a.value(number) for at, a in rounds.items()}))
        return lambda number: launch(in_round(number))

    def action_call(action: PlacedAction) -> Call:
        if not isinstance(action, Repeat):
            return once_call(action)
        in_turn = [turn_call(a) for a in action.actions]

        def repeat() -> None:
            for number in range(action.rounds):
                for enqueue in in_turn:
                    enqueue(number)

        return repeat

    def step_calls(step: DeviceStep) -> list[Call]:
        calls = [action_call(a) for a in step.actions]
        return calls if ranges is None else [partial(ranges.push, f"{step.kind} {step.label}"), *calls, ranges.pop]

    segments: list[Segment | HostStep] = []
    for run in program.segments():
        first = run[0]
        if isinstance(first, HostStep):
            segments.append(first)
        else:
            steps = [s for s in run if isinstance(s, DeviceStep)]
            if programmatic:
                alone = [begin_early([s])[0] for s in steps]
                steps = begin_early(steps)
                expect_sound_edges(steps)
                segments.append(Segment(steps, list(map(step_calls, steps)), list(map(step_calls, alone))))
            else:
                expect_sound_edges(steps)
                calls = list(map(step_calls, steps))
                segments.append(Segment(steps, calls, calls))
    return BoundProgram(program, segments, address_of)


def _do_nothing() -> None:
    pass
