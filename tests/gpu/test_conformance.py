"""onnx.backend.test on the GPU: what passes on the CPU passes here."""

from typing import Any

import pytest

import miniinfer_cli
from tests.conformance.cases import all_cases, assert_equal_outputs
from tests.conformance.test_onnx_backend import FAILING, WITHOUT_VALUES


@pytest.mark.parametrize("case", [c for c in all_cases() if c.name not in FAILING], ids=lambda c: f"{c.kind}-{c.name}")
def test_case(case: Any) -> None:
    with miniinfer_cli.load(miniinfer_cli.build(case.model, tf32=False), device="cuda:0") as engine:
        for inputs, expected in case.runs():
            for _ in range(3):  # launched one by one, captured, replayed
                outputs = list(engine.run(inputs).values())
                assert_equal_outputs(expected, outputs, case.rtol, case.atol, values=case.name not in WITHOUT_VALUES)
