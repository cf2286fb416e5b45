"""What a site computes, as text; and which of two differ in M alone."""

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniinfer_cli.backends.cuda.choice.signature import family, m_ratio
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.tuning.candidates import collect_sites
from miniinfer_cli.ir import TensorType
from miniinfer_cli.passes.fuse_matmul import fuse_matmul
from tests.graph_text import typed_graph


def signatures(text: str, *, fused: bool = False, **target: Any) -> dict[str, str]:
    graph = typed_graph(text)
    if fused:
        fuse_matmul(graph)
    types = [v.type for v in graph.inputs]
    sites = collect_sites(graph, types, Target(**target), lambda constant: True)
    return {label: site.signature for site in sites for label in site.labels}


REGIONS = """
  graph main(x: f32[4,8], z: f32[4,8]) {
    w: f32[8,8] = const large "one"
    v: f32[8,8] = const large "two"
    b: f32[8] = const large "three"
    t: f32[4,8] = MatMul(x, w)
    u: f32[4,8] = Add(t, b)
    q: f32[4,8] = MatMul(z, v)
    r: f32[4,8] = Add(q, b)
    s: f32[4,8] = MatMul(u, w)
    y: f32[4,8] = Add(b, s)
    return r, y
  }
"""


def test_names_of_values_and_weights_do_not_count() -> None:
    found = signatures(REGIONS, fused=True)
    assert len(found) == 3 and len(set(found.values())) == 2  # b + s is another order of operands
    assert next(iter(found.values())) == (
        "miniinfer.FusedMatMul {MatMul(0,1) Add(3,2) return 4} f32[4,8] f32[8,8]* f32[8]* -> f32[4,8] tf32"
    )


def test_attributes_types_and_tf32_count() -> None:
    text = "graph main(x: f32[4,8]) {{ y: f32[4,8] = Softmax(x) {{axis={axis}}} return y }}"
    (one,) = signatures(text.format(axis=0)).values()
    (other,) = signatures(text.format(axis=1)).values()
    (plain,) = signatures(text.format(axis=1), tf32=False).values()
    assert one == "Softmax axis=0 f32[4,8] -> f32[4,8] tf32"
    assert other == "Softmax axis=1 f32[4,8] -> f32[4,8] tf32"
    assert plain == "Softmax axis=1 f32[4,8] -> f32[4,8]"


def test_sites_that_compute_the_same_are_one() -> None:
    graph = typed_graph("""
      graph main(x: f32[4,8]) {
        a: f32[4,8] = Softmax(x)
        b: f32[4,8] = Softmax(a)
        c: f32[4,8] = Softmax(b) {axis=0}
        return c
      }
    """)
    sites = collect_sites(graph, [TensorType(v.type.dtype, v.type.shape) for v in graph.inputs], Target(), lambda c: True)  # type: ignore[union-attr]
    assert [s.labels for s in sites] == [["a", "b"], ["c"]]
    made = make_program(graph, [v.type for v in graph.inputs], Target())
    assert len(made.steps) == 3


PRODUCT = "MatMul f16[{m},768] f16[768,{n}]* -> f16[{m},{n}]"


@pytest.mark.parametrize(
    ("wanted", "known", "ratio"),
    [
        (PRODUCT.format(m=128, n=64), PRODUCT.format(m=64, n=64), 2.0),
        (PRODUCT.format(m=64, n=64), PRODUCT.format(m=128, n=64), 0.5),
        (PRODUCT.format(m=64, n=64), PRODUCT.format(m=64, n=64), None),  # nothing differs
        (PRODUCT.format(m=64, n=64), PRODUCT.format(m=64, n=128), None),  # N does
        ("MatMul f16[4,8] f16[8,2] -> f16[4,2]", "MatMul f16[4,8] f16[8,4] -> f16[4,4]", None),
        ("MatMul f16[4,8] f16[8,2] -> f16[4,2]", "MatMul f16[4,4] f16[4,2] -> f16[4,2]", None),  # K
        ("MatMul f16[4,8] f16[8,2] -> f16[4,2]", "MatMul f16[8,8] f16[8,2] -> f16[8,2]", 0.5),
        ("MatMul f16[6,4,8] f16[6,8,2] -> f16[6,4,2]", "MatMul f16[3,4,8] f16[3,8,2] -> f16[3,4,2]", 2.0),
        ("MatMul f16[6,4,8] f16[8,2]* -> f16[6,4,2]", "MatMul f16[3,8,8] f16[8,2]* -> f16[3,8,2]", None),  # two axes
        ("Softmax f32[4,8] -> f32[4,8]", "Softmax f32[4,4] -> f32[4,4]", None),  # the rows' length
        ("Softmax f32[4,8] -> f32[4,8]", "Softmax f16[2,8] -> f16[2,8]", None),
        ("Softmax axis=0 f32[4,8] -> f32[4,8]", "Softmax f32[2,8] -> f32[2,8]", None),
        ("Conv {C(0,1)} f16[2,9,9,8] f16[8,3,8]* -> f16[2,7,7,8]", "Conv {C(0,1)} f16[1,9,9,8] f16[8,3,8]* -> f16[1,7,7,8]", 2.0),
        ("Erf f32[0,8] -> f32[0,8]", "Erf f32[4,8] -> f32[4,8]", 0.0),
        ("Erf f32[4,8] -> f32[4,8]", "Erf f32[0,8] -> f32[0,8]", None),
    ],
)  # fmt: skip
def test_which_differ_in_m_alone(wanted: str, known: str, ratio: float | None) -> None:
    assert m_ratio(wanted, known) == ratio
    if ratio:
        assert family(wanted) == family(known)


@given(st.text(alphabet="af1[],*{} ->=\n", max_size=80), st.text(alphabet="af1[],*{} ->=\n", max_size=80))
def test_any_text_of_a_file_may_be_compared(one: str, other: str) -> None:
    assert isinstance(family(one), str)
    ratio, back = m_ratio(one, other), m_ratio(other, one)
    assert not ratio or not back or ratio == pytest.approx(1 / back)
    assert m_ratio(one, one) is None


def test_long_texts_take_time_in_proportion() -> None:
    started = time.perf_counter()
    for text in ("a" * 200_000, "a[1," * 50_000, "f32[" + "1," * 100_000, "{" * 200_000):
        family(text)
    assert time.perf_counter() - started < 2


def test_large_constants_in_attributes_are_told_by_their_contents() -> None:
    from miniinfer_cli.backends.cuda.choice.signature import _said

    ones = np.ones(100, np.float32)
    assert _said(ones) == _said(ones.copy()) != _said(ones * 2)
    assert _said(np.arange(2)) == "int64[2]:[0, 1]"
