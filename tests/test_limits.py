"""Small files take little: bytes, nodes and time of a build are limited, by name, and what is limited is documented."""

import itertools
import re
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import miniinfer_cli
from engine_format import BuildReport, GraphRecord, NodeRecord, Plan, TensorSpec, ValueRecord
from engine_format.dtypes import DType
from miniinfer_cli import limits as limits_module
from miniinfer_cli.builder.building import build_plan
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.errors import ModelError, PlanFileError, UsageError
from miniinfer_cli.limits import LIMITS, Bound, Budget, Limits, chosen_limits
from miniinfer_cli.planning.thaw import thaw

ROOT = Path(__file__).parents[1]
make = helper.make_node


def info(name, shape=None, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def ints(name, *items):
    return numpy_helper.from_array(np.array(items, np.int64), name)


def model(nodes, inits=(), inputs=None, outputs=None, functions=(), domains=(), sparse=()):
    inputs, outputs = inputs or [info("x", [2])], outputs or [info("y")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(inits), sparse_initializer=list(sparse))
    opsets = [helper.make_opsetid("", 21), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)


def chain(op, count, first="c", twice=False, **attrs):
    """``count`` nodes of ``op``, each reading the one before it, twice where that is wanted; the last makes ``last``."""
    names = [first, *(f"v{i}" for i in range(count - 1)), "last"]
    return [make(op, [a, a] if twice else [a], [b], **attrs) for a, b in itertools.pairwise(names)]


def built(proto, **options):
    started = time.process_time()
    plan = miniinfer_cli.build(proto, **options)
    assert time.process_time() - started < 20  # the point of limits; a thousand times as long without them
    return plan


# -- bytes --------------------------------------------------------------------------------------------------------------


def test_a_constant_joined_to_itself_again_and_again_stays_operations():
    nodes = [*chain("Concat", 40, twice=True, axis=0), make("Shape", ["last"], ["n"]), make("Add", ["x", "n"], ["y"])]
    plan = built(model(nodes, [ints("c", *range(4))], [info("x", [1], TensorProto.INT64)], [info("y", None, TensorProto.INT64)]))
    assert plan.weights_nbytes <= 1 << 20
    nodes = [*chain("Concat", 20, twice=True, axis=0), make("Add", ["x", "last"], ["y"])]
    plan = built(
        model(nodes, [ints("c", 7)], [info("x", [1], TensorProto.INT64)], [info("y", None, TensorProto.INT64)]),
        limits={"constant_bytes": 4096},
    )
    assert plan.weights_nbytes <= 4096 + 8
    assert {n.op for n in plan.graph.nodes} > {"Concat"}
    with miniinfer_cli.load(plan, device="cpu") as engine:
        assert (engine.run({"x": np.array([1])})["y"] == np.full(1 << 20, 8)).all()


def test_what_many_nodes_make_adds_up():
    shape, axis = ints("s", 128, 256), numpy_helper.from_array(np.array(0), "axis")  # 128 KiB each
    nodes = []
    for i in range(12):
        value = numpy_helper.from_array(np.array([i + 1], np.float32))
        nodes += [make("ConstantOfShape", ["s"], [f"e{i}"], value=value), make("CumSum", [f"e{i}", "axis"], [f"c{i}"])]
        nodes += [make("Add", [f"c{i}", "x"], [f"y{i}"])]
    proto = model(nodes, [shape, axis], [info("x", [1])], [info(f"y{i}") for i in range(12)])
    free, held = built(proto), built(proto, limits={"constant_bytes": 300_000})
    assert free.weights_nbytes >= 12 * 131072 > 300_100 >= held.weights_nbytes >= 2 * 131072
    for plan in (free, held):
        with miniinfer_cli.load(plan, device="cpu") as engine:
            results = engine.run({"x": np.array([0.5], np.float32)})
        for i in range(12):
            np.testing.assert_array_equal(results[f"y{i}"][:, 0], np.arange(1, 129, dtype=np.float32) * (i + 1) + 0.5)


def test_a_sparse_tensor_that_a_plan_would_write_out_is_refused_by_name():
    values, places = numpy_helper.from_array(np.ones(1, np.float32), "w"), numpy_helper.from_array(np.array([0], np.int64), "i")
    sparse = helper.make_sparse_tensor(values, places, [1 << 20, 1 << 20])
    proto = model([make("ReduceSum", ["w"], ["r"], keepdims=0), make("Add", ["x", "r"], ["y"])], sparse=[sparse])
    with pytest.raises(ModelError) as told:
        built(proto)
    words = ("'w' is f32[1048576,1048576]", "node 'r'", "4398046511", "constant_bytes is 67108864", "limits={'constant_bytes': ")
    assert [w for w in words if w not in str(told.value)] == []
    small = helper.make_sparse_tensor(values, places, [64, 1024])
    proto = model([make("Gather", ["w", "x"], ["y"])], inputs=[info("x", [1], TensorProto.INT64)], sparse=[small])
    with pytest.raises(ModelError, match=r"262132 bytes, the limit constant_bytes is 1000 \(the default is 67108864\)"):
        built(proto, limits={"constant_bytes": 1000})
    assert built(proto, limits={"constant_bytes": 262_132}).weights_nbytes == 262_144


def test_strings_count():
    def expanded(text, count):
        word = helper.make_tensor("c", TensorProto.STRING, [1], [text])
        nodes = [make("Expand", ["c", "s"], ["e"]), make("Identity", ["e"], ["y"])]
        return model(nodes, [word, ints("s", count)], outputs=[info("y", None, TensorProto.STRING)])

    assert [n.op for n in built(expanded(b"a", 1 << 40)).graph.nodes] == ["Expand"]
    assert [n.op for n in built(expanded(b"a" * 4_000_000, 1000)).graph.nodes] == ["Expand"]
    assert built(expanded(b"a", 100)).graph.nodes == ()


def test_strings_that_double_are_not_followed():
    nodes = [*chain("StringConcat", 40, twice=True), make("Identity", ["last"], ["y"])]
    plan = built(
        model(nodes, [helper.make_tensor("c", TensorProto.STRING, [1], [b"abcd"])], outputs=[info("y", None, TensorProto.STRING)])
    )
    assert 0 < len(plan.graph.nodes) < 40


@pytest.mark.parametrize(
    ("op", "inputs", "attrs"),
    [
        ("Tile", ["c", "r"], {}),
        ("Expand", ["c", "big"], {}),
        ("Pad", ["c", "pads"], {}),
        ("Range", ["zero", "many", "one"], {}),
        ("OneHot", ["ids", "wide", "c2"], {}),
        ("Resize", ["c", "", "", "big"], {"mode": "nearest"}),
    ],
)
def test_whatever_makes_much_of_little_is_left_to_the_run(op, inputs, attrs):
    inits = [
        numpy_helper.from_array(np.ones((2, 2), np.float32), "c"), numpy_helper.from_array(np.ones(2, np.float32), "c2"),
        ints("r", 60, 60), ints("big", 100, 100), ints("pads", 50, 50, 50, 50), ints("ids", *range(100)),
        *(numpy_helper.from_array(np.array(n), name) for name, n in (("zero", 0), ("many", 6000), ("one", 1), ("wide", 100))),
    ]  # fmt: skip
    if op == "Expand":
        inits[0] = numpy_helper.from_array(np.ones((1, 1), np.float32), "c")
    nodes = [make(op, inputs, ["e"], **attrs), make("Cast", ["e"], ["f"], to=TensorProto.FLOAT), make("Add", ["f", "x"], ["y"])]
    proto = model(nodes, inits, [info("x", [1])])
    small = built(proto, limits={"constant_bytes": 1000, "constant_growth": 0})
    assert op in {n.op for n in small.graph.nodes} | {n.op for r in small.graph.nodes if r.body for n in r.body.nodes}
    assert small.weights_nbytes < 3000
    assert built(proto).graph.nodes and op not in {n.op for n in built(proto).graph.nodes}


def test_memory_that_runs_out_leaves_the_node(monkeypatch):
    from miniinfer_cli.ops import lookup

    def exhausted(*args, **kwargs):
        raise MemoryError

    proto = model([make("CumSum", ["c", "axis"], ["s"]), make("Add", ["x", "s"], ["y"])],
                  [numpy_helper.from_array(np.ones(5000, np.float32), "c"), numpy_helper.from_array(np.array(0), "axis")],
                  [info("x", [5000])])  # fmt: skip
    monkeypatch.setitem(vars(lookup("", "CumSum")), "reference", exhausted)
    assert "CumSum" in {n.op for n in built(proto).graph.nodes}


# -- time ---------------------------------------------------------------------------------------------------------------


def test_a_recipe_that_reads_another_twice_is_computed_once():
    c = numpy_helper.from_array(np.full(20_000, 1.0001, np.float64), "c")
    proto = model([*chain("Mul", 40, twice=True)[:12], make("Add", ["x", "v11"], ["y"])], [c],
                  [info("x", [20_000], TensorProto.DOUBLE)], [info("y", None, TensorProto.DOUBLE)])  # fmt: skip
    with miniinfer_cli.load(built(proto), device="cpu") as engine:
        np.testing.assert_allclose(engine.run({"x": np.zeros(20_000)})["y"], 1.0001 ** (2**12))
    ones = numpy_helper.from_array(np.ones(20_000), "c")  # with no bound 2^40 products for each
    nodes = [*chain("Mul", 40, twice=True), make("Add", ["x", "last"], ["y"])]
    proto = model(nodes, [ones], [info("x", [20_000], TensorProto.DOUBLE)], [info("y", None, TensorProto.DOUBLE)])
    with miniinfer_cli.load(built(proto), device="cpu") as engine:
        assert (engine.run({"x": np.zeros(20_000)})["y"] == 1).all()


def nested_loops(depth):
    body = None
    for d in range(depth):
        inner = make("Concat", [f"v{d}", f"v{d}"], [f"vo{d}"], axis=0)
        if body is not None:
            inner = make("Loop", ["m", "t", f"v{d}"], [f"vo{d}"], body=body)
        ins = [info(f"i{d}", [], TensorProto.INT64), info(f"c{d}", [], TensorProto.BOOL), info(f"v{d}")]
        nodes = [make("Identity", [f"c{d}"], [f"co{d}"]), inner]
        body = helper.make_graph(nodes, f"b{d}", ins, [info(f"co{d}", [], TensorProto.BOOL), info(f"vo{d}")])
    scalars = [numpy_helper.from_array(np.array(1), "m"), numpy_helper.from_array(np.array(True), "t")]
    return model([make("Loop", ["m", "t", "x"], ["y"], body=body)], scalars, [info("x", ["n", 2])])


def test_loops_within_loops():
    with miniinfer_cli.load(built(nested_loops(14)), device="cpu") as engine:
        np.testing.assert_array_equal(engine.run({"x": np.array([[1, 2]], np.float32)})["y"], [[1, 2], [1, 2]])
    with pytest.raises(
        ModelError, match=r"node 'y' .*types of sub-graphs are inferred: \d+ nodes, the limit inferred_nodes is 50"
    ):
        built(nested_loops(14), limits={"inferred_nodes": 50})


def test_a_loop_that_hands_a_change_on_from_value_to_value():
    count = 300
    ins = [info("i", [], TensorProto.INT64), info("going", [], TensorProto.BOOL), *(info(f"v{k}") for k in range(count))]
    nodes = [make("Identity", ["going"], ["on"]), make("Concat", ["v0", "v0"], ["w0"], axis=0)]
    nodes += [make("Identity", [f"v{k - 1}"], [f"w{k}"]) for k in range(1, count)]
    body = helper.make_graph(nodes, "b", ins, [info("on", [], TensorProto.BOOL), *(info(f"w{k}") for k in range(count))])
    scalars = [numpy_helper.from_array(np.array(2), "m"), numpy_helper.from_array(np.array(True), "t")]
    loop = make("Loop", ["m", "t", *["x"] * count], [f"y{k}" for k in range(count)], body=body)
    started = time.process_time()
    plan = built(model([loop], scalars, [info("x", [1])], [info("y0"), info("y1"), info(f"y{count - 1}")]))
    assert time.process_time() - started < 5
    with miniinfer_cli.load(plan, device="cpu") as engine:
        results = engine.run({"x": np.array([3], np.float32)})
    assert [results[k].shape for k in ("y0", "y1", f"y{count - 1}")] == [(4,), (2,), (1,)]


@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_sizes_that_grow_get_a_name(op):
    nodes = [make("Shape", ["x"], ["s"]), make("Add", ["s", "one"], ["c"]), *chain("Mul", 14, twice=True)]
    if op == "Div":  # floors within each other
        nodes = [make("Shape", ["x"], ["s"]), make("Add", ["s", "one"], ["c"])]
        for i in range(40):
            nodes += [make("Div", ["c" if i == 0 else f"f{i - 1}", "three"], [f"d{i}"]), make("Add", [f"d{i}", "one"], [f"f{i}"])]
        nodes.append(make("Min", ["f39", "one"], ["last"]))
    else:
        nodes[-1] = make("Min", ["v12", "one"], ["last"])
    nodes.append(make("Expand", ["f", "last"], ["y"]))
    proto = model(
        nodes, [numpy_helper.from_array(np.ones(1, np.float32), "f"), ints("one", 1), ints("three", 3)], [info("x", ["n"])]
    )
    with miniinfer_cli.load(built(proto), device="cpu") as engine:
        assert engine.run({"x": np.zeros(0, np.float32)})["y"].tolist() == [1]


def doubling_functions(count):
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("d", 1)]

    def calls(number, given, result):
        return make(f"F{number}", [given], [result], domain="d")

    functions = []
    for i in range(count):
        nodes = [make("Relu", ["a"], ["c"])] if i == count - 1 else [calls(i + 1, "a", "b"), calls(i + 1, "b", "c")]
        functions.append(helper.make_function("d", f"F{i}", ["a"], ["c"], nodes, opsets))
    return model([calls(0, "x", "y")], functions=functions, domains=["d"])


def test_functions_that_call_two_are_counted_before_they_are_read():
    with pytest.raises(ModelError) as told:
        built(doubling_functions(40))
    words = (f"{3 * 2**39 - 2} nodes", "node 'y' (d.F0", "the limit function_nodes is 50000", "limits={'function_nodes': ")
    assert [w for w in words if w not in str(told.value)] == []
    with pytest.raises(ModelError, match="94 nodes, the limit function_nodes is 93"):
        built(doubling_functions(6), limits={"function_nodes": 93})
    assert built(doubling_functions(6), limits={"function_nodes": 94}).graph.nodes


def test_functions_deep_within_each_other_are_refused_by_name():
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("d", 1)]
    functions = [
        helper.make_function("d", f"F{i}", ["a"], ["c"], [make(f"F{i + 1}", ["a"], ["c"], domain="d")], opsets)
        for i in range(2999)
    ]
    functions.append(helper.make_function("d", "F2999", ["a"], ["c"], [make("Relu", ["a"], ["c"])], opsets))
    proto = model([make("F0", ["x"], ["y"], domain="d")], functions=functions, domains=["d"])
    with pytest.raises(ModelError, match=r"node 'y' .*3000 calls, the limit function_depth is 64"):
        built(proto)
    with pytest.raises(ModelError, match="nested deeper within each other than can be read"):
        built(proto, limits={"function_depth": 3000})


def test_sub_graphs_as_deep_within_each_other_as_a_file_can_hold():
    graph = helper.make_graph([make("Relu", ["x"], ["o"])], "b", [], [info("o")])
    for _ in range(28):  # protobuf reads 100 messages within each other, three for each sub-graph
        graph = _nested_in_if(graph)
    plan = built(model([*graph.node, make("Relu", ["o"], ["y"])], inputs=[info("x", [2]), info("c", [], TensorProto.BOOL)]))
    with miniinfer_cli.load(plan, device="cpu") as engine:
        assert engine.run({"x": np.array([-1, 2], np.float32), "c": np.array(True)})["y"].tolist() == [0, 2]


def _nested_in_if(graph):
    node = make("If", ["c"], ["o"])
    for name, branch in (
        ("then_branch", graph),
        ("else_branch", helper.make_graph([make("Neg", ["x"], ["n"])], "e", [], [info("n")])),
    ):
        attribute = node.attribute.add()
        attribute.name, attribute.type = name, onnx.AttributeProto.GRAPH
        attribute.g.CopyFrom(branch)
    return helper.make_graph([node], "b", [], [info("o")])


def plan_of_dimension(text):
    x, y = ValueRecord("x", TensorSpec(DType.F32, (text,))), ValueRecord("y", None)
    graph = GraphRecord("g", (x, y), (0,), (1,), ("y",), (NodeRecord("Relu", "", "n", (0,), (1,)),))
    return Plan(graph=graph, tensors=(), op_sets={"ai.onnx": 21}, ranges=(), report=BuildReport("x"), targets=())


@pytest.mark.parametrize(
    "text",
    [
        "*".join(f"floor((a{i}+b{i})/(1))" for i in range(24)),
        "floor((" * 60 + "n" + ")/(2))" * 60,
        "*".join(["(a+b)"] * 3),
        "+".join(f"a{i}" for i in range(5000)),
    ],
    ids=["product", "depth", "brackets", "sum"],
)
def test_the_text_of_a_dimension_in_a_plan(text):
    started = time.process_time()
    with pytest.raises(PlanFileError, match="cannot be read"):
        thaw(plan_of_dimension(text))
    assert time.process_time() - started < 5


def test_a_long_expression_for_a_dimension_of_a_model_is_a_name():
    text = "+".join(["n"] * 20_000)
    plan = built(model([make("Relu", ["x"], ["y"])], inputs=[info("x", [text, "n"])]))
    with miniinfer_cli.load(plan, device="cpu") as engine:
        assert engine.run({"x": np.zeros((3, 2), np.float32)})["y"].shape == (3, 2)


def beside_x(op, operands, **attrs):
    """A model of one output: x and the sum of what ``op`` makes of constants."""
    inits = [numpy_helper.from_array(a, f"c{i}") for i, a in enumerate(operands) if a is not None]
    inputs = ["" if a is None else f"c{i}" for i, a in enumerate(operands)]
    nodes = [make(op, inputs, ["r"], **attrs), make("Cast", ["r"], ["f"], to=TensorProto.FLOAT)]
    nodes += [make("ReduceSum", ["f"], ["s"], keepdims=0), make("Add", ["x", "s"], ["y"])]
    return model(nodes, inits, [info("x", [1])], domains=["ai.onnx.ml"])


def ones(*shape):
    return np.ones(shape, np.float32)


FAR = 1 << 40
WINDOW = {"kernel_shape": [FAR], "pads": [FAR - 1, FAR - 1], "strides": [2 * FAR]}
GRAMS = {"max_gram_length": 2, "min_gram_length": 2, "max_skip_count": 1 << 62, "mode": "TF",
         "ngram_counts": [0, 0], "ngram_indexes": [0], "pool_int64s": [1, 2]}  # fmt: skip
LOOP = {"nodes_falsenodeids": [0], "nodes_featureids": [0], "nodes_modes": ["BRANCH_LEQ"], "nodes_nodeids": [0],
        "nodes_treeids": [0], "nodes_truenodeids": [0], "nodes_values": [0.0], "target_ids": [0], "target_nodeids": [0],
        "target_treeids": [0], "target_weights": [1.0], "n_targets": 1, "domain": "ai.onnx.ml"}  # fmt: skip


@pytest.mark.parametrize(
    ("op", "operands", "attrs"),
    [
        ("Einsum", [ones(4096)] * 3, {"equation": "a,b,c->"}),
        ("MatMul", [np.ones((1024, 2048), np.int32), np.ones((2048, 1024), np.int32)], {}),
        ("Conv", [ones(1, 1, 1), ones(1, 1, 1)], {"pads": [FAR, FAR], "strides": [2 * FAR]}),
        ("ConvTranspose", [ones(1, 1, 64, 64), ones(1, 1, 512, 512)], {"pads": [250] * 4}),
        ("MaxPool", [ones(1, 1, 1)], WINDOW),
        ("AveragePool", [ones(1, 1, 1)], WINDOW),
        ("LpPool", [ones(1, 1, 1)], WINDOW),
        ("LRN", [ones(1, 1, 1)], {"size": FAR + 1}),
        ("Col2Im", [ones(1, 1, 1), np.array([1, 1]), np.array([1, 1])], {"pads": [1 << 20] * 4, "strides": [1 << 22] * 2}),
        ("Resize", [ones(1, 2), None, np.array([1, 1e-30], np.float32)], {"mode": "linear", "antialias": 1}),
        ("RoiAlign", [ones(1, 1, 4, 4), ones(1, 4), np.array([0])], {"sampling_ratio": 1 << 30}),
        ("RoiAlign", [ones(1, 1, 4, 4), ones(1, 4) * 1e12, np.array([0])], {}),
        ("GridSample", [ones(*[1] * 22), ones(*[1] * 21, 20)], {"mode": "cubic"}),
        ("DeformConv", [ones(*[1] * 20), ones(*[1] * 20), ones(1, 18, *[1] * 18)], {}),
        ("RNN", [ones(1 << 20, 1, 1), ones(1, 1, 1), ones(1, 1, 1)], {"hidden_size": 1}),
        ("TfIdfVectorizer", [np.array([1])], GRAMS),
        ("TreeEnsembleRegressor", [ones(1, 1)], LOOP),
    ],
)  # fmt: skip
def test_what_takes_too_long_to_fold_stays_and_is_noted(op, operands, attrs):
    started = time.process_time()
    result = build_plan(beside_x(op, operands, **attrs), None, BuildOptions())
    assert time.process_time() - started < 5
    (note,) = result.notes
    assert re.fullmatch(
        r"a node reads constants only, and is computed in every run: node 'r' \(\w+\) takes (\S+|any number of) steps,"
        r" all of folding has 8589934592 \(--limit fold_steps=N sets another number\)",
        note,
    )
    assert [n.op for n in result.plan.graph.nodes][-2:] != ["Add"]


def test_steps_of_folding_add_up():
    constants = [numpy_helper.from_array(np.arange(6400, dtype=np.float32).reshape(80, 80) + i, f"c{i}") for i in range(3)]
    nodes = [make("MatMul", [f"c{i}", "c2"], [f"m{i}"]) for i in range(3)]
    proto = model([*nodes, make("Sum", ["m0", "m1", "m2", "x"], ["y"])], constants, [info("x", [1])])
    each = 80**3 + 3 * 16 * 80**2  # of a product, with what it reads and writes

    def left(steps):
        result = build_plan(proto, None, BuildOptions(limits={"fold_steps": steps}, opt_level=1))
        return [n.op for n in result.plan.graph.nodes].count("MatMul"), result.notes

    assert [left(steps)[0] for steps in (each - 1, each, 2 * each, 10 * each)] == [3, 2, 1, 0]
    assert left(10 * each)[1] == ()
    assert re.match(r"3 nodes read constants only, and are .*: the largest, node 'm\d' \(MatMul\) takes 8.2e\+05", left(0)[1][0])


def test_contents_are_not_followed_where_that_takes_long(monkeypatch):
    from miniinfer_cli.ops import lookup

    calls = []
    einsum = lookup("", "Einsum").reference
    monkeypatch.setitem(
        vars(lookup("", "Einsum")), "reference", lambda *xs, equation, **_: calls.append(xs) or einsum(*xs, equation=equation)
    )
    for size, times in ((10, True), (1000, False)):
        proto = beside_x("Einsum", [ones(size), ones(size)], equation="a,b->")
        build_plan(proto, None, BuildOptions(opt_level=0))
        assert bool(calls) is times
        calls.clear()


# -- quadratic time -----------------------------------------------------------------------------------------------------

MANY = 1500


@pytest.mark.parametrize("kind", ["unknown", "outputs", "cycle", "behind"])
def test_thousands_of_faults_take_no_minutes(kind):
    nodes, outputs = [], None
    if kind == "unknown":
        nodes = [make("Add", ["x", f"u{i}_name"], [f"v{i}_name"]) for i in range(MANY)]
        nodes.append(make("Sum", [f"v{i}_name" for i in range(MANY)], ["y"]))
    elif kind == "outputs":
        nodes, outputs = [make("Relu", ["x"], [f"v{i}_name"]) for i in range(MANY)], [info(f"o{i}_name") for i in range(MANY)]
    elif kind == "cycle":
        nodes = [make("Relu", [f"a{(i + 1) % MANY}"], [f"a{i}"]) for i in range(MANY)] + [make("Relu", ["a0"], ["y"])]
    else:
        nodes = [make("Relu", ["b"], ["a"]), make("Relu", ["a"], ["b"])]
        nodes += [make("Relu", [f"c{i + 1}" if i < MANY - 1 else "a"], [f"c{i}"]) for i in range(MANY)] + [
            make("Relu", ["c0"], ["y"])
        ]
    started = time.process_time()
    with pytest.raises(ModelError, match=f"{MANY} things are wrong" if kind in ("unknown", "outputs") else "cycle"):
        miniinfer_cli.build(model(nodes, outputs=outputs))
    assert time.process_time() - started < 5


def test_thousands_of_equal_nodes_take_no_minutes():
    nodes = [make("Relu", ["x"], [f"v{i}"]) for i in range(MANY)]
    plan = built(model([*nodes, make("Concat", [f"v{i}" for i in range(MANY)], ["y"], axis=0)]))
    assert [n.op for n in plan.graph.nodes] == ["Relu", "Concat"]


# -- the limits themselves ----------------------------------------------------------------------------------------------


def test_the_document_has_every_limit_and_every_bound():
    text = (ROOT / "docs" / "security.md").read_text()
    rows = [
        tuple(c.strip() for c in line.strip("|\n").split(" | "))
        for line in text.splitlines()
        if re.match(r"\| `[a-z_]+` \| \d", line)
    ]
    limits = [(f"`{limit.name}`", str(limit.default), limit.unit, limit.reason) for limit in LIMITS]
    bounds = [(f"`{b.name}`", str(b.value), b.unit, b.beyond) for b in vars(limits_module).values() if isinstance(b, Bound)]
    assert [tuple(c.strip() for c in row) for row in rows] == limits + bounds


@pytest.mark.parametrize(
    ("chosen", "said"),
    [({"image_pixel": 1}, "no limit 'image_pixel'"), ({"image_pixels": -1}, "whole number"),
     ({"image_pixels": True}, "whole number"), ({"image_pixels": 2.0}, "whole number"), ([1], "expected numbers by name")],
)  # fmt: skip
def test_wrong_limits_are_refused(chosen, said):
    proto = model([make("Relu", ["x"], ["y"])])
    with pytest.raises(UsageError, match=said):
        miniinfer_cli.build(proto, limits=chosen)
    with pytest.raises(UsageError, match=said):
        miniinfer_cli.load(miniinfer_cli.build(proto), device="cpu", limits=chosen)


def test_limits_and_budget():
    assert [chosen_limits({"image_pixels": 7}).of(limit) for limit in LIMITS[-2:]] == [LIMITS[-2].default, 7]
    budget = Budget(Limits({"constant_bytes": 100, "constant_growth": 3}))
    budget.recount(nbytes=30, held=20)
    assert (budget.grown, budget.allowed, budget.has_room(90), budget.has_room(91)) == (10, 100, True, False)
    budget.recount(nbytes=220, held=220)  # the model's own bytes stay what they were
    assert (budget.grown, budget.has_room(1), budget.has_room(0)) == (200, False, True)
    large = Budget(Limits({"constant_bytes": 100}))
    large.recount(nbytes=1000, held=1000)
    assert large.allowed == 4000
