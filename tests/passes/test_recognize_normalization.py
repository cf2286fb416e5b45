"""recognize_normalization: LayerNormalization, RMSNormalization and GroupNormalization out of their pieces."""

import pytest

from miniinfer_cli.ir import Graph
from miniinfer_cli.passes.recognize_normalization import recognize_normalization
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes

SCALE = "scale: f32[4] = const [1.5, 0.5, 2.0, 1.0]"
BIAS = "bias: f32[4] = const [0.5, -1.0, 0.0, 2.0]"
CONSTANTS = f"""
  two: f32[] = const 2.0
  one: f32[] = const 1.0
  half: f32[] = const 0.5
  rhalf: f32[] = const -0.5
  epsilon: f32[] = const 1e-5
  axes: i64[1] = const [-1]
  axis2: i64[1] = const [2]
  both: i64[2] = const [1, 2]
  middle: i64[1] = const [1]
  {SCALE}
  {BIAS}
"""
EPSILON = 9.999999747378752e-06  # what f32 makes of 1e-5
MEAN = "m = ReduceMean(x, axes) {keepdims=1} d = Sub(x, m)"
VARIANCE = "p = Pow(d, two) v = ReduceMean(p, axes) {keepdims=1} e = Add(v, epsilon)"
LAYER = f"{MEAN} {VARIANCE} r = Sqrt(e) n = Div(d, r)"
SQUARE = "p = Pow(x, two) v = ReduceMean(p, axes) {keepdims=1} e = Add(v, epsilon)"
RMS = f"{SQUARE} r = Sqrt(e) i = Reciprocal(r) n = Mul(x, i)"


def recognized(graph: Graph) -> int:
    """The pass, and what it leaves cleaned up."""
    fired = recognize_normalization(graph)
    remove_dead_nodes(graph)
    return fired


def text(body: str, inputs: str = "x: f32[batch,seq,4]", constants: str = CONSTANTS) -> str:
    return f"graph main({inputs}) {{ {constants} {body} z = Relu(y) return z }}"


@pytest.mark.parametrize(
    "pieces",
    [
        LAYER,
        LAYER.replace("Pow(d, two)", "Mul(d, d)"),
        LAYER.replace("Add(v, epsilon)", "Add(epsilon, v)"),
        LAYER.replace("n = Div(d, r)", "i = Reciprocal(r) n = Mul(d, i)"),
        LAYER.replace("n = Div(d, r)", "i = Div(one, r) n = Mul(i, d)"),
        LAYER.replace("Sqrt(e)", "Pow(e, half)"),
        LAYER.replace("r = Sqrt(e) n = Div(d, r)", "r = Pow(e, rhalf) n = Mul(d, r)"),
        LAYER.replace("axes", "axis2"),
    ],
)
def test_layer_normalization(rewrites, pieces):
    rewrites(
        recognized,
        text(f"{pieces} s = Mul(n, scale) y = Add(s, bias)"),
        text(f"{SCALE} {BIAS} y = LayerNormalization(x, scale, bias) {{axis=-1, epsilon={EPSILON}}}", constants=""),
        rtol=2e-6,
    )


@pytest.mark.parametrize(
    ("rest", "after", "left"),
    [
        ("y = Mul(scale, n)", f"{SCALE} y = LayerNormalization(x, scale)", ""),
        ("y = Neg(n)", "n_scale: f32[4] = const fill 1.0 n = LayerNormalization(x, n_scale)", "y = Neg(n)"),
        ("y = Add(n, bias)", f"{BIAS} n_scale: f32[4] = const fill 1.0 n = LayerNormalization(x, n_scale)", "y = Add(n, bias)"),
        ("s = Mul(n, scale) y = Mul(s, bias)", f"{SCALE} {BIAS} s = LayerNormalization(x, scale)", "y = Mul(s, bias)"),
        (
            "c: f32[1,1,4] = const [1.5, 0.5, 2.0, 1.0] y = Mul(n, c)",
            "c_1: f32[4] = const [1.5, 0.5, 2.0, 1.0] y = LayerNormalization(x, c_1)",
            "",
        ),
    ],
)
def test_an_affine_part_that_is_left_out_or_is_another(rewrites, rest, after, left):
    done = text(f"{after} {{axis=-1, epsilon={EPSILON}}} {left}", constants="")
    rewrites(recognized, text(f"{LAYER} {rest}"), done, rtol=2e-6)


def test_a_normalization_that_is_read_before_it_is_scaled(rewrites):
    rewrites(
        recognized,
        text(f"{LAYER} s = Mul(n, scale) y = Add(s, n)"),
        text(
            f"""{SCALE} n_scale: f32[4] = const fill 1.0
              n = LayerNormalization(x, n_scale) {{axis=-1, epsilon={EPSILON}}} s = Mul(n, scale) y = Add(s, n)""",
            constants="",
        ),
        rtol=2e-6,
    )


def test_several_last_axes(rewrites):
    weights = "w: f32[2,4] = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]"
    inputs = "x: f32[batch,2,4]"
    rewrites(
        recognized,
        text(f"{weights} {LAYER.replace('axes', 'both')} y = Mul(n, w)", inputs),
        text(f"{weights} y = LayerNormalization(x, w) {{axis=-2, epsilon={EPSILON}}}", inputs, constants=""),
        rtol=2e-6,
    )


@pytest.mark.parametrize("pieces", [RMS, f"{SQUARE} r = Sqrt(e) n = Div(x, r)", f"{SQUARE} r = Pow(e, rhalf) n = Mul(r, x)"])
def test_rms_normalization(rewrites, pieces):
    rewrites(
        recognized,
        text(f"{pieces} s = Mul(scale, n) y = Add(s, bias)"),
        text(f"{SCALE} {BIAS} s = RMSNormalization(x, scale) {{axis=-1, epsilon={EPSILON}}} y = Add(s, bias)", constants=""),
        rtol=2e-6,
    )


def test_a_mean_over_other_axes_is_only_taken_off(rewrites):
    # What is left is the root mean square of the difference, whatever was taken off.
    rewrites(
        recognized,
        text(f"{LAYER.replace('ReduceMean(x, axes)', 'ReduceMean(x, middle)')} y = Mul(n, scale)"),
        text(
            f"""middle: i64[1] = const [1] {SCALE} m = ReduceMean(x, middle) {{keepdims=1}} d = Sub(x, m)
              y = RMSNormalization(d, scale) {{axis=-1, epsilon={EPSILON}}}""",
            constants="",
        ),
        rtol=2e-6,
    )


@pytest.mark.parametrize(
    "body",
    [
        f"{LAYER} y = Mul(n, n)".replace("Pow(d, two)", "Pow(d, one)"),
        f"{LAYER} y = Mul(n, n)".replace("Pow(d, two)", "Mul(d, x)"),
        f"{LAYER} y = Mul(n, n)".replace("Div(d, r)", "Div(x, r)"),
        f"{LAYER} y = Mul(n, n)".replace("Div(d, r)", "Div(r, d)"),
        f"{LAYER} y = Mul(n, n)".replace("Div(d, r)", "Mul(d, r)"),
        f"{LAYER} y = Mul(n, r)",
        f"{MEAN} {VARIANCE} r = Sqrt(e) i = Reciprocal(r) y = Mul(x, i)",  # not what the variance is of
        f"{MEAN} {VARIANCE} r = Sqrt(e) i = Reciprocal(r) y = Mul(i, i)",
        f"{LAYER} y = Mul(n, n)".replace("Add(v, epsilon)", "Sub(v, epsilon)"),
        f"{LAYER} y = Mul(n, n)".replace("Add(v, epsilon)", "Add(v, scale)"),
        f"{LAYER} y = Mul(n, n)".replace("ReduceMean(p, axes)", "ReduceSum(p, axes)"),
        f"{LAYER} y = Mul(n, n)".replace("ReduceMean(p, axes)", "ReduceMean(p, middle)"),
        f"{LAYER} y = Mul(n, n)".replace("ReduceMean(p, axes)", "ReduceMean(p)"),
        f"{MEAN} p = Pow(d, two) v = ReduceMean(p, axes) {{keepdims=0}} u = Add(v, epsilon) r = Sqrt(u) e = Unsqueeze(r, axes)"
        " y = Div(d, e)",
        f"{MEAN} {VARIANCE} r = Pow(e, two) y = Div(d, r)",
        f"{MEAN} {VARIANCE} r = Pow(e, half) y = Mul(d, r)",
        f"{MEAN} {VARIANCE} r = Pow(e, rhalf) y = Div(d, r)",
        f"{MEAN} {VARIANCE} r = Sqrt(e) i = Div(two, r) y = Mul(d, i)",
        f"{MEAN} {VARIANCE} r = Sqrt(e) i = Reciprocal(r) j = Mul(d, i) y = Mul(j, i)",
        f"{RMS} y = Mul(n, i)",
    ],
)
def test_a_formula_that_is_not_quite_it_stays(leaves, body):
    leaves(recognize_normalization, text(body))


def test_axes_that_are_not_the_last_stay(leaves):
    leaves(recognize_normalization, text(f"{LAYER.replace('axes', 'middle')} y = Relu(n)", "x: f32[2,3,4]"))


def test_features_whose_number_is_not_known_stay(leaves):
    leaves(recognize_normalization, text(f"{LAYER} y = Relu(n)", "x: f32[batch,seq,w]"))
    leaves(recognize_normalization, text(f"{LAYER} y = Mul(n, g)", "x: f32[batch,seq,w], g: f32[w]"))


def test_a_scale_that_is_computed_stays_apart(rewrites):
    rewrites(
        recognized,
        text(f"{RMS} y = Mul(n, g)", "x: f32[batch,seq,4], g: f32[4]"),
        text(
            f"n_scale: f32[4] = const fill 1.0 n = RMSNormalization(x, n_scale) {{axis=-1, epsilon={EPSILON}}} y = Mul(n, g)",
            "x: f32[batch,seq,4], g: f32[4]",
            constants="",
        ),
        rtol=2e-6,
    )


@pytest.mark.parametrize(("dtype", "code", "rtol"), [("f16", 10, 3e-3), ("bf16", 16, 3e-2)])
def test_half_floats_normalized_in_f32(rewrites, dtype, code, rtol):
    inputs = f"x0: {dtype}[batch,seq,4]"
    weights = SCALE.replace("f32", dtype)
    wide = CONSTANTS.replace(SCALE, weights)
    for pieces, op in ((RMS, "RMSNormalization"), (LAYER, "LayerNormalization")):
        rewrites(
            recognized,
            text(f"x = Cast(x0) {{to=1}} {pieces} c = Cast(n) {{to={code}}} y = Mul(scale, c)", inputs, wide),
            text(f"{weights} y = {op}(x0, scale) {{axis=-1, epsilon={EPSILON}}}", inputs, ""),
            rtol=rtol,
        )


def test_rms_normalization_gives_the_type_of_its_scale(rewrites):
    weights = SCALE.replace("f32", "f16")
    rewrites(
        recognized,
        text(f"{RMS} c = Cast(n) {{to=10}} y = Mul(c, scale)", constants=CONSTANTS.replace(SCALE, weights)),
        text(f"{weights} y = RMSNormalization(x, scale) {{axis=-1, epsilon={EPSILON}}}", constants=""),
        rtol=3e-3,
    )
    rewrites(
        recognized,
        text(f"x = Cast(x0) {{to=1}} {RMS} c = Cast(n) {{to=16}} y = Neg(c)", "x0: f16[batch,seq,4]"),
        text(
            f"""x = Cast(x0) {{to=1}} c_scale: bf16[4] = const fill 1.0
              c = RMSNormalization(x, c_scale) {{axis=-1, epsilon={EPSILON}}} y = Neg(c)""",
            "x0: f16[batch,seq,4]",
            "",
        ),
        rtol=1e-2,
    )


@pytest.mark.parametrize(("before", "code"), [("f16", 16), ("f16", 11), ("f64", 10)])
def test_casts_that_layer_normalization_cannot_do_stay(rewrites, before, code):
    inputs = f"x0: {before}[batch,seq,4]"
    rewrites(
        recognized,
        text(f"x = Cast(x0) {{to=1}} {LAYER} c = Cast(n) {{to={code}}} y = Neg(c)", inputs),
        text(
            f"""x = Cast(x0) {{to=1}} n_scale: f32[4] = const fill 1.0
              n = LayerNormalization(x, n_scale) {{axis=-1, epsilon={EPSILON}}} c = Cast(n) {{to={code}}} y = Neg(c)""",
            inputs,
            "",
        ),
        rtol=1e-2,
    )


def test_double_precision_stays_that(rewrites):
    double = CONSTANTS.replace("f32", "f64")
    scale = SCALE.replace("f32", "f64")
    rewrites(
        recognized,
        text(f"{LAYER} y = Mul(n, scale)", "x: f64[batch,seq,4]", double),
        text(f"{scale} y = LayerNormalization(x, scale) {{axis=-1, epsilon=1e-05, stash_type=11}}", "x: f64[batch,seq,4]", ""),
        rtol=1e-12,
    )


# -- Groups ------------------------------------------------------------------------------------------------------------

GROUPS = """
  apart: i64[3] = const [0, 2, -1]
  back: i64[4] = const [0, 4, 3, 5]
  ones: f32[2] = const [1.0, 1.0]
  zeros: f32[2] = const [0.0, 0.0]
  g = Reshape(x, apart)
  n = InstanceNormalization(g, ones, zeros) {epsilon=0.01}
  r = Reshape(n, back)
"""
CHANNELS = """scale: f32[4,1,1] = const [1.5, 0.5, 2.0, 1.0] bias: f32[1,4,1,1] = const [0.5, -1.0, 0.0, 2.0]"""
FLAT = "scale_1: f32[4] = const [1.5, 0.5, 2.0, 1.0]"
IMAGE = "x: f32[batch,4,3,5]"


@pytest.mark.parametrize(
    ("body", "after"),
    [
        (
            f"{CHANNELS} {GROUPS} s = Mul(r, scale) y = Add(s, bias)",
            f"{FLAT} bias_1: f32[4] = const [0.5, -1.0, 0.0, 2.0] y = GroupNormalization(x, scale_1, bias_1)",
        ),
        (
            f"{CHANNELS} {GROUPS} y = Mul(scale, r)",
            f"{FLAT} y_bias: f32[4] = const fill 0.0 y = GroupNormalization(x, scale_1, y_bias)",
        ),
    ],
)
def test_group_normalization(rewrites, body, after):
    rewrites(recognized, text(body, IMAGE, ""), text(f"{after} {{epsilon=0.01, num_groups=2}}", IMAGE, ""), rtol=2e-6)


def test_group_normalization_without_an_affine_part(rewrites):
    after = """r_scale: f32[4] = const fill 1.0 r_bias: f32[4] = const fill 0.0
      r = GroupNormalization(x, r_scale, r_bias) {epsilon=0.01, num_groups=2} y = Neg(r)"""
    rewrites(recognized, text(f"{GROUPS} y = Neg(r)", IMAGE, ""), text(after, IMAGE, ""), rtol=2e-6)


@pytest.mark.parametrize(
    "body",
    [
        f"{GROUPS} y = Neg(r)".replace("const [1.0, 1.0]", "const [1.0, 2.0]"),
        f"{GROUPS} y = Neg(r)".replace("const [0.0, 0.0]", "const [0.0, 1.0]"),
        f"{GROUPS} y = Neg(r)".replace("[0, 4, 3, 5]", "[0, 4, 5, 3]"),
        f"{GROUPS} m = Neg(n) y = Neg(r)".replace("y = Neg(r)", "u = ReduceSum(m) y = Add(r, u)"),
        f"{GROUPS} y = Neg(r)".replace("[0, 2, -1]", "[3, 2, -1]").replace("[0, 4, 3, 5]", "[2, 4, 3, 5]"),  # across the batch
        "ones: f32[4] = const fill 1.0 zeros: f32[4] = const fill 0.0 y = InstanceNormalization(x, ones, zeros)",
    ],
)
def test_what_is_no_group_normalization_stays(leaves, body):
    leaves(recognize_normalization, text(body, IMAGE.replace("batch", "2") if "[3, 2" in body else IMAGE, ""))


def test_groups_that_do_not_part_the_channels_stay(leaves):
    body = GROUPS.replace("[0, 2, -1]", "[0, 3, -1]").replace("f32[2]", "f32[3]").replace("1.0]", "1.0, 1.0]")
    leaves(recognize_normalization, text(body.replace("0.0]", "0.0, 0.0]") + " y = Neg(r)", IMAGE, ""))


@pytest.mark.parametrize("operand", ["c: f32[5] = const [1.0, 2.0, 3.0, 4.0, 5.0]", "c: f32[2,4,1,1] = const fill 2.0"])
def test_what_is_no_number_per_channel_stays_apart(rewrites, operand):
    image = IMAGE.replace("batch", "2")
    after = f"""r_scale: f32[4] = const fill 1.0 r_bias: f32[4] = const fill 0.0 {operand}
      r = GroupNormalization(x, r_scale, r_bias) {{epsilon=0.01, num_groups=2}} y = Mul(r, c)"""
    rewrites(recognized, text(f"{GROUPS} {operand} y = Mul(r, c)", image, ""), text(after, image, ""), rtol=2e-6)
