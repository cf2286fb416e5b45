"""Bodies of Loop, Scan and SequenceMap with a node that does not fit: a fault when they run, not before."""

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.errors import ModelError
from miniinfer_cli.onnx_import import import_with_info
from tests.everywhere import check_everywhere, engines_everywhere, fails_everywhere, parsed

X = np.float32([1, -2])
YES, NO = np.array(True), np.array(False)
# What a body does with v, f32[2], to give r; each time a node makes g, and cannot.
UNFIT = {
    "Gather index 7": "t = Constant<value = float[2] {1, 2}>() f = Constant<value = int64 {7}>() g = Gather(t, f) r = Add(v, g)",
    "does not fit the input": "d = Constant<value = int64[2] {3, 5}>() g = Reshape(v, d) h = Flatten(g) r = Add(v, h)",
    "do not broadcast": "k = Constant<value = float[3] {1, 2, 3}>() g = Add(v, k) r = Neg(g)",
    "of size 1": "z = Constant<value = int64[1] {0}>() g = Squeeze(v, z) r = Add(v, g)",
    "negative": "d = Constant<value = int64[1] {-3}>() g = ConstantOfShape(d) h = ReduceSum<keepdims = 0>(g) r = Add(v, h)",
    "abc": 'd = Constant<value = string {"abc"}>() g = Cast<to = 1>(d) r = Add(v, g)',
    "inner": """n = Constant<value = int64 {3}>()
        r = Loop(n, , v) <body = deep (int64 j, bool p, float[2] w) => (bool q, float[2] u) {
            q = Identity(p) k = Constant<value = float[3] {1, 2, 3}>() inner = Add(w, k) u = Identity(inner) }>""",
    "ranks differ": """r = If(yes) <
        then_branch = a () => (float[2] p) { t = Constant<value = float {0}>() p = Concat<axis = 0>(v, t) },
        else_branch = b () => (float[2] q) { u = Constant<value = float {0}>() q = Concat<axis = 0>(u, v) }>""",
    "and \\[3\\] do not": "r = local.far(v)",
}
FAR = """
<domain: "local", opset_import: ["": 17]> far (x) => (y) {
    i = Constant<value = int64[3] {7, 7, 7}>() g = Gather(x, i) y = Add(x, g) }"""


def _loop(body: str, *, start: str = "") -> str:
    return f"""g (int64 m, bool c, float[2] x, bool yes) => (float[2] y, float[k,2] z) {{ {start}
        y, z = Loop(m, c, x) <body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] r, float[2] s) {{
            co = Identity(ci) {body} s = Identity(r) }}> }}{FAR}"""


def _scan(body: str) -> str:
    return f"""g (float[n,2] e, float[2] x, bool yes) => (float[2] y, float[2,n] z) {{
        y, z = Scan(x, e) <num_scan_inputs = 1, scan_output_axes = [1],
            body = b (float[2] v, float[2] o) => (float[2] r, float[2] s) {{ {body} s = Add(r, o) }}> }}{FAR}"""


@pytest.mark.parametrize("fault", UNFIT)
def test_a_loop_whose_body_does_not_fit_fails_when_it_runs(fault: str) -> None:
    proto = parsed(_loop(UNFIT[fault]), opset=17, local=1)
    feeds = {"x": X, "c": YES, "m": np.array(0), "yes": YES}
    check_everywhere(proto, (feeds, X), ({**feeds, "m": np.array(3), "c": NO}, X))
    check_everywhere(proto, (feeds, np.empty((0, 2), np.float32)), output="z")
    fails_everywhere(proto, {**feeds, "m": np.array(1)}, fault)
    (note,) = import_with_info(proto)[1].notes
    assert note.startswith("the body of a Loop does not fit what it reads, and fails when it runs: node ")


@pytest.mark.parametrize("fault", UNFIT)
def test_a_scan_whose_body_does_not_fit_fails_when_there_is_something_to_scan(fault: str) -> None:
    proto = parsed(_scan(UNFIT[fault]), opset=17, local=1)
    feeds = {"x": X, "e": np.empty((0, 2), np.float32), "yes": YES}
    check_everywhere(proto, (feeds, X))
    check_everywhere(proto, (feeds, np.empty((2, 0), np.float32)), output="z")
    fails_everywhere(proto, {**feeds, "e": np.ones((1, 2), np.float32)}, fault)


def test_a_sequence_map_whose_body_does_not_fit_fails_when_there_is_an_element() -> None:
    proto = parsed(
        """g (seq(float[2]) q) => (int64 y) {
        r = SequenceMap(q) <body = b (float[2] v) => (float[2] s) { k = Constant<value = float[3] {1, 2, 3}>() s = Add(v, k) }>
        y = SequenceLength(r) }""",
        opset=17,
    )
    check_everywhere(proto, ({"q": []}, np.array(0)))
    fails_everywhere(proto, {"q": [X]}, "do not broadcast")


# What passes would rewrite of x, f32[1,2,4,4], with what it says when it is run.
_ONES = "k = ConstantOfShape<value = float[1] {1}>(d)"
UNFIT_FOR_PASSES = {
    "channels": f"d = Constant<value = int64[4] {{1, 3, 1, 1}}>() {_ONES} t = Conv(x, k)",
    "does not fit spatial": f"d = Constant<value = int64[4] {{1, 2, 9, 9}}>() {_ONES} p = Conv(x, k) t = Relu(p)",
    "leave nothing": f"d = Constant<value = int64[4] {{2, 1, 2, 2}}>() {_ONES} t = ConvTranspose<pads = [9, 9, 9, 9]>(x, k)",
    "no permutation": f"d = Constant<value = int64[4] {{3, 2, 1, 1}}>() {_ONES} p = Conv(x, k) t = Transpose<perm = [0, 1]>(p)",
    "Slice": f"""d = Constant<value = int64[4] {{3, 2, 1, 1}}>() {_ONES} p = Conv(x, k)
        i = Constant<value = int64[1] {{1}}>() o = Constant<value = int64[1] {{0}}>() t = Slice(p, i, i, i, o)""",
    "inner dimensions": f"d = Constant<value = int64[2] {{3, 4}}>() {_ONES} f = Flatten<axis = 3>(x) t = Gemm(f, k)",
    "MatMul": f"""d = Constant<value = int64[4] {{1, 2, 5, 4}}>() {_ONES} q = Transpose<perm = [0, 1, 3, 2]>(x)
        s = MatMul(x, q) p = Softmax<axis = -1>(s) t = MatMul(p, k)""",
    "BatchNormalization": f"d = Constant<value = int64[1] {{3}}>() {_ONES} t = BatchNormalization(x, k, k, k, k)",
}


@pytest.mark.parametrize("fault", UNFIT_FOR_PASSES)
def test_passes_leave_a_branch_alone_that_does_not_fit(fault: str) -> None:
    proto = parsed(
        f"""g (bool c, float[1,2,4,4] x) => (float[1,2,4,4] y) {{ y = If(c) <
            then_branch = a () => (float[1,2,4,4] t) {{ {UNFIT_FOR_PASSES[fault]} }},
            else_branch = b () => (float[1,2,4,4] u) {{ u = Neg(x) }}> }}"""
    )
    x = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)
    for engine in engines_everywhere(proto):
        np.testing.assert_array_equal(engine.run({"c": NO, "x": x})["y"], -x)
        with pytest.raises(ModelError, match=fault):
            engine.run({"c": YES, "x": x})


# -- a body that surely runs ---------------------------------------------------------------------------------------------

ADD = UNFIT["do not broadcast"]
SURELY = {
    "three rounds": _loop(ADD, start="n = Constant<value = int64 {3}>() ").replace("Loop(m, c, x)", "Loop(n, , x)"),
    "as the body says": _loop(ADD).replace("Loop(m, c, x)", "Loop(, , x)"),
    "one more than a size": _loop(ADD, start="d = Shape(w) o = Constant<value = int64 {1}>() n = Add(d, o)")
    .replace("int64 m,", "float[a] w,")
    .replace("Loop(m, c, x)", "Loop(n, , x)"),
    "four elements": _scan(ADD).replace("float[n,2] e", "float[4,2] e"),
}


@pytest.mark.parametrize("text", SURELY.values(), ids=SURELY)
def test_a_body_that_is_surely_run_and_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="do not broadcast"):
        import_with_info(parsed(text, opset=17, local=1))


def test_rounds_that_a_size_may_leave_out_are_no_fault() -> None:
    text = SURELY["one more than a size"].replace("n = Add(d, o)", "n = Sub(d, o)")
    check_everywhere(parsed(text, opset=17, local=1), ({"w": X[:1], "x": X, "c": YES, "yes": YES}, X))


def test_a_loop_that_carries_values_of_two_element_types_is_refused_all_the_same() -> None:
    text = _loop("r = Cast<to = 7>(v)").replace("float[2] r,", "int64[2] r,")
    with pytest.raises(ModelError, match="element types differ"):
        import_with_info(parsed(text, opset=17, local=1))


@pytest.mark.parametrize(
    "text",
    [
        _loop("r = Neg(v)"),
        _scan("r = Neg(v)"),
        "g (seq(float[2]) q) => (seq(float[2]) y) { y = SequenceMap(q) <body = b (float[2] v) => (float[2] s) { s = Neg(v) }> }",
        """g (bool c, float[2] x) => (float[2] y) { y = If(c) <
            then_branch = a () => (float[2] p) { p = Neg(x) }, else_branch = b () => (float[2] q) { q = Abs(x) }> }""",
    ],
)
def test_what_is_beyond_a_limit_is_no_misfit(text: str) -> None:
    with pytest.raises(ModelError, match="the limit inferred_nodes is 0"):
        miniinfer_cli.build(parsed(text, opset=17, local=1), limits={"inferred_nodes": 0})
