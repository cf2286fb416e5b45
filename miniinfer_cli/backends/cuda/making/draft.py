"""A program while it is made: its slots, its steps, and what of its values are views of others."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from miniinfer_cli.backends.choosing import Choice, Estimate
from miniinfer_cli.backends.cuda.choice.tactics import has_tactics
from miniinfer_cli.backends.cuda.contract.program import DeviceStep, Origin, Place, PlacedAction, Slot, Step
from miniinfer_cli.backends.cuda.contract.site import Site, static_shape
from miniinfer_cli.backends.cuda.contract.steps import Bound, Copy, Derived, Operand, moved
from miniinfer_cli.backends.cuda.contract.strides import is_dense, reshaped, row_major, settled_strides
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.viewing import ALIGNMENT, find_assembling, find_reading, find_viewing
from miniinfer_cli.backends.cuda.launching.strided_copy import copy_strided
from miniinfer_cli.backends.cuda.making.readers import Readers
from miniinfer_cli.backends.reference import static_tensor
from miniinfer_cli.ir import Array, Constant, DType, Node, TensorType, Type


class Draft:
    """Slots and steps in the order in which they came. ``holds`` says which constants the model has on the device."""

    def __init__(self, target: Target, holds: Callable[[Constant], bool]) -> None:
        self.target = target
        self.slots: list[Slot] = []
        self.steps: list[Step] = []
        self.views: list[tuple[int, int, int]] = []
        """The number of the step in front of which a view appears, the view, and the slot that it shows, all or in part."""
        self._holds = holds
        self._constants: dict[Constant, int] = {}
        self._copies: dict[int, int] = {}  # dense copies of views
        self._shown: dict[int, list[int]] = {}  # slots in the buffer of another, by that

    # -- slots -----------------------------------------------------------------------------------------------------

    def new(
        self,
        type: Type | None,
        origin: Origin,
        *,
        root: int | None = None,
        handle: Constant | None = None,
        contents: Array | None = None,
        derived: Derived | None = None,
        bound: Bound | None = None,
        count: int | None = None,
        offset: int = 0,
        strides: tuple[int, ...] | None = None,
    ) -> int:
        """A slot of its own buffer, or of that of ``root``; see ``Slot``."""
        number = len(self.slots)
        root = number if root is None else root
        self.slots.append(Slot(type, origin, root, handle, contents, derived, bound, count, offset, strides))
        return number

    def constant(self, handle: Constant) -> int:
        """The slot of a constant: of the model, or uploaded with the program."""
        if handle not in self._constants:
            contents = handle.array() if handle.is_small else None
            type = TensorType(handle.dtype, handle.shape, contents)
            if self._holds(handle) or contents is None or handle.dtype is DType.STR:
                self._constants[handle] = self.new(type, Origin.CONSTANT, handle=handle)
            else:  # made by a rewrite, or for a late part
                self._constants[handle] = self.new(type, Origin.TABLE, handle=handle, contents=contents)
        return self._constants[handle]

    def is_on_device(self, slot: int) -> bool:
        """True when a device step can read the slot: a concrete tensor of known place, not cut to a count."""
        s = self.slots[slot]
        return static_tensor(s.type) is not None and s.bound is None

    def site(
        self, node: Node, operands: Sequence[int | None], kinds: Sequence[Type | None], results: Sequence[Type | None]
    ) -> Site:
        """What a lowering may see of a node."""
        slots = [None if s is None else self.slots[s] for s in operands]
        handles = tuple(None if s is None else s.handle for s in slots)
        strided = tuple(None if s is None else s.strides for s in slots)
        return Site(node, tuple(kinds), tuple(results), handles, self.target, strided)

    # -- views -----------------------------------------------------------------------------------------------------

    def shown(
        self,
        node: Node,
        operands: Sequence[int | None],
        kinds: Sequence[Type | None],
        results: Sequence[Type | None],
        readers: Readers,
    ) -> list[int] | None:
        """The node's results as views of its operand, where all who read them take them so; None otherwise."""
        viewing = None if self._is_forced(node) else find_viewing(node)
        tensors = [t for t in map(static_tensor, results) if t is not None]
        source = operands[0] if operands else None
        if viewing is None or source is None or len(tensors) < len(results):
            return None
        if not all(self.is_on_device(s) for s in operands if s is not None):
            return None
        start = self.slots[source].offset
        views = viewing(self.site(node, operands, kinds, results))
        if views is None or not readers.take(node.outputs, views, start):
            return None
        nbytes = element_nbytes(tensors[0].dtype)
        return [self._part(source, t, start + v.offset * nbytes, v.strides) for t, v in zip(tensors, views, strict=True)]

    def assembled(self, node: Node, operands: Sequence[int | None], results: Sequence[Type | None]) -> list[int] | None:
        """The node's result as a buffer of which those who made the operands write a part each; None where they cannot.

        They have written dense values, so the parts must be that within the result, too.
        """
        assembling, kind = None if self._is_forced(node) else find_assembling(node), static_tensor(results[0])
        slots = [self.slots[s] for s in operands if s is not None]
        if assembling is None or kind is None or len(slots) < len(operands) or len(set(operands)) < len(operands):
            return None
        if any(s.origin is not Origin.DEVICE or s.bound is not None or self.slots[s.root] is not s for s in slots):
            return None
        starts = assembling(self.site(node, operands, [s.type for s in slots], results))
        if starts is None or any(n % ALIGNMENT for n in starts):
            return None
        whole = self.new(kind, Origin.DEVICE)
        for part, start in zip(operands, starts, strict=True):
            assert part is not None
            for number in (part, *self._shown.pop(part, ())):
                self.slots[number] = replace(self.slots[number], root=whole, offset=start + self.slots[number].offset)
                self._shown.setdefault(whole, []).append(number)
            self.views.append((len(self.steps), whole, part))
        return [whole]

    def under_shape(self, node: Node, source: int, type: Type | None) -> int:
        """The source under another shape; a dense copy of it where no strides say that."""
        kind = static_tensor(type)
        assert kind is not None
        s = self.slots[source]
        if s.strides is None:
            return self._part(source, kind, s.offset, row_major(static_shape(kind)))
        strides = reshaped(self._shape(source), s.strides, static_shape(kind))
        if strides is None:
            return self.under_shape(node, self.dense(node, source), type)
        return self._part(source, kind, s.offset, strides)

    def _part(self, source: int, type: TensorType, offset: int, strides: tuple[int, ...]) -> int:
        s = self.slots[source]
        sizes = static_shape(type)
        walked = None if is_dense(sizes, strides) else settled_strides(sizes, strides)
        slot = self.new(type, s.origin, root=s.root, offset=offset, strides=walked)
        self.views.append((len(self.steps), slot, source))
        self._shown.setdefault(s.root, []).append(slot)
        return slot

    def readable(
        self, node: Node, operands: Sequence[int | None], kinds: Sequence[Type | None], results: Sequence[Type | None]
    ) -> list[int | None]:
        """The operands, with dense copies of those that the node's lowering cannot read through their strides."""
        found = list(operands)
        strided = [i for i, s in enumerate(operands) if s is not None and self.slots[s].strides is not None]
        if not strided or not has_tactics(node):
            return found
        reading, site = find_reading(node), self.site(node, operands, kinds, results)
        for i in strided:
            slot = operands[i]
            if slot is not None and (reading is None or not reading(site, i)):
                found[i] = self.dense(node, slot)
        return found

    def dense(self, reader: Node, slot: int) -> int:
        """A dense copy of a view, made for its first reader; others share it."""
        if slot not in self._copies:
            self._copies[slot] = self.copy(reader.name, slot)
        return self._copies[slot]

    def copy(self, label: str, slot: int) -> int:
        """A step that copies a slot into one of its own."""
        s = self.slots[slot]
        copy = self.new(s.type, Origin.DEVICE)
        actions: tuple[PlacedAction, ...] = ()
        if s.nbytes and s.strides is None:
            actions = (Copy(Place(copy), Place(slot), s.nbytes),)
        elif s.nbytes and s.strides is not None:
            assert isinstance(s.type, TensorType)
            shape, nbytes = self._shape(slot), element_nbytes(s.type.dtype)
            to, come = Operand.output(0), Operand.input(0)
            action = copy_strided(to, come, nbytes, shape, row_major(shape), s.strides, self.target)
            actions = (moved(action, {to: Place(copy), come: Place(slot)}.__getitem__),)
        self.steps.append(DeviceStep(label, "Copy", Choice("copy"), Estimate(0, 2 * s.nbytes), actions, (slot,), (copy,), {}, 0))
        return copy

    def _is_forced(self, node: Node) -> bool:
        """True when somebody wants a tactic to do the node."""
        return node.name in self.target.policy.forced

    def _shape(self, slot: int) -> tuple[int, ...]:
        kind = self.slots[slot].type
        assert isinstance(kind, TensorType)
        return static_shape(kind)

    def replaceable(self, operands: Sequence[int | None], numbers: Sequence[int]) -> tuple[int, ...]:
        """The operands of these numbers, but those whose bytes the step reads through strides, in an order of their own."""
        strided = {self.slots[s].root for s in operands if s is not None and self.slots[s].strides is not None}
        return tuple(s for i in numbers if (s := operands[i]) is not None and self.slots[s].root not in strided)
