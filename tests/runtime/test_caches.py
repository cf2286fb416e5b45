"""Caches of keys and values as states: turns of one context, on the CPU and on the emulated device, against whole prompts."""

from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import miniinfer_cli
from engine_format import read_plan, write_plan
from miniinfer_cli.builder.building import build_plan
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import ModelError, PlanFileError, UsageError
from miniinfer_cli.runtime.engine import Engine
from sample_models.catalogue import generate
from sample_models.request import Request
from tests.cached_models import TOKENS, group_query_attention, logits_of, tensor_scatter
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated
from tests.emulation.stream import Schedule
from tests.everywhere import parsed

CAPACITY = 24
CLOSE = {"rtol": 0, "atol": 2e-5}


@pytest.fixture(params=["cpu", "at once", "late", "random"])
def opened(request) -> Iterator[Callable[..., Engine]]:
    """Opens plans with caches on the CPU, and on the emulated device under each schedule."""
    device = None if request.param == "cpu" else EmulatedDevice(schedule=Schedule(request.param))
    engines: list[Engine] = []

    def open_plan(model: onnx.ModelProto, capacity: int = CAPACITY, **options) -> Engine:
        plan = miniinfer_cli.build(model, kv_cache=capacity, tf32=False, **options)
        engines.append(load(plan, "cpu") if device is None else open_emulated(plan, device))
        return engines[-1]

    yield open_plan
    for engine in engines:
        engine.close()
    assert device is None or device.leftovers == {}


def tokens(batch: int, length: int) -> np.ndarray:
    return np.random.default_rng(batch * 100 + length).integers(0, TOKENS, (batch, length))


def turns(context, ids: np.ndarray, ends: list[int]) -> np.ndarray:
    """The logits of tokens that are given in turns, up to each of the ends."""
    return np.concatenate([context.run({"input_ids": ids[:, a:b]})["logits"] for a, b in zip([0, *ends], ends, strict=False)], 1)


def exported_llama() -> onnx.ModelProto:
    return generate("tinyllama", Request(small=True))


def whole_logits(model: onnx.ModelProto, ids: np.ndarray) -> np.ndarray:
    """What the model, built with no states, gives for all tokens at once."""
    batch, length = ids.shape
    with load(miniinfer_cli.build(model), "cpu") as engine:
        empty = {b.name: np.zeros((batch, 2, 0, 8), "f") for b in engine.inputs if b.name.startswith("past")}
        place = np.broadcast_to(np.arange(length), (batch, length))
        return engine.run({"input_ids": ids, "attention_mask": np.ones((batch, length), "i8"), "position_ids": place, **empty})[
            "logits"
        ]


MODELS = {
    "grouped": lambda: (group_query_attention(), {}, logits_of),
    "window": lambda: (group_query_attention(window=4), {}, lambda ids: logits_of(ids, window=4)),
    "scatter": lambda: (tensor_scatter(CAPACITY), {}, logits_of),
    "named": lambda: (tensor_scatter(CAPACITY), {"state": ["key_cache:present_key", "value_cache:present_value"]}, logits_of),
    "exported": lambda: (exported_llama(), {}, lambda ids: whole_logits(exported_llama(), ids)),
}


@pytest.mark.parametrize("name", MODELS)
def test_turns_give_what_whole_prompts_give(name, opened):
    model, options, expected = MODELS[name]()
    engine, ids = opened(model, **options), tokens(2, CAPACITY)
    assert ([b.name for b in engine.inputs], [b.name for b in engine.outputs]) == (["input_ids"], ["logits"])
    with engine.create_context() as context:
        got = turns(context, ids, [5, 6, 7, 8, 23, 24])
        np.testing.assert_allclose(got, expected(ids), **CLOSE)
        assert (context.length, context.lengths) == (24, (24, 24))
    assert engine.stats()["programs_made"] == 2  # of 16 tokens, and of one


def test_a_decoder_with_both_branches_is_the_one_with_a_past(opened):
    body = [
        helper.make_node("Gather", ["words", "input_ids"], ["x"]),
        helper.make_node("Concat", ["past_key_values.0.key", "x4"], ["kept"], axis=2),
    ]
    shape = helper.make_node("Unsqueeze", ["x", "one"], ["x4"])
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "kept")]
    with_past = helper.make_graph([body[0], shape, body[1], _attention("x4", "kept", "y4", mask=True), _flat()], "w", [], given)
    alone = helper.make_graph(
        [body[0], shape, _attention("x4", "x4", "y4", mask=False), _flat(), helper.make_node("Identity", ["x4"], ["kept"])],
        "alone",
        [],
        given,
    )
    nodes = [helper.make_node("If", ["use_cache_branch"], ["logits", "present.0.key"], then_branch=with_past, else_branch=alone)]
    model = _decoder(nodes, [helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1])])
    engine, ids = opened(model), tokens(1, 9)
    with engine.create_context() as context:
        got = turns(context, ids, [4, 5, 9])
    x = _WORDS[ids].astype(np.float64)
    scores = np.where(np.tril(np.ones((9, 9), bool)), x @ x.swapaxes(1, 2) / 2, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    np.testing.assert_allclose(got, p / p.sum(-1, keepdims=True) @ x, **CLOSE)


_WORDS = np.random.default_rng(3).standard_normal((TOKENS, 4)).astype("f")


def _attention(q: str, k: str, y: str, *, mask: bool) -> onnx.NodeProto:
    return helper.make_node("Attention", [q, k, k, *(["mask"] if mask else [])], [y], is_causal=int(not mask), scale=0.5)


def _flat() -> onnx.NodeProto:
    return helper.make_node("Squeeze", ["y4", "one"], ["y"])


def _decoder(nodes, inputs=(), outputs=(), mask="LessOrEqual", opset=23) -> onnx.ModelProto:
    """Attention of tokens over themselves and a past, whose masks and positions come from shapes."""
    before = [
        helper.make_node("Shape", ["input_ids"], ["new"], start=1, end=2),
        helper.make_node("Shape", ["past_key_values.0.key"], ["held"], start=2, end=3),
        helper.make_node("Add", ["new", "held"], ["all"]),
        *(helper.make_node("Squeeze", [a, "zero"], [f"{a}0"]) for a in ("held", "all")),
        helper.make_node("Range", ["held0", "all0", "step"], ["rows"]),
        helper.make_node("Range", ["begin", "all0", "step"], ["columns"]),
        helper.make_node("Unsqueeze", ["rows", "one"], ["rows2"]),
        helper.make_node(mask, ["columns", "rows2"], ["mask"]),
    ]
    stored = {"words": _WORDS, "one": np.array([1]), "zero": np.array([0]), "begin": np.array(0), "step": np.array(1)}
    past = ["batch", 1, "past", 4]
    graph = helper.make_graph(
        [*before, *nodes], "decoder",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "seq"]),
         helper.make_tensor_value_info("past_key_values.0.key", TensorProto.FLOAT, past), *inputs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "seq", 4]),
         helper.make_tensor_value_info("present.0.key", TensorProto.FLOAT, ["batch", 1, "total", 4]), *outputs],
        [onnx.numpy_helper.from_array(a, n) for n, a in stored.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _body(attention: onnx.NodeProto | None = None, *more: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gather", ["words", "input_ids"], ["x"]),
        helper.make_node("Unsqueeze", ["x", "one"], ["x4"]),
        helper.make_node("Concat", ["past_key_values.0.key", "x4"], ["present.0.key"], axis=2),
        attention or _attention("x4", "present.0.key", "y4", mask=True),
        *(more or [helper.make_node("Squeeze", ["y4", "one"], ["logits"])]),
    ]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: _decoder(_body(), mask="Greater"), r"attention over the cache hides a token from itself"),
        (
            lambda: _decoder(_body(_attention("x4", "present.0.key", "y4", mask=False))),
            "attention over the cache hides a token from itself",  # its first query stands at the first key
        ),
        (
            lambda: _decoder(
                _body(
                    None,
                    helper.make_node("Squeeze", ["y4", "one"], ["y"]),
                    helper.make_node("Cast", ["held0"], ["n"], to=1),
                    helper.make_node("Mul", ["y", "n"], ["logits"]),
                )
            ),
            r"\(Mul\) uses the length of the cache, n, in the computation",
        ),
        (
            lambda: _decoder(
                _body(
                    None,
                    helper.make_node("Constant", [], ["two"], value_ints=[2]),
                    helper.make_node("ReduceSum", ["present.0.key", "two"], ["s"]),
                    helper.make_node("Add", ["y4", "s"], ["t"]),
                    helper.make_node("Squeeze", ["t", "one"], ["logits"]),
                )
            ),
            r"\(ReduceSum\) reads a cache, and is no attention",
        ),
        (
            lambda: _decoder(
                _body(
                    None,
                    helper.make_node("Squeeze", ["y4", "one"], ["y"]),
                    helper.make_node("Softmax", ["y"], ["logits"], axis=1),
                )
            ),
            "Softmax does more with the new tokens than to compute each by itself",
        ),
    ],
)  # fmt: skip
def test_what_uses_the_length_in_another_way_is_refused_by_name(model, message):
    with pytest.raises(ModelError, match=message):
        miniinfer_cli.build(model(), kv_cache=CAPACITY)


def test_what_is_no_cache_and_what_is_too_small():
    plain = parsed("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    with pytest.raises(
        UsageError, match=r"no input and output are called as a cache is.*\n  hint: name each pair that grows: state="
    ):
        miniinfer_cli.build(plain, kv_cache=8)
    with pytest.raises(UsageError, match=r"kv_cache: 16 rows, but the cache 'key_cache' has 24"):
        miniinfer_cli.build(tensor_scatter(24), kv_cache=16)
    with pytest.raises(UsageError, match="kv_cache: 65 rows, but the model knows positions for 64"):
        miniinfer_cli.build(group_query_attention(), kv_cache=65)
    with pytest.raises(ModelError, match=r"reads a cache as keys or as values alone\n  hint: name the pairs of all caches"):
        miniinfer_cli.build(exported_llama(), kv_cache=8, state=["past_key_values.0.key:present.0.key"])
    for rows in (0, -1, True, 1.5):
        with pytest.raises(UsageError, match="kv_cache: expected a number of rows, got"):
            miniinfer_cli.build(plain, kv_cache=rows)


def test_callers_are_told_of_inputs_that_they_no_longer_give():
    notes = build_plan(group_query_attention(), None, BuildOptions(kv_cache=8)).notes
    assert [n for n in notes if "follows" in n] == [
        "input 'attention_mask' follows from the lengths of the caches: callers do not give it"
    ]


def test_long_prompts_are_computed_in_chunks_and_ends_of_the_capacity_in_small_ones(opened):
    engine, ids = opened(group_query_attention(), 40), tokens(1, 40)
    with engine.create_context() as context:
        got = turns(context, ids, [3, 37, 40])  # 16 and 1; 16, 16 and 2 in 16 would end behind the capacity
        np.testing.assert_allclose(got, logits_of(ids), **CLOSE)
        with pytest.raises(UsageError, match="1 new tokens behind the 40 that slot 0 holds are more than the capacity of 40"):
            context.run({"input_ids": ids[:, :1]})
        assert context.lengths == (40,)
    assert engine.stats()["programs_made"] == 2


def test_more_than_the_capacity_is_refused_before_anything_is_computed(opened):
    engine, ids = opened(group_query_attention(), 20), tokens(2, 21)
    with engine.create_context() as context:
        with pytest.raises(UsageError, match="21 new tokens behind the 0 that slot 0 holds"):
            context.run({"input_ids": ids})
        context.run({"input_ids": ids[:, :19]})
        for call in (context.run, context.enqueue):
            with pytest.raises(UsageError, match="2 new tokens behind the 19 that slot 0 holds"):
                call({"input_ids": ids[:, :2]})
        got = context.run({"input_ids": ids[:, 19:20]})["logits"]
        np.testing.assert_allclose(got, logits_of(ids[:, :20])[:, 19:], **CLOSE)


def test_two_turns_in_flight(opened):
    engine, ids = opened(group_query_attention()), tokens(2, 12)
    with engine.create_context() as context:
        futures = [context.enqueue({"input_ids": ids[:, a:b]}) for a, b in ((0, 4), (4, 5), (5, 6), (6, 12))]
        assert context.lengths == (12, 12)
        got = np.concatenate([f.result()["logits"] for f in futures], 1)
    np.testing.assert_allclose(got, logits_of(ids), **CLOSE)


def test_what_measures_appends_nothing(opened):
    engine, ids = opened(group_query_attention()), tokens(1, 10)
    with engine.create_context() as context:
        arrays = engine.check({"input_ids": tokens(1, 1)})
        for at in range(5):
            for _ in range(3):  # as it is, captured, captured with events
                context.run_arrays(arrays, commit=False)
                context.time_steps(arrays)
                context.start(arrays).result()
                context.start(arrays, timed=True, transfers=False).wait()
            assert context.length == 2 * at
            got = context.run({"input_ids": ids[:, 2 * at : 2 * at + 2]})["logits"]
            np.testing.assert_allclose(got, logits_of(ids)[:, 2 * at : 2 * at + 2], **CLOSE)
        times: list[int] = []
        context.run({"input_ids": ids[:, :1]}, times)
        assert (len(times), context.length) == (len(engine.program(arrays).steps), 11)


@pytest.mark.parametrize("count", [1, 4])
def test_what_measures_leaves_rows_of_turns_since_its_inputs_were_copied(opened, count):
    """An I/O slot still holds the inputs of a turn whose tokens did not count; what counts lies in their rows now."""
    engine, ids = opened(group_query_attention()), tokens(2, 12)
    with engine.create_context() as context:
        others = {"input_ids": ids[:, 6 : 6 + count]}
        for feeds in ({"input_ids": ids}, others):  # the first one makes the slots large enough for what comes
            context.run(feeds, counts=[0, 0])
        context.run({"input_ids": ids[:, :6]})
        context.start(engine.check(others), transfers=False).wait()
        np.testing.assert_allclose(context.run({"input_ids": ids[:, 6:]})["logits"], logits_of(ids)[:, 6:], **CLOSE)


def test_a_fork_diverges_and_rows_can_be_forgotten(opened):
    engine, ids, others = opened(group_query_attention()), tokens(1, 12), tokens(1, 13)
    with engine.create_context() as context:
        context.enqueue({"input_ids": ids[:, :6]})
        with context.fork() as fork:
            one, two = np.concatenate([ids[:, :6], others[:, :5]], 1), ids
            np.testing.assert_allclose(fork.run({"input_ids": others[:, :5]})["logits"], logits_of(one)[:, 6:], **CLOSE)
            np.testing.assert_allclose(context.run({"input_ids": ids[:, 6:]})["logits"], logits_of(two)[:, 6:], **CLOSE)
            assert (fork.length, context.length) == (11, 12)
        context.truncate(4)
        changed = np.concatenate([ids[:, :4], others], 1)
        np.testing.assert_allclose(context.run({"input_ids": others})["logits"], logits_of(changed)[:, 4:], **CLOSE)
        for wrong in (18, -1, True, 2.0):
            with pytest.raises(UsageError, match="truncate: expected 0 to 17 rows, got"):
                context.truncate(wrong)
        context.reset()
        assert context.lengths == ()
        np.testing.assert_allclose(context.run({"input_ids": ids})["logits"], logits_of(ids), **CLOSE)


def test_slots_of_different_lengths_are_what_each_is_beside_any_other(opened):
    engine, ids = opened(group_query_attention()), tokens(3, 14)
    given = [4, 0, 7]
    with engine.create_context() as context, engine.create_context() as alone:
        first = context.run({"input_ids": ids[:, :7]}, counts=given)["logits"]
        assert context.lengths == tuple(given)
        rows = [ids[slot, n : n + 1] for slot, n in enumerate(given)]
        second = context.enqueue({"input_ids": np.stack(rows)}, counts=[1, 1, 1]).result()["logits"]
        third = context.run({"input_ids": np.stack([ids[s, n + 1 : n + 7] for s, n in enumerate(given)])}, counts=[6, 2, 5])[
            "logits"
        ]
        assert context.lengths == (11, 3, 13)
        for slot, n in enumerate(given):
            want = logits_of(ids[slot : slot + 1])[0]
            np.testing.assert_allclose(first[slot, :n], want[:n], **CLOSE)
            np.testing.assert_allclose(second[slot, 0], want[n], **CLOSE)
            count = [6, 2, 5][slot]
            np.testing.assert_allclose(third[slot, :count], want[n + 1 : n + 1 + count], **CLOSE)
            # Bit for bit, whatever the other slots hold: here nothing, and other tokens.
            alone.reset()
            only = np.arange(3) == slot
            mixed = np.where(only[:, None], ids[:, :7], 0)
            np.testing.assert_array_equal(alone.run({"input_ids": mixed}, counts=n * only)["logits"][slot, :n], first[slot, :n])
            mixed = np.where(only[:, None], np.stack(rows), 1)
            np.testing.assert_array_equal(alone.run({"input_ids": mixed}, counts=1 * only)["logits"][slot], second[slot])
        context.reset(1)
        assert context.lengths == (11, 0, 13)
        for wrong in ([1, 1], [1, 1, 7], [1, 1, -1], [1, 1, 1.0]):
            with pytest.raises(UsageError, match="counts: expected 3 numbers from 0 to 1"):
                context.run({"input_ids": ids[:, :1]}, counts=wrong)
        with pytest.raises(UsageError, match="slot: expected 0 to 2, got 3"):
            context.truncate(0, 3)
        with pytest.raises(UsageError, match=r"are f32\[3,2,24,8\], these inputs want f32\[1,2,24,8\]"):
            context.run({"input_ids": ids[:1, :1]})


def test_a_slot_that_is_full_is_told(opened):
    engine, ids = opened(group_query_attention()), tokens(2, CAPACITY)
    with engine.create_context() as context:
        context.run({"input_ids": ids}, counts=[CAPACITY, 3])
        with pytest.raises(
            UsageError,
            match="the caches have room for 0 more rows, 1 would be written",
        ):
            context.run({"input_ids": ids[:, 3:4]}, counts=[0, 1])
        context.reset(0)
        got = context.run({"input_ids": ids[:, 3:4]}, counts=[0, 1])["logits"]
        np.testing.assert_allclose(got[1], logits_of(ids[1:, :4])[0, 3:], **CLOSE)


def test_what_an_earlier_turn_left_behind_the_length_is_not_seen(opened):
    # A row of NaN that is forgotten stays in memory; zero times NaN would be NaN.
    engine, ids = opened(_decoder(_body())), tokens(1, 8)
    with engine.create_context() as context:
        before = _WORDS[3].copy()
        fresh = turns(context, ids, [3, 8])
        context.reset()
        context.run({"input_ids": ids[:, :3]})
        with context.fork() as fork:
            _poison(fork)
            np.testing.assert_array_equal(fork.run({"input_ids": ids[:, 3:]})["logits"], fresh[:, 3:])
        np.testing.assert_array_equal(_WORDS[3], before)


def _fetched(engine, value) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else engine.model.fetch(value)


def _poison(context) -> None:
    """NaN in all rows behind the length of a context's caches."""
    device, length = context._device, context.length
    if hasattr(device, "_states"):
        for state in device._states:
            state[:, :, length:] = np.nan
        return
    device.synchronize()
    for number, kind in enumerate(device.states.kinds):
        held, address = np.empty(kind.shape, np.float32), device.states.address(number)
        device.compute.copy_to_host(held.ctypes.data, address, held.nbytes)
        device.compute.synchronize()
        held[:, :, length:] = np.nan
        device.compute.copy_to_device(address, held.ctypes.data, held.nbytes)
        device.compute.synchronize()


def test_outputs_on_the_device_are_of_as_many_tokens_as_a_program_takes(opened):
    engine, ids = opened(group_query_attention()), tokens(1, 17)
    with engine.create_context() as context:
        for count in (3, 17):
            with pytest.raises(UsageError, match=r"on_device.*\n  hint: give as many tokens as one program takes: 1, 16"):
                context.enqueue({"input_ids": ids[:, :count]}, on_device=True)
        assert context.length == 0
        first = context.enqueue({"input_ids": ids[:, :16]}, on_device=True)
        second = context.enqueue({"input_ids": ids[:, 16:]}, on_device=True)
        got = np.concatenate([_fetched(engine, f.result()["logits"]) for f in (first, second)], 1)
        np.testing.assert_allclose(got, logits_of(ids), **CLOSE)


def test_in_sixteen_bits_the_caches_are_so_too(opened):
    engine, ids = opened(exported_llama(), precision="f16"), tokens(1, 12)
    assert {str(v.type) for v in engine.graph.inputs if v.name.startswith("past")} == {f"f16[batch,2,{CAPACITY},8]"}
    with engine.create_context() as context:
        np.testing.assert_allclose(turns(context, ids, [7, 8, 12]), whole_logits(exported_llama(), ids), rtol=0, atol=2e-2)


def test_a_number_of_tokens_that_is_fixed(opened):
    engine, ids = opened(exported_llama(), shapes={"input_ids": (1, 1), "position_ids": (1, 1)}), tokens(1, 5)
    with engine.create_context() as context:
        got = turns(context, ids, [1, 2, 3, 4, 5])
        assert context.length == 5
    np.testing.assert_allclose(got, whole_logits(exported_llama(), ids), **CLOSE)


@pytest.mark.parametrize(
    "change",
    [
        {"capacity": 23}, {"length": "input_ids"}, {"length": ""}, {"buckets": []}, {"buckets": [16, 1]}, {"pairs": []},
        {"pairs": [["input_ids", "logits", None]]}, {"pairs": [["past_key_values.0.key", "present.0.key", 0]]},
        {"pairs": 3}, {"tokens": 1},
    ],
)  # fmt: skip
def test_a_plan_whose_states_do_not_fit_is_refused(change, tmp_path):
    plan = miniinfer_cli.build(group_query_attention(), kv_cache=CAPACITY)
    plan.report.options["states"] = {**plan.report.options["states"], **change}
    write_plan(plan, tmp_path / "m.plan")
    with read_plan(tmp_path / "m.plan") as wrong, pytest.raises(PlanFileError, match="the states of the plan"):
        load(wrong, "cpu")


def test_nothing_is_made_after_the_first_tokens(opened):
    engine, token = opened(group_query_attention()), {"input_ids": np.array([[3]])}

    def counts() -> list[object]:
        stats = engine.stats()
        return [stats["programs_made"], stats.get("cuda_graphs"), stats.get("device_allocations")]

    with engine.create_context() as context:
        context.run({"input_ids": tokens(1, 5)})
        for _ in range(6):  # each I/O slot: as it is, captured, replayed
            context.run(token)
        before = counts()
        for _ in range(CAPACITY - 11):
            context.run(token)
        assert counts() == before
        assert before[0] == 2
