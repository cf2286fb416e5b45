"""fuse_conv: the elementwise operations behind a convolution become its epilogue."""

import pytest

from miniinfer_cli.passes.epilogues import LONGEST
from miniinfer_cli.passes.fuse_conv import fuse_conv


def test_residual_and_activation_go_with_the_convolution(rewrites):
    rewrites(
        fuse_conv,
        """graph main(x: f32[batch,h,w,2], skip: f32[batch,h,w,4]) {
          k: f32[4,1,1,2] = const fill 0.5
          b: f32[4] = const [1, 2, 3, 4]
          y = miniinfer.ConvNHWC(x, k, b) @/conv
          z = Add(y, skip)
          r = Relu(z)
          return r
        }""",
        """graph main(x: f32[batch,h,w,2], skip: f32[batch,h,w,4]) {
          k: f32[4,1,1,2] = const fill 0.5
          b: f32[4] = const [1, 2, 3, 4]
          r = miniinfer.FusedConv(x, k, b, skip) @/conv
            body: graph FusedConv(x: f32[batch,h,w,2], k: f32[4,1,1,2], b: f32[4], skip: f32[batch,h,w,4]) {
              y = miniinfer.ConvNHWC(x, k, b) @/conv
              z = Add(y, skip)
              r = Relu(z)
              return r
            }
          return r
        }""",
    )


def test_the_convolution_that_comes_last_takes_the_sum_of_two(rewrites):
    rewrites(
        fuse_conv,
        """graph main(x: f32[batch,2,h,w]) {
          k: f32[4,2,1,1] = const fill 0.5
          a = Conv(x, k)
          c = Conv(x, k) {group=1}
          s = Add(c, a)
          r = Relu(s)
          return r
        }""",
        """graph main(x: f32[batch,2,h,w]) {
          k: f32[4,2,1,1] = const fill 0.5
          a = Conv(x, k)
          r = miniinfer.FusedConv(x, k, a) @c
            body: graph FusedConv(x: f32[batch,2,h,w], k: f32[4,2,1,1], a: f32[batch,4,h,w]) {
              c = Conv(x, k) {group=1}
              s = Add(c, a)
              r = Relu(s)
              return r
            }
          return r
        }""",
    )


CONV = "k: f32[4,2,1,1] = const fill 0.5 y = Conv(x, k)"
TAKEN = {
    "an activation of two readings": (f"{CONV} s = Sigmoid(y) z = Mul(y, s) return z", ["FusedConv"]),
    "a bounded activation": (f"{CONV} lo: f32[] = const 0.0 hi: f32[] = const 6.0 z = Clip(y, lo, hi) return z", ["FusedConv"]),
    "up to the value that two read": (f"{CONV} r = Relu(y) a = Neg(r) b = Exp(r) return a, b", ["FusedConv", "Neg", "Exp"]),
    "up to the value that is returned": (f"{CONV} r = Relu(y) a = Neg(r) return a, r", ["FusedConv", "Neg"]),
    "up to a change of shape": (f"{CONV} r = Relu(y) a = Add(r, wide) return a", ["FusedConv", "Add"]),
    "up to what is not elementwise": (f"{CONV} r = Relu(y) a = Softmax(r) return a", ["FusedConv", "Softmax"]),
    "a cast": (f"{CONV} r = Cast(y) {{to=10}} return r", ["FusedConv"]),
    "a gate that needs the whole image": (
        f"{CONV} r = Relu(y) p = GlobalAveragePool(r) z = Mul(r, p) return z",
        ["FusedConv", "GlobalAveragePool", "Mul"],
    ),
    "nothing behind a fork": (f"{CONV} p = GlobalAveragePool(y) z = Mul(y, p) return z", ["Conv", "GlobalAveragePool", "Mul"]),
    "nothing": (f"{CONV} return y", ["Conv"]),
    "not half of a gate": (f"{CONV} s = Sigmoid(y) z = Mul(y, s) return z, s", ["Conv", "Sigmoid", "Mul"]),
}  # fmt: skip


@pytest.mark.parametrize(("body", "ops"), TAKEN.values(), ids=TAKEN.keys())
def test_an_epilogue_goes_as_far_as_only_its_end_is_read(graph_of, outputs_of, body, ops):
    graph = graph_of(f"graph main(x: f32[2,2,3,3], wide: f32[5,1,1,1,1]) {{ {body} }}")
    before = outputs_of(graph)
    fired = fuse_conv(graph)
    assert [n.op for n in graph] == ops
    assert fired == ops.count("FusedConv")
    for expected, actual in zip(before, outputs_of(graph), strict=True):
        assert (expected == actual).all()
    assert fuse_conv(graph) == 0


def test_an_epilogue_is_bounded(graph_of):
    chain = " ".join(f"v{i + 1} = Neg(v{i})" for i in range(2 * LONGEST))
    graph = graph_of(f"graph main(x: f32[2,2,3,3]) {{ {CONV.replace('y =', 'v0 =')} {chain} return v{2 * LONGEST} }}")
    assert fuse_conv(graph) == 1
    assert len(graph.nodes[0].body) == LONGEST + 1


def test_a_convolution_that_nobody_reads_stays(leaves):
    leaves(fuse_conv, f"graph main(x: f32[2,2,3,3]) {{ {CONV} return x }}")


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_every_kind_of_convolution_is_an_anchor(graph_of, op):
    for domain, suffix in (("", ""), ("miniinfer.", "NHWC")):
        graph = graph_of(
            f"graph main(x: f32[2,2,2,2], k: f32[2,2,2,2]) {{ y = {domain}{op}{suffix}(x, k) z = Relu(y) return z }}"
        )
        assert fuse_conv(graph) == 1


def test_a_plain_product_takes_the_sum_with_a_strided_shortcut(rewrites):
    rewrites(
        fuse_conv,
        """graph main(x: f32[batch,8,8,2], y: f32[batch,4,4,2]) {
          k: f32[4,1,1,2] = const fill 0.5
          a = miniinfer.ConvNHWC(y, k) @/main
          s = miniinfer.ConvNHWC(x, k) {strides=[2, 2]} @/shortcut
          z = Add(a, s)
          r = Relu(z)
          return r
        }""",
        """graph main(x: f32[batch,8,8,2], y: f32[batch,4,4,2]) {
          k: f32[4,1,1,2] = const fill 0.5
          s = miniinfer.ConvNHWC(x, k) {strides=[2, 2]} @/shortcut
          r = miniinfer.FusedConv(y, k, s) @/main
            body: graph FusedConv(y: f32[batch,4,4,2], k: f32[4,1,1,2], s: f32[batch,4,4,2]) {
              a = miniinfer.ConvNHWC(y, k) @/main
              z = Add(a, s)
              r = Relu(z)
              return r
            }
          return r
        }""",
    )


def test_a_shortcut_that_is_ready_later_stays_behind_the_product(rewrites):
    rewrites(
        fuse_conv,
        """graph main(y: f32[batch,4,4,2]) {
          k: f32[2,1,1,2] = const fill 0.5
          w: f32[2,3,3,2] = const fill 0.5
          c = miniinfer.ConvNHWC(y, k) @/main
          b = Exp(y)
          s = miniinfer.ConvNHWC(b, w) {pads=[1, 1, 1, 1]} @/late
          z = Add(c, s)
          return z
        }""",
        """graph main(y: f32[batch,4,4,2]) {
          k: f32[2,1,1,2] = const fill 0.5
          w: f32[2,3,3,2] = const fill 0.5
          c = miniinfer.ConvNHWC(y, k) @/main
          b = Exp(y)
          z = miniinfer.FusedConv(b, w, c) @/late
            body: graph FusedConv(b: f32[batch,4,4,2], w: f32[2,3,3,2], c: f32[batch,4,4,2]) {
              s = miniinfer.ConvNHWC(b, w) {pads=[1, 1, 1, 1]} @/late
              z = Add(c, s)
              return z
            }
          return z
        }""",
    )
