"""Every version of every operator that a model of opset 7 or later can hold is declared, one way or the other."""

import onnx.defs
import pytest

from miniinfer_cli import ops
from miniinfer_cli.onnx_import import upgrades as _all_handlers  # noqa: F401  (registers them)
from miniinfer_cli.onnx_import.history import NEWEST, SAME
from miniinfer_cli.onnx_import.registry import declared_versions, handler_of, upgrades
from miniinfer_cli.ops.onnx_reference import adapter_supports

OLDEST = 6  # old PyTorch exports, as the conformance suite holds them


def _versions() -> dict[str, list[int]]:
    """The versions of each ai.onnx operator that some opset from OLDEST to NEWEST means."""
    found: dict[str, list[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain and schema.since_version <= NEWEST:
            found.setdefault(schema.name, []).append(schema.since_version)
    return {op: [v for v in sorted(vs) if not any(v < w <= OLDEST for w in vs)] for op, vs in found.items()}


VERSIONS = _versions()


@pytest.mark.parametrize("op", sorted(VERSIONS))
def test_every_version_is_declared(op: str) -> None:
    if declared_versions(op):
        assert declared_versions(op) >= set(VERSIONS[op])
    elif op != "Constant":  # read as a constant, whatever its version
        assert ops.find("", op) is None
        assert all(adapter_supports("", op, version) for version in VERSIONS[op])


def test_what_is_taken_as_it_stands_has_a_meaning() -> None:
    assert [op for op in SAME if ops.find("", op) is None] == []


def test_a_version_from_the_future_is_not_known() -> None:
    assert handler_of("Relu", 14) is not None
    assert handler_of("Relu", 99) is None


def test_a_version_is_handled_once() -> None:
    with pytest.raises(ValueError, match="Softmax-11 is handled twice"):
        upgrades("Softmax", 11)(lambda call: ())
    with pytest.raises(ValueError, match="Relu-14 is handled twice"):
        upgrades("Relu", 14)(lambda call: ())
