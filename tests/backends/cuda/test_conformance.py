"""onnx.backend.test on the emulated device: lowerings, programs and kernels, with no GPU.

The suite has many operations a second time, written out in others, whose kernels other cases launch as well: these forms run on
the CPU (tests/conformance), on a GPU (tests/gpu), and here with MINIINFER_EXPANDED=1 (`make conformance`).
"""

import os
from pathlib import Path
from typing import Any

import pytest

import miniinfer_cli
from miniinfer_cli.backends.cuda.contract.program import HostStep
from tests.conformance.cases import all_cases, assert_equal_outputs
from tests.conformance.test_onnx_backend import FAILING, WITHOUT_VALUES
from tests.emulation.engine import open_emulated

# Whole networks, of whose nine the rest take minutes here: they run on the CPU (tests/conformance) and on a GPU (tests/gpu), and
# what their programs consist of is on record for others of their kind (tests/golden).
NETWORKS = {"test_shufflenet", "test_squeezenet"}
EXPANDED = bool(os.environ.get("MINIINFER_EXPANDED"))
CASES = [
    c
    for c in all_cases()
    if c.name not in FAILING and (c.kind != "real" or c.name in NETWORKS) and (EXPANDED or "_expanded" not in c.name)
]
# Cases with a node on the host: strings, sequences, optionals, training, sizes that follow from the contents of data.
HOSTED = set((Path(__file__).with_name("hosted.txt")).read_text().split())


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.kind}-{c.name}")
def test_case(case: Any) -> None:
    with open_emulated(miniinfer_cli.build(case.model)) as engine:
        for inputs, expected in case.runs():
            outputs = list(engine.run(inputs).values())
            assert_equal_outputs(expected, outputs, case.rtol, case.atol, values=case.name not in WITHOUT_VALUES)
            steps = engine.program(engine.check(inputs)).steps
            hosted = [s.label for s in steps if isinstance(s, HostStep) and s.tactic != "control"]
            assert bool(hosted) == (case.name in HOSTED), hosted


def test_nearly_every_case_runs_without_the_host() -> None:
    names = {c.name for c in CASES}
    assert names >= {name for name in HOSTED if EXPANDED or "_expanded" not in name} | NETWORKS
    assert len(names - HOSTED) >= (1800 if EXPANDED else 1400)
