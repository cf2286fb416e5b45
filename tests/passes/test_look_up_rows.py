"""look_up_rows: rows that are moved in front of a normalization, or behind one, are looked up."""

import collections

import numpy as np
import pytest

from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.passes.look_up_rows import look_up_rows

AFFINE = 'g: f32[8] = const large "mapped g" b: f32[8] = const large "mapped b"'
CUT = """cut: i64[6] = const [0, 2, 2, 2, 3, 8] c = Reshape(Y, cut) t = Transpose(c) {perm=[0, 1, 3, 2, 4, 5]}
         windows: i64[3] = const [-1, 6, 8] z = Reshape(t, windows)"""
BACK = """cut: i64[6] = const [-1, 2, 2, 2, 3, 8] c = Reshape(x, cut) t = Transpose(c) {perm=[0, 1, 3, 2, 4, 5]}
          image: i64[4] = const [-1, 4, 6, 8] y = Reshape(t, image)"""


def rolled(x, y, axis, by, size):
    """The text of ``y``, which is ``x`` rolled by so many places along an axis of ``size``."""
    return f"""from_{y}: i64[1] = const [{by}] end_{y}: i64[1] = const [{size}]
      none_{y}: i64[1] = const [0] axis_{y}: i64[1] = const [{axis}]
      one_{y} = Slice({x}, from_{y}, end_{y}, axis_{y}) two_{y} = Slice({x}, none_{y}, from_{y}, axis_{y})
      {y} = Concat(one_{y}, two_{y}) {{axis={axis}}}"""


ROLL = f"{rolled('Y', 'half', 1, 1, 4)} {rolled('half', 's', 2, 2, 6)}"
TEXTS = {
    "windows behind a norm": f"(x: f32[batch,4,6,8]) {{ {AFFINE} n = LayerNormalization(x, g, b) {CUT} y = Relu(z)".replace(
        "Y", "n"
    ),
    "rolled windows": f"(x: f32[batch,4,6,8]) {{ {AFFINE} n = RMSNormalization(x, g) "
    f"{ROLL.replace('Y', 'n')} {CUT.replace('Y', 's')} y = Relu(z)",
    "in front of a norm": f"(x: f32[4*batch,6,8]) {{ {AFFINE} {BACK.replace('y =', 'i =')} y = LayerNormalization(i, g, b)",
    "added up": f"(x: f32[4*batch,6,8], r: f32[batch,4,6,8]) {{ {AFFINE} {BACK.replace('y =', 'i =')} "
    "a = Add(r, i) y = LayerNormalization(a, g, b)",
    "rolled back and added up": f"(x: f32[4*batch,6,8], r: f32[batch,4,6,8]) {{ {AFFINE} "
    f"{BACK.replace('y =', 'i =')} {ROLL.replace('Y', 'i')} a = Add(s, r) y = LayerNormalization(a, g, b)",
    "rows that others read as well": f"(x: f32[4*batch,6,8]) {{ {AFFINE} {BACK.replace('y =', 'i =')} "
    "n = LayerNormalization(i, g, b) y = Add(n, i)",
}


def ops(graph):
    return collections.Counter(n.op for n in graph if n.op != "Reshape")


@pytest.mark.parametrize("batch", ["batch", "1", "3"])
@pytest.mark.parametrize("name", TEXTS)
def test_one_gather_is_all_that_moves(graph_of, outputs_of, name, batch):
    text = f"graph main{TEXTS[name]} return y }}".replace("4*batch", "4*batch" if batch == "batch" else str(4 * int(batch or 0)))
    graph = graph_of(text.replace("batch", batch))
    before, moved = outputs_of(graph), ops(graph)
    assert look_up_rows(graph) == 1
    verify(graph)
    for expected, actual in zip(before, outputs_of(graph), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
    left = {op: n for op, n in moved.items() if op not in ("Slice", "Concat", "Transpose")}
    assert ops(graph) == {**left, "Gather": 1}
    assert look_up_rows(graph) == 0
    (gather,) = (n for n in graph if n.op == "Gather")
    assert gather.output.users[0].op in ("LayerNormalization", "RMSNormalization", "Add", "Relu")


def test_windows_behind_a_norm(rewrites):
    rewrites(
        look_up_rows,
        f"graph main{TEXTS['windows behind a norm']} return y }}",
        f"""graph main(x: f32[batch,4,6,8]) {{
          {AFFINE}
          z_flat_shape: i64[3] = const [0, 24, 8]
          z_flat = Reshape(x, z_flat_shape)
          z_places: i32[4,6] = const [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11, 12, 13, 14, 18, 19, 20, 15, 16, 17, 21, 22, 23]
          z_rows = Gather(z_flat, z_places) {{axis=1}}
          n_1 = LayerNormalization(z_rows, g, b) {{axis=-1}} @n
          z_shape: i64[3] = const [-1, 6, 8]
          z_1 = Reshape(n_1, z_shape)
          y = Relu(z_1)
          return y
        }}""".replace(
            'large "mapped g"', "[1.203348, -1.1797842, 0.74815243, -1.0995804, 1.1718007, -1.4560715, -0.610531, -0.5066609]"
        ).replace(
            'large "mapped b"', "[-0.987591, -1.1446214, 0.6605265, 0.7888188, 0.5281323, 1.166282, -0.20711277, 0.6903191]"
        ),
        rtol=1e-6,
    )


def test_four_neighbours_are_one_row_that_is_normalized(graph_of, outputs_of):
    every = "".join(
        f"s{i}: i64[2] = const [{i // 2}, {i % 2}] e{i}: i64[2] = const [4, 6] p{i} = Slice(x, s{i}, e{i}, axes, two) "
        for i in range(4)
    )
    graph = graph_of(
        f"""graph main(x: f32[batch,4,6,8]) {{
          axes: i64[2] = const [1, 2] two: i64[2] = const [2, 2] {every}
          w: f32[32] = const large "mapped w"
          j = Concat(p0, p2, p1, p3) {{axis=-1}}
          y = RMSNormalization(j, w)
          return y
        }}"""
    )
    before = outputs_of(graph)
    assert look_up_rows(graph) == 1
    verify(graph)
    np.testing.assert_array_equal(outputs_of(graph)[0], before[0])
    assert ops(graph) == {"Gather": 1, "RMSNormalization": 1}


def changed(name, *changes):
    text = TEXTS[name]
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return f"graph main{text} return y }}"


WINDOWS, FRONT = "windows behind a norm", "in front of a norm"
NEAR = {
    "rows stay": changed(WINDOWS, ("perm=[0, 1, 3, 2, 4, 5]", "perm=[0, 1, 2, 3, 4, 5]")),
    "parts of rows move": changed(WINDOWS, ("perm=[0, 1, 3, 2, 4, 5]", "perm=[0, 1, 2, 3, 5, 4]")),
    "the batch moves": changed(WINDOWS, ("perm=[0, 1, 3, 2, 4, 5]", "perm=[1, 0, 3, 2, 4, 5]")),
    "somebody reads the norm as it is": changed(WINDOWS, ("y = Relu(z)", "v = Relu(z) u = Relu(n) y = Concat(u, u) {axis=0}")),
    "the graph returns what is moved": changed(WINDOWS, ("y = Relu(z)", "y = Identity(z)")).replace(
        "y = Identity(z) return y", "return z"
    ),
    "of another axis": changed(
        WINDOWS, ("LayerNormalization(x, g, b)", "LayerNormalization(x, g, b) {axis=2}"), ("f32[8]", "f32[6,8]")
    ),
    "nothing is normalized": changed(FRONT, ("LayerNormalization(i, g, b)", "Mul(i, g)")),
    "rolled along the batch": f"graph main(x: f32[batch,6,8]) {{ {AFFINE} {rolled('x', 's', 0, 1, 99)} "
    "y = LayerNormalization(s, g, b) return y }",
    "a part that is read where it lies": f"graph main(x: f32[batch,4,8]) {{ {AFFINE} one: i64[1] = const [1] "
    "two: i64[1] = const [2] p = Slice(x, one, two, one) y = LayerNormalization(p, g, b) return y }",
    "from two tensors": f"graph main(x: f32[batch,4,8], r: f32[batch,4,8]) {{ {AFFINE} j = Concat(r, x) {{axis=1}} "
    "y = LayerNormalization(j, g, b) return y }",
}


@pytest.mark.parametrize("text", NEAR.values(), ids=NEAR.keys())
def test_near_misses(leaves, text):
    leaves(look_up_rows, text)
