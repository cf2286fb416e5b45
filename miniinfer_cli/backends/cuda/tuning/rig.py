"""One site's work on the device, apart from its network: its programs, and copies of what they read and write.

A graph holds several copies of a candidate's work, so that launching it counts for little. Each copy reads weights of its own,
which are in no cache, as in a network; activations are where the neighbour would have left them: in the L2 cache if they fit.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contexts.running import Runner
from miniinfer_cli.backends.cuda.contract.io_layout import lay_out
from miniinfer_cli.backends.cuda.contract.program import CudaProgram, DeviceStep, Origin, Place
from miniinfer_cli.backends.cuda.contract.protocols import Captured, Event, Memory, Stream
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.backends.cuda.loading.sharing import Shared
from miniinfer_cli.backends.cuda.scheduling.bound_program import Call
from miniinfer_cli.backends.reference import static_tensor
from miniinfer_cli.ir import Array, DType, TensorType, numpy_dtype

MOST_COPIES = 40
"""Copies of a candidate's work in one graph."""
_WANTED_US = 500.0
"""What a graph of copies is to take: so that events and launches, which cost some microseconds, do not count."""
_DRAWN = 1_000_003
"""Random elements of an input; a longer one repeats them, at places that no size of a tensor divides."""
_WEIGHTS_LIMIT = 1 << 30
"""Bytes that copies of weights may take."""


@dataclass(slots=True)
class Lane:
    """A stream with memory of its own: results, scratch and workspace."""

    stream: Stream
    runner: Runner
    arena: Memory
    workspace: Memory
    before: Event
    behind: Event


class Rig:
    """Memory and streams for the programs of one site. A context; ``lanes``: how many streams work at a time.

    Programs of one rig have the same inputs and outputs. Raises OutOfMemoryError.
    """

    def __init__(
        self, model: Shared, programs: Sequence[LoadedProgram], *, lanes: int = 1, seed: int = 0, most_copies: int = MOST_COPIES
    ) -> None:
        self._model = model
        self._device = model.gpu
        self._most_copies = most_copies
        self._flush_nbytes = 2 * self._device.l2_nbytes
        made = [p.made for p in programs]
        self._in_nbytes = max(m.io.input_nbytes for m in made)
        self._out_nbytes = max(m.io.output_nbytes for m in made)
        self._rotated: dict[int, list[int]] = {}
        moved = self._in_nbytes + self._out_nbytes
        self.sets = 2 if moved <= self._device.l2_nbytes else 2 + self._device.l2_nbytes // moved
        with contextlib.ExitStack() as stack:
            take = partial(_taken, stack, self._device.allocate)
            self._inputs = take(self.sets * self._in_nbytes, "memory for a trial's inputs")
            self._flush = take(self._flush_nbytes, "memory to empty the cache with")
            self._spare = take(self._out_nbytes, "memory for a trial's reference")
            arena = max(m.arena_nbytes for m in made)
            workspace = max(p.workspace_nbytes for p in programs)
            self._outputs = take(lanes * self.sets * self._out_nbytes, "memory for a trial's results")
            self.lanes = [self._lane(stack, arena, workspace) for _ in range(lanes)]
            self._fill_inputs(made[0], seed)
            for program in programs:
                self._rotate_weights(program, take)
            self._close = stack.pop_all()

    def _lane(self, stack: contextlib.ExitStack, arena: int, workspace: int) -> Lane:
        device, model = self._device, self._model
        stream = stack.enter_context(device.create_stream())
        model.libraries.bind(stream)
        stack.callback(model.libraries.unbind, stream)
        take = partial(_taken, stack, device.allocate)
        runner = Runner(stream, model.capture_lock, cuda_graph=True)
        events = [stack.enter_context(device.create_event(timing=True)) for _ in range(2)]
        return Lane(stream, runner, take(arena, "scratch of a trial"), take(workspace, "workspace of the libraries"), *events)

    def __enter__(self) -> "Rig":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives everything back; may be called twice."""
        self._close.close()

    # -- running ---------------------------------------------------------------------------------------------------

    def run(self, program: LoadedProgram, set_number: int = 0) -> float:
        """Computes once, as it is enqueued, and waits. Results are those of this number then. Gives the microseconds that it
        took, enqueuing included.
        """
        lane = self.lanes[0]
        lane.stream.record(lane.before)
        for call in self._calls(program, 0, copy=set_number):
            call()
        lane.stream.record(lane.behind)
        lane.stream.synchronize()
        return lane.behind.elapsed_ms(lane.before) * 1e3

    def keep(self) -> None:
        """Puts the results of number 0 aside."""
        if self._out_nbytes:
            self.lanes[0].stream.copy_on_device(self._spare.address, self._outputs.address, self._out_nbytes)
        self.lanes[0].stream.synchronize()

    @property
    def kept(self) -> int:
        """Where the results lie that were put aside."""
        return self._spare.address

    def inputs(self, set_number: int) -> int:
        """Where the inputs of a number lie."""
        return self._inputs.address + set_number * self._in_nbytes

    def results(self, set_number: int) -> int:
        """Where the results of a number lie."""
        return self._outputs.address + set_number * self._out_nbytes

    def copies_for(self, once_us: float) -> int:
        """How many copies of work that takes so long a graph is to hold."""
        return max(1, min(self._most_copies, round(_WANTED_US / max(once_us, 0.1))))

    def capture(self, program: LoadedProgram, copies: int) -> "Captures | None":
        """Graphs of so many copies, one for each lane; None where the work cannot be captured."""
        graphs: list[Captured] = []
        for number, lane in enumerate(self.lanes):
            calls = [call for copy in range(copies) for call in self._calls(program, number, copy)]
            graph = lane.runner.capture(calls, (lane.before, lane.behind))
            if graph is None:
                for one in graphs:
                    one.close()
                lane.runner.cuda_graph = True  # what comes next may be captured
                return None
            graphs.append(graph)
        return Captures(graphs, copies)

    def replay(self, captures: "Captures") -> float:
        """Microseconds of one copy, with the caches emptied before; of all lanes together, where there are several."""
        first, *others = self.lanes
        first.stream.fill(self._flush.address, 0x5A, self._flush_nbytes)
        first.stream.synchronize()
        for lane, graph in zip(self.lanes, captures.graphs, strict=True):
            lane.stream.launch_graph(graph)
        for lane in self.lanes:
            lane.stream.synchronize()
        begins = [0.0, *(lane.before.elapsed_ms(first.before) for lane in others)]
        ends = [lane.behind.elapsed_ms(first.before) for lane in self.lanes]
        return (max(ends) - min(begins)) * 1e3 / (captures.copies * len(self.lanes))

    # -- addresses -------------------------------------------------------------------------------------------------

    def _calls(self, program: LoadedProgram, lane_number: int, copy: int) -> list[Call]:
        lane = self.lanes[lane_number]
        return program.calls(lane.stream, lambda place: self._address(program, lane_number, copy, place), lane.workspace.address)

    def _address(self, program: LoadedProgram, lane_number: int, copy: int, place: Place) -> int:
        made, lane = program.made, self.lanes[lane_number]
        if place.scratch:
            return lane.arena.address + made.layout.scratch_offsets[place.number] + place.offset
        behind = made.behind_root(place)
        root, start = behind.number, behind.offset
        number = copy % self.sets
        if root in made.io.outputs:
            base = self._outputs.address + (lane_number * self.sets + number) * self._out_nbytes
            return base + made.io.outputs[root] + start
        if root in made.io.inputs:
            return self.inputs(number) + made.io.inputs[root] + start
        offset = made.layout.offsets.get(root)
        if offset is not None:
            return lane.arena.address + offset + start
        own = program.address_of(root)
        rotated = self._rotated.get(own)
        return (own if rotated is None else rotated[copy % len(rotated)]) + start

    def _rotate_weights(self, program: LoadedProgram, take: Callable[[int, str], Memory]) -> None:
        """Copies what the program's steps read of weights, as often as a graph holds copies of it and memory allows."""
        made, stream = program.made, self.lanes[0].stream
        read = {made.slots[s].root for step in made.steps if isinstance(step, DeviceStep) for s in step.reads}
        weights = [r for r in sorted(read) if made.slots[r].origin in (Origin.CONSTANT, Origin.DERIVED)]
        total = sum(made.slots[r].nbytes for r in weights)
        more = min(self._most_copies, _WEIGHTS_LIMIT // max(total, 1)) - 1
        for root in weights:
            own, nbytes = program.address_of(root), made.slots[root].nbytes
            if own not in self._rotated:
                room = lay_out([(root, nbytes)])[1]
                start = take(room * max(more, 0), "memory for copies of weights").address
                self._rotated[own] = [own, *(start + room * n for n in range(more))]
                for copy in self._rotated[own][1:]:
                    stream.copy_on_device(copy, own, nbytes)
        stream.synchronize()

    def _fill_inputs(self, made: CudaProgram, seed: int) -> None:
        generator = np.random.default_rng(seed)
        stream = self.lanes[0].stream
        for slot, offset in made.io.inputs.items():
            kind = made.slots[slot].type
            assert isinstance(kind, TensorType)
            self._model.transfers.send(self._inputs.address + offset, likely_contents(kind, generator))
        for number in range(1, self.sets):
            if self._in_nbytes:
                stream.copy_on_device(self._inputs.address + number * self._in_nbytes, self._inputs.address, self._in_nbytes)
        stream.synchronize()


@dataclass(frozen=True, slots=True)
class Captures:
    """A candidate's graphs, one for each lane, each of so many copies."""

    graphs: Sequence[Captured]
    copies: int

    def close(self) -> None:
        """Drops them."""
        for graph in self.graphs:
            graph.close()


def likely_contents(kind: TensorType, generator: np.random.Generator) -> Array:
    """Contents for an input of a trial: known ones as they are; normal floats, small integers, masks with holes."""
    known, dtype = kind.concrete, numpy_dtype(kind.dtype)
    if known is not None:
        return np.ascontiguousarray(known.astype(dtype, copy=False))
    shape = tuple(d for d in kind.shape or () if isinstance(d, int))
    size = math.prod(shape)
    if size > _DRAWN:  # drawing numbers takes longer than timing what is done with them
        return np.resize(likely_contents(TensorType(kind.dtype, (_DRAWN,)), generator), shape)
    if kind.dtype is DType.BOOL:
        return generator.random(shape) < 0.9
    if kind.dtype in (DType.I8, DType.U8):  # quantized values; wider integers may be indices
        return generator.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)
    if kind.dtype.is_integer:
        return generator.integers(0, 2, shape).astype(dtype)
    values: Any = generator.standard_normal(shape, np.float32)
    return np.asarray(values).astype(dtype)


def is_timeable(made: CudaProgram) -> bool:
    """True when all of a site's work, and all that it reads, is on the device."""
    if not made.steps or not all(isinstance(s, DeviceStep) for s in made.steps):
        return False
    return all(static_tensor(made.slots[s].type) is not None for s in (*made.input_slots, *made.output_slots))


def _taken(stack: contextlib.ExitStack, allocate: Callable[[int, str], Memory], nbytes: int, what: str) -> Memory:
    return stack.enter_context(allocate(max(nbytes, 256), what))
