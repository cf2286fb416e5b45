"""Einsum: products of operands as they lie, and the expansion of everything else."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.products.einsum import einsum_tactics, lower_einsum
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import ProductHeuristic
from miniinfer_cli.ir import TensorType, dtype_of
from miniinfer_cli.ops.inference import infer_node
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.numpy_library import Library
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.backends.nodes import make_graph

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "h": 2, "i": 3, "j": 4, "k": 5, "q": 3, "z": 1}
AS_THEY_LIE = [
    "ij,jk->ik",
    "ij,jk->ki",
    "ij,kj->ik",
    "ji,jk",
    "bhid,bhjd->bhij",
    "bqhd,bkhd->bhqk",
    "bhqk,bkhd->bqhd",
    "bqd,hdk->bhqk",
    "abc,cd->abd",
    "ij,ij->",
    "i,i",
    "...ij,jk->...ik",
    "abz,zcd->abcd",
    "az,zb->ab",
    "abc,bcd->ad",
]
EXPANDED = {  # by what
    "i,j->ij": ["Mul"],
    "abc,cb->a": ["MatMul"],
    "ii->i": ["ReduceSum"],
    "iij,jk->ik": ["ReduceSum", "MatMul"],
    "bij,bjk->ikb": ["MatMul", "Transpose"],
    "ijk,jki->": ["Transpose", "MatMul"],
    "ab,bc,cd->ad": ["MatMul"],
    "ab,a->ab": ["Mul"],
    "ab->": ["ReduceSum"],
}


def operands(equation: str, dtype: str) -> list[Any]:
    random = np.random.default_rng(3)
    shapes = [[SIZES[label] for label in term.replace("...", "ab")] for term in equation.split("->")[0].split(",")]
    return [(random.integers(-9, 9, s) if "int" in dtype else random.standard_normal(s)).astype(dtype) for s in shapes]


def site(equation: str, *arrays: Any) -> Site:
    graph = make_graph("Einsum", arrays, domain="", n_outputs=1, constants=(), body=None, attrs={"equation": equation})
    (node,) = graph.nodes
    kinds = tuple(TensorType(dtype_of(a), a.shape) for a in arrays)
    return Site(node, kinds, infer_node(node, kinds), (None,) * len(kinds), Target())


@pytest.mark.parametrize("equation", [*AS_THEY_LIE, *EXPANDED])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_equations(equation: str, dtype: str) -> None:
    for target in (Target(), Library().target()):
        options = {"equation": equation, "target": target, "tolerance": 5e-3 if dtype == "float16" else 1e-5}
        check_op("Einsum", *operands(equation, dtype), instead=EXPANDED.get(equation), **options)


@pytest.mark.parametrize("equation", AS_THEY_LIE)
def test_products_are_not_rearranged(equation: str) -> None:
    assert lower_einsum(site(equation, *operands(equation, "float32"))) is not None


@pytest.mark.parametrize("equation", ["i,j->ij", "ii,ij->ij", "abc,cb->a", "ij,ja->", "ab->ba"])
def test_other_equations_are_expanded(equation: str) -> None:
    assert lower_einsum(site(equation, *operands(equation, "float32"))) is None


def test_broadcast_and_empty_labels_and_narrow_integers_are_expanded() -> None:
    one = np.ones((3, 1), np.float32)
    assert lower_einsum(site("ij,jk->ik", one, np.ones((4, 2), np.float32))) is None
    assert lower_einsum(site("ij,jk->ik", np.ones((3, 0), np.float32), np.ones((0, 2), np.float32))) is None
    assert lower_einsum(site("ij,jk->ik", one.astype(np.int8), np.ones((1, 2), np.int8))) is None


def test_many_calls_are_worth_a_transposition() -> None:
    def first(heads: int, **table: int) -> str:
        shapes = (9, 3, heads, 5), (9, 4, heads, 5)
        at = site("bqhd,bkhd->bhqk", *(np.ones(s, np.float32) for s in shapes))
        listed = einsum_tactics(at, ProductHeuristic(**table))
        assert listed is not None
        return listed[0].key

    assert [first(2), first(9), first(9, transposed_calls=9)] == ["cublaslt", "rewritten", "cublaslt"]
    many = [np.random.default_rng(i).standard_normal((9, n, 9, 5)).astype(np.float32) for i, n in enumerate((3, 4))]
    check_op("Einsum", *many, equation="bqhd,bkhd->bhqk", tolerance=1e-5, instead=["Transpose", "MatMul"])


@pytest.mark.parametrize("equation", ["bqhd,bkhd->bhqk", "ij,kj->ik"])
def test_every_tactic_multiplies_when_it_is_forced(equation: str) -> None:
    given = operands(equation, "float32")
    keys = check_every_tactic("Einsum", *given, equation=equation, target=Library().target(), tolerance=1e-5)
    padded = ["cublaslt padded"] if equation == "ij,kj->ik" else []  # sizes that the library does not like
    assert keys == ["cublaslt", *padded, "gemv_along_k", "gemm 64x64", "gemm 128x128", "rewritten"]
