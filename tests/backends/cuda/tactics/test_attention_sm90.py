"""Attention by the kernel for sm_90a: forms, masks, types, odd sizes, schedules; and that a faulty kernel is seen to."""

import pytest

from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.tactics.attention.attention_sm90 import Cut
from miniinfer_cli.ir import DType
from tests.backends.cuda.tactics import faults
from tests.emulation.compiler import EARLY, LATE
from tests.sm90_cases.heads import CASES, MASKS, TOLERANCES, TURNED, Problem, Y, heads_case, masked_cut
from tests.sm90_cases.running import emulated_arrays


def error(p: Problem, cut: Cut, seed: int = LATE, kernel: Kernel | None = None) -> float:
    """Of the result on the emulated device, by the ``kernel`` where one is given."""
    case = heads_case(p, cut)
    return case.error(emulated_arrays(case.launch, case.arrays, seed, kernel)[Y])


@pytest.mark.parametrize(("p", "cut"), CASES, ids=str)
def test_a_cut(p: Problem, cut: Cut) -> None:
    for seed in (LATE, EARLY, 7):
        assert error(p, cut, seed) < TOLERANCES[p.dtype]


@pytest.mark.parametrize("p", MASKS, ids=str)
def test_what_hides_keys(p: Problem) -> None:
    assert error(p, masked_cut(p), 8) < TOLERANCES[p.dtype]


@pytest.mark.parametrize(("p", "cut"), TURNED, ids=str)
def test_heads_that_are_turned_first(p: Problem, cut: Cut) -> None:
    for seed in (LATE, 9):
        assert error(p, cut, seed) < TOLERANCES[p.dtype]


TEXT = faults.kernel_text("attention", "attention_softmax", "attention_items", "turned_values")
PLAIN = Problem(batch=2, heads=2, queries=150, causal=True), Cut(2, 48, 2)
PARTED = Problem(heads=2, queries=150), Cut(1, 32, 2, 2)
TURNED_BOTH = Problem(heads=2, queries=100, turned="qk"), Cut(2, 48, 2)
TURNED_QUERIES = Problem(heads=2, queries=100, turned="q"), Cut(2, 48, 2)
AHEAD = Problem(heads=1, queries=240, size=128), Cut(1, 32, 8)  # many copies are under way at one time
SHARED = Problem(heads=4, kv_heads=2, queries=20, keys=50, mask="hqk", merged=False), Cut(1, 64, 1)
FLOATS = Problem(batch=2, heads=2, queries=150, dtype=DType.F32), Cut(2, 64, 2)
# What is wrong, and what stands there instead of what; and what shows it.
FAULTS = {
    "the queries' step along a head": ("queries + i / 4 * Q_BOX + i % 4 * 32", "queries + i / 4 * Q_BOX + i % 4 * 16", PLAIN),
    "the keys' step along a head": ("keys + i / 4 * BOX_NBYTES + i % 4 * 32", "keys + i / 4 * BOX_NBYTES", PLAIN),
    "the values' step along keys": ("values + 2 * i * PATTERN", "values + i * PATTERN", PLAIN),
    "the values' stride": ("ROW_NBYTES>(address, BOX_NBYTES, PATTERN)", "ROW_NBYTES>(address, BOX_NBYTES, 512)", PLAIN),
    "no wait for the keys": ("      await(k_here + 8 * stage, phase);\n#if", "#if", PLAIN),
    "no wait for the values": ("        await(v_here + 8 * stage, phase);\n        if (MI_F", "        if (MI_F", AHEAD),
    "no wait for the queries": ("  await(q_here + 8 * group, 0);\n", "", PLAIN),
    "the phase of stages": ("phase = step / MI_STAGES & 1", "phase = 0", PLAIN),
    "no wait for a free stage": ("await(free + 8 * stage, phase);", "", PLAIN),
    "scores that are not awaited": ("        await_products<0>();\n        hold(scores);\n", "        hold(scores);\n", PLAIN),
    "a stage given back too early": ("        await_products<0>();\n        hold(sums);\n", "        hold(sums);\n", PLAIN),
    "no barrier before results are read": ("  __syncwarp();\n  if (tile", "  if (tile", PLAIN),
    "where a result's row lies": ("query * strides.d[5] + chunk * BESIDE", "query * strides.d[4] + chunk * BESIDE", PLAIN),
    "the last key of a row": ("key > rows.spans[row].last", "key >= rows.spans[row].last", PLAIN),
    "sums that are not scaled anew": ("sums[i] *= fade[i / 2 % 2]", "sums[i] *= 1", PLAIN),
    "parts that are not awaited": ("  meet(1 + group, 128 * MI_PARTS);\n#pragma", "#pragma", PARTED),
    "parts without their weights": ("+ kept[i * 128] * theirs[i / 2 % 2]", "+ kept[i * 128]", PARTED),
    "no barrier behind turned keys": ("        meet(1 + MI_GROUPS + part, 128 * MI_GROUPS);\n", "", TURNED_BOTH),
    "no barrier behind turned queries": ("    meet(1 + group, 128 * MI_PARTS);\n  }", "  }", TURNED_QUERIES),
    "the place of a turned row": ("query0, (1 << tiling.shift) - 1,", "query0, 7,", TURNED_BOTH),
    "the head of a row": ("head = head0 + (row >> t.shift);", "head = head0;", SHARED),
    "the mask's head": ("(item.kv_head * t.group + head) * by", "item.kv_head * t.group * by", SHARED),
    "the order of turned keys": ("keys / 2 * 8 + 2 * e + keys % 2", "keys * 4 + e", FLOATS),
    "the place of turned values": ("(keys ^ element % 8) << 4", "keys << 4", FLOATS),
    "values that are written before all have read": ("  meet(barrier, MEMBERS);\n", "", FLOATS),
    "no barrier behind turned values": (
        "      meet(1 + MI_GROUPS + part, 128 * MI_GROUPS);\n#endif\n      if",
        "#endif\n      if",
        FLOATS,
    ),
    "values that are turned before they are here": ("      await(v_here + 8 * stage, phase);\n      turn", "      turn", FLOATS),
    "the probabilities of odd keys": ("shares[i / 4][2 + row] =", "shares[i / 4][3 - row] =", FLOATS),
    "the values' step along turned keys": ("i / 4 * MI_VALUE * ROW_NBYTES", "i / 4 * 32 * ROW_NBYTES", FLOATS),
    "the column of a result of floats": ("to + 8 * n + 2 * t)", "to + 8 * n)", FLOATS),
    "the mask's key": ("seeing, by, key0 + 2 * t)", "seeing, by, key0)", SHARED),
}


@pytest.mark.parametrize("name", faults.some_of(FAULTS))
def test_a_fault_is_seen(name: str) -> None:
    right, wrong, case = FAULTS[name]
    assert TEXT.count(right) == 1
    kernel = Kernel("attention_sm90", code=TEXT.replace(right, wrong))
    for seed in (LATE, EARLY, *range(2, 20)):
        try:
            if not error(*case, seed, kernel) < TOLERANCES[case[0].dtype]:
                return
        except AssertionError:
            return
    pytest.fail("no schedule shows it")
