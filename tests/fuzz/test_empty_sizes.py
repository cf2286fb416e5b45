"""Nothing in the batch: every operator gives what onnx.reference gives, or says in its own words why it cannot.

With ``MINIINFER_FUZZ_SCALE`` above 1: every case of onnx's suite, the first two axes, and the emulated device as well.
"""

from collections import defaultdict

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.errors import ModelError
from tests.conformance.cases import Case, all_cases, assert_equal_outputs
from tests.conformance.test_onnx_backend import FAILING, WITHOUT_VALUES
from tests.emulation.engine import open_emulated
from tests.fuzz.empty_sizes import EmptyCase, empty_variants
from tests.fuzz.opening import SCALE

# Operators for whose variants onnx.reference gives what the specification does not ask for.
OTHERWISE = {
    "CausalConvWithState": "an input of one channel for weights of none",
    "ReverseSequence": "lengths for none of the sequences that there are",
    "ScatterND": "coordinates of no axes",
    "Split": "sizes that do not add up to that of the axis",
    "SplitToSequence": "sizes that do not add up to that of the axis",
    "StringNormalizer": "no strings, which the operator does not take",
    "Tile": "repeats for none of the axes",
}
# The same for the second axis, along which the operands of these are not as long as the first.
OTHERWISE_ALONG_AXIS_1 = {"DequantizeLinear", "LSTM", "NonMaxSuppression", "QuantizeLinear"}
# The statistics of rows of no elements are NaN there and 0 here; nobody says which.
WITHOUT_STATISTICS = {"LayerNormalization"}


def _by_operator() -> dict[str, list[Case]]:
    found = defaultdict(list)
    for case in all_cases():
        if case.kind == "node" and case.name not in FAILING:
            nodes = case.model.graph.node
            found[nodes[0].op_type if len(nodes) == 1 else f"expanded {case.name}"].append(case)
    return found


CASES = _by_operator()
OPERATORS = [op for op in CASES if op not in OTHERWISE and (SCALE > 1 or not op.startswith("expanded "))]


@pytest.mark.parametrize("op", sorted(OPERATORS))
def test_an_empty_axis(op: str) -> None:
    """At scale 1 the first case that onnx.reference takes, or that there is, stands for its operator."""
    axes = range(1 if SCALE == 1 or op in OTHERWISE_ALONG_AXIS_1 else 2)
    for number, case in enumerate(CASES[op]):
        accepted = False
        for variant in empty_variants(case, axes):
            accepted = accepted or variant.expected is not None
            if variant.expected is not None or SCALE > 1 or number == 0:
                _check(op, case, variant)
        if accepted and SCALE == 1:
            return


def _check(op: str, case: Case, variant: EmptyCase) -> None:
    for level in (0, 2):
        for device in ("cpu", "emulated")[: 1 if SCALE == 1 else 2]:
            place = f"{variant.name}, {device}, level {level}"
            try:
                plan = miniinfer_cli.build(variant.model, opt_level=level)
                with miniinfer_cli.load(plan, device="cpu") if device == "cpu" else open_emulated(plan) as engine:
                    got = list(engine.run(variant.inputs).values())
            except ModelError as error:
                if variant.expected is not None:
                    raise AssertionError(f"{place} is refused") from error
                continue
            if variant.expected is not None:
                kept = 1 if op in WITHOUT_STATISTICS else None
                values = case.name not in WITHOUT_VALUES and not all(np.size(y) == 0 for y in got)
                assert_equal_outputs(variant.expected[:kept], got[:kept], case.rtol, case.atol, values=values)


def test_operators_are_left_out_by_name() -> None:
    assert set(CASES) >= set(OTHERWISE) | OTHERWISE_ALONG_AXIS_1 | WITHOUT_STATISTICS
    assert len(OPERATORS) > 150
