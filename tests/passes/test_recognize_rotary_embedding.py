"""recognize_rotary_embedding: both ways of writing it, wherever the angles come from; rotations that are not quite it stay."""

import pytest

from miniinfer_cli.ir import Graph
from miniinfer_cli.passes.cancel_reshapes import cancel_reshapes
from miniinfer_cli.passes.recognize_rotary_embedding import recognize_rotary_embedding
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes

X = "x: f32[batch,3,seq,4]"
CONSTANTS = """
  zero: i64[1] = const [0]
  two: i64[1] = const [2]
  four: i64[1] = const [4]
  one: i64[1] = const [1]
  last: i64[1] = const [-1]
  end: i64[1] = const [9223372036854775807]
"""
HALVES = "x1 = Slice(x, zero, two, last) x2 = Slice(x, two, end, last)"
TURN = f"{HALVES} n = Neg(x2) r = Concat(n, x1) {{axis=-1}} a = Mul(x, cos) b = Mul(r, sin) y = Add(a, b)"
# Angles as transformers computes them: [1, seq, 2] twice, then an axis for the heads.
ANGLES = """
  e = Concat(f, f) {axis=-1}
  c1 = Cos(e) s1 = Sin(e)
  k: f32[] = const 1.5
  c2 = Mul(c1, k) s2 = Mul(s1, k)
  cos = Unsqueeze(c2, one) sin = Unsqueeze(s2, one)
"""
PLAIN = "cos = Concat(f, f) {axis=-1} sin = Sin(cos)"
DONE = "k: f32[] = const 1.5 c1_half = Cos(f) c2_half = Mul(c1_half, k) s1_half = Sin(f) s2_half = Mul(s1_half, k)"
THREE = "three: i64[1] = const [3] x1 ="
FIVE = "five: i64[1] = const [5] e ="
LONG = "x: f32[2,3,10,4], x0: f32[2,3,10,4]"


def recognized(graph: Graph) -> int:
    """The pass, and what it leaves cleaned up."""
    fired = recognize_rotary_embedding(graph)
    for clean in (cancel_reshapes, remove_dead_nodes):
        clean(graph)
    return fired


def text(body: str, inputs: str = f"{X}, f: f32[1,seq,2]", constants: str = CONSTANTS) -> str:
    return f"graph main({inputs}) {{ {constants} {body} z = Relu(y) return z }}"


@pytest.mark.parametrize(
    "turn",
    [
        TURN,
        TURN.replace("Mul(x, cos)", "Mul(cos, x)").replace("Mul(r, sin)", "Mul(sin, r)").replace("Add(a, b)", "Add(b, a)"),
        TURN.replace(HALVES, "x1, x2 = Split(x) {axis=-1, num_outputs=2}"),
        TURN.replace(HALVES, "p: i64[2] = const [2, 2] x1, x2 = Split(x, p) {axis=3}"),
        TURN.replace("axis=-1", "axis=3").replace("last)", "d3)").replace("x1 =", "d3: i64[1] = const [3] x1 =", 1),
        TURN.replace("Slice(x, two, end, last)", "Slice(x, m2, end, last, one)").replace(
            "x1 =", "m2: i64[1] = const [-2] x1 =", 1
        ),
    ],
)
def test_a_rotation_of_whole_heads(rewrites, turn):
    after = text(f"{DONE} y = RotaryEmbedding(x, c2_half, s2_half)", constants="")
    rewrites(recognized, text(f"{ANGLES} {turn}"), after, rtol=1e-6)


F_1 = "f_shape: i64[3] = const [1, 5, 2] f_1 = Reshape(f, f_shape)"
G_1 = "g_shape: i64[3] = const [1, 5, 2] g_1 = Reshape(g, g_shape)"


@pytest.mark.parametrize(
    ("angles", "inputs", "made", "operands"),
    [
        (
            ANGLES.replace("Mul(c1, k)", "Div(k, c1)").replace("Mul(s1, k)", "Sub(s1, k)"),
            "f: f32[1,5,2]",
            "k: f32[] = const 1.5 c1_half = Cos(f) c2_half = Div(k, c1_half) s1_half = Sin(f) s2_half = Sub(s1_half, k)",
            "c2_half, s2_half",
        ),
        (
            "cos = Concat(f, f) {axis=3} sin = Concat(g, g) {axis=3}",
            "f: f32[batch,1,5,2], g: f32[1,1,5,2]",
            f"{F_1.replace('[1, 5', '[0, 5')} {G_1}",
            "f_1, g_1",
        ),
        ("cos = Concat(f, f) {axis=1} sin = Concat(g, g) {axis=-1}", "f: f32[5,2], g: f32[5,2]", f"{F_1} {G_1}", "f_1, g_1"),
        (  # a table of all positions, picked from
            """five: i64[1] = const [5] e = Concat(f, f) {axis=-1} h = Gather(e, i) cos = Unsqueeze(h, one)
              d = Slice(e, zero, five, zero) sin = Neg(d)""",
            "f: f32[9,2], i: i64[batch,5]",
            """h_half = Gather(f, i) zero: i64[1] = const [0] five: i64[1] = const [5] d_half = Slice(f, zero, five, zero)
              sin_half = Neg(d_half) sin_half_shape: i64[3] = const [1, 5, 2] sin_half_1 = Reshape(sin_half, sin_half_shape)""",
            "h_half, sin_half_1",
        ),
        (
            "t: f32[9,4] = const fill 0.5 h = Gather(t, i) cos = Unsqueeze(h, one) sin = Concat(g, g) {axis=-1}",
            "g: f32[5,2], i: i64[batch,5]",
            f"t_half: f32[9,2] = const fill 0.5 h_half = Gather(t_half, i) {G_1}",
            "h_half, g_1",
        ),
        (
            "cos: f32[5,4] = const ["
            + ", ".join(["1.0, 2.0, 1.0, 2.0"] * 5)
            + "] w = Concat(g, g) {axis=-1} sin = Cast(w) {to=1}",
            "g: f16[5,2]",
            """cos_half: f32[5,2] = const [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0]
              cos_half_shape: i64[3] = const [1, 5, 2] cos_half_1 = Reshape(cos_half, cos_half_shape)
              sin_half = Cast(g) {to=1} sin_half_shape: i64[3] = const [1, 5, 2]
              sin_half_1 = Reshape(sin_half, sin_half_shape)""",
            "cos_half_1, sin_half_1",
        ),
    ],
)
def test_angles_however_they_are_made(rewrites, angles, inputs, made, operands):
    inputs = f"x: f32[batch,3,5,4], {inputs}"
    rewrites(
        recognized, text(f"{angles} {TURN}", inputs), text(f"{made} y = RotaryEmbedding(x, {operands})", inputs, ""), rtol=1e-6
    )


BY_HALVES = f"""{HALVES} p = Mul(x1, cos) q = Mul(x2, sin) u = Sub(p, q) v = Mul(x2, cos) w = Mul(x1, sin) i = Add(v, w)
  y = Concat(u, i) {{axis=-1}}"""


@pytest.mark.parametrize(
    "turn",
    [
        BY_HALVES,
        BY_HALVES.replace("Mul(x1, cos)", "Mul(cos, x1)").replace("Add(v, w)", "Add(w, v)"),
        BY_HALVES.replace("Mul(x2, sin)", "Mul(sin, x2)").replace("Mul(x2, cos)", "Mul(cos, x2)"),
    ],
)
def test_a_rotation_half_by_half(rewrites, turn):
    inputs = "x: f32[batch,3,5,4], cos: f32[5,2], sin: f32[batch,1,5,2]"
    after = """cos_shape: i64[3] = const [1, 5, 2] cos_1 = Reshape(cos, cos_shape)
      sin_shape: i64[3] = const [0, 5, 2] sin_1 = Reshape(sin, sin_shape) y = RotaryEmbedding(x, cos_1, sin_1)"""
    rewrites(recognized, text(turn, inputs), text(after, inputs, ""), rtol=1e-6)


def test_a_part_of_each_head_is_turned(rewrites):
    inputs = "w: f32[batch,3,seq,7], f: f32[1,seq,2]"
    part = "x = Slice(w, zero, four, last) left = Slice(w, four, end, last)"
    rewrites(
        recognized,
        text(f"{part} {ANGLES} {TURN.replace('y =', 'g =')} y = Concat(g, left) {{axis=-1}}", inputs),
        text(f"{DONE} y = RotaryEmbedding(w, c2_half, s2_half) {{rotary_embedding_dim=4}}", inputs, ""),
        fired=2,
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("left", "join"),
    [
        ("left = Slice(w, two, end, last)", "y = Concat(g, left) {axis=-1}"),  # overlaps
        ("left = Slice(w, four, six, last)", "y = Concat(g, left) {axis=-1}"),  # some are missing
        ("left = Slice(w, four, end, last)", "y = Concat(left, g) {axis=-1}"),
        ("left = Slice(w, four, end, last)", "y = Concat(g, left, left) {axis=-1}"),
        ("left = Slice(w, four, end, last)", "h = Concat(g, left) {axis=-1} t = ReduceSum(g) y = Add(h, t)"),  # is read
        ("left = Slice(w2, four, end, last)", "y = Concat(g, left) {axis=-1}"),
    ],
)
def test_what_is_joined_on_behind_must_be_the_rest(graph_of, left, join):
    inputs = "w: f32[2,3,5,7], w2: f32[2,3,5,7], f: f32[1,1,5,2]"
    six = "six: i64[1] = const [6] x = Slice(w, zero, four, last)"
    graph = graph_of(text(f"{six} {left} {PLAIN} {TURN.replace('y =', 'g =')} {join}", inputs))
    assert recognize_rotary_embedding(graph) == 1
    assert [node.attrs for node in graph if node.is_op("RotaryEmbedding")] == [{}]


@pytest.mark.parametrize(
    "body",
    [
        f"{PLAIN} {TURN}".replace("Concat(n, x1)", "Concat(x1, n)"),
        f"{PLAIN} {TURN}".replace("Neg(x2)", "Neg(x1)").replace("Concat(n, x1)", "Concat(n, x2)"),  # turned the other way
        f"{PLAIN} {TURN}".replace("Neg(x2)", "Abs(x2)"),
        f"{PLAIN} {TURN}".replace("Add(a, b)", "Sub(a, b)"),
        f"{PLAIN} {TURN}".replace("Mul(x, cos)", "Mul(x0, cos)"),
        f"{PLAIN} {TURN}".replace("Mul(r, sin)", "Div(r, sin)"),
        f"{PLAIN} {TURN}".replace("Slice(x, two, end, last)", "Slice(x0, two, end, last)"),
        f"{PLAIN} {TURN}".replace("Slice(x, zero, two, last)", "Slice(x, one, three, last)").replace("x1 =", THREE),
        f"{PLAIN} {TURN}".replace("Slice(x, zero, two, last)", "Slice(x, zero, end, last, two)"),  # every second one
        f"{PLAIN.replace('Concat(f, f)', 'Concat(f, g)')} {TURN}",  # angles of their own for the second half
        f"{PLAIN.replace('axis=-1', 'axis=2').replace('Concat(f, f)', 'Concat(wide, wide)')} {TURN}",
        f"cos = Identity(wide) sin = Identity(wide) {TURN}",
        f"cos: f32[4] = const [1.0, 2.0, 1.0, 3.0] sin = Sin(cos) {TURN}",
        f"e = Concat(heads, heads) {{axis=-1}} cos = Sin(e) sin = Cos(e) {TURN}",  # angles of their own for each head
        f"e = Concat(f, f) {{axis=-1}} cos = Mul(e, wide) sin = Sin(e) {TURN}",
        f"e = Concat(f, f) {{axis=-1}} i4: i64[4] = const [0, 1, 2, 2] cos = Gather(e, i4) {{axis=3}} sin = Sin(e) {TURN}",
        f"e = Concat(f, f, f) {{axis=-1}} cos = Slice(e, one, five, last) sin = Sin(cos) {TURN}".replace("e =", FIVE, 1),
        BY_HALVES.replace("Sub(p, q)", "Sub(q, p)").replace("cos", "f").replace("sin", "g"),
        BY_HALVES.replace("Add(v, w)", "Sub(v, w)").replace("cos", "f").replace("sin", "g"),
        BY_HALVES.replace("Mul(x1, sin)", "Mul(x1, cos)").replace("cos", "f").replace("sin", "g"),
        BY_HALVES.replace("Concat(u, i)", "Concat(i, u)").replace("cos", "f").replace("sin", "g"),
    ],
)
def test_what_is_not_quite_it_stays(leaves, body):
    inputs = "x: f32[2,3,5,4], x0: f32[2,3,5,4], f: f32[1,1,5,2], g: f32[1,1,5,2], wide: f32[1,1,5,4], heads: f32[1,3,5,2]"
    if "Concat(wide, wide)" in body:
        inputs = inputs.replace("x: f32[2,3,5,4], x0: f32[2,3,5,4]", LONG)
    leaves(recognize_rotary_embedding, text(body, inputs))


def test_heads_behind_the_positions_and_an_odd_number_of_elements_stay(leaves):
    inputs = "x: f32[batch,seq,3,4], f: f32[1,seq,1,2]"
    leaves(recognize_rotary_embedding, text(f"cos = Concat(f, f) {{axis=-1}} sin = Sin(cos) {TURN}", inputs))
    flat = "x: f32[seq,4], f: f32[seq,2]"
    leaves(recognize_rotary_embedding, text(f"cos = Concat(f, f) {{axis=-1}} sin = Sin(cos) {TURN}", flat))
