"""Regions of quantized products: the weights unfolded once, and all computed in f32 between 8-bit numbers that come and go.

A product of 8-bit integers in f32 is exact as long as its sums are below 2^24, and rounds as f32 does beyond. The scale of what
is multiplied goes into the weights, so that only its zero point is taken away while it is widened.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.lowering.element_form import NO_SCRATCH, Elementwise
from miniinfer_cli.backends.cpu.lowering.quantized_numbers import dequantized_by
from miniinfer_cli.backends.cpu.lowering.region import lower_anchored_region
from miniinfer_cli.backends.cpu.routine import Routine, Site, find_lowering, lowers, nbytes_of, padded_nbytes, shape_of
from miniinfer_cli.backends.cpu.threads import Threads
from miniinfer_cli.ir import Array, Constant, DType, Graph, Node, TensorType, Value
from miniinfer_cli.ir.parts import constant_within, copy_node
from miniinfer_cli.ops.inference import Types, infer_graph
from miniinfer_cli.ops.products import Call, in_order
from miniinfer_cli.ops.quantize import dequantize_linear
from miniinfer_cli.ops.registry import lookup
from miniinfer_cli.ops.stored_numbers import dequantizing

_PART = 1 << 17  # elements that one thread widens at a time, at least

Widen = Callable[[Sequence[Any], Array], tuple[Array, Call | None]]
"""An operand in f32, in memory of its own where it needs any, and what makes it of the region's inputs at each call."""


@lowers("QuantizedConv", "QuantizedMatMul", domain="miniinfer")
def lower_quantized_region(site: Site) -> Routine | None:
    """The product's operands in f32, then the region without what dequantized them."""
    body = site.node.body
    assert body is not None
    products = [n for n in body if lookup(n.domain, n.op).flops is not None]
    if len(products) != 1:
        return None
    (product,) = products
    types = infer_graph(body, list(site.inputs))
    operands: list[tuple[Value, TensorType, Widen, int]] = []
    handles: list[Constant | None] = []
    sources = [dequantizing(product.inputs[i]) for i in (0, 1)]
    folded = _scale_to_fold(site, sources)
    result = None if folded is None else _result_scale(site, product)
    for source in sources:
        if source is None:
            continue
        kind = types[source.output]
        if not isinstance(kind, TensorType) or kind.dtype is not DType.F32 or not kind.is_static:
            return None
        weights = _handle(site, source.inputs[0])
        if any(_array(site, v) is None for v in source.inputs[1:] if v is not None):
            return None
        if weights is not None:
            factor = np.float32(1) if folded is None else folded if result is None else np.float32(folded / result.scale)
            wide = _unfolded(site, source, weights, factor)
            operands.append((source.output, kind, _ready(site.weights.array(wide)), 0))
            handles.append(wide)
        else:
            widen = _widened(site, source, folded is not None)
            if widen is None:
                return None
            operands.append((source.output, kind, widen, nbytes_of(kind)))
            handles.append(None)
    if not operands:
        return None
    graph = _without(body, [v for v, *_ in operands], {s for s in sources if s is not None}, types, result)
    inner_types = (*(kind for _, kind, *_ in operands), *site.inputs)
    routine = _routine(site, graph, inner_types, (*handles, *site.handles))
    if routine is None:
        return None
    starts: list[int] = []
    size = 0
    for *_, nbytes in operands:
        starts.append(size)
        size += padded_nbytes(nbytes)

    def prepare(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
        made = [
            widen(inputs, scratch[at : at + nbytes].view(np.float32).reshape(shape_of(kind) if nbytes else (0,)))
            for at, (_, kind, widen, nbytes) in zip(starts, operands, strict=True)
        ]
        rest = routine.prepare([*(array for array, _ in made), *inputs], outputs, scratch[size:])
        return in_order(*(call for _, call in made if call is not None), rest)

    return Routine(prepare, scratch_nbytes=size + routine.scratch_nbytes, tactic=f"unfolded {routine.tactic}")


def _handle(site: Site, value: Value | None) -> Constant | None:
    assert site.node.body is not None
    return constant_within(site.node.body, site.handles, value)


def _array(site: Site, value: Value | None) -> Array | None:
    handle = _handle(site, value)
    return None if handle is None else site.weights.array(handle)


def _scale_to_fold(site: Site, sources: Sequence[Node | None]) -> np.float32 | None:
    """The scale of what constant weights multiply; None where there are no such, or it is not dequantized here."""
    x, w = sources
    if x is None or w is None or _handle(site, x.inputs[0]) is not None or _handle(site, w.inputs[0]) is None:
        return None
    scale = _array(site, x.inputs[1])
    return None if scale is None or scale.size != 1 else np.float32(scale.reshape(())[()])


def _unfolded(site: Site, source: Node, weights: Constant, factor: np.float32) -> Constant:
    """The weights in f32, times ``factor``; computed once."""
    numbers = [_array(site, v) for v in source.inputs[1:]]
    key = hashlib.sha256(b"|".join(b"" if n is None else np.ascontiguousarray(n).tobytes() for n in numbers))
    key.update(repr((factor, sorted(source.attrs.items()))).encode())

    def make(stored: Array) -> Array:
        scale, zero = (*numbers, None)[:2]
        assert scale is not None  # the caller has looked
        wide = dequantize_linear(stored, scale, zero, **source.attrs)
        return np.ascontiguousarray(wide * factor, np.float32)

    return site.weights.derived_constant(weights, f"dequantized {key.hexdigest()}", make)


def _ready(array: Array) -> Widen:
    return lambda inputs, memory: (array, None)


def _widened(site: Site, source: Node, folded: bool) -> Widen | None:
    """What is dequantized at each call. ``folded``: its scale went into the weights."""
    body = site.node.body
    assert body is not None
    value, zero = source.inputs[0], _array(site, source.inputs[2]) if len(source.inputs) > 2 else None
    own = _array(site, source.inputs[1])
    if value is None or value not in body.inputs or own is None or own.size != 1 or (zero is not None and zero.size != 1):
        return None
    number, threads = body.inputs.index(value), site.threads
    point = np.float32(0 if zero is None else zero.reshape(())[()])
    factor = np.float32(1 if folded else own.reshape(())[()])
    by_element = dequantized_by(value.tensor.dtype, factor, point)

    def widen(inputs: Sequence[Any], memory: Array) -> tuple[Array, Call]:
        return memory, functools.partial(_widen, inputs[number].reshape(-1), memory.reshape(-1), by_element, threads)

    return widen


def _widen(x: Array, out: Array, by_element: Elementwise, threads: Threads) -> None:
    parts = max(1, x.size // _PART)

    def part(number: int) -> None:
        where = slice(x.size * number // parts, x.size * (number + 1) // parts)
        by_element([x[where]], out[where], NO_SCRATCH)

    if parts == 1:
        part(0)
    else:
        threads(parts, part)


@dataclass(frozen=True, slots=True)
class _ResultScale:
    """The scale of the integers that a region gives, by which all is divided on the way instead of at its end.

    ``constants``: what constant operands become, by node and number.
    """

    scale: np.float32
    constants: Mapping[tuple[Node, int], Array]


def _result_scale(site: Site, product: Node) -> _ResultScale | None:
    """Where nothing but sums and bounds stands between the product and what quantizes its result; None elsewhere."""
    body = site.node.body
    assert body is not None
    (last,) = (v.producer for v in body.outputs[:1])
    if len(body.outputs) != 1 or last is None or not last.is_op("QuantizeLinear"):
        return None
    scale = _array(site, last.inputs[1])
    if scale is None or scale.size != 1:
        return None
    factor = np.float32(scale.reshape(())[()])
    constants: dict[tuple[Node, int], Array] = {(last, 1): np.ones((), np.float32)}
    pending = [last.inputs[0]]
    while pending:
        value = pending.pop()
        node = None if value is None else value.producer
        if value is None or node is None or len(value.users) != 1:
            return None
        if node is product:
            scaled = [i for i, v in enumerate(node.inputs) if i > 1 and v is not None]
        elif node.is_op("DequantizeLinear") and node.inputs[0] in body.inputs:
            scaled = [1]
        elif node.is_op("Add"):
            scaled = [i for i, v in enumerate(node.inputs) if _handle(site, v) is not None]
            pending += [v for i, v in enumerate(node.inputs) if i not in scaled]
        elif node.is_op("Relu", "Clip"):
            scaled = [i for i, v in enumerate(node.inputs) if i > 0 and v is not None]
            pending.append(node.inputs[0])
        else:
            return None
        for number in scaled:
            array = _array(site, node.inputs[number])
            if array is None or array.dtype != np.float32:
                return None
            constants[node, number] = array / factor
    if any(product.attrs.get(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return None
    return _ResultScale(factor, constants)


def _without(body: Graph, values: Sequence[Value], sources: set[Node], types: Types, result: _ResultScale | None) -> Graph:
    """The body with ``values`` as its first inputs, and no nodes that make nothing else; by ``result`` where there is one."""
    graph = Graph(body.name)
    given = {v: graph.add_input(v.name, types[v]) for v in values}
    known = {v: graph.add_input(v.name, v.type) for v in body.inputs} | given
    left = [n for n in body if n not in sources or any(u not in sources and v not in given for v in n.outputs for u in v.users)]
    for node in left:
        own = {} if result is None else {i: a for (n, i), a in result.constants.items() if n is node}
        within = known | {v: graph.add_constant(own[i], v.name) for i, v in enumerate(node.inputs) if v is not None and i in own}
        copy_node(graph, node, within)
        known |= {v: within[v] for v in node.outputs}
    graph.set_outputs([known[v] for v in body.outputs])
    return graph


def _routine(
    site: Site, graph: Graph, types: Sequence[TensorType | None], handles: tuple[Constant | None, ...]
) -> Routine | None:
    """The region of floats; the product alone where nothing follows it."""
    outer = Graph("region")
    values = [outer.add_input(v.name, v.type) for v in graph.inputs]
    if len(graph) > 1:
        node = outer.add_node(site.node.op, values, (outer.new_value("y"),), domain=site.node.domain, body=graph)
        return lower_anchored_region(Site(node, tuple(types), site.outputs, handles, site.weights, site.threads))
    (alone,) = graph
    place = {v: i for i, v in enumerate(graph.inputs)}
    numbers = [None if v is None else place.get(v) for v in alone.inputs]
    held = [None if v is None else v.constant for v in alone.inputs]
    lowering = find_lowering(alone)
    if lowering is None:
        return None
    kinds = [None if v is None else (v.tensor if n is None else types[n]) for v, n in zip(alone.inputs, numbers, strict=True)]
    inner_handles = tuple(h if n is None else handles[n] for n, h in zip(numbers, held, strict=True))
    routine = lowering(Site(alone, tuple(kinds), site.outputs, inner_handles, site.weights, site.threads))
    if routine is None:
        return None
    arrays = [None if h is None else h.array() for h in held]

    def alone_of(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
        return routine.prepare([a if n is None else inputs[n] for n, a in zip(numbers, arrays, strict=True)], outputs, scratch)

    return Routine(alone_of, scratch_nbytes=routine.scratch_nbytes, tactic=routine.tactic)
