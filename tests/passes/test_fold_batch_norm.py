"""fold_batch_norm: constant statistics go into the convolution before, or become one Mul and one Add."""

import numpy as np
import pytest

from miniinfer_cli.ir import DType, Numerics
from miniinfer_cli.passes.fold_batch_norm import fold_batch_norm
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes

STATISTICS = """
  g: f32[2] = const [1.0, 2.0]
  b: f32[2] = const [0.5, -1.0]
  m: f32[2] = const [1.0, 3.0]
  v: f32[2] = const [3.0, 0.0]
"""


@pytest.mark.parametrize(("x", "shape"), [("f32[batch,2,h,w]", "2,1,1"), ("f32[batch,2,seq]", "2,1"), ("f32[batch,2]", "2")])
def test_the_statistics_become_a_scale_and_a_shift(rewrites, x, shape):
    rewrites(
        fold_batch_norm,
        f"graph main(x: {x}) {{ {STATISTICS} y = BatchNormalization(x, g, b, m, v) {{epsilon=1.0}} return y }}",
        f"""graph main(x: {x}) {{
          y_scale: f32[{shape}] = const [0.5, 2.0]
          y_scaled = Mul(x, y_scale)
          y_shift: f32[{shape}] = const [0.0, -7.0]
          y = Add(y_scaled, y_shift)
          return y
        }}""",
        rtol=1e-6,
    )


def test_epsilon_has_a_default(graph_of, outputs_of):
    graph = graph_of(f"graph main(x: f32[2,2,3]) {{ {STATISTICS} y = BatchNormalization(x, g, b, m, v) return y }}")
    (before,) = outputs_of(graph)
    fold_batch_norm(graph)
    assert abs(outputs_of(graph)[0] - before).max() < 1e-5 * abs(before).max()


def test_half_width_inputs_keep_their_type(graph_of):
    graph = graph_of(
        f"graph main(x: f16[2,2,3]) {{ {STATISTICS} y = BatchNormalization(x, g, b, m, v) {{epsilon=1.0}} return y }}"
    )
    assert fold_batch_norm(graph) == 1
    assert [str(v.type) for v in graph.constants()] == ["f16[2,1]", "f16[2,1]"]
    assert str(graph.outputs[0].type) == "f16[2,2,3]"


CONVOLUTIONS = {
    "Conv": "Conv(x, w)",
    "Conv with bias": "Conv(x, w, k)",
    "ConvTranspose": "ConvTranspose(x, w)",
    "ConvTranspose with bias": "ConvTranspose(x, w, k)",
}


@pytest.mark.parametrize("op", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_behind_a_convolution_it_disappears(graph_of, outputs_of, op):
    graph = graph_of(
        f"""graph main(x: f32[2,3,5,5]) {{
          w: f32[3,3,3,3] = const large "mapped w"
          k: f32[3] = const [-1, 0, 4]
          y = {op}
          g: f32[3] = const [1, 2, 3]
          b: f32[3] = const [3, 2, 1]
          m: f32[3] = const [0.1, 0.2, 0.3]
          v: f32[3] = const [1, 0.5, 2]
          z = BatchNormalization(y, g, b, m, v)
          return z
        }}"""
    )
    (before,) = outputs_of(graph)
    assert fold_batch_norm(graph) == 1
    remove_dead_nodes(graph)
    assert [n.op for n in graph] == [op.split("(")[0]]
    assert abs(outputs_of(graph)[0] - before).max() < 1e-5 * abs(before).max()


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_half_width_weights_are_rounded_once(graph_of, dtype):
    graph = graph_of(
        f"""graph main(x: {dtype}[1,1,9]) {{
          w: {dtype}[1,1,8] = const [0.11, 0.23, 0.37, 0.41, 0.53, 0.61, 0.77, 0.97]
          c: {dtype}[1] = const [7.0]
          y = Conv(x, w, c)
          g: {dtype}[1] = const [0.7]
          b: {dtype}[1] = const [0.3]
          m: {dtype}[1] = const [0.9]
          v: {dtype}[1] = const [3.0]
          z = BatchNormalization(y, g, b, m, v) {{epsilon=0.0}}
          return z
        }}"""
    )
    given = {v.name: v.constant.array() for v in graph.constants()}
    kind = given["w"].dtype
    given = {name: array.astype(np.float64).reshape(-1) for name, array in given.items()}
    assert fold_batch_norm(graph) == 1
    remove_dead_nodes(graph)
    weight, bias = (v.constant.array().reshape(-1) for v in graph.constants())
    scale = given["g"] / np.sqrt(given["v"])
    exact = given["w"] * scale
    step = np.nextafter(weight, kind.type(np.inf)).astype(np.float64) - weight.astype(np.float64)
    assert (abs(weight - exact) < step).all()
    assert abs(weight.astype(np.float64).sum() - exact.sum()) <= step.max() / 2  # see sum_rounding
    assert (bias == ((given["c"] - given["m"]) * scale + given["b"]).astype(kind)).all()
    rounded = scale.astype(kind).astype(np.float64)
    assert (weight != (given["w"] * rounded).astype(kind)).any()


@pytest.mark.parametrize("also", ["return z, y", "u = Conv(z, w) return u"], ids=["its input is returned", "weights are shared"])
def test_what_somebody_else_needs_is_left_alone(graph_of, outputs_of, also):
    graph = graph_of(
        f"""graph main(x: f32[2,3,5,5]) {{
          w: f32[3,3,1,1] = const large "mapped w"
          y = Conv(x, w)
          g: f32[3] = const [1, 2, 3]
          b: f32[3] = const [3, 2, 1]
          z = BatchNormalization(y, g, b, b, g)
          {also}
        }}"""
    )
    before = outputs_of(graph)
    assert fold_batch_norm(graph) == 1
    remove_dead_nodes(graph)
    assert [n.op for n in graph][:3] == ["Conv", "Mul", "Add"]
    for got, want in zip(outputs_of(graph), before, strict=True):
        assert abs(got - want).max() < 1e-5 * abs(want).max()


STAYING = {
    "training": "y, p, q = BatchNormalization(x, g, b, m, v) {training_mode=1} return y, p, q",
    "training whose statistics nobody asks for": "y = BatchNormalization(x, g, b, m, v) {training_mode=1} return y",
    "computed statistics": "y = BatchNormalization(x, g, b, c, v) return y",
    "unknown rank": "y = BatchNormalization(u, g, b, m, v) return y",
}


@pytest.mark.parametrize("body", STAYING.values(), ids=STAYING.keys())
def test_other_normalizations_stay(leaves, body):
    leaves(fold_batch_norm, f"graph main(x: f32[2,2,3], c: f32[2], u: f32[?]) {{ {STATISTICS} {body} }}")


@pytest.mark.parametrize(("half", "folded"), [(None, True), (DType.BF16, True), (DType.F16, False)])
def test_what_weights_are_going_to_be_stored_in_has_to_hold_them(graph_of, half, folded):
    """A factor of 1e6 is nothing to f32 and bf16, and beyond f16, in the weights and by itself."""
    statistics = STATISTICS.replace("g: f32[2] = const [1.0, 2.0]", "g: f32[2] = const [1e6, 2.0]")
    graph = graph_of(f"""graph main(x: f32[2,3,4,4]) {{ {statistics}
      w: f32[2,3,1,1] = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
      c = Conv(x, w)
      y = BatchNormalization(c, g, b, m, v) {{epsilon=1.0}}
      return y
    }}""")
    graph.numerics = None if half is None else Numerics(half)
    assert fold_batch_norm(graph) == folded
    assert ("BatchNormalization" not in [n.op for n in graph]) is folded
