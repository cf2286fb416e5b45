"""fold_batch_norm: constant statistics become one Mul and one Add."""

import pytest

from miniinfer_cli.passes.fold_batch_norm import fold_batch_norm

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
    graph = graph_of(f"graph main(x: f16[2,2,3]) {{ {STATISTICS} y = BatchNormalization(x, g, b, m, v) return y }}")
    assert fold_batch_norm(graph) == 1
    assert [str(v.type) for v in graph.constants()] == ["f16[2,1]", "f16[2,1]"]
    assert str(graph.outputs[0].type) == "f16[2,2,3]"


STAYING = {
    "training": "y, p, q = BatchNormalization(x, g, b, m, v) {training_mode=1} return y, p, q",
    "training whose statistics nobody asks for": "y = BatchNormalization(x, g, b, m, v) {training_mode=1} return y",
    "computed statistics": "y = BatchNormalization(x, g, b, c, v) return y",
    "unknown rank": "y = BatchNormalization(u, g, b, m, v) return y",
}


@pytest.mark.parametrize("body", STAYING.values(), ids=STAYING.keys())
def test_other_normalizations_stay(leaves, body):
    leaves(fold_batch_norm, f"graph main(x: f32[2,2,3], c: f32[2], u: f32[?]) {{ {STATISTICS} {body} }}")
