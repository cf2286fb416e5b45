"""Weights that several nodes share are in a plan once, however the model comes by them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import miniinfer_cli
from miniinfer_cli.ir import DType
from miniinfer_cli.ir.constants import ArrayConstant, Mapped, MappedConstant, Transposed, as_transposed, content_key
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.planning.thaw import DERIVED, thaw
from miniinfer_cli.runtime.plan_files import open_plan
from tests.backends.cuda.checked_runs import assert_same
from tests.emulation.engine import open_emulated

F32, I64 = TensorProto.FLOAT, TensorProto.INT64
SIZE = 200  # 80 KB in f16: more than what is small
W = np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(np.float32) / 12
FEEDS = {"x": np.random.default_rng(1).standard_normal((3, SIZE)).astype(np.float32)}


def model(nodes: Sequence[onnx.NodeProto], out: str, **stored: Any) -> bytes:
    tensors = [numpy_helper.from_array(a, name) for name, a in {"w": W, **stored}.items()]
    inputs = [helper.make_tensor_value_info("x", F32, ["n", SIZE])]
    graph = helper.make_graph(list(nodes), "g", inputs, [helper.make_tensor_value_info(out, F32, None)], tensors)
    opsets = [helper.make_opsetid("", 17)]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return data


def chain(makes: Sequence[onnx.NodeProto], names: Sequence[str]) -> bytes:
    """x through a product with each of ``names``, which ``makes`` make of w."""
    nodes, value = list(makes), "x"
    for i, name in enumerate(names):
        nodes.append(helper.make_node("MatMul", [value, name], [f"p{i}"]))
        nodes.append(helper.make_node("Tanh", [f"p{i}"], [f"h{i}"]))
        value = f"h{i}"
    return model(nodes, value)


def copies(op: str, **attrs: Any) -> bytes:
    return chain([helper.make_node(op, ["w"], [f"w{i}"], **attrs) for i in range(5)], [f"w{i}" for i in range(5)])


def tied() -> bytes:
    """A product with w, and one with what is w the other way round, as logits are of an embedding."""
    turned = helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0])
    return chain([turned, helper.make_node("Identity", ["w"], ["again"])], ["w", "t", "again"])


MODELS = {
    "identities": copies("Identity"),
    "casts to what it is": copies("Cast", to=F32),
    "equal recipes": copies("Transpose", perm=[1, 0]),
    "negated": copies("Neg"),
    "tied": tied(),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("options", [{}, {"opt_level": 1}, {"precision": "f16"}], ids=["", "level 1", "f16"])
def test_a_plan_is_no_larger_than_its_model(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    data = MODELS[name]
    path = tmp_path / "m.plan"
    plan = miniinfer_cli.build(data, path, **options)
    assert plan.weights_nbytes <= 1.1 * len(data)
    assert len([t for t in plan.tensors if t.nbytes > SIZE * SIZE]) == 1
    with miniinfer_cli.load(path, "cpu") as engine, miniinfer_cli.load(miniinfer_cli.build(data, opt_level=0), "cpu") as plain:
        found, wanted = engine.run(FEEDS), plain.run(FEEDS)
        assert_same(found, wanted) if not options.get("precision") else np.testing.assert_allclose(
            *(next(iter(r.values())) for r in (found, wanted)), atol=1e-2
        )


def test_a_transposed_weight_is_a_constant_again_when_the_plan_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "m.plan"
    built = miniinfer_cli.build(MODELS["tied"], path)
    assert len(built.report.options[DERIVED]) == 1
    with open_plan(path) as plan:
        graph = thaw(plan)
        constants = [v.constant for v in graph.constants() if v.constant is not None and v.constant.size == W.size]
        assert sorted(type(c).__name__ for c in constants) == ["StoredConstant", "Transposed"]
        np.testing.assert_array_equal(next(c for c in constants if isinstance(c, Transposed)).array(), W.T)
        again = freeze(graph, options=plan.report.options)  # what tuning writes
        assert again.weights_nbytes == plan.weights_nbytes
        with open_emulated(plan) as engine, miniinfer_cli.load(path, "cpu") as reference:
            assert_same(engine.run(FEEDS), reference.run(FEEDS))


def test_a_node_that_is_no_such_form_runs(tmp_path: Path) -> None:
    """The option names a node of the model's own: it is run as any other."""
    built = miniinfer_cli.build(model([helper.make_node("Transpose", ["x"], ["y"], name="turn", perm=[1, 0])], "y"))
    graph = thaw(freeze(thaw(built), options={DERIVED: ["turn", 3]}))
    assert [n.op for n in graph] == ["Transpose"]


def test_equal_keys() -> None:
    data = W.tobytes()
    one, other = (MappedConstant(DType.F32, W.shape, memoryview(data)) for _ in range(2))
    assert content_key(one) == content_key(other)
    assert content_key(one) != content_key(MappedConstant(DType.F32, W.shape, memoryview(bytearray(data))))
    turned = [Transposed(DType.F32, W.shape, c, (1, 0)) for c in (one, other)]
    assert content_key(turned[0]) == content_key(turned[1]) != content_key(one)
    assert content_key(ArrayConstant(DType.F32, W.shape, W)) != content_key(ArrayConstant(DType.F32, W.shape, W))
    halves = Mapped(DType.F16, W.shape, (turned[0],), np.float16, "to f16")
    form = as_transposed(halves)
    assert form is not None
    np.testing.assert_array_equal(form[0].array().transpose(form[1]), halves.array())
    assert as_transposed(one) is None


def test_small_weights_of_integers_stay_integers() -> None:
    """Their contents are known while the model is built, turned as well; stored as floats they were four times as large."""
    rng = np.random.default_rng(2)
    nodes, stored, value = [], {}, "x"
    for i in range(4):
        size = SIZE if i == 0 else 60
        stored[f"q{i}"] = rng.integers(-127, 127, (60, size)).astype(np.int8)
        stored[f"s{i}"] = np.float32(0.01)
        nodes += [
            helper.make_node("DequantizeLinear", [f"q{i}", f"s{i}"], [f"d{i}"]),
            helper.make_node("Transpose", [f"d{i}"], [f"t{i}"], perm=[1, 0]),
            helper.make_node("MatMul", [value, f"t{i}"], [f"m{i}"]),
        ]
        value = f"m{i}"
    inputs = [helper.make_tensor_value_info("x", F32, ["n", SIZE])]
    tensors = [numpy_helper.from_array(np.asarray(a), name) for name, a in stored.items()]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info(value, F32, None)], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    plan = miniinfer_cli.build(proto)
    assert plan.weights_nbytes <= 1.1 * sum(np.asarray(a).nbytes for a in stored.values())
    wanted = FEEDS["x"].astype(np.float64)
    for i in range(4):
        wanted = wanted @ (stored[f"q{i}"].T * 0.01)
    with miniinfer_cli.load(plan, "cpu") as engine:
        np.testing.assert_allclose(engine.run(FEEDS)[value], wanted, rtol=1e-4, atol=1e-3)
