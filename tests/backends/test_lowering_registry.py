"""The register of lowerings: by domain and name, one for each operation."""

import pytest

from miniinfer_cli.backends.lowering_registry import LoweringRegistry
from miniinfer_cli.ir.text import parse_graph

CALLS = parse_graph("graph main(x: f32[2]) {\n  y = Relu(x)\n  z = miniinfer.Relu(y)\n  return z\n}")


def test_a_lowering_is_found_by_the_operation_and_its_domain():
    registry = LoweringRegistry[str]("CPU")
    registry.register("Relu", "Abs")("ours")
    relu, other_domain = CALLS
    assert registry.find(relu) == "ours"
    assert registry.find(other_domain) is None
    assert registry.operations() == (("", "Abs"), ("", "Relu"))


def test_an_operation_has_one_lowering():
    registry = LoweringRegistry[str]("CPU")
    registry.register("Relu")("ours")
    registry.register("Relu", domain="miniinfer")("theirs")
    assert registry.register("Relu")("ours") == "ours"
    with pytest.raises(ValueError, match="Relu has two CPU lowerings"):
        registry.register("Relu")("mine")
    assert registry.find(next(iter(CALLS))) == "ours"
