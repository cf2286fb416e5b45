"""assign_layouts: convolutions and what can follow become channels-last, with no Transpose but at the borders."""

import collections

import pytest

from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.passes.assign_layouts import assign_layouts
from miniinfer_cli.passes.cancel_transposes import cancel_transposes
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes


def test_a_chain_has_one_transpose_at_each_border(rewrites):
    rewrites(
        assign_layouts,
        """graph main(x: f32[batch,3,h,w]) {
          k: f32[64,3,3,3] = const large "mapped k"
          b: f32[64] = const large "mapped b"
          y = Conv(x, k, b) {pads=[1, 1, 1, 1]} @/conv
          r = Relu(y)
          p = MaxPool(r) {kernel_shape=[2, 2], strides=[2, 2], storage_order=0}
          return p
        }""",
        """graph main(x: f32[batch,3,h,w]) {
          x_last = Transpose(x) {perm=[0, 2, 3, 1]}
          k_1: f32[64,3,3,3] = const large "CRC"
          b: f32[64] = const large "mapped b"
          y_last = miniinfer.ConvNHWC(x_last, k_1, b) {pads=[1, 1, 1, 1]} @/conv
          r_last = Relu(y_last) @r
          p_last = miniinfer.MaxPoolNHWC(r_last) {kernel_shape=[2, 2], strides=[2, 2]} @p
          p = Transpose(p_last) {perm=[0, 3, 1, 2]}
          return p
        }""".replace("CRC", "array 2e38ff38"),
        fired=3,
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    "pool", ["GlobalAveragePool(t)", "MaxPool(t) {kernel_shape=[2, 2]}", "AveragePool(t) {kernel_shape=[3, 1]}"]
)
def test_a_pool_of_what_was_turned_for_it_reads_it_as_it_was(graph_of, outputs_of, pool):
    graph = graph_of(
        f"graph main(x: f32[2,5,6,8]) {{ n = Abs(x) t = Transpose(n) {{perm=[0, 3, 1, 2]}} p = {pool} y = Neg(p) return y }}"
    )
    (before,) = outputs_of(graph)
    assert assign_layouts(graph) == 2
    cancel_transposes(graph)
    remove_dead_nodes(graph)
    verify(graph)
    assert [n.op for n in graph] == ["Abs", f"{pool.partition('(')[0]}NHWC", "Neg", "Transpose"]
    assert abs(outputs_of(graph)[0] - before).max() < 1e-5
    assert assign_layouts(graph) == 0


@pytest.mark.parametrize("perm", ["[0, 3, 2, 1]", "[0, 2, 1, 3]"])
def test_a_pool_of_what_was_turned_otherwise_stays(leaves, perm):
    text = f"graph main(x: f32[2,5,6,8]) {{ t = Transpose(x) {{perm={perm}}} y = GlobalAveragePool(t) return y }}"
    leaves(assign_layouts, text)


def last_of(graph_of, outputs_of, body, *, inputs="x: f32[2,4,6,5]", rtol=1e-5):
    """The operations after assign_layouts and how many Transposes there are, when a Conv stands on both sides of ``body``."""
    graph = graph_of(
        f"""graph main({inputs}) {{
          k: f32[4,4,1,1] = const large "mapped k"
          a = Conv(x, k) {{pads=[1, 1, 1, 1]}}
          {body}
        }}"""
    )
    before = outputs_of(graph)
    assert assign_layouts(graph) > 0
    cancel_transposes(graph)
    remove_dead_nodes(graph)
    verify(graph)
    for expected, actual in zip(before, outputs_of(graph), strict=True):
        assert (expected.shape, expected.dtype) == (actual.shape, actual.dtype)
        assert abs(expected.astype(float) - actual.astype(float)).max() <= rtol * max(abs(expected.astype(float)).max(), 1e-6)
    assert assign_layouts(graph) == 0
    return collections.Counter(n.op for n in graph)


FOLLOWING = {
    "elementwise": "b = Relu(a)",
    "two tensors": "b = Mul(a, a2)",
    "a single number": "c: f32[] = const 2.0 b = Add(a, c)",
    "a number of rank 4": "c: f32[1,1,1,1] = const fill 2.0 b = Add(a, c)",
    "a constant per channel": "c: f32[4,1,1] = const [1, 2, 3, 4] b = Mul(c, a)",
    "a constant per channel with batch": "c: f32[1,4,1,1] = const [1, 2, 3, 4] b = Mul(a, c)",
    "a constant image": "c: f32[7] = const [1, 2, 3, 4, 5, 6, 7] b = Mul(a, c)",
    "a computed number per channel": "b = Mul(a, gate)",
    "a computed number of rank 3": "b = Mul(a, gate3)",
    "a slope per channel": "c: f32[4,1,1] = const [1, 2, 3, 4] b = PRelu(a, c)",
    "a selection": "c: f32[] = const 0.0 m = Greater(a, a2) b = Where(m, a, c)",
    "concat of channels": "b = Concat(a, a2) {axis=1}",
    "concat of rows": "b = Concat(a, a2) {axis=-2}",
    "concat with a constant": "c: f32[2,1,8,7] = const fill 2.0 b = Concat(a, c) {axis=1}",
    "split": "b, b2 = Split(a) {axis=1, num_outputs=2} c = Relu(b2)",
    "slice": "s: i64[2] = const [1, 2] e: i64[2] = const [3, 6] i: i64[2] = const [1, -1] b = Slice(a, s, e, i)",
    "slice without axes": "s: i64[2] = const [0, 1] e: i64[2] = const [2, 4] b = Slice(a, s, e)",
    "pad": "p: i64[8] = const [0, 1, 2, 3, 0, 0, 1, 2] b = Pad(a, p) {mode=\"edge\"}",
    "pad of named axes": "p: i64[4] = const [1, 2, 3, 4] v: f32[] = const 1.5 i: i64[2] = const [1, 3] b = Pad(a, p, v, i)",
    "pad by computed sizes": "b = Pad(a, sizes8)",
    "resize by scales": "s: f32[4] = const [1, 1, 2, 3] b = Resize(a, -, s) {mode=\"linear\"}",
    "resize to sizes": "s: i64[4] = const [2, 4, 5, 9] b = Resize(a, -, -, s)",
    "resize of named axes": "s: f32[2] = const [2, 0.5] b = Resize(a, -, s) {axes=[2, 3], mode=\"cubic\"}",
    "resize of a region": "r: f32[8] = const [0, 0, 0.2, 0.1, 1, 1, 0.8, 0.9] s: i64[4] = const [2, 4, 5, 9] "
    "b = Resize(a, r, -, s) {coordinate_transformation_mode=\"tf_crop_and_resize\", mode=\"linear\"}",
    "mean over space": "i: i64[2] = const [2, 3] b = ReduceMean(a, i)",
    "mean over space that is dropped": "i: i64[2] = const [-2, -1] b4 = ReduceMean(a, i) {keepdims=0} b = Relu(b4)",
    "maximum over channels": "i: i64[1] = const [1] b = ReduceMax(a, i)",
    "sum of everything": "b = ReduceSum(a)",
    "softmax of channels": "b = Softmax(a) {axis=1}",
    "softmax of a row": "b = LogSoftmax(a)",
    "best channel": "b = ArgMax(a) {axis=1}",
    "best channel that is dropped": "b3 = ArgMax(a) {axis=1, keepdims=0} b = Neg(b3)",
    "running sum": "i: i64[] = const 1 b = CumSum(a, i)",
    "tile": "i: i64[4] = const [1, 2, 1, 3] b = Tile(a, i)",
    "average pool": "b = AveragePool(a) {kernel_shape=[3, 2], pads=[1, 0, 1, 0], count_include_pad=1}",
    "global pool": "b = GlobalAveragePool(a)",
    "global maximum": "b = GlobalMaxPool(a)",
    "instance normalization": "g: f32[4] = const [1, 2, 3, 4] b = InstanceNormalization(a, g, g)",
    "group normalization": "g: f32[4] = const [1, 2, 3, 4] b = GroupNormalization(a, g, g) {num_groups=2, epsilon=0.01}",
    "quantization per channel": "s: f32[4] = const [0.1, 0.2, 0.3, 0.4] q = QuantizeLinear(a, s) "
    "b = DequantizeLinear(q, s) {axis=-3}",
    "quantization of the whole": "s: f32[] = const 0.1 q = QuantizeLinear(a, s) b = DequantizeLinear(q, s)",
    "transposed convolution": "w: f32[4,2,2,2] = const large \"mapped w\" b = ConvTranspose(a, w) {strides=[2, 2], group=2}",
    "depthwise convolution": "w: f32[4,1,3,3] = const large \"mapped w\" b = Conv(a, w) {group=4, dilations=[2, 1]}",
    "computed weights": "b = Conv(a, kernel)",
}  # fmt: skip


@pytest.mark.parametrize("body", FOLLOWING.values(), ids=FOLLOWING.keys())
def test_operations_follow_their_neighbours(graph_of, outputs_of, body):
    """The images before the convolutions are transposed, and the results behind: nothing in between."""
    dropped = "keepdims=0" in body
    inputs = "x: f32[2,4,6,5], y: f32[2,4,6,5], gate: f32[2,4,1,1], gate3: f32[4,1,1], kernel: f32[4,4,3,3], sizes8: i64[8]"
    end = "return b, c" if "c = Relu(b2)" in body else "return b"
    ops = last_of(graph_of, outputs_of, f"a2 = Conv(y, k) {{pads=[1, 1, 1, 1]}} {body} {end}", inputs=inputs)
    borders = ops["Transpose"] - ("a2" in body) - 1  # beyond those of the images
    small = "gate3" in body or "kernel)" in body  # computed operands are transposed themselves
    results = 0 if dropped else 2 if "c = Relu(b2)" in body else 1
    assert borders == results + small
    # Constants are rearranged while building.
    assert not ops["Unsqueeze"] or "gate3" in body
    assert not ops["Gather"] or "sizes8" in body


STAYING = {
    "a pool that tells places": "b, i = MaxPool(a) {kernel_shape=[2, 2]} return b, i",
    "another shape": "s: i64[2] = const [2, -1] b = Reshape(a, s) return b",
    "depth to space": "b = DepthToSpace(a) {blocksize=2} return b",
    "a normalization of rows": "g: f32[7] = const fill 2.0 b = LayerNormalization(a, g) return b",
    "a matrix product": "b = MatMul(a, m) return b",
    "a mean that would reorder what is left": "i: i64[1] = const [0] b = ReduceMean(a, i) {keepdims=0} return b",
    "a larger operand": "b = Add(a, five) return b",
    "slices of computed axes": "o: i64[1] = const [0] b = Slice(a, o, n, n) return b",
}  # fmt: skip


@pytest.mark.parametrize("body", STAYING.values(), ids=STAYING.keys())
def test_what_cannot_follow_gets_its_tensor_back(graph_of, outputs_of, body):
    inputs = "x: f32[2,4,6,5], m: f32[7,3], five: f32[2,1,1,1,1], n: i64[1]"
    ops = last_of(graph_of, outputs_of, body, inputs=inputs)
    assert ops["Transpose"] == 2
    assert ops["ConvNHWC"] == 1


@pytest.mark.parametrize(
    ("x", "kernel"), [("f32[2,3,9]", "f32[4,3,2]"), ("f32[1,3,4,4,3]", "f32[4,3,2,2,2]"), ("f16[2,3,5,5]", "f16[4,3,2,2]")]
)
def test_convolutions_of_any_rank_and_width(graph_of, outputs_of, x, kernel):
    graph = graph_of(f'graph main(x: {x}) {{ w: {kernel} = const large "mapped w" y = Conv(x, w) z = Relu(y) return z }}')
    (before,) = outputs_of(graph)
    assert assign_layouts(graph) == 2
    assert [n.op for n in graph] == ["Transpose", "ConvNHWC", "Relu", "Transpose"]
    (after,) = outputs_of(graph)
    assert abs(after.astype(float) - before.astype(float)).max() <= 2e-3 * abs(before.astype(float)).max()


def test_quantized_weights_are_transposed_while_they_are_narrow(graph_of, outputs_of):
    graph = graph_of(
        """graph main(x: f32[2,3,5,5]) {
          q: i8[4,3,2,2] = const large "mapped q"
          s: f32[4] = const [1, 2, 3, 4]
          w = DequantizeLinear(q, s) {axis=0}
          y = Conv(x, w)
          return y
        }"""
    )
    (before,) = outputs_of(graph)
    assign_layouts(graph)
    weights = next(n for n in graph if n.op == "DequantizeLinear")
    assert weights.inputs[0].constant is not None
    assert (str(weights.output.type), weights.attrs["axis"]) == ("f32[4,2,2,3]", 0)
    assert abs(outputs_of(graph)[0] - before).max() < 1e-4 * abs(before).max()


def test_a_weight_of_two_convolutions_is_transposed_once(graph_of):
    graph = graph_of(
        'graph main(x: f32[2,3,5,5]) { w: f32[3,3,2,2] = const large "mapped w" y = Conv(x, w) z = Conv(y, w) return z }'
    )
    assign_layouts(graph)
    first, second = (n for n in graph if n.op == "ConvNHWC")
    assert first.inputs[1] is second.inputs[1]


def test_the_cheaper_border_is_taken(graph_of):
    """An image that grows behind the last convolution is transposed before it grows."""
    graph = graph_of(
        """graph main(x: f32[2,3,5,5]) {
          w: f32[3,3,1,1] = const large "mapped w"
          y = Conv(x, w)
          s: f32[4] = const [1, 1, 4, 4]
          z = Resize(y, -, s)
          r = Relu(z)
          f = Flatten(r)
          return f
        }"""
    )
    assert assign_layouts(graph) == 1
    assert [n.op for n in graph] == ["Transpose", "ConvNHWC", "Transpose", "Resize", "Relu", "Flatten"]


def test_a_graph_that_is_channels_last_outside_loses_its_own_transposes(graph_of):
    graph = graph_of(
        """graph main(x: f32[2,5,5,3]) {
          first = Transpose(x) {perm=[0, 3, 1, 2]}
          w: f32[3,3,1,1] = const large "mapped w"
          y = Conv(first, w)
          r = Relu(y)
          last = Transpose(r) {perm=[0, 2, 3, 1]}
          return last
        }"""
    )
    assign_layouts(graph)
    cancel_transposes(graph)
    remove_dead_nodes(graph)
    assert [n.op for n in graph] == ["ConvNHWC", "Relu"]


def test_a_graph_without_convolutions_stays(leaves):
    leaves(assign_layouts, "graph main(x: f32[2,3,5,5]) { y = Relu(x) z = GlobalAveragePool(y) return z }")


def test_a_convolution_of_unknown_rank_stays(leaves):
    leaves(assign_layouts, "graph main(x: f32[?], w: f32[?]) { y = Conv(x, w) return y }")
