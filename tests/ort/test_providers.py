"""Which device a list of providers means, and what is said of those that are not there."""

import warnings

import pytest

from miniinfer_cli import ort
from miniinfer_cli.ort import providers
from miniinfer_cli.ort.providers import Chosen, choose

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture(params=[None, "no NVIDIA driver"])
def fault(request, monkeypatch):
    monkeypatch.setattr(providers, "gpu_fault", lambda: request.param)
    return request.param


def chosen(wanted, options=None) -> Chosen:
    return choose(wanted, options, own={})


def test_without_providers_it_is_the_cpu(fault):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chosen(None) == chosen([]) == chosen([CPU]) == Chosen("cpu", {CPU: {}})
        assert choose(None, None, own={CPU: {"a": "b"}}) == Chosen("cpu", {CPU: {"a": "b"}})


def test_the_gpu_is_taken_where_it_is_there_and_else_told(fault):
    if fault is None:
        assert chosen([CUDA]) == chosen([CUDA, CPU]) == Chosen("cuda:0", {CUDA: {}, CPU: {}})
        assert chosen([(CUDA, {"device_id": 1}), CPU]).device == "cuda:1"
        assert chosen([CUDA], [{"device_id": "2"}]) == Chosen("cuda:2", {CUDA: {"device_id": "2"}, CPU: {}})
        assert (ort.get_device(), ort.get_available_providers()) == ("GPU", [CUDA, CPU])
    else:
        with pytest.warns(UserWarning, match=rf"{CUDA} \(no NVIDIA driver\); the session takes {CPU}"):
            assert chosen([CUDA]) == Chosen("cpu", {CPU: {}})
        assert (ort.get_device(), ort.get_available_providers()) == ("CPU", [CPU])


def test_others_are_told(fault):
    with pytest.warns(UserWarning, match=r"OpenVINOExecutionProvider \(not one of "):
        assert chosen(["OpenVINOExecutionProvider", CPU]) == Chosen("cpu", {CPU: {}})
    assert set(ort.get_available_providers()) < set(ort.get_all_providers())


def test_one_that_is_there_twice_is_told():
    with pytest.warns(UserWarning, match="twice"):
        assert chosen([(CPU, {"a": 1}), CPU]) == Chosen("cpu", {CPU: {"a": "1"}})


@pytest.mark.parametrize(
    ("wanted", "options", "error"),
    [
        (CPU, None, TypeError),
        ([CPU], [{}, {}], ValueError),
        (None, [{}], ValueError),
        ([(CPU, {})], [{"a": 1}], ValueError),
        ([(CPU,)], None, ValueError),
        ([3], None, ValueError),
        ([(CPU, "a")], None, ValueError),
    ],
)
def test_lists_that_do_not_fit_are_refused(wanted, options, error):
    with pytest.raises(error, match="provider"):
        chosen(wanted, options)


def test_a_gpu_has_a_number(monkeypatch):
    monkeypatch.setattr(providers, "gpu_fault", lambda: None)
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.EPFail, match="device_id"):
        chosen([(CUDA, {"device_id": "x"})])
