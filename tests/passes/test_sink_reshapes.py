"""sink_reshapes: fully connected layers on flattened sequences are done on the sequences."""

import pytest

from miniinfer_cli.passes.cancel_reshapes import cancel_reshapes
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes
from miniinfer_cli.passes.remove_identities import remove_identities
from miniinfer_cli.passes.sink_reshapes import sink_reshapes


def sink(graph):
    count = sink_reshapes(graph)
    cancel_reshapes(graph)
    remove_identities(graph)
    remove_dead_nodes(graph)
    return count


def test_a_layer_is_done_on_the_sequence(rewrites):
    rewrites(
        sink,
        """graph main(x: f32[batch,seq,40]) {
          flat: i64[2] = const [-1, 40]
          rows = Reshape(x, flat)
          w: f32[40,36] = const large "mapped w"
          y = MatMul(rows, w)
          b: f32[36] = const large "mapped b"
          z = Add(b, y)
          r = Relu(z)
          s = Shape(x)
          first: i64[1] = const [0]
          batch_ = Gather(s, first)
          second: i64[1] = const [1]
          seq_ = Gather(s, second)
          six: i64[1] = const [36]
          back = Concat(batch_, seq_, six) {axis=0}
          out = Reshape(r, back)
          return out
        }""",
        """graph main(x: f32[batch,seq,40]) {
          w: f32[40,36] = const large "mapped w"
          y_rows = MatMul(x, w) @y
          b: f32[36] = const large "mapped b"
          z_rows = Add(b, y_rows) @z
          r_rows = Relu(z_rows) @r
          return out=r_rows
        }""",
        fired=3,
        rtol=1e-5,
    )


def test_normalizations_over_the_rows_are_passed(rewrites):
    rewrites(
        sink,
        """graph main(x: f32[batch,seq,4]) {
          flat: i64[2] = const [-1, 4]
          rows = Reshape(x, flat)
          g: f32[4] = const [1.0, 2.0, 3.0, 4.0]
          n = LayerNormalization(rows, g) {axis=1}
          p = Softmax(n) {axis=-1}
          back: i64[3] = const [2, -1, 4]
          out = Reshape(p, back)
          out3 = Neg(out)
          return out3
        }""".replace("[batch,", "[2,"),
        """graph main(x: f32[2,seq,4]) {
          g: f32[4] = const [1.0, 2.0, 3.0, 4.0]
          n_rows = LayerNormalization(x, g) {axis=-1} @n
          p_rows = Softmax(n_rows) {axis=-1} @p
          out3 = Neg(p_rows)
          return out3
        }""",
        fired=2,
    )


STAYING = {
    "nothing brings the shape back": "y = MatMul(rows, w) return y",
    "another shape comes": "y = MatMul(rows, w) s: i64[3] = const [3, -1, 2] z = Reshape(y, s) return z",
    "the rows are mixed": "y = Softmax(rows) {axis=0} s: i64[3] = const [2, -1, 4] z = Reshape(y, s) return z",
    "the other operand has rows": "y = Add(rows, r) s: i64[3] = const [2, -1, 4] z = Reshape(y, s) return z",
    "the result has another reader": "y = Relu(rows) s: i64[3] = const [2, -1, 4] z = Reshape(y, s) n = Neg(y) return z, n",
}  # fmt: skip


@pytest.mark.parametrize("body", STAYING.values(), ids=STAYING.keys())
def test_reshapes_stay_where_they_are_not_undone(leaves, body):
    leaves(
        sink_reshapes,
        f"""graph main(x: f32[2,3,4], r: f32[6,4]) {{
          flat: i64[2] = const [-1, 4]
          rows = Reshape(x, flat)
          w: f32[4,6] = const large "mapped w"
          {body}
        }}""",
    )


def test_a_reshape_that_changes_the_rows_stays(leaves):
    leaves(
        sink_reshapes,
        """graph main(x: f32[2,3,4]) {
          flat: i64[2] = const [2, 12]
          rows = Reshape(x, flat)
          y = Relu(rows)
          back: i64[3] = const [2, 3, 4]
          z = Reshape(y, back)
          return z
        }""",
    )
