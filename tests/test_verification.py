"""What --verify calls equal, and which oracle it asks."""

import builtins

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import miniinfer_cli
from miniinfer_cli.verification import compare, verify_plan


def verdict(got, expected) -> tuple[bool, float]:
    result = compare("y", got, expected)
    return result.ok, result.absolute


F32 = np.float32


@pytest.mark.parametrize(
    ("got", "expected", "ok"),
    [
        (np.array([1, 2], F32), np.array([1, 2 + 1e-6], F32), True),
        (np.array([1, 2], F32), np.array([1, 2.001], F32), False),
        (np.array([1, np.nan], F32), np.array([1, np.nan], F32), True),
        (np.array([1, np.nan], F32), np.array([1, 2], F32), False),
        (np.array([1, 2], F32), np.array([1, np.nan], F32), False),
        (np.array([np.inf], F32), np.array([-np.inf], F32), False),
        (np.array([1e300, 0]), np.array([1e300, 1e299]), False),
        (np.zeros(3, F32), np.zeros(3, F32), True),
        (np.zeros(3, F32), np.zeros((1, 3), F32), False),
        (np.zeros(3, F32), np.zeros(3), False),
        (np.zeros(0, F32), np.zeros(0, F32), True),
        (np.array([1, 1.005], np.float16), np.array([1, 1], np.float16), True),
        (np.array([1, 1.05], np.float16), np.array([1, 1], np.float16), False),
        (np.array([1 + 1j], np.complex64), np.array([1 + 1.0000001j], np.complex64), True),
        (np.array([1 + 1j], np.complex64), np.array([1 - 1j], np.complex64), False),
        (np.array([1.125], ml_dtypes.float8_e4m3fn), np.array([1.25], ml_dtypes.float8_e4m3fn), True),
        (np.array([1.125], ml_dtypes.float8_e4m3fn), np.array([2], ml_dtypes.float8_e4m3fn), False),
        (np.arange(100, dtype=np.uint8), np.r_[np.arange(99), 98].astype(np.uint8), True),
        (np.arange(100, dtype=np.uint8), np.r_[np.arange(99), 97].astype(np.uint8), False),
        (np.arange(100, dtype=np.uint8), np.arange(1, 101).astype(np.uint8), False),
        (np.array([1] * 100, ml_dtypes.int4), np.array([1] * 99 + [0], ml_dtypes.int4), True),
        (np.arange(100), np.r_[np.arange(99), 98], False),
        (np.array([True]), np.array([False]), False),
        (np.array(["a"], object), np.array(["a"], object), True),
        (np.array(["a"], object), np.array(["b"], object), False),
        ([np.ones(2000, F32)], [np.ones(2000, F32)], True),
        ([np.ones(2000, F32)], [np.r_[np.ones(1000), 2, np.ones(999)].astype(F32)], False),
        ([np.ones(1, F32)], [np.ones(1, F32), np.ones(1, F32)], False),
        ([{1: 0.5, 2: 0.25}], [{1: 0.5 + 1e-9, 2: 0.25}], True),
        ([{"a": 0.5}], [{"a": 0.75}], False),
        ([{"a": 0.5}], [{"b": 0.5}], False),
        ([], [], True),
        (None, None, True),
        (None, np.ones(1, F32), False),
    ],
)  # fmt: skip
def test_equal_but_for_rounding(got, expected, ok):
    assert compare("y", got, expected).ok is ok


def test_the_largest_difference_of_integers_is_exact():
    a = np.array([-(2**63), 2**63 - 1])
    assert verdict(a, a - np.array([0, 3])) == (False, 3.0)
    assert verdict(np.array([0], np.uint8), np.array([255], np.uint8)) == (False, 255.0)


def model(op: str = "Relu", dtype: int = TensorProto.FLOAT, version: int = 17) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], "g", [value("x", dtype, [2])], [value("y", dtype, [2])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=10)


def test_onnxruntime_is_asked_first():
    proto = model()
    checked = verify_plan(proto.SerializeToString(), miniinfer_cli.build(proto), {"x": np.array([1, -1], F32)})
    assert checked.ok
    assert checked.oracle.startswith("onnxruntime ")
    assert checked.note == ""


def test_what_onnxruntime_refuses_the_references_check_and_the_note_says_why():
    proto = model("Sqrt", TensorProto.BFLOAT16)
    checked = verify_plan(proto, miniinfer_cli.build(proto), {"x": np.array([1, 4], ml_dtypes.bfloat16)})
    assert checked.ok
    assert checked.oracle == "the unoptimized graph (numpy references)"
    assert checked.note.startswith("onnxruntime ")
    assert " does not take this model: " in checked.note
    assert "\n" not in checked.note


def test_without_onnxruntime_the_references_check(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    proto = model()
    checked = verify_plan(proto, miniinfer_cli.build(proto), {"x": np.array([1, -1], F32)})
    assert (checked.ok, checked.note) == (True, "onnxruntime cannot be imported: No module named 'onnxruntime'")
