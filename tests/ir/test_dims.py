"""Symbolic dimensions: arithmetic agrees with integers, equal polynomials are equal, text round-trips."""

import operator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.ir.dim_text import parse_dim
from miniinfer_cli.ir.dims import (
    Dim,
    Misfit,
    Sym,
    Undecided,
    bind,
    divide_exactly,
    evaluate,
    floor_divide,
    is_static,
    lower_bound,
    maximum,
    minimum,
    names_in,
    plain_name,
    positive_part,
    product,
    symbol,
)

BATCH, SEQ = symbol("batch"), symbol("seq")
SIZES = {"a": 3, "b": 5, "?v.0": 7}

leaves = st.one_of(st.integers(0, 9), st.sampled_from([symbol(n) for n in SIZES]))


def combine(children):
    pairs = st.tuples(st.sampled_from([operator.add, operator.sub, operator.mul, minimum, maximum]), children, children)
    quotients = st.tuples(st.just(floor_divide), children, st.integers(1, 6))
    return st.one_of(pairs, quotients).map(lambda t: t[0](t[1], t[2]))


dims = st.recursive(leaves, combine, max_leaves=8)


@settings(max_examples=150, deadline=None)
@given(dims, dims, st.integers(1, 6))
def test_arithmetic_agrees_with_integers(x, y, n):
    a, b = evaluate(x, SIZES), evaluate(y, SIZES)
    assert evaluate(x + y, SIZES) == a + b
    assert evaluate(x - y, SIZES) == a - b
    assert evaluate(x * y, SIZES) == a * b
    assert evaluate(floor_divide(x, n), SIZES) == a // n
    assert evaluate(x % n, SIZES) == a % n
    assert evaluate(product([x, y, n]), SIZES) == a * b * n
    assert evaluate(minimum(x, y), SIZES) == min(a, b)
    assert evaluate(maximum(x, y), SIZES) == max(a, b)
    assert evaluate(positive_part(x - n), SIZES) == max(a - n, 0)


@settings(max_examples=150, deadline=None)
@given(dims, dims)
def test_equal_polynomials_are_equal_whatever_the_order(x, y):
    assert x + y == y + x
    assert x * y == y * x
    assert x + y - y == x
    assert hash(x * y) == hash(y * x)


@settings(max_examples=150, deadline=None)
@given(dims)
def test_text_round_trips(x):
    assert parse_dim(str(x)) == x


@settings(max_examples=100, deadline=None)
@given(dims)
def test_the_lower_bound_holds(x):
    bound = lower_bound(x)
    assert bound is None or bound <= evaluate(x, SIZES)
    assert bound is None or bound <= evaluate(x, {"a": 0, "b": 1, "?v.0": 0})


def test_the_smaller_and_the_larger_are_written_in_one_way():
    assert minimum(BATCH, SEQ) == minimum(SEQ, BATCH) == BATCH + SEQ - maximum(SEQ, BATCH)
    assert minimum(BATCH + 3, SEQ + 3) == minimum(BATCH, SEQ) + 3
    assert positive_part(positive_part(SEQ - 1) - 2) == positive_part(SEQ - 3)
    assert maximum(minimum(SEQ, 8), 1) == minimum(maximum(SEQ, 1), 8)
    assert positive_part(2 * SEQ - 1) == SEQ + positive_part(SEQ - 1)
    assert minimum(SEQ, 1) * 2 == minimum(2 * SEQ, 2)
    assert positive_part(minimum(SEQ, 1) + SEQ - 1) == SEQ
    assert (minimum(SEQ, 0), maximum(SEQ, 0), positive_part(-SEQ), positive_part(SEQ - BATCH * SEQ)) == (
        0,
        SEQ,
        0,
        positive_part(BATCH * SEQ - SEQ) - BATCH * SEQ + SEQ,
    )
    assert [str(d) for d in (minimum(SEQ, 4), maximum(SEQ - 2, 1), positive_part(SEQ - 2), 2 * minimum(SEQ, BATCH))] == [
        "min(seq,4)",
        "max(1,seq-2)",
        "max(0,seq-2)",
        "2*batch-2*max(0,batch-seq)",
    ]


def test_sizes_with_bounds_decide_more():
    few = symbol("seq", least=1, most=64)
    assert few == SEQ
    assert (minimum(few, 1), minimum(few, 1024), maximum(few, 1), positive_part(few - 64)) == (1, SEQ, SEQ, 0)
    assert minimum(few, 64) == SEQ


def test_what_cancels_gives_an_int_again():
    assert (BATCH + 3) - BATCH == 3
    assert isinstance(BATCH * SEQ - SEQ * BATCH, int)
    assert 2 * BATCH - (BATCH + BATCH) == 0
    assert 5 - BATCH + BATCH == 5


def test_exact_division():
    assert floor_divide(BATCH * SEQ * 12, SEQ * 4) == 3 * BATCH
    assert floor_divide(2 * BATCH + 1, 2) == BATCH
    assert str(floor_divide(BATCH + 1, 2)) == "floor((batch+1)/(2))"
    assert divide_exactly(BATCH, SEQ) is None
    assert divide_exactly(BATCH + SEQ, BATCH + SEQ) == 1
    assert 12 // symbol("n") != 12


def test_a_symbol_is_no_number():
    assert BATCH != 1
    assert BATCH == symbol("batch") != SEQ
    assert bool(BATCH)
    for question in (lambda: BATCH < 3, lambda: BATCH >= SEQ, lambda: int(BATCH), lambda: float(BATCH), lambda: range(BATCH)):
        with pytest.raises(Undecided):
            question()


def test_evaluation_needs_every_size():
    dim = floor_divide(BATCH * SEQ + 1, 2)
    assert names_in(dim) == {"batch", "seq"}
    assert evaluate(dim, {"batch": 3}) is None
    assert evaluate(dim, {"batch": 3, "seq": 4}) == 6
    assert names_in(7) == set()


def test_static_shapes_have_no_symbol():
    assert is_static((1, 2))
    assert not is_static((1, BATCH))
    assert product([]) == 1


def test_text_is_written_the_plain_way():
    assert [str(d) for d in (2 * SEQ + 1, BATCH * SEQ, -BATCH + 4, SEQ - BATCH)] == [
        "2*seq+1",
        "batch*seq",
        "-batch+4",
        "-batch+seq",
    ]
    assert isinstance(parse_dim("onnx::Conv_1.0"), Sym)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "2*",
        "a b",
        "(a)",
        "min(a)",
        "max(a,b",
        "min(,a)",
        "a,b",
        "floor((a)/(0))",
        "floor((a)/(2)",
        "a**b",
        "[a]",
        "floor((a))",
    ],
)
def test_malformed_text_is_refused(text):
    with pytest.raises(ValueError, match="dimension"):
        parse_dim(text)


def test_shapes_bind_plain_names_and_say_what_does_not_fit():
    n, m = symbol("n"), symbol("m")
    sizes = {"m": 5}
    assert bind((n, m, n + m, 3), (2, 5, 99, 3), sizes) is None
    assert sizes == {"n": 2, "m": 5}
    assert bind((n, 3), (2, 4), sizes) == Misfit(1, 3, 4, 3)
    assert bind((m, n), (5, 7), sizes) == Misfit(1, n, 7, 2)
    dims: dict[str, Dim] = {}
    assert bind((n, m, 3), (2 * m, 4, 3), dims) is None and dims == {"n": 2 * m, "m": 4}
    assert bind((n,), (m,), dims) == Misfit(0, n, m, 2 * m)


@pytest.mark.parametrize(("dim", "name"), [(symbol("n"), "n"), (symbol("?x.0", 1, 5), "?x.0")])
def test_a_name_alone_is_plain(dim: Dim, name: str):
    assert plain_name(dim) == name


@pytest.mark.parametrize("dim", [3, symbol("n") + 1, 2 * symbol("n"), symbol("n") * symbol("m"), symbol("n") // 2])
def test_what_is_computed_is_no_plain_name(dim: Dim):
    assert plain_name(dim) is None
