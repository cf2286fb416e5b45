"""Graph text and clean-up that the tests of attention share."""

from miniinfer_cli.ir import Graph
from miniinfer_cli.passes.recognize_attention import recognize_attention
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes

QKV = "q: f32[batch,2,seq,4], k: f32[batch,2,w,4], v: f32[batch,2,w,3]"
KT = "kt = Transpose(k) {perm=[0, 1, 3, 2]}"
MASKS = "m: f32[batch,1,1,w], m2: f32[seq,w], c: bool[batch,1,1,w], d: bool[1,1,seq,w]"
PROLOGUE = f"""{KT}
  inf: f32[] = const -inf
  low: f32[] = const -3.4e38
  billion: f32[] = const -1e9
  zero: f32[] = const 0.0
  s = MatMul(q, kt)"""
GUARDED = "p0 = Softmax(t) i = IsNaN(p0) p = Where(i, zero, p0) y = MatMul(p, v)"


def recognized(graph: Graph) -> int:
    """The pass, and what it leaves cleaned up."""
    fired = recognize_attention(graph)
    remove_dead_nodes(graph)
    return fired
