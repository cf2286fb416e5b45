"""Host steps of an inference: values fetched from the device, references run, results sent back where a step wants them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.arrays.device_array import DeviceArray
from miniinfer_cli.backends.cuda.contract.program import HostStep, Origin, Place, Slot, is_whole
from miniinfer_cli.backends.cuda.contract.site import static_shape
from miniinfer_cli.backends.cuda.hosting.control import Control
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.backends.cuda.loading.sharing import Surroundings
from miniinfer_cli.backends.cuda.scheduling.bound_program import BoundProgram
from miniinfer_cli.backends.reference import own, place_of, run_reference, static_tensor
from miniinfer_cli.errors import MiniinferError, ModelError
from miniinfer_cli.ir import Array, Graph, TensorType, numpy_dtype
from miniinfer_cli.ops.agreement import expect_told
from miniinfer_cli.ops.budget import current
from miniinfer_cli.ops.registry import find
from miniinfer_cli.planning.late_parts import is_late_part

_FEW_NBYTES = 512  # of an input that is given to a graph within from the host's memory, since it may decide shapes


class HostValues:
    """The values of one inference that the host knows, by slot; each is fetched from the device once.

    ``lend``: results are given as they are, not to be changed; a loop that carries much would copy all of it in every round.
    """

    def __init__(
        self, context: Surroundings, program: LoadedProgram, binding: BoundProgram, inputs: Sequence[Any], *, lend: bool = False
    ) -> None:
        self._context = context
        self._program = program
        self._made = program.made
        self._binding = binding
        self._uploads = frozenset(self._made.uploads)
        self._lend = lend
        self._budget = current()
        self._held: list[Any] = []  # what the budget counts
        self._results: dict[int, Any] = {}
        self._given: set[int] = set()  # those that were asked for
        self._values: dict[int, Any] = {
            s: v
            for s, v in zip(self._made.input_slots, inputs, strict=True)
            if not isinstance(v, DeviceArray) and self._made.slots[s].origin is not Origin.STATE
        }

    def run(self, step: HostStep) -> None:
        """One step, in order with what is enqueued on the device."""
        if self._budget is not None:
            self._budget.check_time(place_of(step.node))
        if is_late_part(step.node):
            self._run_late(step)
            return
        opdef = find(step.node.domain, step.node.op)
        if opdef is not None and opdef.control:
            self._run_control(step)
            return
        operands = [None if s is None else self.read(s) for s in step.inputs]
        with np.errstate(all="ignore"):
            results = run_reference(step.node, operands, self._run_body)
        for slot, result in zip(step.outputs, results, strict=False):
            self._put(step, slot, result)

    def _run_late(self, step: HostStep) -> None:
        operands = [self._anywhere(s) for s in step.inputs if s is not None]
        assert step.node.body is not None
        for slot, result in zip(step.outputs, self._context.run_nested(step.node.body, operands), strict=True):
            self._put(step, slot, result)

    def _run_control(self, step: HostStep) -> None:
        def keep(output: int, place: int, value: Any) -> bool:
            slot = step.outputs[output]
            if slot not in self._uploads:
                return False
            end = (place + 1) * value.nbytes
            if end > self._made.slots[slot].nbytes:
                raise ModelError(f"output {output} collects {end} bytes, its type is {self._made.slots[slot].type}")
            self._send(self._binding.address_of(Place(slot, place * value.nbytes)), value)
            return True

        control = Control(self._context.run_nested, self._on_host, keep)
        operands = [None if s is None else self._anywhere(s) for s in step.inputs]
        try:
            with np.errstate(all="ignore"):
                results = control.run(step.node, operands)
        except MiniinferError as error:
            raise error.at(place_of(step.node)) from None
        for slot, result in zip(step.outputs, results, strict=False):
            if result is not None or slot not in self._uploads:  # else it was kept
                self._put(step, slot, result)

    def _run_body(self, graph: Graph, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """A body for a reference, which wants arrays of the host."""
        return tuple(self._on_host(v) for v in self._context.run_nested(graph, inputs))

    def _anywhere(self, slot: int) -> Any:
        """A value where it is: on the device if it is there, else on the host. What is cut to a count is cut where it is."""
        described = self._made.slots[slot]
        root = self._made.slots[described.root]
        kind = described.type
        if not self._is_on_device(described.root) or not isinstance(kind, TensorType):
            return self.read(slot)
        shape = static_shape(kind)
        if root.bound is not None:
            axis = root.bound.axis
            if math.prod(shape[:axis]) != 1:
                return self.read(slot)  # what is left lies in pieces
            shape = (*shape[:axis], self._count(root), *shape[axis + 1 :])
        return DeviceArray(self._binding.address_of(Place(slot)), shape, numpy_dtype(kind.dtype), self._program.ordinal)

    def _is_on_device(self, root: int) -> bool:
        described = self._made.slots[root]
        if root in self._made.io.inputs:
            return root not in self._values or described.nbytes > _FEW_NBYTES
        on_device = described.origin in (Origin.DEVICE, Origin.STATE)
        return root not in self._values and (on_device or root in self._uploads)

    def _count(self, root: Slot) -> int:
        assert root.count is not None
        return int(self.read(root.count)[0])

    def _on_host(self, value: Any) -> Any:
        if not isinstance(value, DeviceArray):
            return value
        self._context.model.count_fetch(value.nbytes)
        return self._context.model.fetch(value, self._context.compute)

    def _put(self, step: HostStep, slot: int, result: Any) -> None:
        """Notes what a step gave, and takes it to the device where a device step reads it."""
        # The device has memory for what the shape rule said, and not a byte more.
        expect_told(step.kind, result, self._made.slots[slot].type, (place_of(step.node),))
        if slot in self._uploads:
            self._send(self._binding.address_of(Place(slot)), result)
            if isinstance(result, DeviceArray):
                return
        self._values[slot] = self._on_host(result)
        if self._budget is not None:
            self._held.append(self._values[slot])
            self._budget.hold(self._values[slot])
            self._budget.expect(0, f"results of {step.kind}", place_of(step.node))

    def end(self) -> None:
        """What steps on the host computed counts no longer; may be called twice."""
        while self._held:
            assert self._budget is not None
            self._budget.let_go(self._held.pop())

    def fetch_outputs(self) -> None:
        """Reads what the graph returns and does not lie in the region of outputs.

        It is copied at once: it may be an input, which the caller is free to change from now on.
        """
        self._given.clear()
        for slot in self._made.output_slots:
            if self._made.slots[slot].root not in self._made.io.outputs:
                value = self.read(slot)
                self._results[slot] = value if self._lend else own(value)

    def result(self, slot: int) -> Any:
        """What ``fetch_outputs`` read: for the caller to keep, unless it is lent. What is returned twice is two arrays."""
        value = self._results[slot]
        if self._lend or slot not in self._given:
            self._given.add(slot)
            return value
        return own(value)

    def read(self, slot: int) -> Any:
        """A value on the host; fetched from the device, and waited for, where it is not there yet."""
        if slot in self._values:
            return self._values[slot]
        described = self._made.slots[slot]
        root = self._made.slots[described.root]
        if root.contents is not None:
            value: Any = root.contents
        elif root.handle is not None:
            value = root.handle.array()
        elif described.root in self._values and is_whole(self._made.slots, slot):
            value = self._values[described.root]
        else:
            value = self._fetch(slot)
        kind = static_tensor(described.type)
        if described.root != slot and kind is not None:  # a view of what the host has; what is cut to a count has no views
            value = value.reshape(kind.shape)
        self._values[slot] = value
        return value

    def _fetch(self, slot: int) -> Array:
        described = self._made.slots[slot]
        root = self._made.slots[described.root]
        kind = described.type
        assert isinstance(kind, TensorType)
        if self._budget is not None:
            self._budget.expect(described.nbytes, "memory for a value on the host")
        array: Array = np.empty(static_shape(kind), numpy_dtype(kind.dtype))
        count = np.zeros(1, np.int64)
        stream = self._context.compute
        stream.copy_to_host(array.ctypes.data, self._binding.address_of(Place(slot)), array.nbytes)
        if root.count is not None:
            stream.copy_to_host(count.ctypes.data, self._binding.address_of(Place(root.count)), 8)
        stream.synchronize()
        self._context.model.count_fetch(array.nbytes)
        return array if root.bound is None else cut(array, root.bound.axis, int(count[0]))

    def _send(self, address: int, value: Any) -> None:
        """Takes a value to an address, in order with the device's steps."""
        stream = self._context.compute
        if isinstance(value, DeviceArray):
            stream.copy_on_device(address, value.address, value.nbytes)
            return
        array = np.ascontiguousarray(value)
        stream.copy_to_device(address, array.ctypes.data, array.nbytes)
        if self._context.model.gpu.reads_pageable_memory:
            stream.synchronize()  # the result may be changed or go
        self._context.model.count_send(array.nbytes)


def cut(array: Array, axis: int, count: int) -> Array:
    """The first ``count`` items along an axis."""
    return array[(slice(None),) * axis + (slice(count),)]
