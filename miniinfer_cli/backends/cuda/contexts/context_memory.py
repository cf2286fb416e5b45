"""The memory of a context: arena, workspace and I/O slots. It grows with the programs, and does with less where it must."""

import contextlib
import logging

from miniinfer_cli.backends.cuda.contexts.buffers import Buffer
from miniinfer_cli.backends.cuda.contexts.held_states import HeldStates
from miniinfer_cli.backends.cuda.contexts.io_slot import IoSlot
from miniinfer_cli.backends.cuda.contract.program import CudaProgram, Origin, Place
from miniinfer_cli.backends.cuda.contract.protocols import Device
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.errors import OutOfMemoryError

_LOG = logging.getLogger(__name__)


class ContextMemory:
    """``depth`` is the number of I/O slots, inferences that can be under way at once, for as long as memory allows.

    ``bindings``: programs that each of them keeps bound. ``states``: those of the context.
    """

    def __init__(self, device: Device, depth: int, bindings: int, states: HeldStates) -> None:
        self._device = device
        self._bindings = bindings
        self._wanted = depth
        self.depth = depth
        self.arena = Buffer(device.allocate, "memory for the activations")
        self.workspace = Buffer(device.allocate, "workspace of the libraries")
        self.slots = [IoSlot(device, bindings)]
        self._states = states

    def fits(self, program: LoadedProgram) -> bool:
        """True when nothing must grow for the program."""
        return (
            self.arena.nbytes >= program.made.arena_nbytes
            and self.workspace.nbytes >= program.workspace_nbytes
            and len(self.slots) == self.depth
            and all(s.fits(program.made) for s in self.slots)
        )

    def nbytes_with(self, program: LoadedProgram) -> int:
        """Bytes of activations, and of results on the device and on the host, once everything is large enough for the program."""
        made = program.made
        results = [max(s.device_out.nbytes, made.io.output_nbytes) for s in self.slots]
        results += [made.io.output_nbytes] * (self.depth - len(self.slots))
        return max(self.arena.nbytes, made.arena_nbytes) + sum(results) + made.io.output_nbytes

    def want_one_slot(self) -> None:
        """From now on one inference is under way at a time; nothing may be."""
        while len(self.slots) > 1:
            self.slots.pop().close()
        self.depth = self._wanted = 1

    def grow(self, program: LoadedProgram) -> None:
        """Makes everything large enough; nothing may be under way. Captured graphs go, since they hold the old addresses.

        The second slot is for speed alone: where there is no memory for it, one inference is under way at a time. Raises
        OutOfMemoryError when there is too little even so, and then holds nothing.
        """
        for slot in self.slots:
            slot.drop_bindings()
        try:
            try:
                self._grow_first(program)
            except OutOfMemoryError as error:
                if len(self.slots) == 1:
                    raise
                self._drop_second(error)  # what it holds may be what is missing
                self._grow_first(program)
        except OutOfMemoryError:
            # Others may have better use for what is too little for this program, and smaller ones start afresh.
            self.arena.close()
            self.workspace.close()
            self.slots[0].shrink()
            self.depth = self._wanted
            raise
        self._grow_second(program.made)

    def address(self, program: LoadedProgram, slot: IoSlot, place: Place) -> int:
        """Where a place of a program lies, when its inputs and outputs are in ``slot``."""
        made = program.made
        if place.scratch:
            return self.arena.address + made.layout.scratch_offsets[place.number] + place.offset
        behind = made.behind_root(place)
        root, start = behind.number, behind.offset
        if root in made.io.outputs:
            return slot.device_out.address + made.io.outputs[root] + start
        if root in made.io.inputs:
            return slot.device_in.address + made.io.inputs[root] + start
        if made.slots[root].origin is Origin.STATE:
            return self._states.address(made.state_numbers[root]) + start
        offset = made.layout.offsets.get(root)
        if offset is not None:
            return self.arena.address + offset + start
        return program.address_of(root) + start

    def drop_bindings(self) -> None:
        """Forgets every binding: an address in them changes."""
        for slot in self.slots:
            slot.drop_bindings()

    def close(self) -> None:
        """Frees everything; may be called twice."""
        with contextlib.ExitStack() as stack:  # which goes on when one of them fails
            for slot in self.slots:
                stack.callback(slot.close)
            stack.callback(self.arena.close)
            stack.callback(self.workspace.close)

    def _grow_first(self, program: LoadedProgram) -> None:
        self.arena.grow(program.made.arena_nbytes)
        self.workspace.grow(program.workspace_nbytes)
        self.slots[0].grow(program.made)

    def _grow_second(self, made: CudaProgram) -> None:
        try:
            if len(self.slots) < self.depth:
                self.slots.append(IoSlot(self._device, self._bindings))
            for slot in self.slots[1:]:
                slot.grow(made)
        except OutOfMemoryError as error:
            self._drop_second(error)

    def _drop_second(self, error: OutOfMemoryError) -> None:
        if len(self.slots) > 1:
            self.slots.pop().close()
        self.depth = 1
        _LOG.warning("%s; copies no longer overlap with computation", ": ".join((*error.where, error.message)))
