"""What runs through onnx.reference gives what it computes, whatever sizes the model declares for it."""

import copy
from typing import Any

import pytest

import miniinfer_cli
from miniinfer_cli import ops
from miniinfer_cli.onnx_import.host import host_handler
from tests.conformance.cases import Case, all_cases, assert_equal_outputs
from tests.emulation.engine import open_emulated


def _runs_outside(case: Case) -> bool:
    """True for a case of one operator that is left to onnx.reference."""
    nodes = case.model.graph.node if case.kind == "node" else ()
    if len(nodes) != 1 or ops.find(nodes[0].domain, nodes[0].op_type) is not None:
        return False
    opset = next(o.version for o in case.model.opset_import if o.domain == nodes[0].domain)
    return nodes[0].op_type != "Constant" and host_handler(nodes[0].domain, nodes[0].op_type, opset) is not None


CASES = [case for case in all_cases() if _runs_outside(case)]


def _misdeclared(model: Any, *, named: bool) -> Any:
    """The model with every size of its outputs one too large; ``named``: with a name for every size of its inputs."""
    wrong = copy.deepcopy(model)
    for value in wrong.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_value += 1
    for number, value in enumerate(wrong.graph.input if named else ()):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.dim_param = f"d{number}_{axis}"
    return wrong


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_computed_sizes_are_the_truth(case: Case, named: bool) -> None:
    plan = miniinfer_cli.build(_misdeclared(case.model, named=named))
    for opened in (miniinfer_cli.load(plan, device="cpu"), open_emulated(plan)):
        with opened as engine:
            for inputs, expected in case.runs():
                assert_equal_outputs(expected, list(engine.run(inputs).values()), case.rtol, case.atol)


def test_there_are_cases_of_many_operators() -> None:
    assert len(CASES) > 50
    assert len({case.model.graph.node[0].op_type for case in CASES}) > 15
