"""The join "cached_attention": which attentions over caches it takes, and the same results on the emulated device."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.choice.joining import joins_of
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.scheduling.programmatic_edges import begin_early
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.ir import Graph
from miniinfer_cli.ops.inference import infer_graph
from tests.backends.cuda.harness import checked_kinds
from tests.backends.cuda.performing import perform_program
from tests.cached_models import TOKENS, group_query_attention, logits_of
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated
from tests.emulation.stream import Schedule
from tests.graph_text import typed_graph

# As a decoder has it: queries, keys and values are columns of one product, and lie between those of others.
ONE = """
graph main(x: f16[3,1,256], kp: f16[3,2,150,32], vp: f16[3,2,150,32], at: i64[3], n: i64[3], c: f16[3,1,16], s: f16[3,1,16]) {
  sizes: i64[3] = const [128,64,64]
  qs, ks, vs = Split(x, sizes) {axis=2}
  qh: i64[4] = const [0,0,4,32]
  kh: i64[4] = const [0,0,2,32]
  q3 = Reshape(qs, qh)
  k3 = Reshape(ks, kh)
  v3 = Reshape(vs, kh)
  q = Transpose(q3) {perm=[0,2,1,3]}
  k = Transpose(k3) {perm=[0,2,1,3]}
  v = Transpose(v3) {perm=[0,2,1,3]}
  qt = RotaryEmbedding(q, c, s)
  kt = RotaryEmbedding(k, c, s)
  kn = TensorScatter(kp, kt, at) {axis=2}
  vn = TensorScatter(vp, v, at) {axis=2}
  y = Attention(qt, kn, vn, -, -, -, n) {is_causal=1}
  return y, kn, vn
}
"""
FORCED = Target(policy=Policy(forced={"kt": "cached_attention"}))


def graph_of(*exchanged: tuple[str, str]) -> Graph:
    text = ONE
    for old, new in exchanged:
        assert old in text
        text = text.replace(old, new)
    return typed_graph(text)


def given(graph: Graph, held: tuple[int, ...] = (0, 64, 149), dtype: Any = np.float16) -> list[Any]:
    """Inputs whose slots hold so many rows; behind them lies what must not be looked at."""
    rng = np.random.default_rng(1)
    draw = {v.name: rng.standard_normal(v.tensor.shape).astype(dtype) for v in graph.inputs if v.name not in ("at", "n", "i")}
    draw |= {"at": np.array(held), "n": np.array(held) + 1, "i": np.array([[5], [29], [0]])}
    angles = rng.uniform(0, 6, draw["c"].shape)
    draw |= {"c": np.cos(angles).astype(draw["c"].dtype), "s": np.sin(angles).astype(draw["c"].dtype)}
    return [draw[v.name] for v in graph.inputs]


def check(graph: Graph, inputs: list[Any], tolerance: float = 3e-3, target: Target = FORCED) -> list[str]:
    """The kinds of steps, joined, with the results of the references."""
    return checked_kinds(graph, inputs, target, tolerance)


JOINED = ["miniinfer.CachedAttention"]


@pytest.mark.parametrize(
    "exchanged",
    [
        [],
        [("{is_causal=1}", "{is_causal=1, left_window_size=70}")],
        [("{is_causal=1}", "{is_causal=1, softcap=2.0, scale=0.5, nan_rows=\"keep\"}")],
        [("(q, c, s)", "(q, c, s) {interleaved=1}"), ("(k, c, s)", "(k, c, s) {interleaved=1}")],
        [("c: f16[3,1,16], s: f16[3,1,16]", "c: f16[30,16], s: f16[30,16], i: i64[3,1]"), ("c, s)", "c, s, i)")],
        [("c: f16[3,1,16], s: f16[3,1,16]", "c: f16[1,1,16], s: f16[1,1,16]")],
        [("vp: f16[3,2,150,32]", "vp: f16[3,2,150,34]"), ("x: f16[3,1,256]", "x: f16[3,1,260]"), ("128,64,64", "128,64,68"),
         ("v3 = Reshape(vs, kh)", "vh: i64[4] = const [0,0,2,34]\n  v3 = Reshape(vs, vh)")],
    ],
    ids=["plain", "window", "softcap", "interleaved", "ids", "one position", "other values"],
)  # fmt: skip
def test_one_token_of_each_slot(exchanged):
    graph = graph_of(*exchanged)
    assert check(graph, given(graph)) == JOINED


@pytest.mark.parametrize(("dtype", "name", "tolerance"), [(np.float32, "f32", 1e-5), (ml_dtypes.bfloat16, "bf16", 2e-2)])
def test_other_types(dtype, name, tolerance):
    graph = graph_of(("f16", name))
    assert check(graph, given(graph, dtype=dtype), tolerance) == JOINED


@pytest.mark.parametrize("held", [(0, 0, 0), (63, 64, 65), (127, 128, 129), (148, 149, 1)])
def test_rows_at_the_ends_of_parts(held):
    graph = graph_of()
    assert check(graph, given(graph, held)) == JOINED


def test_what_lies_behind_the_rows_that_are_held_is_not_looked_at():
    graph = graph_of()
    inputs = given(graph, (3, 70, 10))
    clean = make_program(graph, [v.type for v in graph.inputs], FORCED)
    (want, *_) = perform_program(clean, inputs, FORCED)
    for cache in (inputs[1], inputs[2]):
        for slot, held in enumerate((3, 70, 10)):
            cache[slot, :, held:] = np.nan
    (got, *_) = perform_program(clean, inputs, FORCED)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "exchanged",
    [
        [("return y", "return qt, y")],
        [("TensorScatter(vp, v, at)", "TensorScatter(vp, v, n)")],
        [("{axis=2}\n  vn", "{axis=2, mode=\"circular\"}\n  vn")],
        [("kt = RotaryEmbedding(k, c, s)", "kt = RotaryEmbedding(k, s, c)")],
        [("kt = RotaryEmbedding(k, c, s)", "kt = RotaryEmbedding(k, c, s) {interleaved=1}")],
        [("{is_causal=1}", "{is_causal=0}")],
        [("x: f16[3,1,256]", "x: f16[3,2,256]"), ("c: f16[3,1,16], s: f16[3,1,16]", "c: f16[3,2,16], s: f16[3,2,16]")],
        [("{is_causal=1}", "{is_causal=1, nan_rows=\"zero\"}")],
    ],
    ids=["turned read", "elsewhere", "circular", "angles", "pairs", "all keys", "two tokens", "nan rows"],
)  # fmt: skip
def test_what_is_left_alone(exchanged):
    graph = graph_of(*exchanged)
    types = infer_graph(graph, [v.type for v in graph.inputs])
    assert [j.key for j in joins_of(graph, types, Target()) if j.key == "cached_attention"] == []


def test_the_heuristic_takes_it():
    graph = graph_of()
    program = make_program(graph, [v.type for v in graph.inputs], Target())
    assert [s.kind for s in program.steps] == JOINED


def test_in_a_plan_with_caches_it_writes_into_the_states_and_begins_early():
    plan = miniinfer_cli.build(group_query_attention(positions=100), kv_cache=100, tf32=False)
    ids = np.random.default_rng(0).integers(0, TOKENS, (2, 70))
    results = []
    for pdl in (False, True):
        device = EmulatedDevice(schedule=Schedule("early"))
        with open_emulated(plan, device, options=DeviceOptions(pdl=pdl)) as engine:
            made = engine.program(engine.check({"input_ids": ids[:, :1]})).made  # type: ignore[attr-defined]
            joined = [s for s in begin_early(made.steps) if s.kind == "miniinfer.CachedAttention"]
            assert [s.present for s in made.states] == [None, None]
            assert [[a.attributes.programmatic for a in s.actions] for s in joined] == [[True, True]]  # launches alone
            with engine.create_context() as context:
                got = [context.run({"input_ids": ids[:, :60]})["logits"]]
                got += [context.run({"input_ids": ids[:, i : i + 1]})["logits"] for i in range(60, 70)]  # over the end of a part
        assert (device.schedule.begun > 0) == pdl
        results.append(np.concatenate(got, 1))
    np.testing.assert_allclose(results[0], logits_of(ids), rtol=0, atol=2e-5)
    np.testing.assert_array_equal(results[0], results[1])
