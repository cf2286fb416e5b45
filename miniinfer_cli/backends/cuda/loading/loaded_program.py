"""A program with what it needs on a device: kernels, tables, constants, prepared library calls."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from miniinfer_cli.backends.cuda.contract.io_layout import lay_out
from miniinfer_cli.backends.cuda.contract.problems import Problem, Variant
from miniinfer_cli.backends.cuda.contract.program import CudaProgram, DeviceStep, Origin, Place, Step, library_calls
from miniinfer_cli.backends.cuda.contract.protocols import Libraries, Memory, PreparedCall, Stream
from miniinfer_cli.backends.cuda.contract.steps import Derived, Launch, LibraryCall, flat
from miniinfer_cli.backends.cuda.loading.sharing import Shared
from miniinfer_cli.backends.cuda.scheduling.bound_program import Call, Segment, bind
from miniinfer_cli.backends.interface import LaunchedKernel
from miniinfer_cli.ir import Constant


class LoadedProgram:
    """A program with what it needs on the device: kernels, small tables, prepared library calls. See backends.interface."""

    def __init__(self, made: CudaProgram, model: Shared, *, once: bool = False) -> None:
        """``once``: it is run once, to make a derived form; what it copies is no late copy, which inferences would pay for."""
        self.made = made
        """The program as it was made."""
        self.ordinal = model.gpu.ordinal
        self.fork_guard = model.fork_guard
        self._model = model
        self._tables: Memory | None = None
        self._once = once
        self._late: list[Memory] = []
        self._addresses: dict[int, int] = {}
        calls = library_calls(made.steps)
        self._prepared = {(c.problem, c.variant): _solved(model.libraries, c.problem, c.variant) for c in calls}
        self.workspace_nbytes = max((p.workspace_nbytes for p in self._prepared.values()), default=0)
        model.functions.prepare(made.kernels)
        try:
            self._place_constants()
        except BaseException:
            self.close()
            raise

    @property
    def steps(self) -> Sequence[Step]:
        """What it does, in order."""
        return self.made.steps

    def sources(self) -> Sequence[Sequence[int]]:
        """See backends.interface."""
        return self.made.sources()

    def launched_kernels(self) -> Sequence[Sequence[LaunchedKernel]]:
        """See backends.interface."""
        return [self._launched(step) if isinstance(step, DeviceStep) else () for step in self.made.steps]

    @property
    def arena_nbytes(self) -> int:
        """Peak bytes of intermediates on the device, as planned."""
        return self.made.arena_nbytes

    @property
    def activation_nbytes(self) -> int:
        """Bytes that the intermediates would take with no memory shared."""
        return self.made.activation_nbytes

    @property
    def host_steps(self) -> Sequence[Step]:
        """Primitive nodes without a lowering."""
        return self.made.host_steps

    def address_of(self, slot: int) -> int:
        """Where a constant, derived form or table lies."""
        return self._addresses[slot]

    def library_call(
        self, action: LibraryCall[Place], addresses: Sequence[int], stream: Stream, workspace: int
    ) -> Callable[[], None]:
        """What enqueues a library call on ``stream``."""
        prepared = self._prepared[action.problem, action.variant]
        return partial(prepared.enqueue, stream.handle, addresses, workspace)

    def calls(self, stream: Stream, address_of: Callable[[Place], int], workspace: int) -> list[Call]:
        """What enqueues all steps on ``stream``, over places at these addresses; of a program that is wholly on the device."""
        bound = bind(
            self.made,
            stream=stream,
            address_of=address_of,
            function=self._model.functions.get,
            library_call=lambda action, addresses: self.library_call(action, addresses, stream, workspace),
            encode=self._model.gpu.encode,
        )
        return [call for segment in bound.segments if isinstance(segment, Segment) for calls in segment.calls for call in calls]

    def close(self) -> None:
        """Frees the tables and constants of its own; may be called twice. In a forked child they are the parent's."""
        if self.fork_guard.is_child:
            return
        for memory in (*([self._tables] if self._tables is not None else []), *self._late):
            memory.close()
        self._tables = None
        self._late.clear()

    def _launched(self, step: DeviceStep) -> Sequence[LaunchedKernel]:
        found: dict[LaunchedKernel, None] = {}
        for launch in (a for a in flat(step.actions) if isinstance(a, Launch)):
            takes = self._model.functions.get(launch.kernel, launch.shared_nbytes).resources
            shared_nbytes = takes.shared_nbytes + launch.shared_nbytes
            found[LaunchedKernel(launch.kernel.name, takes.registers, takes.local_nbytes, shared_nbytes)] = None
        return tuple(found)

    def _place_constants(self) -> None:
        slots = self.made.slots
        used = self._used_slots()
        tables = [(i, slots[i].nbytes) for i in used if slots[i].origin is Origin.TABLE]
        offsets, nbytes = lay_out(tables)
        if offsets:
            packed = np.zeros(nbytes, np.uint8)
            for slot, offset in offsets.items():
                contents = slots[slot].contents
                assert contents is not None
                packed[offset : offset + contents.nbytes] = np.ascontiguousarray(contents).reshape(-1).view(np.uint8)
            self._tables = self._model.gpu.allocate(nbytes, "memory for a program's tables")
            self._model.transfers.send(self._tables.address, packed)
        for slot in used:
            described = slots[slot]
            if described.origin is Origin.CONSTANT and described.handle is not None:
                self._addresses[slot] = self._constant(described.handle)
            elif described.origin is Origin.DERIVED and described.derived is not None:
                self._addresses[slot] = self._derived(described.derived)
            elif described.origin is Origin.TABLE:
                assert self._tables is not None
                self._addresses[slot] = self._tables.address + offsets[slot]

    def _constant(self, handle: Constant) -> int:
        found = self._model.weights.address(handle)
        if found is None:
            self._late.append(self._model.weights.late(handle, counted=not self._once))
            found = self._late[-1].address
        return found

    def _derived(self, derived: Derived) -> int:
        if all(map(self._model.weights.holds, derived.sources)):
            return self._model.weights.derived(derived)
        # Of a constant that was made for this program: nobody else will ask for it.
        self._late.append(self._model.evaluate(derived))
        return self._late[-1].address

    def _used_slots(self) -> list[int]:
        """Roots of what device steps read and do not compute, in order."""
        read = (s for step in self.made.steps if isinstance(step, DeviceStep) for s in step.reads)
        return list(dict.fromkeys(self.made.slots[s].root for s in read))


def _solved(libraries: Libraries, problem: Problem, variant: Variant | None) -> PreparedCall:
    prepared = libraries.prepare(problem, variant)
    assert prepared is not None, f"{problem} was supported when the program was made"
    return prepared
