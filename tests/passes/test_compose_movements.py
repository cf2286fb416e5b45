"""compose_movements: chains of views and Transposes become as short as they can be, and move data once at most."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.passes.compose_movements import compose_movements
from tests.passes.graphs import read_graph, run_graph


def test_the_patches_of_a_vision_transformer_only_merge(rewrites):
    rewrites(
        compose_movements,
        """graph main(x: f32[batch,7,5,3]) {
          a = Transpose(x) {perm=[0, 3, 1, 2]}
          s: i64[3] = const [0, 3, 35]
          b = Reshape(a, s)
          c = Transpose(b) {perm=[0, 2, 1]}
          return c
        }""",
        """graph main(x: f32[batch,7,5,3]) {
          c_shape: i64[3] = const [0, 35, 3]
          c = Reshape(x, c_shape)
          return c
        }""",
    )


def test_an_axis_is_cut_and_permuted_once(rewrites):
    rewrites(
        compose_movements,
        """graph main(x: f32[batch,35,6]) {
          a = Transpose(x) {perm=[0, 2, 1]}
          s: i64[4] = const [0, 6, 7, 5]
          b = Reshape(a, s)
          c = Transpose(b) {perm=[0, 2, 1, 3]} @/last
          return c
        }""",
        """graph main(x: f32[batch,35,6]) {
          c_cut_shape: i64[4] = const [0, 7, 5, 6]
          c_cut = Reshape(x, c_cut_shape)
          c = Transpose(c_cut) {perm=[0, 1, 3, 2]} @/last
          return c
        }""",
    )


def test_axes_of_size_one_come_and_go_for_free(rewrites):
    rewrites(
        compose_movements,
        """graph main(x: f32[seq,batch,12]) {
          s: i64[4] = const [0, 0, 3, 4]
          a = Reshape(x, s)
          zero: i64[1] = const [0]
          b = Unsqueeze(a, zero)
          c = Transpose(b) {perm=[3, 1, 2, 0, 4]}
          three: i64[1] = const [3]
          d = Squeeze(c, three)
          return d
        }""",
        """graph main(x: f32[seq,batch,12]) {
          d_cut_shape: i64[4] = const [0, 0, 3, 4]
          d_cut = Reshape(x, d_cut_shape)
          d = Transpose(d_cut) {perm=[2, 0, 1, 3]}
          return d
        }""",
    )


@pytest.mark.parametrize(
    ("x", "perm", "target"),
    [
        ("f32[batch,1,1,8]", [0, 3, 1, 2], [0, 8, 1, 1]),
        ("f32[batch,seq,1]", [0, 2, 1], [0, 1, -1]),
        ("f32[1,batch]", [1, 0], [-1, 1]),
        ("f32[1,1,3]", [2, 0, 1], [3, 1, 1]),
    ],
)
def test_a_transpose_that_moves_no_data_is_a_reshape(rewrites, x, perm, target):
    rewrites(
        compose_movements,
        f"graph main(x: {x}) {{ y = Transpose(x) {{perm={perm}}} return y }}",
        f"graph main(x: {x}) {{ y_shape: i64[{len(target)}] = const {target} y = Reshape(x, y_shape) return y }}",
    )


def test_a_chain_that_ends_where_it_began_goes(rewrites):
    rewrites(
        compose_movements,
        """graph main(x: f32[batch,4,6]) {
          a = Flatten(x)
          s: i64[3] = const [0, 6, 4]
          b = Transpose(x) {perm=[0, 2, 1]}
          t: i64[4] = const [0, 2, 3, 4]
          c = Reshape(b, t)
          u: i64[3] = const [0, 6, 4]
          d = Reshape(c, u)
          e = Transpose(d) {perm=[0, 2, 1]}
          f = Neg(e)
          return f, a
        }""",
        """graph main(x: f32[batch,4,6]) {
          a = Flatten(x)
          f = Neg(x)
          return f, a
        }""",
    )


STAYING = {
    "a transpose": ("f32[2,3,4]", "y = Transpose(x) {perm=[0, 2, 1]}"),
    "heads split off": (
        "f32[batch,seq,12]",
        "s: i64[4] = const [0, 0, 3, 4] a = Reshape(x, s) y = Transpose(a) {perm=[0, 2, 1, 3]}",
    ),
    "a cut through two axes": ("f32[6,4]", "s: i64[2] = const [4, 6] a = Reshape(x, s) y = Transpose(a)"),
    "sizes that cannot be asked for": ("f32[1,batch,seq]", "y = Transpose(x) {perm=[1, 2, 0]}"),
    "an empty tensor": ("f32[0,1,3]", "y = Transpose(x) {perm=[0, 2, 1]}"),
    "an unknown rank": ("f32[?]", "y = Transpose(x) {perm=[0, 1]}"),
}  # fmt: skip


@pytest.mark.parametrize(("x", "body"), STAYING.values(), ids=STAYING.keys())
def test_what_cannot_be_shorter_stays(leaves, x, body):
    leaves(compose_movements, f"graph main(x: {x}) {{ {body} return y }}")


def test_a_value_between_that_is_read_elsewhere_begins_a_chain_of_its_own(rewrites):
    rewrites(
        compose_movements,
        """graph main(x: f32[2,7,5,3]) {
          a = Transpose(x) {perm=[0, 3, 1, 2]}
          b = Transpose(a) {perm=[0, 2, 3, 1]}
          s: i64[2] = const [2, 105]
          c = Reshape(b, s)
          return c, a
        }""",
        """graph main(x: f32[2,7,5,3]) {
          a = Transpose(x) {perm=[0, 3, 1, 2]}
          b = Transpose(a) {perm=[0, 2, 3, 1]}
          s: i64[2] = const [2, 105]
          c = Reshape(b, s)
          return c, a
        }""",
        fired=0,
    )


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_chain_keeps_its_numbers_and_never_grows(data):
    """Random Transposes and views of small factors: the same numbers, no more Transposes, no more nodes."""
    sizes = data.draw(st.sampled_from([[1, 2, 4, 8], [1, 2, 3, 4, 6]]))
    shape = data.draw(st.lists(st.sampled_from(sizes), min_size=1, max_size=4))
    lines, now = [], list(shape)
    for i in range(data.draw(st.integers(1, 6))):
        source = f"v{i - 1}" if i else "x"
        if data.draw(st.booleans()):
            perm = data.draw(st.permutations(range(len(now))))
            now = [now[p] for p in perm]
            lines.append(f"v{i} = Transpose({source}) {{perm={list(perm)}}}")
            continue
        merged, k = list(now), data.draw(st.integers(0, len(now) - 1))
        kind = data.draw(st.sampled_from(["merge", "cut", "one", "drop"]))
        if kind == "merge" and k + 1 < len(now):
            merged[k : k + 2] = [now[k] * now[k + 1]]
        elif kind == "cut" and now[k] % 2 == 0:
            merged[k : k + 1] = [2, now[k] // 2]
        elif kind == "one":
            merged.insert(k, 1)
        elif kind == "drop" and 1 in merged and len(merged) > 1:
            merged.remove(1)
        now = merged
        lines.append(f"s{i}: i64[{len(now)}] = const {now} v{i} = Reshape({source}, s{i})")
    graph = read_graph(f"graph main(x: f32[{','.join(map(str, shape))}]) {{ {' '.join(lines)} return v{len(lines) - 1} }}")
    (before,), old = run_graph(graph), [n.op for n in graph]
    compose_movements(graph)
    verify(graph)
    (after,), new = run_graph(graph), [n.op for n in graph]
    assert (before.shape == after.shape) and (before == after).all()
    # Powers of two always divide one another; a cut through both of 3 and 2 is left as it is.
    assert new.count("Transpose") <= min(old.count("Transpose"), 1 if 8 in sizes else 6)
    assert len(new) <= len(old) or new.count("Transpose") < old.count("Transpose")
    text = print_graph(graph)
    assert compose_movements(graph) == 0, text


def test_windows_that_become_a_grid_take_two_transposes_of_whole_rows(rewrites):
    rewrites(
        compose_movements,
        """graph main(x: f32[batch,4,3,2,5,6]) {
          a = Transpose(x) {perm=[0, 5, 1, 3, 2, 4]}
          s: i64[6] = const [0, 6, 2, 4, 5, 3]
          b = Reshape(a, s)
          c = Transpose(b) {perm=[0, 2, 4, 3, 5, 1]}
          t: i64[4] = const [0, 10, 12, 6]
          d = Reshape(c, t)
          e = Transpose(d) {perm=[0, 2, 1, 3]}
          return e
        }""",
        """graph main(x: f32[batch,4,3,2,5,6]) {
          e_between_cut = Transpose(x) {perm=[0, 1, 3, 2, 4, 5]}
          e_between_shape: i64[4] = const [0, 8, 15, 6]
          e_between = Reshape(e_between_cut, e_between_shape)
          e_cut_shape: i64[6] = const [0, 2, 4, 5, 3, 6]
          e_cut = Reshape(e_between, e_cut_shape)
          e_permuted = Transpose(e_cut) {perm=[0, 2, 4, 1, 3, 5]}
          e_shape: i64[4] = const [0, 12, 10, 6]
          e = Reshape(e_permuted, e_shape)
          return e
        }""",
    )


def test_two_transposes_that_are_needed_stay(leaves):
    leaves(
        compose_movements,
        """graph main(x: f32[batch,4,3,6]) {
          a = Transpose(x) {perm=[0, 2, 1, 3]}
          s: i64[4] = const [0, 2, 6, 6]
          b = Reshape(a, s)
          c = Transpose(b) {perm=[0, 2, 1, 3]}
          return c
        }""",
    )
