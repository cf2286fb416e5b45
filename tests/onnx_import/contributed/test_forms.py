"""What the register says of each operator of com.microsoft beside what ONNX Runtime does; what is refused, in which words."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state

from miniinfer_cli.onnx_import.registry import CONTRIBUTED, Contributed, all_contributed
from tests.contributed_page import PAGE, page
from tests.onnx_import.contributed.cases import Case, Chance
from tests.onnx_import.models import fault, model

_KINDS = {name: int(kind) for name, kind in onnx.AttributeProto.AttributeType.items()}
_VARIADIC = 1 << 31


def theirs(op: str) -> Any:
    return next(s for s in onnxruntime_pybind11_state.get_all_operator_schema() if (s.domain, s.name) == (CONTRIBUTED, op))


@pytest.mark.parametrize("known", all_contributed(), ids=lambda known: known.op)
def test_forms_are_theirs(known: Contributed) -> None:
    schema = theirs(known.op)
    wanted = {n: _KINDS[str(a.type).rpartition(".")[2]] for n, a in schema.attributes.items()}
    assert dict(known.form.attributes) == wanted
    assert known.form.required == {n for n, a in schema.attributes.items() if a.required}
    most = known.form.n_inputs[1] if known.form.n_inputs[1] < _VARIADIC else len(schema.inputs)
    assert most == len(schema.inputs)
    assert known.form.n_outputs[1] == len(schema.outputs)
    for index, name in known.absent.items():
        assert schema.inputs[index].name == name


@pytest.mark.parametrize("known", [k for k in all_contributed() if k.fixed], ids=lambda known: known.op)
def test_fixed_attributes_are_the_defaults(known: Contributed) -> None:
    """What a fixed attribute may be is what leaving it out means."""
    attributes = theirs(known.op).attributes
    for name, only in known.fixed.items():
        stored = onnx.AttributeProto()
        stored.ParseFromString(attributes[name]._default_value)
        if stored.type:
            found = helper.get_attribute_value(stored)
            assert (found.decode() if isinstance(found, bytes) else found) == only, name


def test_page() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.contributed_page"


def test_refusals() -> None:
    chance = Chance(0)
    weights = chance.eight_bits(np.uint8, 4, 1, 16)
    operands = {"a": chance.normal(2, 32), "b": weights, "s": chance.normal(4, 1)}
    attrs = {"K": 32, "N": 4, "block_size": 32}
    case = Case("MatMulNBits", operands, {**attrs, "weight_prepacked": 1}, stored=("b",))
    assert "MatMulNBits with weight_prepacked 1 is not supported, only with 0" in fault(case.model())
    case = Case("MatMulNBits", {**operands, "z": None, "g": np.zeros(32, np.int32)}, attrs, stored=("b",))
    assert "MatMulNBits with input 4 (g_idx) is not supported" in fault(case.model())
    case = Case("MatMulNBits", operands, {**attrs, "block_size": 24}, stored=("b",))
    assert "MatMulNBits block_size is 24, expected a power of 2 from 16 on" in fault(case.model())
    case = Case("MatMulNBits", operands, {**attrs, "bits": 3}, stored=("b",))
    assert "MatMulNBits of 3 bits is not supported, only of 2, 4, 8" in fault(case.model())
    case = Case("MatMulNBits", operands, {**attrs, "K": 64}, stored=("b",))
    assert "does not hold [4, 64] of 4 bits" in fault(case.model())
    case = Case("FusedConv", {"x": chance.normal(1, 2, 4, 4), "w": chance.normal(2, 2, 3, 3)}, {"activation": "Sin"})
    assert "FusedConv with activation 'Sin' is not supported; known are Clip" in fault(case.model())
    case = Case("GroupNorm", {"x": chance.normal(1, 4, 4, 2), "g": chance.normal(2), "b": chance.normal(2)}, {"groups": 2})
    assert "GroupNorm-1 needs the attribute 'activation'" in fault(case.model())


def unknown(*nodes: tuple[str, str]) -> str:
    """What is said of a model of such nodes (domain, operator), each reading the input."""
    made = [helper.make_node(op, ["x"], [f"y{i}"], f"n{i}", domain=domain) for i, (domain, op) in enumerate(nodes)]
    outputs = {f"y{i}": (TensorProto.FLOAT, None) for i in range(len(nodes))}
    opsets = {domain: 1 for domain, _ in nodes}
    return fault(model(made, {"x": (TensorProto.FLOAT, [2])}, outputs, opsets=opsets))


def test_an_unknown_operator_is_told_once() -> None:
    told = unknown(*[("com.microsoft", "Nothing")] * 30, ("com.microsoft", "Sampling"))
    assert told.count("Nothing is not known") == 1
    assert "30 nodes, the first 'n0', 'n1' and 'n2' (com.microsoft.Nothing, opset 1)" in told
    assert "node 'n30' (com.microsoft.Sampling, opset 1)" in told


def test_what_was_optimized_for_one_processor() -> None:
    told = unknown(("com.microsoft.nchwc", "ReorderInput"))
    assert "operation com.microsoft.nchwc::ReorderInput is not known" in told
    assert "let it save with graph_optimization_level ORT_ENABLE_EXTENDED" in told


@pytest.mark.parametrize(("domain", "op"), [("com.microsoft", "Tokenizer"), ("ai.onnx.contrib", "BertTokenizer")])
def test_tokenizers_are_cut_off(domain: str, op: str) -> None:
    told = unknown((domain, op))
    assert f"operation {domain}::{op} is not known" in told
    assert "cut the model there, and give the values that it makes as inputs: start_at=[VALUE]" in told
