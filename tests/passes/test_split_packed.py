"""split_packed: parts that are picked from a rearranged tensor are split off before it is rearranged."""

import pytest

from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.passes.cancel_reshapes import cancel_reshapes
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes
from miniinfer_cli.passes.split_packed import split_packed


def test_queries_keys_and_values_are_split_off_the_projection(rewrites):
    rewrites(
        split_packed,
        """graph main(x: f32[batch,seq,24]) {
          s: i64[5] = const [0, 0, 3, 2, 4]
          a = Reshape(x, s)
          t = Transpose(a) {perm=[2, 0, 3, 1, 4]}
          zero: i64[] = const 0
          q = Gather(t, zero)
          one: i64[] = const 1
          k = Gather(t, one)
          last: i64[] = const -1
          v = Gather(t, last) {axis=0}
          return q, k, v
        }""",
        """graph main(x: f32[batch,seq,24]) {
          x_part, x_part_1, x_part_2 = Split(x) {axis=2, num_outputs=3}
          q_cut_shape: i64[4] = const [0, 0, 2, 4]
          q_cut = Reshape(x_part, q_cut_shape)
          q = Transpose(q_cut) {perm=[0, 2, 1, 3]}
          k_cut_shape: i64[4] = const [0, 0, 2, 4]
          k_cut = Reshape(x_part_1, k_cut_shape)
          k = Transpose(k_cut) {perm=[0, 2, 1, 3]}
          v_cut_shape: i64[4] = const [0, 0, 2, 4]
          v_cut = Reshape(x_part_2, v_cut_shape)
          v = Transpose(v_cut) {perm=[0, 2, 1, 3]}
          return q, k, v
        }""",
    )


SLICES = " ".join(
    f"a{i}: i64[1] = const [{i}] e{i}: i64[1] = const [{i + 1}] k{i} = Slice(t, a{i}, e{i}, a0) p{i} = Squeeze(k{i}, a0)"
    for i in range(3)
)
PICKED = {
    "Split and Squeeze": "a0: i64[1] = const [0] k0, k1, k2 = Split(t) {axis=0, num_outputs=3} "
    "p0 = Squeeze(k0, a0) p1 = Squeeze(k1, a0) p2 = Squeeze(k2, a0)",
    "Slice and Squeeze": SLICES,
    "some of the parts": SLICES.replace("p1 = Squeeze(k1, a0)", "p1 = Neg(k1)"),
}


@pytest.mark.parametrize("picks", PICKED.values(), ids=PICKED.keys())
@pytest.mark.parametrize(
    ("x", "cut", "perm"),
    [
        ("f32[batch,seq,24]", [0, 0, 3, 2, 4], [2, 0, 3, 1, 4]),  # packed columns
        ("f32[batch,24,seq]", [0, 3, 8, -1], [1, 0, 3, 2]),  # packed channels
        ("f32[6,seq]", [3, 2, -1], [0, 1, 2]),  # no Transpose needed in the first place
    ],
)
def test_every_way_of_picking_is_known(graph_of, outputs_of, picks, x, cut, perm):
    graph = graph_of(
        f"""graph main(x: {x}) {{
          s: i64[{len(cut)}] = const {cut}
          r = Reshape(x, s)
          t = Transpose(r) {{perm={perm}}}
          {picks}
          return p0, p1, p2
        }}"""
    )
    before = outputs_of(graph)
    assert split_packed(graph) == 1
    cancel_reshapes(graph)
    remove_dead_nodes(graph)
    verify(graph)
    assert [n.op for n in graph].count("Split") == 1
    assert "Slice" not in {n.op for n in graph}
    for expected, actual in zip(before, outputs_of(graph), strict=True):
        assert (expected.shape == actual.shape) and (expected == actual).all()
    assert split_packed(graph) == 0


STAYING = {
    "the whole is read": "z: i64[] = const 0 p = Gather(t, z) return p, t",
    "two axes are picked from": "z: i64[] = const 0 p = Gather(t, z) q = Gather(t, z) {axis=1} return p, q",
    "several are picked at once": "z: i64[2] = const [0, 1] p = Gather(t, z) return p",
    "what is picked is computed": "p = Gather(t, n) return p",
    "larger parts": "p, q = Split(t) {axis=2, num_outputs=2} return p, q",
    "a slice of two parts": "a: i64[1] = const [0] b: i64[1] = const [2] p = Slice(t, a, b, a) return p",
    "something else reads it": "z: i64[] = const 0 p = Gather(t, z) q = Neg(t) return p, q",
}


@pytest.mark.parametrize("body", STAYING.values(), ids=STAYING.keys())
def test_other_readers_keep_it_whole(leaves, body):
    leaves(
        split_packed,
        f"""graph main(x: f32[2,5,24], n: i64[]) {{
          s: i64[5] = const [0, 0, 3, 2, 4]
          r = Reshape(x, s)
          t = Transpose(r) {{perm=[2, 0, 3, 1, 4]}}
          {body}
        }}""",
    )


def test_parts_that_alternate_stay_packed(leaves):
    """[..., heads, 3, size]: a part is not one run of the columns."""
    leaves(
        split_packed,
        """graph main(x: f32[2,5,24]) {
          s: i64[5] = const [0, 0, 2, 3, 4]
          r = Reshape(x, s)
          t = Transpose(r) {perm=[3, 0, 2, 1, 4]}
          z: i64[] = const 0
          p = Gather(t, z)
          return p
        }""",
    )
