"""onnx.backend.test through build, plan file, load and run."""

from pathlib import Path

import pytest

import miniinfer_cli
from miniinfer_cli.errors import MiniinferError
from tests.conformance.cases import Case, all_cases, assert_equal_outputs

CASES = all_cases()
_LINES = (Path(__file__).parent / "excluded.txt").read_text().splitlines()
EXCLUDED = dict(line.split(maxsplit=1) for line in _LINES if line and not line.startswith("#"))


def _run(case: Case, folder: Path) -> None:
    plan = folder / "case.plan"
    miniinfer_cli.build(case.model, plan)
    with miniinfer_cli.load(plan, device="cpu") as engine:
        for inputs, expected in case.runs():
            outputs = engine.run(inputs)
            assert_equal_outputs(expected, list(outputs.values()), case.rtol, case.atol)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.kind}-{c.name}")
def test_case(case: Case, tmp_path: Path) -> None:
    if case.name not in EXCLUDED:
        _run(case, tmp_path)
        return
    try:
        _run(case, tmp_path)
    except (AssertionError, MiniinferError):
        return
    pytest.fail(f"{case.name} passes now: take its line out of excluded.txt")


def test_all_kinds_are_there() -> None:
    counts = {kind: sum(c.kind == kind for c in CASES) for kind in ("node", "simple", "pytorch-converted", "pytorch-operator", "real")}
    assert counts["node"] >= 1884
    assert len(CASES) >= 2033


def test_every_exclusion_names_a_case_and_a_reason() -> None:
    assert EXCLUDED.keys() <= {c.name for c in CASES}
    assert len(EXCLUDED) <= 33, "at least 2000 of 2033 cases pass"
