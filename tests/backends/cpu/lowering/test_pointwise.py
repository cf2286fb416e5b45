"""Random chains of every pointwise operation with an elementwise form, against the interpreter, bit for bit but for rounding.

Each chain runs twice: on the caller's arrays, which nobody may change, and on values of the arena, which it may overwrite.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.backends.cpu.device import CpuModel
from miniinfer_cli.backends.cpu.lowering import pointwise
from miniinfer_cli.backends.cpu.lowering.elementwise import covered, elementwise
from miniinfer_cli.backends.cpu.routine import shape_of
from miniinfer_cli.backends.cpu.threads import Threads
from miniinfer_cli.ir import DType, Graph, TensorType, Value, dtype_of, numpy_dtype
from miniinfer_cli.ops.inference import annotate
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.ops.registry import lookup
from miniinfer_cli.ops.type_codes import code_of_dtype

OPERATIONS = (
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Cos", "Div", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater",
    "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min",
    "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Round", "Sigmoid", "Sin", "Sqrt", "Sub", "Sum", "Swish", "Tanh",
    "Where", "Xor",
)  # fmt: skip
QUANTIZATION = ("DequantizeLinear", "QuantizeLinear")
"""Those of integers, which test_quantize.py and test_quantized_region.py have."""
ATTRIBUTES: dict[str, list[dict[str, Any]]] = {
    "LeakyRelu": [{}, {"alpha": 0.3}, {"alpha": -1.5}, {"alpha": np.inf}, {"alpha": -np.inf}, {"alpha": np.nan}],
    "HardSigmoid": [{}, {"alpha": 0.7, "beta": 0.1}],
    "Swish": [{}, {"alpha": 1.7}],
    "Gelu": [{}, {"approximate": "tanh"}],
}
OPERANDS = {"Where": 3, "Clip": 3} | dict.fromkeys(("Sum", "Mean", "Max", "Min"), 4)
TWO = ("Add", "Sub", "Mul", "Div", "Pow", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor")
LOGICAL = ("And", "Or", "Xor", "Not")
SPECIAL = (np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, -1.0, 2.0, 3.0)


def random_values(dtype: DType, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    if dtype is DType.BOOL:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.is_integer:
        return rng.integers(-100 if dtype is not DType.U8 else 0, 100, shape).astype(numpy_dtype(dtype))
    values = rng.standard_normal(shape) * 3
    chosen = rng.random(shape) < 0.3
    return np.where(chosen, rng.choice(SPECIAL, shape), values).astype(numpy_dtype(dtype))


def assert_equal_but_for_rounding(got: Any, expected: Any) -> None:
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    allowed = {DType.F64: 1e-13, DType.F32: 2e-6, DType.F16: 0, DType.BF16: 0}.get(dtype_of(got))
    if allowed is None:
        np.testing.assert_array_equal(got, expected)
    else:
        np.testing.assert_allclose(got.astype(np.float64), expected.astype(np.float64), rtol=allowed, atol=0)


def check(graph: Graph, inputs: list[Any], threads: int = 1, *, by_routines: bool = True) -> None:
    """The program of ``graph`` gives the interpreter's results and changes no input; ``by_routines``: each step has one."""
    annotate(graph)
    model = CpuModel(graph, threads)
    program = model.make_program([TensorType(v.tensor.dtype, a.shape) for v, a in zip(graph.inputs, inputs, strict=True)])
    assert all(s.routine is not None or s.view for s in program.steps) == by_routines, [s.tactic for s in program.steps]
    kept = [a.copy() for a in inputs]
    got = model.make_context().execute(program, inputs)
    with np.errstate(all="ignore"):
        expected = interpret(graph, kept)
    for g, e in zip(got, expected, strict=True):
        assert_equal_but_for_rounding(g, e)
    assert all(a.tobytes() == k.tobytes() for a, k in zip(inputs, kept, strict=True)), "an input was changed"


def region(body: Graph, types: list[TensorType], through_arena: bool) -> Graph:
    """A graph that runs ``body`` on its inputs, or on copies of them that lie in the arena."""
    graph = Graph("main")
    values = [graph.add_input(f"in{i}", t) for i, t in enumerate(types)]
    if through_arena:
        for i, t in enumerate(types):
            made = graph.new_value(f"made{i}", t)
            graph.add_node("Cast", [values[i]], (made,), attrs={"to": code_of_dtype(t.dtype)})
            values[i] = made
    results = [graph.new_value(f"out{i}") for i in range(len(body.outputs))]
    graph.add_node("FusedPointwise", values, results, domain="miniinfer", body=body)
    graph.set_outputs(results)
    return graph


@st.composite
def chains(draw: st.DrawFn) -> tuple[Graph, list[TensorType], int]:
    """A body of up to six operations on floats of one type and truth values, its operand types, and a seed."""
    dtype = draw(st.sampled_from([DType.F32, DType.F64]))
    full = draw(st.sampled_from([(2, 3, 4), (3, 1, 5), (0, 3), (7,), (1,), ()]))
    shape = st.sampled_from(
        [full, full, *[tuple(full[i:]) for i in range(len(full) + 1)], (1,) * len(full), (*full[:-1], 1)[: len(full)]]
    )
    body = Graph("FusedPointwise")
    kinds = [dtype] * draw(st.integers(1, 3)) + [DType.BOOL] * draw(st.integers(0, 1))
    types = [TensorType(k, draw(shape)) for k in kinds]
    made: list[Value] = [body.add_input(f"x{i}", t) for i, t in enumerate(types)]
    if draw(st.booleans()):
        constant = random_values(dtype, draw(shape), np.random.default_rng(draw(st.integers(0, 9))))
        made.append(body.add_constant(constant, "c"))
    for number in range(draw(st.integers(1, 6))):
        op = draw(st.sampled_from(OPERATIONS))
        floats = [v for v in made if v.tensor.dtype is dtype]
        bools = [v for v in made if v.tensor.dtype is DType.BOOL]
        count = OPERANDS.get(op, 2 if op in TWO else 1)
        operands = [draw(st.sampled_from(floats)) for _ in range(count)]
        attrs = draw(st.sampled_from(ATTRIBUTES.get(op, [{}])))
        if op in LOGICAL or op == "Where":
            if not bools:
                continue
            truth = [draw(st.sampled_from(bools)) for _ in range(count)]
            operands = [truth[0], *operands[1:]] if op == "Where" else truth
        if op == "Clip" and any(d != 1 for v in operands[1:] for d in v.tensor.shape or ()):
            continue
        if op == "Cast":
            attrs = {"to": code_of_dtype(draw(st.sampled_from([DType.BOOL, dtype])))}
        result = body.new_value(f"v{number}")
        node = body.add_node(op, operands, (result,), attrs=attrs)
        (told,) = lookup("", op).infer_types([v.type for v in node.inputs], attrs, n_outputs=1)
        body.set_type(result, told)
        made.append(result)
    outputs = [v for v in made if v.producer is not None and not v.users] or [made[0]]
    if len(made) > 2 and draw(st.booleans()) and made[-2] not in outputs and made[-2].producer is not None:
        outputs.append(made[-2])
    body.set_outputs(outputs)
    return body, types, draw(st.integers(0, 999))


def test_these_are_all():
    assert tuple(sorted(covered())) == tuple(sorted((*OPERATIONS, *QUANTIZATION)))


@settings(max_examples=250)
@given(chain=chains(), through_arena=st.booleans())
def test_random_chains(chain, through_arena):
    body, types, seed = chain
    rng = np.random.default_rng(seed)
    check(region(body, types, through_arena), [random_values(t.dtype, shape_of(t), rng) for t in types])


def single(op: str, types: list[TensorType], attrs: dict[str, Any]) -> Graph:
    """A graph of one node, as ``region`` wants a body."""
    graph = Graph("one")
    values = [graph.add_input(f"x{i}", t) for i, t in enumerate(types)]
    result = graph.new_value("y")
    graph.add_node(op, values, (result,), attrs=attrs)
    graph.set_outputs([result])
    return graph


NUMBERS = (DType.F64, DType.F32, DType.F16, DType.BF16, DType.I64, DType.I32, DType.I8, DType.U8, DType.BOOL)


@pytest.mark.parametrize("source", NUMBERS)
def test_casts_from(source):
    x = random_values(source, (300,), np.random.default_rng(0))
    for target in NUMBERS:
        to_integer = target not in (DType.F64, DType.F32, DType.F16, DType.BF16, DType.BOOL)
        whole = source in (DType.I64, DType.I32, DType.I16, DType.I8, DType.U8, DType.BOOL)
        narrows = to_integer and (source.bits > target.bits if whole else target not in (DType.I32, DType.I64))
        check(single("Cast", [TensorType(source, x.shape)], {"to": code_of_dtype(target)}), [x], by_routines=not narrows)


@pytest.mark.parametrize("op", LOGICAL)
def test_truth_values(op):
    rng = np.random.default_rng(6)
    count = 2 if op in TWO else 1
    inputs = [random_values(DType.BOOL, (40,), rng) for _ in range(count)]
    check(single(op, [TensorType(DType.BOOL, (40,))] * count, {}), inputs)


@pytest.mark.parametrize("dtype", [DType.F64, DType.F32, DType.F16, DType.BF16])
def test_clip(dtype):
    x = random_values(dtype, (40,), np.random.default_rng(7))
    low, high = (np.array(n).astype(x.dtype) for n in (-1.5, 2.0))
    check(single("Clip", [TensorType(dtype, (40,)), TensorType(dtype, ()), TensorType(dtype, ())], {}), [x, low, high])


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16])
@pytest.mark.parametrize("op", [o for o in OPERATIONS if o not in (*LOGICAL, "Where", "Clip", "Cast")])
def test_half_floats_round_once(op, dtype):
    rng = np.random.default_rng(1)
    count = 2 if op in TWO else OPERANDS.get(op, 1)
    inputs = [random_values(dtype, (200,), rng) for _ in range(count)]
    for attrs in ATTRIBUTES.get(op, [{}]):
        check(single(op, [TensorType(dtype, (200,))] * count, attrs), inputs)


@pytest.mark.parametrize("dtype", [DType.I64, DType.I32, DType.I16, DType.I8, DType.U8, DType.U32])
@pytest.mark.parametrize("op", [o for o in TWO if o not in LOGICAL] + ["Max", "Min", "Sum", "Relu", "Abs", "Neg"])
def test_integers_are_exact(op, dtype):
    rng = np.random.default_rng(2)
    if op == "Neg" and dtype in (DType.U8, DType.U32):
        return
    low, high = (0, 5) if op == "Pow" else (1, 100)
    count = 2 if op in TWO else OPERANDS.get(op, 1)
    inputs = [rng.integers(low, high, (50,)).astype(numpy_dtype(dtype)) for _ in range(count)]
    computed = op in ("Add", "Sub", "Mul", "Max", "Min") and dtype in (DType.I32, DType.I64)
    compared = op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual") and dtype is not DType.U32
    check(single(op, [TensorType(dtype, (50,))] * count, {}), inputs, by_routines=computed or compared)


@pytest.mark.parametrize("dtype", [*NUMBERS, DType.C64, DType.F8E4M3FN, DType.I4])
def test_where_of_every_type_and_mixed_shapes(dtype):
    rng = np.random.default_rng(3)
    shapes = [(3, 1), (4,), (2, 3, 4)]
    values = [rng.integers(0, 3, s).astype(numpy_dtype(dtype)) for s in shapes[1:]]
    types = [TensorType(d, s) for d, s in zip((DType.BOOL, dtype, dtype), shapes, strict=True)]
    check(single("Where", types, {}), [random_values(DType.BOOL, (3, 1), rng), *values])


def test_a_cast_to_half_within_a_chain_rounds():
    body = Graph("FusedPointwise")
    x = body.add_input("x", TensorType(DType.F32, (3,)))
    body.add_node("Cast", [x], (h := body.new_value("h", TensorType(DType.F16, (3,))),), attrs={"to": 10})
    body.add_node("Cast", [h], (y := body.new_value("y", TensorType(DType.F32, (3,))),), attrs={"to": 1})
    body.set_outputs([y])
    check(region(body, [TensorType(DType.F32, (3,))], True), [np.array([1 / 3, 1e6, -70000], np.float32)])


def test_a_value_that_leaves_twice():
    body = Graph("FusedPointwise")
    x = body.add_input("x", TensorType(DType.F32, (3,)))
    body.add_node("Exp", [x], (y := body.new_value("y", TensorType(DType.F32, (3,))),))
    body.set_outputs([y, y])
    check(region(body, [TensorType(DType.F32, (3,))], True), [np.ones(3, np.float32)], by_routines=False)


@pytest.mark.parametrize("op", OPERATIONS)
def test_the_result_may_overwrite_any_operand(op):
    rng = np.random.default_rng(5)
    count = OPERANDS.get(op, 2 if op in TWO else 1)
    shapes = [(1,)] * 3 if op == "Clip" else [(50,)] * count
    kinds = [DType.BOOL if op in LOGICAL or (op == "Where" and i == 0) else DType.F32 for i in range(count)]
    if op == "Where":
        kinds = [DType.BOOL] * 3  # so that the condition may be overwritten too
    for attrs in [{"to": 1}] if op == "Cast" else ATTRIBUTES.get(op, [{}]):
        graph = single(op, [TensorType(k, s) for k, s in zip(kinds, shapes, strict=True)], attrs)
        annotate(graph)
        (node,) = graph.nodes
        run = elementwise(node, [v.type for v in node.inputs], node.output.type)
        assert run is not None
        inputs = [random_values(k, s, rng) for k, s in zip(kinds, shapes, strict=True)]
        if op == "Clip":
            inputs = [np.array([v], np.float32) for v in (9, 2, 5)]
        with np.errstate(all="ignore"):
            (expected,) = interpret(graph, inputs)
            for overwritten in (i for i, k in enumerate(kinds) if k is node.output.tensor.dtype):
                operands = [a.copy() for a in inputs]
                run(operands, operands[overwritten], pointwise._BUFFERS)
                assert_equal_but_for_rounding(operands[overwritten], expected)


def gated() -> tuple[Graph, list[TensorType]]:
    """x[400,500] * Sigmoid(y[500]), and the sigmoid: every block needs it, and it leaves too."""
    body = Graph("FusedPointwise")
    kinds = [TensorType(DType.F32, s) for s in ((400, 500), (500,))]
    x, y = (body.add_input(n, t) for n, t in zip("xy", kinds, strict=True))
    gate, product = (body.new_value(n, TensorType(DType.F32, s)) for n, s in (("gate", (500,)), ("product", (400, 500))))
    body.add_node("Sigmoid", [y], (gate,))
    body.add_node("Mul", [x, gate], (product,))
    body.set_outputs([product, gate])
    return body, kinds


def test_what_several_blocks_compute_no_two_threads_write_half_done(monkeypatch):
    written: list[Any] = []

    def watched(node, inputs, output):
        run = elementwise(node, inputs, output)
        assert run is not None

        def call(operands, out, scratch):
            written.append((node.op, out))
            run(operands, out, scratch)

        return call

    monkeypatch.setattr(pointwise, "elementwise", watched)
    body, kinds = gated()
    chain = pointwise.compile_chain(body, kinds)
    assert chain is not None
    results = [np.empty((400, 500), np.float32), np.empty(500, np.float32)]
    pointwise.prepare_chain(chain, Threads(1))([np.ones(shape_of(t), np.float32) for t in kinds], results)()
    assert {op: any(np.shares_memory(out, r) for r in results) for op, out in written} == {"Sigmoid": False, "Mul": True}
    assert np.allclose(results[1], 1 / (1 + np.exp(-1)))


def test_large_chains_run_on_all_threads_without_a_warning():
    body, kinds = gated()
    rng = np.random.default_rng(4)
    inputs = [rng.standard_normal(shape_of(t)).astype(np.float32) for t in kinds]
    inputs[1][::7] = -1000  # exp overflows
    check(region(body, kinds, False), inputs, threads=4)
