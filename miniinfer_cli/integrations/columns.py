"""Tables through a plan: batches of columns in, columns of results out, whatever the number of rows."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Array
from miniinfer_cli.runtime.context import Future
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.serving.batch_sizes import BatchSizes, choose_sizes
from miniinfer_cli.serving.layout import Layout, find_layout


class ColumnPredictor:
    """Computes batches of columns on ``engine``, which stays the caller's to close. For one thread at a time.

    ``columns``: the column that an input is in, where that is not called like the input. ``outputs``: the column that an output
    goes to, likewise. ``keep``: the columns that are handed on; by default all that are no input. ``batch_dim``: the dimension
    that rows lie along, where that is not the first one of all inputs. ``max_batch``: rows that are computed at once; by default
    as many as a batch of columns has.

    A batch is cut into pieces that the plan takes, and the last one of them is filled up with its last row: a plan with a fixed
    batch takes any number of rows, and few sizes come to need a program. Raises UsageError for a plan without a batch, and for
    names that it does not have.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        columns: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        keep: Sequence[str] | None = None,
        batch_dim: str | None = None,
        max_batch: int | None = None,
    ) -> None:
        self._layout: Layout = find_layout(engine, batch_dim, {})
        self._columns = _renamed("columns", "input", columns, [b.name for b in self._layout.inputs])
        self._outputs = _renamed("outputs", "output", outputs, [b.name for b in self._layout.outputs])
        twice = [c for c in self._outputs.values() if list(self._outputs.values()).count(c) > 1]
        if twice:
            raise UsageError(f"outputs: two of them go to the column {twice[0]!r}", hint="outputs={'y': 'label', 'z': 'score'}")
        self._keep = None if keep is None else tuple(keep)
        self._engine = engine
        self._max_batch = max_batch
        self._sizes = None if max_batch is None else BatchSizes(choose_sizes(engine, self._layout, max_batch, None))
        self._context = engine.create_context()

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of results for a ``batch`` of columns by name, each with as many rows; see the class.

        Raises UsageError for a column that is missing, whose rows differ in shape, or that the plan does not take.
        """
        if not isinstance(batch, Mapping):
            hint = "give a dict of arrays by column; of Ray Data that is batch_format='numpy'"
            raise UsageError(f"expected columns by name, got {type(batch).__name__}", hint=hint)
        arrays = {name: _column(batch, column, name) for name, column in self._columns.items()}
        rows = _row_count({self._columns[name]: a for name, a in arrays.items()})
        if rows == 0:  # of what type and shape results are, a row tells
            one = {name: np.zeros((1, *a.shape[1:]), a.dtype) for name, a in arrays.items()}
            computed = {name: values[:0] for name, values in self._computed(one, 1).items()}
        else:
            computed = self._computed(arrays, rows)
        used = set(self._columns.values())
        kept = [c for c in batch if c not in used] if self._keep is None else self._keep
        found: dict[str, Any] = {}
        for column in kept:
            if column not in batch:
                raise UsageError(f"keep: there is no column {column!r}", hint=f"the columns are {', '.join(map(str, batch))}")
            found[column] = batch[column]
        for name, column in self._outputs.items():
            if column in found:
                hint = f"name the column of the output: outputs={{{name!r}: 'result'}}"
                raise UsageError(f"output {name!r} and a column that is kept are both called {column!r}", hint=hint)
            found[column] = computed[name]
        return found

    def close(self) -> None:
        """Lets its context go; may be called twice."""
        self._context.close(wait=True)

    def _computed(self, arrays: Mapping[str, Array], rows: int) -> dict[str, Array]:
        """The outputs by name, with the rows in front; on a GPU one piece is copied while another is computed."""
        parts: dict[str, list[Array]] = {name: [] for name in self._outputs}
        under_way: deque[tuple[int, Future]] = deque()

        def finish() -> None:
            count, future = under_way.popleft()
            for name, values in self._rows_of(future.result(), count):
                parts[name].append(values)

        for count, inputs in self._pieces(arrays, rows):
            if len(under_way) >= self._context.depth:
                finish()
            under_way.append((count, self._context.enqueue(inputs)))
        while under_way:
            finish()
        return {name: found[0] if len(found) == 1 else np.concatenate(found) for name, found in parts.items()}

    def _pieces(self, arrays: Mapping[str, Array], rows: int) -> Iterator[tuple[int, dict[str, Array]]]:
        """Inputs of sizes that the plan takes, and how many of their rows are no padding."""
        sizes = self._sizes_for(rows)
        for begin in range(0, rows, sizes.most):
            count = min(sizes.most, rows - begin)
            size = sizes.holding(count)
            piece = {}
            for (name, array), axis in zip(arrays.items(), self._layout.axes, strict=True):
                part = array[begin : begin + count]
                if size > count:
                    part = np.concatenate([part, np.repeat(part[-1:], size - count, axis=0)])
                piece[name] = np.moveaxis(part, 0, axis)
            yield count, piece

    def _rows_of(self, outputs: Mapping[str, Any], count: int) -> Iterator[tuple[str, Array]]:
        for binding, axis in zip(self._layout.outputs, self._layout.output_axes, strict=True):
            yield binding.name, np.moveaxis(outputs[binding.name], axis, 0)[:count]

    def _sizes_for(self, rows: int) -> BatchSizes:
        """Sizes up to ``rows``, as far as the plan takes so many; a batch larger than those before brings larger ones."""
        if self._sizes is None or (self._max_batch is None and rows > self._sizes.most and self._layout.fixed is None):
            allowed = self._engine.ranges.get(self._layout.name)
            largest = rows if allowed is None else max(min(rows, allowed.maximum), allowed.minimum)
            most = None if self._layout.fixed is not None else largest
            if self._sizes is None or self._sizes.most != most:
                self._sizes = BatchSizes(choose_sizes(self._engine, self._layout, most, None))
        return self._sizes


def _renamed(what: str, kind: str, given: Mapping[str, str] | None, names: Sequence[str]) -> dict[str, str]:
    """The column of each input or output."""
    for name in given or {}:
        if name not in names:
            raise UsageError(f"{what}: there is no {kind} {name!r}", hint=f"the {kind}s are {', '.join(names)}")
    return {name: (given or {}).get(name, name) for name in names}


def _column(batch: Mapping[str, Any], column: str, name: str) -> Array:
    """A column as one array with a row for each item."""
    if column not in batch:
        known = ", ".join(map(str, batch)) or "none"
        hint = f"the columns are {known}; name the one that the input is in: columns={{{name!r}: 'COLUMN'}}"
        raise UsageError(f"there is no column {column!r}, which input {name!r} is to come from", hint=hint)
    array = np.asarray(batch[column])
    if array.dtype.hasobject and len(array) and isinstance(array.flat[0], (np.ndarray, list, tuple)):
        rows = [np.asarray(row) for row in array]
        shapes = {row.shape for row in rows}
        if len(shapes) > 1:
            shown = " and ".join(str(list(s)) for s in sorted(shapes)[:2])
            raise UsageError(f"column {column!r} has rows of different shapes: {shown}", hint="pad them to one shape before")
        array = np.stack(rows)
    return array


def _row_count(arrays: Mapping[str, Array]) -> int:
    """The rows that all columns have."""
    counts = {column: len(a) if a.ndim else -1 for column, a in arrays.items()}
    first = next(iter(counts.values()))
    if first < 0 or len(set(counts.values())) > 1:
        shown = ", ".join(f"{c} has {n if n >= 0 else 'no'} rows" for c, n in counts.items())
        raise UsageError(
            f"the columns of the inputs differ in length: {shown}", hint="give one value for each row in all of them"
        )
    return first
