"""Which inputs and outputs of a graph are states, and how a caller's inputs are made complete for the programs of an engine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Array, Dim, Graph, StatePair, States, TensorType, Type, numpy_dtype
from miniinfer_cli.ir.dims import bind, evaluate, plain_name
from miniinfer_cli.wording import Wording


@dataclass(frozen=True, slots=True)
class Chunk:
    """Inputs of one program: all of the graph, in order. ``counts``: the new tokens of each slot of the batch, of ``size``.

    ``kept``: how many of the rows of outputs are the caller's.
    """

    inputs: list[Any]
    counts: Array
    size: int
    kept: int


@dataclass(frozen=True, slots=True)
class _Form:
    """What the shapes of a caller's arrays say: the types of the states, the number of new tokens, and all inputs of the graph,
    with None in the places of the caller's and of the lengths.
    """

    kinds: tuple[TensorType, ...]
    tokens: int
    inputs: Sequence[Any]


_FORMS = 256  # sets of shapes whose form is kept


class StateLayout:
    """Of a graph with states: what is the caller's of its inputs and outputs. Immutable; shared by contexts.

    ``given``, ``handed``: the numbers of inputs that callers give, and of outputs that they are given.
    """

    def __init__(self, graph: Graph, states: States) -> None:
        self.states = states
        names = [v.name for v in graph.inputs]
        self._types: tuple[Type | None, ...] = tuple(v.type for v in graph.inputs)
        self.given = tuple(i for i, name in enumerate(names) if name not in states.inputs)
        self.handed = tuple(i for i, name in enumerate(graph.output_names) if name not in states.outputs)
        self.pasts = tuple(names.index(p.past) for p in states.pairs)
        self.length = names.index(states.length) if states.length else None
        self._names = names
        self._forms: dict[tuple[Any, ...], _Form] = {}
        self._token_axes = {i: axis for i in self.given if (axis := _axis_of(self._types[i], states.tokens)) is not None}
        outputs = [graph.outputs[i].type for i in self.handed]
        self.output_axes = tuple(_axis_of(t, states.tokens) for t in outputs)
        """For each output of the caller's the axis that counts new tokens; None where it has none."""
        self._first = next((t for i in self.given if (t := self._types[i]) is not None), None)

    @property
    def has_caches(self) -> bool:
        """True where a state grows with the tokens."""
        return self.length is not None

    @property
    def whole(self) -> tuple[int, ...]:
        """The numbers of the pairs whose output replaces the input."""
        return tuple(i for i, p in enumerate(self.states.pairs) if p.axis is None)

    def slot_axis(self, number: int) -> int | None:
        """The axis of the state of a pair along which the slots of the batch lie; None where none is known to be that."""
        if self.states.pairs[number].axis is not None:
            return 0
        shape = self._first.shape if isinstance(self._first, TensorType) else None
        name = plain_name(shape[0]) if shape else None
        return None if name is None else _axis_of(self._types[self.pasts[number]], name)

    def kinds(self, arrays: Sequence[Any]) -> tuple[TensorType, ...]:
        """The types of the states, in the order of the pairs, beside a caller's ``arrays``.

        Raises UsageError where they stay open.
        """
        return self._form(arrays).kinds

    def tokens(self, arrays: Sequence[Any]) -> int:
        """How many new tokens ``arrays`` hold for each slot of the batch."""
        if not self.states.tokens:
            return self.states.buckets[0] if self.has_caches else 1
        return self._form(arrays).tokens

    def chunks(self, arrays: Sequence[Any], lengths: Array, counts: Array) -> Iterator[Chunk]:
        """What is computed one after the other for a caller's ``arrays``, whose slots of the batch hold ``lengths`` rows.

        ``counts``: the new tokens of each slot. The number of tokens of each chunk is one of the buckets; what is missing is
        filled up with zeros, whose rows nobody sees. Raises UsageError before the first where the capacity is exceeded.
        """
        if not self.has_caches:
            yield Chunk(self._complete(arrays, lengths), counts, 1, 1)
            return
        total = self.tokens(arrays)
        self._expect_room(lengths, counts)
        done = 0
        while done < total:
            held = lengths + np.minimum(counts, done)
            size = self._bucket(total - done, self.states.capacity - int(held.max(initial=0)))
            kept = min(size, total - done)
            new = np.clip(counts - done, 0, kept)
            parts = [self._part(i, a, done, kept, size) for i, a in zip(self.given, arrays, strict=True)]
            yield Chunk(self._complete(parts, held), new, size, kept)
            done += kept

    def first_inputs(self, arrays: Sequence[Any]) -> list[Any]:
        """The inputs of the program that comes first for a caller's ``arrays`` where no slot holds anything."""
        kinds = self.kinds(arrays)
        slots = self.slots(kinds)
        zeros = np.zeros(slots, np.int64)
        most = np.full(slots, min(self.tokens(arrays), self.states.capacity))
        return next(self.chunks(arrays, zeros, most if self.has_caches else zeros)).inputs

    def slots(self, kinds: Sequence[TensorType]) -> int:
        """How many slots the batch has; 1 where there are no caches."""
        at = next((i for i, p in enumerate(self.states.pairs) if p.axis is not None), None)
        return 1 if at is None else int((kinds[at].shape or (1,))[0])

    def _bucket(self, wanted: int, room: int) -> int:
        """The smallest bucket that holds all that is wanted, or else the largest; of those for which there is room."""
        fitting = [b for b in self.states.buckets if b <= room]
        if not fitting:
            smallest = self.states.buckets[0]
            raise UsageError(
                f"the caches have room for {room} more rows, {smallest} would be written",
                hint="reset() or truncate() a slot that is full, or build the plan with a larger capacity",
            )
        return next((b for b in fitting if b >= wanted), fitting[-1])

    def _expect_room(self, lengths: Array, counts: Array) -> None:
        over = np.flatnonzero(lengths + counts > self.states.capacity)
        if len(over):
            slot = int(over[0])
            hint = "reset() or truncate() the context, or build the plan with a larger capacity"
            new, held = int(counts[slot]), int(lengths[slot])
            raise UsageError(
                f"{new} new tokens behind the {held} that slot {slot} holds are more than the capacity of {self.states.capacity}",
                hint=Wording(hint, flags="give fewer tokens (--shapes), or build the plan with a larger --kv-cache"),
            )

    def _part(self, number: int, array: Any, begin: int, count: int, size: int) -> Any:
        """The tokens from ``begin`` on, ``count`` of them, filled up to ``size``."""
        axis = self._token_axes.get(number)
        if axis is None or (begin == 0 and count == size == array.shape[axis]):
            return array
        if not isinstance(array, np.ndarray):
            raise UsageError(
                f"input {self._names[number]!r} lies on a device and has {array.shape[axis]} tokens",
                hint=f"give as many as a program takes ({', '.join(map(str, self.states.buckets))}), or an array of the host's",
            )
        part = array[(slice(None),) * axis + (slice(begin, begin + count),)]
        if count < size:
            part = np.pad(part, [(0, size - count if i == axis else 0) for i in range(part.ndim)])
        return np.ascontiguousarray(part)

    def _complete(self, arrays: Sequence[Any], lengths: Array) -> list[Any]:
        """All inputs of the graph: the caller's, lengths, and in the places of states what has their types."""
        inputs = list(self._form(arrays).inputs)
        for i, array in zip(self.given, arrays, strict=True):
            inputs[i] = array
        if self.length is not None:
            inputs[self.length] = lengths
        return inputs

    def _form(self, arrays: Sequence[Any]) -> "_Form":
        """What the shapes of a caller's arrays say; looked at once for each set of them."""
        shapes = tuple([getattr(a, "shape", None) for a in arrays])
        found = self._forms.get(shapes)
        if found is None:
            sizes = self._sizes(arrays)
            pairs = zip(self.states.pairs, self.pasts, strict=True)
            kinds = tuple(self._kind(pair, self._types[at], sizes) for pair, at in pairs)
            inputs: list[Any] = [None] * len(self._types)
            for at, kind in zip(self.pasts, kinds, strict=True):
                fixed = [d for d in kind.shape or () if isinstance(d, int)]
                inputs[at] = np.broadcast_to(np.zeros((), numpy_dtype(kind.dtype)), fixed)
            found = _Form(kinds, sizes.get(self.states.tokens, 0), inputs)
            if len(self._forms) >= _FORMS:
                self._forms.clear()
            self._forms[shapes] = found
        return found

    def _sizes(self, arrays: Sequence[Any]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for i, array in zip(self.given, arrays, strict=True):
            kind = self._types[i]
            if isinstance(kind, TensorType) and kind.shape is not None and hasattr(array, "shape"):
                bind(kind.shape, array.shape, sizes)
        return sizes

    def _kind(self, pair: StatePair, kind: Type | None, sizes: dict[str, int]) -> TensorType:
        assert isinstance(kind, TensorType)
        shape: list[Dim | None] = [evaluate(d, sizes) for d in kind.shape or ()]
        if None in shape:
            hint = Wording(
                "fix it where the plan is built: shapes", flags=f"fix it where the plan is built: --shapes {pair.past}:..."
            )
            raise UsageError(f"the size of state {pair.past!r}, {kind}, does not follow from the inputs", hint=hint)
        return TensorType(kind.dtype, tuple(d for d in shape if d is not None))


def _axis_of(kind: Type | None, name: str) -> int | None:
    """The first axis of a tensor whose size is the named one; None where there is none."""
    if not name or not isinstance(kind, TensorType) or kind.shape is None:
        return None
    return next((axis for axis, d in enumerate(kind.shape) if plain_name(d) == name), None)
