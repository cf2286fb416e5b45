"""Functions: of the model, read in place of each call; of ONNX, where nothing else gives an operator's meaning."""

import numpy as np
import onnx
import pytest
from onnx import helper

from miniinfer_cli import ops
from miniinfer_cli.onnx_import import meaning
from miniinfer_cli.ops import registry
from tests.onnx_import.models import BOOL, F32, fault, model, ops_of, read, run, subgraph

ONNX18 = [helper.make_opsetid("", 18)]


def _with_alpha(default: float | None = None) -> onnx.FunctionProto:
    """y = LeakyRelu(x, alpha) + b, where b may be left out."""
    alpha = helper.make_node("LeakyRelu", ["x"], ["l"], name="leak")
    alpha.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    nodes = [alpha, helper.make_node("Clip", ["l", "low"], ["y"], name="clip")]
    function = helper.make_function("my", "Leaky", ["x", "low"], ["y"], nodes, ONNX18, ["slope"] if default is None else [])
    if default is not None:
        function.attribute_proto.add().CopyFrom(helper.make_attribute("slope", default))
    return function


X = np.array([-10, 2], np.float32)


@pytest.mark.parametrize(
    ("default", "given", "expected"),
    [(None, 0.5, [-5, 2]), (0.25, None, [-2.5, 2]), (0.25, 0.5, [-5, 2]), (None, None, [-0.1, 2])],
)
def test_attributes_of_a_call_reach_the_body(default: float | None, given: float | None, expected: list[float]) -> None:
    call = helper.make_node("Leaky", ["x"], ["y"], domain="my", **({} if given is None else {"slope": given}))
    proto = model([call], {"x": (F32, [2])}, {"y": (F32, None)}, opsets={"my": 1}, functions=[_with_alpha(default)])
    (y,) = run(proto, X)
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_calls_are_kept_apart_and_inputs_may_be_left_out() -> None:
    nodes = [
        helper.make_node("Leaky", ["x", "w"], ["a"], domain="my", name="first", slope=0.5),
        helper.make_node("Leaky", ["a"], ["y"], domain="my", name="second", slope=0.1),
    ]
    proto = model(
        nodes, {"x": (F32, [2])}, {"y": (F32, None)}, {"w": np.float32(-3)}, opsets={"my": 1}, functions=[_with_alpha()]
    )
    graph = read(proto)
    assert [n.name for n in graph] == ["first/leak", "first/clip", "second/leak", "second/clip"]
    assert [len(n.inputs) for n in graph] == [1, 2, 1, 1]
    (y,) = run(proto, X)
    np.testing.assert_allclose(y, [-0.3, 2], rtol=1e-6)


def test_a_function_is_read_by_its_own_opset() -> None:
    body = [helper.make_node("Softmax", ["x"], ["y"], axis=1)]  # in opset 11: over all axes from 1 on
    function = helper.make_function("my", "Old", ["x"], ["y"], body, [helper.make_opsetid("", 11)])
    call = helper.make_node("Old", ["x"], ["y"], domain="my")
    proto = model([call], {"x": (F32, [1, 2, 3])}, {"y": (F32, None)}, opsets={"my": 1}, functions=[function])
    (y,) = run(proto, np.zeros((1, 2, 3), np.float32))
    np.testing.assert_allclose(y, np.full((1, 2, 3), 1 / 6), rtol=1e-6)


def test_functions_call_functions_and_are_told_apart_by_overload() -> None:
    inner = [
        helper.make_function("my", "F", ["x"], ["y"], [helper.make_node(op, ["x"], ["y"])], ONNX18, overload=op)
        for op in ("Neg", "Abs")
    ]
    calls = [
        helper.make_node("F", ["x"], ["t"], domain="my", overload="Abs"),
        helper.make_node("F", ["t"], ["y"], domain="my", overload="Neg"),
    ]
    outer = helper.make_function("my", "G", ["x"], ["y"], calls, [*ONNX18, helper.make_opsetid("my", 1)])
    proto = model(
        [helper.make_node("G", ["x"], ["y"], domain="my")],
        {"x": (F32, [2])},
        {"y": (F32, None)},
        opsets={"my": 1},
        functions=[*inner, outer],
    )
    assert ops_of(read(proto)) == ["Abs", "Neg"]


def test_a_sub_graph_of_a_function_captures_from_the_function() -> None:
    then = subgraph([helper.make_node("Add", ["x", "one"], ["r"])], {}, {"r": (F32, None)})
    other = subgraph([helper.make_node("Neg", ["x"], ["r"])], {}, {"r": (F32, None)})
    body = [
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    function = helper.make_function("my", "Choose", ["c", "x"], ["y"], body, ONNX18)
    call = helper.make_node("Choose", ["c", "x"], ["y"], domain="my")
    proto = model([call], {"x": (F32, [2]), "c": (BOOL, [])}, {"y": (F32, None)}, opsets={"my": 1}, functions=[function])
    for taken, expected in ((True, [-9, 3]), (False, [10, -2])):
        (y,) = run(proto, X, np.array(taken))
        assert y.tolist() == expected


def test_a_function_takes_precedence_over_the_operator_of_its_name() -> None:
    function = helper.make_function("", "Relu", ["x"], ["y"], [helper.make_node("Neg", ["x"], ["y"])], ONNX18)
    proto = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (F32, [2])}, {"y": (F32, None)}, functions=[function])
    assert ops_of(read(proto)) == ["Neg"]


def _fault_of_call(call: onnx.NodeProto, *functions: onnx.FunctionProto) -> str:
    return fault(model([call], {"x": (F32, [2])}, {"y": (F32, None)}, opsets={"my": 1}, functions=functions))


def test_faulty_calls() -> None:
    leaky = _with_alpha()
    many = helper.make_node("Leaky", ["x", "x", "x"], ["y"], domain="my")
    assert "node 'y' (my.Leaky, opset 1): the function my::Leaky takes 2 inputs for 1 outputs, got 3 for 1" in _fault_of_call(
        many, leaky
    )
    odd = helper.make_node("Leaky", ["x"], ["y"], domain="my", alpha=1.0)
    assert "the function my::Leaky has no attribute 'alpha'" in _fault_of_call(odd, leaky)
    assert "model: the model defines the function my::Leaky twice" in _fault_of_call(odd, leaky, leaky)


def test_a_function_that_calls_itself_is_refused() -> None:
    imports = [*ONNX18, helper.make_opsetid("my", 1)]
    f = helper.make_function("my", "F", ["x"], ["y"], [helper.make_node("G", ["x"], ["y"], domain="my", name="to g")], imports)
    g = helper.make_function("my", "G", ["x"], ["y"], [helper.make_node("F", ["x"], ["y"], domain="my", name="to f")], imports)
    text = _fault_of_call(helper.make_node("F", ["x"], ["y"], domain="my", name="call"), f, g)
    assert text == "model: node 'call/to g/to f' (my.F, opset 1): the function my::F calls itself: my::F -> my::G -> my::F"


@pytest.mark.parametrize("version", [99, 2**31, 2**40, 2**63 - 1])
def test_a_function_of_a_newer_opset_than_onnx_knows_is_refused(version: int) -> None:
    function = helper.make_function(
        "my", "F", ["x"], ["y"], [helper.make_node("Neg", ["x"], ["y"])], [helper.make_opsetid("", version)]
    )
    text = _fault_of_call(helper.make_node("F", ["x"], ["y"], domain="my", name="call"), function)
    newest = onnx.defs.onnx_opset_version()
    assert (
        text.splitlines()[0]
        == f"model: node 'call' (my.F, opset 1): opset {version} of ai.onnx is newer than {newest}, the newest of onnx"
    )


@pytest.mark.parametrize("version", [2**40, -(2**40)])
def test_an_unknown_domain_of_any_version_is_refused(version: int) -> None:
    odd = helper.make_node("Odd", ["x"], ["y"], domain="odd")
    text = fault(model([odd], {"x": (F32, [2])}, {"y": (F32, None)}, opsets={"odd": version}))
    assert text.startswith(f"model: node 'y' (odd.Odd, opset {version}): ")


def test_faults_inside_a_function_are_told_with_the_call() -> None:
    body = [helper.make_node("NoSuchOp", ["x"], ["t"], name="odd"), helper.make_node("Neg", ["t"], ["u"])]
    function = helper.make_function("my", "F", ["x"], ["y"], body, ONNX18)
    text = _fault_of_call(helper.make_node("F", ["x"], ["y"], domain="my", name="call"), function)
    assert text.splitlines()[:3] == [
        "model: 2 things are wrong with this model:",
        "  node 'call/odd' (NoSuchOp, opset 18): ai.onnx has no operator 'NoSuchOp'",
        "  function my::F: reads 'y', which nothing makes",
    ]


def test_a_reference_outside_functions_is_refused() -> None:
    node = helper.make_node("LeakyRelu", ["x"], ["y"])
    node.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    assert "attribute 'alpha' refers to a function's attribute, and no function is around" in _fault_of_call(node)


@pytest.fixture
def without_meaning(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Takes the meaning of some operators away, here and on the host."""
    gone = {"HardSwish", "Celu", "Softplus"}
    monkeypatch.setattr(registry, "_REGISTRY", {k: v for k, v in registry._REGISTRY.items() if k[1] not in gone})
    monkeypatch.setattr(
        meaning, "handler_of", lambda op, version, known=meaning.handler_of: None if op in gone else known(op, version)
    )
    monkeypatch.setattr(meaning, "host_handler", lambda domain, op, opset: None)
    return monkeypatch


@pytest.mark.parametrize(
    ("op", "attrs", "expected"),
    [
        ("HardSwish", {}, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
        ("Celu", {"alpha": 2.0}, lambda x: np.maximum(x, 0) + np.minimum(0, 2 * np.expm1(x / 2))),  # depends on its type
        ("Celu", {}, lambda x: np.maximum(x, 0) + np.minimum(0, np.expm1(x))),
    ],
)
def test_an_operator_without_meaning_is_read_as_the_function_that_onnx_says_it_is(
    without_meaning: pytest.MonkeyPatch, op: str, attrs: dict[str, float], expected: object
) -> None:
    assert ops.find("", op) is None
    proto = model([helper.make_node(op, ["x"], ["y"], **attrs)], {"x": (F32, [2])}, {"y": (F32, None)})
    assert op not in ops_of(read(proto))
    (y,) = run(proto, X)
    np.testing.assert_allclose(y, expected(X), rtol=1e-5)


def test_an_operator_that_nothing_defines_is_refused(without_meaning: pytest.MonkeyPatch) -> None:
    node = helper.make_node("Gradient", ["x"], ["y"], domain="ai.onnx.preview.training", xs=["x"], y="z")
    text = fault(model([node], {"x": (F32, [2])}, {"y": (F32, None)}, opsets={"ai.onnx.preview.training": 1}))
    assert "(ai.onnx.preview.training.Gradient, opset 1): ai.onnx.preview.training::Gradient, version 1, is not supported" in text
    assert "hint: give its meaning in a module, plugins=[MODULE]" in text
