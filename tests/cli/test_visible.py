"""Names out of files neither steer the terminal nor forge a line."""

import dataclasses
import json

import onnx
import pytest
from onnx import TensorProto, helper

from engine_format import (
    BuildReport,
    DimensionRange,
    DType,
    GraphRecord,
    NodeRecord,
    Plan,
    StoredKernel,
    TargetSection,
    TensorSpec,
    ValueRecord,
    write_plan,
)
from miniinfer_cli.errors import ModelError
from miniinfer_cli.visible import visible, visible_json

FORGED = "Check: every byte agrees with its digest"
EVIL = f"\x1b]0;title\x07x\r\n{FORGED}\n\x9b2J\u2028\u202e"
SHOWN = rf"\x1b]0;title\x07x\r\n{FORGED}\n\u009b2J\u2028\u202e"
QUICK = ("--duration", "0", "--warmup", "0", "--iterations", "1", "--device", "cpu")


def expect_harmless(outcome) -> None:
    text = outcome.out + outcome.err
    assert not [c for c in text if c in "\x1b\x07\r\x9b\u2028\u202e"]
    assert FORGED not in [line.strip() for line in text.splitlines()]


def test_every_character_that_acts_is_an_escape():
    assert visible(EVIL) == SHOWN
    assert visible("größe 漢字 a\tb") == r"größe 漢字 a\tb"
    document = {EVIL: [EVIL, "größe"]}
    text = visible_json(json.dumps(document, ensure_ascii=False, indent=2))
    assert json.loads(text) == document
    assert not [c for c in text if c in "\x1b\x07\r\x9b\u2028\u202e"]


def test_errors_are_one_line_each():
    error = ModelError(f"no {EVIL}", hint=f"give {EVIL}", where=(EVIL,), details=[EVIL, "b"])
    assert str(error).split("\n") == [f"{SHOWN}: no {SHOWN}", f"  {SHOWN}", "  b", f"  hint: give {SHOWN}"]


@pytest.fixture
def evil_plan(tmp_path):
    return plan_of(tmp_path / "evil.plan", NodeRecord("Relu", "", EVIL, (0,), (1,)))


def plan_of(path, node):
    spec = TensorSpec(DType.F32, ("n", 2))
    graph = GraphRecord(EVIL, (ValueRecord(EVIL, spec), ValueRecord(EVIL + "y", spec)), (0,), (1,), (EVIL,), (node,))
    report = BuildReport(EVIL, options={EVIL: EVIL}, passes={EVIL: 1}, metadata={EVIL: EVIL})
    target = TargetSection("sm_90a", {EVIL: EVIL}, kernels=(StoredKernel(EVIL, EVIL, b"code"),))
    ranges = (DimensionRange("n", 1, 1, 4),)
    write_plan(
        Plan(graph=graph, tensors=(), op_sets={"ai.onnx": 21, EVIL: 1}, ranges=ranges, report=report, targets=(target,)), path
    )
    return path


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "--graph", "--check"), ("inspect", "--json", "-"), ("profile", *QUICK), ("profile", *QUICK, "--json", "-"),
        ("run", *QUICK, "--top-k", "1"), ("run", *QUICK, "--json", "-"), ("run", *QUICK, "--shapes", "z:1x2"),
        ("run", *QUICK, "--input", "z=x.npy"),
    ],
)  # fmt: skip
def test_a_plan(miniinfer, evil_plan, words):
    outcome = miniinfer(words[0], evil_plan, *words[1:])
    assert outcome.code == (2 if {"--shapes", "--input"} & set(words) else 0), outcome.err
    if "--check" in words:
        assert f"Input: {SHOWN}: f32[n,2]" in outcome.out.splitlines()
        outcome = dataclasses.replace(outcome, out=outcome.out.replace(f"\n{FORGED}\n", "\n", 1))  # the true one
    expect_harmless(outcome)


def test_operations_that_nobody_knows(miniinfer, tmp_path):
    path = plan_of(tmp_path / "odd.plan", NodeRecord(EVIL, EVIL, EVIL, (0,), (1,), {EVIL: EVIL}))
    outcome = miniinfer("inspect", path, "--graph")
    assert outcome.code == 0, outcome.err
    expect_harmless(outcome)
    outcome = miniinfer("run", path, *QUICK)
    assert outcome.code in (3, 4), outcome.err
    expect_harmless(outcome)


@pytest.mark.parametrize("fault", ["", "operation", "shape"])
def test_a_model(miniinfer, tmp_path, fault):
    value = helper.make_tensor_value_info
    op, domain = (EVIL, EVIL) if fault == "operation" else ("Relu", "")
    nodes = [
        helper.make_node(op, [EVIL], ["h"], name=EVIL, domain=domain),
        helper.make_node("MatMul", ["h", "h"], [EVIL + "y"], name=EVIL + "2"),
    ]
    x = value(EVIL, TensorProto.FLOAT, [2, 3] if fault == "shape" else [EVIL, EVIL])
    graph = helper.make_graph(nodes, EVIL, [x], [value(EVIL + "y", TensorProto.FLOAT, None)], doc_string=EVIL)
    imports = [helper.make_opsetid("", 17), *([helper.make_opsetid(EVIL, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8, producer_name=EVIL), tmp_path / "m.onnx")
    target = ("-o", tmp_path / "m.plan")
    for words in (("build", *target, "--verify"), ("inspect", "--graph"), ("build", "--dry-run", "--json", "-")):
        outcome = miniinfer(words[0], tmp_path / "m.onnx", *words[1:])
        assert outcome.code == (3 if fault else 0), outcome.err
        expect_harmless(outcome)
