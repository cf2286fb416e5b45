"""Movement of whole tensors straight into the arena: joined, or as views that are found once and copied at each call."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.routine import Routine, Site, contents, contents_behind_first, lowers, shape_of
from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.ir import Array
from miniinfer_cli.ops.products import Call, in_order
from miniinfer_cli.ops.registry import lookup


@lowers("Concat")
def lower_concat(site: Site) -> Routine | None:
    """Each input copied to its place."""
    axis = site.node.attrs["axis"]

    def prepare(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
        return functools.partial(np.concatenate, inputs, axis, outputs[0])

    return Routine(prepare, tactic="copy")


@lowers("Transpose", "Slice", "Split", "Expand")
def lower_view(site: Site) -> Routine | None:
    """What the reference gives as views of its first operand, by constants, copied from there."""
    steering = contents_behind_first(site)
    if steering is None:
        return None
    node = site.node
    evaluate = lookup(node.domain, node.op).evaluate

    def views_of(x: Array) -> tuple[Array, ...]:
        return evaluate((x, *steering), node.attrs, n_outputs=len(node.outputs))

    kind = site.inputs[0]
    assert kind is not None
    empty = np.broadcast_to(np.zeros((), bool), shape_of(kind))
    try:
        found = views_of(empty)
    except MiniinferError:
        return None  # the reference tells what is wrong, when it runs
    if any(v.size and not np.may_share_memory(v, empty) for v in found):
        return None
    if [v.shape for v in found] != [shape_of(t) for t in site.outputs]:
        return None

    def prepare(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
        pairs = zip(outputs, views_of(inputs[0]), strict=True)
        return in_order(*(functools.partial(np.copyto, out, view) for out, view in pairs))

    return Routine(prepare, tactic="copy of views")


@lowers("Gather")
def lower_gather(site: Site) -> Routine | None:
    """By constant indices, looked at once."""
    indices = contents(site, 1)
    x = shape_of(site.inputs[0])
    if indices is None or not x:
        return None
    axis = site.node.attrs.get("axis", 0) % len(x)
    size = x[axis]
    if indices.size and not (-size <= indices.min() and indices.max() < size):
        return None
    places = np.where(indices < 0, indices + size, indices).astype(np.intp)
    lead = (slice(None),) * axis

    def prepare(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
        if places.ndim == 0:
            return functools.partial(np.copyto, outputs[0], inputs[0][(*lead, places[()])])
        # In mode "raise" numpy takes into memory of its own first.
        return functools.partial(np.take, inputs[0], places, axis, outputs[0], "clip")

    return Routine(prepare, tactic="by constants")


@lowers("Pad")
def lower_pad(site: Site) -> Routine | None:
    """A copy into the middle, and what stands around it: a constant, or parts of what is there by then, mirrored or repeated."""
    given = contents_behind_first(site)
    pads, value, axes = (*(given or ()), None, None, None)[:3]
    if pads is None:
        return None
    shape, out_shape = shape_of(site.inputs[0]), shape_of(site.outputs[0])
    mode = site.node.attrs.get("mode", "constant")
    chosen = range(len(shape)) if axes is None else [int(a) % len(shape) for a in axes.reshape(-1)]
    sizes = [int(p) for p in pads.reshape(-1)]
    around = [(0, 0)] * len(shape)
    for number, axis in enumerate(chosen):
        around[axis] = (sizes[number], sizes[number + len(chosen)])
    if any(side < 0 for sides in around for side in sides) or mode not in ("constant", "reflect", "edge"):
        return None
    if mode != "constant" and any(max(sides) >= max(size, 1) for size, sides in zip(shape, around, strict=True)):
        return None  # mirrored more than once, or nothing to repeat
    if [n + before + after for n, (before, after) in zip(shape, around, strict=True)] != list(out_shape):
        return None

    def prepare(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
        out = outputs[0]
        inner = tuple(slice(before, before + size) for size, (before, _) in zip(shape, around, strict=True))
        calls: list[Call] = [functools.partial(np.copyto, out[inner], inputs[0])]
        if mode == "constant":
            fill = 0 if value is None else value.reshape(-1)[0]
            return in_order(*(functools.partial(side.fill, fill) for side in _sides(out, around)), *calls)
        for axis, (before, after) in enumerate(around):
            calls += _grown(out, inner, axis, before, after, mirrored=mode == "reflect")
        return in_order(*calls)

    return Routine(prepare, tactic="copy")


def _sides(out: Array, around: Sequence[tuple[int, int]]) -> list[Array]:
    """What lies around the middle of ``out``."""
    sides: list[Array] = []
    for axis, (before, after) in enumerate(around):
        lead = (slice(None),) * axis
        sides += [out[(*lead, slice(0, before))], out[(*lead, slice(out.shape[axis] - after, None))]]
    return [side for side in sides if side.size]


def _grown(out: Array, inner: tuple[slice, ...], axis: int, before: int, after: int, *, mirrored: bool) -> list[Call]:
    """What fills ``before`` and behind the middle along ``axis``; the axes in front are whole by then."""
    lead, rest = (slice(None),) * axis, inner[axis + 1 :]
    first, end = inner[axis].start, inner[axis].stop

    def part(start: int, stop: int) -> Array:
        return out[(*lead, slice(start, stop), *rest)]

    pairs: list[tuple[Array, Array]] = []
    if before:
        pairs.append(
            (part(0, before), _flipped(part(first + 1, first + 1 + before), axis) if mirrored else part(first, first + 1))
        )
    if after:
        mirror = _flipped(part(end - 1 - after, end - 1), axis) if mirrored else part(end - 1, end)
        pairs.append((part(end, end + after), mirror))
    return [functools.partial(np.copyto, target, source) for target, source in pairs]


def _flipped(array: Array, axis: int) -> Array:
    return array[(*(slice(None),) * axis, slice(None, None, -1))]
