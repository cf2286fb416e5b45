"""The libraries of a device behind one question: asked once for equal problems, and missed once where they are not here."""

import logging
from typing import Any

import pytest

from miniinfer_cli.backends.cuda.contract.problems import Compute, ConvolutionProblem, MatmulProblem
from miniinfer_cli.backends.cuda.driver import cublaslt, cudnn
from miniinfer_cli.backends.cuda.loading.libraries import Libraries
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.ir import DType
from tests.backends.cuda.driver.fake_cublaslt import FakeCublasLt
from tests.logs import Logged


class FakeDevice:
    def make_current(self) -> None:
        pass


def product() -> MatmulProblem:
    return MatmulProblem(m=3, n=4, k=5, a=DType.F32, b=DType.F32, d=DType.F32, compute=Compute.F32)


def convolution() -> ConvolutionProblem:
    return ConvolutionProblem(DType.F16, (1, 3, 3, 8), (8, 1, 1, 8), (1, 3, 3, 8), (1, 1), (1, 1), (0, 0), (0, 0))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCublasLt:
    """cuBLASLt is here, cuDNN is not."""
    made = FakeCublasLt()

    def missing(name: str) -> Any:
        raise DeviceError(f"the {name} library was not found")

    monkeypatch.setattr(cublaslt, "load_library", lambda name: made.library)
    monkeypatch.setattr(cudnn, "load_library", missing)
    return made


def test_a_library_is_opened_when_it_is_first_asked_and_asked_once_for_equal_problems(fake: FakeCublasLt):
    libraries = Libraries(FakeDevice())
    assert libraries.is_likely(product()) and fake.calls == []
    first = libraries.prepare(product())
    assert first is not None and libraries.prepare(product()) is first
    assert fake.calls.count("cublasLtCreate") == fake.calls.count("cublasLtMatmulAlgoGetHeuristic") == 1
    libraries.close()
    libraries.close()
    assert fake.calls.count("cublasLtDestroy") == 1


def test_what_is_being_loaded_ahead_is_waited_for(fake: FakeCublasLt) -> None:
    waited: list[list[str]] = []

    class Ahead:
        def wait(self) -> None:
            waited.append(list(fake.calls))

    libraries = Libraries(FakeDevice(), ahead=Ahead())
    assert waited == []
    libraries.prepare(product())
    assert waited == [[]]  # before anything of the library is called
    libraries.prepare(product())
    libraries.prepare(convolution())
    assert len(waited) == 2
    libraries.close()
    assert len(waited) == 3


def test_a_missing_library_solves_nothing_and_is_told_once(fake: FakeCublasLt, logged: Logged):
    libraries = Libraries(FakeDevice())
    with logged.at_level(logging.WARNING):
        assert libraries.prepare(convolution()) is None and libraries.prepare(convolution()) is None
    assert logged.messages == ["the cudnn library was not found; our own kernels take its place"]
    assert not libraries.is_likely(convolution()) and libraries.is_likely(product())
    assert libraries.missing == {"cudnn": "the cudnn library was not found"}
