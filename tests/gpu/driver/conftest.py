"""What the tests of the driver share: the kernels, loaded, and cuDNN."""

from collections.abc import Iterator

import pytest

from miniinfer_cli.backends.cuda.driver.cudnn import Cudnn
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.module import Module
from miniinfer_cli.backends.cuda.driver.nvrtc import compile_kernel
from miniinfer_cli.backends.cuda.driver.stream import Stream
from tests.gpu.driver.kernels import KERNELS


@pytest.fixture(scope="module")
def module(device: Device) -> Module:
    """The kernels of ``kernels.py``."""
    return device.load(compile_kernel(KERNELS, "kernels", device.arch, {}).code)


@pytest.fixture(scope="module")
def opened(device: Device) -> Iterator[Cudnn]:
    with Cudnn(device) as made:
        yield made


@pytest.fixture
def cudnn(opened: Cudnn, stream: Stream) -> Iterator[Cudnn]:
    """With the test's own stream bound."""
    opened.bind(stream.handle)
    yield opened
    opened.unbind(stream.handle)
