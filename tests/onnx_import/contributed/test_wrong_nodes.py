"""Nodes of com.microsoft with an attribute, an operand or a shape that is off: read, or refused in one error of ours."""

import contextlib
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.onnx_import import import_model
from tests.onnx_import.contributed import test_attention, test_blocks, test_floats, test_quantized
from tests.onnx_import.contributed.cases import VARIATIONS, Case, Chance

FAMILIES = [*test_attention.FAMILIES, *test_blocks.FAMILIES, *test_floats.FAMILIES, *test_quantized.FAMILIES]
NUMBERS = (-(2**40), -3, -1, 0, 1, 3, 2**40)


def spoiled(case: Case, chance: Chance) -> Case:
    """The case with one thing off."""
    operands, attrs, results = dict(case.operands), dict(case.attrs), list(case.results)
    there = [n for n, a in operands.items() if a is not None]
    name = chance.pick(*there)
    match chance.pick("number", "list", "left out", "flat", "empty", "transposed", "result", "given"):
        case "number" if any(isinstance(v, int) for v in attrs.values()):
            attrs[chance.pick(*(n for n, v in attrs.items() if isinstance(v, int)))] = chance.pick(*NUMBERS)
        case "list" if any(isinstance(v, list) for v in attrs.values()):
            at = chance.pick(*(n for n, v in attrs.items() if isinstance(v, list)))
            attrs[at] = chance.pick(attrs[at][:-1] or [7], [*attrs[at], 1], [-1] * len(attrs[at]))
        case "left out":
            operands[name] = None
        case "flat":
            operands[name] = np.asarray(operands[name]).reshape(-1)
        case "empty":
            operands[name] = np.asarray(operands[name])[..., None][..., :0]
        case "transposed":
            operands[name] = np.ascontiguousarray(np.asarray(operands[name]).T)
        case "result":
            results = results[:-1] or results
        case _:
            operands[name] = np.asarray(operands[name])
            return Case(case.op, operands, attrs, stored=[n for n in there if chance.maybe(True)], results=results)
    stored = [n for n in case.stored if operands.get(n) is not None]
    return Case(case.op, operands, attrs, stored=stored, results=results)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_other_error(family: Any) -> None:
    for seed in range(6 * VARIATIONS):
        chance = Chance(seed)
        model = spoiled(family(chance), chance).model()
        with contextlib.suppress(MiniinferError):
            import_model(model)
