"""Statuses of the three libraries become errors of ours, told in full."""

# The names are the driver's.
# ruff: noqa: N802

import enum
import sys
import types

import pytest

from miniinfer_cli.backends.cuda.driver.check import DAMAGED, GONE, OUT_OF_MEMORY, call, fault
from miniinfer_cli.errors import DeviceError, OutOfMemoryError


def status_of(monkeypatch: pytest.MonkeyPatch, kind: str, name: str, number: int, explainer: str = "", said: bytes = b""):
    """A status as a bindings module of a library has it, with the function beside it that explains it."""
    module = types.ModuleType("fake_bindings")
    statuses = enum.IntEnum(kind, {name: number}, module="fake_bindings")
    if explainer:
        setattr(module, explainer, lambda status: (0, said))
    monkeypatch.setitem(sys.modules, "fake_bindings", module)
    return statuses(number)


@pytest.mark.parametrize(
    ("kind", "explainer"),
    [("CUresult", "cuGetErrorString"), ("cudaError_t", "cudaGetErrorString"), ("nvrtcResult", "nvrtcGetErrorString")],
)
def test_an_error_has_call_name_number_and_explanation(monkeypatch: pytest.MonkeyPatch, kind: str, explainer: str):
    status = status_of(monkeypatch, kind, "SOME_ERROR", 17, explainer, b"it is broken")
    error = fault(status, "cuSomething")
    assert type(error) is DeviceError
    assert str(error) == f"cuSomething failed: SOME_ERROR (17): it is broken\n  hint: {DeviceError.way_out}"


@pytest.mark.parametrize("said", [b"", b"SOME_ERROR"])
def test_an_explanation_that_says_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch, said: bytes):
    status = status_of(monkeypatch, "nvrtcResult", "SOME_ERROR", 3, "nvrtcGetErrorString", said)
    assert str(fault(status, "nvrtcX")) == f"nvrtcX failed: SOME_ERROR (3)\n  hint: {DeviceError.way_out}"


def test_a_status_of_another_library_goes_without_explanation(monkeypatch: pytest.MonkeyPatch):
    assert fault(status_of(monkeypatch, "cudnnStatus_t", "BAD", 3), "cudnnX").message == "cudnnX failed: BAD (3)"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("CUresult", "CUDA_ERROR_OUT_OF_MEMORY"),
        ("cudaError_t", "cudaErrorMemoryAllocation"),
        ("nvrtcResult", "NVRTC_ERROR_OUT_OF_MEMORY"),
    ],
)
def test_running_out_of_memory_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch, kind: str, name: str):
    error = fault(status_of(monkeypatch, kind, name, 2), "cuX")
    assert type(error) is OutOfMemoryError
    assert error.exit_code == 6


def test_a_damaged_context_and_a_spoilt_capture_have_hints(monkeypatch: pytest.MonkeyPatch):
    damaged = fault(status_of(monkeypatch, "CUresult", "CUDA_ERROR_ILLEGAL_ADDRESS", 700), "cuStreamSynchronize")
    assert "compute-sanitizer" in damaged.hint
    capture = fault(status_of(monkeypatch, "CUresult", "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", 900), "cuMemAlloc")
    assert "before the capture" in capture.hint


def test_the_names_are_those_of_the_bindings():
    from cuda.bindings import driver, nvrtc, runtime

    known = {*driver.CUresult.__members__, *runtime.cudaError_t.__members__, *nvrtc.nvrtcResult.__members__}
    # CUDA_ERROR_CONTAINED came with CUDA 13.
    assert (OUT_OF_MEMORY | DAMAGED | GONE) - known == set()


@pytest.mark.parametrize(("result", "value"), [((0,), None), ((0, 5), 5), ((0, 5, 6), (5, 6)), ((0, None), None)])
def test_call_gives_what_came_behind_the_status(result: tuple[int, ...], value: object):
    assert call(lambda *arguments: result) == value


def test_call_names_the_function_that_failed(monkeypatch: pytest.MonkeyPatch):
    status = status_of(monkeypatch, "CUresult", "CUDA_ERROR_INVALID_VALUE", 1)

    def cuThing(first: int, second: int) -> tuple[object, int]:
        return status, first + second

    with pytest.raises(DeviceError, match=r"^cuThing failed: CUDA_ERROR_INVALID_VALUE \(1\)\n"):
        call(cuThing, 1, 2)
