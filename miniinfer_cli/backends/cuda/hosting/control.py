"""If, Loop and Scan: the host decides, bodies run on the device, and what they carry from round to round stays there."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.arrays.device_array import DeviceArray
from miniinfer_cli.ir import Graph, Node, TensorType, Type, dtype_of
from miniinfer_cli.ops.budget import Kept, check_time
from miniinfer_cli.ops.control_flow import one_item
from miniinfer_cli.ops.registry import lookup

RunBody = Callable[[Graph, Sequence[Any]], tuple[Any, ...]]
"""Runs a body on arrays of the host and of the device; what it gives holds until its next call."""


class Control:
    """Runs one control node. ``fetch`` gives a value as an array of the host; ``keep(output, index, value)`` stores item
    ``index`` of a scanned output on the device and says whether it could.
    """

    def __init__(self, run_body: RunBody, fetch: Callable[[Any], Any], keep: Callable[[int, int, Any], bool]) -> None:
        self._run_body = run_body
        self._fetch = fetch
        self._keep = keep

    def run(self, node: Node, operands: Sequence[Any]) -> tuple[Any, ...]:
        """The node's outputs: arrays of host or device; None for a scanned output that ``keep`` has stored."""
        match node.op:
            case "If":
                return self._if(node, *operands)
        with Kept(f"what {node.op} collects") as kept:
            return self._loop(kept, node, *operands) if node.op == "Loop" else self._scan(kept, node, *operands)

    def _if(self, node: Node, cond: Any, *captures: Any) -> tuple[Any, ...]:
        taken = bool(one_item("If", "a condition", self._fetch(cond)))
        return self._run_body(node.graphs["then_branch" if taken else "else_branch"], captures)

    def _loop(self, kept: Kept, node: Node, m: Any, cond: Any, *rest: Any) -> tuple[Any, ...]:
        body = node.graphs["body"]
        count = len(rest) - node.attrs.get("n_captures", 0)
        carried, captures = rest[:count], rest[count:]
        limit = None if m is None else int(one_item("Loop", "a trip count", self._fetch(m)))
        going = cond is None or bool(one_item("Loop", "a condition", self._fetch(cond)))
        collected = _Collected(self, kept, len(body.outputs) - 1 - count, first_output=count)
        rounds = 0
        while going and (limit is None or rounds < limit):
            check_time()
            results = self._run_body(body, (np.array(rounds, np.int64), np.array(going), *carried, *captures))
            going = bool(one_item("Loop", "of its body a condition", self._fetch(results[0])))
            carried = results[1 : 1 + count]
            collected.add(rounds, results[1 + count :])
            rounds += 1
        if rounds:
            return (*carried, *collected.stacked([0] * collected.count))
        # What no rounds collect has a shape all the same, which the reference knows how to tell.
        return self._by_reference(node, (m, cond, *rest))

    def _scan(self, kept: Kept, node: Node, *operands: Any) -> tuple[Any, ...]:
        attrs = node.attrs
        body, n_scans, n_captures = node.graphs["body"], attrs["num_scan_inputs"], attrs.get("n_captures", 0)
        n_states = len(operands) - n_scans - n_captures
        states, scans, captures = operands[:n_states], operands[n_states : n_states + n_scans], operands[n_states + n_scans :]
        axes = [_item(attrs.get("scan_input_axes", ()), i) % max(len(x.shape), 1) for i, x in enumerate(scans)]
        length = scans[0].shape[axes[0]]
        if not length:
            return self._by_reference(node, operands)
        sources = [x if axis == 0 else np.moveaxis(self._fetch(x), axis, 0) for x, axis in zip(scans, axes, strict=True)]
        backwards = [bool(_item(attrs.get("scan_input_directions", ()), i)) for i in range(n_scans)]
        n_scanned = len(body.outputs) - n_states
        out_axes = [_item(attrs.get("scan_output_axes", ()), i) for i in range(n_scanned)]
        reversed_ = [bool(_item(attrs.get("scan_output_directions", ()), i)) for i in range(n_scanned)]
        collected = _Collected(self, kept, n_scanned, first_output=n_states, axes=out_axes)
        for turn in range(length):
            check_time()
            items = [_element(x, length - 1 - turn if back else turn) for x, back in zip(sources, backwards, strict=True)]
            results = self._run_body(body, (*states, *items, *captures))
            states = results[:n_states]
            places = [length - 1 - turn if back else turn for back in reversed_]
            collected.add(turn, results[n_states:], places)
        return (*states, *collected.stacked(out_axes, reversed_))

    def _by_reference(self, node: Node, operands: Sequence[Any]) -> tuple[Any, ...]:
        given = [None if v is None else self._fetch(v) for v in operands]
        return lookup(node.domain, node.op).evaluate(
            given, node.attrs, n_outputs=len(node.outputs), graphs=node.graphs, run_graph=self._run_body
        )

    def store(self, output: int, place: int, value: Any) -> bool:
        """See ``keep``."""
        return self._keep(output, place, value)

    def fetch(self, value: Any) -> Any:
        """A value as an array of the host, its own."""
        found = self._fetch(value)
        return found.copy() if found is value and isinstance(found, np.ndarray) else found


class _Collected:
    """Scanned outputs: stored on the device where the whole has a place there, else gathered on the host."""

    def __init__(self, control: Control, kept: Kept, count: int, *, first_output: int, axes: Sequence[int] = ()) -> None:
        self._control = control
        self._kept = kept
        self.count = count
        self._first = first_output
        self._on_device = [axis == 0 for axis in axes] if axes else [True] * count
        self._items: list[list[Any]] = [[] for _ in range(count)]

    def add(self, turn: int, values: Sequence[Any], places: Sequence[int] | None = None) -> None:
        for number, value in enumerate(values):
            place = turn if places is None else places[number]
            if self._on_device[number]:
                self._on_device[number] = self._control.store(self._first + number, place, value)
            if not self._on_device[number]:
                item = self._control.fetch(value)
                self._items[number].append(item)
                self._kept.add(item)

    def stacked(self, axes: Sequence[int], backwards: Sequence[bool] = ()) -> list[Any]:
        out: list[Any] = []
        for number, items in enumerate(self._items):
            if self._on_device[number]:
                out.append(None)
            else:
                ordered = items[::-1] if number < len(backwards) and backwards[number] else items
                out.append(np.stack(ordered, axis=axes[number]))
        return out


def type_of(value: Any, declared: Type | None) -> Type | None:
    """The type of a value that is passed to a body."""
    if isinstance(value, np.ndarray):
        return TensorType(dtype_of(value), value.shape)
    if isinstance(value, DeviceArray):
        return TensorType(value.element_type, value.shape)
    return declared


def _element(array: Any, index: int) -> Any:
    if isinstance(array, DeviceArray):
        return array.item(index)
    return np.asarray(array[index])


def _item(items: Sequence[int], index: int) -> int:
    return int(items[index]) if index < len(items) else 0
