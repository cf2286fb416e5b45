"""Models whose sizes are short, or 0: what hangs on a size is right at every size, on both backends at both levels."""

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.errors import UsageError
from tests.everywhere import check_everywhere, fails_everywhere, parsed

END = 2**63 - 1


def rows(n: int, width: int = 3) -> np.ndarray:
    return (np.arange(n * width, dtype=np.float32).reshape(n, width) + 1) / 4


def sizes(*counts: int) -> np.ndarray:
    return np.array(counts, np.int64)


TWO = "g (float[N,3] x, float[M] z) => ({y} y) <int64[1] s={{0}}> {{ e = Shape (z) w = Slice (x, s, e) {rest} }}"
LENGTHS = [(4, 4), (2, 5), (3, 0), (0, 2)]


@pytest.mark.parametrize(
    ("kind", "rest", "expected"),
    [
        ("int64[K]", "y = Shape (w)", lambda x, m: sizes(*x[:m].shape)),
        ("float[A,B]", "sh = Shape (w) y = ConstantOfShape (sh)", lambda x, m: np.zeros_like(x[:m])),
        ("float[B]", "a = Constant <value_ints=[0]> () y = ReduceSum <keepdims=0> (w, a)", lambda x, m: x[:m].sum(0)),
        ("float[A,B]", "y = Concat <axis=0> (w, x)", lambda x, m: np.concatenate([x[:m], x])),
        ("int64[K]", """n1 = Shape <start=0,end=1> (w) n = Squeeze (n1) zero = Constant <value_int=0> ()
           one = Constant <value_int=1> () y = Range (zero, n, one)""", lambda x, m: np.arange(len(x[:m]))),
    ],
    ids=["shape", "zeros", "sum", "concat", "positions"],
)  # fmt: skip
def test_x_up_to_m(kind, rest, expected):
    model = parsed(TWO.format(y=kind, rest=rest), opset=21)
    cases = [({"x": rows(n), "z": np.zeros(m, np.float32)}, expected(rows(n), m)) for n, m in LENGTHS]
    check_everywhere(model, *cases)


CUTS = [(2, -2, 1), (3, END, 1), (-1, END, 1), (0, -1, 1), (-4, -2, 1), (1, 4, 2), (-1, -END, -1), (-2, 0, -2), (3, 0, -1)]


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_a_crop_of_what_may_be_short(cut):
    model = parsed(
        f"""g (float[N,3] x) => (float[A,B] y, int64[2] shape) <int64[1] s={{{cut[0]}}}, int64[1] e={{{cut[1]}}},
              int64[1] a={{0}}, int64[1] p={{{cut[2]}}}>
            {{ y = Slice (x, s, e, a, p) shape = Shape (y) }}""",
        opset=21,
    )
    expected = [rows(n)[slice(*cut)] for n in (8, 3, 1, 0)]
    check_everywhere(model, *(({"x": rows(n)}, w) for n, w in zip((8, 3, 1, 0), expected, strict=True)))
    check_everywhere(
        model, *(({"x": rows(n)}, sizes(*w.shape)) for n, w in zip((8, 3, 1, 0), expected, strict=True)), output="shape"
    )


def test_a_step_backwards_from_before_the_axis_begins_at_its_first_element():
    model = parsed(
        """g (float[N] x) => (float[K] y) <int64[1] s={-5}, int64[1] e={-9223372036854775808}, int64[1] a={0}, int64[1] p={-1}>
           { y = Slice (x, s, e, a, p) }""",
        opset=21,
    )
    x = np.arange(1, 7, dtype=np.float32)
    check_everywhere(model, ({"x": x[:3]}, x[:1]), ({"x": x}, x[1::-1]), ({"x": x[:0]}, x[:0]))


def test_a_branch_on_the_length_of_a_slice():
    model = parsed(
        f"""g (float[N] x) => (float[K] y) <int64[1] s={{3}}, int64[1] e={{{END}}}, int64[1] zero={{0}}>
          {{ z = Slice (x, s, e) sh = Shape (z) c = Equal (sh, zero)
             y = If (c) <then_branch = t () => (float[P] a) {{ a = Neg (x) }},
                         else_branch = q () => (float[P] b) {{ b = Identity (z) }}> }}""",
        opset=21,
    )
    x = np.arange(1, 6, dtype=np.float32)
    check_everywhere(model, *(({"x": x[:n]}, x[3:n] if n > 3 else -x[:n]) for n in (5, 3, 2, 0)))


def test_a_range_that_may_be_empty():
    model = parsed(
        """g (float[N,3] x) => (int64[1] y) <int64 s={2}, int64 d={1}>
           { sh = Shape <start=0,end=1> (x) n = Squeeze (sh) r = Range (s, n, d) y = Shape (r) }""",
        opset=21,
    )
    check_everywhere(model, *(({"x": rows(n)}, sizes(max(n - 2, 0))) for n in (5, 2, 1, 0)))


def test_a_loop_of_fewer_than_no_rounds():
    model = parsed(
        """g (float[N] x) => (float[K] y) <int64[1] two={2}, bool yes={1}>
           { n = Shape (x) m1 = Sub (n, two) m = Squeeze (m1)
             y = Loop (m, yes) <body = b (int64 i, bool c) => (bool d, float v)
               { d = Identity (c) v = Cast <to=1> (i) }> }""",
        opset=21,
    )
    check_everywhere(model, *(({"x": np.zeros(n, np.float32)}, np.arange(max(n - 2, 0), dtype=np.float32)) for n in (5, 2, 1, 0)))


N = "n = Shape <start=0,end=1> (x) "
OF_A_SIZE = {
    "Max": ("m = Max (n, one) y = Cast <to=7> (m)", lambda n: max(n, 1)),
    "Min": ("y = Min (n, one)", lambda n: min(n, 1)),
    "Sign": ("y = Sign (n)", lambda n: min(n, 1)),
    "Clip": ("lo = Squeeze (one) y = Clip (n, lo)", lambda n: max(n, 1)),
    "Where": ("c = Greater (n, zero) y = Where (c, one, seven)", lambda n: 1 if n > 0 else 7),
    "Abs": ("d = Sub (n, two) y = Abs (d)", lambda n: abs(n - 2)),
    "Div": ("d = Sub (n, two) y = Div (d, two)", lambda n: int((n - 2) / 2)),
    "Mod": ("d = Sub (n, two) y = Mod (d, two)", lambda n: (n - 2) % 2),
    "Relu": ("d = Sub (n, two) y = Relu (d)", lambda n: max(n - 2, 0)),
    "Equal": ("c = Equal (n, zero) y = Cast <to=7> (c)", lambda n: int(n == 0)),
    "LessOrEqual": ("c = LessOrEqual (n, one) y = Cast <to=7> (c)", lambda n: int(n <= 1)),
    "Cast": ("c = Cast <to=9> (n) y = Cast <to=7> (c)", lambda n: int(n != 0)),
}


@pytest.mark.parametrize("op", OF_A_SIZE)
def test_a_size_is_not_taken_to_be_one_at_least(op):
    rest, expected = OF_A_SIZE[op]
    model = parsed(
        f"""g (float[N,3] x) => (int64[1] y) <int64[1] zero={{0}}, int64[1] one={{1}}, int64[1] two={{2}}, int64[1] seven={{7}}>
            {{ {N} {rest} }}""",
        opset=21,
    )
    check_everywhere(model, *(({"x": rows(n)}, sizes(expected(n))) for n in (0, 1, 2, 5)))


def test_a_mean_of_nothing_is_guarded():
    model = parsed(
        f"""g (float[N,3] x) => (float[3] y) <int64[1] one={{1}}, int64[1] a={{0}}>
            {{ {N} m = Max (n, one) f = Cast <to=1> (m) t = ReduceSum <keepdims=0> (x, a) y = Div (t, f) }}""",
        opset=21,
    )
    cases = [({"x": rows(2)}, rows(2).mean(0)), ({"x": rows(0)}, np.zeros(3, np.float32))]
    check_everywhere(model, *cases)
    check_everywhere(model, *cases, min_shapes={"x": (0, 3)}, opt_shapes={"x": (2, 3)}, max_shapes={"x": (8, 3)})


def test_bounds_that_are_given_let_passes_assume_them():
    model = parsed(
        f"""g (float[N,3] x) => (float[A,B] y) <int64[1] zero={{0}}, int64[1] last={{-1}}, int64[1] e={{{END}}}>
            {{ {N} c = Greater (n, zero)
               y = If (c) <then_branch = t () => (float[P,Q] a) {{ a = Slice (x, last, e) }},
                           else_branch = e () => (float[P,Q] b) {{ b = Neg (x) }}> }}""",
        opset=21,
    )
    plan = miniinfer_cli.build(model, min_shapes={"x": (1, 3)})
    with miniinfer_cli.load(plan, "cpu") as engine:
        assert [node.op for node in engine.graph] == ["Slice"]
        assert str(engine.outputs[0]) == "y: f32[1,3]"
        np.testing.assert_array_equal(engine.run({"x": rows(4)})["y"], rows(4)[-1:])
        with pytest.raises(UsageError, match=r"axis 0 \(N\) is 0, below 1, .*\n  hint: .* smaller min_shapes"):
            engine.run({"x": rows(0)})
    check_everywhere(model, ({"x": rows(0)}, -rows(0)), ({"x": rows(4)}, rows(4)[-1:]))


def test_a_branch_on_an_empty_batch():
    model = parsed(
        f"""g (float[N,3] x) => (float[A,B] y) <int64[1] zero={{0}}> {{ {N} c = Equal (n, zero)
             y = If (c) <then_branch = t () => (float[P,Q] a) {{ s = Constant <value_ints=[1,3]> () a = ConstantOfShape (s) }},
                         else_branch = e () => (float[P,Q] b) {{ b = Neg (x) }}> }}""",
        opset=21,
    )
    check_everywhere(model, ({"x": rows(2)}, -rows(2)), ({"x": rows(0)}, np.zeros((1, 3), np.float32)))


def test_padding_to_one_row():
    model = parsed(
        f"""g (float[N,3] x) => (float[A,B] y) <int64[1] one={{1}}, int64[2] zz={{0,0}}, int64[1] z1={{0}}>
            {{ {N} m = Max (n, one) d = Sub (m, n) p = Concat <axis=0> (zz, d, z1) y = Pad (x, p) }}""",
        opset=21,
    )
    check_everywhere(model, ({"x": rows(2)}, rows(2)), ({"x": rows(0)}, np.zeros((1, 3), np.float32)))


def test_a_shape_of_no_sizes_is_that_of_one_number():
    model = parsed("g (float[N] x, int64[K] s) => (float y) { r = Reshape (x, s) y = Neg (r) }", opset=21)
    model.graph.output[0].type.ClearField("tensor_type")
    one, two = np.float32([3]), np.float32([3, 4])
    check_everywhere(model, ({"x": one, "s": sizes()}, -one[0]), ({"x": two, "s": sizes(2, 1)}, -two[:, None]))
    fails_everywhere(model, {"x": two, "s": sizes()}, r"Reshape to \[\] does not fit the input \[2\]: 2 elements, not 1")
