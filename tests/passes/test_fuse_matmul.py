"""fuse_matmul: bias, residual and activation become the epilogue of a matrix product."""

import pytest

from miniinfer_cli.passes.fuse_matmul import fuse_matmul


def test_bias_residual_and_activation_go_with_the_product(rewrites):
    rewrites(
        fuse_matmul,
        """graph main(x: f32[batch,seq,4], skip: f32[batch,seq,3]) {
          w: f32[4,3] = const fill 0.5
          y = MatMul(x, w) @/fc
          b: f32[3] = const [1, 2, 3]
          z = Add(b, y)
          r = Add(z, skip)
          a = Gelu(r)
          return a
        }""",
        """graph main(x: f32[batch,seq,4], skip: f32[batch,seq,3]) {
          w: f32[4,3] = const fill 0.5
          b: f32[3] = const [1, 2, 3]
          a = miniinfer.FusedMatMul(x, w, b, skip) @/fc
            body: graph FusedMatMul(x: f32[batch,seq,4], w: f32[4,3], b: f32[3], skip: f32[batch,seq,3]) {
              y = MatMul(x, w) @/fc
              z = Add(b, y)
              r = Add(z, skip)
              a = Gelu(r)
              return a
            }
          return a
        }""",
    )


@pytest.mark.parametrize("op", ["MatMul(x, w)", "Gemm(x, w) {transB=1}"])
def test_both_products_are_anchors(graph_of, op):
    graph = graph_of(f"graph main(x: f32[4,4], w: f32[4,4]) {{ y = {op} z = Relu(y) return z }}")
    assert fuse_matmul(graph) == 1


def test_a_product_alone_stays(leaves):
    leaves(fuse_matmul, "graph main(x: f32[4,4], w: f32[4,4]) { y = MatMul(x, w) z = MatMul(y, w) return z }")
