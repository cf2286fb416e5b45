"""Attention by the kernel for sm_90a as a tactic: what it is offered for, what it reads, and what it is refused for."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.tactics.attention.attention_cuts import cuts_of
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import Form
from miniinfer_cli.backends.cuda.tactics.attention.attention_heuristic import AttentionHeuristic
from miniinfer_cli.backends.cuda.tactics.attention.attention_sm90 import Cut, attention_launch, tiling_of
from miniinfer_cli.backends.cuda.tactics.attention.attention_tactics import attention_tactics
from miniinfer_cli.backends.cuda.tactics.attention.attention_warpgroups import warpgroup_tactics
from miniinfer_cli.ir import DType
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.numpy_library import Library
from tests.backends.cuda.tactics import faults
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.graph_text import typed_graph

F16, BF16 = np.float16, ml_dtypes.bfloat16


def heads(*shape: int, dtype: Any = F16) -> Any:
    return np.random.default_rng(shape).standard_normal(shape).astype(dtype)


def form(**fields: Any) -> Form:
    sizes = {"batch": 2, "heads": 4, "kv_heads": 2, "queries": 100, "keys": 100, "size": 64, "v_size": 64}
    strides = ((51200, 64, 512),) * 4
    others = {"strides": strides, "scale": 0.125, "k": Operand.input(1), "v": Operand.input(2)}
    return Form(**{"dtype": DType.F16, **sizes, **others, **fields})


def offered(**fields: Any) -> list[str]:
    return [t.key for t in warpgroup_tactics(form(**fields), Operand.output(0), Target())]


@pytest.mark.parametrize("dtype", [F16, BF16] if faults.ALL else [F16])
def test_every_cut(dtype: Any) -> None:
    operands = heads(1, 4, 40, 32, dtype=dtype), heads(1, 2, 130, 32, dtype=dtype), heads(1, 2, 130, 48, dtype=dtype)
    keys = check_every_tactic("Attention", *operands, target=Target(), tolerance=2e-3 if dtype is F16 else 1.6e-2)
    assert [k.removeprefix("warpgroups ") for k in keys if k.startswith("warpgroups")] == [
        *("64x144, 1 ahead", "64x80, 2 ahead in 2 parts", "64x48, 2 ahead in 2 parts", "64x48, 3 ahead in 3 parts"),
        *("64x80, 2 ahead", "64x48, 3 ahead", "64x48, 2 ahead", "128x144, 1 ahead"),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"dtype": DType.F64},
        {"size": 60},
        {"size": 136},
        {"v_size": 0},
        {"scale": 0.0},
        {"scale": -1.0},
        {"scale": float("inf")},
        {"precision": DType.F64},
        {"strides": ((51200, 64, 512),) * 3 + ((51200, 60, 512),)},
        {"keys": (1 << 30)},
        {"batch": 1 << 16},
        {"size": 64, "strides": ((51200, 60, 512),) + ((51200, 64, 512),) * 3},
    ],
)
def test_what_the_kernel_does_not_take(fields: dict[str, Any]) -> None:
    assert offered() and not offered(**fields)
    with pytest.raises(ValueError, match=r"heads of|scale|softmax|operands|multiples of 16|kernel counts"):
        attention_launch(form(**fields), Cut(1, 64, 2), Operand.output(0))


def test_cuts_that_the_kernel_has_not() -> None:
    faulty = Cut(5, 64, 1), Cut(3, 64, 2, 2), Cut(1, 24, 1), Cut(1, 272, 1), Cut(1, 64, 0), Cut(1, 64, 3, 2)
    assert all(cut.fault(form()) for cut in faulty) and not Cut(2, 64, 2, 2).fault(form())
    wide = form(size=128, v_size=128)
    assert "registers" in Cut(1, 256, 1).fault(wide) and "shared memory" in Cut(1, 128, 8).fault(wide)
    assert Cut(1, 64, 1).residents(form()) == 4 and Cut(2, 128, 1).residents(wide) == 1


def test_needs() -> None:
    (first, *_) = warpgroup_tactics(form(), Operand.output(0), Target())
    assert first.needs(Target()) == ""
    assert first.needs(Target(arch=100)) == "it is for sm_90 alone, and this is sm_100"
    assert "KiB of shared memory" in first.needs(Target(shared_nbytes=16 << 10))


def test_few_queries_share_a_tile_with_other_heads() -> None:
    assert tiling_of(form(queries=1, heads=12)).tiles == 1
    assert tiling_of(form(queries=20, heads=12)).tiles == 3  # 32 places of two heads each
    assert tiling_of(form(queries=65, heads=12)).tiles == 12


def test_the_estimate_counts_what_fills_tiles_up() -> None:
    tactics = {t.key: t.estimate.flops for t in warpgroup_tactics(form(), Operand.output(0), Target())}
    one = next(n for k, n in tactics.items() if k.startswith("warpgroups 64x112"))
    assert one == pytest.approx(form().estimate().flops * 128 / 100 * 112 / 100, rel=1e-6)


def test_parts_of_a_projection_are_read_where_they_lie() -> None:
    text = """
graph main(x: f16[2,40,128]) {
  n: i64[3] = const [64,32,32]
  q, k, v = Split(x, n) {axis=2}
  y = Attention(q, k, v) {kv_num_heads=2, q_num_heads=4}
  return y
}
"""
    graph = typed_graph(text)
    (key, *_) = (t.key for t in warpgroup_tactics(form(queries=40, keys=40, size=16, v_size=16), Operand.output(0), Target()))
    program = make_program(graph, [v.type for v in graph.inputs], Target(policy=Policy(forced={"y": key})))
    assert [(s.kind, s.tactic) for s in program.steps] == [("Attention", key)]


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_keys_behind_a_past(n_outputs: int) -> None:
    q, k, v = (heads(2, n, 40, 32) for n in (4, 2, 2))
    past = heads(2, 2, 25, 32), heads(2, 2, 25, 32)
    check_op("Attention", q, k, v, None, *past, n_outputs=n_outputs, by="warpgroups", tolerance=2e-3, is_causal=1)


@pytest.mark.parametrize(
    ("operands", "attrs"),
    [
        ((heads(1, 40, 64), heads(1, 40, 32), heads(1, 40, 32)), {"q_num_heads": 4, "kv_num_heads": 2}),
        ((heads(1, 2, 40, 32), heads(1, 2, 70, 32), heads(1, 2, 70, 32), heads(1, 1, 40, 70)), {"softcap": 3.0}),
        ((heads(1, 2, 40, 32), heads(1, 2, 70, 32), heads(1, 2, 70, 32)), {"left_window_size": 9, "is_causal": 1}),
    ],
)
def test_the_favourite_of_the_heuristic(operands: Any, attrs: dict[str, Any]) -> None:
    check_op("Attention", *operands, by="warpgroups", tolerance=2e-3, **attrs)


@pytest.mark.parametrize(("dtype", "kind", "number"), [(F16, F16, -6e4), (BF16, BF16, -3e38), (F16, np.float32, -1e9)])
def test_a_query_whose_keys_are_all_hidden_by_a_finite_number_gives_their_mean(dtype: Any, kind: Any, number: float) -> None:
    mask = np.zeros((40, 130), kind)
    mask[0], mask[1, 2:], mask[2], mask[2, 7:] = number, number, number, -np.inf
    operands = (heads(1, 2, 40, 32, dtype=dtype), *(heads(1, 2, 130, 32, dtype=dtype),) * 2)
    check_op("Attention", *operands, mask, by="warpgroups", tolerance=2e-3 if dtype is F16 else 1.6e-2)


def test_thresholds_are_those_of_the_table() -> None:
    def first(of: Form, **table: Any) -> str:
        offered = attention_tactics(of, Operand.output(0), Library().target(), table=AttentionHeuristic(**table))
        return offered[0].key.split()[0]

    assert [first(form(), warpgroup_rows=n) for n in (200, 201)] == ["warpgroups", "cudnn"]
    assert [first(form(), warpgroup_keys=n) for n in (100, 99)] == ["warpgroups", "cudnn"]
    many = form(batch=132)  # eight tiles of 64 queries to a multiprocessor
    assert [first(many, library_keys=n) for n in (99, 100)] == ["warpgroups", "cudnn"]
    assert [first(many, library_tiles=n) for n in (9, 8)] == ["warpgroups", "cudnn"]
    assert first(form(batch=132, causal=True), library_tiles=8) == "warpgroups"
    assert (
        len(offered()) == 8
        and len(warpgroup_tactics(form(), Operand.output(0), Target(), AttentionHeuristic(warpgroup_cuts=3))) == 3
    )


def test_few_rows_and_f32_that_is_not_to_be_rounded_are_left_to_other_ways() -> None:
    check_op("Attention", *(heads(1, 2, 9, 32),) * 3, by="fused", tolerance=3e-3)
    check_op("Attention", *(heads(1, 2, 40, 32, dtype=np.float32),) * 3, by="fused", target=Target(tf32=False))


def test_f32_is_multiplied_as_tf32() -> None:
    operands = (heads(2, 3, 130, 40, dtype=np.float32),) * 3
    check_op("Attention", *operands, by="warpgroups", target=Target(tf32=True), tolerance=2e-3, is_causal=1)
    many = form(dtype=DType.F32, batch=132)
    assert attention_tactics(many, Operand.output(0), Library().target(tf32=True))[0].key.startswith("warpgroups")
    assert all(cut.keys % 32 == 0 for cut in cuts_of(many, 132))
    assert Cut(1, 48, 1).fault(many) and not Cut(1, 96, 1).fault(many)
