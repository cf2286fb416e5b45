"""A graph that went through a plan, in memory or in a file, is the graph that it was."""

import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from engine_format import ArrayRecord, DimensionRange, Plan, StoredTensor, TensorSpec, read_plan, write_plan
from engine_format.layout import CHUNK_NBYTES, OP_SETS
from miniinfer_cli import __version__
from miniinfer_cli.errors import ModelError, PlanFileError
from miniinfer_cli.ir import (
    Constant,
    DType,
    Graph,
    MapType,
    OptionalType,
    SequenceType,
    TensorType,
    constant,
    numpy_dtype,
    symbol,
)
from miniinfer_cli.ir.constants import Filled, Transposed
from miniinfer_cli.ir.dims import floor_divide
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.planning.thaw import StoredConstant, thaw

BATCH, SEQ = symbol("batch"), symbol("seq")
HIDDEN = TensorType(DType.F32, (BATCH, SEQ, 8))


def assert_same(a: Graph, b: Graph) -> None:
    """Structure, names, types, attributes and contents, inside bodies and sub-graphs too."""
    verify(b)
    assert (a.name, a.output_names, len(a)) == (b.name, b.output_names, len(b))
    left, right = list(a.values()), list(b.values())
    assert [(v.name, v.type) for v in left] == [(v.name, v.type) for v in right]
    number = {v: i for values in (left, right) for i, v in enumerate(values)}
    assert [number[v] for v in (*a.inputs, *a.outputs)] == [number[v] for v in (*b.inputs, *b.outputs)]
    for x, y in zip(left, right, strict=True):
        assert (x.constant is None) == (y.constant is None)
        if x.constant is not None and y.constant is not None:
            assert_same_array(x.constant.array(), y.constant.array())
            assert (x.tensor.known is None) == (y.tensor.known is None)
    for m, n in zip(a, b, strict=True):
        assert (m.op, m.domain, m.name) == (n.op, n.domain, n.name)
        assert [v and number[v] for v in m.inputs] == [v and number[v] for v in n.inputs]
        assert [number[v] for v in m.outputs] == [number[v] for v in n.outputs]
        assert list(m.attrs) == list(n.attrs)
        for p, q in zip(m.attrs.values(), n.attrs.values(), strict=True):
            if isinstance(p, np.ndarray):
                assert_same_array(p, q)
            else:
                assert (type(p), p) == (type(q), q)
        assert list(m.graphs) == list(n.graphs)
        for p, q in zip(m.graphs.values(), n.graphs.values(), strict=True):
            assert_same(p, q)
        assert (m.body is None) == (n.body is None)
        if m.body is not None and n.body is not None:
            assert_same(m.body, n.body)


def assert_same_array(a: np.ndarray, b: np.ndarray) -> None:
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()


def through_file(plan: Plan, folder: Path) -> Plan:
    write_plan(plan, folder / "a.plan")
    return read_plan(folder / "a.plan")


def pointwise_body() -> Graph:
    body = Graph("FusedPointwise")
    x = body.add_input("x", HIDDEN)
    body.set_outputs([body.add("Mul", x, body.add_constant(np.full(8, 0.5, np.float32), "half"), out="y", type=HIDDEN)])
    return body


def branch(name: str, fill: float) -> Graph:
    """A sub-graph that has its own constants, a region, and a sub-graph of its own."""
    graph = Graph(name)
    x = graph.add_input("x", HIDDEN)
    y = graph.new_value("y", HIDDEN)
    graph.add_node("FusedPointwise", [x], [y], domain="miniinfer", body=pointwise_body())
    inner = Graph("inner")
    inner.set_outputs([inner.add_constant(np.float32(fill), "f")], ["only"])
    z = graph.new_value("z", TensorType(DType.F32, ()))
    graph.add_node(
        "If", [graph.add_constant(np.bool_(True), "yes")], [z], graphs={"then_branch": inner, "else_branch": inner.copy()}
    )
    graph.set_outputs([graph.add("Add", y, z, out="sum", type=HIDDEN)])
    return graph


def rich_graph() -> Graph:
    graph = Graph("model/main graph")
    x = graph.add_input("x", HIDDEN)
    flag = graph.add_input("flag", TensorType(DType.BOOL, ()))
    words = graph.add_input("words", SequenceType(OptionalType(TensorType(DType.STR, None))))
    table = graph.add_input("table", MapType(DType.I64, TensorType(DType.F32, (symbol("?x"), 2 * SEQ + 1))))
    graph.add_input("unused", None)
    w = graph.add_constant(np.arange(64, dtype=np.float32).reshape(8, 8), "w")
    y = graph.add("MatMul", x, w, out="y", type=HIDDEN)
    y = graph.add("Clip", y, None, graph.add_constant(np.float32(6), "six"), out="clipped", type=HIDDEN)
    r = graph.new_value("region", HIDDEN)
    graph.add_node("FusedPointwise", [y], [r], domain="miniinfer", name="tail", attrs={"tag": "a"}, body=pointwise_body())
    s = graph.new_value("chosen", HIDDEN)
    graph.add_node("If", [flag, r], [s], graphs={"then_branch": branch("t", 1), "else_branch": branch("e", float("nan"))})
    half = floor_divide(SEQ * BATCH + 1, 2)
    t = graph.add(
        "Custom", s, words, table, graph.add_constant(np.array([["a", ""], ["ü", "long " * 40]], object), "text"), w,
        domain="acme", out="t", type=TensorType(DType.F16, (half, BATCH * SEQ - 1, 0)),
        axis=-1, alpha=0.1, infinite=float("-inf"), mode="nearest", on=True, nothing=None, raw=b"\xff", axes=[1, 2], scales=[0.5],
        names=["a", "ß"], empty=[], value=np.array([1, 2], numpy_dtype(DType.BF16)), strings=np.array(["x"], object),
        scalar=np.array(3, np.int64), bits=np.array([1, -2, 7], numpy_dtype(DType.I4)), of=SequenceType(HIDDEN),
        type_of_nothing=OptionalType(None),
    )  # fmt: skip
    graph.set_outputs([t, t, w, x], ["t", "t again", "weights", "x"])
    verify(graph)
    return graph


def test_a_rich_graph_comes_back(tmp_path: Path):
    graph = rich_graph()
    plan = freeze(graph)
    assert_same(graph, thaw(plan))
    with through_file(plan, tmp_path) as stored:
        stored.check()
        assert_same(graph, thaw(stored))
        again = freeze(thaw(stored))
        assert again.graph == stored.graph
        write_plan(again, tmp_path / "b.plan")
    assert (tmp_path / "a.plan").read_bytes() == (tmp_path / "b.plan").read_bytes()


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 7), (2, 3, 130)])
def test_constants_of_every_type_come_back(shape: tuple[int, ...], tmp_path: Path):
    numbers = np.random.default_rng(0).integers(0, 2, shape).astype(np.float32)
    arrays = {d: numbers.astype(numpy_dtype(d)) for d in DType if d is not DType.STR}
    graph = Graph()
    graph.set_outputs([graph.add_constant(a, d.value) for d, a in arrays.items()])
    with through_file(freeze(graph), tmp_path) as plan:
        back = thaw(plan)
        assert_same(graph, back)
        for value, (dtype, array), number in zip(back.outputs, arrays.items(), plan.graph.outputs, strict=True):
            assert value.type == TensorType(dtype, shape)
            handle, tensor = value.constant, plan.graph.values[number].tensor
            assert isinstance(handle, StoredConstant)
            assert tensor is not None
            assert b"".join(handle.chunks(16)) == bytes(plan.tensor_bytes(tensor))
            if len(shape) == 3:
                part = (slice(1, 2), slice(1, 3), slice(7, 99))
                assert_same_array(handle.block(part), array[part])


def test_recipes_are_written_block_by_block_and_shared_handles_once(tmp_path: Path):
    weights, other = (constant(np.arange(n, n + (1 << 20), dtype=np.float32).reshape(1024, 1024)) for n in (0, 7))
    turned = Transposed(DType.F32, (1024, 1024), other, (1, 0))
    graph = Graph()
    values = [graph.add_constant(h) for h in (turned, weights, turned, Filled(DType.F32, (1024, 1024), 2.0), weights)]
    graph.set_outputs(values)
    plan = freeze(graph)
    assert plan.tensors[:2] == (turned, weights)
    assert len(plan.tensors) == 3
    with through_file(plan, tmp_path) as stored:
        assert_same(graph, thaw(stored))


def test_small_constants_come_first_in_order_of_use():
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (200, 200)))
    large, small, other, last = (
        constant(np.full(s, v, np.float32)) for s, v in (((200, 200), 1), ((), 2), ((200, 1), 3), ((200, 200), 4))
    )
    for handle in (large, small, last, other, large):
        x = graph.add("Add", x, graph.add_constant(handle), type=TensorType(DType.F32, (200, 200)))
    graph.set_outputs([x])
    assert freeze(graph).tensors == (small, other, large, last)


def test_thawing_looks_at_small_constants_only(tmp_path: Path):
    graph = Graph()
    size = 2 * CHUNK_NBYTES
    x = graph.add(
        "Gather",
        graph.add_constant(Filled(DType.U8, (size,), 7)),
        graph.add_constant(np.array([3, 4])),
        type=TensorType(DType.U8, (2,)),
    )
    graph.set_outputs([x])
    write_plan(freeze(graph), tmp_path / "a.plan")
    data = bytearray((tmp_path / "a.plan").read_bytes())
    data[-1] ^= 1  # in the last chunk: the large constant's
    (tmp_path / "a.plan").write_bytes(data)
    with read_plan(tmp_path / "a.plan") as plan:
        back = thaw(plan)
        (node,) = back.nodes
        large, indices = (v.constant for v in node.inputs if v is not None)
        assert isinstance(large, Constant)
        assert indices is not None
        assert indices.array().tolist() == [3, 4]
        with pytest.raises(PlanFileError, match=r"the weights do not match digest 2: the file is damaged") as caught:
            large.array()
        assert caught.value.where == (str(tmp_path / "a.plan"),)
        assert "hint: build the plan again" in str(caught.value)
        data[4096] ^= 1
    (tmp_path / "b.plan").write_bytes(data)
    with read_plan(tmp_path / "b.plan") as plan, pytest.raises(PlanFileError, match="digest 0"):
        thaw(plan)


def test_what_the_plan_says_of_itself(tmp_path: Path):
    @dataclass
    class Info:
        name: str
        opsets: dict[str, int]

    ranges = (DimensionRange("batch", 1, 4, 16),)
    plan = freeze(
        rich_graph(), ranges=ranges, options={"level": np.int64(2), "shapes": {"x": [1, 2]}, "names": ("a",)},
        metadata=Info("net", {"": 17}), passes={"fold_constants": 3},
    )  # fmt: skip
    assert plan.op_sets == {"ai.onnx": OP_SETS["ai.onnx"], "miniinfer": OP_SETS["miniinfer"], "acme": 1}
    with through_file(plan, tmp_path) as stored:
        assert stored.ranges == ranges
        assert stored.report == plan.report
        assert stored.report.producer == f"miniinfer {__version__}"
        assert stored.report.options == {"level": 2, "shapes": {"x": (1, 2)}, "names": ("a",)}
        assert stored.report.metadata == {"name": "net", "opsets": {"": 17}}
        assert stored.report.passes == {"fold_constants": 3}
        assert [b.name for b in stored.outputs] == ["t", "t again", "weights", "x"]


def test_values_that_share_a_name_are_told_apart():
    graph = Graph()
    x = graph.add_input("x", HIDDEN)
    y = graph.add("Neg", x, type=HIDDEN)
    y._name = "x"
    graph.set_outputs([y], ["y"])
    assert [v.name for v in freeze(graph).graph.values] == ["x", "x_1"]


@pytest.mark.parametrize("dim", [symbol("odd name"), symbol("n" * 2000), symbol("a+b")])
def test_a_dimension_that_cannot_be_read_back_becomes_one_that_is_not_known(dim, tmp_path: Path):
    graph = Graph()
    graph.set_outputs([graph.add_input("x", TensorType(DType.F32, (dim, BATCH, dim)))])
    with through_file(freeze(graph), tmp_path) as plan:
        assert plan.graph.values[0].type == TensorSpec(DType.F32, ("?0", "batch", "?0"))
        thaw(plan)


def test_what_a_plan_cannot_hold_names_node_and_attribute():
    for value in (object(), [[1]], {"a": 1}, 1j):
        graph = Graph()
        x = graph.add("Custom", domain="acme", out="here", bad=value)
        graph.set_outputs([x])
        with pytest.raises(ModelError, match=r"^node 'here': attribute 'bad' is \w+, which a plan cannot hold\n"):
            freeze(graph)


@pytest.mark.parametrize("text", ["2*", "floor((a)/(0))", "floor((" * 90 + "a" + ")/(3))" * 60, "a b", "(a)"])
def test_a_dimension_that_is_no_expression_is_refused(text: str, tmp_path: Path):
    graph = Graph()
    graph.set_outputs([graph.add_input("x", TensorType(DType.F32, (BATCH,)))])
    plan = freeze(graph)
    value = replace(plan.graph.values[0], type=TensorSpec(DType.F32, (text,)))
    broken = replace(plan, graph=replace(plan.graph, values=(value,)))
    with through_file(broken, tmp_path) as stored, pytest.raises(PlanFileError, match=r"dimension '.*' cannot be read") as caught:
        thaw(stored)
    assert caught.value.where == (str(tmp_path / "a.plan"),)


def test_any_tensor_can_be_thawed():
    """Plans in memory need not hold our handles: anything that meets engine_format's protocol does."""
    graph = Graph()
    graph.set_outputs([graph.add_constant(np.array([1, 2], np.int16))])
    plan = freeze(graph)
    assert_same(graph, thaw(replace(plan, tensors=(ArrayRecord(DType.I16, (2,), b"\1\0\2\0"),))))


def transformer(layers: int) -> Graph:
    """A graph of the size and kind of BERT: about 21 nodes and 16 constants a layer."""
    graph = Graph("bert")
    wide, heads = TensorType(DType.F32, (BATCH, SEQ, 768)), TensorType(DType.F32, (BATCH, 12, SEQ, 64))
    x = graph.add_input("embeddings", wide)
    shape = graph.add_constant(np.array([0, 0, 12, 64]), "shape")
    bias = [graph.add_constant(np.full(768, i, np.float32), f"b{i}") for i in range(16 * layers)]
    weight = [graph.add_constant(Filled(DType.F32, (768, 768), i), f"w{i}") for i in range(6 * layers)]
    for i in range(layers):
        name = f"/bert/encoder/layer.{i}"
        parts = []
        for j, part in enumerate("qkv"):
            y = graph.add("MatMul", x, weight[6 * i + j], out=f"{name}/{part}/MatMul_output_0", type=wide)
            y = graph.add("Add", y, bias[16 * i + j], out=f"{name}/{part}/Add_output_0", type=wide)
            y = graph.add(
                "Reshape", y, shape, out=f"{name}/{part}/Reshape_output_0", type=TensorType(DType.F32, (BATCH, SEQ, 12, 64))
            )
            parts.append(graph.add("Transpose", y, out=f"{name}/{part}/Transpose_output_0", type=heads, perm=[0, 2, 1, 3]))
        y = graph.add("Attention", *parts, out=f"{name}/Attention_output_0", type=heads, scale=0.125)
        y = graph.add("Transpose", y, out=f"{name}/Transpose_output_0", type=wide, perm=[0, 2, 1, 3])
        for j in range(3):
            y = graph.add("MatMul", y, weight[6 * i + 3 + j], out=f"{name}/{j}/MatMul_output_0", type=wide)
            y = graph.add("Add", y, bias[16 * i + 3 + j], out=f"{name}/{j}/Add_output_0", type=wide)
        x = graph.add("LayerNormalization", y, bias[16 * i + 8], bias[16 * i + 9], out=f"{name}/norm", type=wide, epsilon=1e-12)
    graph.set_outputs([x], ["y"])
    return graph


def test_a_graph_of_1000_nodes_is_thawed_in_about_the_time_of_making_one(tmp_path: Path):
    """A measure that a busy machine changes little: 20 ms for each where nothing else runs."""
    making = []
    for _ in range(3):
        started = time.process_time()
        graph = transformer(48)
        making.append(time.process_time() - started)
    assert 1000 < len(graph) < 1100
    plan = freeze(graph)
    small = tuple(t if t.nbytes < 1 << 16 else constant(np.zeros(1, np.float32)) for t in plan.tensors)
    values = tuple(
        v if v.tensor is None else replace(v, type=TensorSpec(DType.F32, small[v.tensor].shape)) for v in plan.graph.values
    )
    with through_file(replace(plan, tensors=small, graph=replace(plan.graph, values=values)), tmp_path) as stored:
        times = []
        for _ in range(7):
            started = time.process_time()
            back = thaw(stored)
            times.append(time.process_time() - started)
        assert len(back) == len(graph)
        assert sum(isinstance(t, StoredTensor) for t in stored.tensors) > 300
    assert min(times) < 2.5 * min(making)


@pytest.mark.parametrize(("first", "second"), [(1, True), (1, 1.0), ([0, 1], [0, True]), ([0, 1], [0, 1.0])], ids=repr)
def test_a_node_is_like_one_that_was_checked_only_with_attributes_of_the_same_types(first, second):
    graph = Graph("g")
    x = graph.add_input("x", TensorType(DType.F32, (2, 2)))
    op, name = ("Transpose", "perm") if isinstance(first, list) else ("Softmax", "axis")
    values = [graph.add(op, x, out=out, **{name: value}) for out, value in (("a", first), ("b", first), ("c", second))]
    graph.set_outputs(values, ["a", "b", "c"])
    with pytest.raises(PlanFileError, match=rf"node 'c': {op} attribute {name} is .* expected"):
        thaw(freeze(graph))


def test_a_node_is_like_one_that_was_checked_only_with_as_many_inputs():
    graph = Graph("g")
    x = graph.add_input("x", TensorType(DType.F32, (2, 2)))
    graph.set_outputs([graph.add("Relu", x, out="a"), graph.add("Relu", x, x, out="b")], ["a", "b"])
    with pytest.raises(PlanFileError, match=r"node 'b': Relu with 2 inputs"):
        thaw(freeze(graph))


def test_reading_and_thawing_load_nothing_heavy(tmp_path: Path):
    graph = transformer(1)
    write_plan(freeze(graph), tmp_path / "a.plan")
    code = (
        "import sys; from engine_format import read_plan; print('numpy' in sys.modules)\n"
        "from miniinfer_cli.planning.thaw import thaw\n"
        f"thaw(read_plan({str(tmp_path / 'a.plan')!r}))\n"
        "print([m for m in ('onnx', 'ml_dtypes', 'cuda', 'cudnn', 'nvmath', 'rich', 'click', 'onnxruntime', 'google.protobuf',"
        " 'miniinfer_cli.passes', 'miniinfer_cli.onnx_import', 'miniinfer_cli.backends') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", "[]"]
