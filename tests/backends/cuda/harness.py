"""One node through its lowering and the emulated device, beside its numpy reference."""

import ctypes
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from miniinfer_cli import ops  # noqa: F401  (registers the meanings)
from miniinfer_cli.backends.cuda import lowering  # noqa: F401  (registers the lowerings)
from miniinfer_cli.backends.cuda.expansion import expand_node
from miniinfer_cli.backends.cuda.site import Site, Target, find_lowering
from miniinfer_cli.backends.cuda.steps import Action, Copy, Fill, Launch, LibraryCall, Lowered, Operand, Rewrite
from miniinfer_cli.ir import Array, Constant, Graph, Node, TensorType, Type, Value, dtype_of, numpy_dtype
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.ops.registry import lookup
from tests.backends.cuda import numpy_library
from tests.emulation.architectures import compile_for_a_gpu
from tests.emulation.compiler import load
from tests.emulation.stream import check_launch

NVRTC = bool(os.environ.get("MINIINFER_NVRTC"))
"""Whether every kernel that runs here is compiled for a GPU, too; ``test_kernel_files.py`` compiles some of every file anyway."""
GUARD = 512  # bytes of a known pattern around every buffer


class NotLowered(AssertionError):
    """A primitive node without a lowering: it would run on the host."""


class Buffer:
    """Bytes with a guard on either side, poisoned."""

    def __init__(self, nbytes: int) -> None:
        self._raw = np.full(nbytes + 2 * GUARD + 256, 0xA5, np.uint8)
        start = GUARD + -(self._raw.ctypes.data + GUARD) % 256
        self.bytes = self._raw[start : start + nbytes]
        self.address = self._raw.ctypes.data + start
        self._inside = (start, start + nbytes)
        self.bytes[:] = 0xFB  # NaN in every float type, and no small number

    def check(self) -> None:
        """Raises AssertionError when something was written before or behind the buffer."""
        start, stop = self._inside
        assert (self._raw[:start] == 0xA5).all(), "a kernel wrote before its buffer"
        assert (self._raw[stop:] == 0xA5).all(), "a kernel wrote behind its buffer"

    def view(self, dtype: Any, shape: Sequence[int]) -> Array:
        count = int(np.prod(shape, dtype=np.int64))
        return self.bytes[: count * np.dtype(dtype).itemsize].view(dtype).reshape(shape)


def run_op(
    op: str,
    *inputs: Any,
    domain: str = "",
    n_outputs: int = 1,
    target: Target | None = None,
    constants: Sequence[int] = (),
    body: Graph | None = None,
    **attrs: Any,
) -> list[Array]:
    """The node's outputs by its lowering, on the emulated device. Inputs are arrays, None where left out.

    ``constants`` are numbers of inputs that are weights (the lowering sees their handles). Small integer inputs of shape
    operands are known to the lowering, as they are in a program. Raises NotLowered when a primitive has no lowering.
    """
    graph = make_graph(op, inputs, domain=domain, n_outputs=n_outputs, constants=constants, body=body, attrs=attrs)
    given = [a for i, a in enumerate(inputs) if a is not None and i not in constants]
    return run_graph(graph, given, target or Target())


def reference(op: str, *inputs: Any, domain: str = "", n_outputs: int = 1, **attrs: Any) -> list[Array]:
    """The node's outputs by its numpy reference."""
    with np.errstate(all="ignore"):
        return [np.asarray(o) for o in lookup(domain, op).evaluate(inputs, attrs, n_outputs=n_outputs)]


def check_op(op: str, *inputs: Any, tolerance: float | None = None, domain: str = "", n_outputs: int = 1, **options: Any) -> None:
    """Both ways, compared: exactly for integers and bools, within ``tolerance`` (by type when left out) for floats."""
    attrs = {k: v for k, v in options.items() if k not in ("target", "constants", "body")}
    got = run_op(op, *inputs, domain=domain, n_outputs=n_outputs, **options)
    want = reference(op, *inputs, domain=domain, n_outputs=n_outputs, **attrs)
    for g, w in zip(got, want, strict=True):
        assert_close(g, w, tolerance)


TOLERANCES = {"float64": 1e-12, "float32": 2e-6, "float16": 2e-3, "bfloat16": 1e-2}


def assert_close(got: Array, want: Array, tolerance: float | None = None) -> None:
    """Same type and shape; ``|got - want| <= tolerance * max(|want|, 1)`` for floats, NaN where NaN; equal otherwise."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    if "float" not in got.dtype.name:
        np.testing.assert_array_equal(got, want)
        return
    limit = TOLERANCES.get(got.dtype.name, 0.0) if tolerance is None else tolerance
    g, w = got.astype(np.float64), want.astype(np.float64)
    np.testing.assert_allclose(g, w, rtol=limit, atol=limit, equal_nan=True)


def make_graph(
    op: str,
    inputs: Sequence[Any],
    *,
    domain: str,
    n_outputs: int,
    constants: Sequence[int],
    body: Graph | None,
    attrs: Mapping[str, Any],
) -> Graph:
    """A graph of one node; floats and large inputs are passed, small integer ones are known."""
    graph = Graph("one")
    values: list[Value | None] = []
    for i, array in enumerate(inputs):
        if array is None:
            values.append(None)
        elif i in constants:
            values.append(graph.add_constant(np.asarray(array), f"w{i}"))
        else:
            values.append(graph.add_input(f"x{i}", TensorType(dtype_of(array), array.shape)))
    results = [graph.new_value(f"y{i}") for i in range(n_outputs)]
    graph.add_node(op, values, results, domain=domain, attrs=attrs, body=body)
    graph.set_outputs(results)
    return graph


def run_graph(graph: Graph, inputs: Sequence[Array], target: Target) -> list[Array]:
    """The outputs of a graph, node by node, each by its lowering (or its body, or its expansion)."""
    machine = _Machine(target)
    shape_operands = {v for n in graph for i in _shape_operands(n) if i < len(n.inputs) and (v := n.inputs[i]) is not None}
    kinds: list[Type | None] = [
        TensorType(dtype_of(a), a.shape, a if v in shape_operands else None) for v, a in zip(graph.inputs, inputs, strict=True)
    ]
    held = []
    for a in inputs:
        buffer = machine.new(a.nbytes)
        buffer.view(a.dtype, a.shape)[...] = a
        held.append((buffer, a.shape))
    with np.errstate(all="ignore"):
        results = machine.graph(graph, kinds, [b for b, _ in held])
    for (buffer, _), a in zip(held, inputs, strict=True):
        assert buffer.view(np.uint8, (a.nbytes,)).tobytes() == np.ascontiguousarray(a).tobytes(), "a kernel wrote into an input"
    for buffer in machine.buffers:
        buffer.check()
    return [b.view(numpy_dtype(t.dtype), t.shape).copy() for b, t in results]


def _shape_operands(node: Node) -> tuple[int, ...]:
    return () if node.body is not None else lookup(node.domain, node.op).shape_operands


class _Machine:
    def __init__(self, target: Target) -> None:
        self.target = target
        self.buffers: list[Buffer] = []

    def new(self, nbytes: int) -> Buffer:
        buffer = Buffer(nbytes)
        self.buffers.append(buffer)
        return buffer

    def graph(self, graph: Graph, kinds: Sequence[Type | None], given: Sequence[Buffer]) -> list[tuple[Buffer, TensorType]]:
        types = infer_graph(graph, kinds)
        buffers: dict[Value, Buffer] = dict(zip(graph.inputs, given, strict=True))

        def place(value: Value) -> Buffer:
            if value not in buffers:
                kind = types.get(value, value.type)
                contents = value.constant.array() if value.constant is not None else kind.concrete
                assert contents is not None, f"{value} has no contents"
                buffers[value] = self.new(contents.nbytes)
                buffers[value].view(contents.dtype, contents.shape)[...] = contents
            return buffers[value]

        for node in graph:
            results = [types[v] for v in node.outputs]
            if all(isinstance(t, TensorType) and t.concrete is not None for t in results):
                for v, t in zip(node.outputs, results, strict=True):
                    array = np.asarray(t.concrete, numpy_dtype(t.dtype))
                    buffers[v] = self.new(array.nbytes)
                    buffers[v].view(array.dtype, array.shape)[...] = array
                    types[v] = t
                continue
            inputs = [None if v is None else place(v) for v in node.inputs]
            operand_types = tuple(None if v is None else types.get(v, v.type) for v in node.inputs)
            handles = tuple(None if v is None else v.constant for v in node.inputs)
            outputs, kinds_out = self.node(node, operand_types, results, handles, inputs)
            for v, b, t in zip(node.outputs, outputs, kinds_out, strict=True):
                buffers[v], types[v] = b, t
        out = []
        for v in graph.outputs:
            kind = types.get(v, v.type)
            assert isinstance(kind, TensorType)
            out.append((place(v), kind))
        return out

    def node(
        self,
        node: Node,
        types: tuple[Type | None, ...],
        results: Sequence[Type | None],
        handles: tuple[Constant | None, ...],
        inputs: Sequence[Buffer | None],
    ) -> tuple[list[Buffer], list[Any]]:
        if node.domain == "" and node.op in ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"):
            assert inputs[0] is not None
            return [inputs[0]], list(results)
        lower = find_lowering(node)
        lowered = lower(Site(node, types, tuple(results), handles, self.target)) if lower is not None else None
        present = [(b, t) for b, t in zip(inputs, types, strict=True) if b is not None]
        if isinstance(lowered, Lowered):
            return self.run(lowered, results, inputs)
        if isinstance(lowered, Rewrite):
            graph = lowered.graph
        elif node.body is not None:
            graph = node.body
        else:
            expanded = expand_node(node, types)
            if expanded is None:
                raise NotLowered(f"{node.domain}::{node.op} has neither lowering nor expansion")
            graph = expanded
        done = self.graph(graph, [t for _, t in present], [b for b, _ in present if b is not None])
        return [b for b, _ in done], [t for _, t in done]

    def run(
        self, lowered: Lowered, results: Sequence[Type | None], inputs: Sequence[Buffer | None]
    ) -> tuple[list[Buffer], list[TensorType]]:
        kinds: list[TensorType] = []
        for number, t in enumerate(results):
            assert isinstance(t, TensorType)
            bound = lowered.bounds.get(number)
            kinds.append(t if bound is None else TensorType(t.dtype, bound.shape))
        outputs = [self.new(int(np.prod(t.shape)) * numpy_dtype(t.dtype).itemsize) for t in kinds]
        groups: dict[str, list[Any]] = {
            "input": list(inputs),
            "output": outputs,
            "scratch": [self.new(n) for n in lowered.scratch],
            "count": [self.new(8) for _ in results],
            "derived": [self._derive(d) for d in lowered.derived],
            "table": [],
        }
        for array in lowered.tables:
            buffer = self.new(array.nbytes)
            buffer.view(array.dtype, array.shape)[...] = array
            groups["table"].append(buffer)

        def address(o: Operand) -> int:
            return groups[o.kind][o.number].address + o.offset

        for action in lowered.actions:
            if isinstance(action, LibraryCall):
                assert self.target.supports(action.problem), f"no library solves {action.problem}"
            _perform(action, address)
        final = []
        for number, (t, b) in enumerate(zip(kinds, outputs, strict=True)):
            bound = lowered.bounds.get(number)
            if bound is not None:
                count = int(groups["count"][number].view(np.int64, (1,))[0])
                assert 0 <= count <= bound.shape[bound.axis]
                whole = b.view(numpy_dtype(t.dtype), bound.shape)
                cut = whole[tuple(slice(count) if a == bound.axis else slice(None) for a in range(len(bound.shape)))]
                b = outputs[number] = self.new(cut.nbytes)
                b.view(cut.dtype, cut.shape)[...] = cut
                t = TensorType(t.dtype, cut.shape)
            final.append(t)
        return outputs, final

    def _derive(self, derived: Any) -> Buffer:
        arrays = [s.array() for s in derived.sources]
        given = []
        for a in arrays:
            buffer = self.new(a.nbytes)
            buffer.view(a.dtype, a.shape)[...] = a
            given.append(buffer)
        ((buffer, _),) = self.graph(derived.graph, [TensorType(dtype_of(a), a.shape) for a in arrays], given)
        return buffer


def _perform(action: Action, address: Any) -> None:
    match action:
        case Copy(target, source, nbytes):
            ctypes.memmove(address(target), address(source), nbytes)
        case Fill(target, byte, nbytes):
            ctypes.memset(address(target), byte, nbytes)
        case Launch():
            launch(action, address)
        case LibraryCall(problem, operands):
            numpy_library.perform(problem, [address(o) for o in operands])


def launch(action: Launch, address: Any) -> None:
    """One launch on the emulated device, under the limits of a real one."""
    check_launch(action.grid, action.block, action.shared_nbytes)
    cells = []
    for argument in action.arguments:
        if isinstance(argument, Operand):
            cells.append(np.array([address(argument)], np.uint64))
        else:
            assert isinstance(argument, (np.generic, np.ndarray)), f"{argument!r} has no C type"
            cells.append(np.atleast_1d(np.array(argument)))
    table = (ctypes.c_void_p * max(len(cells), 1))(*(c.ctypes.data for c in cells))
    if NVRTC:
        compile_for_a_gpu(action.kernel)
    load(action.kernel)(action.grid, action.block, table)
