"""Requests put together as the inputs of one inference, and its outputs taken apart."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array
from miniinfer_cli.runtime.context import Context
from miniinfer_cli.serving.copying import Copiers
from miniinfer_cli.serving.layout import BatchedEngine, Layout
from miniinfer_cli.serving.request import BatchedFuture, Outputs
from miniinfer_cli.serving.waiting import Key

_LEAST_PIECE_NBYTES = 16 << 10  # of an array that the device copies from where it lies: smaller ones are put together as quickly
_BUFFERS = 16  # that one worker keeps, of the sets of shapes that it met last


class _FirstRows:
    """The outputs of a batch, all of which have it as their first dimension; see ``request.Rows``."""

    def __init__(self, names: Sequence[str], arrays: Sequence[Any]) -> None:
        self._names = names
        self._arrays = arrays

    def part(self, begin: int, end: int) -> dict[str, Any]:
        """See Rows."""
        return {name: array[begin:end] for name, array in zip(self._names, self._arrays, strict=True)}


class Assembler:
    """The buffers of one worker. On a GPU they are the context's own pinned memory, which is copied from with no detour.

    Rows in memory that is registered with the GPU's driver are not put together here at all: the GPU copies each.
    """

    def __init__(self, engine: BatchedEngine, layout: Layout, most: int, pad_values: dict[str, Any], copiers: Copiers) -> None:
        self._layout = layout
        self._copiers = copiers
        self._most = most
        self._engine = engine
        self._on_host = engine.device == "cpu"
        on_host = engine.host_inputs
        self._as_rows = [
            not self._on_host and not layout.alone and layout.axes[number] == 0 and b.name not in on_host
            for number, b in enumerate(layout.inputs)
        ]
        self._pad_values = [pad_values.get(b.name, 0) for b in layout.inputs]
        names = [b.name for b in layout.inputs]
        self._places = [names.index(b.name) if b.name in names else None for b in engine.inputs]
        self._defaults = [layout.defaults.get(b.name) for b in engine.inputs]
        self._names = [b.name for b in engine.inputs]
        self._kept: dict[tuple[int, Key], Array] = {}

    def inputs(self, context: Context, batch: Sequence[BatchedFuture], given: Sequence[list[Any]], size: int) -> list[Any]:
        """The engine's inputs, in order, with ``size`` rows: what the requests have ``given``, then the last row over and over.

        ``given`` is apart from the requests, since one that is cancelled lets go what it has.
        """
        form = batch[0].form
        padded = any(r.form.padded for r in batch)
        rows = sum(r.form.rows for r in batch)
        pieces = [[g[number] for g in given] for number in range(len(self._as_rows))]
        arrays: list[Any] = [None if padded else self._rows(n, p, size - rows) for n, p in enumerate(pieces)]
        if len(batch) == 1 and rows == size and not padded:
            arrays = [own if as_rows is None else as_rows for own, as_rows in zip(given[0], arrays, strict=True)]
        elif any(array is None for array in arrays):
            for number, buffer in enumerate(self._buffers(context, form.bucket, size)):
                if arrays[number] is None:
                    arrays[number] = buffer
                    self._fill(number, buffer, batch, pieces[number], size)
        return [d if p is None else arrays[p] for p, d in zip(self._places, self._defaults, strict=True)]

    def _rows(self, number: int, pieces: Sequence[Array], repeats: int) -> Any:
        """The input as pieces that the device copies from where they lie; None where it cannot."""
        if not self._as_rows[number] or pieces[0].nbytes < _LEAST_PIECE_NBYTES:
            return None
        return self._engine.model.rows(pieces, repeats)

    def outputs(self, results: Sequence[Any], batch: Sequence[BatchedFuture], size: int) -> Sequence[Outputs]:
        """The outputs of each request. Raises ModelError where an output has not the rows that the plan says."""
        layout = self._layout
        if layout.alone:
            return [dict(zip((b.name for b in layout.outputs), results, strict=True))]
        for binding, axis, result in zip(layout.outputs, layout.output_axes, results, strict=True):
            if result.shape[axis] != size:
                raise ModelError(f"output {binding} has {result.shape[axis]} rows for a batch of {size}")
        if len(batch) == 1 and batch[0].form.rows == size and not batch[0].form.cuts:
            return [dict(zip((b.name for b in layout.outputs), results, strict=True))]
        shares: list[Outputs] = []
        begin = 0
        if not any(layout.output_axes) and not any(r.form.padded for r in batch):
            rows = _FirstRows(tuple(b.name for b in layout.outputs), results)
            for request in batch:
                end = begin + request.form.rows
                # Who takes many at a time asks for them elsewhere; a single caller's event loop has enough to do.
                shares.append(rows.part(begin, end) if request.told is None else (rows, begin, end))
                begin = end
            return shares
        for request in batch:
            form = request.form
            end = begin + form.rows
            own: dict[str, Any] = {}
            for number, (binding, axis, result) in enumerate(zip(layout.outputs, layout.output_axes, results, strict=True)):
                cut = form.cuts[number] if form.cuts else None
                part = result[begin:end] if axis == 0 else result[(slice(None),) * axis + (slice(begin, end),)]
                own[binding.name] = (
                    part if axis == 0 and cut is None else np.ascontiguousarray(part if cut is None else part[cut])
                )
            shares.append(own)
            begin = end
        return shares

    def _buffers(self, context: Context, bucket: Key, size: int) -> list[Array]:
        axes = self._layout.axes
        shapes = [(*s[:axis], size, *s[axis + 1 :]) for s, axis in zip(bucket, axes, strict=True)]
        staged: Sequence[Any] = [None] * len(self._names)
        if not self._on_host:
            known = {b.name: shape for b, shape in zip(self._layout.inputs, shapes, strict=True)}
            staged = context.staging_buffers({**{n: np.shape(d) for n, d in self._layout.defaults.items()}, **known})
        by_name = dict(zip(self._names, staged, strict=True))
        found = []
        for number, (binding, shape, axis) in enumerate(zip(self._layout.inputs, shapes, axes, strict=True)):
            buffer = by_name[binding.name]
            if buffer is None:
                whole = self._keep(number, (*shape[:axis], self._most, *shape[axis + 1 :]), binding.dtype)
                buffer = whole[(slice(None),) * axis + (slice(size),)]
            found.append(buffer)
        return found

    def _keep(self, number: int, shape: tuple[int, ...], dtype: Any) -> Array:
        key = (number, (shape,))
        buffer = self._kept.pop(key, None)
        if buffer is None:
            if len(self._kept) >= _BUFFERS * len(self._layout.inputs):
                self._kept.pop(next(iter(self._kept)))
            buffer = np.empty(shape, dtype)
        self._kept[key] = buffer  # most recently used last
        return buffer

    def _fill(self, number: int, buffer: Array, batch: Sequence[BatchedFuture], given: Sequence[Array], size: int) -> None:
        axis = self._layout.axes[number]
        before = (slice(None),) * axis
        rows = sum(r.form.rows for r in batch)
        if any(r.form.padded for r in batch):
            buffer[...] = self._pad_values[number]
            begin = 0
            for request, array in zip(batch, given, strict=True):
                place = [slice(n) for n in array.shape]
                place[axis] = slice(begin, begin + request.form.rows)
                buffer[tuple(place)] = array
                begin += request.form.rows
        elif axis == 0:
            self._copiers.gather(given, buffer[:rows])
        else:
            np.concatenate(given, axis=axis, out=buffer[(*before, slice(rows))])
        if rows < size:
            buffer[(*before, slice(rows, size))] = buffer[(*before, slice(rows - 1, rows))]
