"""fold_affine: arithmetic by constants per channel goes into the weights before it, exactly where that is possible."""

import pytest

from miniinfer_cli.passes.fold_affine import fold_affine
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes


def fold(graph):
    count = fold_affine(graph)
    remove_dead_nodes(graph)
    return count


def test_a_scale_and_a_shift_go_into_a_convolution(rewrites):
    rewrites(
        fold,
        """graph main(x: f32[batch,1,h,w]) {
          k: f32[2,1,1,3] = const [1, 2, 3, 4, 5, 6]
          y = Conv(x, k) {pads=[0, 1, 0, 1]} @/conv
          s: f32[2,1,1] = const [2, 0.5]
          z = Mul(s, y)
          t: f32[1,2,1,1] = const [1, -1]
          r = Add(z, t)
          return r
        }""",
        """graph main(x: f32[batch,1,h,w]) {
          k_1: f32[2,1,1,3] = const [2.0, 4.0, 6.0, 2.0, 2.5, 3.0]
          z_bias: f32[2] = const [1.0, -1.0]
          r = Conv(x, k_1, z_bias) {pads=[0, 1, 0, 1]} @/conv
          return r
        }""",
        fired=2,
        rtol=1e-5,
    )


CONVOLUTIONS = {
    "Conv": ('f32[6,4,3] = const large "mapped w"', "Conv(x, w)", 6),
    "Conv with bias": ('f32[6,4,3] = const large "mapped w" b: f32[6] = const [1, 2, 3, 4, 5, 6]', "Conv(x, w, b)", 6),
    "Conv in groups": ('f32[6,2,3] = const large "mapped w"', "Conv(x, w) {group=2}", 6),
    "ConvTranspose": ('f32[4,6,3] = const large "mapped w"', "ConvTranspose(x, w) {strides=[2]}", 6),
    "ConvTranspose in groups": ('f32[4,3,3] = const large "mapped w"', "ConvTranspose(x, w) {group=2}", 6),
    "ConvTranspose with bias": (
        'f32[4,3,3] = const large "mapped w" b: f32[6] = const [1, 2, 3, 4, 5, 6]',
        "ConvTranspose(x, w, b) {group=2}",
        6,
    ),
}
ARITHMETIC = {
    "Mul": "Mul(y, c)",
    "Mul from the left": "Mul(c, y)",
    "Div": "Div(y, c)",
    "Add": "Add(c, y)",
    "Sub": "Sub(y, c)",
}


@pytest.mark.parametrize("arithmetic", ARITHMETIC.values(), ids=ARITHMETIC.keys())
@pytest.mark.parametrize(("weights", "op", "channels"), CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
@pytest.mark.parametrize("constant", ["f32[{n},1] = const [2, 3, 4, 5, 6, 7]", "f32[] = const 3.0"])
def test_every_convolution_takes_every_operation(graph_of, outputs_of, weights, op, channels, arithmetic, constant):
    graph = graph_of(
        f"graph main(x: f32[batch,4,seq]) {{ w: {weights} y = {op} c: {constant.format(n=channels)} z = {arithmetic} return z }}"
    )
    (before,) = outputs_of(graph)
    assert fold_affine(graph) == 1
    remove_dead_nodes(graph)
    assert len(graph) == 1
    (after,) = outputs_of(graph)
    assert abs(after - before).max() < 1e-5 * abs(before).max()


def test_a_matrix_product_takes_a_scale_and_so_does_its_bias(rewrites):
    rewrites(
        fold,
        """graph main(x: f32[batch,seq,2]) {
          w: f32[2,3] = const [1, 2, 3, 4, 5, 6]
          y = MatMul(x, w)
          b: f32[3] = const [1, 1, 2]
          z = Add(b, y)
          s: f32[3] = const [2, 4, 0.5]
          r = Div(z, s)
          return r
        }""",
        """graph main(x: f32[batch,seq,2]) {
          w_1: f32[2,3] = const [0.5, 0.5, 6.0, 2.0, 1.25, 12.0]
          r_product = MatMul(x, w_1)
          b_1: f32[3] = const [0.5, 0.25, 4.0]
          r = Add(r_product, b_1)
          return r
        }""",
        rtol=1e-5,
    )


def test_a_product_without_bias_takes_a_single_number(rewrites):
    rewrites(
        fold,
        """graph main(x: f32[batch,2]) {
          w: f32[2,2] = const [1, 2, 3, 4]
          y = MatMul(x, w)
          s: f32[] = const 0.5
          r = Mul(y, s)
          return r
        }""",
        """graph main(x: f32[batch,2]) {
          w_1: f32[2,2] = const [0.5, 1.0, 1.5, 2.0]
          r = MatMul(x, w_1)
          return r
        }""",
        rtol=1e-5,
    )


def test_half_width_weights_are_scaled_in_f32_and_rounded_once(graph_of):
    graph = graph_of(
        """graph main(x: f16[1,1,1]) {
          w: f16[1,1,1] = const [0.1]
          y = Conv(x, w)
          s: f16[] = const 3.0
          z = Mul(y, s)
          return z
        }"""
    )
    assert fold_affine(graph) == 1
    (scaled,) = (v.constant.array() for v in graph.constants())
    assert (str(scaled.dtype), float(scaled.reshape(()))) == ("float16", 0.2998046875)


def test_a_large_weight_is_scaled_by_a_recipe(graph_of):
    graph = graph_of(
        """graph main(x: f32[batch,200]) {
          w: f32[200,300] = const large "mapped w"
          y = MatMul(x, w)
          s: f32[] = const 0.5
          r = Mul(y, s)
          return r
        }"""
    )
    assert fold(graph) == 1
    (weight,) = (v.constant for v in graph.constants())
    assert type(weight).__name__ == "Mapped"


CONV = "k: f32[2,2,1] = const [1, 2, 3, 4] y = Conv(x, k)"
BIASED = "k: f32[2,2,1] = const [1, 2, 3, 4] y = Conv(x, k, b)"
PRODUCT = 'k: f32[5,3] = const large "mapped k" y = MatMul(x, k)'
TWO = "c: f32[] = const 2.0"
STAYING = {
    "the product has another reader": f"{CONV} {TWO} z = Mul(y, c) n = Neg(y) return z, n",
    "the product is returned": f"{CONV} {TWO} z = Mul(y, c) return z, y",
    "the weights are returned": f"{CONV} {TWO} z = Mul(y, c) return z, k",
    "the weights are computed": f"y = Conv(x, w) {TWO} z = Mul(y, c) return z",
    "the bias to add to is computed": f"{BIASED} {TWO} z = Add(y, c) return z",
    "the bias to scale is computed": f"{BIASED} {TWO} z = Mul(y, c) return z",
    "the factor is computed": f"{CONV} z = Mul(y, column) return z",
    "the constant varies in space": f"{CONV} c: f32[5] = const fill 2.0 z = Mul(y, c) return z",
    "the result is larger": "k: f32[1,2,1] = const [1, 2] y = Conv(x, k) c: f32[2,1] = const [1, 2] z = Mul(y, c) return z",
    "a constant divided by it": f"{CONV} {TWO} z = Div(c, y) return z",
    "a constant minus it": f"{CONV} {TWO} z = Sub(c, y) return z",
    "one number per row": f"{PRODUCT} c: f32[2,1] = const [1, 2] z = Mul(y, c) return z",
    "a bias of a product": f"{PRODUCT} c: f32[3] = const [1, 2, 3] z = Add(y, c) return z",
    "the product of two tensors": f"y = MatMul(x, square) {TWO} z = Mul(y, c) return z",
    "a bias that broadcasts the product": "k: f32[5,1] = const fill 1.0 y = MatMul(x, k) c: f32[3] = const [1, 2, 3] "
    "z = Add(y, c) d: f32[3] = const [1, 2, 3] r = Mul(z, d) return r",
    "a product with a vector": "k: f32[5] = const fill 0.5 y = MatMul(x, k) c: f32[2] = const [1, 2] z = Mul(y, c) return z",
    "no product at all": f"y = Neg(x) {TWO} z = Mul(y, c) return z",
}


@pytest.mark.parametrize("body", STAYING.values(), ids=STAYING.keys())
def test_what_is_not_exact_or_not_free_stays(leaves, body):
    inputs = "x: f32[1,2,5], w: f32[2,2,1], square: f32[5,5], b: f32[2], column: f32[2,1]"
    leaves(fold_affine, f"graph main({inputs}) {{ {body} }}")
