"""Einsum against the sum written out, label by label."""

import itertools

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ops.einsum_equation import parse_equation
from miniinfer_cli.ops.einsum_expansion import expand_einsum
from miniinfer_cli.ops.interpreter import interpret
from tests.ops.checked import FLOATS, array, infer, run, run_expanded, single_node

RNG = np.random.default_rng(0)
N, S = symbol("n"), symbol("s")


def f32(*shape):
    return TensorType(DType.F32, shape)


# equation, operand shapes, the same equation with every label written out
CASES = [
    ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)], "bij,bjk->bik"),
    ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)], "bhid,bhjd->bhij"),
    ("bhij,bhjd->bihd", [(2, 3, 4, 6), (2, 3, 6, 5)], "bhij,bhjd->bihd"),
    ("b c h w , k c -> b k h w", [(2, 3, 4, 5), (6, 3)], "bchw,kc->bkhw"),
    ("ij,jk", [(2, 3), (3, 4)], "ij,jk->ik"),
    ("ba", [(2, 3)], "ba->ab"),
    ("bA", [(2, 3)], "bA->Ab"),
    ("ii", [(3, 3)], "ii->"),
    ("ii->i", [(3, 3)], "ii->i"),
    ("iij,j->i", [(3, 3, 2), (2,)], "iij,j->i"),
    ("i,j->ij", [(3,), (4,)], "i,j->ij"),
    ("i,i", [(3,), (3,)], "i,i->"),
    ("ijk->j", [(2, 3, 4)], "ijk->j"),
    ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)], "ij,jk,kl->il"),
    ("ij,ij,ij->ij", [(2, 3)] * 3, "ij,ij,ij->ij"),
    ("ij,kj->ik", [(0, 3), (2, 3)], "ij,kj->ik"),
    ("ij,jk->ik", [(2, 0), (0, 3)], "ij,jk->ik"),
    ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)], "bij,bjk->bik"),
    ("...ij,...jk", [(6, 2, 3, 4), (6, 2, 4, 5)], "xyij,xyjk->xyik"),
    ("i...->...", [(2, 3, 4)], "ixy->xy"),
    ("...i,i", [(2, 3, 4), (4,)], "xyi,i->xy"),
    ("...,->...", [(2, 3), ()], "xy,->xy"),
    (",->", [(), ()], ",->"),
    ("->", [()], "->"),
]


def written_out(equation, xs):
    """The definition: for each assignment of the labels, the product of the operands' elements."""
    left, _, out = equation.partition("->")
    terms = left.split(",")
    size = {label: n for term, x in zip(terms, xs, strict=True) for label, n in zip(term, x.shape, strict=True)}
    y = np.zeros([size[label] for label in out])
    for values in itertools.product(*(range(n) for n in size.values())):
        at = dict(zip(size, values, strict=True))
        product = 1.0
        for term, x in zip(terms, xs, strict=True):
            product *= x[tuple(at[label] for label in term)]
        y[tuple(at[label] for label in out)] += product
    return y


@pytest.mark.parametrize(("equation", "shapes", "plain"), CASES)
def test_einsum_is_the_sum_over_its_labels(equation, shapes, plain):
    xs = [np.asarray(RNG.standard_normal(s)) for s in shapes]
    np.testing.assert_allclose(run("Einsum", *xs, equation=equation), written_out(plain, xs), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("equation", "shapes", "same"),
    [
        ("...ij,...jk->...ik", [(2, 1, 3, 4), (1, 5, 4, 2)], "aij,bjk->abik"),
        ("bi,bi->bi", [(2, 3), (1, 3)], "bi,i->bi"),
        ("ij,jk->ik", [(2, 1), (3, 4)], "i,jk->ik"),
    ],
)
def test_sizes_of_one_broadcast(equation, shapes, same):
    xs = [RNG.standard_normal(s) for s in shapes]
    y = run("Einsum", *xs, equation=equation)
    squeezed = [x.reshape([n for n in x.shape if n != 1]) for x in xs]
    np.testing.assert_allclose(y, written_out(same, squeezed), rtol=1e-12)


# Beyond the cases above: several labels in each part of a product, labels that are summed before and between products.
EXPANDED = [
    *(case[:2] for case in CASES),
    ("abij,abjk->abik", [(2, 3, 4, 5), (2, 3, 5, 2)]),
    ("bshd,hdm->bsm", [(2, 3, 4, 5), (4, 5, 6)]),
    ("bhwc,hkc->bhwk", [(2, 3, 4, 5), (3, 6, 5)]),
    ("abcd,efcd->efab", [(2, 3, 4, 5), (3, 2, 4, 5)]),
    ("abxc,bcy->a", [(2, 3, 2, 4), (3, 4, 2)]),
    ("ij,kl,jk->il", [(2, 3), (4, 5), (3, 4)]),
    ("...ij,...jk->...ik", [(2, 1, 3, 4), (1, 5, 4, 2)]),
    ("ij,jk->ik", [(2, 1), (3, 4)]),
    ("iiij,jj->i", [(3, 3, 3, 2), (2, 2)]),
    ("abij,abjk->abik", [(2, 0, 4, 5), (2, 0, 5, 2)]),
    ("bshd,hdm->bsm", [(2, 0, 4, 5), (4, 5, 6)]),
]


@pytest.mark.parametrize(("equation", "shapes"), EXPANDED)
def test_expansion(equation, shapes):
    xs = [np.asarray(RNG.standard_normal(s)) for s in shapes]
    y = run("Einsum", *xs, equation=equation)
    np.testing.assert_allclose(run_expanded("Einsum", *xs, equation=equation), y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("equation", "shapes"), EXPANDED)
def test_expansion_with_symbolic_sizes(equation, shapes):
    xs = [np.asarray(RNG.standard_normal(s)) for s in shapes]
    labels = parse_equation(equation).spread([x.ndim for x in xs])
    types = [
        TensorType(
            DType.F64, tuple(1 if n == 1 else symbol(label.replace("...", "e")) for label, n in zip(term, x.shape, strict=True))
        )
        for term, x in zip(labels, xs, strict=False)
    ]
    node = single_node("Einsum", *types, equation=equation)
    graph = node.graph
    graph.set_outputs(expand_einsum(graph, node))
    graph.remove(node)
    (result,) = interpret(graph, xs)
    np.testing.assert_allclose(result, run("Einsum", *xs, equation=equation), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("equation", "shapes", "dtype", "ops"),
    [
        ("bhid,bhjd->bhij", [(N, 12, S, 64)] * 2, DType.F16, ["Transpose", "MatMul"]),
        ("bshd,hdm->bsm", [(2, S, 12, 64), (12, 64, 8)], DType.F32, ["Reshape", "Reshape", "MatMul", "Reshape"]),
        (
            "bhwc,hkc->bhwk",
            [(N, 14, 14, 64), (14, 27, 64)],
            DType.F32,
            ["Transpose", "Reshape", "Transpose", "MatMul", "Reshape", "Transpose"],
        ),
        ("ij->ji", [(N, S)], DType.F16, ["Transpose"]),
        ("ij->ij", [(N, S)], DType.F32, ["Identity"]),
        ("ij,ij->i", [(N, S)] * 2, DType.BF16, ["Unsqueeze", "Unsqueeze", "MatMul", "Squeeze"]),
        ("ij,jk->i", [(N, S), (S, 3)], DType.F16, ["Cast", "Cast", "ReduceSum", "Unsqueeze", "MatMul", "Squeeze", "Cast"]),
    ],
)
def test_what_is_expanded_to(equation, shapes, dtype, ops):
    node = single_node("Einsum", *(TensorType(dtype, shape) for shape in shapes), equation=equation)
    expand_einsum(node.graph, node)
    assert [n.op for n in node.graph if n is not node] == ops


@pytest.mark.parametrize("dtype", ["int8", "uint16", "float16", "bfloat16"])
def test_expansion_of_narrow_types(dtype):
    a, b = array([[100, 2], [3, 60]], dtype), array([[3, 0], [4, 2]], dtype)
    for equation, operands in (("ij,jk->ik", (a, b)), ("ij->i", (a,)), ("ij,ij,jk->k", (a, b, b))):
        expected = run("Einsum", *operands, equation=equation)
        np.testing.assert_array_equal(run_expanded("Einsum", *operands, equation=equation), expected)


def test_an_operand_of_unknown_rank_has_no_expansion():
    node = single_node("Einsum", TensorType(DType.F32), equation="ij->i")
    with pytest.raises(ValueError, match="ranks of the operands"):
        expand_einsum(node.graph, node)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("equation", ["ij,jk->ik", "ij->i"])
def test_half_floats_are_summed_in_f32(equation, dtype):
    a = np.ones((1, 300))
    a[0, 0] = 2048
    xs = [array(a, dtype), array(np.ones((300, 1)), dtype)][: equation.count(",") + 1]
    assert float(run("Einsum", *xs, equation=equation).item()) == float(array(2048 + 299, dtype))


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64"])
def test_integers_keep_their_type(dtype):
    a, b = np.array([[1, 2]], dtype), np.array([[3], [4]], dtype)
    y = run("Einsum", a, b, equation="ij,jk->ik")
    assert (y.dtype.name, y.tolist()) == (dtype, [[11]])


@pytest.mark.parametrize(
    ("equation", "operands", "expected"),
    [
        ("bhid,bhjd->bhij", (f32(N, 12, S, 64), f32(N, 12, S, 64)), "f32[n,12,s,s]"),
        ("...ij,...jk->...ik", (f32(N, 1, S, 4), f32(1, 12, 4, S)), "f32[n,12,s,s]"),
        ("ij,jk", (f32(N, 3), f32(S, 4)), "f32[n,4]"),
        ("...i->i...", (f32(2, N, S),), "f32[s,2,n]"),
        ("ij->i", (TensorType(DType.F32),), "f32[?]"),
    ],
)
def test_shape_rule(equation, operands, expected):
    assert str(infer("Einsum", *operands, equation=equation)) == expected


@pytest.mark.parametrize(
    ("equation", "operands", "message"),
    [
        ("ij,jk->ik", (f32(2, 3), f32(4, 5)), "label 'j' is 3 and 4"),
        ("ij,jk->ik", (f32(2, 3),), "2 terms for 1 operands"),
        ("ij->k", (f32(2, 3),), "output label that no operand has"),
        ("ij->ii", (f32(2, 3),), "or has one twice"),
        ("i1->i", (f32(2, 3),), "malformed at '1'"),
        ("i..j->i", (f32(2, 3),), "malformed at '..j'"),
        ("...i...->i", (f32(2, 3),), "malformed at '...'"),
        ("ijk->i", (f32(2, 3),), "does not have the axes of 'ijk'"),
        ("ij...k->i", (f32(2, 3),), "does not have the axes of 'ij...k'"),
        ("...i,...j->ij", (f32(2, 3), f32(3)), "'...' stands for 1 axes and for 0"),
    ],
)
def test_malformed_equations_are_refused(equation, operands, message):
    with pytest.raises(ModelError, match=message):
        infer("Einsum", *operands, equation=equation)
