"""A site alone is computed as in its network: operands that lie in strides there do so here."""

from collections.abc import Sequence
from typing import Any

import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.tuning.candidates import collect_sites
from miniinfer_cli.backends.cuda.tuning.site_graph import site_graph
from tests.graph_text import typed_graph

TEXT = """
graph main(x: f16[BATCH,7,48], w: f16[16,9], g: f16[BATCH,24,16]) {
  sizes: i64[3] = const [16, 16, 16]
  p = Mul(x, x)
  a, b, c = Split(p, sizes) {axis=2}
  h = Neg(g)
  t = Transpose(h) {perm=[0, 2, 1]}
  one = MatMul(a, w)
  two = MatMul(c, t)
  three = Add(a, b)
  return one, two, three
}
"""


def holds_nothing(constant: Any) -> bool:
    return False


@pytest.mark.parametrize("batch", [1, 3])
def test_the_same_is_computed(batch: int) -> None:
    graph = typed_graph(TEXT.replace("BATCH", str(batch)))
    sites = collect_sites(graph, [v.type for v in graph.inputs], Target(), holds_nothing)
    strided = [t for t in sites if any(s is not None for s in t.site.strided)]
    assert [t.site.node.op for t in strided] == ["MatMul", "MatMul", "Add"]
    for tuned in sites:
        alone, types = site_graph(tuned.site)
        found = collect_sites(alone, types, Target(), holds_nothing)
        assert [t.signature for t in found] == [tuned.signature]
        assert {s.kind for s in make_program(alone, types, Target()).steps} == {tuned.site.node.op}


def test_equal_sites_of_other_strides_are_not_the_same() -> None:
    def of(width: int) -> Sequence[str]:
        text = TEXT.replace("BATCH", "3").replace("48", str(32 + width)).replace("[16, 16, 16]", f"[16, 16, {width}]")
        graph = typed_graph(text.replace("two = MatMul(c, t)", "two = Neg(c)"))
        sites = collect_sites(graph, [v.type for v in graph.inputs], Target(), holds_nothing)
        return [t.signature for t in sites if t.site.node.op == "MatMul"]

    assert of(16) != of(32)
