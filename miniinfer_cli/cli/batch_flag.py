"""``--batch`` and ``--batch-dim``: which dimension is the batch, and the shapes of inputs that a batch makes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from engine_format.records import DimensionRange
from miniinfer_cli.cli.flag_values import CountsParam
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import TensorType
from miniinfer_cli.ir.dims import Dim, evaluate, names_in, plain_name
from miniinfer_cli.runtime.bindings import Binding, bind_sizes, expect_sizes

MOST_BATCH = 1 << 30


def batch_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """How large the batch is, and which dimension that is."""
    size = click.option("--batch", "batches", type=CountsParam(MOST_BATCH), metavar="N",
                        help="Set the first dimension that all inputs share. profile takes several: 1,2,4,8.")  # fmt: skip
    dim = click.option("--batch-dim", metavar="NAME", help="The named dimension that --batch sets.")
    return size(dim(command))


@dataclass(frozen=True, slots=True)
class BatchDimension:
    """The dimension that a batch sets: its name in the inputs; or ``fixed``, its size in all of them."""

    name: str
    fixed: int | None = None

    def expect(self, batch: int, inputs: Sequence[Binding], ranges: Mapping[str, DimensionRange]) -> None:
        """Raises UsageError for a batch that the plan cannot have."""
        if self.fixed is not None and batch != self.fixed:
            others = _names(inputs)
            named = f"; or name another dimension by --batch-dim: {', '.join(others)}" if others else ""
            raise UsageError(
                f"--batch {batch}: the batch is fixed at {self.fixed}: {', '.join(map(str, inputs))}",
                hint=f"leave --batch out; other sizes take a model whose first dimension is open, built without --shapes{named}",
            )
        limits = ranges.get(self.name)
        if limits is None or self.fixed is not None:
            return
        if batch < limits.minimum:
            hint = "build the plan with smaller --min-shapes"
            raise UsageError(f"--batch {batch}: {self.name} is below {limits.minimum}, the smallest of the plan", hint=hint)
        if batch > limits.maximum:
            hint = "build the plan with larger --max-shapes"
            raise UsageError(f"--batch {batch}: {self.name} is above {limits.maximum}, the largest of the plan", hint=hint)

    def size_in(self, inputs: Sequence[Binding], arrays: Sequence[Any]) -> int | None:
        """How large it is in ``arrays`` for these inputs; None where it is fixed."""
        for b, array in zip(inputs, arrays, strict=True):
            for dim, size in zip(_dims(b), getattr(array, "shape", ()), strict=False):
                if self.fixed is None and plain_name(dim) == self.name:
                    return int(size)
        return None

    def shapes(
        self,
        batch: int,
        inputs: Sequence[Binding],
        ranges: Mapping[str, DimensionRange],
        shapes: Mapping[str, Sequence[int]],
        given: Mapping[str, Any],
    ) -> dict[str, tuple[int, ...]]:
        """The shapes of the inputs whose sizes hang on the dimension, at this batch, but for those ``given`` as arrays.

        Other sizes are those of ``shapes`` and of the given arrays, else at the plan's optimum, or 1. Raises UsageError where
        a given array, or one of ``shapes``, sets the dimension.
        """
        self.expect(batch, inputs, ranges)
        if self.fixed is not None:
            return {}
        sizes: dict[str, int] = {}
        for b in inputs:
            array = given.get(b.name)
            shape = shapes.get(b.name, array.shape if isinstance(array, np.ndarray) else None)
            if shape is None:
                continue
            bind_sizes(b, shape, sizes)
            if b.name in shapes and self.name in _names([b]):
                raise UsageError(
                    f"--batch {batch} and --shapes {b.name}:{'x'.join(map(str, shape))} both set {self.name}",
                    hint="leave one of them out; what other sizes are by default, build --opt-shapes says",
                )
        if sizes.get(self.name, batch) != batch:
            holder = next(b.name for b in inputs if b.name in given and self.name in _names([b]))
            raise UsageError(
                f"--batch {batch}: {self.name} is {sizes[self.name]} in the file of input {holder!r}",
                hint="leave --batch out, or give a file of that batch",
            )
        sizes = {name: r.optimum for name, r in ranges.items()} | sizes | {self.name: batch}
        return {
            b.name: _shape(b, sizes) for b in inputs if self.name in _names([b]) and b.name not in given and b.name not in shapes
        }


def batch_dimension(inputs: Sequence[Binding], named: str | None) -> BatchDimension:
    """The dimension called ``named``; for None the first that all inputs without a default share.

    A number is shared where it is the first dimension of them all: the batch is fixed. Raises UsageError where there is none.
    """
    names = _names(inputs)
    if named is not None:
        if named not in names:
            hint = f"those with a name are {', '.join(names)}" if names else "every dimension of the inputs is a number"
            raise UsageError(f"--batch-dim {named}: no input has a dimension of that name", hint=hint)
        return BatchDimension(named)
    shapes = [_dims(b) for b in inputs if b.default is None]
    for axis, dim in enumerate(shapes[0] if shapes else ()):
        name = plain_name(dim)
        if name is not None and all(any(plain_name(d) == name for d in s) for s in shapes):
            return BatchDimension(name)
        if isinstance(dim, int) and axis == 0 and all(s[:1] == (dim,) for s in shapes):
            return BatchDimension(str(dim), fixed=dim)
    told = ", ".join(map(str, inputs)) or "there are no inputs"
    hint = f"name the one to set by --batch-dim: {', '.join(names)}" if names else "leave --batch out"
    raise UsageError(f"--batch: the inputs share no dimension: {told}", hint=hint)


def _dims(binding: Binding) -> tuple[Dim, ...]:
    kind = binding.type
    return tuple(kind.shape) if isinstance(kind, TensorType) and kind.shape is not None else ()


def _names(inputs: Iterable[Binding]) -> list[str]:
    """The names in dimensions of the inputs, in their order."""
    return list(dict.fromkeys(name for b in inputs for dim in _dims(b) for name in sorted(names_in(dim))))


def _shape(binding: Binding, sizes: Mapping[str, int]) -> tuple[int, ...]:
    known = dict.fromkeys(_names([binding]), 1) | dict(sizes)
    return expect_sizes(binding, [evaluate(d, known) for d in _dims(binding)], known)
