"""Chains of pointwise operations, run block by block so that what passes between two operations stays in the cache.

The chain is compiled to *stages* over numbered registers. For each block of the output, a stage writes a register: a
view of an operand, of an output, or of a scratch buffer. Half-width values are f32 inside the chain and rounded where
they leave it.
"""

import functools
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.lowering.element_form import Elementwise
from miniinfer_cli.backends.cpu.lowering.elementwise import covered, elementwise
from miniinfer_cli.backends.cpu.lowering.quantized_numbers import bounds_before_quantizing, quantization_by_constants
from miniinfer_cli.backends.cpu.routine import Routine, Site, lowers, shape_of
from miniinfer_cli.backends.cpu.threads import Threads
from miniinfer_cli.ir import Array, DType, Graph, Node, TensorType, Value, numpy_dtype
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.ops.products import Call, Then, even_count, in_order

BLOCK = 1 << 17
"""Elements of a block, about. Numpy lets the interpreter go within each operation and wants it back at its end: with 32 Ki
elements two threads take twice as long as one, with 128 Ki they take two thirds, though a register (512 KiB of f32) is a good
part of the second-level cache. Measured on Xeon (2 MiB of it) and EPYC (512 KiB)."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One operation of a chain: reads registers, writes one register."""

    run: Elementwise
    reads: tuple[int, ...]
    writes: int


@dataclass(frozen=True, slots=True)
class Chain:
    """A compiled chain. Registers: the operands that it reads, then constants of the body, then one per stage.

    ``operands`` are the numbers of those operands among all of the body's; ``outputs`` the registers that leave.
    """

    operands: tuple[int, ...]
    stages: tuple[Stage, ...]
    shapes: tuple[tuple[int, ...], ...]  # by register
    dtypes: tuple[np.dtype[Any], ...]  # by register, as computed
    outputs: tuple[int, ...]
    constants: dict[int, Array]
    full: tuple[int, ...]  # the shape that everything broadcasts to

    def overwritable(self) -> tuple[int, ...]:
        """Operands that the only output may overwrite: same shape and type, not read after the output is written."""
        if len(self.outputs) != 1:
            return ()
        target = self.outputs[0]
        produced = next((i for i, s in enumerate(self.stages) if s.writes == target), -1)
        late = {r for s in self.stages[produced + 1 :] for r in s.reads}
        return tuple(
            operand
            for r, operand in enumerate(self.operands)
            if r not in late and self.shapes[r] == self.shapes[target] and self.dtypes[r] == self.dtypes[target]
        )


def compile_chain(body: Graph, inputs: Sequence[TensorType | None], skip: Node | None = None) -> Chain | None:
    """Compiles ``body`` for these operand types; None when a node has no elementwise form or a value's size is not static.

    ``skip`` is a node that is computed elsewhere: its output becomes one more operand, after the body's inputs.
    """
    types = infer_graph(body, list(inputs))
    registers: dict[Value, int] = {}
    shapes: list[tuple[int, ...]] = []
    dtypes: list[np.dtype[Any]] = []
    constants: dict[int, Array] = {}
    stages: list[Stage] = []

    def register(value: Value) -> int | None:
        found = registers.get(value)
        if found is not None:
            return found
        kind = types.get(value, value.type)
        if not isinstance(kind, TensorType) or not kind.is_static or kind.dtype is DType.STR:
            return None
        number = registers[value] = len(shapes)
        shapes.append(shape_of(kind))
        dtypes.append(computed_dtype(kind.dtype))
        if value.constant is not None:
            constants[number] = value.constant.array().astype(dtypes[number], copy=False)
        return number

    bounds = bounds_before_quantizing(body)
    within = {bound.node for bound in bounds.values()}
    reading = {
        n: n.inputs if n not in bounds else (bounds[n].node.inputs[0], *n.inputs[1:])
        for n in body
        if n is not skip and n not in within
    }
    read = [v for values in reading.values() for v in values if v is not None]
    everything = [*body.inputs, *(skip.outputs if skip is not None else ())]
    operands = tuple(i for i, v in enumerate(everything) if v in read or v in body.outputs)
    for value in (*(everything[i] for i in operands), *(v for v in read if v.constant is not None)):
        if register(value) is None:
            return None
    for node, values in reading.items():
        reads = [register(v) for v in values if v is not None]
        if len(node.outputs) != 1 or None in reads or len(reads) != len(node.inputs):
            return None
        run = elementwise(node, [types.get(v, v.type) if v is not None else None for v in node.inputs], types[node.output])
        known = None if run is None else quantization_by_constants(node, bounds.get(node))
        if known is not None:
            run, reads = known, reads[:1]
        written = register(node.output)
        if run is None or written is None:
            return None
        stages.append(Stage(run, tuple(r for r in reads if r is not None), written))
    if any(v not in registers for v in body.outputs):
        return None
    outputs = tuple(registers[v] for v in body.outputs)
    if len(set(outputs)) != len(outputs):
        return None  # one value twice: a register leaves by one door
    try:
        full = np.broadcast_shapes(*shapes)
    except ValueError:  # an operand that nothing reads and that leaves as it is may have any shape
        return None
    return Chain(operands, tuple(stages), tuple(shapes), tuple(dtypes), outputs, constants, full)


def computed_dtype(dtype: DType) -> np.dtype[Any]:
    """The type a value has inside a chain: f32 for the floats of 16 bits, its own otherwise."""
    return np.dtype(np.float32) if dtype.is_half and dtype.bits == 16 else numpy_dtype(dtype)


def prepare_chain(chain: Chain, threads: Threads) -> Callable[[Sequence[Array], Sequence[Array]], Call]:
    """``ready(operands, outputs)`` gives what computes a compiled chain; ``operands`` are all of the body's, read or not."""
    axes = _merged_axes(chain.full, chain.shapes)
    full = tuple(math.prod(chain.full[a] for a in group) for group in axes)
    laid = _Laid(chain, full, [_merge(shape, len(chain.full), axes) for shape in chain.shapes])
    size = math.prod(full)
    blocks = _blocks(full, max(BLOCK, -(-size // even_count(size // BLOCK))))

    def ready(operands: Sequence[Array], results: Sequence[Array]) -> Call:
        sources, targets = laid.views(operands, results)
        calls = [laid.ready(sources, targets, block) for block in blocks]
        if len(calls) == 1 or threads.count == 1:
            return in_order(*calls)
        return functools.partial(threads, len(calls), lambda number: calls[number]())

    return ready


def prepare_parts(chain: Chain) -> Callable[[Sequence[Array], Sequence[Array]], Then] | None:
    """``ready(operands, outputs)`` gives a function that makes the chain ready on some rows of the output as a matrix.

    None when an operand is no matrix, row, column or single number beside it.
    """
    if not chain.full:
        return None
    rows, columns = math.prod(chain.full[:-1]), chain.full[-1]
    flat = []
    for shape in chain.shapes:
        height, width = math.prod(shape[:-1]), shape[-1] if shape else 1
        if height not in (1, rows):
            return None
        flat.append((height, width))
    laid = _Laid(chain, (rows, columns), flat)

    def ready(operands: Sequence[Array], results: Sequence[Array]) -> Then:
        sources, targets = laid.views(operands, results)
        step = max(BLOCK // max(columns, 1), 1)

        def part(rows: slice) -> Call:
            starts = range(rows.start, rows.stop, step)
            blocks = [(slice(start, min(start + step, rows.stop)), slice(0, columns)) for start in starts]
            return in_order(*(laid.ready(sources, targets, block) for block in blocks))

        return part

    return ready


class _Laid:
    """A chain over the shape ``full``, its registers of the shapes ``flat``: the same elements under fewer axes."""

    def __init__(self, chain: Chain, full: tuple[int, ...], flat: Sequence[tuple[int, ...]]) -> None:
        self._chain = chain
        self._full = full
        self._flat = flat
        self._n_operands = len(chain.shapes) - len(chain.stages)
        self._outputs = {r: i for i, r in enumerate(chain.outputs)}
        self._constants = {r: a.reshape(flat[r]) for r, a in chain.constants.items()}

    def views(self, operands: Sequence[Array], results: Sequence[Array]) -> tuple[list[Array], list[Array]]:
        """The registers that are read, operands and constants, and the outputs, in their shapes here."""
        chain, flat = self._chain, self._flat
        sources = [operands[i].reshape(flat[r]) for r, i in enumerate(chain.operands)]
        sources += [self._constants[r] for r in range(len(sources), self._n_operands)]
        return sources, [a.reshape(flat[r]) for a, r in zip(results, chain.outputs, strict=True)]

    def ready(self, sources: Sequence[Array], targets: Sequence[Array], block: tuple[slice, ...]) -> Call:
        """What runs the stages for the ``block``.

        Registers that do not leave are in the thread's scratch, which is taken anew at each call: it may be another thread.
        """
        chain, flat, full, outputs = self._chain, self._flat, self._full, self._outputs
        index = [_part(block, shape) for shape in flat]
        known: list[Any] = [None] * len(flat)
        for r, source in enumerate(sources):
            known[r] = source[index[r]]
        widened = [(r, known[r], chain.dtypes[r]) for r in range(len(sources)) if known[r].dtype != chain.dtypes[r]]
        stages: list[_Ready] = []
        for stage in chain.stages:
            w = stage.writes
            out: Array | None = None
            if w in outputs and flat[w] == full:  # a smaller one is computed by several blocks, each for itself
                out = targets[outputs[w]][index[w]]
            if out is None or out.dtype != chain.dtypes[w]:
                shape = tuple(n if n == 1 else s.stop - s.start for s, n in zip(block, flat[w], strict=True))
                stages.append((stage.run, stage.reads, w, None, shape, chain.dtypes[w]))
            else:
                stages.append((stage.run, stage.reads, w, out, (), chain.dtypes[w]))
        leaving: list[tuple[int, Array]] = []
        for r, i in outputs.items():
            target = targets[i][index[r]]
            if chain.dtypes[r] != target.dtype or r < self._n_operands or flat[r] != full:
                leaving.append((r, target))
        if len(stages) == 1 and not widened and not leaving:
            ((run, reads, _, out, _, _),) = stages
            assert out is not None
            return functools.partial(run, [known[r] for r in reads], out, _BUFFERS)

        def compute() -> None:
            registers = known.copy()
            for r, part, dtype in widened:
                registers[r] = part.astype(dtype)
            for run, reads, w, out, shape, dtype in stages:
                if out is None:
                    out = _BUFFERS.take(w, shape, dtype)
                run([registers[r] for r in reads], out, _BUFFERS)
                registers[w] = out
            for r, target in leaving:
                np.copyto(target, registers[r], casting="unsafe")

        return compute


_Ready = tuple[Elementwise, tuple[int, ...], int, Array | None, tuple[int, ...], np.dtype[Any]]
"""A stage for a block: what it runs, reads and writes; into what, or into scratch of which shape; the type."""


@lowers("FusedPointwise", domain="miniinfer")
def lower_pointwise_region(site: Site) -> Routine | None:
    """A region of pointwise nodes as one chain."""
    assert site.node.body is not None
    return chain_routine(compile_chain(site.node.body, site.inputs), site.threads)


@lowers(*(n for n in covered() if n != "Identity"))
def lower_single(site: Site) -> Routine | None:
    """One pointwise node as a chain of one stage."""
    if any(t is None for t in site.inputs):
        return None
    body = Graph("one")
    inputs = [body.add_input(f"x{i}", t) for i, t in enumerate(site.inputs)]
    output = body.new_value("y", site.outputs[0])
    body.add_node(site.node.op, inputs, (output,), domain=site.node.domain, attrs=site.node.attrs)
    body.set_outputs([output])
    return chain_routine(compile_chain(body, site.inputs), site.threads)


def chain_routine(chain: Chain | None, threads: Threads) -> Routine | None:
    """The routine of a chain whose operands are the node's inputs; None for None."""
    if chain is None:
        return None
    ready = prepare_chain(chain, threads)

    def prepare(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
        return ready(inputs, outputs)

    free = chain.overwritable()
    return Routine(prepare, in_place={0: free} if free else {}, tactic=f"blocks of {len(chain.stages)}")


class _Scratch:
    """Per thread: the buffers of registers that do not leave a chain, of a block's size each, kept for the next chain."""

    def __init__(self) -> None:
        self._local = threading.local()

    def take(self, key: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array of this shape and type, the same memory at each call with this key in this thread."""
        held: dict[Any, Array] = self._local.__dict__
        count = math.prod(shape)
        buffer = held.get((key, dtype))
        if buffer is None or buffer.size < count:
            buffer = held[(key, dtype)] = np.empty(count, dtype)
        return buffer[:count].reshape(shape)


_BUFFERS = _Scratch()


def _merged_axes(full: tuple[int, ...], shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Groups of neighbouring axes that no operand tells apart: in each operand all are present, or all broadcast.

    Axes of size 1 are in no group: they are 1 in every operand.
    """
    rank = len(full)
    groups: list[list[int]] = []
    previous: tuple[bool, ...] | None = None
    for axis in range(rank):
        if full[axis] == 1:
            continue
        pattern = tuple(axis - rank + len(s) >= 0 and s[axis - rank + len(s)] != 1 for s in shapes)
        if pattern == previous:
            groups[-1].append(axis)
        else:
            groups.append([axis])
        previous = pattern
    return groups


def _merge(shape: tuple[int, ...], rank: int, groups: Sequence[Sequence[int]]) -> tuple[int, ...]:
    padded = (1,) * (rank - len(shape)) + shape
    return tuple(int(np.prod([padded[a] for a in group], dtype=np.int64)) for group in groups)


def _part(block: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[Any, ...]:
    """The index of ``block`` into a register of ``shape``, whose axes of size 1 broadcast; always gives an array."""
    return (*(slice(None) if n == 1 else s for s, n in zip(block, shape, strict=True)), ...)


def _blocks(full: tuple[int, ...], limit: int) -> list[tuple[slice, ...]]:
    """Row-major blocks of at most about ``limit`` elements that cover ``full``."""
    out: list[tuple[slice, ...]] = []
    inner = 1
    axis = len(full)
    while axis > 0 and inner * full[axis - 1] <= limit:
        axis -= 1
        inner *= full[axis]
    if axis == 0:
        return [tuple(slice(0, n) for n in full)]
    step = max(-(-limit // max(inner, 1)), 1)
    rest = tuple(slice(0, n) for n in full[axis:])
    for outer in np.ndindex(*full[: axis - 1]):
        head = tuple(slice(i, i + 1) for i in outer)
        out += [(*head, slice(s, min(s + step, full[axis - 1])), *rest) for s in range(0, full[axis - 1], step)]
    return out
