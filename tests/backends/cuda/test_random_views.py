"""Random graphs of pieces, reshapes and joins on the emulated device: with guards around each value, and in one arena."""

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.ir import DType, Graph, TensorType, Value
from miniinfer_cli.ops.insert import insert, insert_many
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.planning.freeze import freeze
from tests.backends.cuda.live_memory import check_memory
from tests.backends.cuda.performing import perform_program
from tests.backends.nodes import assert_close
from tests.emulation.engine import open_emulated

SIZES = st.sampled_from([1, 2, 4, 8, 8, 16])
OPERATIONS = ("Neg", "Add", "Slice", "Slice", "Split", "Split", "Transpose", "Reshape", "Concat", "CumSum", "MatMul")


def shape_of(value: Value) -> tuple[int, ...]:
    return tuple(int(n) for n in value.tensor.shape or ())


def add(graph: Graph, draw: st.DrawFn, op: str, values: list[Value]) -> tuple[Value, ...]:
    """Nodes that read some of the values; none where there is nothing to read so."""
    x = draw(st.sampled_from(values[-6:]))
    shape = shape_of(x)
    axis = draw(st.integers(0, len(shape) - 1))
    size = shape[axis]

    def constant(*numbers: int) -> Value:
        return graph.add_constant(np.array(numbers, np.int64))

    match op:
        case "Neg":
            return (insert(graph, "Neg", x),)
        case "Add":
            return (insert(graph, "Add", x, draw(st.sampled_from([v for v in values if shape_of(v) == shape]))),)
        case "Slice":
            start = draw(st.integers(0, size - 1))
            bounds = constant(start), constant(draw(st.integers(start + 1, size)))
            return (insert(graph, "Slice", x, *bounds, constant(axis), constant(draw(st.sampled_from([1, 1, 2])))),)
        case "Split" if size % 2 == 0:
            return insert_many(graph, "Split", x, constant(size // 2, size // 2), n_outputs=2, axis=axis)
        case "Transpose":
            return (insert(graph, "Transpose", x, perm=draw(st.permutations(range(len(shape))))),)
        case "Reshape":
            rows = draw(st.sampled_from([n for n in (1, 2, 4, 8) if math.prod(shape) % n == 0]))
            return (insert(graph, "Reshape", x, constant(rows, math.prod(shape) // rows)),)
        case "Concat" if math.prod(shape) < 2000:
            fit = [v for v in values if len(shape_of(v)) == len(shape)]
            fit = [v for v in fit if all(i == axis or n == shape[i] for i, n in enumerate(shape_of(v)))]
            return (insert(graph, "Concat", x, *draw(st.lists(st.sampled_from(fit), min_size=1, max_size=2)), axis=axis),)
        case "CumSum":  # which reads what is dense
            return (insert(graph, "CumSum", x, graph.add_constant(np.array(axis, np.int64))),)
        case "MatMul":
            fit = [v for v in values if len(shape_of(v)) == 2 and shape_of(v)[0] == shape[-1]]
            return (insert(graph, "Tanh", insert(graph, "MatMul", x, draw(st.sampled_from(fit)))),) if fit else ()
    return ()


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph = Graph("main")
    shapes = [tuple(draw(st.lists(SIZES, min_size=2, max_size=3))) for _ in range(2)]
    values = [graph.add_input(f"x{i}", TensorType(DType.F32, s)) for i, s in enumerate(shapes)]
    for _ in range(draw(st.sampled_from([4, 8, 12]))):
        values += add(graph, draw, draw(st.sampled_from(OPERATIONS)), values)
    made = [v for v in values if v.producer is not None] or [insert(graph, "Neg", values[0])]
    graph.set_outputs(list(dict.fromkeys([made[-1], *draw(st.lists(st.sampled_from(made), max_size=2))])))
    return graph


@settings(max_examples=20, deadline=None)
@given(graphs())
def test_results_are_the_references(graph: Graph) -> None:
    rng = np.random.default_rng(0)
    feeds: dict[str, Any] = {v.name: rng.standard_normal(shape_of(v)).astype(np.float32) for v in graph.inputs}
    given, target = list(feeds.values()), Target(tf32=False)
    want = interpret(graph, given)
    program = make_program(graph, [v.type for v in graph.inputs], target)
    check_memory(program)
    for got, wanted in zip(perform_program(program, given, target), want, strict=True):
        assert_close(got, wanted, 1e-4)
    with open_emulated(freeze(graph, options={"tf32": False})) as engine:
        for got, wanted in zip(engine.run(feeds).values(), want, strict=True):
            assert_close(got, wanted, 1e-4)
