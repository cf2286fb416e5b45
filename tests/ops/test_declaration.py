"""Nodes that hold what their operation's declaration does not allow are refused where they enter; all that are sound pass."""

from collections.abc import Sequence

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Graph, MapType, OptionalType, SequenceType, TensorType
from miniinfer_cli.ops import define, defined, infer_node, lookup, registry
from miniinfer_cli.ops.declaration import declaration_of
from miniinfer_cli.ops.entry import check_entering

X = TensorType(DType.F32, (1, 2, 8, 8))
ARRAY = np.array(1, np.int64)


def node_of(op, *types, attrs=None, domain="", graphs=None, outputs=1):
    graph = Graph("g")
    inputs = [None if t is None else graph.add_input(f"x{i}", t) for i, t in enumerate(types)]
    made = [graph.new_value(f"y{i}") for i in range(outputs)]
    return graph.add_node(op, inputs, made, domain=domain, name="n", attrs=attrs or {}, graphs=graphs or {})


REFUSED = {
    "an array in a list": ("Conv", [X, X], {"dilations": [ARRAY, 1]}, "dilations is .*a list, each item a 64-bit integer"),
    "an array for a number": ("Softmax", [X], {"axis": ARRAY}, r"axis is an array of int64\[\], expected a 64-bit"),
    "a float for an integer": ("Softmax", [X], {"axis": 1.0}, r"axis is 1.0, expected a 64-bit integer"),
    "a truth for an integer": ("Softmax", [X], {"axis": True}, "axis is True, expected a 64-bit integer"),
    "beyond 64 bits": ("Softmax", [X], {"axis": 2**63}, "expected a 64-bit integer"),
    "a string for a number": ("Elu", [X], {"alpha": "1"}, "alpha is '1', expected a number"),
    "a number for a string": ("Conv", [X, X], {"auto_pad": 3}, "auto_pad is 3, expected a string"),
    "a number for a list": ("Conv", [X, X], {"strides": 2}, "strides is 2, expected a list"),
    "None where it means nothing": ("Softmax", [X], {"axis": None}, "axis is None"),
    "an attribute of another operation": ("Softmax", [X], {"alpha": 1.0}, "no attribute 'alpha'\n  hint: .*: axis"),
    "an attribute too few": ("MaxPool", [X], {}, "MaxPool needs the attribute kernel_shape"),
    "an input too many": ("Softmax", [X, X], {}, "Softmax with 2 inputs, expected 1\n"),
    "inputs too many": ("Clip", [X, X, X, X], {}, "Clip with 4 inputs, expected 1 to 3"),
    "an input too few": ("Conv", [X], {}, "Conv with 1 inputs, expected 2 to 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_signature_does_not_allow_is_refused(case):
    op, types, attrs, message = REFUSED[case]
    with pytest.raises(ModelError, match=f"(?s)^node 'n': .*{message}"):
        check_entering(node_of(op, *types, attrs=attrs))


@pytest.mark.parametrize("graphs", [{}, {"then_branch": Graph("a")}, {"body": Graph("a")}])
def test_sub_graphs_are_those_of_the_operation(graphs):
    with pytest.raises(ModelError, match=r"If has the sub-graphs .*, expected then_branch, else_branch"):
        check_entering(node_of("If", TensorType(DType.BOOL, ()), graphs=graphs))
    with pytest.raises(ModelError, match="Relu has the sub-graphs body, expected none"):
        check_entering(node_of("Relu", X, graphs={"body": Graph("a")}))


OTHERS = [
    SequenceType(X), OptionalType(X), MapType(DType.I64, X), None,
]  # fmt: skip


@pytest.mark.parametrize("opdef", [o for o in defined() if o.domain in ("", "ai.onnx.ml")], ids=lambda o: o.name)
def test_no_rule_is_given_another_kind_of_type_than_it_takes(opdef):
    """Every operation, every place: an error of ours, or the rule has said that it takes this."""
    declaration = opdef.declaration
    attrs = {"kernel_shape": [1, 1], "axis": 0, "to": 1, "perm": [0], "direction": "LEFT", "equation": "a->a", "hidden_size": 1}
    attrs = {k: v for k, v in attrs.items() if k in declaration.attributes}
    count = max(declaration.required, min(len(declaration.operands), 3))
    for place in range(count):
        for other in OTHERS:
            types = [X] * count
            types[place] = other
            try:
                infer_node(node_of(opdef.name, *types, attrs=attrs, domain=opdef.domain), types)
            except ModelError:
                continue
            except (KeyError, TypeError):  # of a sub-graph or an attribute that is missing here, which entering refuses
                assert opdef.graphs or not declaration.needed <= tuple(attrs)
            operand = declaration.operands[place] if place < len(declaration.operands) else declaration.more
            assert operand.kinds is None or other is None or isinstance(other, operand.kinds)


def test_a_region_has_a_body_that_fits():
    graph = Graph("g")
    x = graph.add_input("x", X)
    body = Graph("b")
    y = body.add("Relu", body.add_input("x", X), out="y", type=X)
    body.set_outputs([y], ["y"])
    fits = graph.add_node("FusedPointwise", [x], [graph.new_value("z")], domain="miniinfer", name="n", body=body)
    check_entering(fits)
    with pytest.raises(ModelError, match="has 2 inputs and 1 outputs, its body 1 and 1"):
        check_entering(graph.add_node("FusedPointwise", [x, x], [graph.new_value("w")], domain="miniinfer", name="n", body=body))
    with pytest.raises(ModelError, match="and is of"):
        check_entering(graph.add_node("FusedPointwise", [x], [graph.new_value("v")], name="n", body=body))


@pytest.fixture
def plugin():
    before = dict(registry._REGISTRY)
    yield
    registry._REGISTRY.clear()
    registry._REGISTRY.update(before)


def test_a_plugins_attributes_have_the_types_of_their_defaults(plugin):
    def rule(x, *ys, a=1.0, b=2, c="c", d=(1, 2), e=None, f=(), h=False):
        return x

    opdef = define("Odd", domain="Mine", infer=rule, reference=rule)
    for attrs in ({}, {"a": 3, "b": 4, "c": "d", "d": [5], "e": "anything", "f": [1.5, "x"], "h": True}):
        check_entering(node_of("Odd", SequenceType(X), None, X, attrs=attrs, domain="Mine"))
    for attrs in ({"a": "x"}, {"b": 2.5}, {"c": 1}, {"d": ["x"]}, {"d": 1}, {"g": 1}, {"h": 2}):
        with pytest.raises(ModelError):
            check_entering(node_of("Odd", X, attrs=attrs, domain="Mine"))
    with pytest.raises(ModelError, match="expected 1 or more"):
        check_entering(node_of("Odd", domain="Mine"))
    assert opdef.declaration is opdef.declaration


def test_annotations_that_cannot_be_read_leave_everything_open():
    def rule(x: "Nowhere", *, a: "Nowhere" = 1):  # noqa: F821
        return x

    declaration = declaration_of("Odd", rule, rule, (), ())
    declaration.check_node(1, {"a": 2}, {})
    with pytest.raises(ModelError, match="a is 'x', expected a 64-bit integer"):
        declaration.check_node(1, {"a": "x"}, {})


def test_lists_of_types_and_of_optional_items():
    def rule(x: TensorType | None, *, a: Sequence[TensorType | None], b: Sequence[float] | None = None):
        return x

    declaration = declaration_of("Odd", rule, rule, (), ())
    declaration.check_node(1, {"a": [X, None], "b": (1, 2.5)}, {})
    for attrs in ({"a": [1]}, {"a": X}, {"a": [], "b": ["x"]}, {}):
        with pytest.raises(ModelError):
            declaration.check_node(1, attrs, {})
    declaration.check_operands([None])


def test_every_definition_says_what_it_takes():
    for opdef in defined():
        for operand in (*opdef.declaration.operands, *filter(None, [opdef.declaration.more])):
            assert operand.kinds is not None, (opdef.name, operand.name)
        for name, attribute in opdef.declaration.attributes.items():
            assert attribute.words != "anything", (opdef.name, name)
    assert lookup("", "If").declaration.graphs == ("then_branch", "else_branch")


I64, STR = DType.I64, DType.STR
MATRIX, VECTOR = TensorType(DType.F32, (2, 4)), TensorType(DType.F32, (4,))
HEADS = TensorType(DType.F16, (2, 4, 8, 16))
BOXES, SCORES, NOTHING = TensorType(DType.F32, (1, 6, 4)), TensorType(DType.F32, (1, 1, 6)), TensorType(DType.F32, (0,))
UNFIT = {
    "a stash of strings": ("LayerNormalization", [MATRIX, VECTOR], {"stash_type": 8}, "stash_type is str, expected a floating"),
    "a stash of integers": ("RMSNormalization", [MATRIX, VECTOR], {"stash_type": 7}, "stash_type is i64, expected a floating"),
    "a stash of complex numbers": (
        "GroupNormalization", [TensorType(DType.F32, (1, 4, 3)), VECTOR, VECTOR], {"num_groups": 2, "stash_type": 14},
        "stash_type is c64, expected a floating-point type\n  hint: set stash_type to 1, which is f32",
    ),
    "probabilities of strings": ("FlexAttention", [HEADS] * 3, {"softmax_precision": 8}, "softmax_precision is str, expected"),
    "an eye of strings": ("EyeLike", [MATRIX], {"dtype": 8}, "EyeLike dtype is str"),
    "a diagonal of no number": ("Trilu", [MATRIX, TensorType(I64, (0, 2))], {}, r"Trilu k is one number, got i64\[0,2\]"),
    "a limit of no number": ("NonMaxSuppression", [BOXES, SCORES, NOTHING], {}, "max_output_boxes_per_class is one number, got"),
    "an overlap of no number": ("NonMaxSuppression", [BOXES, SCORES, None, NOTHING], {}, "iou_threshold is one number, got"),
    "a least score of no number": (
        "NonMaxSuppression", [BOXES, SCORES, None, None, NOTHING], {}, "score_threshold is one number, got",
    ),
    "products of strings": ("CumProd", [TensorType(STR, (2,)), TensorType(I64, ())], {}, "CumProd does not take an input str"),
    "sums of complex numbers": ("CumSum", [TensorType(DType.C64, (2,)), TensorType(I64, ())], {}, "CumSum does not take .* c64"),
    "scores of truths": (
        "SoftmaxCrossEntropyLoss", [TensorType(DType.BOOL, (3, 5)), TensorType(I64, (3,))], {}, "does not take an input bool",
    ),
    "log-probabilities of truths": (
        "NegativeLogLikelihoodLoss", [TensorType(DType.BOOL, (3, 5)), TensorType(I64, (3,))], {}, "does not take an input bool",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("op", "types", "attrs", "message"), UNFIT.values(), ids=UNFIT)
def test_types_and_counts_that_a_reference_could_not_take_are_refused_by_the_rule(op, types, attrs, message):
    node = node_of(op, *types, attrs=attrs, domain="ai.onnx.preview" if op == "FlexAttention" else "")
    check_entering(node)
    with pytest.raises(ModelError, match=message):
        infer_node(node, types)
