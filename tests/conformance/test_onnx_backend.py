"""onnx.backend.test through build, plan file, load and run."""

from pathlib import Path

import pytest

import miniinfer_cli
from miniinfer_cli.errors import MiniinferError
from tests.a_tenth import A_TENTH, build_within_a_tenth
from tests.conformance.cases import KINDS, Case, all_cases, assert_equal_outputs

CASES = all_cases()
_LINES = (Path(__file__).parent / "excluded.txt").read_text().splitlines()
EXCLUDED = [line.split(maxsplit=2) for line in _LINES if line and not line.startswith("#")]
WITHOUT_VALUES = {name for name, what, _ in EXCLUDED if what == "values"}
FAILING = {name for name, what, _ in EXCLUDED if what == "failure"}


def _run(case: Case, folder: Path) -> None:
    plan = folder / "case.plan"
    build_within_a_tenth(case.model, plan)
    with miniinfer_cli.load(plan, device="cpu", limits=A_TENTH) as engine:
        runs = list(case.runs())
        assert runs
        for inputs, expected in runs:
            outputs = list(engine.run(inputs).values())
            assert_equal_outputs(expected, outputs, case.rtol, case.atol, values=case.name not in WITHOUT_VALUES)


@pytest.mark.parametrize("case", [c for c in CASES if c.name not in FAILING], ids=lambda c: f"{c.kind}-{c.name}")
def test_case(case: Case, tmp_path: Path) -> None:
    _run(case, tmp_path)


@pytest.mark.parametrize("case", [c for c in CASES if c.name in FAILING], ids=lambda c: f"{c.kind}-{c.name}")
def test_excluded_case_still_fails(case: Case, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, MiniinferError)):
        _run(case, tmp_path)


def test_every_kind_is_there() -> None:
    counts = {kind: sum(c.kind == kind for c in CASES) for kind in KINDS}
    assert all(counts[kind] >= n for kind, n in zip(KINDS, (1884, 23, 82, 35, 9), strict=True)), counts


def test_exclusions_name_cases_and_leave_2000() -> None:
    names = [name for name, _, _ in EXCLUDED]
    assert len(set(names)) == len(names) == len(WITHOUT_VALUES | FAILING)
    assert set(names) <= {c.name for c in CASES}
    assert len(CASES) - len(names) >= 2000
