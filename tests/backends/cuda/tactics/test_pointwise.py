"""Generated pointwise kernels on the emulated device: broadcasting, vectors and their tails, regions, what is split."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.codegen.body import body_of
from miniinfer_cli.backends.cuda.codegen.pointwise import NotOneKernelError, launch_of
from miniinfer_cli.backends.cuda.codegen.splitting import MOST_NODES, MOST_OPERANDS
from miniinfer_cli.backends.cuda.contract.site import lowered_operations
from miniinfer_cli.backends.cuda.contract.steps import Launch, Operand, Rewrite
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.pointwise.pointwise import _OPERATIONS
from miniinfer_cli.ir import DType, Graph, TensorType
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.ops.registry import defined
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.performing import Buffer, launch
from tests.backends.cuda.tactics.lowered import lower_op
from tests.backends.cuda.tactics.pointwise_bodies import body_of_calls, check_calls, numbers, run_body
from tests.backends.nodes import assert_close, reference

PAIRS = [
    ((2, 3, 4, 8), (8,)), ((2, 3, 4, 8), (3, 1, 1)), ((2, 3, 4, 8), (2, 1, 1, 1)), ((2, 3, 4, 8), (4, 1)),
    ((2, 3, 4, 8), (2, 1, 4, 1)), ((2, 3, 4, 8), (1, 3, 1, 8)), ((2, 3, 4, 8), (1, 1, 1, 1)), ((2, 3, 4, 8), (2, 3, 4, 8)),
    ((2, 3, 1, 8), (1, 3, 4, 1)), ((1, 7), (5, 1)), ((5, 7), (7,)), ((5, 7), (5, 1)), ((3, 5, 49), (5, 1)),
    ((2, 3, 5, 7), (3, 1, 7)), ((), (3,)), ((1,), ()), ((1, 1), (1,)), ((0, 3), (3,)), ((2, 1, 3, 1, 5, 1), (4, 1, 2, 1, 2)),
    ((1, 1, 6), (6,)),
]  # fmt: skip


def chain_launch(body, types, operands, results, target):
    return launch_of(body, infer_graph(body, types), operands, results, target)


F32, I32, BOOL, U8 = np.float32, np.int32, np.bool_, np.uint8
ALONE = {  # the operands' types and the attributes of what does not take one float
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum", "PRelu", "SwiGLU"), ((F32, F32), {})),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), ((F32, F32), {})),
    **dict.fromkeys(("And", "Or", "Xor"), ((BOOL, BOOL), {})),
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor", "Mod"), ((I32, I32), {})),
    "BitwiseNot": ((I32,), {}),
    "BitShift": ((U8, U8), {"direction": "LEFT"}),
    "Cast": ((F32,), {"to": 7}),
    "Clip": ((F32, F32, F32), {}),
    "Not": ((BOOL,), {}),
    "Pow": ((F32, I32), {}),
}


@pytest.mark.parametrize("op", _OPERATIONS)
def test_every_operation_alone(op):
    kinds, attrs = ALONE.get(op, ((F32,), {}))
    arrays = [numbers(kind, (3, 40), seed=i) for i, kind in enumerate(kinds)]
    if op == "Clip":
        arrays[1:] = np.array(-1, F32), np.array(2, F32)
    if op in ("Pow", "BitShift"):
        arrays[1] = arrays[1] % 5
    if op in ("IsInf", "IsNaN"):
        arrays[0].reshape(-1)[::3] = np.inf if op == "IsInf" else np.nan
    check_op(op, *arrays, tolerance=1e-5, **attrs)


@pytest.mark.parametrize("number", range(len(PAIRS)))
def test_operands_broadcast(number):
    dtype = (np.float32, np.float16)[number % 2]
    a, b = PAIRS[number]
    check_calls([numbers(dtype, a, seed=1), numbers(dtype, b, seed=2)], [("Sub", (0, 1), {}), ("Sub", (1, 0), {})])


def test_one_node_broadcasts():
    check_op("Sub", numbers(np.float32, (3, 5, 49)), numbers(np.float32, (5, 1)))
    check_op("Sub", numbers(np.float32, (5, 1)), numbers(np.float32, (3, 5, 48)))


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 255, 2049, 70001])
def test_vectors_and_tails(count):
    check_op("Add", numbers(np.float16, (count,), seed=1), numbers(np.float16, (count,), seed=2))


def test_a_grid_that_goes_round():
    target = Target(multiprocessors=1)
    for a, b in (((150001,), (150001,)), ((3000, 48), (48,)), ((3000, 47), (3000, 1))):
        x, y = numbers(np.int16, a, seed=1), numbers(np.int16, b, seed=2)
        body = body_of_calls([x, y], [("Add", (0, 1), {})])
        np.testing.assert_array_equal(run_body(body, [x, y], target)[0], x + y)


@pytest.mark.parametrize(("a", "b"), [((2, 3, 4, 8), (3, 1, 1)), ((5, 7), (5, 1)), ((99,), (99,))])
def test_indices_of_64_bits(a, b, wide_indices):
    check_op("Mul", numbers(np.float32, a, seed=1), numbers(np.float32, b, seed=2))


def test_types_of_all_widths_meet():
    shape = (3, 4, 8)
    inputs = [numbers(d, s) for d, s in ((np.float64, shape), (np.float16, (8,)), (np.uint8, (4, 1)), (np.bool_, shape))]
    calls = [
        ("Cast", (0,), {"to": 10}), ("Neg", (1,), {}), ("Cast", (2,), {"to": 11}), ("Not", (3,), {}), ("Where", (3, 0, 0), {}),
    ]  # fmt: skip
    check_calls(inputs, calls)


def test_a_region_keeps_half_floats_wide_and_rounds_where_they_leave():
    x = np.array([60000.0, -3.0, 1.0 + 2.0**-10], np.float16)
    body = body_of_calls([x], [])
    doubled = body.add("Add", body.inputs[0], body.inputs[0])
    body.set_outputs([body.add("Mul", doubled, body.add_constant(np.array([0.5], np.float16))), doubled])
    halved, twice = run_body(body, [x])
    np.testing.assert_array_equal(halved, x)
    assert np.isinf(twice[0])


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan, -0.0, 1e-45, 0.1, 3.4028235e38])
def test_literals_are_exact(number):
    for dtype in (np.float32, np.float64):
        x = np.ones((2,), dtype)
        body = body_of_calls([x], [("Mul", (0, np.array(number, dtype)), {})])
        want = x * dtype(number)
        assert run_body(body, [x])[0].tobytes() == want.tobytes() or np.isnan(want).all()


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int8, np.int32])
def test_literals_of_integers(dtype):
    info = np.iinfo(dtype)
    x = np.zeros((3,), dtype)
    check_calls([x], [("Add", (0, np.array(n, dtype)), {}) for n in (info.min, info.max, 5)])


@pytest.mark.parametrize("name", ["float8_e4m3fn", "int4", "uint4", "bfloat16"])
def test_literals_of_small_types(name):
    dtype = getattr(ml_dtypes, name)
    x = np.array([1, 2, 3], np.int8).astype(dtype)
    check_calls([x], [("Equal", (0, np.array(2, np.int8).astype(dtype)), {})])


def test_equal_bodies_have_equal_kernels_whatever_the_names():
    texts = set()
    for name, shape in (("a", (64, 128)), ("b", (32, 256))):
        body = Graph(name)
        x, y = (body.add_input(f"{name}{i}", TensorType(DType.F32, s)) for i, s in enumerate((shape, shape[1:])))
        body.set_outputs([body.add("Relu", body.add("Add", x, y, out=f"{name}z"))])
        launch = chain_launch(body, [x.type, y.type], [Operand.input(0), Operand.input(1)], [Operand.output(0)], Target())
        texts.add(launch.kernel)
    assert len(texts) == 1


def test_what_may_be_computed_in_place():
    x, row = np.zeros((4, 8), np.float32), np.zeros((8,), np.float32)
    assert lower_op("Add", x, row).in_place == {0: (0,)}
    assert lower_op("Add", x, x).in_place == {0: (0, 1)}
    assert lower_op("Cast", x, to=6).in_place == {0: (0,)}
    assert lower_op("Cast", x, to=10).in_place == {}
    assert lower_op("Add", row, x).in_place == {0: (1,)}


@pytest.mark.parametrize(("shape", "row"), [((40, 96), (96,)), ((41, 7), (41, 1)), ((2051,), (1,))])
def test_in_place_every_element_is_read_before_it_is_written(shape, row):
    x, y = numbers(np.float16, shape, seed=1), numbers(np.float16, row, seed=2)
    body = body_of_calls([x, y], [("Add", (0, 1), {}), ("Sub", (0, 1), {})])
    memory = [Buffer(a.nbytes) for a in (x, y, x)]
    for buffer, array in zip(memory, (x, y), strict=False):
        buffer.view(array.dtype, array.shape)[...] = array
    operands = [Operand.input(0), Operand.input(1)]
    action = chain_launch(
        body, [v.type for v in body.inputs], operands, [Operand.input(2), operands[0]], Target(multiprocessors=1)
    )
    launch(action, lambda o: memory[o.number].address)
    for number, want in ((2, x + y), (0, x - y)):
        assert_close(memory[number].view(x.dtype, shape), want)


def test_unaligned_memory_is_taken_element_by_element():
    body = body_of_calls([np.zeros(64, np.float16)], [("Neg", (0,), {})])
    types = [v.type for v in body.inputs]
    for offset, vectors in ((0, True), (32, True), (2, False)):
        made = chain_launch(body, types, [Operand.input(0, offset)], [Operand.output(0)], Target())
        assert ("Pack<f16, 8>" in made.kernel.code) == vectors


def test_a_region_of_many_nodes_is_split():
    x = numbers(np.float32, (3, 5))
    body = body_of_calls([x], [])
    value = body.inputs[0]
    kept = []
    for i in range(MOST_NODES + 20):
        value = body.add("Add" if i % 2 else "Sub", value, body.inputs[0])
        kept.append(value)
    body.set_outputs([kept[3], kept[-1], value, body.inputs[0]])
    assert isinstance(lower_op("FusedPointwise", x, domain="miniinfer", n_outputs=4, body=body), Rewrite)
    got = run_body(body, [x])
    for g in got:  # what is taken away is added again
        assert_close(g, x)


def test_constants_of_a_region_that_is_split():
    x, row = numbers(np.float32, (3, 5)), numbers(np.float32, (5,), seed=1)
    body = body_of_calls([x], [])
    value = body.inputs[0]
    shared = body.add_constant(row, "row")
    for i in range(MOST_NODES + 20):
        value = body.add("Add", value, shared if i % 2 else body.add_constant(np.array(0.5, np.float32)))
    body.set_outputs([value, shared])
    sums, same = run_body(body, [x])
    assert_close(sums, x + (row + np.float32(0.5)) * (MOST_NODES // 2 + 10), 1e-5)
    assert_close(same, row)


def test_a_region_of_many_operands_is_split():
    inputs = [numbers(np.float32, (4,), seed=i) for i in range(MOST_OPERANDS + 9)]
    body = body_of_calls(inputs, [])
    value = body.inputs[0]
    for other in body.inputs[1:]:
        value = body.add("Add", value, other)
    body.set_outputs([value])
    assert_close(run_body(body, inputs)[0], np.sum(inputs, axis=0), 1e-5)


def test_outputs_of_several_shapes_are_split():
    x, row, none = numbers(np.float32, (4, 6)), numbers(np.float32, (6,)), np.zeros((0, 6), np.float32)
    for full in (x, none):
        body = body_of_calls([full, row], [])
        whole, part = body.inputs
        small = body.add("Exp", part)
        body.set_outputs([small, body.add("Add", whole, small), part])
        got = run_body(body, [full, row])
        for g, w in zip(got, (np.exp(row), full + np.exp(row), row), strict=True):
            assert_close(g, w)


def test_constants_of_several_elements_are_read_by_the_kernel():
    x, row = numbers(np.float32, (4, 6)), numbers(np.float32, (6,))
    assert_close(run_body(body_of_calls([x], [("Mul", (0, row), {})]), [x])[0], x * row)


def test_what_no_kernel_computes():
    body = Graph("sum")
    x = body.add_input("x", TensorType(DType.F32, (3,)))
    body.set_outputs([body.add("CumSum", x, body.add_constant(np.array(0)))])
    operands = [Operand.input(0)]
    with pytest.raises(NotOneKernelError):
        chain_launch(body, [x.type], operands, operands, Target())
    large = body_of_calls([np.zeros(3, np.float32)], [("Add", (0, np.zeros(3, np.float32)), {})])
    with pytest.raises(NotOneKernelError):
        chain_launch(large, [x.type], operands, operands, Target())
    with pytest.raises(ValueError, match="no literal"):
        body_of(large, infer_graph(large, [x.type]))


def test_an_operand_that_nobody_reads():
    x, unread = numbers(np.float32, (6,)), np.zeros((5, 0), np.float32)
    assert_close(run_body(body_of_calls([unread, x], [("Abs", (1,), {})]), [unread, x])[0], np.abs(x))


def test_a_chain_behind_another_kernel():
    body = body_of_calls([np.zeros((2, 3), np.float32)], [("Relu", (0,), {})])
    made = chain_launch(body, [body.inputs[0].type], [Operand.scratch(0)], [Operand.output(0)], Target())
    assert isinstance(made, Launch) and made.arguments[:2] == (Operand.scratch(0), Operand.output(0))
    empty = [TensorType(DType.F32, (0, 3))]
    assert chain_launch(body, empty, [Operand.scratch(0)], [Operand.output(0)], Target()) is None


def test_every_pointwise_operation_has_a_lowering():
    lowered = set(lowered_operations())
    assert {(d.domain, d.name) for d in defined() if d.pointwise and not d.view} <= lowered
    assert {("", name) for name in _OPERATIONS} <= lowered


def test_rounding_of_a_mean_is_once():
    operands = [numbers(np.float16, (33,), seed=i) for i in range(3)]
    check_op("Mean", *operands, tolerance=0.0)
    assert reference("Mean", *operands)[0].dtype == np.float16
