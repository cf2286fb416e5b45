"""The sizes of batches: the plan's tuned ones, those asked for, else a few up to the largest."""

from dataclasses import replace

import numpy as np
import pytest

from engine_format import DimensionRange, TacticRecord, TargetGpu, TargetSection
from miniinfer_cli import Batcher
from miniinfer_cli.backends.cuda.tuning.candidates import FAST
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.tuning import TuningOptions, tune_plan
from miniinfer_cli.errors import UsageError
from miniinfer_cli.serving.batch_sizes import BatchSizes, choose_sizes, tuned_sizes
from miniinfer_cli.serving.layout import find_layout
from miniinfer_cli.wording import as_flags
from tests.backends.cuda.tuning.fake_clock import FakeClock
from tests.emulation.engine import load_emulated, open_emulated, plan_of
from tests.serving.staged import open_cpu

NET = "graph main(x: f32[n,8]) {\n  h = Concat(x, x) {axis=1}\n  y = Concat(h, h) {axis=1}\n  return y\n}"


def chosen(text: str = NET, ranges=(), max_batch=None, asked=None) -> tuple[int, ...]:
    with open_cpu(text, ranges) as engine:
        return choose_sizes(engine, find_layout(engine, None, {}), max_batch, asked)


def test_few_sizes_are_all_and_many_are_four_to_the_octave():
    assert chosen(max_batch=5) == (1, 2, 3, 4, 5)
    assert chosen(max_batch=1) == (1,)
    assert chosen(max_batch=70) == (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 70)
    assert len(chosen(max_batch=512)) == 32  # as many programs as an engine keeps
    assert chosen()[-1] == 32


def test_sizes_are_within_the_plans_range():
    assert chosen(ranges=[DimensionRange("n", 2, 4, 6)]) == (2, 3, 4, 5, 6)
    assert chosen(ranges=[DimensionRange("n", 3, 4, 6)], max_batch=4) == (3, 4)
    assert chosen(ranges=[DimensionRange("n", 0, 4, 6)], asked=[6, 2]) == (2, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch": 7}, r"max_batch: the plan takes no 7 rows \(n: 2 to 6"),
        ({"max_batch": 1}, "max_batch: the plan takes no 1 rows"),
        ({"asked": [1, 4]}, "batch_sizes: 1 rows are not among those allowed"),
        ({"asked": [4, 7]}, "batch_sizes: 7 rows"),
        ({"asked": [4, 5], "max_batch": 4}, r"batch_sizes: 5 rows are not among those allowed \(max_batch=4\)"),
        ({"asked": []}, "batch_sizes: expected at least one size"),
    ],
)
def test_sizes_that_the_plan_does_not_take(options, message):
    with pytest.raises(UsageError, match=message):
        chosen(ranges=[DimensionRange("n", 2, 4, 6)], **options)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (NET, {"asked": [5], "max_batch": 4}, "--batch-sizes: 5 rows are not among those allowed (--max-batch 4)"),
        (NET, {"asked": [0]}, "--batch-sizes: 0 rows are not among those allowed (1 or more)"),
        (NET.replace("[n,8]", "[4,8]"), {"asked": [5]}, "--batch-sizes: the plan computes 4 rows at a time"),
    ],
)
def test_the_command_line_says_so_in_its_flags(text, options, message):
    with pytest.raises(UsageError) as raised:
        chosen(text, **options)
    assert as_flags(raised.value.message) == message


def test_a_fixed_batch_is_the_only_size():
    fixed = NET.replace("[n,8]", "[4,8]")
    assert chosen(fixed) == chosen(fixed, max_batch=4) == chosen(fixed, asked=[4]) == (4,)
    for other in (3, 5):
        with pytest.raises(UsageError, match=f"max_batch: {other} is not 4, the fixed batch of the plan"):
            chosen(fixed, max_batch=other)
    with pytest.raises(UsageError, match="batch_sizes: the plan computes 4 rows at a time"):
        chosen(fixed, asked=[2, 4])


def tuned(signatures: list[str], gpu: str = "H200", device: str = "cuda:0", text: str = NET) -> list[int]:
    records = tuple(TacticRecord(s, "rows", "maker") for s in signatures)
    section = TargetSection("sm_90", gpu=TargetGpu("H200", 132, 1), records=records)
    with open_cpu(text) as engine:
        engine.plan = replace(engine.plan, targets=(section,))
        engine.device = device
        engine.model.facts = lambda: {"name": gpu}
        return tuned_sizes(engine, find_layout(engine, None, {}))


def signatures_at(*sizes: int) -> list[str]:
    first = [f"Concat f32[{n},8] f32[{n},8] -> f32[{n},16]" for n in sizes]
    return first + [f"FusedMatMul f32[{n},16] f32[16,32]* -> f32[{n},32] tf32" for n in sizes]


def test_tuned_sizes_are_those_whose_types_were_timed():
    assert tuned(signatures_at(1, 8, 64)) == [1, 8, 64]


def test_types_of_other_dimensions_and_of_constants_are_no_sizes():
    assert tuned([*signatures_at(4, 8), "Softmax f32[100,16] -> f32[100,16]", "MatMul f32[4,8] f32[77,16]* -> f32[4,77]"]) == [
        4,
        8,
    ]


def test_what_was_tuned_on_another_device_does_not_count():
    assert tuned(signatures_at(8), gpu="A100") == []
    assert tuned(signatures_at(8), device="cpu") == []
    assert tuned([]) == []


def test_a_plan_that_was_tuned_is_batched_by_what_it_was_tuned_for(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    text = """graph main(x: f32[n,24]) {
      w: f32[24,2] = const NUMBERS
      t = MatMul(x, w)
      y = Softmax(t) {axis=1}
      return y
    }""".replace("NUMBERS", str([1.0, 2.0] * 24))
    effort = replace(FAST, rounds=2, copies=1, pairs=12)
    tuned = tune_plan(
        plan_of(text),
        "cuda:0",
        TuningOptions(at={"n": [8, 64]}),
        DeviceOptions(),
        load=load_emulated(),
        effort=effort,
        clock=FakeClock({"gemm 64x64": 50.0}),
    )
    with open_emulated(tuned.plan) as engine, Batcher(engine) as batcher:
        assert batcher.batch_sizes == (1, 8, 64)
        x = np.ones((2, 24), np.float32)
        np.testing.assert_allclose(batcher.submit({"x": x}).result(20)["y"], engine.run({"x": x})["y"], atol=1e-6)


def chosen_when_tuned(*sizes: int, max_batch: int | None, ranges=()) -> tuple[int, ...]:
    records = tuple(TacticRecord(s, "rows", "maker") for s in signatures_at(*sizes))
    section = TargetSection("sm_90", gpu=TargetGpu("H200", 132, 1), records=records)
    with open_cpu(NET, ranges) as engine:
        engine.plan = replace(engine.plan, targets=(section,))
        engine.device = "cuda:0"
        engine.model.facts = lambda: {"name": "H200"}
        return choose_sizes(engine, find_layout(engine, None, {}), max_batch, None)


def test_tuned_sizes_are_taken_up_to_the_largest_batch():
    assert chosen_when_tuned(1, 8, 64, max_batch=None) == chosen_when_tuned(1, 8, 64, max_batch=64) == (1, 8, 64)
    assert chosen_when_tuned(1, 8, 64, max_batch=16) == (1, 8, 16)
    assert chosen_when_tuned(1, 8, 64, max_batch=128) == (1, 8, 64, 128)
    assert chosen_when_tuned(1, 8, 64, max_batch=None, ranges=[DimensionRange("n", 2, 8, 32)]) == (8,)


def test_a_batch_is_padded_or_filled_as_measured():
    sizes = BatchSizes((1, 8, 64))
    assert [sizes.fit("b", n) for n in (1, 3, 4, 8, 9, 32, 64, 99)] == [1, 1, 8, 8, 8, 64, 64, 64]
    for seconds in (0.9, 0.010, 0.8):  # the first waits for its program, others for other processes
        sizes.note("b", 1, seconds)
    sizes.note("b", 8, 0.011)
    assert [sizes.fit("b", n) for n in (1, 2, 3)] == [1, 8, 8]  # eight rows take hardly longer than one
    assert sizes.fit("other", 3) == 1
    sizes.note("b", 64, 0.088)
    assert [sizes.fit("b", n) for n in (40, 63, 64)] == [8, 8, 64]  # and 64 as long as eight times eight


def test_the_size_that_holds_is_the_smallest():
    sizes = BatchSizes((2, 8))
    assert [sizes.holding(n) for n in (1, 2, 3, 8)] == [2, 2, 8, 8]
    assert sizes.most == 8
