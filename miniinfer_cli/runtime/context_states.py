"""The states of one context: what its device holds, how many rows of it count, and turns that commit them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from miniinfer_cli.backends.interface import DeviceContext, Intervals, Pending, Program
from miniinfer_cli.errors import MiniinferError, UsageError
from miniinfer_cli.ir import Array, TensorType
from miniinfer_cli.runtime.state_layout import Chunk, StateLayout


class ContextStates:
    """See the module. Used by one thread at a time, the one that uses the context.

    Rows behind the length of a slot are written again by whoever comes next, so an inference that fails, or is not to count, has
    left nothing. A state that is replaced is replaced when the inference is enqueued, on the device and in order.
    """

    def __init__(self, layout: StateLayout, device: DeviceContext, program: Callable[[list[Any]], Program]) -> None:
        """``program``: that of the engine for all inputs of the graph."""
        self.layout = layout
        self._program = program
        self._device = device
        self._kinds: tuple[TensorType, ...] | None = None
        self._lengths: Array = np.zeros(0, np.int64)
        self._lost = False

    @property
    def lengths(self) -> tuple[int, ...]:
        """The rows that each slot of the batch holds; nothing before the first inference."""
        return tuple(map(int, self._lengths))

    def begin(self, arrays: Sequence[Any], counts: Sequence[int] | None) -> list[Chunk]:
        """What is to be computed for a caller's ``arrays``. Raises UsageError where the states have no room, or do not fit."""
        if self._lost:
            raise UsageError("an inference failed in the middle of replacing the states of the context", hint="reset() it")
        layout = self.layout
        kinds = layout.kinds(arrays)
        lengths = self._lengths
        if self._kinds is None:
            lengths = np.zeros(layout.slots(kinds) if layout.has_caches else 0, np.int64)
        elif kinds is not self._kinds and kinds != self._kinds:  # those of equal shapes are one
            held, wanted = next((h, w) for h, w in zip(self._kinds, kinds, strict=True) if h != w)
            raise UsageError(f"the states of the context are {held}, these inputs want {wanted}", hint="reset() lets go of them")
        chunks = [*layout.chunks(arrays, lengths, self._counts(arrays, counts, len(lengths)))]
        if self._kinds is None:
            self._device.hold_states(kinds)
            self._kinds, self._lengths = kinds, lengths
        return chunks

    def run(
        self, arrays: Sequence[Any], times_ns: list[int] | None, counts: Sequence[int] | None, *, commit: bool
    ) -> tuple[Any, ...]:
        """The outputs for a caller's ``arrays``; without ``commit``, which counts the rows, those of the first chunk."""
        chunks = self.begin(arrays, counts)
        if times_ns is not None and len(chunks) > 1:
            most = self.layout.states.buckets[-1]
            told = f"times_ns: these tokens are computed in {len(chunks)} programs"
            raise UsageError(told, hint=f"give {most} or fewer at a time")
        if not commit:
            chunks = chunks[:1]  # those behind would read what it did not leave
        before, parts = self.lengths, []
        for chunk in chunks:
            with self._back_to(before):
                outputs = self._device.execute(self._program(chunk.inputs), chunk.inputs, times_ns, commit=commit)
            parts.append((chunk, outputs))
            if commit:
                self._count(chunk)
        return joined(self.layout, parts)

    def enqueue(self, arrays: Sequence[Any], counts: Sequence[int] | None, *, on_device: bool) -> "Turn":
        """Starts the inference of a caller's ``arrays``, whose rows count from here on."""
        chunks = self.begin(arrays, counts)
        if on_device and (len(chunks) > 1 or chunks[0].kept < chunks[0].size):
            sizes = ", ".join(map(str, self.layout.states.buckets))
            raise UsageError(
                "on_device: the outputs of these tokens are computed in pieces, or with more tokens around them",
                hint=f"give as many tokens as one program takes: {sizes}",
            )
        before, parts = self.lengths, []
        for chunk in chunks:
            with self._back_to(before):
                parts.append((chunk, self._device.enqueue(self._program(chunk.inputs), chunk.inputs, on_device=on_device)))
            self._count(chunk)
        return Turn(self, parts, before)

    @contextmanager
    def _back_to(self, lengths: Sequence[int]) -> Iterator[None]:
        """What fails within has replaced nothing, and goes back to ``lengths``."""
        try:
            yield
        except MiniinferError:
            self._forget_beyond(lengths)
            raise

    def _forget_beyond(self, lengths: Sequence[int]) -> None:
        if len(lengths) == len(self._lengths):
            self._lengths = np.minimum(self._lengths, np.array(lengths, np.int64))

    def _count(self, chunk: Chunk) -> None:
        if self.layout.has_caches:
            self._lengths = self._lengths + chunk.counts

    def fail(self, lengths: Sequence[int]) -> None:
        """Goes back to ``lengths`` after an inference from there failed on the device."""
        self._lost = bool(self.layout.whole)
        self._forget_beyond(lengths)

    def reset(self, slot: int | None) -> None:
        """Empties one slot of the batch, or all, which may be as many others afterwards."""
        if slot is None:
            if self._kinds is not None:
                self._device.drop_states()
            self._kinds, self._lengths, self._lost = None, np.zeros(0, np.int64), False
            return
        whole = {number: self.layout.slot_axis(number) for number in self.layout.whole}
        kinds = self._kinds
        if kinds is None:
            return
        for number, axis in whole.items():
            if axis is None:
                past = self.layout.states.pairs[number].past
                raise UsageError(
                    f"no axis of state {past!r}, {kinds[number]}, is known to be the batch", hint="reset() empties all"
                )
        sizes = [kinds[n].shape[axis] for n, axis in whole.items() if axis is not None and kinds[n].shape is not None]  # type: ignore[index]
        self._expect_slot(
            slot, [n for n in (*sizes, *([len(self._lengths)] if self.layout.has_caches else [])) if isinstance(n, int)]
        )
        for number, axis in whole.items():
            assert axis is not None
            self._device.clear_state(number, axis, slot)
        if self.layout.has_caches:
            self._lengths = self._lengths.copy()
            self._lengths[slot] = 0

    def truncate(self, length: int, slot: int | None) -> None:
        """Forgets all rows of one slot, or of each, but the first ``length``."""
        if self.layout.whole:
            past = self.layout.states.pairs[self.layout.whole[0]].past
            raise UsageError(f"state {past!r} has no rows to be truncated", hint="fork() before what may have to be undone")
        if slot is not None:
            self._expect_slot(slot, [len(self._lengths)])
        chosen = np.arange(len(self._lengths)) if slot is None else np.array([slot])
        held = self._lengths[chosen]
        if isinstance(length, bool) or not isinstance(length, (int, np.integer)) or length < 0 or (held < length).any():
            raise UsageError(f"truncate: expected 0 to {int(held.min()) if len(held) else 0} rows, got {length!r}")
        self._lengths = self._lengths.copy()
        self._lengths[chosen] = length

    def copy_of(self, other: "ContextStates") -> None:
        """Takes what another context of the same engine holds."""
        if other._lost:
            raise UsageError("an inference failed in the middle of replacing the states of the context", hint="reset() it")
        if other._kinds is not None:
            self._device.hold_states(other._kinds)
            self._device.copy_states(other._device)
        self._kinds, self._lengths = other._kinds, other._lengths

    def _counts(self, arrays: Sequence[Any], counts: Sequence[int] | None, slots: int) -> Array:
        if not self.layout.has_caches:
            if counts is not None:
                raise UsageError("counts: the plan has no caches, whose rows they would be")
            return np.zeros(0, np.int64)
        most = self.layout.tokens(arrays)
        if counts is None:
            return np.full(slots, most, np.int64)
        given: list[Any] = list(counts)
        whole = all(isinstance(c, (int, np.integer)) and not isinstance(c, bool) for c in given)
        if not whole or len(given) != slots or not all(0 <= c <= most for c in given):
            raise UsageError(f"counts: expected {slots} numbers from 0 to {most}, one for each slot, got {counts!r}")
        return np.array(given, np.int64)

    def _expect_slot(self, slot: int, counts: Sequence[int]) -> None:
        most = min(counts, default=0)
        if isinstance(slot, bool) or not isinstance(slot, (int, np.integer)) or not 0 <= slot < most:
            raise UsageError(f"slot: expected 0 to {most - 1}, got {slot!r}" if most else "slot: the context holds nothing yet")


class Turn:
    """One or several chunks under way, as one inference, whose outputs are of the caller's tokens. See ``interface.Pending``."""

    def __init__(self, states: ContextStates, parts: Sequence[tuple[Chunk, Pending]], lengths: tuple[int, ...]) -> None:
        """``lengths``: what the slots held before."""
        self._states = states
        self._parts = tuple(parts)
        self._lengths = lengths

    @property
    def enqueue_ns(self) -> int:
        """See Pending."""
        return sum(p.enqueue_ns for _, p in self._parts)

    @property
    def times_ms(self) -> tuple[float, float, float] | None:
        """See Pending: the sums over the chunks."""
        times = [p.times_ms for _, p in self._parts]
        return None if None in times else tuple(map(sum, zip(*times, strict=True)))  # type: ignore[return-value]

    @property
    def intervals_ms(self) -> Intervals | None:
        """See Pending: those of the last chunk."""
        return self._parts[-1][1].intervals_ms

    def done(self) -> bool:
        """See Pending."""
        return all(p.done() for _, p in self._parts)

    def wait(self) -> None:
        """See Pending."""
        for _, pending in self._parts:
            pending.wait()

    def result(self) -> tuple[Any, ...]:
        """See Pending."""
        try:
            return joined(self._states.layout, [(chunk, pending.result()) for chunk, pending in self._parts])
        except MiniinferError:
            self._states.fail(self._lengths)
            raise

    def on_stream(self, handle: int) -> tuple[Any, ...]:
        """See Pending."""
        ((_, pending),) = self._parts  # what stays on the device is of one chunk
        return pending.on_stream(handle)


def joined(layout: StateLayout, parts: Sequence[tuple[Chunk, tuple[Any, ...]]]) -> tuple[Any, ...]:
    """The outputs of chunks as those of one inference: the tokens of all, without those that were filled up."""
    outputs: list[Any] = []
    for number, axis in enumerate(layout.output_axes):
        pieces = [results[number] for _, results in parts]
        if axis is None:
            outputs.append(pieces[-1])
            continue
        cut = [
            piece if chunk.kept == chunk.size else piece[(slice(None),) * axis + (slice(0, chunk.kept),)]
            for piece, (chunk, _) in zip(pieces, parts, strict=True)
        ]
        outputs.append(cut[0] if len(cut) == 1 else np.concatenate(cut, axis))
    return tuple(outputs)
