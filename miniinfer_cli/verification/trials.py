"""Which sizes of a plan's open dimensions to try: those of its ranges, or made-up ones that most models take."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine_format.records import DimensionRange
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import TensorType
from miniinfer_cli.ir.dims import Dim, evaluate, names_in
from miniinfer_cli.runtime.bindings import Binding, bind_sizes
from miniinfer_cli.wording import Wording

Shapes = Mapping[str, Sequence[int]]
_STEPS = (8, 32)  # what strides and patches of networks tend to divide
_ALIKE = (8, 32, 64, 224)  # images are square for many networks


@dataclass(frozen=True, slots=True)
class Trial:
    """Sizes to try: of each open dimension by name, and of each tensor input. ``wanted``: not only if others are refused."""

    sizes: Mapping[str, int]
    shapes: Shapes
    wanted: bool


def trials(
    bindings: Sequence[Binding],
    ranges: Mapping[str, DimensionRange],
    given: Mapping[str, Any],
    shapes: Sequence[Shapes],
) -> list[Trial]:
    """The sizes to try, best first: those of ``shapes`` if there are any, else of ``ranges``, else made-up ones.

    ``given`` are the inputs that are not drawn; what they fix is fixed. Raises UsageError where they, or ``shapes``,
    contradict each other or the bindings.
    """
    fixed: dict[str, int] = {}
    for b in bindings:
        if isinstance(given.get(b.name), np.ndarray):
            bind_sizes(b, given[b.name].shape, fixed)
    names = list(dict.fromkeys(n for d in _dims(bindings) for n in sorted(names_in(d))))
    open_names = [n for n in names if n not in fixed]
    made_up = _MadeUp(bindings, open_names)
    if shapes:
        proposals = list(_asked_for(bindings, ranges, shapes, fixed, made_up))
    elif not open_names:
        proposals = [({}, {}, True)]
    else:
        proposals = [({}, sizes, wanted) for sizes, wanted in _chosen(ranges, open_names, made_up)]
    found: list[Trial] = []
    for asked, sizes, wanted in proposals:
        complete = {n: (fixed | sizes)[n] for n in names}
        inputs = {b.name: asked.get(b.name) or _shape(b, complete) for b in bindings if b.name not in given}
        known = {name: shape for name, shape in inputs.items() if shape is not None}
        sound = asked or all(size >= 0 for shape in known.values() for size in shape)
        if sound and all((t.sizes, t.shapes) != (complete, known) for t in found):
            found.append(Trial(complete, known, wanted))
    return found


def _dims(bindings: Sequence[Binding]) -> Iterator[Dim]:
    for b in bindings:
        if isinstance(b.type, TensorType):
            yield from b.type.shape or ()


def _shape(binding: Binding, sizes: Mapping[str, int]) -> tuple[int, ...] | None:
    if not isinstance(binding.type, TensorType) or binding.type.shape is None:
        return None
    found = [evaluate(d, sizes) for d in binding.type.shape]
    return tuple(-1 if size is None else size for size in found)


def expect_shapes(bindings: Sequence[Binding], shapes: Sequence[Shapes]) -> None:
    """Raises UsageError for sizes of inputs that there are not, or that do not fit theirs."""
    inputs = {b.name: b for b in bindings}
    for asked in shapes:
        for name in asked:
            if name not in inputs:
                hint = f"the inputs are {', '.join(map(str, bindings))}"
                raise UsageError(_of_shapes(f"there is no input {name!r}"), hint=hint)
            if not isinstance(inputs[name].type, TensorType):
                raise UsageError(_of_shapes(f"input {inputs[name]} has no shape"))
        bound: dict[str, int] = {}
        for name, shape in asked.items():
            bind_sizes(inputs[name], shape, bound)


def _of_shapes(told: str) -> str:
    return Wording(f"shapes: {told}", flags=f"--verify-shapes: {told}")


def _asked_for(
    bindings: Sequence[Binding],
    ranges: Mapping[str, DimensionRange],
    shapes: Sequence[Shapes],
    fixed: Mapping[str, int],
    made_up: "_MadeUp",
) -> Iterator[tuple[Shapes, dict[str, int], bool]]:
    """The sets that the user gave. What one leaves open takes its optimum, or a made-up size."""
    expect_shapes(bindings, shapes)
    for number, asked in enumerate(shapes):
        bound = dict(fixed)
        for b in bindings:
            if b.name in asked:
                bind_sizes(b, asked[b.name], bound)
        rest = made_up.different(number) | {name: r.optimum for name, r in ranges.items()}
        yield asked, rest | bound, True


def _chosen(
    ranges: Mapping[str, DimensionRange], names: Sequence[str], made_up: "_MadeUp"
) -> Iterator[tuple[dict[str, int], bool]]:
    """Sizes for ``names``, and whether they are wanted in any case."""
    limits = {n: ranges[n] for n in names if n in ranges}
    if limits:
        for number, which in enumerate((_smallest, _optimal, _largest)):
            yield made_up.different(number) | {n: which(r) for n, r in limits.items()}, True
    else:
        yield made_up.different(0), True
        yield made_up.different(1), True
    for sizes in made_up.others():
        if all(r.minimum <= sizes[n] <= r.maximum for n, r in limits.items()):
            yield sizes, False


def _smallest(r: DimensionRange) -> int:
    """The smallest size of a range; of one without ends the one that it is tuned for."""
    return r.optimum if r.minimum == 0 and r.largest is None else r.minimum


def _optimal(r: DimensionRange) -> int:
    return r.optimum


def _largest(r: DimensionRange) -> int:
    return r.optimum if r.largest is None else r.largest


class _MadeUp:
    """Sizes for ``names`` out of the air."""

    def __init__(self, bindings: Sequence[Binding], names: Sequence[str]) -> None:
        self._names = names
        dims = [(axis, d) for b in bindings if isinstance(b.type, TensorType) for axis, d in enumerate(b.type.shape or ())]
        self._static = {d for _, d in dims if isinstance(d, int)}
        axes = {name: {axis for axis, d in dims if name in names_in(d)} for name in names}
        self._axis = {name: min(found) for name, found in axes.items()}
        self._leading = [name for name in names if axes[name] == {0}]  # batches, as a rule

    def different(self, number: int) -> dict[str, int]:
        """Each name has a size of its own, and none that is written in the inputs: swapped axes cannot go unseen.

        The larger ``number`` is, the larger they are; the order of the names by size alternates.
        """
        count = len(self._names)
        free = (size for size in itertools.count(2) if size not in self._static)
        chosen = list(itertools.islice(free, number * (count + 1), number * (count + 1) + count))
        return dict(zip(self._names, reversed(chosen) if number % 2 else chosen, strict=True))

    def others(self) -> Iterator[dict[str, int]]:
        """What models want that refuse those: round sizes, sizes that are alike or add up, and at last 1."""
        batch, rest = self._leading, self._rest
        for step in _STEPS:
            for first in (1, 2):
                scale = first + 1 if rest else step * first
                yield dict.fromkeys(batch, scale) | {n: step * (first + i) for i, n in enumerate(rest)}
        # Inputs whose dimensions have no names: those of one axis, or all, may have to be alike.
        for base, step in ((2, 1), (3, 2), (8, 8), (32, 32)):
            yield {n: 2 if n in batch and rest else base + step * self._axis[n] for n in self._names}
        for size in (2, 3, *_ALIKE):
            yield dict.fromkeys(batch, 2 if rest else size) | dict.fromkeys(rest, size)
        for size in (2, 3, 8):
            yield dict.fromkeys(self._names, size)
        if len(rest) == 3:  # what is cached, what is new, and both
            for total in rest:
                cached, new = (n for n in rest if n != total)
                yield {**dict.fromkeys(batch, 2), cached: 3, new: 4, total: 7}
        for pair in ((2, 3), (5, 4), *((step, 2 * step) for step in _STEPS)):
            yield dict.fromkeys(batch, 1) | {n: pair[i % 2] for i, n in enumerate(rest)}
        yield dict.fromkeys(self._names, 1)

    @property
    def _rest(self) -> list[str]:
        return [name for name in self._names if name not in self._leading]
